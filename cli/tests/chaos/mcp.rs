//! An MCP server that does what no server should, tool by tool, and remembers what it did for whom.
//!
//! All workers call this one server, each by a port of its own, so that it knows who calls.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cogo::clock::Stopwatch;
use cogo::shutdown::Tasks;
use futures_util::{SinkExt as _, StreamExt as _};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

/// How large the answer of `huge` is.
const HUGE: usize = 50 << 20;

/// What a tool does when it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Does {
    /// Answers after a while, in milliseconds.
    Answers(u64),
    /// Answers when it is let go, by [`Server::let_go`].
    Waits,
    Nothing,
    AnswersTwice,
    /// Sends what is no JSON-RPC, and then the answer.
    Noise,
    /// Answers with what is no result.
    Garbage,
    /// Answers 50 MB, in one frame.
    Huge,
    /// Answers 50 MB, in frames that are small enough each.
    HugeInPieces,
    /// Does its work and hangs up before it answers.
    Dies,
    /// Answers that it failed.
    Fails,
    /// Fails at the first attempt alone.
    FailsOnce,
    /// Kills the worker that calls.
    Kills,
}

/// A tool, where messages find it, and how often they ask for it.
#[derive(Debug)]
pub(crate) struct Tool {
    pub(crate) toolset: &'static str,
    pub(crate) name: &'static str,
    /// Whether its annotations say that it may be called again.
    pub(crate) repeatable: bool,
    does: Does,
    pub(crate) weight: u32,
}

const fn tool(
    toolset: &'static str,
    name: &'static str,
    repeatable: bool,
    does: Does,
    weight: u32,
) -> Tool {
    Tool { toolset, name, repeatable, does, weight }
}

/// All tools. Those without weight are asked for by name alone.
pub(crate) const TOOLS: &[Tool] = &[
    tool("good", "put", true, Does::Answers(10), 20),
    tool("good", "pay", false, Does::Answers(20), 25),
    tool("good", "put_slowly", true, Does::Answers(300), 8),
    tool("good", "pay_slowly", false, Does::Answers(250), 12),
    tool("good", "put_flaky", true, Does::FailsOnce, 4),
    tool("good", "fail", false, Does::Fails, 2),
    tool("sick", "twice", false, Does::AnswersTwice, 4),
    tool("sick", "noise", false, Does::Noise, 3),
    tool("sick", "garbage", false, Does::Garbage, 2),
    tool("sick", "silent", false, Does::Nothing, 2),
    tool("sick", "silent_put", true, Does::Nothing, 2),
    tool("sick", "huge", false, Does::Huge, 1),
    tool("sick", "huge_put", true, Does::HugeInPieces, 1),
    tool("sick", "die", false, Does::Dies, 2),
    tool("sick", "die_put", true, Does::Dies, 2),
    tool("sick", "poison", true, Does::Kills, 0),
    tool("good", "wait", true, Does::Waits, 0),
    tool("good", "wait_pay", false, Does::Waits, 0),
];

/// The tool of that name.
pub(crate) fn find(name: &str) -> Option<&'static Tool> {
    TOOLS.iter().find(|tool| tool.name == name)
}

/// Who calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Caller {
    Hub,
    Gateway(usize),
}

/// One call of a tool, as it arrived. That it arrived is what counts as its effect.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Called {
    pub(crate) tool: String,
    pub(crate) message: String,
    pub(crate) attempt: i64,
    pub(crate) by: Caller,
    pub(crate) at_ms: u64,
}

/// The server.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    inner: Arc<Inner>,
    tasks: Tasks,
    stop: CancellationToken,
}

#[derive(Debug)]
struct Inner {
    ledger: Mutex<Vec<Called>>,
    changed: Mutex<HashMap<String, Does>>,
    let_go: Notify,
    /// Who is to be killed.
    victims: mpsc::UnboundedSender<Caller>,
    clock: Stopwatch,
}

/// What one connection is to send.
enum Out {
    Text(String),
    Huge { pieces: bool },
    HangUp,
}

