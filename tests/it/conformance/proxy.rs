//! A proxy that loses an answer, or answers by itself.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

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
    instead: Arc<Instead>,
    _stop: DropGuard,
}

/// What it answers to whatever is asked, if it does, and how often it did.
#[derive(Debug, Default)]
struct Instead {
    answer: Mutex<Option<&'static str>>,
    given: AtomicUsize,
}

impl Proxy {
    pub(super) async fn start(to: To) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (armed, stop) = (Arc::new(AtomicBool::new(false)), CancellationToken::new());
        let (cut, stopped, tasks) = (Arc::clone(&armed), stop.clone(), Tasks::new());
        let instead = Arc::<Instead>::default();
        let own = Arc::clone(&instead);
        tasks.clone().spawn(stopped.clone().run_until_cancelled_owned(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (to, cut, stopped) = (to.clone(), Arc::clone(&cut), stopped.clone());
                let own = Arc::clone(&own);
                tasks.spawn(stopped.run_until_cancelled_owned(async move {
                    let _only_ends = match to {
                        To::Address(address) => match TcpStream::connect(address).await {
                            Ok(server) => carry(client, server, &cut, &own).await,
                            Err(error) => Err(error),
                        },
                        To::Socket(path) => match UnixStream::connect(path).await {
                            Ok(server) => carry(client, server, &cut, &own).await,
                            Err(error) => Err(error),
                        },
                    };
                }));
            }
        }));
        Self { address, armed, instead, _stop: stop.drop_guard() }
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

    /// From now on this is answered to whatever is asked, and the server is not; `None`: no more.
    pub(super) fn answer_instead(&self, answer: Option<&'static str>) {
        self.instead.given.store(0, Ordering::SeqCst);
        *self.instead.answer.lock().expect("not poisoned") = answer;
    }

    /// How often it was.
    pub(super) fn answered_instead(&self) -> usize {
        self.instead.given.load(Ordering::SeqCst)
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
    instead: &Instead,
) -> io::Result<()> {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = tokio::io::split(server);
    let asks = async {
        let mut part = vec![0; 64 * 1024];
        loop {
            let size = from_client.read(&mut part).await?;
            if size == 0 {
                to_server.shutdown().await?;
                return Ok::<_, io::Error>(None);
            }
            let answer = *instead.answer.lock().expect("not poisoned");
            if answer.is_some() {
                return Ok(answer);
            }
            to_server.write_all(&part[..size]).await?;
        }
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
    let own = tokio::select! {
        ended = answers => return ended,
        ended = asks => ended?,
    };
    if let Some(answer) = own {
        instead.given.fetch_add(1, Ordering::SeqCst);
        to_client.write_all(answer.as_bytes()).await?;
        to_client.shutdown().await?;
    }
    Ok(())
}
