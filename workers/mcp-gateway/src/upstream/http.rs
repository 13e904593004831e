//! MCP over streamable HTTP (MCP 2025-03-26 and later, "Transports").
//!
//! rmcp does the protocol: sessions, event streams, resumption. This wraps its client to know of
//! each call whether it was sent, and to keep the result as it came where that is possible: in event
//! streams. Of a plain JSON reply, which rmcp parses by itself, members that it does not know are
//! lost.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use cogo::error::chain;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use rmcp::model::{ClientJsonRpcMessage, JsonRpcMessage, RequestId};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::{
    SseError, StreamableHttpClient, StreamableHttpClientTransportConfig, StreamableHttpError,
    StreamableHttpPostResponse,
};
use rustls::ClientConfig;
use serde_json::Value;
use sse_stream::Sse;

use super::wire::{Probe, Wire, probe_of};
use crate::secret::Secret;

/// How long a TCP connection and its TLS handshake may take; the toolset's own limit also holds.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

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
        .max_concurrent_requests(max_in_flight + 2); // beside the calls a ping and a list
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

    /// Keeps the reply's `result` as it came, when it passes by in an event stream.
    fn watch(events: Events, id: i64, probe: Arc<Probe>) -> Events {
        events
            .inspect(move |event| {
                let text = event.as_ref().ok().and_then(|event| event.data.as_ref());
                let Some(Ok(Value::Object(mut message))) = text.map(|t| serde_json::from_str(t))
                else {
                    return;
                };
                if message.get("id").and_then(Value::as_i64) == Some(id)
                    && let Some(result) = message.remove("result")
                {
                    probe.set_raw(result);
                }
            })
            .boxed()
    }
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
        match outcome {
            Ok(StreamableHttpPostResponse::Sse(events, session)) => {
                let events = Self::watch(events, id, probe);
                Ok(StreamableHttpPostResponse::Sse(events, session))
            }
            // A refusal of the session, say, which cannot name the request; rmcp would drop it and
            // the call would wait for ever.
            Ok(StreamableHttpPostResponse::Json(JsonRpcMessage::Error(mut error), session))
                if error.id.is_none() =>
            {
                error.id = Some(RequestId::Number(id));
                self.wire.retire("the server refused the session");
                Ok(StreamableHttpPostResponse::Json(JsonRpcMessage::Error(error), session))
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
        self.inner.delete_session(uri, session, auth, headers).await
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
