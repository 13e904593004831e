//! A client that takes its time: it reads the hub's answers byte by byte.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::http;

/// How long it thinks about a byte.
const THINKS: Duration = Duration::from_millis(20);

/// Asks for one page after another, until told to stop. Gives the number of bytes read.
pub(crate) async fn read(hub: SocketAddr, stop: CancellationToken) -> usize {
    let mut bytes = 0;
    let reading = async {
        for path in ["/metrics", "/api/dead-letters", "/readyz"].into_iter().cycle() {
            if let Ok(mut stream) = TcpStream::connect(hub).await {
                let asked = http::text(hub, "GET", path, "");
                if stream.write_all(asked.as_bytes()).await.is_ok() {
                    while let Ok(1) = stream.read(&mut [0]).await {
                        bytes += 1;
                        tokio::time::sleep(THINKS).await;
                    }
                }
            }
            tokio::time::sleep(THINKS).await;
        }
    };
    tokio::select! {
        () = reading => {}
        () = stop.cancelled() => {}
    }
    bytes
}
