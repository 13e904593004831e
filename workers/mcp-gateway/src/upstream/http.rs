//! MCP over streamable HTTP (MCP 2025-03-26 and later, "Transports").
//!
//! rmcp does the protocol: sessions, event streams, resumption. This wraps its client to know of
//! each call whether it was sent, and to keep the result as it came where that is possible: in event
//! streams. Of a plain JSON reply, which rmcp parses by itself, members that it does not know are
//! lost. A session that the server has lost is not begun again within the connection, as rmcp would: that ends
//! the calls that still stream. The connection is retired, another takes over, and they end on theirs.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use cogo::error::chain;
use cogo::retry::ErrorClass;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use rmcp::model::{ClientJsonRpcMessage, ErrorData, JsonRpcError, JsonRpcMessage, RequestId};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::{
    SseError, StreamableHttpClient, StreamableHttpClientTransportConfig, StreamableHttpError,
    StreamableHttpPostResponse,
};
use rustls::ClientConfig;
use serde_json::Value;
use sse_stream::Sse;

use super::error::CallError;
use super::wire::{Probe, Wire, answered, mended, number, probe_of, unreadable};
use crate::secret::Secret;

/// How long a TCP connection and its TLS handshake may take; the toolset's own limit also holds.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// Why a connection is retired whose session is not known any more.
const NO_SESSION: &str = "the server refused the session";
/// The codes that servers define themselves (JSON-RPC 2.0, section 5.1), those of transports among them.
const RESERVED: RangeInclusive<i32> = -32099..=-32000;

type Failure = StreamableHttpError<reqwest::Error>;
type Headers = HashMap<HeaderName, HeaderValue>;
type Events = BoxStream<'static, Result<Sse, SseError>>;

/// rmcp's HTTP client, watched.
#[derive(Clone)]
pub(super) struct Client {
    inner: reqwest::Client,
    wire: Arc<Wire>,
}

/// A transport for the server at `url`, sending `headers`; nothing is sent yet.
pub(super) fn transport(
    url: &str,
    headers: &[(String, Secret)],
    tls: Option<Arc<ClientConfig>>,
    limit: usize,
    max_in_flight: usize,
    wire: Arc<Wire>,
) -> Result<StreamableHttpClientTransport<Client>, Box<dyn std::error::Error + Send + Sync>> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let mut value = HeaderValue::from_str(value.expose())?;
        value.set_sensitive(true);
        map.insert(HeaderName::try_from(name.as_str())?, value);
    }
    let mut builder = reqwest::Client::builder();
    if let Some(tls) = tls {
        builder = builder.tls_backend_preconfigured(tls.as_ref().clone());
    }
    let inner = builder
        .default_headers(map)
        .connect_timeout(CONNECT_WITHIN)
        // Endpoints come from configuration only; a redirect would be somewhere else.
        .redirect(reqwest::redirect::Policy::none())
        .tcp_nodelay(true)
        .build()?;
    let mut config = StreamableHttpClientTransportConfig::with_uri(url)
        .max_concurrent_requests(max_in_flight + 2) // beside the calls a ping and a list
        .reinit_on_expired_session(false);
    config.max_sse_event_size = limit;
    Ok(StreamableHttpClientTransport::with_client(Client { inner, wire }, config))
}

impl Client {
    /// Whether the request surely was not carried out, by how sending it failed.
    fn refused(error: &Failure) -> bool {
        match error {
            StreamableHttpError::Client(error) => error.is_connect() || error.is_builder(),
            StreamableHttpError::HttpStatus(error) => error.status < 500,
            StreamableHttpError::UnexpectedServerResponse(text) => text.starts_with("HTTP 4"),
            StreamableHttpError::AuthRequired(_)
            | StreamableHttpError::InsufficientScope(_)
            | StreamableHttpError::SessionExpired
            | StreamableHttpError::ReservedHeaderConflict(_) => true,
            _ => false,
        }
    }

    /// The error that the request `id` was answered with, as rmcp knows which request it is for; else rmcp would
    /// drop it and the call would wait for ever.
    fn take(
        &self,
        mut error: JsonRpcError,
        id: i64,
        probe: &Probe,
    ) -> Result<JsonRpcError, Failure> {
        let (code, said) = (error.error.code, &error.error.message);
        let class = CallError::class_of(code);
        match &error.id {
            Some(theirs) if is(theirs, id) => {
                if of_session(&error.error) {
                    self.wire.retire(NO_SESSION);
                    // So begin the refusals that the SDKs' servers give before they hand anything on. A tool may
                    // have sessions of its own, and have done something before it missed one.
                    if said.starts_with("Bad Request") {
                        probe.arrived_not();
                    }
                }
                Ok(error)
            }
            // The server did not get as far as reading the id. What it says with -32603, or a code that means
            // nothing here, it may also say after it did.
            None if class != ErrorClass::ToolError || RESERVED.contains(&code.0) => {
                if class == ErrorClass::ToolError {
                    probe.arrived_not();
                }
                self.wire.retire(NO_SESSION);
                error.id = Some(RequestId::Number(id));
                Ok(error)
            }
            _ => {
                let text = format!("an error that does not name the request ({}): {said}", code.0);
                Err(StreamableHttpError::UnexpectedServerResponse(text.into()))
            }
        }
    }

