//! Real sockets: how connections begin and end.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use cogo::clock::Stopwatch;
use cogo::hub::{bind, serve};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::hub::{DEADLINE, Setup, TestHub};

/// Serves the hub on a free port.
pub(crate) async fn served(hub: &TestHub) -> Result<(SocketAddr, JoinHandle<std::io::Result<()>>)> {
    let listener = bind(([127, 0, 0, 1], 0).into(), false).await?;
    let address = listener.local_addr()?;
    let (router, shutdown) = (hub.router.clone(), hub.shutdown.clone());
    let serving = hub.tasks.spawn(async move { serve(listener, router, &shutdown).await });
    Ok((address, serving))
}

/// Sends a request's head on a connection that stays open.
async fn ask(address: SocketAddr, path: &str) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    Ok(stream)
}

/// Everything until the hub closes the connection.
async fn rest(mut stream: TcpStream) -> Result<String> {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut bytes));
    // A reset is an end as well.
    let _ = read.await.context("the connection was not closed")?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A connection that waits for the message on a hub with one place to wait; it waits when this returns.
async fn waiting(
    hub: &TestHub,
    address: SocketAddr,
    id: impl std::fmt::Display,
) -> Result<TcpStream> {
    let probe = format!("/api/messages/{id}?wait=1ms");
    let wait = async {
        loop {
            let stream = ask(address, &format!("/api/messages/{id}?wait=60s")).await?;
            // Leaves it the time to arrive before the first probe.
            hub.get(&format!("/api/messages/{id}")).await?;
            // The probe may have held the place when the other came; then that one is answered at once.
            while stream.try_read(&mut [0]).is_err() {
                if hub.get(&probe).await?.status == 429 {
                    return anyhow::Ok(stream);
                }
            }
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.context("nobody waits")?
}

#[tokio::test]
async fn a_drain_answers_who_waits_and_accepts_nobody_new() -> Result<()> {
    let options = cogo::hub::Options { max_waiters: 1, ..cogo::hub::Options::default() };
    let hub = TestHub::with(Setup { options, ..Setup::default() }).await?;
    let id = hub.publish().await?;
    let (address, serving) = served(&hub).await?;
    let waiting = waiting(&hub, address, id).await?;

    let began = Stopwatch::start();
    hub.shutdown.drain();
    let answer = rest(waiting).await?;
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert!(answer.contains(r#""status":"queued""#), "{answer}");
    tokio::time::timeout(DEADLINE, serving).await.context("serving goes on")???;
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    assert!(TcpStream::connect(address).await.is_err());
    Ok(())
}

#[tokio::test]
async fn an_idle_connection_does_not_hold_up_a_drain() -> Result<()> {
    let hub = TestHub::without_database(Setup::default())?;
    let (address, serving) = served(&hub).await?;
    let mut idle = ask(address, "/healthz").await?;
    let mut first = [0; 15];
    idle.read_exact(&mut first).await?;
    assert_eq!(&first, b"HTTP/1.1 200 OK");
    let silent = TcpStream::connect(address).await?;
    hub.shutdown.drain();
    tokio::time::timeout(DEADLINE, serving).await.context("serving goes on")???;
    rest(idle).await?;
    rest(silent).await?;
    Ok(())
}

#[tokio::test]
async fn a_request_that_outlives_the_drain_is_cut() -> Result<()> {
    let (entered, mut has_entered) = tokio::sync::mpsc::channel::<()>(1);
    let stuck = move || {
        let entered = entered.clone();
        async move {
            let _ = entered.send(()).await;
            std::future::pending::<()>().await;
        }
    };
    let routes = cogo::hub::Routes::new().get("/api/stuck", stuck);
    let hub = TestHub::without_database(Setup { routes, ..Setup::default() })?;
    let (address, mut serving) = served(&hub).await?;
    let held = ask(address, "/api/stuck").await?;
    has_entered.recv().await.context("the request was taken up")?;
    hub.shutdown.drain();
    let early = tokio::time::timeout(Duration::from_millis(50), &mut serving).await;
    assert!(early.is_err(), "the drain did not wait for the request");
    hub.shutdown.cancel();
    tokio::time::timeout(DEADLINE, serving).await.context("serving goes on")???;
    assert_eq!(rest(held).await?, "");
    Ok(())
}

#[tokio::test]
async fn who_goes_away_gives_up_the_place() -> Result<()> {
    let options = cogo::hub::Options { max_waiters: 1, ..cogo::hub::Options::default() };
    let hub = TestHub::with(Setup { options, ..Setup::default() }).await?;
    let id = hub.publish().await?;
    let (address, _serving) = served(&hub).await?;
    let waiting = waiting(&hub, address, id).await?;
    drop(waiting);
    let probe = format!("/api/messages/{id}?wait=1ms");
    let free = async {
        while hub.get(&probe).await?.status != 200 {
            tokio::task::yield_now().await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(DEADLINE, free).await.context("the place is still taken")??;
    hub.shutdown.cancel();
    Ok(())
}

#[tokio::test]
async fn a_malformed_or_oversized_head_ends_the_connection() -> Result<()> {
    let hub = TestHub::without_database(Setup::default())?;
    let (address, _serving) = served(&hub).await?;
    for (head, status) in [
        ("nonsense\r\n\r\n".to_owned(), "400"),
        (format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "a".repeat(100_000)), "431"),
    ] {
        let mut stream = TcpStream::connect(address).await?;
        // The hub may answer and close before it has read all of it.
        let _ = stream.write_all(head.as_bytes()).await;
        let mut answer = [0; 12];
        let read = tokio::time::timeout(DEADLINE, stream.read_exact(&mut answer));
        read.await.context("no answer")??;
        assert_eq!(String::from_utf8_lossy(&answer), format!("HTTP/1.1 {status}"));
    }
    hub.shutdown.cancel();
    Ok(())
}
