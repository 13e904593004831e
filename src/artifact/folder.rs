//! Artifacts as files: `<tenant>/<sha256>`, and beside each `<sha256>.json` with its type.
//!
//! A file appears as a whole: it is written under a name that begins with `.tmp-`, flushed, and renamed; its type
//! goes first. Files are their owner's alone. Several processes may share a folder: the same name is always the
//! same bytes.

mod list;

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use chrono::{DateTime, Utc};
use futures_util::future::{BoxFuture, FutureExt as _};
use futures_util::stream::{self, StreamExt as _};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::artifact::backend::{Backend, Body, Name, Opened, Page, Range, Stat};
use crate::artifact::{Error, OCTETS};
use crate::clock::utc_now;

/// How long what was never finished stays: nobody writes for an hour.
const UNFINISHED: Duration = Duration::from_secs(3600);
/// What begins the name of a file that is not finished.
const TEMPORARY: &str = ".tmp-";
/// How much is read at once; so much of each artifact under way is in memory.
const PIECE: usize = 256 << 10;

/// A folder of artifacts.
#[derive(Debug, Clone)]
pub(super) struct Folder(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    /// Held while a file is made new or taken away, so that nothing goes that was just put again.
    renewing: Mutex<()>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Sidecar {
    mime: String,
    bytes: u64,
}

impl Folder {
    pub(super) fn new(root: PathBuf) -> Self {
        Self(Arc::new(Inner { root, renewing: Mutex::default() }))
    }

    fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, Error> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, Error>> {
        let this = Arc::clone(&self.0);
        async move {
            let worked = tokio::task::spawn_blocking(move || work(&this)).await;
            worked.map_err(|error| io::Error::other(error).into()).and_then(|worked| worked)
        }
        .boxed()
    }
}

impl Backend for Folder {
    fn put<'a>(
        &'a self,
        name: &'a Name,
        bytes: Vec<u8>,
        mime: &'a str,
    ) -> BoxFuture<'a, Result<(), Error>> {
        let (name, mime) = (name.clone(), mime.to_owned());
        self.blocking(move |this| Ok(this.put(&name, &bytes, mime)?))
    }

    fn renew<'a>(&'a self, name: &'a Name, bytes: u64) -> BoxFuture<'a, Result<bool, Error>> {
        let name = name.clone();
        self.blocking(move |this| Ok(this.renew(&name, bytes)?))
    }

    fn stat<'a>(&'a self, name: &'a Name) -> BoxFuture<'a, Result<Stat, Error>> {
        let name = name.clone();
        self.blocking(move |this| this.stat(&name))
    }

    fn open<'a>(
        &'a self,
        name: &'a Name,
        range: Option<Range>,
    ) -> BoxFuture<'a, Result<Opened, Error>> {
        let name = name.clone();
        self.blocking(move |this| this.open(&name, range))
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a Name>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Page, Error>> {
        let (prefix, after) = (prefix.to_owned(), after.cloned());
        self.blocking(move |this| Ok(list::list(&this.root, &prefix, after.as_ref(), limit)?))
    }

    fn delete<'a>(
        &'a self,
        name: &'a Name,
        unless_after: Option<DateTime<Utc>>,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        let name = name.clone();
        self.blocking(move |this| Ok(this.delete(&name, unless_after)?))
    }

    fn tidy(&self) -> BoxFuture<'_, Result<(), Error>> {
        self.blocking(|this| Ok(list::tidy(&this.root, UNFINISHED)?))
    }
}

impl Inner {
    fn path(&self, name: &Name) -> PathBuf {
        self.root.join(list::dir_name(&name.tenant)).join(name.sha256.to_string())
    }

    fn put(&self, name: &Name, bytes: &[u8], mime: String) -> io::Result<()> {
        let path = self.path(name);
        let dir = path.parent().unwrap_or(&self.root);
        make_dir(dir)?;
        let sidecar = serde_json::to_vec(&Sidecar { mime, bytes: bytes.len() as u64 })?;
        write(dir, &format!("{}.json", name.sha256), &sidecar)?;
        write(dir, &name.sha256.to_string(), bytes)?;
        flush_dir(dir)
    }

