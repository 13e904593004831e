//! MCP over WebSocket: one JSON-RPC message per text frame.
//!
//! Not a transport of the specification, but one that many servers offer. It offers the subprotocol
//! `mcp`; Python's server insists on it, supergateway may answer none, so both are taken.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use rmcp::RoleClient;
use rmcp::model::ServerJsonRpcMessage;
use rmcp::service::TxJsonRpcMessage;
use rmcp::transport::Transport;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Interval, MissedTickBehavior};
use tokio_tungstenite::tungstenite::client::ClientRequestBuilder;
use tokio_tungstenite::tungstenite::error::{CapacityError, ProtocolError, SubProtocolError};
use tokio_tungstenite::tungstenite::http::Uri;
use tokio_tungstenite::tungstenite::protocol::{
    CloseFrame, WebSocketConfig, frame::coding::CloseCode,
};
use tokio_tungstenite::tungstenite::{Bytes, Error as WsError, Message};
use tokio_tungstenite::{
    Connector, MaybeTlsStream, WebSocketStream, connect_async_tls_with_config,
};

use super::wire::Wire;
use crate::secret::Secret;
use cogo::shutdown::Tasks;

/// The subprotocol of MCP over WebSocket, as the SDKs name it.
pub(crate) const SUBPROTOCOL: &str = "mcp";
/// How often an idle connection is probed. Routers forget idle connections after a minute or more.
const PING_EVERY: Duration = Duration::from_secs(15);
/// How many such intervals may pass without a sign of life: a pong is due well within one.
const SILENT_INTERVALS: u32 = 2;
/// How long closing may take; the other side may be gone.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);
/// Frames that wait for the writer. Calls in flight are bounded elsewhere; this only decouples.
const WRITE_QUEUE: usize = 64;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;
type Written = oneshot::Sender<Result<(), Error>>;

