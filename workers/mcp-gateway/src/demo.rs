//! The toolset `demo`: a real MCP server on a loopback WebSocket, so that a first message can be
//! answered with nothing else installed. It is called through the same path as any other.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use cogo::shutdown::{Shutdown, Tasks};
use futures_util::future::ready;
use futures_util::{SinkExt, StreamExt};
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ClientJsonRpcMessage, ContentBlock,
    ErrorData, Implementation, JsonObject, ListToolsResult, PaginatedRequestParams,
    ProgressNotificationParam, ServerCapabilities, ServerConfig, ServerJsonRpcMessage, Tool,
    ToolAnnotations,
};
use rmcp::service::{RequestContext, serve_server_with_ct};
use rmcp::{RoleServer, ServerHandler};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::accept_hdr_async_with_config;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::{HeaderMap, HeaderValue, StatusCode, header};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use tokio_util::sync::CancellationToken;

use crate::upstream::websocket::SUBPROTOCOL;

/// The longest that `sleep` sleeps, in milliseconds: an hour.
const MAX_SLEEP_MS: u64 = 3_600_000;
/// How often `sleep` reports progress.
const REPORT_EVERY: Duration = Duration::from_millis(100);
/// How long a client may take for the WebSocket handshake.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(5);
/// The largest message a client may send.
const MAX_MESSAGE: usize = 1 << 20;

/// The running server. It ends with the [`Shutdown`] that it was started with.
#[derive(Debug)]
pub struct Demo {
    /// Where it listens: `ws://127.0.0.1:<port>`.
    pub url: String,
    tasks: Tasks,
}

impl Demo {
    /// Starts the server on a free port of the loopback interface.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn start(shutdown: Shutdown) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let tasks = Tasks::new();
        tasks.spawn(accept(listener, address, shutdown.cancelled().clone(), tasks.clone()));
        Ok(Self { url: format!("ws://{address}"), tasks })
    }

    /// Waits until all connections have ended after the shutdown; at most two seconds.
    pub async fn stopped(&self) {
        self.tasks.join(Duration::from_secs(2)).await;
    }
}

async fn accept(listener: TcpListener, address: SocketAddr, stop: CancellationToken, tasks: Tasks) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        match accepted {
            Ok((socket, _)) => {
                tasks.spawn(serve(socket, address, stop.child_token()));
            }
            Err(error) => {
                tracing::warn!(%error, "The demo server cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await; // out of files, most likely
            }
        }
    }
}

async fn serve(socket: TcpStream, address: SocketAddr, stop: CancellationToken) {
    let _only_slower = socket.set_nodelay(true);
    #[allow(clippy::result_large_err)] // tungstenite's signature
    let check = |request: &Request, response: Response| check(request, response, address);
    let config = WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE));
    let shaking = accept_hdr_async_with_config(socket, check, Some(config));
    let Ok(Ok(socket)) = tokio::time::timeout(HANDSHAKE_WITHIN, shaking).await else { return };
    let (sink, stream) = socket.split();
    let sink = sink.with(|message: ServerJsonRpcMessage| {
        ready(
            serde_json::to_string(&message)
                .map(Message::text)
                .map_err(|error| WsError::Io(error.into())),
        )
    });
    let stream = stream
        .take_while(|frame| ready(matches!(frame, Ok(frame) if !frame.is_close())))
        .filter_map(|frame| {
            let text = frame.ok().and_then(|frame| frame.into_text().ok());
            ready(text.and_then(|t| serde_json::from_str::<ClientJsonRpcMessage>(&t).ok()))
        });
    if let Ok(running) = serve_server_with_ct(Tools, (sink, stream), stop).await {
        let _ = running.waiting().await;
    }
}

/// Refuses what a browser was tricked into (DNS rebinding): a foreign `Host` or `Origin`.
#[allow(clippy::result_large_err)] // tungstenite's signature
fn check(
    request: &Request,
    mut response: Response,
    address: SocketAddr,
) -> Result<Response, ErrorResponse> {
    let headers = request.headers();
    if !local(headers, address) {
        let mut refusal = ErrorResponse::new(Some("foreign Host or Origin".to_owned()));
        *refusal.status_mut() = StatusCode::FORBIDDEN;
        return Err(refusal);
    }
    let offered = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let mut offered = offered.filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(','));
    if offered.any(|name| name.trim() == SUBPROTOCOL) {
        let chosen = HeaderValue::from_static(SUBPROTOCOL);
        response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, chosen);
    }
    Ok(response)
}

