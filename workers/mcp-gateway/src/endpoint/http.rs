//! Streamable HTTP: one message in; one JSON answer out, or a stream where the answer takes its time.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Path, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use cogo::error::Code;
use cogo::hub::{ApiError, Principal};
use serde_json::Value;
use tokio::sync::mpsc;

use super::Endpoint;
use super::asked::{Asked, Carried, Kept};
use super::calls::{Key, Scope};
use super::lifecycle::{self, Client, Lifecycle};
use super::reply::{self, Work};
use super::rpc::{INVALID_REQUEST, Incoming, NO_SESSION, RpcError, response};
use super::server::Caller;
use super::sessions::InUse;

/// Names a session, in a request's headers.
const SESSION: &str = "mcp-session-id";
/// How long a request's body may take to arrive: the largest, over a slow line of 1 Mbit/s.
const BODY_WITHIN: Duration = Duration::from_secs(60);
/// How many notifications may wait for a slow client. What is dropped then is progress, of which the next report says
/// as much.
const NOTES: usize = 256;

/// All toolsets, under `<toolset>__<tool>`.
pub(super) async fn all(State(endpoint): State<Endpoint>, request: Request<Body>) -> Response {
    endpoint.serve(None, request).await
}

/// One toolset, under its tools' own names.
pub(super) async fn of_toolset(
    State(endpoint): State<Endpoint>,
    Path(toolset): Path<String>,
    request: Request<Body>,
) -> Response {
    endpoint.serve(Some(toolset.into()), request).await
}

impl Endpoint {
    async fn serve(&self, toolset: Option<Arc<str>>, request: Request<Body>) -> Response {
        let who = match self.0.principals.of(request.headers()) {
            Ok(who) => who,
            Err(refused) => return refused.into_response(),
        };
        let caller = Caller { who, toolset };
        let served = match *request.method() {
            Method::POST => self.post(caller, request).await,
            Method::GET | Method::DELETE => self.stream(caller, request).await,
            _ => {
                let refused = ApiError::new(Code::MethodNotAllowed, "use POST, GET or DELETE");
                Ok(refused
                    .with_header(header::ALLOW, HeaderValue::from_static("GET, POST, DELETE"))
                    .into_response())
            }
        };
        served.unwrap_or_else(|refused| refused)
    }

    /// One message of a client.
    async fn post(&self, caller: Caller, request: Request<Body>) -> Result<Response, Response> {
        let takes = Takes::of(request.headers())?;
        let (parts, body) = request.into_parts();
        let read = tokio::time::timeout(BODY_WITHIN, Bytes::from_request(Request::new(body), &()));
        let read = read.await.map_err(|_| {
            ApiError::new(Code::Timeout, "body: it did not arrive in time").into_response()
        })?;
        let body = read.map_err(|rejection| {
            if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
                let max = self.0.limits.hub.max_body_bytes;
                ApiError::new(Code::PayloadTooLarge, format!("body: at most {max} bytes"))
                    .into_response()
            } else {
                ApiError::invalid("body", "ended before it was complete").into_response()
            }
        })?;
        let bad = |error: RpcError| refusal(StatusCode::BAD_REQUEST, &Value::Null, error);
        let Some(message) = Incoming::read(&body).map_err(bad)? else {
            // A response: nobody here asks clients for anything.
            return Ok(StatusCode::ACCEPTED.into_response());
        };
        let session = self.session(&caller, &parts.headers, &message.id)?;
        if message.method == "notifications/cancelled" && !message.is_request() {
            let scope = match &session {
                Some(session) => Scope::Session(Arc::clone(&session.session().id)),
                None => Scope::Principal(caller.who.id()),
            };
            self.cancelled(&caller.who, scope, &message).await;
            if session.is_none() {
                return Ok(StatusCode::ACCEPTED.into_response());
            }
        }
        if message.is_request() && Self::is_own(&message.method) {
            return self.own(caller, session, takes, &parts.headers, message).await;
        }
        if message.method == "initialize" && message.is_request() {
            return self.initialize(caller, parts, body, &message).await;
        }
        // What stays open, as `subscriptions/listen` does, counts for as long as it does.
        let seat = self.seat(&caller.who).map_err(|error| too_many(&message.id, error))?;
        Ok(self.forward(caller, parts, body, (session, seat)).await)
    }

    /// A request that is answered here.
    async fn own(
        &self,
        caller: Caller,
        session: Option<InUse>,
        takes: Takes,
        headers: &HeaderMap,
        message: Incoming,
    ) -> Result<Response, Response> {
        let id = message.id.clone();
        let bad = |error: RpcError| refusal(StatusCode::BAD_REQUEST, &id, error);
        let (client, scope) = match lifecycle::over_http(headers, &message).map_err(bad)? {
            Lifecycle::Own(client) => (client, Scope::Principal(caller.who.id())),
            Lifecycle::Session => match &session {
                Some(session) => {
                    let session = session.session();
                    (session.client, Scope::Session(Arc::clone(&session.id)))
                }
                None => {
                    let text = "Mcp-Session-Id: is missing; begin with initialize, or send MCP 2026-07-28 requests";
                    return Err(bad(RpcError::new(INVALID_REQUEST, text)));
                }
            },
        };
        let seat = self.seat(&caller.who).map_err(|error| too_many(&id, error))?;
        let (notes, told) = mpsc::channel(NOTES);
        let kept = Kept::default();
        let asked = Asked {
            key: Key::new(scope, &id),
            entered: None, // what cancels it is a request of its own, in no order with this one
            who: caller.who,
            client,
            toolset: caller.toolset,
            headers: Carried::of_headers(headers).map_err(bad)?,
            notes,
            kept: Arc::clone(&kept),
        };
        if client.modern && message.method == "tools/call" {
            self.check_parameters(&asked, headers, &message).await.map_err(bad)?;
        }
        let expires = left(&asked.who);
        let endpoint = self.clone();
        let work: Work = Box::pin(async move {
            let _session = session;
            endpoint.answer(asked, message).await
        });
        let response = reply::reply(id, client, work, told, takes.stream, expires).await;
        Ok(reply::held(response, (seat, kept)))
    }

    /// The headers that a tool's schema asks for.
    async fn check_parameters(
        &self,
        asked: &Asked,
        headers: &HeaderMap,
        message: &Incoming,
    ) -> Result<(), RpcError> {
        let Some(name) = message.params.get("name").and_then(Value::as_str) else { return Ok(()) };
        let (_, _, offer) = self.named(asked, name).await?;
        let Some(offer) = offer else { return Ok(()) };
        let arguments = message.params.get("arguments");
        super::routing::check_arguments(headers, offer.input_schema(), arguments)
    }

    /// Opens a session.
    async fn initialize(
        &self,
        caller: Caller,
        parts: Parts,
        body: Bytes,
        message: &Incoming,
    ) -> Result<Response, Response> {
        let place = self.0.sessions.place(&caller.who, &self.0.limits);
        let place = place.map_err(|error| too_many(&message.id, error))?;
        let client = Client::of_initialize(&message.params);
        let toolset = caller.toolset.clone();
        let response = self.forward(caller, parts, body, ()).await;
        if let Some(id) = response.headers().get(SESSION).and_then(|id| id.to_str().ok()) {
            self.0.sessions.opened(id, place, client, toolset).await;
        }
        Ok(response)
    }

    /// A session's own stream, and its end.
    async fn stream(&self, caller: Caller, request: Request<Body>) -> Result<Response, Response> {
        let session = self.session(&caller, request.headers(), &Value::Null)?;
        let seat = self.seat(&caller.who).map_err(|error| too_many(&Value::Null, error))?;
        let (parts, _) = request.into_parts();
        Ok(self.forward(caller, parts, Bytes::new(), (session, seat)).await)
    }

    /// The session that the request names. One that is not there and one that is another's are the same to the caller.
    #[allow(clippy::result_large_err)] // an answer, given once
    fn session(
        &self,
        caller: &Caller,
        headers: &HeaderMap,
        id: &Value,
    ) -> Result<Option<InUse>, Response> {
        let Some(named) = headers.get(SESSION) else { return Ok(None) };
        let named = named.to_str().unwrap_or_default();
        match self.0.sessions.of(named, &caller.who, caller.toolset.as_deref()) {
            Some(session) => Ok(Some(session)),
            None => {
                let error =
                    RpcError::new(NO_SESSION, "there is no such session; begin with initialize");
                Err(refusal(StatusCode::NOT_FOUND, id, error))
            }
        }
    }

    /// Has rmcp answer; `kept` is kept until the answer has been read.
    async fn forward(
        &self,
        caller: Caller,
        mut parts: Parts,
        body: Bytes,
        kept: impl Send + Sync + 'static,
    ) -> Response {
        let expires = left(&caller.who);
        parts.extensions.insert(caller);
        let request = Request::from_parts(parts, Body::from(body));
        let response = self.0.rmcp.handle(request).await;
        reply::until(response.map(Body::new), expires, kept)
    }
}

