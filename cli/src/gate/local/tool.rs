//! The scenario's own MCP server: tools that fail as they are told to, and a journal of what was really called.
//!
//! It speaks streamable HTTP (MCP 2025-06-18), with plain JSON replies, in the gate's own process. Each way to it has a
//! path of its own, so that it knows by whose configuration it was called.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use axum::{Json, Router};
use cogo::shutdown::{Shutdown, Tasks};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// Gives its arguments back.
pub(super) const ECHO: &str = "echo";
/// Is silent at the first two calls of each message.
pub(super) const FAILS_TWICE: &str = "fails_twice";
/// Is silent while the server is sick.
pub(super) const SICK: &str = "sick";
/// Fails unless it is called with `{"value": "good"}`.
pub(super) const STRICT: &str = "strict";
/// Holds the first call of each message until whoever called is gone.
pub(super) const HOLD: &str = "hold";
/// Gives back the credentials that it was called with, as no server should.
pub(super) const REVEAL: &str = "reveal";
const TOOLS: [&str; 6] = [ECHO, FAILS_TWICE, SICK, STRICT, HOLD, REVEAL];

/// The path of those who have to show the token.
pub(super) const GUARDED: &str = "server";
/// The path of the worker from far away, whose environment holds no token.
pub(super) const OPEN: &str = "outbound";

/// After how long a silent call ends all the same, when nobody has waited for it for long.
const SILENCE: Duration = Duration::from_secs(5);

/// One call, as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Called {
    pub(super) tool: String,
    pub(super) message: String,
    pub(super) attempt: i64,
    pub(super) via: String,
    /// Whether it was answered, with a result or with a failure.
    pub(super) answered: bool,
}

/// The running server. Dropped, it ends.
#[derive(Debug)]
pub(super) struct Tool {
    address: SocketAddr,
    inner: Arc<Inner>,
    shutdown: Shutdown,
}

#[derive(Debug)]
struct Inner {
    journal: Mutex<Vec<Called>>,
    sick: AtomicBool,
    token: String,
    shutdown: Shutdown,
}

impl Tool {
    /// Starts it on a free port. `token` is what the header `authorization` must hold.
    pub(super) async fn start(token: String) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let (address, shutdown) = (listener.local_addr()?, Shutdown::new());
        let inner = Arc::new(Inner {
            journal: Mutex::default(),
            sick: AtomicBool::new(false),
            token,
            shutdown: shutdown.clone(),
        });
        let router = Router::new().route("/{via}", post(take)).with_state(Arc::clone(&inner));
        let stop = shutdown.clone();
        Tasks::new().spawn(async move {
            tokio::select! {
                _ = axum::serve(listener, router) => {}
                () = stop.cancelled().cancelled() => {}
            }
        });
        Ok(Self { address, inner, shutdown })
    }

    /// Where it is, for one of the paths.
    pub(super) fn url(&self, via: &str) -> String {
        format!("http://{}/{via}", self.address)
    }

    /// From now on, the tool `sick` is sick, or well.
    pub(super) fn be_sick(&self, sick: bool) {
        self.inner.sick.store(sick, Ordering::Release);
    }

    /// All calls so far.
    pub(super) fn journal(&self) -> Vec<Called> {
        self.inner.journal().clone()
    }

    /// The calls for one message so far.
    pub(super) fn calls_of(&self, message: &str) -> Vec<Called> {
        let journal = self.inner.journal();
        journal.iter().filter(|called| called.message == message).cloned().collect()
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Inner {
    fn journal(&self) -> MutexGuard<'_, Vec<Called>> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a call down; its place in the journal, and how many of its message came before it.
    fn note(&self, called: Called) -> (usize, usize) {
        let mut journal = self.journal();
        let before = journal.iter().filter(|other| other.message == called.message).count();
        journal.push(called);
        (journal.len() - 1, before)
    }

    async fn call(&self, via: &str, headers: &HeaderMap, params: &Value) -> Result<Value, Value> {
        let tool = params["name"].as_str().unwrap_or_default().to_owned();
        let (meta, arguments) = (&params["_meta"], &params["arguments"]);
        let (place, before) = self.note(Called {
            tool: tool.clone(),
            message: meta["cogo/message_id"].as_str().unwrap_or_default().to_owned(),
            attempt: meta["cogo/attempt"].as_i64().unwrap_or_default(),
            via: via.to_owned(),
            answered: false,
        });
        let answer = match tool.as_str() {
            ECHO => Ok(text(&arguments.to_string())),
            FAILS_TWICE if before < 2 => self.silence().await,
            SICK if self.sick.load(Ordering::Acquire) => self.silence().await,
            FAILS_TWICE | SICK => Ok(text(&arguments.to_string())),
            STRICT if arguments["value"] == "good" => Ok(text("good")),
            STRICT => Ok(json!({"isError": true, "content":
                [{"type": "text", "text": "value: must be \"good\""}]})),
            HOLD if before == 0 => {
                self.shutdown.cancelled().cancelled().await;
                Err(json!({"code": -32000, "message": "the server ends"}))
            }
            HOLD => Ok(text("held")),
            REVEAL => Ok(text(credentials(headers))),
            other => Err(json!({"code": -32602, "message": format!("unknown tool: {other}")})),
        };
        if let Some(called) = self.journal().get_mut(place) {
            called.answered = true;
        }
        answer
    }

    async fn silence(&self) -> Result<Value, Value> {
        tokio::select! {
            () = tokio::time::sleep(SILENCE) => {}
            () = self.shutdown.cancelled().cancelled() => {}
        }
        Err(json!({"code": -32000, "message": "too late"}))
    }
}

/// One JSON-RPC message.
async fn take(
    State(inner): State<Arc<Inner>>,
    Path(via): Path<String>,
    headers: HeaderMap,
    Json(message): Json<Value>,
) -> Response {
    match via.as_str() {
        GUARDED if credentials(&headers) != inner.token => {
            return StatusCode::UNAUTHORIZED.into_response();
        }
        GUARDED | OPEN => {}
        _ => return StatusCode::NOT_FOUND.into_response(),
    }
    let Some(id) = message.get("id") else { return StatusCode::ACCEPTED.into_response() };
    let answer = match message["method"].as_str().unwrap_or_default() {
        "initialize" => Ok(json!({"protocolVersion": "2025-06-18", "capabilities": {"tools": {}},
            "serverInfo": {"name": "cogo-gate", "version": env!("CARGO_PKG_VERSION")}})),
        "ping" => Ok(json!({})),
        "tools/list" => Ok(json!({"tools": TOOLS.map(listed)})),
        "tools/call" => inner.call(&via, &headers, &message["params"]).await,
        _ => Err(json!({"code": -32601, "message": "Method not found"})),
    };
    let reply = match answer {
        Ok(result) => json!({"jsonrpc": "2.0", "id": id, "result": result}),
        Err(error) => json!({"jsonrpc": "2.0", "id": id, "error": error}),
    };
    Json(reply).into_response()
}

fn credentials(headers: &HeaderMap) -> &str {
    headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn text(text: &str) -> Value {
    json!({"content": [{"type": "text", "text": text}]})
}

/// All may be called again: what is to be seen is that they are, and when.
fn listed(name: &str) -> Value {
    json!({"name": name, "inputSchema": {"type": "object"}, "annotations": {"idempotentHint": true}})
}
