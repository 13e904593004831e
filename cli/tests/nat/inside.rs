//! Code of ours within a network namespace.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;
use tokio::runtime;

/// Where `ip netns` keeps them.
const NAMESPACES: &str = "/run/netns";

/// Runs `what` on a thread that lives in the namespace; sockets that it opens stay there.
pub(crate) fn inside<T: Send>(namespace: &str, what: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            enter(namespace).expect("the namespace is there");
            what()
        });
        thread.join().expect("no panic inside of the namespace")
    })
}

/// Serves in the namespace until the process ends.
pub(crate) fn serve<F>(namespace: &str, what: impl FnOnce() -> F + Send + 'static)
where
    F: Future<Output = Result<()>>,
{
    let namespace = namespace.to_owned();
    let (ready, is_ready) = std::sync::mpsc::channel();
    thread::spawn(move || -> Result<()> {
        enter(&namespace)?;
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let _gone = ready.send(());
        runtime.block_on(what())
    });
    is_ready.recv().expect("the namespace is there");
}

fn enter(namespace: &str) -> Result<()> {
    let file = File::open(Path::new(NAMESPACES).join(namespace))?;
    let network = Some(LinkNameSpaceType::Network);
    Ok(move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), network)?)
}

/// One request to `http://host/path` from within the namespace; the answer, which must be a good one.
pub(crate) fn http(
    namespace: &str,
    method: &str,
    (host, path): (&str, &str),
    key: &str,
    body: &str,
) -> Result<Value> {
    inside(namespace, || {
        let mut stream = TcpStream::connect(host).context("connecting")?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\napikey: {key}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| anyhow!("no HTTP"))?;
        ensure!(head.starts_with("HTTP/1.1 2"), "{method} {path}: {answer}");
        Ok(serde_json::from_str(body).unwrap_or(Value::Null))
    })
}
