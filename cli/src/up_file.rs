//! `up.json` in the data directory: where the hub of a running `cogo up` is.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use cogo_worker_mcp_gateway::config::DEMO;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::exit::{Exit, Failed};
use crate::private_file;

/// The file's name.
const NAME: &str = "up.json";
/// How long the hub may take to answer; it is on this machine.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// The most that is read of an answer.
const MAX_ANSWER: u64 = 64 << 10;

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UpFile {
    pub(crate) pid: u32,
    pub(crate) url: String,
}

/// The file, removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Written(PathBuf);

impl UpFile {
    pub(crate) fn write(&self, data_dir: &Path) -> Result<Written> {
        let path = data_dir.join(NAME);
        private_file::replace(&path, format!("{}\n", serde_json::to_string(self)?))?;
        Ok(Written(path))
    }

    /// What the file says, if there is one. After `kill -9` it may be about a process that is gone.
    pub(crate) fn read(data_dir: &Path) -> Option<Self> {
        let text = std::fs::read_to_string(data_dir.join(NAME)).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// Whether the hub says that it is ready; if not, what it says.
    pub(crate) async fn ready(&self) -> Result<()> {
        says_yes(&self.url, "/readyz").await
    }

    /// Where the toolset `demo` of the running `cogo up` is, if it can be asked.
    pub(crate) async fn demo(&self) -> Option<String> {
        let asked = get(&self.url, "/api/mcp/config");
        let (_, body) = tokio::time::timeout(ANSWER_WITHIN, asked).await.ok()?.ok()?;
        let answer: serde_json::Value = serde_json::from_str(&body).ok()?;
        Some(answer["toolsets"][DEMO]["endpoint"].as_str()?.to_owned())
    }
}

/// Whether what listens at `url` answers `path` with 200; if not, what it says.
pub(crate) async fn says_yes(url: &str, path: &str) -> Result<()> {
    let answer = tokio::time::timeout(ANSWER_WITHIN, get(url, path));
    let (status, body) = answer.await.context("does not answer in time")??;
    if status == 200 {
        return Ok(());
    }
    Err(Failed::new(Exit::Failed, format!("not ready ({status}): {}", body.trim())).into())
}

/// One GET over HTTP/1.0 (RFC 1945), which needs no parser: the body ends with the connection.
async fn get(url: &str, path: &str) -> Result<(u16, String)> {
    let host = url.strip_prefix("http://").context("is no http:// address")?;
    let mut stream = TcpStream::connect(host).await.context("does not answer")?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").context("answered no HTTP")?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok((status.context("answered no HTTP")?, body.to_owned()))
}

impl Drop for Written {
    fn drop(&mut self) {
        let _best_effort = std::fs::remove_file(&self.0);
    }
}
