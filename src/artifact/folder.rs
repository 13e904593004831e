//! Artifacts as files: `<tenant>/<sha256>`, and beside each `<sha256>.json` with its type.
//!
//! A file appears as a whole: it is written under a name that begins with `.tmp-`, flushed, and renamed; its type
//! goes first. Files are their owner's alone. Several processes may share a folder: the same name is always the
//! same bytes. What a tenant has is counted from the disk, anew each minute, and carried on in between.

use std::collections::HashMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::artifact::{Artifact, Digest, Error, Kept, Limits, OCTETS};
use crate::clock::{Stopwatch, utc_now};

/// How long a count is carried on before the disk is counted again.
const COUNT_AGAIN: Duration = Duration::from_secs(60);
/// How long what was never finished stays: nobody writes for an hour.
const UNFINISHED: Duration = Duration::from_secs(3600);
/// What begins the name of a file that is not finished.
const TEMPORARY: &str = ".tmp-";

/// A folder of artifacts.
#[derive(Debug)]
pub(super) struct Folder {
    root: PathBuf,
    limits: Limits,
    /// What each tenant has. Held while a file is found or taken away, so that nothing goes that was just put again.
    used: Mutex<HashMap<String, Used>>,
}

#[derive(Debug, Clone, Copy)]
struct Used {
    bytes: u64,
    counted: Stopwatch,
}

/// What a sweep let go of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// How many artifacts.
    pub artifacts: u64,
    /// How large they were together.
    pub bytes: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Sidecar {
    mime: String,
    bytes: u64,
}

impl Folder {
    pub(super) fn new(root: PathBuf, limits: Limits) -> Self {
        Self { root, limits, used: Mutex::default() }
    }

    pub(super) async fn put(
        self: &Arc<Self>,
        tenant: &str,
        sha256: Digest,
        bytes: Vec<u8>,
        mime: &str,
    ) -> Result<(), Error> {
        let (len, most) = (bytes.len() as u64, self.limits.max_bytes);
        if len > most {
            return Err(Error::TooLarge { bytes: len, most });
        }
        let (tenant, mime) = (tenant.to_owned(), mime.to_owned());
        self.blocking(move |this| this.put_now(&tenant, sha256, &bytes, mime)).await
    }

    pub(super) async fn get(
        self: &Arc<Self>,
        tenant: &str,
        sha256: Digest,
    ) -> Result<Artifact, Error> {
        let (tenant, most) = (tenant.to_owned(), self.limits.max_bytes);
        self.blocking(move |this| {
            let Kept { path, mime } = this.find_now(&tenant, sha256)?;
            let bytes = path.metadata()?.len();
            // Once it was allowed; not everybody who reads has the memory for it.
            if bytes > most {
                return Err(Error::TooLarge { bytes, most });
            }
            Ok(Artifact { mime, bytes: std::fs::read(path)? })
        })
        .await
    }

    pub(super) async fn find(
        self: &Arc<Self>,
        tenant: &str,
        sha256: Digest,
    ) -> Result<Kept, Error> {
        let tenant = tenant.to_owned();
        self.blocking(move |this| this.find_now(&tenant, sha256)).await
    }

    pub(super) async fn sweep(self: &Arc<Self>, keep: Duration) -> Result<Swept, Error> {
        self.blocking(move |this| this.sweep_now(keep)).await
    }

