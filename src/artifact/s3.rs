//! Artifacts in a bucket: `<prefix>/<tenant>/<sha256>`, each with its type.
//!
//! Speaks the S3 protocol, with requests signed by their URLs, so that AWS, Supabase Storage and whatever else speaks it
//! will do. Nothing but plain objects is used: no versions, tags, locks or multipart uploads.

mod client;
mod refusal;

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::future::{BoxFuture, FutureExt as _};
use futures_util::stream::{self, StreamExt as _};
use reqwest::header::{CONTENT_TYPE, HeaderMap, LAST_MODIFIED, RANGE};
use reqwest::{Method, Response, StatusCode};
use rusty_s3::S3Action as _;
use rusty_s3::actions::ListObjectsV2;

use crate::artifact::backend::{Backend, Body, Listed, Name, Opened, Page, Range, Stat};
use crate::artifact::options::S3;
use crate::artifact::{Digest, Error, Limits, OCTETS, Store, clean};
use crate::clock::utc_now;
use crate::error::Code;
use crate::net;
use client::{Client, SIGNED_FOR};

pub use client::Keys;

/// How long a count is carried on before the bucket is counted again: a request for each thousand artifacts.
const COUNT_AGAIN: Duration = Duration::from_secs(600);
/// What is younger is not made new again: retention counts in days.
const NEW: Duration = Duration::from_secs(3600);
/// How long an answer may be silent while its bytes are read.
const SILENCE: Duration = Duration::from_secs(30);
/// The largest answer but an artifact: a thousand keys.
const ANSWER_MAX: usize = 4 << 20;

impl Store {
    /// Keeps them in a bucket. Nothing is asked there yet; see [`Store::check`].
    ///
    /// # Errors
    /// When a field of `options` cannot be used.
    pub fn bucket(
        options: &S3,
        keys: &Keys,
        limits: Limits,
        net: &net::Options,
    ) -> Result<Self, Error> {
        let client = Client::new(options, keys, net)?;
        let prefix = match options.prefix.as_str() {
            "" => String::new(),
            prefix => format!("{prefix}/"),
        };
        let bucket = Bucket { client: Arc::new(client), prefix };
        Ok(Self::with(Arc::new(bucket), limits, COUNT_AGAIN))
    }
}

/// A bucket of artifacts.
#[derive(Debug)]
struct Bucket {
    client: Arc<Client>,
    prefix: String,
}

impl Bucket {
    /// A tenant's name and a digest have no dot and no slash, so that no key leads out of its tenant's.
    fn key(&self, name: &Name) -> String {
        format!("{}{}", self.prefix, name.path())
    }

    fn name(&self, key: &str) -> Option<Name> {
        let (tenant, digest) = key.strip_prefix(&self.prefix)?.split_once('/')?;
        let name = Name::new(tenant, Digest::parse(digest)?);
        crate::message::valid_name(tenant).then_some(name)
    }

    async fn head(&self, name: &Name) -> Result<Stat, Error> {
        let (client, key) = (&*self.client, self.key(name));
        let sign = || client.bucket.head_object(Some(&client.keys), &key).sign(SIGNED_FOR);
        let answer = client.send(Method::HEAD, &sign, HeaderMap::new(), None).await?;
        stat(&client.taken(answer, Some(name)).await?)
    }

    /// Copies it onto itself, which is what makes it new: the bytes stay where they are.
    async fn copy(&self, name: &Name, mime: &str) -> Result<(), Error> {
        let (client, key) = (&*self.client, self.key(name));
        let source = format!("/{}/{key}", client.bucket.name());
        let sign = || {
            let mut put = client.bucket.put_object(Some(&client.keys), &key);
            let headers = put.headers_mut();
            headers.insert("content-type", mime);
            headers.insert("x-amz-copy-source", source.as_str());
            headers.insert("x-amz-metadata-directive", "REPLACE");
            put.sign(SIGNED_FOR)
        };
        let headers = client::headers(&[
            ("content-type", mime),
            ("x-amz-copy-source", &source),
            ("x-amz-metadata-directive", "REPLACE"),
        ])?;
        let answer = client.send(Method::PUT, &sign, headers, None).await?;
        let text = client.text(client.taken(answer, Some(name)).await?, ANSWER_MAX).await?;
        // It may begin well and say in the end that it did not go.
        if text.contains("<Error>") {
            return Err(client.unreadable("a copy that failed"));
        }
        Ok(())
    }
}

