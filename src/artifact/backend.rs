//! What a place must do that keeps artifacts by their content: one trait, for a folder and for a bucket.
//!
//! A backend is asked for names that have been looked at, keeps no limits and believes what it is given;
//! [`Store`](super::Store) checks limits and digests before and after, so that both hold whatever keeps the bytes.

use std::fmt::Debug;

use chrono::{DateTime, Utc};
use futures_util::future::{BoxFuture, FutureExt as _};
use futures_util::stream::BoxStream;
use serde::Serialize;

use crate::artifact::{Digest, Error};

/// The bytes of an artifact, piece by piece.
pub type Body = BoxStream<'static, Result<Vec<u8>, Error>>;

/// Which artifact: whose, and what.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// Whose it is.
    pub tenant: String,
    /// What it is.
    pub sha256: Digest,
}

impl Name {
    /// The artifact `sha256` of `tenant`.
    #[must_use]
    pub fn new(tenant: &str, sha256: Digest) -> Self {
        Self { tenant: tenant.to_owned(), sha256 }
    }

    /// `<tenant>/<sha256>`.
    #[must_use]
    pub fn path(&self) -> String {
        format!("{}/{}", self.tenant, self.sha256)
    }
}

/// What is known of an artifact without its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// How large it is.
    pub bytes: u64,
    /// Its type.
    pub mime: String,
    /// When it was last put.
    pub modified: DateTime<Utc>,
}

/// Some of an artifact's bytes, the first and the last of them included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The first.
    pub first: u64,
    /// The last.
    pub last: u64,
}

impl Range {
    /// How many bytes they are.
    #[must_use]
    pub fn len(self) -> u64 {
        self.last - self.first + 1
    }

    /// Never: a range has at least one byte.
    #[must_use]
    pub fn is_empty(self) -> bool {
        false
    }
}

/// An artifact that is being read.
pub struct Opened {
    /// What it is.
    pub stat: Stat,
    /// Its bytes, or those of the range that was asked for.
    pub body: Body,
}

impl Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opened").field("stat", &self.stat).finish_non_exhaustive()
    }
}

/// One artifact of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Which.
    pub name: Name,
    /// How large it is.
    pub bytes: u64,
    /// When it was last put.
    pub modified: DateTime<Utc>,
}

/// A part of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// In the backend's own order, which never changes.
    pub artifacts: Vec<Listed>,
    /// Whether more may follow.
    pub more: bool,
}

/// How much a tenant has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// How many artifacts.
    pub count: u64,
    /// How large they are together.
    pub bytes: u64,
}

/// Keeps bytes by name. Names are always valid, and digests those of the bytes.
pub trait Backend: Debug + Send + Sync {
    /// Keeps bytes that are new, as a whole or not at all.
    fn put<'a>(
        &'a self,
        name: &'a Name,
        bytes: Vec<u8>,
        mime: &'a str,
    ) -> BoxFuture<'a, Result<(), Error>>;

    /// Makes an artifact new again for retention, if it is there with so many bytes; whether it is.
    fn renew<'a>(&'a self, name: &'a Name, bytes: u64) -> BoxFuture<'a, Result<bool, Error>>;

    /// What is known of it.
    fn stat<'a>(&'a self, name: &'a Name) -> BoxFuture<'a, Result<Stat, Error>>;

    /// Reads it, or the bytes of `range`, which is one of an artifact of its size.
    fn open<'a>(
        &'a self,
        name: &'a Name,
        range: Option<Range>,
    ) -> BoxFuture<'a, Result<Opened, Error>>;

    /// Up to `limit` artifacts whose `<tenant>/<sha256>` begins with `prefix`, after `after`.
    fn list<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a Name>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Page, Error>>;

    /// Lets it go, unless it was put after `unless_after`; whether it went.
    fn delete<'a>(
        &'a self,
        name: &'a Name,
        unless_after: Option<DateTime<Utc>>,
    ) -> BoxFuture<'a, Result<bool, Error>>;

    /// Takes away what was never finished.
    fn tidy(&self) -> BoxFuture<'_, Result<(), Error>> {
        async { Ok(()) }.boxed()
    }

    /// How much a tenant has, counted one by one.
    fn usage<'a>(&'a self, tenant: &'a str) -> BoxFuture<'a, Result<Usage, Error>> {
        async move {
            let (prefix, mut usage) = (format!("{tenant}/"), Usage::default());
            let mut after: Option<Name> = None;
            loop {
                let page = self.list(&prefix, after.as_ref(), COUNTED_AT_ONCE).await?;
                for listed in &page.artifacts {
                    usage.count += 1;
                    usage.bytes += listed.bytes;
                }
                match page.artifacts.last() {
                    Some(last) if page.more => after = Some(last.name.clone()),
                    _ => return Ok(usage),
                }
            }
        }
        .boxed()
    }
}

/// What S3 gives at once; more is a request more.
pub(super) const COUNTED_AT_ONCE: usize = 1000;
