//! Puts a token into every request, for clients that cannot send one.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

/// The longest head of a request.
const MAX_HEAD: usize = 64 << 10;

/// A proxy before a hub. It ends with the process.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) origin: String,
    listener: TcpListener,
}

impl Proxy {
    /// Takes a port, so that a hub can be told of the origin; nothing is answered yet.
    pub(crate) fn bind() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        Self { origin: format!("http://127.0.0.1:{port}"), listener }
    }

    /// Forwards to `hub` (`http://…`) from now on, with `Authorization: Bearer <token>` and all else as it came.
    pub(crate) fn forward(&self, hub: &str, token: &str) {
        let hub: SocketAddr =
            hub.strip_prefix("http://").expect("http://").parse().expect("an address");
        let (listener, token) = (self.listener.try_clone().expect("a socket"), token.to_owned());
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let token = token.clone();
                thread::spawn(move || pass(client, hub, &token));
            }
        });
    }
}

/// One request a connection: the hub is told to close it, so that no second one comes without the token.
fn pass(mut client: TcpStream, hub: SocketAddr, token: &str) -> io::Result<()> {
    let mut head = Vec::new();
    let end = loop {
        if let Some(at) = head.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 2;
        }
        let mut part = [0; 4096];
        let read = client.read(&mut part)?;
        if read == 0 || head.len() > MAX_HEAD {
            return Ok(());
        }
        head.extend_from_slice(&part[..read]);
    };
    let rest = head.split_off(end);
    let head = String::from_utf8_lossy(&head);
    let lines = head.lines().filter(|line| !line.to_ascii_lowercase().starts_with("connection:"));
    let mut sent = lines.collect::<Vec<_>>().join("\r\n");
    sent.push_str(&format!("\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n"));
    let mut server = TcpStream::connect(hub)?;
    for socket in [&client, &server] {
        socket.set_nodelay(true)?;
    }
    server.write_all(sent.as_bytes())?;
    server.write_all(&rest)?;
    let (mut from, mut to) = (client.try_clone()?, server.try_clone()?);
    thread::spawn(move || {
        let _ended = io::copy(&mut from, &mut to);
        let _gone = to.shutdown(Shutdown::Write);
    });
    let ended = io::copy(&mut server, &mut client);
    let _gone = client.shutdown(Shutdown::Both);
    ended.map(drop)
}
