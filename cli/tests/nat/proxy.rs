//! An HTTP proxy that knows CONNECT (RFC 9110, 9.3.6), as companies have it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result};
use cogo::shutdown::Tasks;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use crate::inside;
use crate::net::{HUB, ROUTER};
use crate::tls::NAME;

/// Where it listens.
pub(crate) const PORT: u16 = 3128;

/// How many tunnels it has opened.
pub(crate) type Tunnels = Arc<AtomicUsize>;

/// Serves on the router.
pub(crate) fn serve(namespace: &str) -> Tunnels {
    let tunnels = Tunnels::default();
    let counted = Arc::clone(&tunnels);
    inside::serve(namespace, move || async move {
        let listener = TcpListener::bind((ROUTER, PORT)).await?;
        let tasks = Tasks::new();
        loop {
            let (stream, _) = listener.accept().await?;
            let counted = Arc::clone(&counted);
            tasks.spawn(async move {
                let _who_asks_wrongly_is_hung_up_on = tunnel(stream, &counted).await;
            });
        }
    });
    tunnels
}

async fn tunnel(mut client: TcpStream, opened: &AtomicUsize) -> Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await?);
    }
    let head = String::from_utf8(head)?;
    let target = head.strip_prefix("CONNECT ").context("only CONNECT")?;
    let (target, _) = target.split_once(' ').context("a request line")?;
    // The name is known here alone: the worker cannot look it up.
    let target = target.replace(NAME, HUB);
    let mut server = TcpStream::connect(target).await?;
    opened.fetch_add(1, Ordering::Relaxed);
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}
