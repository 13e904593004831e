//! The MCP server behind the toolset `fixture`: the tools that the conformance suite asks for, and a few of ours.
//!
//! It lives in the test's own process, so it outlives hubs and workers that are killed, and its counters tell how
//! often a tool has really run. It speaks MCP 2026-07-28 over a WebSocket, written by hand: what a tool is announced
//! with (`execution`, `x-mcp-header`) must be on the wire as it stands here.

mod call;
mod tools;

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::thread;

use cogo::shutdown::Tasks;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime;
use tokio::sync::{mpsc, watch};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::{HeaderValue, header};
use tokio_util::sync::CancellationToken;

pub(crate) use self::tools::PNG;

/// The revision that it speaks.
const REVISION: &str = "2026-07-28";
/// Where a request says what its client can do.
const CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
const SUBSCRIPTION: &str = "io.modelcontextprotocol/subscriptionId";

/// A running fixture. It ends with the process.
#[derive(Debug, Clone)]
pub(crate) struct Fixture {
    pub(crate) url: String,
    state: Arc<State>,
}

/// What its tools have in common.
#[derive(Debug)]
struct State {
    counters: Mutex<HashMap<String, u64>>,
    /// Labels of calls that run.
    running: Mutex<Vec<String>>,
    /// Labels of calls that were told that nobody waits for them.
    cancelled: Mutex<Vec<String>>,
    /// How often the list of tools has changed.
    changes: watch::Sender<u64>,
}

impl Fixture {
    pub(crate) fn start() -> Self {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        listener.set_nonblocking(true).expect("a socket that does not block");
        let address: SocketAddr = listener.local_addr().expect("an address");
        let state = Arc::new(State {
            counters: Mutex::default(),
            running: Mutex::default(),
            cancelled: Mutex::default(),
            changes: watch::Sender::new(0),
        });
        let serving = Arc::clone(&state);
        thread::spawn(move || {
            let runtime = runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(serve(listener, serving));
        });
        Self { url: format!("ws://{address}"), state }
    }

    /// How often the tool `count` has run with this key.
    pub(crate) fn count(&self, key: &str) -> u64 {
        self.state.counters.lock().expect("unpoisoned").get(key).copied().unwrap_or(0)
    }

    /// Whether a call of `slow_compute` or `count` with this label or key has begun.
    pub(crate) fn has_begun(&self, label: &str) -> bool {
        self.state.running.lock().expect("unpoisoned").iter().any(|it| it == label)
    }

    /// Whether a call of `slow_compute` or `count` with this label or key was told that nobody waits for it.
    pub(crate) fn was_cancelled(&self, label: &str) -> bool {
        self.state.cancelled.lock().expect("unpoisoned").iter().any(|it| it == label)
    }
}

async fn serve(listener: std::net::TcpListener, state: Arc<State>) {
    let listener = TcpListener::from_std(listener).expect("a listener");
    let tasks = Tasks::new();
    while let Ok((socket, _)) = listener.accept().await {
        let (state, inner) = (Arc::clone(&state), tasks.clone());
        tasks.spawn(async move {
            let _only_slower = socket.set_nodelay(true);
            connection(socket, state, inner).await;
        });
    }
}

/// What leaves on a connection, in this order.
type Out = mpsc::UnboundedSender<Value>;

async fn connection(socket: TcpStream, state: Arc<State>, tasks: Tasks) {
    #[allow(clippy::result_large_err, reason = "tungstenite's signature")]
    let offer = |request: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
        if request.headers().contains_key(header::SEC_WEBSOCKET_PROTOCOL) {
            let name = HeaderValue::from_static("mcp");
            response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, name);
        }
        Ok(response)
    };
    let Ok(socket) = tokio_tungstenite::accept_hdr_async(socket, offer).await else { return };
    let (mut sink, mut stream) = socket.split();
    let (out, mut leaving) = mpsc::unbounded_channel::<Value>();
    tasks.spawn(async move {
        while let Some(message) = leaving.recv().await {
            if sink.send(Message::text(message.to_string())).await.is_err() {
                return;
            }
        }
    });
    let mut running: HashMap<String, CancellationToken> = HashMap::new();
    let gone = CancellationToken::new();
    while let Some(Ok(frame)) = stream.next().await {
        let Ok(text) = frame.into_text() else { continue };
        let Ok(message) = serde_json::from_str::<Value>(&text) else { continue };
        if message["method"] == "notifications/cancelled" {
            let id = message["params"]["requestId"].to_string();
            running.remove(&id).inspect(CancellationToken::cancel);
        }
        if message.get("id").is_none() || message.get("method").is_none() {
            continue;
        }
        let stop = gone.child_token();
        running.insert(message["id"].to_string(), stop.clone());
        tasks.spawn(answer(message, Arc::clone(&state), out.clone(), stop));
    }
    gone.cancel();
}

/// One request, to its end.
async fn answer(request: Value, state: Arc<State>, out: Out, stop: CancellationToken) {
    let id = request["id"].clone();
    let params = &request["params"];
    let outcome = match request["method"].as_str().unwrap_or_default() {
        "server/discover" => Ok(discovered()),
        "ping" => Ok(json!({})),
        "tools/list" => Ok(
            json!({"tools": tools::all(*state.changes.borrow()), "ttlMs": 0, "cacheScope": "private"}),
        ),
        "tools/call" => call::call(params, &state, &out, &stop).await,
        "subscriptions/listen" => return listen(&id, params, &state, &out, &stop).await,
        method => Err(json!({"code": -32601, "message": format!("no method {method}")})),
    };
    if stop.is_cancelled() {
        return; // nobody waits for the answer
    }
    let message = match outcome {
        Ok(mut result) => {
            if result.get("resultType").is_none() {
                result["resultType"] = json!("complete");
            }
            json!({"jsonrpc": "2.0", "id": id, "result": result})
        }
        Err(error) => json!({"jsonrpc": "2.0", "id": id, "error": error}),
    };
    let _gone = out.send(message);
}

fn discovered() -> Value {
    json!({
        "supportedVersions": [REVISION], "capabilities": {"tools": {"listChanged": true}},
        "ttlMs": 0, "cacheScope": "private",
        "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "cogo-fixture", "version": "1.0.0"}},
    })
}

/// Tells of changes of the list until nobody wants to hear of them.
async fn listen(id: &Value, params: &Value, state: &State, out: &Out, stop: &CancellationToken) {
    let mut changes = state.changes.subscribe();
    let tell = |method: &str, mut params: Value| {
        params["_meta"] = json!({ SUBSCRIPTION: id });
        let _gone = out.send(json!({"jsonrpc": "2.0", "method": method, "params": params}));
    };
    let wanted = &params["notifications"]["toolsListChanged"];
    let accepted = json!({"notifications": {"toolsListChanged": wanted == true}});
    tell("notifications/subscriptions/acknowledged", accepted);
    loop {
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = stop.cancelled() => return,
        }
        if *wanted == true {
            tell("notifications/tools/list_changed", json!({}));
        }
    }
}