/// Why a message could not be sent.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("cannot serialize the message")]
    Serialize(#[source] serde_json::Error),
    #[error("cannot write to the WebSocket")]
    Write(#[source] Box<WsError>),
    #[error("the WebSocket is closed")]
    Closed,
}

enum Outgoing {
    Message(Box<TxJsonRpcMessage<RoleClient>>, Written),
    Ping,
    Close(oneshot::Sender<()>),
}

/// A client's WebSocket, as rmcp wants it.
pub(super) struct WebSocket {
    frames: SplitStream<Socket>,
    out: mpsc::Sender<Outgoing>,
    wire: Arc<Wire>,
    ready: std::vec::IntoIter<ServerJsonRpcMessage>,
    ticks: Interval,
    silent: u32,
    limit: usize,
}

/// Connects to `url`, sending `headers`; messages over `limit` bytes end the connection.
pub(super) async fn connect(
    url: &str,
    headers: &[(String, Secret)],
    tls: Option<Arc<ClientConfig>>,
    limit: usize,
    wire: Arc<Wire>,
    tasks: &Tasks,
) -> Result<WebSocket, Box<WsError>> {
    let socket = match open(url, headers, tls.clone(), limit, true).await {
        Err(error) if refused_offer(&error) => open(url, headers, tls, limit, false).await?,
        outcome => outcome?,
    };
    let (sink, frames) = socket.split();
    let (out, queue) = mpsc::channel(WRITE_QUEUE);
    tasks.spawn(write(sink, queue, Arc::clone(&wire)));
    let mut ticks = tokio::time::interval(PING_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.reset(); // the first tick is due after one interval, not now
    Ok(WebSocket { frames, out, wire, ready: Vec::new().into_iter(), ticks, silent: 0, limit })
}

async fn open(
    url: &str,
    headers: &[(String, Secret)],
    tls: Option<Arc<ClientConfig>>,
    limit: usize,
    offer: bool,
) -> Result<Socket, Box<WsError>> {
    let uri: Uri = url.parse().map_err(|error| Box::new(WsError::HttpFormat(error_into(error))))?;
    let mut request = ClientRequestBuilder::new(uri);
    for (name, value) in headers {
        request = request.with_header(name, value.expose());
    }
    if offer {
        request = request.with_sub_protocol(SUBPROTOCOL);
    }
    let config = WebSocketConfig::default()
        .max_frame_size(Some(limit))
        .max_message_size(Some(limit))
        .read_buffer_size(16 << 10) // one connection per server, mostly idle
        .write_buffer_size(0); // every message is flushed at once anyway
    // true: TCP_NODELAY. Nagle's algorithm costs 40 ms a call when the other side delays its ACKs.
    let connector = tls.map(Connector::Rustls);
    let (socket, _response) = connect_async_tls_with_config(request, Some(config), true, connector)
        .await
        .map_err(Box::new)?;
    Ok(socket)
}

fn error_into(
    error: tokio_tungstenite::tungstenite::http::uri::InvalidUri,
) -> tokio_tungstenite::tungstenite::http::Error {
    error.into()
}

/// RFC 6455 lets a server choose none of the subprotocols offered; tungstenite does not.
fn refused_offer(error: &WsError) -> bool {
    matches!(
        error,
        WsError::Protocol(ProtocolError::SecWebSocketSubProtocolError(
            SubProtocolError::NoSubProtocol
        ))
    )
}

/// Owns the sending half. Ends when the transport is dropped, was closed, or a write fails.
async fn write(
    mut sink: SplitSink<Socket, Message>,
    mut queue: mpsc::Receiver<Outgoing>,
    wire: Arc<Wire>,
) {
    let closed = wire.closed().clone();
    loop {
        let next = tokio::select! {
            next = queue.recv() => next,
            () = closed.cancelled() => break,
        };
        let sent = match next {
            None => break,
            Some(Outgoing::Close(done)) => {
                let _ = close(&mut sink).await;
                let _ = done.send(());
                return;
            }
            Some(Outgoing::Ping) => sink.send(Message::Ping(Bytes::new())).await,
            Some(Outgoing::Message(message, written)) => match serde_json::to_string(&message) {
                Err(error) => {
                    let _ = written.send(Err(Error::Serialize(error)));
                    continue;
                }
                Ok(text) => {
                    if !wire.sending(&message) {
                        let _ = written.send(Ok(()));
                        continue;
                    }
                    match sink.send(Message::text(text)).await {
                        Ok(()) => {
                            let _ = written.send(Ok(()));
                            Ok(())
                        }
                        Err(error) => {
                            wire.end(format!("cannot write to the WebSocket: {error}"));
                            let _ = written.send(Err(Error::Write(Box::new(error))));
                            break;
                        }
                    }
                }
            },
        };
        if let Err(error) = sent {
            wire.end(format!("cannot write to the WebSocket: {error}"));
            break;
        }
    }
    let _ = close(&mut sink).await;
}

async fn close(sink: &mut SplitSink<Socket, Message>) -> Result<(), WsError> {
    let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
    let closing = async {
        sink.send(Message::Close(Some(frame))).await?;
        sink.close().await
    };
    tokio::time::timeout(CLOSE_WITHIN, closing).await.unwrap_or(Ok(()))
}

impl Transport<RoleClient> for WebSocket {
    type Error = Error;

    fn send(
        &mut self,
        message: TxJsonRpcMessage<RoleClient>,
    ) -> impl Future<Output = Result<(), Error>> + Send + 'static {
        let out = self.out.clone();
        async move {
            let (written, outcome) = oneshot::channel();
            let message = Outgoing::Message(Box::new(message), written);
            out.send(message).await.map_err(|_| Error::Closed)?;
            outcome.await.unwrap_or(Err(Error::Closed))
        }
    }

    /// Cancel-safe: what was read and not yet given waits in `self`.
    async fn receive(&mut self) -> Option<ServerJsonRpcMessage> {
        let closed = self.wire.closed().clone();
        loop {
            if let Some(message) = self.ready.next() {
                return Some(message);
            }
            tokio::select! {
                frame = self.frames.next() => {
                    self.silent = 0;
                    if !self.take(frame) {
                        return None;
                    }
                }
                _ = self.ticks.tick() => {
                    if self.silent >= SILENT_INTERVALS {
                        self.wire.end("the server gave no sign of life");
                        return None;
                    }
                    self.silent += 1;
                    let _full = self.out.try_send(Outgoing::Ping); // then there is traffic anyway
                }
                () = closed.cancelled() => return None,
            }
        }
    }

    async fn close(&mut self) -> Result<(), Error> {
        let (done, closed) = oneshot::channel();
        if self.out.try_send(Outgoing::Close(done)).is_ok() {
            let _ = tokio::time::timeout(CLOSE_WITHIN, closed).await;
        }
        self.wire.end("the connection was closed by us");
        Ok(())
    }
}

impl WebSocket {
    /// Takes one frame; whether the connection goes on.
    fn take(&mut self, frame: Option<Result<Message, WsError>>) -> bool {
        match frame {
            Some(Ok(Message::Text(text))) => {
                self.ready = self.wire.read(text.as_bytes()).into_iter();
            }
            Some(Ok(Message::Binary(bytes))) => {
                self.ready = self.wire.read(&bytes).into_iter(); // some servers send these
            }
            Some(Ok(Message::Close(frame))) => {
                let code = frame.map_or_else(|| "no code".to_owned(), |f| f.code.to_string());
                self.wire.end(format!("the server closed the WebSocket ({code})"));
                return false;
            }
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
            Some(Err(WsError::Capacity(CapacityError::MessageTooLong { .. }))) => {
                self.wire.oversized(self.limit);
                return false;
            }
            Some(Err(WsError::Utf8(_))) => {
                // RFC 6455, section 8.1: the connection has failed.
                self.wire.end("the server sent text that is no UTF-8");
                return false;
            }
            Some(Err(error)) => {
                self.wire.end(format!("the WebSocket failed: {error}"));
                return false;
            }
            None => {
                self.wire.end("the server closed the connection");
                return false;
            }
        }
        true
    }
}
