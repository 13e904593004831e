//! The store: what holds whatever keeps the bytes.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::Utc;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use sha2::{Digest as _, Sha256};

use crate::artifact::backend::{Backend, Body, Listed, Name, Opened, Page, Range, Stat, Usage};
use crate::artifact::folder::Folder;
use crate::artifact::limits::Ledger;
use crate::artifact::{Artifact, ArtifactRef, Digest, Error, FOLDER, Limits, Remote, clean};
use crate::clock::utc_now;
use crate::message::valid_name;

/// How long a count of a folder is carried on before it is counted again.
const COUNT_FOLDER_AGAIN: Duration = Duration::from_secs(60);
/// How many artifacts one turn of a sweep looks at, and so how many it can let go of.
const SWEPT_AT_ONCE: usize = 1000;
/// How many artifacts of a list are asked for their types at once.
const ASKED_AT_ONCE: usize = 16;

/// Keeps artifacts. Cheap to clone; clones share the count of what each tenant has.
#[derive(Debug, Clone)]
pub struct Store(Way);

#[derive(Debug, Clone)]
enum Way {
    Own(Arc<Own>),
    Hub(Arc<dyn Remote>),
}

#[derive(Debug)]
struct Own {
    backend: Arc<dyn Backend>,
    limits: Limits,
    ledger: Ledger,
    /// How far the sweep that is under way has come.
    swept: Mutex<Option<Name>>,
}

/// What a turn of a sweep let go of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// How many artifacts.
    pub artifacts: u64,
    /// How large they were together.
    pub bytes: u64,
    /// Whether there is more to look at.
    pub more: bool,
}

impl Store {
    /// Keeps them below `artifacts_dir`, in the folder `blobs`, which is made when first needed.
    #[must_use]
    pub fn folder(artifacts_dir: impl Into<PathBuf>, limits: Limits) -> Self {
        let folder = Folder::new(artifacts_dir.into().join(FOLDER));
        Self::with(Arc::new(folder), limits, COUNT_FOLDER_AGAIN)
    }

    /// Keeps them by a backend; what a tenant has is counted there every `count_again`.
    #[must_use]
    pub fn with(backend: Arc<dyn Backend>, limits: Limits, count_again: Duration) -> Self {
        let (ledger, swept) = (Ledger::new(count_again), Mutex::default());
        Self(Way::Own(Arc::new(Own { backend, limits, ledger, swept })))
    }

    /// Keeps them at a hub.
    #[must_use]
    pub fn hub(remote: Arc<dyn Remote>) -> Self {
        Self(Way::Hub(remote))
    }

    /// Keeps `bytes` of the type `mime` for `tenant`. When this returns they are on disk, or in the bucket.
    ///
    /// # Errors
    /// See [`Error`]; nothing of it is kept then.
    pub async fn put(
        &self,
        tenant: &str,
        bytes: Vec<u8>,
        mime: &str,
    ) -> Result<ArtifactRef, Error> {
        let (sha256, bytes) = hashed(bytes).await?;
        self.keep(tenant, sha256, bytes, mime).await
    }

    /// As [`Store::put`], of bytes that somebody says are `named`.
    ///
    /// # Errors
    /// Also [`Error::Mismatch`].
    pub async fn put_named(
        &self,
        tenant: &str,
        named: Digest,
        bytes: Vec<u8>,
        mime: &str,
    ) -> Result<ArtifactRef, Error> {
        let (found, bytes) = hashed(bytes).await?;
        if found != named {
            return Err(Error::Mismatch { named, found });
        }
        self.keep(tenant, found, bytes, mime).await
    }

    async fn keep(
        &self,
        tenant: &str,
        sha256: Digest,
        bytes: Vec<u8>,
        mime: &str,
    ) -> Result<ArtifactRef, Error> {
        check(tenant)?;
        let (mime, len) = (clean(mime), bytes.len() as u64);
        match &self.0 {
            Way::Own(own) => own.put(&Name::new(tenant, sha256), bytes, &mime).await?,
            Way::Hub(hub) => hub.put(tenant, sha256, bytes, &mime).await?,
        }
        Ok(ArtifactRef { tenant: tenant.to_owned(), sha256, bytes: len, mime })
    }

