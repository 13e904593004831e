//! TCP to a name: all its addresses, without waiting long for a family that leads nowhere.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use reqwest::Url;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

use super::Error;

/// An idle connection is probed after this long, by the kernel. A NAT that has lost its table, or has a
/// new address, shows itself by the answer.
pub(super) const KEEPALIVE: Duration = Duration::from_secs(5);
/// Between probes that go unanswered.
pub(super) const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
/// Probes until the link is dead.
pub(super) const KEEPALIVE_RETRIES: u32 = 3;
/// What was sent must be acknowledged within this, or the link is dead. Without it the kernel
/// tries for a quarter of an hour.
#[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
pub(super) const USER_TIMEOUT: Duration = Duration::from_secs(10);

/// A name lookup and a TCP handshake together. The kernel asks at 0, 1 and 3 s: once it would wait
/// longer, a new attempt finds a link that has come back sooner.
const DIAL: Duration = Duration::from_secs(4);

/// How long an address has before the next one is tried beside it (RFC 8305).
const STAGGER: Duration = Duration::from_millis(250);

/// Where to connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// A name or an address, without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) tls: bool,
}

impl Target {
    pub(super) fn of(url: &Url) -> Result<Self, Error> {
        let (tls, default) = match url.scheme() {
            "https" | "wss" => (true, 443),
            "http" | "ws" => (false, 80),
            _ => return Err(Error::Url),
        };
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or(Error::Url)?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self { host, port: url.port().unwrap_or(default), tls })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            return write!(f, "[{}]:{}", self.host, self.port);
        }
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Connects to the first of the name's addresses that answers.
pub(super) async fn tcp(target: &Target) -> Result<TcpStream, Error> {
    tokio::time::timeout(DIAL, any(target))
        .await
        .unwrap_or_else(|_| Err(Error::Timeout { host: target.to_string(), within: DIAL }))
}

async fn any(target: &Target) -> Result<TcpStream, Error> {
    let dns = |source| Error::Dns { host: target.host.clone(), source };
    let found = tokio::net::lookup_host((target.host.as_str(), target.port)).await.map_err(dns)?;
    let mut left = alternating(found.collect()).into_iter();
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    let mut trying = FuturesUnordered::new();
    loop {
        match left.next() {
            Some(address) => trying.push(TcpStream::connect(address)),
            None if trying.is_empty() => return Err(refusal(target, failed)),
            None => {}
        }
        // With addresses left, an attempt has a moment before the next begins beside it.
        let patience = async {
            if left.len() == 0 {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(STAGGER).await;
        };
        tokio::select! {
            Some(outcome) = trying.next() => match outcome {
                Ok(stream) => {
                    tune(&stream);
                    return Ok(stream);
                }
                Err(error) => failed = error,
            },
            () = patience => {}
        }
    }
}

/// One address of each family in turn, the resolver's favourite first.
fn alternating(found: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first = found.first().map(SocketAddr::is_ipv6);
    let (one, other): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|address| Some(address.is_ipv6()) == first);
    let mut mixed = Vec::with_capacity(one.len() + other.len());
    let (mut one, mut other) = (one.into_iter(), other.into_iter());
    loop {
        match (one.next(), other.next()) {
            (None, None) => return mixed,
            (a, b) => mixed.extend(a.into_iter().chain(b)),
        }
    }
}

/// Makes a dead link show within seconds. A system that cannot do one of these does without.
fn tune(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE_INTERVAL);
    #[cfg(any(unix, windows))]
    let keepalive = keepalive.with_retries(KEEPALIVE_RETRIES);
    let _ = socket.set_tcp_keepalive(&keepalive);
    #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
    let _ = socket.set_tcp_user_timeout(Some(USER_TIMEOUT));
}

fn refusal(target: &Target, source: io::Error) -> Error {
    let host = target.to_string();
    match source.kind() {
        io::ErrorKind::ConnectionRefused => Error::Refused { host, source },
        io::ErrorKind::NotFound => Error::Dns { host: target.host.clone(), source },
        _ => Error::Unreachable { host, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_both_families_take_turns() {
        let of = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let (a, b) = (of("[::1]:1"), of("[::2]:1"));
        let (c, d) = (of("127.0.0.1:1"), of("127.0.0.2:1"));
        assert_eq!(alternating(vec![a, b, c, d]), [a, c, b, d]);
        assert_eq!(alternating(vec![c, a, b]), [c, a, b]);
        assert_eq!(alternating(Vec::new()), []);
    }

    #[test]
    fn a_target_knows_its_port_and_whether_tls_is_meant() {
        for (url, shown, tls) in [
            ("wss://hub.example", "hub.example:443", true),
            ("ws://hub.example/x", "hub.example:80", false),
            ("https://[::1]:8443/x", "[::1]:8443", true),
        ] {
            let target = Target::of(&url.parse().expect("a URL")).expect("a target");
            assert_eq!((target.to_string().as_str(), target.tls), (shown, tls));
        }
        for url in ["ftp://hub.example", "data:text"] {
            let refused = Target::of(&url.parse().expect("a URL"));
            assert!(matches!(refused, Err(Error::Url)), "{url}");
        }
    }
}
