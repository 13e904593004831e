//! What is too large for a message: bytes, kept by what they are, for one tenant each.
//!
//! An artifact's name is the SHA-256 of its bytes, so that putting it twice keeps it once, and whoever gets it can
//! see that it is what was put. It belongs to a tenant: the same bytes of another tenant are another artifact, or
//! asking would tell what others have. [`Store`] is a folder (`artifact/folder.rs`), or the way to one through a hub
//! ([`Remote`]) for workers that do not have the hub's disk.

mod digest;
mod folder;

use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::error::Code;
use crate::message::valid_name;

pub use digest::Digest;
pub use folder::Swept;

use folder::Folder;

/// What stands before `<tenant>/<sha256>` in an artifact's URI.
const URI: &str = "cogo://artifacts/";
/// Where a folder's artifacts are, below the artifacts directory.
pub(crate) const FOLDER: &str = "blobs";
/// The type of what has none, or none that can be one.
pub const OCTETS: &str = "application/octet-stream";
/// The longest type that is kept.
const MIME_MAX: usize = 128;

/// How much may be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The largest artifact, in bytes.
    pub max_bytes: u64,
    /// The most that one tenant's artifacts may come to, in bytes.
    pub tenant_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        // A scan of a page, a minute of sound; and a disk's worth of them that no tenant should fill alone.
        Self { max_bytes: 32 << 20, tenant_bytes: 10 << 30 }
    }
}

/// An artifact that is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactRef {
    /// Whose it is.
    pub tenant: String,
    /// What it is.
    pub sha256: Digest,
    /// How large it is.
    pub bytes: u64,
    /// Its type, such as `image/png`.
    pub mime: String,
}

impl ArtifactRef {
    /// Where it is read: `cogo://artifacts/<tenant>/<sha256>`.
    #[must_use]
    pub fn uri(&self) -> String {
        uri(&self.tenant, &self.sha256)
    }
}

/// `cogo://artifacts/<tenant>/<sha256>`.
#[must_use]
pub fn uri(tenant: &str, sha256: &Digest) -> String {
    format!("{URI}{tenant}/{sha256}")
}

/// What a URI names: a tenant and a digest. Nothing but exactly that is one.
#[must_use]
pub fn parse_uri(uri: &str) -> Option<(&str, Digest)> {
    let (tenant, digest) = uri.strip_prefix(URI)?.split_once('/')?;
    Some((tenant, Digest::parse(digest)?)).filter(|(tenant, _)| valid_name(tenant))
}

/// An artifact with its bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Artifact {
    /// Its type.
    pub mime: String,
    /// The bytes.
    pub bytes: Vec<u8>,
}

impl Debug for Artifact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Artifact({}, {} bytes)", self.mime, self.bytes.len())
    }
}

/// An artifact as a file, to be streamed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The file.
    pub path: PathBuf,
    /// Its type.
    pub mime: String,
}

/// Why an artifact cannot be kept or given.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The tenant is no name.
    #[error("tenant: {0:?} is no name")]
    Tenant(String),
    /// There is none of that name.
    #[error("tenant {tenant} has no artifact {sha256}")]
    Missing {
        /// Whose it would be.
        tenant: String,
        /// Which.
        sha256: Digest,
    },
    /// It is larger than any may be.
    #[error(
        "{bytes} bytes are too many for an artifact, of which max_artifact_bytes allows {most}"
    )]
    TooLarge {
        /// How large it is.
        bytes: u64,
        /// How large it may be.
        most: u64,
    },
    /// The tenant has no room left.
    #[error("tenant {tenant} has no room for another artifact: artifact_tenant_bytes is {most}")]
    Full {
        /// Whose room it is.
        tenant: String,
        /// How much it is.
        most: u64,
    },
    /// The bytes are not what they are called.
    #[error("the bytes are {found}, and not {named}")]
    Mismatch {
        /// What they were said to be.
        named: Digest,
        /// What they are.
        found: Digest,
    },
    /// The disk refused.
    #[error("the store's disk failed")]
    Io(#[from] std::io::Error),
    /// A hub that keeps it refused, or did not answer.
    #[error("the hub's store: {message}")]
    Hub {
        /// What kind of refusal.
        code: Code,
        /// What it said.
        message: String,
    },
}

impl Error {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Tenant(_) | Self::Mismatch { .. } => Code::InvalidArgument,
            Self::Missing { .. } => Code::NotFound,
            Self::TooLarge { .. } => Code::PayloadTooLarge,
            Self::Full { .. } => Code::RateLimited,
            Self::Io(_) => Code::Internal,
            Self::Hub { code, .. } => *code,
        }
    }

    /// Whether the same may go well in a moment.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Hub { code: Code::Unavailable | Code::Timeout, .. })
    }
}

