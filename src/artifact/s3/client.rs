//! Requests to a bucket: signed, bounded in time, and sent again where that may help.

use std::time::Duration;

use rand::RngExt as _;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Request, Response, StatusCode, Url};
use rusty_s3::{Bucket, Credentials, UrlStyle};

use super::refusal::{self, Answer};
use crate::artifact::options::{KEY_ID, KEY_SECRET, S3};
use crate::artifact::{Error, Name};
use crate::clock::utc_now;
use crate::error::{Code, chain};
use crate::net;
use crate::secret::Secret;

/// For how long a signature holds: it is used at once, by clocks that differ by some minutes.
pub(super) const SIGNED_FOR: Duration = Duration::from_secs(600);
/// How long an answer may take to begin; with a body to send, whatever that takes as well.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
const SEND_WITHIN: Duration = Duration::from_secs(300);
/// How often a request is sent at most, and the first pause before it is sent again; doubled each time.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(200);
/// The largest refusal that is read.
const REFUSAL_MAX: usize = 64 << 10;

/// What opens a bucket.
#[derive(Debug, Clone)]
pub struct Keys {
    id: Secret,
    secret: Secret,
}

impl Keys {
    /// A key and its secret.
    ///
    /// # Errors
    /// Names the variable that lacks.
    pub fn new(id: Option<Secret>, secret: Option<Secret>) -> Result<Self, Error> {
        let given = |value: Option<Secret>, field| {
            value.filter(|value| !value.expose().trim().is_empty()).ok_or(Error::Setting {
                field,
                rule: "must be set in the environment where artifacts.store is `s3`".to_owned(),
            })
        };
        Ok(Self { id: given(id, KEY_ID)?, secret: given(secret, KEY_SECRET)? })
    }
}

/// A bucket that is asked.
pub(super) struct Client {
    pub(super) bucket: Bucket,
    pub(super) keys: Credentials,
    http: reqwest::Client,
    /// As it is shown.
    endpoint: String,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("Client");
        shown.field("endpoint", &self.endpoint).field("bucket", &self.bucket.name());
        shown.finish_non_exhaustive()
    }
}

impl Client {
    pub(super) fn new(options: &S3, keys: &Keys, net: &net::Options) -> Result<Self, Error> {
        let field = "artifacts.s3.endpoint";
        let endpoint: Url = options
            .endpoint
            .parse()
            .map_err(|_| Error::Setting { field, rule: "must be an https:// URL".to_owned() })?;
        let setting = |error: &net::Error| Error::Setting { field, rule: chain(error).to_string() };
        net.check(&endpoint).map_err(|error| setting(&error))?;
        let http = net.http_client().map_err(|error| setting(&error))?;
        let style = if options.path_style { UrlStyle::Path } else { UrlStyle::VirtualHost };
        let (name, region) = (options.bucket.clone(), options.region.clone());
        let bucket = Bucket::new(endpoint, style, name, region).map_err(|_| Error::Setting {
            field: "artifacts.s3.path_style",
            rule: "must be true here: the bucket's name cannot be a part of the host's".to_owned(),
        })?;
        let keys = Credentials::new(keys.id.expose().trim(), keys.secret.expose().trim());
        Ok(Self { bucket, keys, http, endpoint: options.endpoint.clone() })
    }

    /// Sends a request, signed anew each time, until it is answered by something else than a trouble of the moment.
    pub(super) async fn send(
        &self,
        method: Method,
        sign: &(dyn Fn() -> Url + Sync),
        headers: HeaderMap,
        body: Option<Vec<u8>>,
    ) -> Result<Response, Error> {
        let within = if body.is_some() { SEND_WITHIN } else { ANSWER_WITHIN };
        let mut request = Request::new(method, sign());
        *request.headers_mut() = headers;
        *request.body_mut() = body.map(Into::into);
        let mut pause = PAUSE;
        for left in (0..TRIES).rev() {
            // The body is shared, not copied.
            let Some(mut this) = request.try_clone() else { break };
            *this.url_mut() = sign();
            let failed = match tokio::time::timeout(within, self.http.execute(this)).await {
                Ok(Ok(answer)) if !is_trouble(answer.status()) => return Ok(answer),
                Ok(Ok(answer)) if left == 0 => return Ok(answer),
                Ok(Ok(_)) => None,
                Ok(Err(error)) => Some(self.lost(&error.without_url())),
                Err(_) => Some(self.silent(within)),
            };
            if let Some(failed) = failed.filter(|_| left == 0) {
                return Err(failed);
            }
            let jitter = rand::rng().random_range(0.5..1.5);
            tokio::time::sleep(pause.mul_f64(jitter)).await;
            pause *= 2;
        }
        Err(self.unreadable("nothing"))
    }

    /// The answer, if the bucket did what it was asked; `of` says which object is missing where one is.
    pub(super) async fn taken(
        &self,
        answer: Response,
        of: Option<&Name>,
    ) -> Result<Response, Error> {
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let date = answer.headers().get("date").and_then(|date| date.to_str().ok());
        let date = date.and_then(|date| chrono::DateTime::parse_from_rfc2822(date).ok());
        // Only to explain a refusal; nothing depends on it.
        let ahead = date.map(|date| (utc_now() - date.to_utc()).num_seconds());
        let text = self.text(answer, REFUSAL_MAX).await.unwrap_or_default();
        let answer = Answer { status, text: &text, ahead_s: ahead };
        if let Some(name) = of.filter(|_| answer.is_missing()) {
            return Err(Error::missing(name));
        }
        Err(refusal::told(&answer, &self.endpoint, self.bucket.name(), self.bucket.region()))
    }

    /// The text of an answer that must not be longer than this.
    pub(super) async fn text(&self, mut answer: Response, most: usize) -> Result<String, Error> {
        let reading = async {
            let mut bytes = Vec::new();
            while let Some(piece) =
                answer.chunk().await.map_err(|error| self.lost(&error.without_url()))?
            {
                bytes.extend_from_slice(&piece);
                if bytes.len() > most {
                    return Err(self.unreadable("too much"));
                }
            }
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        match tokio::time::timeout(ANSWER_WITHIN, reading).await {
            Ok(read) => read,
            Err(_) => Err(self.silent(ANSWER_WITHIN)),
        }
    }

    pub(super) fn lost(&self, error: &reqwest::Error) -> Error {
        let (endpoint, why) = (&self.endpoint, chain(error));
        let message = format!("artifacts.s3.endpoint: {endpoint} cannot be reached: {why}");
        Error::Bucket { code: Code::Unavailable, message }
    }

    pub(super) fn silent(&self, within: Duration) -> Error {
        let (endpoint, within) = (&self.endpoint, within.as_secs());
        let message = format!("artifacts.s3.endpoint: {endpoint} did not answer within {within} s");
        Error::Bucket { code: Code::Timeout, message }
    }

    pub(super) fn unreadable(&self, what: &str) -> Error {
        let message =
            format!("artifacts.s3.endpoint: {} answers as no S3 does: {what}", self.endpoint);
        Error::Bucket { code: Code::Internal, message }
    }
}

/// What may be over in a moment.
fn is_trouble(status: StatusCode) -> bool {
    status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED
        || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
}

pub(super) fn headers(pairs: &[(&'static str, &str)]) -> Result<HeaderMap, Error> {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        let value = HeaderValue::from_str(value).map_err(std::io::Error::other)?;
        headers.insert(HeaderName::from_static(name), value);
    }
    Ok(headers)
}
