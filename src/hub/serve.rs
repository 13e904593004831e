//! Connections: accepted, bounded, and ended with the process.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ConnectInfo;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use metrics::counter;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tower::ServiceExt as _;

use crate::error::chain;
use crate::hub::connections::Connections;
use crate::hub::stall::Unstalled;
use crate::metrics::HUB_REFUSED_TOTAL;
use crate::shutdown::{Shutdown, Tasks};

/// How many connections are held; further ones wait to be accepted. More than may wait for messages, so
/// that waiters cannot shut out everybody else.
pub const CONNECTIONS_MAX: usize = 2048;
/// How long a client may take to send a request's head, and how long a connection may be idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How large a request's head may be before the connection is refused unread; the router's own limit is
/// smaller, and explains itself.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// How long to wait when the system has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long connections that were let go may take to be gone.
const CUT: Duration = Duration::from_secs(5);

/// Serves until `shutdown`: when it drains, nothing more is accepted, and connections end with the answer
/// that they are at; when it is cancelled, they are cut.
///
/// # Errors
/// None at present: what fails to be accepted is logged, and accepting goes on.
pub async fn serve(
    listener: TcpListener,
    router: axum::Router,
    shutdown: &Shutdown,
) -> io::Result<()> {
    let any = Connections::per_address(CONNECTIONS_MAX);
    serve_within(listener, router, any, shutdown).await
}

/// As [`serve`], and there are no more connections, of one address and in all, than `bounds` says; further ones of an address are
/// closed unread.
///
/// # Errors
/// As [`serve`].
pub async fn serve_within(
    listener: TcpListener,
    router: axum::Router,
    bounds: Connections,
    shutdown: &Shutdown,
) -> io::Result<()> {
    let connections = Tasks::new();
    let places = Arc::new(Semaphore::new(bounds.in_all));
    let mut complained = false;
    loop {
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        // Either half may be dropped: a place is given back, and a connection that was not taken from the
        // listener is still there.
        let (place, accepted) = tokio::select! {
            biased;
            () = shutdown.draining().cancelled() => break,
            accepted = accepted => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                if !complained && !is_the_peers(&error) {
                    tracing::error!(error = %chain(&error), "Could not accept a connection; going on");
                    complained = true;
                }
                if !is_the_peers(&error) {
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
                continue;
            }
        };
        complained = false;
        let Some(held) = bounds.take(peer.ip()) else {
            counter!(HUB_REFUSED_TOTAL, "why" => "connections").increment(1);
            continue;
        };
        let (router, shutdown) = (router.clone(), shutdown.clone());
        // It ends by itself when the process is cancelled; what fails is the peer's business.
        connections.spawn(async move {
            connection(stream, peer, router, &shutdown).await;
            drop((place, held));
        });
    }
    drop(listener);
    tokio::select! {
        _ = connections.join(Duration::MAX) => {}
        () = shutdown.cancelled().cancelled() => {
            if !connections.join(CUT).await {
                tracing::warn!("{} connections are still held", connections.len());
            }
        }
    }
    Ok(())
}

/// Whether a connection was gone before it was accepted.
fn is_the_peers(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    router: axum::Router,
    shutdown: &Shutdown,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(error = %chain(&error), "Could not set TCP_NODELAY");
    }
    let router = router.map_request(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        request
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(Unstalled::new(stream)), TowerToHyperService::new(router))
        .with_upgrades();
    let mut serving = pin!(serving);
    let served = tokio::select! {
        served = serving.as_mut() => served,
        () = shutdown.draining().cancelled() => {
            serving.as_mut().graceful_shutdown();
            tokio::select! {
                served = serving.as_mut() => served,
                () = shutdown.cancelled().cancelled() => return,
            }
        }
    };
    if let Err(error) = served {
        tracing::debug!(error = %chain(&error), "A connection ended early");
    }
}