    /// Gets an artifact, and sees that it is what it is called.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn get(&self, tenant: &str, sha256: Digest) -> Result<Artifact, Error> {
        check(tenant)?;
        match &self.0 {
            Way::Own(own) => own.get(&Name::new(tenant, sha256)).await,
            Way::Hub(hub) => {
                let Artifact { mime, bytes } = hub.get(tenant, sha256).await?;
                let (found, bytes) = hashed(bytes).await?;
                if found != sha256 {
                    return Err(Error::Mismatch { named: sha256, found });
                }
                Ok(Artifact { mime, bytes })
            }
        }
    }

    /// Asks for one artifact, whichever, to see that the store can be asked at all.
    ///
    /// # Errors
    /// What is wrong with how it is set up, or that it does not answer.
    pub async fn check(&self) -> Result<(), Error> {
        match &self.0 {
            Way::Own(own) => own.backend.list("", None, 1).await.map(drop),
            Way::Hub(_) => Ok(()),
        }
    }

    /// What is known of an artifact.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn stat(&self, tenant: &str, sha256: Digest) -> Result<Stat, Error> {
        check(tenant)?;
        self.own("looked at")?.backend.stat(&Name::new(tenant, sha256)).await
    }

    /// Reads an artifact piece by piece, or the bytes of `range`. Read as a whole, its last piece comes only if all of
    /// them are what the artifact is called.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn open(
        &self,
        tenant: &str,
        sha256: Digest,
        range: Option<Range>,
    ) -> Result<Opened, Error> {
        check(tenant)?;
        let own = self.own("read piece by piece")?;
        let Opened { stat, body } = own.backend.open(&Name::new(tenant, sha256), range).await?;
        let body = if range.is_none() { checked(body, sha256) } else { body };
        Ok(Opened { stat, body })
    }

    /// Up to `limit` artifacts with their types, whose `<tenant>/<sha256>` begins with `prefix`, after `after`.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn list(
        &self,
        prefix: &str,
        after: Option<&Name>,
        limit: usize,
    ) -> Result<(Vec<(Listed, String)>, Option<Name>), Error> {
        let own = self.own("listed")?;
        let Page { artifacts, more } = own.backend.list(prefix, after, limit).await?;
        let next = artifacts.last().filter(|_| more).map(|last| last.name.clone());
        let typed = stream::iter(artifacts).map(|listed| async move {
            match own.backend.stat(&listed.name).await {
                Ok(stat) => Ok(Some((listed, stat.mime))),
                // It has just gone.
                Err(Error::Missing { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        });
        let typed: Vec<_> = typed.buffered(ASKED_AT_ONCE).try_collect().await?;
        Ok((typed.into_iter().flatten().collect(), next))
    }

    /// The same without types, which cost a look at each.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn names(
        &self,
        prefix: &str,
        after: Option<&Name>,
        limit: usize,
    ) -> Result<Page, Error> {
        self.own("listed")?.backend.list(prefix, after, limit).await
    }

    /// Lets an artifact go; whether it was there.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn delete(&self, tenant: &str, sha256: Digest) -> Result<bool, Error> {
        check(tenant)?;
        let own = self.own("deleted")?;
        let gone = own.backend.delete(&Name::new(tenant, sha256), None).await?;
        own.ledger.forget();
        Ok(gone)
    }

    /// How much a tenant has, counted one by one.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn usage(&self, tenant: &str) -> Result<Usage, Error> {
        check(tenant)?;
        self.own("counted")?.backend.usage(tenant).await
    }

    /// One turn of letting go of what nobody has put for `keep`: looks at so many artifacts, and says whether there are
    /// more. The next turn goes on where this one ended. Of a hub's store nothing, for the hub does that itself.
    ///
    /// # Errors
    /// When the disk or the bucket refuses; what went before that is gone.
    pub async fn sweep(&self, keep: Duration) -> Result<Swept, Error> {
        match &self.0 {
            Way::Own(own) => own.sweep(keep).await,
            Way::Hub(_) => Ok(Swept::default()),
        }
    }

    fn own(&self, what: &'static str) -> Result<&Own, Error> {
        match &self.0 {
            Way::Own(own) => Ok(own),
            Way::Hub(_) => Err(Error::Unsupported(what)),
        }
    }
}

