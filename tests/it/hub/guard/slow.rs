//! Clients that take their time, and clients that take all the places. Time is ours where it is waited for: then it passes
//! when nobody has anything to do.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use axum::body::Bytes;
use cogo::hub::{Connections, Options, Principals, Routes, bind, serve_within};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::hub::connections::served;
use crate::hub::{DEADLINE, Setup, TOKEN, TestHub};

fn open_routes(_: Principals) -> Routes {
    Routes::new().post("/mcp/role", |body: Bytes| async move { body.len().to_string() })
}

async fn all(mut stream: TcpStream) -> Result<String> {
    let mut bytes = Vec::new();
    let _a_reset_is_an_end = stream.read_to_end(&mut bytes).await;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

async fn connect(address: SocketAddr, sent: &str) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(sent.as_bytes()).await?;
    Ok(stream)
}

#[tokio::test]
async fn a_head_that_never_ends_loses_its_connection() -> Result<()> {
    let hub = TestHub::without_database(Setup::default())?;
    let (address, _serving) = served(&hub).await?;
    let mut slow = Vec::new();
    for n in 0..200 {
        slow.push(
            connect(address, &format!("GET / HTTP/1.1\r\nHost: localhost\r\nX-{n}: ")).await?,
        );
    }
    let other =
        connect(address, "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .await?;
    assert!(all(other).await?.starts_with("HTTP/1.1 200"));
    // Not before: a clock that runs ahead would overtake what is under way to the hub.
    tokio::time::pause();
    for stream in slow {
        let answer = all(stream).await?;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
    }
    hub.shutdown.cancel();
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_body_that_never_ends_loses_its_request_wherever_it_is_sent() -> Result<()> {
    let routes =
        Routes::new().post("/api/role", |body: Bytes| async move { body.len().to_string() });
    let hub = TestHub::without_database(Setup { routes, open_routes, ..Setup::default() })?;
    let (address, _serving) = served(&hub).await?;
    for path in ["/api/role", "/mcp/role", "/rest/v1/rpc/bus_claim"] {
        for length in ["Content-Length: 100000", "Transfer-Encoding: chunked"] {
            let head = format!(
                "POST {path} HTTP/1.1\r\nHost: localhost\r\nX-Admin-Token: {TOKEN}\r\n{length}\r\n\r\n1"
            );
            let answer = all(connect(address, &head).await?).await?;
            assert!(!answer.starts_with("HTTP/1.1 2"), "{path}: {answer}");
        }
    }
    hub.shutdown.cancel();
    Ok(())
}

#[tokio::test]
async fn an_address_cannot_take_all_the_connections() -> Result<()> {
    let hub = TestHub::without_database(Setup::default())?;
    let listener = bind(([127, 0, 0, 1], 0).into(), false).await?;
    let address = listener.local_addr()?;
    let (router, shutdown) = (hub.router.clone(), hub.shutdown.clone());
    let two = Connections::per_address(2);
    hub.tasks.spawn(async move { serve_within(listener, router, two, &shutdown).await });
    let ask = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = connect(address, ask).await?;
        let mut first = [0; 12];
        tokio::time::timeout(DEADLINE, stream.read_exact(&mut first))
            .await
            .context("no answer")??;
        assert_eq!(&first, b"HTTP/1.1 200");
        held.push(stream);
    }
    // It may be closed while we write.
    if let Ok(third) = connect(address, ask).await {
        assert_eq!(tokio::time::timeout(DEADLINE, all(third)).await.context("it is open")??, "");
    }
    held.pop();
    let again = async {
        loop {
            let closing = ask.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
            let Ok(stream) = connect(address, &closing).await else { continue };
            if all(stream).await?.starts_with("HTTP/1.1 200") {
                return anyhow::Ok(());
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, again).await.context("the place was not given back")??;
    hub.shutdown.cancel();
    Ok(())
}

/// Behind a proxy that is trusted, and from this machine, come many: they hold any number.
#[tokio::test]
async fn what_the_configuration_exempts_is_exempt() -> Result<()> {
    let options = Options { max_connections_per_address: 1, ..Options::default() };
    let hub = TestHub::without_database(Setup { options, ..Setup::default() })?;
    let listener = bind(([127, 0, 0, 1], 0).into(), false).await?;
    let address = listener.local_addr()?;
    let (router, shutdown, connections) =
        (hub.router.clone(), hub.shutdown.clone(), hub.connections.clone());
    hub.tasks.spawn(async move { serve_within(listener, router, connections, &shutdown).await });
    let mut held = Vec::new();
    for _ in 0..5 {
        let mut stream =
            connect(address, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await?;
        let mut first = [0; 12];
        tokio::time::timeout(DEADLINE, stream.read_exact(&mut first))
            .await
            .context("no answer")??;
        held.push(stream);
    }
    hub.shutdown.cancel();
    Ok(())
}
