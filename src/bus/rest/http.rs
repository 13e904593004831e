//! One request to a hub, or to hosted Supabase, and its answer.
//!
//! Every wait has an end. A connection can die without a word, as when a laptop changes its network: what was
//! asked is then never answered, and neither is what goes over the other connections that are kept. So after
//! such a loss all are given up, and before the next call a small one finds out whether anybody is there: a
//! call that waits in vain costs its caller seconds, and a claim more than that.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Method, Request, Response, StatusCode, Url};
use tokio::sync::Notify;

use crate::bus::error::Error;
use crate::bus::rest::error::of_answer;
use crate::bus::rest::key::Keyring;
use crate::error::{Code, chain};
use crate::net;
use crate::secret::Secret;

/// How long an answer is waited for, and how long for each further part of it. A second less than over SQL
/// (`patience.rs`): an answer whose way is gone never comes, and then a worker is to be back within five.
const ANSWER_WITHIN: Duration = Duration::from_secs(4);
/// What a slow line carries, in bytes a second: so much longer a large request may take.
const SLOW_LINE: u64 = 128 * 1024;
/// How long it may take to find out whether anybody is there.
const KNOCK_WITHIN: Duration = Duration::from_secs(2);
/// The largest answer: a hundred messages with the largest payloads.
const MAX_ANSWER: usize = 512 * 1024 * 1024;

/// The way to `/rest/v1` of one server.
#[derive(Debug)]
pub(super) struct Http {
    base: Url,
    keys: Keyring,
    net: net::Options,
    client: Mutex<Client>,
    doubt: Arc<Doubt>,
}

/// Whether the connections that are kept may be dead; shared by requests and wake-ups, which go the same way.
#[derive(Debug, Default)]
pub(super) struct Doubt {
    is_raised: AtomicBool,
    by_requests: Notify,
}

impl Doubt {
    /// A request was lost.
    pub(super) fn raise(&self) {
        self.raise_here();
        self.by_requests.notify_one();
    }

    /// Something else was: the next request makes sure that somebody is there.
    pub(super) fn raise_here(&self) {
        self.is_raised.store(true, Ordering::Release);
    }

    /// Waits until a request was lost.
    pub(super) async fn raised(&self) {
        self.by_requests.notified().await;
    }

    fn is_raised(&self) -> bool {
        self.is_raised.load(Ordering::Acquire)
    }

    fn settle(&self) {
        self.is_raised.store(false, Ordering::Release);
    }
}

impl Http {
    pub(super) fn new(base: Url, keys: Keyring, net: net::Options) -> Result<Self, Error> {
        let client = Mutex::new(client(&net)?);
        Ok(Self { base, keys, net, client, doubt: Arc::default() })
    }

    pub(super) fn doubt(&self) -> &Arc<Doubt> {
        &self.doubt
    }

    pub(super) fn keys(&self) -> &Keyring {
        &self.keys
    }

    /// `POST /rest/v1/rpc/<call>` with these arguments as JSON; the answer's JSON.
    pub(super) async fn rpc(
        &self,
        call: &'static str,
        arguments: String,
    ) -> Result<Vec<u8>, Error> {
        let mut url = self.url(&["rest", "v1", "rpc", call]);
        url.set_query(None);
        let mut request = Request::new(Method::POST, url);
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        *request.body_mut() = Some(arguments.into());
        self.ask(call, request).await
    }

    /// `GET /rest/v1/<table>` with this query; the answer's JSON.
    pub(super) async fn rows(
        &self,
        call: &'static str,
        table: &str,
        query: &[(&str, &str)],
    ) -> Result<Vec<u8>, Error> {
        let mut url = self.url(&["rest", "v1", table]);
        url.query_pairs_mut().extend_pairs(query);
        self.ask(call, Request::new(Method::GET, url)).await
    }

    /// `PUT` of bytes to a path.
    pub(super) async fn put_bytes(
        &self,
        call: &'static str,
        path: &[&str],
        mime: HeaderValue,
        bytes: Vec<u8>,
    ) -> Result<(), Error> {
        let mut request = Request::new(Method::PUT, self.url(path));
        request.headers_mut().insert(CONTENT_TYPE, mime);
        *request.body_mut() = Some(bytes.into());
        self.ask(call, request).await.map(drop)
    }

    /// `GET` of a path; the answer's headers and bytes.
    pub(super) async fn get_bytes(
        &self,
        call: &'static str,
        path: &[&str],
    ) -> Result<(HeaderMap, Vec<u8>), Error> {
        self.answer(call, Request::new(Method::GET, self.url(path))).await
    }

    fn url(&self, path: &[&str]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        url
    }

    async fn ask(&self, call: &'static str, request: Request) -> Result<Vec<u8>, Error> {
        Ok(self.answer(call, request).await?.1)
    }