/// A store that is reached through a hub.
pub trait Remote: Debug + Send + Sync {
    /// Puts bytes that are `sha256`; their type as the store has it.
    fn put<'a>(
        &'a self,
        tenant: &'a str,
        sha256: Digest,
        bytes: Vec<u8>,
        mime: &'a str,
    ) -> BoxFuture<'a, Result<(), Error>>;
    /// Gets them.
    fn get<'a>(&'a self, tenant: &'a str, sha256: Digest)
    -> BoxFuture<'a, Result<Artifact, Error>>;
}

/// Keeps artifacts. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store(Way);

#[derive(Debug, Clone)]
enum Way {
    Folder(Arc<Folder>),
    Hub(Arc<dyn Remote>),
}

impl Store {
    /// Keeps them below `artifacts_dir`, in the folder `blobs`, which is made when first needed. Clones share the
    /// count of what each tenant has.
    #[must_use]
    pub fn folder(artifacts_dir: impl Into<PathBuf>, limits: Limits) -> Self {
        Self(Way::Folder(Arc::new(Folder::new(artifacts_dir.into().join(FOLDER), limits))))
    }

    /// Keeps them at a hub.
    #[must_use]
    pub fn hub(remote: Arc<dyn Remote>) -> Self {
        Self(Way::Hub(remote))
    }

    /// Keeps `bytes` of the type `mime` for `tenant`. When this returns they are on disk.
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
            Way::Folder(folder) => folder.put(tenant, sha256, bytes, &mime).await?,
            Way::Hub(hub) => hub.put(tenant, sha256, bytes, &mime).await?,
        }
        Ok(ArtifactRef { tenant: tenant.to_owned(), sha256, bytes: len, mime })
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

    /// Gets an artifact, and sees that it is what it is called.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn get(&self, tenant: &str, sha256: Digest) -> Result<Artifact, Error> {
        check(tenant)?;
        let Artifact { mime, bytes } = match &self.0 {
            Way::Folder(folder) => folder.get(tenant, sha256).await?,
            Way::Hub(hub) => hub.get(tenant, sha256).await?,
        };
        let (found, bytes) = hashed(bytes).await?;
        if found != sha256 {
            return Err(Error::Mismatch { named: sha256, found });
        }
        Ok(Artifact { mime, bytes })
    }

    /// Where an artifact lies, for whoever streams it; of a hub's store never.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn find(&self, tenant: &str, sha256: Digest) -> Result<Kept, Error> {
        check(tenant)?;
        match &self.0 {
            Way::Folder(folder) => folder.find(tenant, sha256).await,
            Way::Hub(_) => Err(Error::Missing { tenant: tenant.to_owned(), sha256 }),
        }
    }

    /// Lets go of what nobody has put for `keep`; of a hub's store nothing, for the hub does that itself.
    ///
    /// # Errors
    /// When the disk refuses; what went before that is gone.
    pub async fn sweep(&self, keep: Duration) -> Result<Swept, Error> {
        match &self.0 {
            Way::Folder(folder) => folder.sweep(keep).await,
            Way::Hub(_) => Ok(Swept::default()),
        }
    }
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

/// A type that can stand in a header, or that of any bytes.
fn clean(mime: &str) -> String {
    let token = |text: &str| {
        !text.is_empty()
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b))
    };
    let whole = mime.trim();
    let kind = whole.split(';').next().unwrap_or_default().trim();
    let named = kind.split_once('/').is_some_and(|(kind, sub)| token(kind) && token(sub));
    let plain = whole.bytes().all(|b| (b' '..=b'~').contains(&b));
    if named && plain && whole.len() <= MIME_MAX { whole.to_owned() } else { OCTETS.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_names_a_tenant_and_a_digest_and_nothing_else_is_one() {
        let digest = Digest::of(b"x");
        let uri = uri("acme", &digest);
        assert_eq!(parse_uri(&uri), Some(("acme", digest)));
        for bad in [
            format!("{uri}/"),
            format!("{uri}?x=1"),
            format!("cogo://artifacts/../{digest}"),
            format!("cogo://artifacts/{digest}"),
            format!("cogo://artifacts//{digest}"),
            format!("cogo://artifacts/acme/../{digest}"),
            format!("https://artifacts/acme/{digest}"),
            uri.to_uppercase(),
            "cogo://artifacts/acme/etc".to_owned(),
            String::new(),
        ] {
            assert_eq!(parse_uri(&bad), None, "{bad}");
        }
    }

    #[test]
    fn a_type_that_could_be_more_than_a_type_is_that_of_any_bytes() {
        for good in ["image/png", "text/plain; charset=utf-8", "application/vnd.api+json"] {
            assert_eq!(clean(good), good);
        }
        for bad in ["", "png", "image/", "image/png\r\nSet-Cookie: a=b", "a/b\u{e9}", "a b/c"] {
            assert_eq!(clean(bad), OCTETS, "{bad:?}");
        }
        assert_eq!(clean(&format!("a/{}", "b".repeat(200))), OCTETS);
    }
}