    /// Looks at what passes by in an event stream that answers the request `id`.
    fn watch(wire: Arc<Wire>, events: Events, id: i64, probe: Arc<Probe>) -> Events {
        events
            .map(move |mut event| {
                if let Ok(Sse { data: Some(text), .. }) = &mut event {
                    look(&wire, text, id, &probe);
                }
                event
            })
            .boxed()
    }
}

/// Keeps the reply's `result` as it came. What rmcp could not read, it would skip, and the call would wait for ever:
/// such a reply is mended, or else becomes an error.
fn look(wire: &Wire, text: &mut String, id: i64, probe: &Probe) {
    let mut read = serde_json::from_str::<Value>(text);
    if read.is_err()
        && let Some(whole) = mended(text.as_bytes()).and_then(|text| String::from_utf8(text).ok())
    {
        *text = whole;
        read = serde_json::from_str(text);
    }
    let mut message = match read {
        Ok(message) => message,
        Err(error) => {
            if answered(text.as_bytes()) == Some(id)
                && let Ok(reply) = serde_json::to_string(&unreadable(id, probe, &error))
            {
                *text = reply;
            }
            return;
        }
    };
    wire.note_report(&message);
    let Some(message) = message.as_object_mut() else { return };
    if message.get("id").and_then(Value::as_i64) == Some(id)
        && let Some(result) = message.remove("result")
    {
        probe.set_raw(result);
    }
}

/// Whether `theirs` is the id of the request `ours`.
fn is(theirs: &RequestId, ours: i64) -> bool {
    number(&theirs.clone().into_json_value()) == Some(ours)
}

/// Whether the server says that it has no such session. The specification has HTTP 404 for this (MCP 2025-11-25,
/// "Session Management"); many servers say it with a JSON-RPC error, some with the request's id in it.
fn of_session(error: &ErrorData) -> bool {
    let said = error.message.to_ascii_lowercase();
    matches!(error.code.0, -32001 | -32000)
        && (said.contains("session") || said.contains("not initialized"))
}

impl StreamableHttpClient for Client {
    type Error = reqwest::Error;

    async fn post_message(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session: Option<Arc<str>>,
        auth: Option<String>,
        headers: Headers,
    ) -> Result<StreamableHttpPostResponse, Failure> {
        let limit = StreamableHttpClientTransportConfig::default().max_sse_event_size;
        self.post_message_with_max_sse_event_size(uri, message, session, auth, headers, limit).await
    }

    async fn post_message_with_max_sse_event_size(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session: Option<Arc<str>>,
        auth: Option<String>,
        headers: Headers,
        limit: usize,
    ) -> Result<StreamableHttpPostResponse, Failure> {
        let call = probe_of(&message);
        if call.as_ref().is_some_and(|(id, probe)| !self.wire.note(*id, probe)) {
            return Ok(StreamableHttpPostResponse::Accepted); // nobody waits for more
        }
        let outcome = self
            .inner
            .post_message_with_max_sse_event_size(uri, message, session, auth, headers, limit)
            .await;
        let Some((id, probe)) = call else { return outcome };
        let outcome = match outcome {
            Ok(StreamableHttpPostResponse::Json(JsonRpcMessage::Error(error), session)) => {
                let error = self.take(error, id, &probe);
                error.map(|e| StreamableHttpPostResponse::Json(JsonRpcMessage::Error(e), session))
            }
            outcome => outcome,
        };
        match outcome {
            Ok(StreamableHttpPostResponse::Sse(events, session)) => {
                let events = Self::watch(Arc::clone(&self.wire), events, id, probe);
                Ok(StreamableHttpPostResponse::Sse(events, session))
            }
            Ok(other) => Ok(other),
            Err(error) => {
                match &error {
                    StreamableHttpError::ResponseBodyTooLarge { max_size } => {
                        probe.set_fault(format!("the reply is longer than {max_size} bytes"));
                    }
                    refused if Self::refused(refused) => probe.arrived_not(),
                    _ => {}
                }
                self.wire.retire(format!("a request failed: {}", chain(&error)));
                Err(error)
            }
        }
    }

    async fn delete_session(
        &self,
        uri: Arc<str>,
        session: Arc<str>,
        auth: Option<String>,
        headers: Headers,
    ) -> Result<(), Failure> {
        match self.inner.delete_session(uri, session, auth, headers).await {
            // It is gone already; rmcp would log that as an error.
            Err(StreamableHttpError::Client(error))
                if error.status().is_some_and(|status| status.is_client_error()) =>
            {
                Ok(())
            }
            outcome => outcome,
        }
    }

    async fn get_stream(
        &self,
        uri: Arc<str>,
        session: Option<Arc<str>>,
        last_event_id: Option<String>,
        auth: Option<String>,
        headers: Headers,
    ) -> Result<Events, Failure> {
        self.inner.get_stream(uri, session, last_event_id, auth, headers).await
    }

    async fn get_stream_with_max_sse_event_size(
        &self,
        uri: Arc<str>,
        session: Option<Arc<str>>,
        last_event_id: Option<String>,
        auth: Option<String>,
        headers: Headers,
        limit: usize,
    ) -> Result<Events, Failure> {
        self.inner
            .get_stream_with_max_sse_event_size(uri, session, last_event_id, auth, headers, limit)
            .await
    }
}
