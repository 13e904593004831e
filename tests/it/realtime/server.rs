//! A Realtime server that does what the test tells it: real sockets, no mind of its own.

use std::collections::VecDeque;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use cogo::net::AsyncReadWrite;
use cogo::realtime::wire::{Encoded, Frame, Reply, Side, Vsn, event};
use cogo::shutdown::Tasks;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::{WebSocketStream, accept_hdr_async};

/// What is waited for comes within this, or never.
pub(super) const DEADLINE: Duration = Duration::from_secs(30);

pub(super) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> Result<T> {
    tokio::time::timeout(DEADLINE, future).await.with_context(|| format!("{what} never came"))
}

pub(super) struct Server {
    pub(super) address: SocketAddr,
    peers: mpsc::UnboundedReceiver<Peer>,
    refusals: Arc<Mutex<VecDeque<(u16, &'static str)>>>,
    _tasks: Tasks,
}

/// The server's side of one connection.
pub(super) struct Peer {
    socket: WebSocketStream<Box<dyn AsyncReadWrite>>,
    pub(super) vsn: Vsn,
    pub(super) key: String,
}

impl Server {
    pub(super) async fn start() -> Result<Self> {
        Self::start_with(None).await
    }

    pub(super) async fn start_with(tls: Option<TlsAcceptor>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (met, peers) = mpsc::unbounded_channel();
        let (tasks, refusals) = (Tasks::new(), Arc::<Mutex<VecDeque<_>>>::default());
        let (accepting, refusing) = (tasks.clone(), Arc::clone(&refusals));
        tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (met, tls, refusing) = (met.clone(), tls.clone(), Arc::clone(&refusing));
                accepting.spawn(async move {
                    let stream: Box<dyn AsyncReadWrite> = match tls {
                        None => Box::new(stream),
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => Box::new(stream),
                            Err(_) => return,
                        },
                    };
                    if let Ok(peer) = Peer::meet(stream, &refusing).await {
                        let _ = met.send(peer);
                    }
                });
            }
        });
        Ok(Self { address, peers, refusals, _tasks: tasks })
    }

    /// The next connections are refused with these.
    pub(super) fn refuse(&self, refusals: &[(u16, &'static str)]) {
        self.refusals.lock().expect("not poisoned").extend(refusals);
    }

    pub(super) fn refusals_left(&self) -> usize {
        self.refusals.lock().expect("not poisoned").len()
    }

    pub(super) async fn peer(&mut self) -> Result<Peer> {
        soon("a connection", self.peers.recv()).await?.context("the server is gone")
    }
}

impl Peer {
    #[allow(clippy::result_large_err)] // the library's callback
    async fn meet(
        stream: Box<dyn AsyncReadWrite>,
        refusals: &Mutex<VecDeque<(u16, &'static str)>>,
    ) -> Result<Self> {
        let mut query = String::new();
        let look = |request: &Request, response: Response| {
            query = request.uri().query().unwrap_or_default().to_owned();
            match refusals.lock().expect("not poisoned").pop_front() {
                None if request.uri().path().ends_with("/realtime/v1/websocket") => Ok(response),
                refused => {
                    let (status, body) = refused.unwrap_or((404, "{}"));
                    let mut response = ErrorResponse::new(Some(body.to_owned()));
                    *response.status_mut() = status.try_into().expect("a status");
                    Err(response)
                }
            }
        };
        let socket = accept_hdr_async(stream, look).await?;
        let of = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name));
        let vsn = of("vsn=").map_or(Ok(Vsn::V1), str::parse)?;
        Ok(Self { socket, vsn, key: of("apikey=").unwrap_or_default().to_owned() })
    }

    /// What the client sends next, whatever it is.
    pub(super) async fn frame(&mut self) -> Result<Frame> {
        loop {
            let message = soon("a frame", self.socket.next()).await?.context("the end")??;
            return Ok(match message {
                Message::Text(text) => Frame::decode_text(self.vsn, &text)?,
                Message::Binary(bytes) => Frame::decode_binary(Side::Client, &bytes)?,
                Message::Close(_) => bail!("the client closed"),
                _ => continue,
            });
        }
    }

    /// What the client sends next apart from heartbeats, which are answered; it must be `event`.
    pub(super) async fn expect(&mut self, event: &str) -> Result<Frame> {
        loop {
            let frame = self.frame().await?;
            if frame.event == event {
                return Ok(frame);
            }
            ensure!(frame.event == event::HEARTBEAT, "{event} was expected, not {frame:?}");
            self.reply(&frame, &Reply::ok()).await?;
        }
    }

    /// Grants the next join.
    pub(super) async fn join(&mut self) -> Result<Frame> {
        let join = self.expect(event::JOIN).await?;
        ensure!(join.join_ref.is_some() && join.join_ref == join.reference, "{join:?}");
        self.reply(&join, &Reply::ok_with(&json!({"postgres_changes": []}))?).await?;
        Ok(join)
    }

    pub(super) async fn reply(&mut self, to: &Frame, reply: &Reply) -> Result<()> {
        self.send(to.reply(reply)?).await
    }

    /// Sends something to the channel of `join`.
    pub(super) async fn push(&mut self, join: &Frame, event: &str, payload: &Value) -> Result<()> {
        let mut frame = Frame::new(join.topic.clone(), event, payload)?;
        frame.join_ref.clone_from(&join.join_ref);
        if [event::CLOSE, event::ERROR].contains(&event) {
            frame.reference.clone_from(&join.join_ref);
        }
        self.send(frame).await
    }

    pub(super) async fn send(&mut self, frame: Frame) -> Result<()> {
        let message = match frame.encode(self.vsn, Side::Server)? {
            Encoded::Text(text) => Message::text(text),
            Encoded::Binary(bytes) => Message::binary(bytes),
        };
        self.raw(message).await
    }

    pub(super) async fn raw(&mut self, message: Message) -> Result<()> {
        Ok(soon("room for a frame", self.socket.send(message)).await??)
    }

    /// The next message of any kind, as the library has it.
    pub(super) async fn message(&mut self) -> Result<Option<Message>> {
        Ok(soon("a message", self.socket.next()).await?.transpose()?)
    }

    pub(super) async fn close(mut self, code: u16) -> Result<()> {
        let frame = CloseFrame { code: code.into(), reason: "".into() };
        Ok(soon("room for a close", self.socket.close(Some(frame))).await??)
    }
}