impl Server {
    /// A server; whom it wants killed comes out of the channel.
    pub(crate) fn new(clock: Stopwatch) -> (Self, mpsc::UnboundedReceiver<Caller>) {
        let (victims, killed) = mpsc::unbounded_channel();
        let inner = Inner {
            ledger: Mutex::default(),
            changed: Mutex::default(),
            let_go: Notify::new(),
            victims,
            clock,
        };
        let server =
            Self { inner: Arc::new(inner), tasks: Tasks::new(), stop: CancellationToken::new() };
        (server, killed)
    }

    /// Listens for one caller.
    pub(crate) async fn listen(&self, caller: Caller) -> std::io::Result<SocketAddr> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let this = self.clone();
        self.tasks.spawn(async move {
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    () = this.stop.cancelled() => return,
                };
                let Ok((socket, _)) = accepted else { continue };
                let serving = this.clone();
                this.tasks.spawn(async move {
                    tokio::select! {
                        () = serving.serve(socket, caller) => {}
                        () = serving.stop.cancelled() => {}
                    }
                });
            }
        });
        Ok(address)
    }

    /// Ends all connections.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    /// What was called so far.
    pub(crate) fn ledger(&self) -> Vec<Called> {
        lock(&self.inner.ledger).clone()
    }

    /// The time by the clock of [`Called::at_ms`].
    pub(crate) fn elapsed_ms(&self) -> u64 {
        self.inner.clock.elapsed_ms()
    }

    /// From now on a tool does something else: a sick one gets well.
    pub(crate) fn change(&self, tool: &str, does: Does) {
        lock(&self.inner.changed).insert(tool.to_owned(), does);
    }

    /// A tool does again what it is there for.
    pub(crate) fn mend(&self, tool: &str) {
        lock(&self.inner.changed).remove(tool);
    }

    /// Lets all calls answer that wait.
    pub(crate) fn let_go(&self) {
        self.inner.let_go.notify_waiters();
    }

    async fn serve(&self, socket: TcpStream, caller: Caller) {
        let _only_slower = socket.set_nodelay(true);
        let Ok(mut socket) = tokio_tungstenite::accept_async(socket).await else { return };
        let (out, mut outgoing) = mpsc::unbounded_channel();
        loop {
            tokio::select! {
                frame = socket.next() => {
                    let Some(Ok(frame)) = frame else { return };
                    let Message::Text(text) = frame else { continue };
                    let Ok(message) = serde_json::from_str::<Value>(&text) else { return };
                    self.take(message, caller, &out);
                }
                Some(next) = outgoing.recv() => {
                    let sent = match next {
                        Out::Text(text) => socket.send(Message::text(text)).await.is_ok(),
                        Out::Huge { pieces } => huge(&mut socket, pieces).await.is_ok(),
                        Out::HangUp => false,
                    };
                    if !sent {
                        return;
                    }
                }
            }
        }
    }

    /// Takes one message; what it is answered with goes to `out`, now or later.
    fn take(&self, message: Value, caller: Caller, out: &mpsc::UnboundedSender<Out>) {
        let id = message["id"].clone();
        let say = |value: Value| drop(out.send(Out::Text(value.to_string())));
        let reply = |result: Value| say(json!({"jsonrpc": "2.0", "id": id, "result": result}));
        match message["method"].as_str().unwrap_or_default() {
            "server/discover" => {
                let error = json!({"code": -32601, "message": "Method not found"});
                say(json!({"jsonrpc": "2.0", "id": id, "error": error}));
            }
            "initialize" => reply(json!({"protocolVersion": "2025-06-18",
                "capabilities": {"tools": {}}, "serverInfo": {"name": "chaos", "version": "1"}})),
            "ping" => reply(json!({})),
            "tools/list" => reply(json!({ "tools": TOOLS.iter().map(listed).collect::<Vec<_>>() })),
            "tools/call" => {
                let (this, out) = (self.clone(), out.clone());
                self.tasks.spawn(async move {
                    tokio::select! {
                        () = this.call(message, caller, &out) => {}
                        () = this.stop.cancelled() => {}
                    }
                });
            }
            // The late reply: it comes when nobody wants it any more.
            "notifications/cancelled" => {
                let id = message["params"]["requestId"].clone();
                say(json!({"jsonrpc": "2.0", "id": id, "result": result("late")}));
            }
            _ => {}
        }
    }

    async fn call(&self, message: Value, caller: Caller, out: &mpsc::UnboundedSender<Out>) {
        let params = &message["params"];
        let name = params["name"].as_str().unwrap_or_default();
        let meta = &params["_meta"];
        let attempt = meta["cogo/attempt"].as_i64().unwrap_or_default();
        lock(&self.inner.ledger).push(Called {
            tool: name.to_owned(),
            message: meta["cogo/message_id"].as_str().unwrap_or_default().to_owned(),
            attempt,
            by: caller,
            at_ms: self.inner.clock.elapsed_ms(),
        });
        // What it was called with: an answer that went to the wrong call is seen by that.
        let answer = result(&params["arguments"]["n"].to_string());
        let say = |value: &Value| drop(out.send(Out::Text(value.to_string())));
        let reply =
            |result: &Value| say(&json!({"jsonrpc": "2.0", "id": message["id"], "result": result}));
        let failed = json!({"isError": true, "content": [{"type": "text", "text": "no"}]});
        let changed = lock(&self.inner.changed).get(name).copied();
        match changed.or_else(|| find(name).map(|tool| tool.does)).unwrap_or(Does::Answers(0)) {
            Does::Answers(ms) => {
                tokio::time::sleep(Duration::from_millis(ms)).await;
                reply(&answer);
            }
            Does::Waits => {
                self.inner.let_go.notified().await;
                reply(&answer);
            }
            Does::Nothing => {}
            Does::AnswersTwice => {
                reply(&answer);
                reply(&result("the second answer"));
            }
            Does::Noise => {
                for noise in ["nonsense", "{\"half\":", "[]", "42", "{\"jsonrpc\":\"2.0\"}"] {
                    drop(out.send(Out::Text(noise.to_owned())));
                }
                reply(&answer);
            }
            Does::Garbage => reply(&json!(42)),
            Does::Huge => drop(out.send(Out::Huge { pieces: false })),
            Does::HugeInPieces => drop(out.send(Out::Huge { pieces: true })),
            Does::Dies => drop(out.send(Out::HangUp)),
            Does::FailsOnce if attempt > 1 => reply(&answer),
            Does::Fails | Does::FailsOnce => reply(&failed),
            Does::Kills => drop(self.inner.victims.send(caller)),
        }
    }
}

