//! A client of server-sent events that can be cut off at any byte.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use cogo::hub::{bind, serve};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::hub::{DEADLINE, TestHub};

/// A hub behind a socket.
pub(super) struct Site {
    pub(super) hub: TestHub,
    pub(super) address: SocketAddr,
    serving: JoinHandle<std::io::Result<()>>,
}

impl Site {
    pub(super) async fn serve(hub: TestHub) -> Result<Self> {
        let listener = bind(([127, 0, 0, 1], 0).into(), false).await?;
        let address = listener.local_addr()?;
        let (router, shutdown) = (hub.router.clone(), hub.shutdown.clone());
        let serving = hub.tasks.spawn(async move { serve(listener, router, &shutdown).await });
        Ok(Self { hub, address, serving })
    }

    /// Drains it and waits until it is gone.
    pub(super) async fn stop(self) -> Result<()> {
        self.hub.shutdown.drain();
        tokio::time::timeout(DEADLINE, self.serving).await.context("serving goes on")???;
        Ok(())
    }
}

/// One event, read to its end.
#[derive(Debug, Clone)]
pub(super) struct Told {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) data: Value,
}

/// A connection on which a stream was asked for.
pub(super) struct Sse {
    stream: TcpStream,
    bytes: Vec<u8>,
}

impl Sse {
    pub(super) async fn open(address: SocketAddr, path: &str, last: Option<&str>) -> Result<Self> {
        let mut stream = TcpStream::connect(address).await?;
        let last = last.map_or(String::new(), |id| format!("Last-Event-ID: {id}\r\n"));
        let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{last}\r\n");
        stream.write_all(head.as_bytes()).await?;
        Ok(Self { stream, bytes: Vec::new() })
    }

    /// Reads some more; false at the end.
    async fn more(&mut self, most: usize) -> Result<bool> {
        let mut piece = vec![0; most];
        let read = self.stream.read(&mut piece).await?;
        self.bytes.extend(&piece[..read]);
        Ok(read > 0)
    }

    /// Reads so many bytes, or as many as come before nothing does for a while; then it is cut.
    pub(super) async fn read_bytes(&mut self, count: usize, quiet: Duration) -> Result<()> {
        let until = self.bytes.len() + count;
        while self.bytes.len() < until {
            let more = self.more(until - self.bytes.len());
            match tokio::time::timeout(quiet, more).await {
                Ok(Ok(true)) => {}
                // A hub that goes may reset what it had not sent.
                Ok(Ok(false) | Err(_)) | Err(_) => break,
            }
        }
        Ok(())
    }

    /// Reads until what was read is enough.
    pub(super) async fn until(&mut self, enough: impl Fn(&str) -> bool) -> Result<()> {
        let read = async {
            while !enough(&self.text()) {
                anyhow::ensure!(self.more(4096).await?, "it ended: {}", self.text());
            }
            Ok(())
        };
        let waited = tokio::time::timeout(DEADLINE, read).await;
        waited.context("it did not come")?
    }

    pub(super) async fn head(&mut self) -> Result<String> {
        let is_whole = |bytes: &[u8]| bytes.windows(4).any(|four| four == b"\r\n\r\n");
        let read = async {
            while !is_whole(&self.bytes) {
                anyhow::ensure!(self.more(1024).await?, "no head");
            }
            Ok(())
        };
        tokio::time::timeout(DEADLINE, read).await.context("no head")??;
        let text = String::from_utf8_lossy(&self.bytes).into_owned();
        Ok(text.split("\r\n\r\n").next().unwrap_or_default().to_owned())
    }

    /// Reads to the end.
    pub(super) async fn end(&mut self) -> Result<()> {
        let read = async {
            while self.more(4096).await? {}
            anyhow::Ok(())
        };
        tokio::time::timeout(DEADLINE, read).await.context("it goes on")?
    }

    /// Whether the last chunk came, and not just the end of the connection.
    pub(super) fn was_whole(&self) -> bool {
        self.bytes.ends_with(b"0\r\n\r\n")
    }

    /// The body, as far as whole chunks of it were read, and what was read of the last.
    fn body(&self) -> Vec<u8> {
        let Some(head) = self.bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
            return Vec::new();
        };
        let text = String::from_utf8_lossy(&self.bytes[..head]).to_lowercase();
        let mut left = &self.bytes[head + 4..];
        if !text.contains("transfer-encoding: chunked") {
            return left.to_vec();
        }
        let mut body = Vec::new();
        while let Some(line) = left.windows(2).position(|two| two == b"\r\n") {
            let size = std::str::from_utf8(&left[..line]).ok();
            let Some(size) = size.and_then(|size| usize::from_str_radix(size, 16).ok()) else {
                break;
            };
            left = &left[line + 2..];
            body.extend(&left[..size.min(left.len())]);
            if left.len() < size + 2 {
                break;
            }
            left = &left[size + 2..];
        }
        body
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body()).into_owned()
    }

    /// What a browser would send as `Last-Event-ID`: the last `id` of what was read to its end, with an event or without.
    pub(super) fn last_id(&self) -> Option<String> {
        let text = self.text();
        let (whole, _) = text.rsplit_once("\n\n")?;
        whole.lines().filter_map(|line| line.strip_prefix("id: ")).next_back().map(str::to_owned)
    }

    /// The events that were read to their ends.
    pub(super) fn events(&self) -> Result<Vec<Told>> {
        let body = self.text();
        let mut told = Vec::new();
        let mut blocks: Vec<&str> = body.split("\n\n").collect();
        // What was cut off in the middle counts for nothing, as in a browser.
        blocks.pop();
        for block in blocks {
            let field = |name: &str| {
                let lines = block.lines();
                lines.filter_map(|line| line.strip_prefix(name)).next_back().map(str::to_owned)
            };
            let (Some(data), Some(name)) = (field("data: "), field("event: ")) else { continue };
            let id = field("id: ").context("an id")?;
            told.push(Told { id, name, data: serde_json::from_str(&data)? });
        }
        Ok(told)
    }
}