impl Backend for Bucket {
    fn put<'a>(
        &'a self,
        name: &'a Name,
        bytes: Vec<u8>,
        mime: &'a str,
    ) -> BoxFuture<'a, Result<(), Error>> {
        async move {
            let (client, key) = (&*self.client, self.key(name));
            // Where it is understood, the other end checks it as well.
            let digest = name.sha256.base64();
            let sign = || {
                let mut put = client.bucket.put_object(Some(&client.keys), &key);
                let headers = put.headers_mut();
                headers.insert("content-type", mime);
                headers.insert("x-amz-checksum-sha256", digest.as_str());
                put.sign(SIGNED_FOR)
            };
            let headers =
                client::headers(&[("content-type", mime), ("x-amz-checksum-sha256", &digest)])?;
            let answer = client.send(Method::PUT, &sign, headers, Some(bytes)).await?;
            client.taken(answer, None).await.map(drop)
        }
        .boxed()
    }

    fn renew<'a>(&'a self, name: &'a Name, bytes: u64) -> BoxFuture<'a, Result<bool, Error>> {
        async move {
            let stat = match self.head(name).await {
                Err(Error::Missing { .. }) => return Ok(false),
                stat => stat?,
            };
            if stat.bytes != bytes {
                return Ok(false);
            }
            if (utc_now() - stat.modified).to_std().is_ok_and(|age| age < NEW) {
                return Ok(true);
            }
            match self.copy(name, &stat.mime).await {
                Err(Error::Missing { .. }) => Ok(false), // swept meanwhile
                copied => copied.map(|()| true),
            }
        }
        .boxed()
    }

    fn stat<'a>(&'a self, name: &'a Name) -> BoxFuture<'a, Result<Stat, Error>> {
        self.head(name).boxed()
    }

    fn open<'a>(
        &'a self,
        name: &'a Name,
        range: Option<Range>,
    ) -> BoxFuture<'a, Result<Opened, Error>> {
        async move {
            let (client, key) = (&*self.client, self.key(name));
            let sign = || client.bucket.get_object(Some(&client.keys), &key).sign(SIGNED_FOR);
            let mut headers = HeaderMap::new();
            if let Some(Range { first, last }) = range {
                headers.extend(client::headers(&[(
                    RANGE.as_str(),
                    &format!("bytes={first}-{last}"),
                )])?);
            }
            let answer = client.send(Method::GET, &sign, headers, None).await?;
            let answer = client.taken(answer, Some(name)).await?;
            if range.is_some() && answer.status() != StatusCode::PARTIAL_CONTENT {
                return Err(client.unreadable("a whole object where a range was asked for"));
            }
            let stat = stat(&answer)?;
            Ok(Opened { stat, body: pieces(Arc::clone(&self.client), answer) })
        }
        .boxed()
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a Name>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Page, Error>> {
        async move {
            let (client, mut page) = (&*self.client, Page::default());
            let prefix = format!("{}{prefix}", self.prefix);
            let mut after = after.map(|after| self.key(after));
            loop {
                let left = limit - page.artifacts.len();
                let sign = || {
                    let mut list = client.bucket.list_objects_v2(Some(&client.keys));
                    list.with_prefix(prefix.as_str());
                    list.with_max_keys(left.min(1000));
                    if let Some(after) = &after {
                        list.with_start_after(after.as_str());
                    }
                    list.sign(SIGNED_FOR)
                };
                let answer = client.send(Method::GET, &sign, HeaderMap::new(), None).await?;
                let answer = client.taken(answer, None).await?;
                let text = client.text(answer, ANSWER_MAX).await?;
                let found = ListObjectsV2::parse_response(&text)
                    .map_err(|_| client.unreadable("a list that cannot be read"))?;
                page.more = found.next_continuation_token.is_some();
                after = found.contents.last().map(|last| last.key.clone());
                page.artifacts.extend(found.contents.into_iter().filter_map(|object| {
                    // What somebody else put there is not ours.
                    let name = self.name(&object.key)?;
                    let modified = DateTime::parse_from_rfc3339(object.last_modified.as_deref()?);
                    let modified = modified.ok()?.to_utc();
                    Some(Listed { name, bytes: object.size?, modified })
                }));
                if !page.more || after.is_none() || page.artifacts.len() >= limit {
                    return Ok(page);
                }
            }
        }
        .boxed()
    }

    /// Between the look and the deletion somebody may put it again: the protocol has no deletion that depends on a time.
    /// It takes milliseconds, days after the last time that anybody put it.
    fn delete<'a>(
        &'a self,
        name: &'a Name,
        unless_after: Option<DateTime<Utc>>,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        async move {
            match self.head(name).await {
                Err(Error::Missing { .. }) => return Ok(false),
                // What is put again within the first hour is not made new.
                Ok(stat) if unless_after.is_some_and(|after| stat.modified + NEW > after) => {
                    return Ok(false);
                }
                stat => drop(stat?),
            }
            let (client, key) = (&*self.client, self.key(name));
            let sign = || client.bucket.delete_object(Some(&client.keys), &key).sign(SIGNED_FOR);
            let answer = client.send(Method::DELETE, &sign, HeaderMap::new(), None).await?;
            match client.taken(answer, Some(name)).await {
                Err(Error::Missing { .. }) => Ok(false),
                taken => taken.map(|_| true),
            }
        }
        .boxed()
    }
}

/// What an answer's headers say of an object.
fn stat(answer: &Response) -> Result<Stat, Error> {
    let text = |name| answer.headers().get(name).and_then(|value| value.to_str().ok());
    // Of a part, what it is a part of.
    let whole = text(reqwest::header::CONTENT_RANGE).and_then(|range| range.rsplit_once('/'));
    let length = match whole {
        Some((_, whole)) => Some(whole),
        None => text(reqwest::header::CONTENT_LENGTH),
    };
    let bytes = length.and_then(|length| length.parse().ok());
    let modified = text(LAST_MODIFIED).and_then(|at| DateTime::parse_from_rfc2822(at).ok());
    let (Some(bytes), Some(modified)) = (bytes, modified) else {
        let message =
            "artifacts.s3.endpoint: answers without an object's length or time, and so is no S3";
        return Err(Error::Bucket { code: Code::Internal, message: message.to_owned() });
    };
    let mime = clean(text(CONTENT_TYPE).unwrap_or(OCTETS));
    Ok(Stat { bytes, mime, modified: modified.to_utc() })
}

/// The bytes of an answer as they come; no more than a piece of them is here.
fn pieces(client: Arc<Client>, answer: Response) -> Body {
    let start = (client, answer);
    let pieces = stream::try_unfold(start, |(client, mut answer)| async move {
        match tokio::time::timeout(SILENCE, answer.chunk()).await {
            Ok(Ok(None)) => Ok(None),
            Ok(Ok(Some(piece))) => Ok(Some((piece.into(), (client, answer)))),
            Ok(Err(error)) => Err(client.lost(&error.without_url())),
            Err(_) => Err(client.silent(SILENCE)),
        }
    });
    pieces.boxed()
}