    fn renew(&self, name: &Name, bytes: u64) -> io::Result<bool> {
        let path = self.path(name);
        let _nobody_sweeps = self.renewing.lock().unwrap_or_else(PoisonError::into_inner);
        if !path.symlink_metadata().is_ok_and(|found| found.is_file() && found.len() == bytes) {
            return Ok(false);
        }
        // Retention counts from the last time that anybody put it.
        File::options().append(true).open(&path)?.set_modified(now())?;
        Ok(true)
    }

    fn stat(&self, name: &Name) -> Result<Stat, Error> {
        let path = self.path(name);
        let found = match path.symlink_metadata() {
            Ok(found) if found.is_file() => found,
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
            _ => return Err(Error::missing(name)),
        };
        // Without its type it is still what it is.
        let sidecar = std::fs::read(path.with_extension("json")).ok();
        let sidecar = sidecar.and_then(|text| serde_json::from_slice::<Sidecar>(&text).ok());
        let mime = sidecar.map_or_else(|| OCTETS.to_owned(), |sidecar| super::clean(&sidecar.mime));
        Ok(Stat { bytes: found.len(), mime, modified: found.modified()?.into() })
    }

    fn open(&self, name: &Name, range: Option<Range>) -> Result<Opened, Error> {
        let stat = self.stat(name)?;
        let mut file = match File::open(self.path(name)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(Error::missing(name)),
            file => file?,
        };
        let (first, len) = range.map_or((0, stat.bytes), |range| (range.first, range.len()));
        file.seek(SeekFrom::Start(first))?;
        Ok(Opened { stat, body: pieces(file, len) })
    }

    fn delete(&self, name: &Name, unless_after: Option<DateTime<Utc>>) -> io::Result<bool> {
        let path = self.path(name);
        let _nobody_renews = self.renewing.lock().unwrap_or_else(PoisonError::into_inner);
        let modified = path.symlink_metadata().and_then(|found| found.modified());
        let is_new = |modified: SystemTime| {
            unless_after.is_some_and(|after| DateTime::<Utc>::from(modified) > after)
        };
        match modified {
            Ok(modified) if is_new(modified) => return Ok(false),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            _ => std::fs::remove_file(&path)?,
        }
        let _gone_already = std::fs::remove_file(path.with_extension("json"));
        Ok(true)
    }
}

/// `left` bytes of a file from where it stands.
fn pieces(file: File, left: u64) -> Body {
    stream::try_unfold((file, left), |(mut file, left)| async move {
        if left == 0 {
            return Ok(None);
        }
        let reading = tokio::task::spawn_blocking(move || {
            let mut piece = vec![0; usize::try_from(left).unwrap_or(PIECE).min(PIECE)];
            let read = file.read(&mut piece)?;
            piece.truncate(read);
            Ok::<_, io::Error>((file, piece))
        });
        let (file, piece) = reading.await.map_err(io::Error::other)??;
        if piece.is_empty() {
            return Err(io::Error::from(ErrorKind::UnexpectedEof).into());
        }
        let left = left.saturating_sub(piece.len() as u64);
        Ok(Some((piece, (file, left))))
    })
    .boxed()
}

fn now() -> SystemTime {
    utc_now().into()
}

/// Writes a file that appears as a whole.
fn write(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = dir.join(format!("{TEMPORARY}{}", Uuid::new_v4().simple()));
    let written = create(&temporary)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        })
        .and_then(|()| std::fs::rename(&temporary, dir.join(name)));
    if written.is_err() {
        let _never_made = std::fs::remove_file(&temporary);
    }
    written
}

/// Makes a directory that its owner alone may enter: artifacts may be confidential.
fn make_dir(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
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

/// Renames are on disk only then.
fn flush_dir(dir: &Path) -> io::Result<()> {
    #[cfg(unix)]
    File::open(dir)?.sync_all()?;
    #[cfg(not(unix))]
    let _ = dir;
    Ok(())
}