impl Own {
    async fn put(&self, name: &Name, bytes: Vec<u8>, mime: &str) -> Result<(), Error> {
        let (len, most) = (bytes.len() as u64, self.limits.max_bytes);
        if len > most {
            return Err(Error::TooLarge { bytes: len, most });
        }
        if self.backend.renew(name, len).await? {
            return Ok(());
        }
        let tenant = &name.tenant;
        self.ledger.take(&*self.backend, tenant, len, self.limits.tenant_bytes).await?;
        let kept = self.backend.put(name, bytes, mime).await;
        if kept.is_err() {
            self.ledger.give_back(tenant, len);
        }
        kept
    }

    async fn get(&self, name: &Name) -> Result<Artifact, Error> {
        let Opened { stat, body } = self.backend.open(name, None).await?;
        // Once it was allowed; not everybody who reads has the memory for it.
        if stat.bytes > self.limits.max_bytes {
            return Err(Error::TooLarge { bytes: stat.bytes, most: self.limits.max_bytes });
        }
        let room = usize::try_from(stat.bytes).unwrap_or_default();
        let bytes = body
            .try_fold(Vec::with_capacity(room), |mut bytes, piece| async move {
                bytes.extend(piece);
                Ok(bytes)
            })
            .await?;
        let (found, bytes) = hashed(bytes).await?;
        if found != name.sha256 {
            return Err(Error::Mismatch { named: name.sha256, found });
        }
        Ok(Artifact { mime: stat.mime, bytes })
    }

    async fn sweep(&self, keep: Duration) -> Result<Swept, Error> {
        let after = self.swept().clone();
        if after.is_none() {
            self.backend.tidy().await?;
        }
        let before = utc_now() - keep;
        let page = self.backend.list("", after.as_ref(), SWEPT_AT_ONCE).await?;
        let next = page.artifacts.last().filter(|_| page.more).map(|last| last.name.clone());
        let mut swept = Swept { more: next.is_some(), ..Swept::default() };
        for listed in page.artifacts.iter().filter(|listed| listed.modified < before) {
            if self.backend.delete(&listed.name, Some::<chrono::DateTime<Utc>>(before)).await? {
                swept.artifacts += 1;
                swept.bytes += listed.bytes;
            }
        }
        *self.swept() = next;
        if swept.artifacts > 0 {
            self.ledger.forget();
        }
        Ok(swept)
    }

    fn swept(&self) -> std::sync::MutexGuard<'_, Option<Name>> {
        self.swept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The same bytes, and the last of them only if all are `sha256`: who reads is cut off instead of misled.
fn checked(body: Body, sha256: Digest) -> Body {
    let start = (body, Sha256::new(), None::<Vec<u8>>, false);
    let pieces =
        stream::try_unfold(start, move |(mut body, mut hash, mut held, over)| async move {
            if over {
                return Ok(None);
            }
            loop {
                match body.try_next().await? {
                    Some(piece) => {
                        hash.update(&piece);
                        if let Some(ready) = held.replace(piece) {
                            return Ok(Some((ready, (body, hash, held, false))));
                        }
                    }
                    None => {
                        let found = Digest::from_hash(hash.clone());
                        if found != sha256 {
                            return Err(Error::Mismatch { named: sha256, found });
                        }
                        return Ok(held.take().map(|last| (last, (body, hash, None, true))));
                    }
                }
            }
        });
    pieces.boxed()
}

fn check(tenant: &str) -> Result<(), Error> {
    if valid_name(tenant) { Ok(()) } else { Err(Error::Tenant(tenant.to_owned())) }
}

/// Megabytes take milliseconds, in which nothing else would run here.
async fn hashed(bytes: Vec<u8>) -> Result<(Digest, Vec<u8>), Error> {
    if bytes.len() < 64 * 1024 {
        return Ok((Digest::of(&bytes), bytes));
    }
    let hashing = tokio::task::spawn_blocking(move || (Digest::of(&bytes), bytes));
    hashing.await.map_err(|error| std::io::Error::other(error).into())
}
