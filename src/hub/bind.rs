//! Taking a port.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpListener;

/// Why the hub has no port to listen on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Another program listens there.
    #[error(
        "port {} of {} is taken: give another with `--listen`, or let a free one be picked with \
         `--listen {}` or `--auto-port`",
        .addr.port(), .addr.ip(), SocketAddr::new(.addr.ip(), 0)
    )]
    Taken {
        /// Where.
        addr: SocketAddr,
    },
    /// The system refuses.
    #[error("cannot listen on {addr}")]
    Refused {
        /// Where.
        addr: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Listens on `addr`; with `auto_port` on a free port of the same address if that one is taken. Port 0
/// always picks a free one.
///
/// # Errors
/// When the port is taken, with the remedy; or when the system refuses.
pub async fn bind(addr: SocketAddr, auto_port: bool) -> Result<TcpListener, BindError> {
    match TcpListener::bind(addr).await {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            if !auto_port {
                return Err(BindError::Taken { addr });
            }
            let free = SocketAddr::new(addr.ip(), 0);
            let listener = TcpListener::bind(free).await;
            listener.map_err(|source| BindError::Refused { addr: free, source })
        }
        other => other.map_err(|source| BindError::Refused { addr, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_taken_port_is_named_with_its_remedy_or_another_is_picked() {
        let local = SocketAddr::from(([127, 0, 0, 1], 0));
        let first = bind(local, false).await.expect("a free port");
        let taken = first.local_addr().expect("an address");
        let error = bind(taken, false).await.expect_err("taken").to_string();
        assert!(error.contains(&format!("port {} of 127.0.0.1 is taken", taken.port())), "{error}");
        assert!(error.contains("--listen 127.0.0.1:0") && error.contains("--auto-port"), "{error}");
        let other = bind(taken, true).await.expect("another port");
        assert_ne!(other.local_addr().expect("an address").port(), taken.port());
    }
}
