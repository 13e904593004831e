//! What each attempt leaves behind: `mcp/<toolset>/<time>-<message id>/` below the artifacts
//! directory, with `request.json`, `summary.json`, and `response.json` or `error.json` or both.
//!
//! A directory appears as a whole: it is written under a name that begins with `.tmp-` and then renamed.
//! What is kept of a failure is flushed to disk before that; of a success it is not, since the call that waits
//! for it is in the log with its result, and three flushes took longer than all else that a call does: what was
//! written in the last seconds before a power cut may be empty then. Secrets are out before anything is
//! written. A disk that fails never fails a call.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cogo::clock::utc_now;
use cogo::message::MessageId;
use serde_json::Value;

use crate::metrics;
use crate::redact::Redactor;

/// How many directories of one message may bear the same millisecond.
const MAX_SAME_TIME: u32 = 16;

/// Writes artifacts.
#[derive(Debug, Clone)]
pub struct Capture {
    root: PathBuf,
    redactor: Arc<Redactor>,
}

/// One attempt. What is `None` gets no file.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// What was asked for.
    pub request: Value,
    /// What the server answered.
    pub response: Option<Value>,
    /// Who, when, how long, how it ended.
    pub summary: Value,
    /// Why it failed.
    pub error: Option<Value>,
}

impl Capture {
    /// Artifacts go below `root`, which is made when first needed.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>, redactor: Arc<Redactor>) -> Self {
        Self { root: root.into(), redactor }
    }

    /// Writes one attempt of `message` at `toolset`, which must be the name of a toolset. Gives the
    /// directory's path relative to the artifacts directory; `None` if it could not be written
    /// within `patience`, which is logged and counted.
    pub async fn write(
        &self,
        toolset: &str,
        message: MessageId,
        record: Record,
        patience: Duration,
    ) -> Option<String> {
        let (this, name) = (self.clone(), toolset.to_owned());
        let written = tokio::task::spawn_blocking(move || this.write_now(&name, message, &record));
        let written = tokio::time::timeout(patience, written).await;
        let written = match written {
            Ok(outcome) => outcome.map_err(io::Error::other).and_then(|outcome| outcome),
            Err(_) => Err(io::ErrorKind::TimedOut.into()), // the thread may still finish
        };
        match written {
            Ok(path) => Some(path),
            Err(error) => {
                metrics::artifact_failed(toolset);
                tracing::error!(
                    message.id = %message, mcp.toolset = %toolset, error = %error,
                    "Cannot write the artifacts of {message}; its result stands"
                );
                None
            }
        }
    }

    fn write_now(&self, toolset: &str, message: MessageId, record: &Record) -> io::Result<String> {
        let relative = PathBuf::from("mcp").join(toolset);
        let parent = self.root.join(&relative);
        directory(&parent, true)?;
        let time = utc_now().format("%Y%m%dT%H%M%S%.3fZ");
        let mut last = None;
        for number in 1..=MAX_SAME_TIME {
            let name = match number {
                1 => format!("{time}-{message}"),
                more => format!("{time}-{message}-{more}"),
            };
            let (temporary, target) = (parent.join(format!(".tmp-{name}")), parent.join(&name));
            match self.fill(&temporary, record).and_then(|()| take(&temporary, &target)) {
                Ok(()) => return Ok(relative.join(name).to_string_lossy().into_owned()),
                Err(error) => {
                    if error.kind() != io::ErrorKind::AlreadyExists {
                        let _ = std::fs::remove_dir_all(&temporary);
                        return Err(error);
                    }
                    last = Some(error);
                }
            }
        }
        Err(last.unwrap_or_else(|| io::ErrorKind::AlreadyExists.into()))
    }

    fn fill(&self, dir: &Path, record: &Record) -> io::Result<()> {
        directory(dir, false)?;
        let files = [
            ("request.json", Some(&record.request)),
            ("response.json", record.response.as_ref()),
            ("summary.json", Some(&record.summary)),
            ("error.json", record.error.as_ref()),
        ];
        for (name, value) in files {
            if let Some(value) = value {
                let mut text = serde_json::to_vec_pretty(&self.redactor.artifact(value))?;
                text.push(b'\n');
                let mut file = create(&dir.join(name))?;
                file.write_all(&text)?;
                if record.error.is_some() {
                    file.sync_all()?;
                }
            }
        }
        Ok(())
    }
}

/// Gives `temporary` its name, unless that is taken: a rename would replace an empty directory.
fn take(temporary: &Path, target: &Path) -> io::Result<()> {
    if target.symlink_metadata().is_ok() {
        std::fs::remove_dir_all(temporary)?;
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    std::fs::rename(temporary, target)
}

/// Makes a directory that its owner alone may enter: results may be confidential.
fn directory(path: &Path, recursive: bool) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(recursive);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}
