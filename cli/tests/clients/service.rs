//! A service that the roles of `examples/` bring items to: it does what each item says, and remembers what came.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::Value;

/// How often each `Idempotency-Key` came.
type Seen = Arc<Mutex<HashMap<String, usize>>>;

/// It runs until the test ends.
pub(crate) struct Service {
    pub(crate) url: String,
    seen: Seen,
}

impl Service {
    /// One at a port of its own.
    pub(crate) fn start() -> Self {
        Self::start_brief(usize::MAX)
    }

    /// One that is gone after so many requests.
    pub(crate) fn start_brief(requests: usize) -> Self {
        Self::start_at(TcpListener::bind("127.0.0.1:0").expect("a port"), requests)
    }

    /// One where there was none before.
    pub(crate) fn start_late(address: SocketAddr) -> Self {
        Self::start_at(TcpListener::bind(address).expect("the port is still free"), usize::MAX)
    }

    /// An address at which nobody listens.
    pub(crate) fn nowhere() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("an address")
    }

    fn start_at(listener: TcpListener, requests: usize) -> Self {
        let url = format!("http://{}/", listener.local_addr().expect("an address"));
        let seen = Seen::default();
        let its = Arc::clone(&seen);
        thread::spawn(move || {
            for stream in listener.incoming().take(requests).map_while(Result::ok) {
                let seen = Arc::clone(&its);
                thread::spawn(move || answer(&stream, &seen));
            }
        });
        Self { url, seen }
    }

    /// How often the item `n` of the message came.
    pub(crate) fn count(&self, message: &str, n: usize) -> usize {
        let seen = self.seen.lock().expect("unpoisoned");
        seen.get(&format!("{message}/{n}")).copied().unwrap_or_default()
    }
}

/// One request on each connection: `ms` waits, `status` is the answer, `drop` closes so often without one.
fn answer(mut stream: &TcpStream, seen: &Seen) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let (mut key, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            if line.trim_end().is_empty() {
                break;
            }
            continue; // the line of the request itself
        };
        match name.to_ascii_lowercase().as_str() {
            "idempotency-key" => value.trim().clone_into(&mut key),
            "content-length" => length = value.trim().parse().expect("a length"),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let item: Value = serde_json::from_slice(&body).expect("JSON");
    let before = {
        let mut seen = seen.lock().expect("unpoisoned");
        let count = seen.entry(key).or_default();
        *count += 1;
        *count - 1
    };
    thread::sleep(Duration::from_millis(item["ms"].as_u64().unwrap_or_default()));
    if before < usize::try_from(item["drop"].as_u64().unwrap_or_default()).expect("few") {
        return None;
    }
    let status = item["status"].as_u64().unwrap_or(200);
    write!(stream, "HTTP/1.1 {status} So\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").ok()
}
