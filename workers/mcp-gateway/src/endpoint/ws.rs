//! WebSocket: one JSON-RPC message a frame, of either lifecycle. No revision of MCP has it; what it is like is stdio.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{FromRequestParts, State};
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse, Response};
use cogo::clock::Stopwatch;
use cogo::error::Code;
use cogo::hub::ApiError;
use futures_util::stream::{FuturesUnordered, SplitSink, SplitStream};
use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _, stream};
use rmcp::model::{ClientJsonRpcMessage, ServerJsonRpcMessage};
use rmcp::service::serve_server_with_ct;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::{CancellationToken, PollSender};

use super::Endpoint;
use super::asked::{Asked, Carried, Kept};
use super::calls::{Key, Scope};
use super::lifecycle::{self, Client, Lifecycle};
use super::places::{Place, Taken};
use super::rpc::{INVALID_REQUEST, Incoming, METHOD_NOT_FOUND, RpcError, response};
use super::server::{Caller, Server};
use crate::upstream::websocket::SUBPROTOCOL;

/// How many frames may wait for a slow client. Where there is no room, progress is dropped and results wait.
const FRAMES: usize = 256;
/// How many bytes of answers may wait for a slow client; one that is larger waits alone.
const ROOM: usize = 8 * 1024 * 1024;
/// What opens a stream of changes, which lasts.
const LISTEN: &str = "subscriptions/listen";
/// How long a client may take for one frame before it is dropped.
const SEND_WITHIN: Duration = Duration::from_secs(30);
/// How often a client is asked whether it is there.
const PING_EVERY: Duration = Duration::from_secs(20);
/// After how long a client of which nothing is heard is dropped: three pings.
const SILENCE: Duration = Duration::from_secs(65);
/// How long requests may take to be answered when the hub stops.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Upgrades.
pub(super) async fn upgrade(
    State(endpoint): State<Endpoint>,
    request: Request<axum::body::Body>,
) -> Response {
    let who = match endpoint.0.principals.of(request.headers()) {
        Ok(who) => who,
        Err(refused) => return refused.into_response(),
    };
    let (mut parts, _) = request.into_parts();
    let Ok(upgrade) = WebSocketUpgrade::from_request_parts(&mut parts, &()).await else {
        let refused =
            ApiError::new(Code::InvalidArgument, "this is for WebSockets: send an upgrade");
        return refused.with_status(StatusCode::UPGRADE_REQUIRED).into_response();
    };
    let limits = &endpoint.0.limits.hub;
    let (max, max_own) = (limits.max_sockets, limits.max_sockets.div_ceil(2));
    let place = match endpoint.0.sockets.take(&who, max, max_own) {
        Ok(place) => place,
        Err(taken) => {
            let whose = if taken == Taken::All { "the hub" } else { "this key" };
            let message =
                format!("{whose} has as many sockets as it may (hub.json, mcp.max_sockets)");
            let refused = ApiError::new(Code::RateLimited, message);
            return refused.with_retry_after(Duration::from_secs(10)).into_response();
        }
    };
    let max_bytes = limits.max_body_bytes;
    let caller = Caller { who, toolset: None };
    upgrade
        .protocols([SUBPROTOCOL])
        .max_message_size(max_bytes)
        .max_frame_size(max_bytes)
        .on_upgrade(move |socket| serve(endpoint, caller, socket, place))
}

async fn serve(endpoint: Endpoint, caller: Caller, socket: WebSocket, place: Place) {
    static NUMBERS: AtomicU64 = AtomicU64::new(0);
    let _place = place;
    let (sink, frames) = socket.split();
    let (out, waiting) = mpsc::channel(FRAMES);
    let gone = CancellationToken::new();
    let writer = endpoint.0.tasks.spawn(write(sink, waiting, gone.clone()));
    let socket = Socket {
        number: NUMBERS.fetch_add(1, Ordering::Relaxed),
        out: out.clone(),
        to_rmcp: None,
        session: None,
        served: false,
        room: Arc::new(Semaphore::new(ROOM)),
        listens: Vec::new(),
        gone: gone.clone(),
        endpoint,
        caller,
    };
    let why = socket.run(frames).await;
    let _gone_already = out.try_send(Out::Close(why));
    drop(out);
    let _ended = tokio::time::timeout(SEND_WITHIN, writer).await;
    gone.cancel();
}

/// What an answer takes up: room among what waits, a seat, and a place where it is an artifact.
type Held = (OwnedSemaphorePermit, Option<(Place, Kept)>);