    async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let this = Arc::clone(self);
        let worked = tokio::task::spawn_blocking(move || work(&this)).await;
        worked.map_err(|error| io::Error::other(error).into()).and_then(|worked| worked)
    }

    /// Where a tenant's artifacts are. Some file systems take `A` and `a` for the same, and tenants are not.
    fn dir(&self, tenant: &str) -> PathBuf {
        let name: String = tenant
            .chars()
            .flat_map(|c| [c.is_ascii_uppercase().then_some('.'), Some(c.to_ascii_lowercase())])
            .flatten()
            .collect();
        self.root.join(name)
    }

    fn used(&self) -> MutexGuard<'_, HashMap<String, Used>> {
        // A count that is off is put right at the next counting.
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put_now(
        &self,
        tenant: &str,
        sha256: Digest,
        bytes: &[u8],
        mime: String,
    ) -> Result<(), Error> {
        let (dir, len) = (self.dir(tenant), bytes.len() as u64);
        make_dir(&dir)?;
        let (path, name) = (dir.join(sha256.to_string()), format!("{sha256}.json"));
        {
            let mut used = self.used();
            if is_there(&path, len) {
                // It is new again: retention counts from the last time that anybody put it.
                File::options().append(true).open(&path)?.set_modified(now())?;
                return Ok(());
            }
            let most = self.limits.tenant_bytes;
            let known = used.get(tenant).filter(|used| used.counted.elapsed() < COUNT_AGAIN);
            let mut has = match known {
                Some(known) => *known,
                None => Used { bytes: count(&dir)?, counted: Stopwatch::start() },
            };
            let full = has.bytes.saturating_add(len) > most;
            if !full {
                has.bytes += len;
            }
            used.insert(tenant.to_owned(), has);
            if full {
                return Err(Error::Full { tenant: tenant.to_owned(), most });
            }
        }
        let sidecar = serde_json::to_vec(&Sidecar { mime, bytes: len }).map_err(io::Error::from)?;
        let written = write(&dir, &name, &sidecar)
            .and_then(|()| write(&dir, &sha256.to_string(), bytes))
            .and_then(|()| flush_dir(&dir));
        if written.is_err()
            && let Some(used) = self.used().get_mut(tenant)
        {
            used.bytes = used.bytes.saturating_sub(len);
        }
        Ok(written?)
    }

    fn find_now(&self, tenant: &str, sha256: Digest) -> Result<Kept, Error> {
        let dir = self.dir(tenant);
        let path = dir.join(sha256.to_string());
        match path.symlink_metadata() {
            Ok(found) if found.is_file() => {}
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
            _ => return Err(Error::Missing { tenant: tenant.to_owned(), sha256 }),
        }
        // Without its type it is still what it is.
        let sidecar = std::fs::read(dir.join(format!("{sha256}.json"))).ok();
        let sidecar = sidecar.and_then(|text| serde_json::from_slice::<Sidecar>(&text).ok());
        let mime = sidecar.map_or_else(|| OCTETS.to_owned(), |sidecar| super::clean(&sidecar.mime));
        Ok(Kept { path, mime })
    }

    fn sweep_now(&self, keep: Duration) -> Result<Swept, Error> {
        let mut swept = Swept::default();
        let tenants = match std::fs::read_dir(&self.root) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(swept),
            tenants => tenants?,
        };
        for tenant in tenants {
            let tenant = tenant?.path();
            if !tenant.is_dir() {
                continue;
            }
            for file in std::fs::read_dir(&tenant)? {
                let file = file?;
                let name = file.file_name();
                let Some(name) = name.to_str() else { continue };
                if name.starts_with(TEMPORARY) {
                    if is_older(&file.path(), UNFINISHED) {
                        let _gone_already = std::fs::remove_file(file.path());
                    }
                } else if Digest::parse(name).is_some() && is_older(&file.path(), keep) {
                    let _nobody_puts = self.used();
                    // Somebody may have put it again since.
                    if !is_older(&file.path(), keep) {
                        continue;
                    }
                    let bytes = file.metadata().map_or(0, |found| found.len());
                    std::fs::remove_file(file.path())?;
                    let _gone_already = std::fs::remove_file(tenant.join(format!("{name}.json")));
                    swept.artifacts += 1;
                    swept.bytes += bytes;
                }
            }
        }
        if swept.artifacts > 0 {
            self.used().clear();
        }
        Ok(swept)
    }
}

fn now() -> SystemTime {
    utc_now().into()
}

fn is_there(path: &Path, len: u64) -> bool {
    path.symlink_metadata().is_ok_and(|found| found.is_file() && found.len() == len)
}

fn is_older(path: &Path, than: Duration) -> bool {
    let modified = path.symlink_metadata().and_then(|found| found.modified());
    modified.is_ok_and(|at| now().duration_since(at).is_ok_and(|age| age > than))
}

/// How much lies in a tenant's folder.
fn count(dir: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for file in std::fs::read_dir(dir)? {
        // What has just gone is nothing.
        bytes += file?.metadata().map_or(0, |found| found.len());
    }
    Ok(bytes)
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
