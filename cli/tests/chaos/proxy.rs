//! A TCP proxy that can cut, delay, half-close, hold and forget what goes through it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use cogo::shutdown::Tasks;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::plan::Wire;

/// Where connections go.
#[derive(Debug, Clone)]
pub(crate) enum To {
    Socket(PathBuf),
    Address(SocketAddr),
    /// To the hub whose `up.json` this is; it listens elsewhere after each start.
    Hub(PathBuf),
}

/// What a proxy does at the moment. Connections are numbered; those below a number have met a fault.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct State {
    refuse: bool,
    hold: bool,
    delay: Duration,
    made: u64,
    cut_below: u64,
    forgotten_below: u64,
    closed_to_client_below: u64,
    closed_to_server_below: u64,
}

/// A proxy. It ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    state: watch::Sender<State>,
    stop: CancellationToken,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Which way a pump moves bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    ToServer,
    ToClient,
}

impl Proxy {
    pub(crate) async fn start(to: To) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (state, stop, tasks) =
            (watch::Sender::new(State::default()), CancellationToken::new(), Tasks::new());
        let (shared, ended, spawner) = (state.clone(), stop.clone(), tasks.clone());
        tasks.spawn(async move {
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    () = ended.cancelled() => return,
                };
                let Ok((client, _)) = accepted else { continue };
                let mut number = 0;
                shared.send_modify(|state| {
                    number = state.made;
                    state.made += 1;
                });
                if shared.borrow().refuse {
                    continue; // dropped, which closes it
                }
                let (to, ended, state) = (to.clone(), ended.clone(), shared.subscribe());
                spawner.spawn(async move {
                    tokio::select! {
                        () = carry(client, to, number, state) => {}
                        () = ended.cancelled() => {}
                    }
                });
            }
        });
        Ok(Self { address, state, stop })
    }

    /// Does it to the connections, for so long.
    pub(crate) async fn hurt(&self, wire: Wire, duration: Duration) {
        self.begin(wire);
        tokio::time::sleep(duration).await;
        self.end(wire);
    }

    fn begin(&self, wire: Wire) {
        self.state.send_modify(|state| match wire {
            Wire::Cut => {
                state.refuse = true;
                state.cut_below = state.made;
            }
            Wire::Delay(ms) => state.delay = Duration::from_millis(ms),
            Wire::HalfCloseToClient => state.closed_to_client_below = state.made,
            Wire::HalfCloseToServer => state.closed_to_server_below = state.made,
            Wire::Hold | Wire::HoldThenCut | Wire::Forget => state.hold = true,
        });
    }

    fn end(&self, wire: Wire) {
        self.state.send_modify(|state| match wire {
            Wire::Cut => state.refuse = false,
            Wire::Delay(_) => state.delay = Duration::ZERO,
            Wire::HalfCloseToClient | Wire::HalfCloseToServer => {}
            Wire::Hold => state.hold = false,
            Wire::HoldThenCut => {
                state.hold = false;
                state.cut_below = state.made;
            }
            Wire::Forget => {
                state.hold = false;
                state.forgotten_below = state.made;
            }
        });
    }
}

async fn carry(client: TcpStream, to: To, number: u64, mut state: watch::Receiver<State>) {
    let _only_slower = client.set_nodelay(true);
    if !passes(&mut state, number).await {
        return;
    }
    match to {
        To::Socket(path) => {
            if let Ok(server) = UnixStream::connect(path).await {
                both(client, server, number, state).await;
            }
        }
        To::Address(address) => tcp(client, address, number, state).await,
        To::Hub(file) => {
            if let Some(address) = crate::http::hub_address(&file) {
                tcp(client, address, number, state).await;
            }
        }
    }
}

async fn tcp(client: TcpStream, to: SocketAddr, number: u64, state: watch::Receiver<State>) {
    if let Ok(server) = TcpStream::connect(to).await {
        let _only_slower = server.set_nodelay(true);
        both(client, server, number, state).await;
    }
}

async fn both(
    client: TcpStream,
    server: impl AsyncRead + AsyncWrite,
    number: u64,
    state: watch::Receiver<State>,
) {
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = tokio::io::split(server);
    let mut cut = state.clone();
    tokio::select! {
        _ = async {
            tokio::join!(
                pump(from_client, to_server, Way::ToServer, number, state.clone()),
                pump(from_server, to_client, Way::ToClient, number, state),
            )
        } => {}
        _ = cut.wait_for(|state| number < state.cut_below) => {}
    }
}

/// Moves bytes one way until their source has ended; then says so to the other side.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    way: Way,
    number: u64,
    mut state: watch::Receiver<State>,
) {
    let mut buffer = vec![0; 64 << 10];
    let closed = |state: &State| match way {
        Way::ToServer => number < state.closed_to_server_below,
        Way::ToClient => number < state.closed_to_client_below,
    };
    loop {
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            _ = state.wait_for(closed) => Ok(0),
        };
        let read = read.unwrap_or(0);
        if !passes(&mut state, number).await {
            return;
        }
        let delay = state.borrow().delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if read == 0 || to.write_all(&buffer[..read]).await.is_err() {
            let _gone = to.shutdown().await;
            return;
        }
    }
}

/// Waits until the connection is not held; never ends for one that was forgotten, but by a cut.
async fn passes(state: &mut watch::Receiver<State>, number: u64) -> bool {
    if state.wait_for(|state| !state.hold).await.is_err() {
        return false;
    }
    if number < state.borrow().forgotten_below {
        std::future::pending::<()>().await;
    }
    true
}

#[tokio::test]
async fn a_forgotten_connection_stays_open_and_silent_while_a_new_one_works() {
    let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let proxy = Proxy::start(To::Address(server.local_addr().expect("an address"))).await;
    let proxy = proxy.expect("a proxy");
    Tasks::new().spawn(async move {
        while let Ok((mut socket, _)) = server.accept().await {
            Tasks::new().spawn(async move {
                let mut buffer = [0; 8];
                while let Ok(read @ 1..) = socket.read(&mut buffer).await {
                    let _gone = socket.write_all(&buffer[..read]).await;
                }
            });
        }
    });
    let echoed = async |socket: &mut TcpStream| {
        let mut buffer = [0; 4];
        let asked = async {
            socket.write_all(b"ping").await?;
            socket.read_exact(&mut buffer).await
        };
        tokio::time::timeout(Duration::from_millis(200), asked).await.map(|answer| answer.is_ok())
    };
    let mut old = TcpStream::connect(proxy.address).await.expect("a connection");
    assert_eq!(echoed(&mut old).await, Ok(true));
    proxy.hurt(Wire::Forget, Duration::from_millis(1)).await;
    assert!(echoed(&mut old).await.is_err(), "silent");
    let mut new = TcpStream::connect(proxy.address).await.expect("a connection");
    assert_eq!(echoed(&mut new).await, Ok(true));
    proxy.hurt(Wire::Cut, Duration::from_millis(1)).await;
    assert_eq!(echoed(&mut new).await, Ok(false), "closed");
}