    async fn answer(
        &self,
        call: &'static str,
        request: Request,
    ) -> Result<(HeaderMap, Vec<u8>), Error> {
        if self.doubt.is_raised() {
            self.knock(call).await?;
        }
        let key = self.keys.get();
        // A body that is text can always be sent again.
        let again = request.try_clone();
        let answer = self.ask_with(call, request, &key).await;
        match (answer, again) {
            // Refused before anything was done, so that it may be sent again whatever it is.
            (Err(Error::Unauthorized { .. }), Some(request))
                if self.keys.look() || self.keys.get() != key =>
            {
                self.ask_with(call, request, &self.keys.get()).await
            }
            (answer, _) => answer,
        }
    }

    async fn ask_with(
        &self,
        call: &'static str,
        mut request: Request,
        key: &Secret,
    ) -> Result<(HeaderMap, Vec<u8>), Error> {
        sign(request.headers_mut(), &self.keys.api_key(key), key)?;
        let size = request.body().and_then(|body| body.as_bytes()).map_or(0, <[u8]>::len);
        let within = ANSWER_WITHIN + Duration::from_secs(size as u64 / SLOW_LINE);
        let mut answer = self.send(call, request, within).await?;
        let (status, headers) = (answer.status(), std::mem::take(answer.headers_mut()));
        let body = self.read(call, answer).await?;
        self.doubt.settle();
        if status.is_success() {
            return Ok((headers, body));
        }
        Err(of_answer(call, status, &headers, &body))
    }

    async fn send(
        &self,
        call: &'static str,
        request: Request,
        within: Duration,
    ) -> Result<Response, Error> {
        let client = self.client.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match tokio::time::timeout(within, client.execute(request)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.lost(call, &error)),
            Err(_) => Err(self.silent(call, within)),
        }
    }

    async fn read(&self, call: &'static str, mut answer: Response) -> Result<Vec<u8>, Error> {
        let mut body = Vec::new();
        loop {
            match tokio::time::timeout(ANSWER_WITHIN, answer.chunk()).await {
                Ok(Ok(Some(part))) if body.len() + part.len() <= MAX_ANSWER => {
                    body.extend_from_slice(&part);
                }
                Ok(Ok(Some(_))) => {
                    let message = format!("{call}: the answer is larger than {MAX_ANSWER} bytes");
                    return Err(Error::Refused { code: Code::Internal, message });
                }
                Ok(Ok(None)) => return Ok(body),
                Ok(Err(error)) => return Err(self.lost(call, &error)),
                Err(_) => return Err(self.silent(call, ANSWER_WITHIN)),
            }
        }
    }

    /// Whether anybody is there; anything that is answered will do, unless it is to go away.
    async fn knock(&self, call: &'static str) -> Result<(), Error> {
        self.give_up_connections();
        let request = Request::new(Method::HEAD, self.url(&["rest", "v1", ""]));
        let answer = self.send(call, request, KNOCK_WITHIN).await?;
        if answer.status() == StatusCode::TOO_MANY_REQUESTS
            && answer.headers().contains_key(RETRY_AFTER)
        {
            return Err(of_answer(call, answer.status(), answer.headers(), &[]));
        }
        self.doubt.settle();
        Ok(())
    }

    fn silent(&self, call: &'static str, within: Duration) -> Error {
        self.doubt.raise();
        unavailable(call, format!("the hub did not answer within {} s", within.as_secs()))
    }

    fn lost(&self, call: &'static str, error: &reqwest::Error) -> Error {
        self.doubt.raise();
        unavailable(call, format!("the hub cannot be reached: {}", cause(error)))
    }

    /// Drops all connections that are kept; those that may be dead are among them.
    fn give_up_connections(&self) {
        // It was built once already; where it cannot be any more, the old one may still do.
        if let Ok(anew) = client(&self.net) {
            *self.client.lock().unwrap_or_else(PoisonError::into_inner) = anew;
        }
    }
}

fn client(net: &net::Options) -> Result<Client, Error> {
    net.http_client().map_err(|error| Error::Refused {
        code: Code::InvalidArgument,
        message: chain(&error).to_string(),
    })
}

fn unavailable(call: &'static str, message: String) -> Error {
    Error::Unavailable { call, message, retry_after: None }
}

/// The innermost reason alone: the layers above it repeat the URL, and say that something failed.
fn cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// As Supabase's clients do it: gateways look at the one, PostgREST at the other.
fn sign(headers: &mut HeaderMap, api_key: &Secret, key: &Secret) -> Result<(), Error> {
    let header = |text: &str| {
        let mut value = HeaderValue::from_str(text).map_err(|_| Error::Refused {
            code: Code::InvalidArgument,
            message: "key: holds what no header can carry".to_owned(),
        })?;
        value.set_sensitive(true);
        Ok::<_, Error>(value)
    };
    headers.insert("apikey", header(api_key.expose())?);
    headers.insert(AUTHORIZATION, header(&format!("Bearer {}", key.expose()))?);
    Ok(())
}
