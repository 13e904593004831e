//! A small HTTP client, that shows every way in which an answer can be missing.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// What the hub's admin token is.
pub(crate) const TOKEN: &str = "an-admin-token-for-chaos";

/// Where the hub is whose `up.json` this is.
pub(crate) fn hub_address(file: &Path) -> Option<SocketAddr> {
    let up: Value = serde_json::from_str(&std::fs::read_to_string(file).ok()?).ok()?;
    up["url"].as_str()?.strip_prefix("http://")?.parse().ok()
}

/// One request; the answer's status and body, if it came whole and in time.
pub(crate) async fn request(
    to: SocketAddr,
    method: &str,
    path: &str,
    body: &str,
    within: Duration,
) -> io::Result<(u16, Value)> {
    let exchange = async {
        let mut stream = TcpStream::connect(to).await?;
        stream.write_all(text(to, method, path, body).as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        parse(&answer).ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))
    };
    tokio::time::timeout(within, exchange).await.map_err(|_| io::ErrorKind::TimedOut)?
}

/// The request as it is sent.
pub(crate) fn text(to: SocketAddr, method: &str, path: &str, body: &str) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nhost: {to}\r\nconnection: close\r\nx-admin-token: {TOKEN}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Status and body; `None` if the answer is cut off.
fn parse(answer: &[u8]) -> Option<(u16, Value)> {
    let answer = std::str::from_utf8(answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    if length.is_some_and(|length| length != body.len()) {
        return None;
    }
    Some((status, serde_json::from_str(body).unwrap_or_else(|_| Value::from(body))))
}

#[test]
fn an_answer_that_is_cut_off_is_none() {
    let whole = b"HTTP/1.1 202 Accepted\r\nContent-Length: 11\r\n\r\n{\"ok\":true}";
    assert_eq!(parse(whole), Some((202, serde_json::json!({"ok": true}))));
    assert_eq!(parse(&whole[..whole.len() - 1]), None);
    assert_eq!(parse(&whole[..20]), None);
}
