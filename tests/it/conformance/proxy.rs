//! A proxy that loses an answer.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cogo::bus::Bus;
use cogo::shutdown::Tasks;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::fixtures::eventually;

/// Where it leads.
#[derive(Debug, Clone)]
pub(super) enum To {
    Address(SocketAddr),
    Socket(PathBuf),
}

/// It ends when it is dropped.
pub(super) struct Proxy {
    pub(super) address: SocketAddr,
    armed: Arc<AtomicBool>,
    _stop: DropGuard,
}

impl Proxy {
    pub(super) async fn start(to: To) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (armed, stop) = (Arc::new(AtomicBool::new(false)), CancellationToken::new());
        let (cut, stopped, tasks) = (Arc::clone(&armed), stop.clone(), Tasks::new());
        tasks.clone().spawn(stopped.clone().run_until_cancelled_owned(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (to, cut, stopped) = (to.clone(), Arc::clone(&cut), stopped.clone());
                tasks.spawn(stopped.run_until_cancelled_owned(async move {
                    let _only_ends = match to {
                        To::Address(address) => match TcpStream::connect(address).await {
                            Ok(server) => carry(client, server, &cut).await,
                            Err(error) => Err(error),
                        },
                        To::Socket(path) => match UnixStream::connect(path).await {
                            Ok(server) => carry(client, server, &cut).await,
                            Err(error) => Err(error),
                        },
                    };
                }));
            }
        }));
        Self { address, armed, _stop: stop.drop_guard() }
    }

    /// The next answer to `bus` is lost, and its connection with it.
    pub(super) async fn lose_the_next_answer(&self, bus: &Bus) {
        // A pool asks a connection that is given back for a sign of life; that answer is not meant.
        eventually("the last call is over", async || {
            bus.pool().is_none_or(|pool| pool.num_idle() == 1).then_some(())
        })
        .await;
        self.armed.store(true, Ordering::SeqCst);
    }

    /// Whether one was.
    pub(super) fn lost_one(&self) -> bool {
        !self.armed.load(Ordering::SeqCst)
    }
}

async fn carry(
    client: TcpStream,
    server: impl AsyncRead + AsyncWrite,
    cut: &AtomicBool,
) -> io::Result<()> {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = tokio::io::split(server);
    let asks = async {
        tokio::io::copy(&mut from_client, &mut to_server).await?;
        to_server.shutdown().await
    };
    let answers = async {
        let mut part = vec![0; 64 * 1024];
        loop {
            let size = from_server.read(&mut part).await?;
            if size == 0 || cut.swap(false, Ordering::SeqCst) {
                return Ok::<(), io::Error>(());
            }
            to_client.write_all(&part[..size]).await?;
        }
    };
    tokio::select! {
        ended = answers => ended,
        ended = asks => ended,
    }
}