fn result(text: &str) -> Value {
    json!({"content": [{"type": "text", "text": text}]})
}

fn listed(tool: &Tool) -> Value {
    json!({"name": tool.name, "inputSchema": {"type": "object"},
        "annotations": {"idempotentHint": tool.repeatable}})
}

/// Sends 50 MB as raw frames (RFC 6455, section 5.2): nobody here holds them as a whole.
async fn huge(socket: &mut WebSocketStream<TcpStream>, pieces: bool) -> std::io::Result<()> {
    const PIECE: usize = 1 << 20;
    const TEXT: u8 = 1;
    const FINAL: u8 = 0x80;
    let stream = socket.get_mut();
    let body = vec![b'x'; PIECE];
    let head = |first: u8, length: usize| {
        let mut head = vec![first, 127];
        head.extend_from_slice(&(length as u64).to_be_bytes());
        head
    };
    if !pieces {
        stream.write_all(&head(FINAL | TEXT, HUGE)).await?;
    }
    for piece in 0..HUGE / PIECE {
        if pieces {
            let opcode = if piece == 0 { TEXT } else { 0 };
            let last = if piece + 1 == HUGE / PIECE { FINAL } else { 0 };
            stream.write_all(&head(last | opcode, PIECE)).await?;
        }
        stream.write_all(&body).await?;
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
