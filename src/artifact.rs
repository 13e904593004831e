//! What is too large for a message: bytes, kept by what they are, for one tenant each.
//!
//! An artifact's name is the SHA-256 of its bytes, so that putting it twice keeps it once, and whoever gets it can
//! see that it is what was put. It belongs to a tenant: the same bytes of another tenant are another artifact, or
//! asking would tell what others have. [`Store`] keeps them by a [`Backend`], which is a folder (`artifact/folder.rs`)
//! or a bucket (`artifact/s3.rs`, feature `s3`), or is the way to one through a hub ([`Remote`]) for workers that have
//! neither. Limits, digests and retention are the store's, so that they hold for every backend.
//!
//! Beside them lie the files that runs leave ([`files`]), which are named by what they are about.

mod backend;
mod digest;
mod error;
pub mod files;
mod folder;
mod limits;
pub mod options;
#[cfg(feature = "s3")]
pub mod s3;
mod store;
mod sweep;

use std::fmt::Debug;

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::message::valid_name;

pub use backend::{Backend, Body, Listed, Name, Opened, Page, Range, Stat, Usage};
pub use digest::Digest;
pub use error::Error;
pub use limits::Limits;
pub use options::Options;
pub use store::{Store, Swept};
pub use sweep::sweep;

/// What stands before `<tenant>/<sha256>` in an artifact's URI.
const URI: &str = "cogo://artifacts/";
/// Where a folder's artifacts are, below the artifacts directory.
pub(crate) const FOLDER: &str = "blobs";
/// The type of what has none, or none that can be one.
pub const OCTETS: &str = "application/octet-stream";
/// The longest type that is kept.
const MIME_MAX: usize = 128;

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
