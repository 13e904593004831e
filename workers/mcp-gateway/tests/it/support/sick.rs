//! An MCP server that misbehaves, tool by tool, and remembers what it was sent.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cogo::shutdown::Tasks;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use super::PATIENCE;

/// What a healthy tool of the sick server answers.
pub(crate) const FINE: &str = "fine";

/// What ties a notification to a subscription (MCP 2026-07-28).
const SUBSCRIPTION: &str = "io.modelcontextprotocol/subscriptionId";

/// How it takes `server/discover`, which a server of 2025 does not know.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Discover {
    /// As JSON-RPC wants it: method not found.
    Refused,
    /// It says nothing, ever.
    Ignored,
    /// It hangs up.
    HangsUp,
    /// As a server of 2026-07-28 does.
    Answered,
}

#[derive(Debug)]
pub(crate) struct Sick {
    pub(crate) url: String,
    received: Arc<Mutex<Vec<Value>>>,
    heard: Arc<Notify>,
    renamed: Arc<Mutex<Option<&'static str>>>,
    announce: Arc<Notify>,
    storms: Arc<AtomicBool>,
    stop: CancellationToken,
}

impl Drop for Sick {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[derive(Clone)]
struct Session {
    discover: Discover,
    received: Arc<Mutex<Vec<Value>>>,
    heard: Arc<Notify>,
    renamed: Arc<Mutex<Option<&'static str>>>,
    announce: Arc<Notify>,
    storms: Arc<AtomicBool>,
    subscription: Arc<Mutex<Value>>,
}

impl Sick {
    pub(crate) async fn start(discover: Discover) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let url = format!("ws://{}", listener.local_addr().expect("a bound address"));
        let session = Session {
            discover,
            received: Arc::default(),
            heard: Arc::default(),
            renamed: Arc::default(),
            announce: Arc::default(),
            storms: Arc::default(),
            subscription: Arc::default(),
        };
        let (stop, tasks) = (CancellationToken::new(), Tasks::new());
        let (ended, inner, theirs) = (stop.clone(), tasks.clone(), session.clone());
        tasks.spawn(async move {
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    () = ended.cancelled() => return,
                };
                let (socket, _) = accepted.expect("an accepted connection");
                let (session, ended) = (theirs.clone(), ended.clone());
                inner.spawn(async move {
                    tokio::select! {
                        () = session.serve(socket) => {}
                        () = ended.cancelled() => {}
                    }
                });
            }
        });
        let Session { received, heard, renamed, announce, storms, .. } = session;
        Self { url, received, heard, renamed, announce, storms, stop }
    }

    /// Waits for a message that fits.
    pub(crate) async fn heard(&self, what: impl Fn(&Value) -> bool) -> Value {
        let wait = async {
            loop {
                let news = self.heard.notified(); // armed before looking
                let all = self.received.lock().expect("no panics").clone();
                if let Some(found) = all.into_iter().find(|message| what(message)) {
                    return found;
                }
                news.await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("the message comes")
    }

    /// How often `method` was asked for.
    pub(crate) fn count(&self, method: &str) -> usize {
        let received = self.received.lock().expect("no panics");
        received.iter().filter(|message| message["method"] == method).count()
    }

    /// Says from now on that its tools have changed whenever they were listed.
    pub(crate) fn announce_at_each_list(&self) {
        self.storms.store(true, Ordering::Relaxed);
    }

    /// Lists another tool; tells the clients if `announce`.
    pub(crate) fn add_tool(&self, name: &'static str, announce: bool) {
        *self.renamed.lock().expect("no panics") = Some(name);
        if announce {
            self.announce.notify_one();
        }
    }
}

type Socket = WebSocketStream<TcpStream>;

impl Session {
    async fn serve(self, socket: TcpStream) {
        // No subprotocol is chosen, as servers may.
        let Ok(mut socket) = tokio_tungstenite::accept_async(socket).await else { return };
        loop {
            let frame = tokio::select! {
                frame = socket.next() => frame,
                () = self.announce.notified() => {
                    let mut news = json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"});
                    let subscription = self.subscription.lock().expect("no panics").clone();
                    if !subscription.is_null() {
                        news["params"] = json!({"_meta": {SUBSCRIPTION: subscription}});
                    }
                    send(&mut socket, &news).await;
                    continue;
                }
            };
            let Some(Ok(frame)) = frame else { return };
            let Message::Text(text) = frame else { continue };
            let message: Value = serde_json::from_str(&text).expect("the gateway sends JSON");
            self.received.lock().expect("no panics").push(message.clone());
            self.heard.notify_waiters();
            if !self.answer(&mut socket, &message).await {
                return;
            }
        }
    }

    /// Answers, or not; whether the connection goes on.
    async fn answer(&self, socket: &mut Socket, message: &Value) -> bool {
        let id = &message["id"];
        let reply = |result: Value| json!({"jsonrpc": "2.0", "id": id, "result": result});
        let refuse = |code: i32, text: &str| json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": text}});
        let fine = reply(json!({"content": [{"type": "text", "text": FINE}]}));
        match message["method"].as_str().unwrap_or_default() {
            "server/discover" => match self.discover {
                Discover::Refused => send(socket, &refuse(-32601, "Method not found")).await,
                Discover::Ignored => {}
                Discover::HangsUp => return false,
                Discover::Answered => {
                    let result = json!({"resultType": "complete", "ttlMs": 0, "cacheScope": "private",
                        "supportedVersions": ["2026-07-28"],
                        "capabilities": {"tools": {"listChanged": true}}});
                    send(socket, &reply(result)).await;
                }
            },
            "subscriptions/listen" => {
                let params = json!({"_meta": {SUBSCRIPTION: id}, "notifications":
                    {"toolsListChanged": true}});
                *self.subscription.lock().expect("no panics") = id.clone();
                let news = "notifications/subscriptions/acknowledged";
                send(socket, &json!({"jsonrpc": "2.0", "method": news, "params": params})).await;
            }
            "initialize" => {
                let result = json!({"protocolVersion": "2025-06-18", "capabilities":
                    {"tools": {"listChanged": true}}, "serverInfo": {"name": "sick", "version": "1"}});
                send(socket, &reply(result)).await;
            }
            "ping" => send(socket, &reply(json!({}))).await,
            "tools/list" => {
                send(socket, &reply(self.page(&message["params"]["cursor"]))).await;
                if self.storms.load(Ordering::Relaxed) {
                    self.announce.notify_one();
                }
            }
            "tools/call" => match message["params"]["name"].as_str().unwrap_or_default() {
                "silent" | "silent_ro" | "silent_idempotent" => {}
                "twice" => {
                    send(socket, &fine).await;
                    send(socket, &reply(json!({"content": [{"type": "text", "text": "no"}]})))
                        .await;
                }
                "noisy" => {
                    let noise = ["nonsense", "{\"half\":", "[]", "42", "{\"jsonrpc\":\"2.0\"}"];
                    for text in noise {
                        socket.send(Message::text(text)).await.expect("a connection");
                    }
                    socket.send(Message::binary(vec![0xff, 0xfe])).await.expect("a connection");
                    send(socket, &fine).await;
                }
                "number" => send(socket, &reply(json!(42))).await,
                "hollow" => send(socket, &json!({"jsonrpc": "2.0", "id": id})).await,
                "bad_error" => {
                    send(socket, &json!({"jsonrpc": "2.0", "id": id, "error": "oh"})).await;
                }
                "not_a_number" | "too_large" | "too_deep" | "half_a_character" => {
                    let part = match message["params"]["name"].as_str() {
                        Some("not_a_number") => "NaN".to_owned(),
                        Some("too_large") => "1e400".to_owned(),
                        Some("too_deep") => "[".repeat(200) + &"]".repeat(200),
                        _ => r#"[{"type":"text","text":"\ud83d!"}]"#.to_owned(),
                    };
                    let text =
                        format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"content":{part}}}}}"#);
                    socket.send(Message::text(text)).await.expect("a connection");
                }
                "oversized" | "oversized_ro" => {
                    let result = json!({"content": [{"type": "text", "text": "x".repeat(70_000)}]});
                    send(socket, &reply(result)).await;
                }
                "closes" | "closes_ro" => return false,
                "says_goodbye" => {
                    let _ = socket.close(None).await;
                    return false;
                }
                "refuses" => send(socket, &refuse(-32602, "a is required")).await,
                "breaks" => send(socket, &refuse(-32603, "disk full")).await,
                "misreads" => send(socket, &refuse(-32700, "Parse error")).await,
                "string_id" => {
                    let id = id.to_string();
                    send(socket, &json!({"jsonrpc": "2.0", "id": id, "result": {"new": 1}})).await;
                }
                "extra" => {
                    let result = json!({"content": [{"type": "hologram", "x": 1, "text": "h"}],
                            "future": {"a": [1, 2.5]}, "isError": false});
                    send(socket, &reply(result)).await;
                }
                "wants_input" => {
                    send(socket, &reply(json!({"resultType": "input_required"}))).await;
                }
                "asks" => {
                    for (id, method) in [
                        (901, "sampling/createMessage"),
                        (902, "elicitation/create"),
                        (903, "roots/list"),
                        (904, "ping"),
                        (905, "no/such"),
                    ] {
                        let params = match method {
                            "sampling/createMessage" => json!({"messages": [], "maxTokens": 1}),
                            "elicitation/create" => json!({"message": "?", "requestedSchema":
                                    {"type": "object", "properties": {}}}),
                            _ => json!({}),
                        };
                        let ask = json!({"jsonrpc": "2.0", "id": id, "method": method,
                                "params": params});
                        send(socket, &ask).await;
                    }
                    send(socket, &fine).await;
                }
                _ => send(socket, &fine).await,
            },
            // The late reply: it comes when nobody wants it any more.
            "notifications/cancelled" => {
                let id = &message["params"]["requestId"];
                let late = json!({"jsonrpc": "2.0", "id": id,
                    "result": {"content": [{"type": "text", "text": "late"}]}});
                send(socket, &late).await;
            }
            _ => {}
        }
        true
    }

    /// Two pages; the annotations are in the names.
    fn page(&self, cursor: &Value) -> Value {
        let first =
            ["silent", "silent_ro", "silent_idempotent", "twice", "noisy", "number", "hollow"];
        let second = [
            "bad_error",
            "oversized",
            "oversized_ro",
            "closes",
            "closes_ro",
            "says_goodbye",
            "refuses",
            "breaks",
            "misreads",
            "not_a_number",
            "too_large",
            "too_deep",
            "half_a_character",
            "string_id",
            "extra",
            "wants_input",
            "asks",
            "healthy",
        ];
        let tool = |name: &str| {
            json!({"name": name, "inputSchema": {"type": "object"}, "annotations": {
                "readOnlyHint": name.ends_with("_ro"), "idempotentHint": name.ends_with("_idempotent")}})
        };
        if cursor.is_null() {
            let tools: Vec<_> = first.into_iter().map(tool).collect();
            json!({"tools": tools, "nextCursor": "2"})
        } else {
            let added = *self.renamed.lock().expect("no panics");
            let tools: Vec<_> = second.into_iter().chain(added).map(tool).collect();
            json!({"tools": tools})
        }
    }
}

async fn send(socket: &mut Socket, message: &Value) {
    let sent = socket.send(Message::text(message.to_string()));
    let _closed = tokio::time::timeout(Duration::from_secs(5), sent).await;
}
