//! An MCP server whose tools the test chooses, and changes.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cogo::shutdown::Tasks;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

/// How long each call takes.
const TAKES: Duration = Duration::from_millis(60);

/// The server. It ends when dropped.
#[derive(Debug)]
pub(crate) struct Shelf {
    pub(crate) url: String,
    tools: Arc<watch::Sender<Vec<Value>>>,
    load: Arc<Load>,
    stop: CancellationToken,
}

/// Which calls came, and how many were there at once at most, by the name of the tool.
#[derive(Debug, Default)]
struct Load {
    calls: Mutex<Vec<String>>,
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Drop for Shelf {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A tool's definition.
pub(crate) fn tool(name: &str, description: &str) -> Value {
    json!({"name": name, "description": description, "inputSchema": {"type": "object"}})
}

impl Shelf {
    pub(crate) async fn with(tools: impl IntoIterator<Item = Value>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let url = format!("ws://{}", listener.local_addr().expect("a bound address"));
        let tools = Arc::new(watch::Sender::new(tools.into_iter().collect()));
        let (load, stop, tasks) = (Arc::<Load>::default(), CancellationToken::new(), Tasks::new());
        let (theirs, their_load, ended) = (Arc::clone(&tools), Arc::clone(&load), stop.clone());
        tasks.clone().spawn(async move {
            loop {
                let (socket, _) = tokio::select! {
                    accepted = listener.accept() => accepted.expect("a connection"),
                    () = ended.cancelled() => return,
                };
                let serving =
                    serve(socket, Arc::clone(&theirs), Arc::clone(&their_load), tasks.clone());
                let ended = ended.clone();
                tasks.spawn(async move {
                    tokio::select! {
                        () = serving => {}
                        () = ended.cancelled() => {}
                    }
                });
            }
        });
        Self { url, tools, load, stop }
    }

    /// Has other tools from now on, and says so.
    pub(crate) fn now_has(&self, tools: impl IntoIterator<Item = Value>) {
        self.tools.send_replace(tools.into_iter().collect());
    }

    /// The tools that were called.
    pub(crate) fn called(&self) -> Vec<String> {
        self.load.calls.lock().expect("no panics").clone()
    }

    /// How many calls there were at once, at most.
    pub(crate) fn most_at_once(&self) -> usize {
        self.load.most.load(Ordering::SeqCst)
    }
}

async fn serve(
    socket: TcpStream,
    tools: Arc<watch::Sender<Vec<Value>>>,
    load: Arc<Load>,
    tasks: Tasks,
) {
    let Ok(socket) = tokio_tungstenite::accept_async(socket).await else { return };
    let (mut sink, mut stream) = socket.split();
    let (answer, mut answers) = mpsc::unbounded_channel::<Value>();
    let mut changed = tools.subscribe();
    loop {
        let message: Value = tokio::select! {
            frame = stream.next() => match frame {
                Some(Ok(Message::Text(text))) => serde_json::from_str(&text).expect("JSON"),
                Some(Ok(_)) => continue,
                _ => return,
            },
            Some(answer) = answers.recv() => {
                if sink.send(Message::text(answer.to_string())).await.is_err() {
                    return;
                }
                continue;
            }
            Ok(()) = changed.changed() => {
                let news = json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"});
                answer.send(news).expect("we listen");
                continue;
            }
        };
        let id = message["id"].clone();
        let reply = |result: Value| json!({"jsonrpc": "2.0", "id": id, "result": result});
        match message["method"].as_str().unwrap_or_default() {
            "initialize" => {
                let result = json!({"protocolVersion": "2025-11-25", "capabilities":
                    {"tools": {"listChanged": true}}, "serverInfo": {"name": "shelf", "version": "1"}});
                answer.send(reply(result)).expect("we listen");
            }
            "ping" => answer.send(reply(json!({}))).expect("we listen"),
            "tools/list" => {
                let tools = tools.borrow().clone();
                answer.send(reply(json!({"tools": tools}))).expect("we listen");
            }
            "tools/call" => {
                let name = message["params"]["name"].as_str().unwrap_or_default().to_owned();
                let done = reply(json!({"content": [{"type": "text", "text": name}]}));
                load.calls.lock().expect("no panics").push(name);
                let now = load.now.fetch_add(1, Ordering::SeqCst) + 1;
                load.most.fetch_max(now, Ordering::SeqCst);
                let (load, answer) = (Arc::clone(&load), answer.clone());
                tasks.spawn(async move {
                    tokio::time::sleep(TAKES).await;
                    load.now.fetch_sub(1, Ordering::SeqCst);
                    let _may_be_gone = answer.send(done);
                });
            }
            _ if id.is_null() => {}
            _ => {
                let error = json!({"code": -32601, "message": "Method not found"});
                let refused = json!({"jsonrpc": "2.0", "id": id, "error": error});
                answer.send(refused).expect("we listen");
            }
        }
    }
}
