//! One socket, from its first frame to its close.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket};
use metrics::counter;
use tokio::time::Instant;

use crate::hub::realtime::Inner;
use crate::hub::realtime::admission::{Place, count_refusal};
use crate::hub::realtime::connection::{Closing, Connection};
use crate::hub::realtime::topics::Line;
use crate::identity::Verified;
use crate::metrics::{REALTIME_FRAMES_TOTAL, REALTIME_SLOW_SOCKETS_TOTAL};
use crate::realtime::wire::{Frame, Side};
use crate::secret::Secret;

/// How long a client may take to read one frame. Its queue is usually full long before.
const WRITE_WITHIN: Duration = Duration::from_secs(30);
/// How long a client may take to hear that it is closed.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// Restart: supabase-py reconnects on this one, and gives up on 1000 and 1001.
const RESTART: Closing = Closing(1012, "restart");

/// Why a socket ends.
enum End {
    /// It is told.
    Close(Closing),
    /// It went, or it is dropped.
    Gone,
}

/// Serves a socket until it goes or the process stops.
pub(crate) async fn run(
    mut socket: WebSocket,
    inner: Arc<Inner>,
    line: Arc<Line>,
    place: Place,
    token: Secret,
    verified: Verified,
) {
    let (shutdown, silence) = (inner.shutdown.clone(), inner.options.silence_s);
    let silence = Duration::from_secs(silence.into());
    let mut connection = Connection::new(inner, Arc::clone(&line), place, token, verified);
    let mut heard = Instant::now();
    let end = loop {
        let silent = heard + silence;
        // Not left to the timer below, which is not looked at as long as there is anything else to do.
        let wake = connection.expire().map_or(silent, |recheck| recheck.min(silent));
        tokio::select! {
            biased;
            () = shutdown.draining().cancelled() => break End::Close(RESTART),
            () = line.outbox.overflowed() => break too_slow(),
            () = line.outbox.ready() => {
                if let Err(end) = send(&mut socket, &mut connection).await {
                    break end;
                }
            }
            message = socket.recv() => {
                heard = Instant::now();
                match message {
                    Some(Ok(message)) => match hear(&mut connection, message).await {
                        Ok(()) => {}
                        Err(closing) => break End::Close(closing),
                    },
                    Some(Err(error)) if is_too_large(&error) => {
                        count_refusal("event", "frame_bytes");
                        break End::Close(Closing(1009, "the frame is too large"));
                    }
                    Some(Err(_)) | None => break End::Gone,
                }
            }
            () = tokio::time::sleep_until(wake) => {
                if Instant::now() >= silent {
                    break End::Close(Closing(RESTART.0, "silent for too long"));
                }
            }
        }
    };
    line.outbox.close();
    // Others hear at once that its channels are gone.
    drop(connection);
    if let End::Close(Closing(code, reason)) = end {
        let close = CloseFrame { code, reason: reason.into() };
        // Best effort: it may not read.
        let _ = tokio::time::timeout(CLOSE_WITHIN, async {
            socket.send(Message::Close(Some(close))).await?;
            // Until it has answered: data that it had sent would else make a reset of the close.
            while let Some(Ok(_)) = socket.recv().await {}
            Ok::<_, axum::Error>(())
        })
        .await;
    }
}

/// Sends what waits. A client that reads slowly, or for whom there is always more, does not keep its channels
/// beyond their tokens by it.
async fn send(socket: &mut WebSocket, connection: &mut Connection) -> Result<(), End> {
    let line = Arc::clone(&connection.line);
    while let Some(frame) = line.outbox.take() {
        let sending = tokio::time::timeout(WRITE_WITHIN, socket.send(frame.into()));
        tokio::pin!(sending);
        loop {
            let recheck = connection.expire();
            tokio::select! {
                biased;
                () = line.outbox.overflowed() => return Err(too_slow()),
                sent = &mut sending => match sent {
                    Ok(Ok(())) => break,
                    Ok(Err(_)) => return Err(End::Gone),
                    Err(_) => return Err(too_slow()),
                },
                // Without a channel there is nothing that could end.
                () = tokio::time::sleep_until(recheck.unwrap_or_else(Instant::now)), if recheck.is_some() => {}
            }
        }
        counter!(REALTIME_FRAMES_TOTAL, "direction" => "out").increment(1);
    }
    Ok(())
}

async fn hear(connection: &mut Connection, message: Message) -> Result<(), Closing> {
    let vsn = connection.line.vsn;
    let frame = match &message {
        Message::Text(text) => Frame::decode_text(vsn, text),
        Message::Binary(bytes) => Frame::decode_binary(Side::Client, bytes),
        // Pings are answered for us, and a close is.
        Message::Ping(_) | Message::Pong(_) | Message::Close(_) => return Ok(()),
    };
    match frame {
        Ok(frame) => connection.hear(frame).await,
        Err(error) => {
            count_refusal("event", "malformed");
            tracing::debug!("Ignored a frame: {error}");
            connection.ignored()
        }
    }
}

fn too_slow() -> End {
    counter!(REALTIME_SLOW_SOCKETS_TOTAL).increment(1);
    End::Gone
}

/// Whether a frame was refused unread.
fn is_too_large(error: &axum::Error) -> bool {
    // The library's own error type is not part of its interface.
    error.to_string().contains("too long")
}
