//! An MCP server over streamable HTTP that forgets, mixes up and keeps silent.

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::get;
use cogo::shutdown::Tasks;
use futures_util::StreamExt;
use futures_util::stream;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Notify;

use super::PATIENCE;
use super::sick::FINE;

const SESSION: &str = "mcp-session-id";

/// How it refuses a session that it does not know.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Refusal {
    /// As the specification wants it: HTTP 404.
    NotFound,
    /// HTTP 400 and a JSON-RPC error without an id.
    Nameless,
    /// HTTP 400 and a JSON-RPC error with the request's id.
    Echoed,
}

#[derive(Debug)]
pub(crate) struct SickHttp {
    pub(crate) url: String,
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    sessions: Mutex<HashSet<String>>,
    refusal: Mutex<Refusal>,
    silent: Mutex<HashSet<&'static str>>,
    received: Mutex<Vec<Value>>,
    heard: Notify,
    release: Notify,
}

impl SickHttp {
    pub(crate) async fn start() -> Self {
        let inner = Arc::new(Inner {
            sessions: Mutex::default(),
            refusal: Mutex::new(Refusal::NotFound),
            silent: Mutex::default(),
            received: Mutex::default(),
            heard: Notify::new(),
            release: Notify::new(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}/mcp", listener.local_addr().expect("an address"));
        // No stream of its own.
        let nothing = || async { StatusCode::METHOD_NOT_ALLOWED };
        let routes = get(nothing).post(answer).delete(async || StatusCode::NOT_FOUND);
        let router = Router::new().route("/mcp", routes).with_state(Arc::clone(&inner));
        Tasks::new().spawn(async move { axum::serve(listener, router).await });
        Self { url, inner }
    }

    /// Forgets all sessions, as a restart does.
    pub(crate) fn forget(&self, refusal: Refusal) {
        *self.inner.refusal.lock().expect("no panics") = refusal;
        self.inner.sessions.lock().expect("no panics").clear();
    }

    /// Answers `method` never again.
    pub(crate) fn silence(&self, method: &'static str) {
        self.inner.silent.lock().expect("no panics").insert(method);
    }

    /// Lets the tool `slow` end.
    pub(crate) fn release(&self) {
        self.inner.release.notify_one();
    }

    /// How often `what` was asked for: a method, or a tool.
    pub(crate) fn count(&self, what: &str) -> usize {
        let received = self.inner.received.lock().expect("no panics");
        received.iter().filter(|m| m["method"] == what || m["params"]["name"] == what).count()
    }

    /// Waits until `what` was asked for `times` times.
    pub(crate) async fn asked(&self, what: &str, times: usize) {
        let wait = async {
            loop {
                let news = self.inner.heard.notified(); // armed before looking
                if self.count(what) >= times {
                    return;
                }
                news.await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("it is asked");
    }
}

async fn answer(State(server): State<Arc<Inner>>, headers: HeaderMap, body: Bytes) -> Response {
    let message: Value = serde_json::from_slice(&body).expect("the gateway sends JSON");
    server.received.lock().expect("no panics").push(message.clone());
    server.heard.notify_waiters();
    let (id, method) = (&message["id"], message["method"].as_str().unwrap_or_default());
    let reply = |result: Value| json!({"jsonrpc": "2.0", "id": id, "result": result});
    let refuse = |status: u16, id: &Value, code: i32, text: &str| {
        let error = json!({"code": code, "message": text});
        json(status, &json!({"jsonrpc": "2.0", "id": id, "error": error}))
    };
    match method {
        "server/discover" => return refuse(200, id, -32601, "Method not found"),
        "initialize" => {
            let session = uuid::Uuid::now_v7().to_string();
            let result = json!({"protocolVersion": "2025-06-18", "capabilities": {"tools": {}},
                "serverInfo": {"name": "sick", "version": "1"}});
            let mut response = json(200, &reply(result));
            response.headers_mut().insert(SESSION, session.parse().expect("a header"));
            server.sessions.lock().expect("no panics").insert(session);
            return response;
        }
        _ => {}
    }
    let session = headers.get(SESSION).and_then(|session| session.to_str().ok());
    let known = session.is_some_and(|s| server.sessions.lock().expect("no panics").contains(s));
    if !known {
        let refusal = *server.refusal.lock().expect("no panics");
        let text = "Bad Request: No valid session ID provided";
        return match refusal {
            Refusal::NotFound => refuse(404, &Value::Null, -32001, "Session not found"),
            Refusal::Nameless => refuse(400, &Value::Null, -32000, text),
            Refusal::Echoed => refuse(400, id, -32000, text),
        };
    }
    if id.is_null() {
        return Response::builder().status(202).body(Body::empty()).expect("a response");
    }
    let silent = server.silent.lock().expect("no panics").contains(method);
    if silent {
        return std::future::pending().await;
    }
    let fine = reply(json!({"content": [{"type": "text", "text": FINE}]}));
    match message["params"]["name"].as_str().unwrap_or_default() {
        _ if method == "tools/list" => json(200, &reply(tools())),
        _ if method == "ping" => json(200, &reply(json!({}))),
        "slow" => {
            let begun = json!({"jsonrpc": "2.0", "method": "notifications/message",
                "params": {"level": "info", "data": "begun"}});
            let end = async move {
                server.release.notified().await;
                event(&fine.to_string())
            };
            events(stream::iter([event(&begun.to_string())]).chain(stream::once(end)))
        }
        // The stream stays open: nothing but the event says that this is all.
        "half_a_character" => {
            let text = r#"{"content":[{"type":"text","text":"\ud83d!"}]}"#;
            let text = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{text}}}"#);
            events(stream::iter([event(&text)]).chain(stream::pending()))
        }
        "not_a_number" => {
            let text = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"x":NaN}}}}"#);
            events(stream::iter([event(&text)]).chain(stream::pending()))
        }
        // What Python's SDK says when it cannot name the request.
        "mixed_up" => refuse(400, &json!("server-error"), -32600, "Validation error"),
        "mixed_up_ro" => refuse(500, &json!("server-error"), -32603, "Error handling request"),
        // What servers of the TypeScript SDK say when anything was thrown.
        "throws" => refuse(500, &Value::Null, -32603, "Internal server error"),
        _ => json(200, &fine),
    }
}

fn tools() -> Value {
    let names = [
        "healthy",
        "slow",
        "half_a_character",
        "not_a_number",
        "mixed_up",
        "mixed_up_ro",
        "throws",
    ];
    let tool = |name: &str| {
        json!({"name": name, "inputSchema": {"type": "object"},
            "annotations": {"readOnlyHint": name.ends_with("_ro")}})
    };
    json!({"tools": names.map(tool)})
}

fn json(status: u16, message: &Value) -> Response {
    let response = Response::builder().status(status).header("content-type", "application/json");
    response.body(Body::from(message.to_string())).expect("a response")
}

fn event(data: &str) -> Result<Bytes, Infallible> {
    Ok(Bytes::from(format!("data: {data}\n\n")))
}

fn events(
    events: impl stream::Stream<Item = Result<Bytes, Infallible>> + Send + 'static,
) -> Response {
    let response = Response::builder().header("content-type", "text/event-stream");
    response.body(Body::from_stream(events)).expect("a response")
}