fn local(headers: &HeaderMap, address: SocketAddr) -> bool {
    let hosts = [address.to_string(), format!("localhost:{}", address.port())];
    let text = |name| headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap_or("?"));
    let host = text(header::HOST).is_some_and(|host| hosts.iter().any(|good| good == host));
    let origin = text(header::ORIGIN).is_none_or(|origin| {
        origin.strip_prefix("http://").is_some_and(|host| hosts.iter().any(|good| good == host))
    });
    host && origin
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    message: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sum {
    a: f64,
    b: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sleep {
    ms: u64,
}

struct Tools;

impl ServerHandler for Tools {
    fn get_info(&self) -> ServerConfig {
        let version = env!("CARGO_PKG_VERSION");
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(Implementation::new("cogo-demo", version))
    }

    async fn list_tools(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let text = json!({"message": {"type": "string"}});
        let numbers = json!({"a": {"type": "number"}, "b": {"type": "number"}});
        let ms = json!({"ms": {"type": "integer", "minimum": 0, "maximum": MAX_SLEEP_MS}});
        Ok(ListToolsResult::with_all_items(vec![
            tool("echo", "Gives the message back", text.clone()),
            tool("add", "Adds two numbers", numbers),
            tool("fail", "Fails with the message", text),
            tool("sleep", "Sleeps for some milliseconds, reporting progress", ms),
        ]))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let arguments = request.arguments.unwrap_or_default();
        let result = match request.name.as_ref() {
            "echo" => {
                let Text { message } = parse(arguments)?;
                CallToolResult::success(vec![ContentBlock::text(message)])
            }
            "add" => {
                let Sum { a, b } = parse(arguments)?;
                CallToolResult::structured(json!({ "sum": a + b }))
            }
            "fail" => {
                let Text { message } = parse(arguments)?;
                CallToolResult::error(vec![ContentBlock::text(message)])
            }
            "sleep" => {
                let Sleep { ms } = parse(arguments)?;
                sleep(ms.min(MAX_SLEEP_MS), &context).await?;
                CallToolResult::success(vec![ContentBlock::text(format!("slept {ms} ms"))])
            }
            other => {
                let message = format!("unknown tool: {other}");
                return Err(ErrorData::invalid_params(message, None));
            }
        };
        Ok(result.into())
    }
}

/// A tool that changes nothing, whatever it is called with.
fn tool(name: &'static str, description: &'static str, properties: Value) -> Tool {
    let required: Vec<_> = properties.as_object().into_iter().flat_map(|p| p.keys()).collect();
    let schema = json!({"type": "object", "required": required, "properties": properties,
        "additionalProperties": false});
    let schema = schema.as_object().cloned().unwrap_or_default();
    Tool::new(name, description, Arc::new(schema))
        .with_annotations(ToolAnnotations::new().read_only(true).idempotent(true))
}

fn parse<T: DeserializeOwned>(arguments: JsonObject) -> Result<T, ErrorData> {
    serde_json::from_value(Value::Object(arguments))
        .map_err(|error| ErrorData::invalid_params(error.to_string(), None))
}

async fn sleep(ms: u64, context: &RequestContext<RoleServer>) -> Result<(), ErrorData> {
    let token = context.meta.get_progress_token();
    let done = tokio::time::sleep(Duration::from_millis(ms));
    tokio::pin!(done);
    let mut ticks = tokio::time::interval(REPORT_EVERY);
    let mut reports = 0u32;
    loop {
        tokio::select! {
            () = &mut done => return Ok(()),
            () = context.ct.cancelled() => {
                return Err(ErrorData::internal_error("cancelled", None));
            }
            _ = ticks.tick(), if token.is_some() => {
                let Some(token) = token.clone() else { continue };
                let slept = f64::from(reports) * REPORT_EVERY.as_secs_f64() * 1000.0;
                reports += 1;
                let mut report = ProgressNotificationParam::new(token, slept);
                #[allow(clippy::cast_precision_loss)] // at most an hour
                {
                    report.total = Some(ms as f64);
                }
                let _nobody_listens = context.peer.notify_progress(report).await;
            }
        }
    }
}