/// How long the principal's key is still good, if it ever ends.
pub(super) fn left(who: &Principal) -> Option<Duration> {
    let left = who.expires()? - cogo::clock::utc_now();
    Some(left.to_std().unwrap_or_default())
}

/// What a client can read.
#[derive(Debug, Clone, Copy)]
struct Takes {
    /// Streams of events as well as JSON.
    stream: bool,
}

impl Takes {
    #[allow(clippy::result_large_err)] // an answer, given once
    fn of(headers: &HeaderMap) -> Result<Self, Response> {
        let is_json = headers
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split(';').next())
            .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"));
        if !is_json {
            let message = "content-type: must be application/json";
            return Err(ApiError::new(Code::UnsupportedMediaType, message).into_response());
        }
        let mut accepted = headers.get_all(header::ACCEPT).iter().peekable();
        if accepted.peek().is_none() {
            return Ok(Self { stream: true });
        }
        let (mut json, mut stream) = (false, false);
        for entry in accepted.filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(',')) {
            let mut parts = entry.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
            if parts.any(|part| part.replace(' ', "").trim_end_matches(['0', '.']) == "q=") {
                continue; // a weight of zero
            }
            json |= matches!(kind.as_str(), "application/json" | "application/*" | "*/*");
            stream |= matches!(kind.as_str(), "text/event-stream" | "text/*" | "*/*");
        }
        if !json {
            let message = "accept: must have application/json, and should have text/event-stream";
            let refused = ApiError::new(Code::InvalidArgument, message);
            return Err(refused.with_status(StatusCode::NOT_ACCEPTABLE).into_response());
        }
        Ok(Self { stream })
    }
}

fn too_many(id: &Value, error: RpcError) -> Response {
    refusal(StatusCode::TOO_MANY_REQUESTS, id, error)
}

/// An answer that is an error, and that HTTP calls one too.
fn refusal(status: StatusCode, id: &Value, error: RpcError) -> Response {
    let retry_after = error.data.as_ref().and_then(|data| data["retry_after_ms"].as_u64());
    let body = response(id, &Err(error));
    let mut response = (status, [(header::CONTENT_TYPE, "application/json")], body).into_response();
    if let Some(ms) = retry_after {
        let seconds = HeaderValue::from(ms.div_ceil(1000));
        response.headers_mut().insert(header::RETRY_AFTER, seconds);
    }
    response
}
