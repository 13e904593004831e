//! Whether the way that a connection took is still the way there.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use tokio::net::TcpStream;

/// The two ends of a connection, as this machine sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    local: IpAddr,
    peer: SocketAddr,
}

impl Route {
    pub(super) fn of(stream: &TcpStream) -> Option<Self> {
        Some(Self { local: stream.local_addr().ok()?.ip(), peer: stream.peer_addr().ok()? })
    }

    /// Whether this machine has given up the connection's address, and another leads there now: then the
    /// network has changed, and what was sent from the old address is never answered. Sends nothing.
    ///
    /// Another way beside the old one is no change, nor is the old one's going while there is no other: it
    /// may come back with the connection whole.
    #[must_use]
    pub fn has_changed(&self) -> bool {
        let any: IpAddr = match self.peer {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        // To connect a UDP socket is to look up the route.
        let now = UdpSocket::bind((any, 0)).and_then(|socket| {
            socket.connect(self.peer)?;
            socket.local_addr()
        });
        let given_up = || {
            let bound = UdpSocket::bind((self.local, 0));
            bound.is_err_and(|error| error.kind() == ErrorKind::AddrNotAvailable)
        };
        now.is_ok_and(|now| now.ip() != self.local) && given_up()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")] // where all of 127.0.0.0/8 is this machine's
    fn a_route_has_changed_when_its_address_is_gone_and_another_leads_there() {
        let peer = "127.0.0.1:9".parse().expect("an address");
        let route = |local: &str| Route { local: local.parse().expect("an address"), peer };
        assert!(!route("127.0.0.1").has_changed());
        assert!(route("192.0.2.7").has_changed());
        // Another way, while the old address still stands.
        assert!(!route("127.0.0.2").has_changed());
    }
}