/// What goes out.
#[derive(Debug)]
enum Out {
    /// With what it takes up until it is sent.
    Text(String, Option<Held>),
    Ping,
    Close((u16, &'static str)),
}

/// Sends what waits. A client that takes nothing is let go.
async fn write(
    mut sink: SplitSink<WebSocket, Message>,
    mut waiting: mpsc::Receiver<Out>,
    gone: CancellationToken,
) {
    while let Some(out) = waiting.recv().await {
        let mut held = None;
        let (message, last) = match out {
            Out::Text(text, takes) => {
                held = takes;
                (Message::Text(text.into()), false)
            }
            Out::Ping => (Message::Ping(Default::default()), false),
            Out::Close((code, reason)) => {
                let frame = CloseFrame { code, reason: Utf8Bytes::from_static(reason) };
                (Message::Close(Some(frame)), true)
            }
        };
        let sent = tokio::time::timeout(SEND_WITHIN, sink.send(message)).await;
        drop(held);
        if last || !matches!(sent, Ok(Ok(()))) {
            break;
        }
    }
    gone.cancel();
}

/// One connection.
struct Socket {
    endpoint: Endpoint,
    caller: Caller,
    number: u64,
    out: mpsc::Sender<Out>,
    /// Where rmcp reads; it is started for the first message that is its.
    to_rmcp: Option<mpsc::Sender<ClientJsonRpcMessage>>,
    /// What `initialize` declared.
    session: Option<Client>,
    /// Whether rmcp has got a request after which it takes notifications.
    served: bool,
    /// How many bytes may still wait for the client.
    room: Arc<Semaphore>,
    /// The seats of what the client hears of changes by, until the socket ends.
    listens: Vec<Place>,
    gone: CancellationToken,
}

/// A request that is answered here: its id, its answer, and what that takes up.
type Work = futures_util::future::BoxFuture<'static, (Value, super::Answer, (Place, Kept))>;
type Working = FuturesUnordered<Work>;

impl Socket {
    /// Until the client goes, or must; why.
    async fn run(mut self, mut frames: SplitStream<WebSocket>) -> (u16, &'static str) {
        let draining = self.endpoint.0.draining.clone();
        let expires = super::http::left(&self.caller.who);
        let expired = async {
            match expires {
                Some(left) => tokio::time::sleep(left).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(expired);
        let mut working = Working::new();
        let mut heard = Stopwatch::start();
        let mut pings = tokio::time::interval(PING_EVERY);
        pings.reset();
        loop {
            tokio::select! {
                frame = frames.next() => {
                    heard = Stopwatch::start();
                    match frame {
                        Some(Ok(Message::Text(text))) => {
                            if let Some(work) = self.take(text.as_str()).await {
                                working.push(work);
                            }
                        }
                        Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                        Some(Ok(Message::Binary(_))) => {
                            return (close_code::UNSUPPORTED, "one JSON-RPC message a text frame");
                        }
                        Some(Ok(Message::Close(_)) | Err(_)) | None => return (close_code::NORMAL, ""),
                    }
                }
                Some((id, answer, takes)) = working.next() => self.answer(&id, &answer, takes).await,
                _ = pings.tick() => {
                    if heard.elapsed() > SILENCE {
                        return (close_code::POLICY, "nothing was heard of the client");
                    }
                    let _busy_is_alive = self.out.try_send(Out::Ping);
                }
                () = &mut expired => return (close_code::POLICY, "the key has expired"),
                () = self.gone.cancelled() => return (close_code::NORMAL, ""),
                () = draining.cancelled() => break,
            }
        }
        // Whoever waits is told that the call goes on.
        let last_words = async {
            while let Some((id, answer, takes)) = working.next().await {
                self.answer(&id, &answer, takes).await;
            }
        };
        let _too_slow = tokio::time::timeout(LAST_WORDS, last_words).await;
        (close_code::AWAY, "the hub is stopping")
    }

    async fn answer(&self, id: &Value, answer: &super::Answer, takes: (Place, Kept)) {
        if answer.as_ref().is_err_and(|error| error.code == super::rpc::CANCELLED) {
            return;
        }
        self.put(response(id, answer), Some(takes)).await;
    }

    async fn send(&self, text: String) {
        self.put(text, None).await;
    }

    /// Waits for room. What waits is dropped when nothing has been taken for long: then this ends as well.
    async fn put(&self, text: String, takes: Option<(Place, Kept)>) {
        let bytes = u32::try_from(text.len().min(ROOM)).unwrap_or(u32::MAX);
        let Ok(room) = Arc::clone(&self.room).acquire_many_owned(bytes).await else { return };
        let _gone = self.out.send(Out::Text(text, Some((room, takes)))).await;
    }

    /// Takes one message; the work that answers it, if that is done here.
    async fn take(&mut self, text: &str) -> Option<Work> {
        let message = match Incoming::read(text.as_bytes()) {
            Ok(message) => message?,
            Err(error) => {
                self.send(response(&Value::Null, &Err(error))).await;
                return None;
            }
        };
        if !message.is_request() {
            if message.method == "notifications/cancelled" {
                let (who, scope) = (self.caller.who.clone(), Scope::Socket(self.number));
                self.endpoint.cancelled(&who, scope, &message).await;
            }
            if self.served {
                self.pass_on(text, &message).await;
            }
            return None;
        }
        if !Endpoint::is_own(&message.method) {
            if message.method == "initialize" {
                self.session = Some(Client::of_initialize(&message.params));
            }
            if message.method == LISTEN && message.is_request() {
                match self.endpoint.seat(&self.caller.who) {
                    Ok(seat) => self.listens.push(seat),
                    Err(error) => {
                        self.send(response(&message.id, &Err(error))).await;
                        return None;
                    }
                }
            }
            self.served |= message.method != "server/discover" && message.method != "ping";
            self.pass_on(text, &message).await;
            return None;
        }
        let id = message.id.clone();
        let client = match lifecycle::of_message(&message, None) {
            Ok(Lifecycle::Own(client)) => client,
            Ok(Lifecycle::Session) if self.session.is_some() => self.session.unwrap_or_default(),
            Ok(Lifecycle::Session) => {
                let text = "begin with initialize, or send MCP 2026-07-28 requests";
                let error = RpcError::new(INVALID_REQUEST, text);
                self.send(response(&id, &Err(error))).await;
                return None;
            }
            Err(error) => {
                self.send(response(&id, &Err(error))).await;
                return None;
            }
        };
        let seat = match self.endpoint.seat(&self.caller.who) {
            Ok(seat) => seat,
            Err(error) => {
                self.send(response(&id, &Err(error))).await;
                return None;
            }
        };
        let (notes, mut told) = mpsc::channel(FRAMES);
        let kept = Kept::default();
        let key = Key::new(Scope::Socket(self.number), &id);
        // Now, and not when the work is begun: what cancels the call may be the next that is read.
        let is_call = message.method == "tools/call";
        let entered = is_call.then(|| Arc::new(self.endpoint.0.calls.enter(key.clone())));
        let asked = Asked {
            who: self.caller.who.clone(),
            client,
            toolset: None,
            headers: Carried::default(),
            key,
            entered,
            notes,
            kept: Arc::clone(&kept),
        };
        let (endpoint, out) = (self.endpoint.clone(), self.out.clone());
        let room = Arc::clone(&self.room);
        Some(
            async move {
                let telling = async {
                    while let Some(note) = told.recv().await {
                        let bytes = u32::try_from(note.len()).unwrap_or(u32::MAX);
                        if let Ok(room) = Arc::clone(&room).try_acquire_many_owned(bytes) {
                            let _slow = out.try_send(Out::Text(note, Some((room, None))));
                        }
                    }
                };
                // What is told ends with the request that it is of.
                let (answer, ()) = tokio::join!(endpoint.answer(asked, message), telling);
                (id, answer, (seat, kept))
            }
            .boxed(),
        )
    }

    /// Has rmcp take the message.
    async fn pass_on(&mut self, text: &str, message: &Incoming) {
        let parsed = match serde_json::from_str::<ClientJsonRpcMessage>(text) {
            Ok(parsed) => parsed,
            Err(_) if !message.is_request() => return,
            Err(error) => {
                let error = RpcError::new(METHOD_NOT_FOUND, format!("{}: {error}", message.method));
                self.send(response(&message.id, &Err(error))).await;
                return;
            }
        };
        let to_rmcp = match &self.to_rmcp {
            Some(to_rmcp) if !to_rmcp.is_closed() => to_rmcp.clone(),
            _ => self.start_rmcp(),
        };
        let _ended = to_rmcp.send(parsed).await;
    }

    fn start_rmcp(&mut self) -> mpsc::Sender<ClientJsonRpcMessage> {
        let (to_rmcp, from_client) = mpsc::channel(FRAMES);
        self.to_rmcp = Some(to_rmcp.clone());
        let incoming = stream::unfold(from_client, |mut from_client| async {
            from_client.recv().await.map(|message| (message, from_client))
        });
        let outgoing = PollSender::new(self.out.clone()).with(|message: ServerJsonRpcMessage| {
            let text = serde_json::to_string(&message).expect("rmcp's messages are JSON");
            std::future::ready(Ok::<_, tokio_util::sync::PollSendError<Out>>(Out::Text(text, None)))
        });
        let inner = &self.endpoint.0;
        let server = Server::new(
            inner.mesh.catalogue().clone(),
            inner.tasks.clone(),
            Some(self.caller.clone()),
        );
        let gone = self.gone.child_token();
        inner.tasks.spawn(async move {
            let transport = (Box::pin(outgoing), Box::pin(incoming));
            if let Ok(running) = serve_server_with_ct(server, transport, gone).await {
                let _why = running.waiting().await;
            }
        });
        to_rmcp
    }
}
