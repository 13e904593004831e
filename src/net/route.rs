//! Whether the way that a connection took is still the way there.

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

    /// Whether a new connection would leave from another address: then the network has changed, and what
    /// was sent from the old address is not answered any more. Sends nothing. While no way leads there at
    /// all, nothing has changed yet.
    #[must_use]
    pub fn has_changed(&self) -> bool {
        let any: IpAddr = match self.peer {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0));
        // To connect a UDP socket is to look up the route.
        let looked_up = socket.and_then(|socket| {
            socket.connect(self.peer)?;
            socket.local_addr()
        });
        looked_up.is_ok_and(|now| now.ip() != self.local)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_has_changed_when_another_address_leads_there() {
        let peer = "127.0.0.1:9".parse().expect("an address");
        let route = |local: &str| Route { local: local.parse().expect("an address"), peer };
        assert!(!route("127.0.0.1").has_changed());
        assert!(route("192.0.2.7").has_changed());
    }
}
