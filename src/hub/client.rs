//! Who is at the other end: the peer of the connection, or whom a proxy that is trusted says that it speaks for.
//!
//! Anybody can send `X-Forwarded-For`, so it counts from proxies of `rate_limit.trusted_proxies` alone, and is read
//! from its end, where they write: the first address from there that is no such proxy is the client.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{ConnectInfo, Request};
use axum::http::{Extensions, HeaderMap};

use crate::options::Options;
use crate::options::network::Network;

const FOR: &str = "x-forwarded-for";
const PROTO: &str = "x-forwarded-proto";
const FORWARDED: &str = "forwarded";

/// The one who sent a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Client {
    /// Its address; none where the request came by no socket.
    pub(crate) address: Option<IpAddr>,
    /// Whether it is a program of this machine that speaks for itself.
    pub(crate) local: bool,
    /// Whether somebody says that they speak for another, true or not.
    pub(crate) forwarded: bool,
    /// Whether it speaks TLS, to a proxy.
    pub(crate) tls: bool,
}

/// Tells clients.
#[derive(Debug)]
pub(crate) struct Clients {
    trusted: Vec<Network>,
    tls_terminated: bool,
}

impl Clients {
    pub(crate) fn new(options: &Options) -> Self {
        Self { trusted: options.rate_limit.trusted(), tls_terminated: options.tls_terminated }
    }

    pub(crate) fn of(&self, request: &Request) -> Client {
        let (peer, headers) = (peer(request.extensions()), request.headers());
        let forwarded = [FOR, PROTO, FORWARDED].iter().any(|name| headers.contains_key(*name));
        let Some(peer) = peer else {
            return Client { forwarded, tls: self.tls_terminated, ..Client::default() };
        };
        if !self.is_trusted(peer) {
            let local = peer.is_loopback() && !forwarded;
            return Client { address: Some(peer), local, forwarded, tls: self.tls_terminated };
        }
        let told = if forwarded { self.told(peer, headers) } else { peer };
        let secure = last(headers, PROTO).is_some_and(|proto| proto.eq_ignore_ascii_case("https"));
        let local = peer.is_loopback() && !forwarded;
        Client { address: Some(told), local, forwarded, tls: self.tls_terminated || secure }
    }

    /// Whom a trusted proxy speaks for; itself where what it says cannot be read.
    fn told(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let simple = headers
            .contains_key(FOR)
            .then(|| self.client(peer, hops(headers, FOR, |element| Some(element))));
        let standard = headers
            .contains_key(FORWARDED)
            .then(|| self.client(peer, hops(headers, FORWARDED, forwarded_for)));
        match (simple, standard) {
            (Some(one), None) | (None, Some(one)) => one,
            // A proxy that writes one of them passes the other on as a client made it up.
            (Some(one), Some(other)) if one == other => one,
            _ => peer,
        }
    }

    /// The first from the end that is no proxy of ours.
    fn client(&self, peer: IpAddr, hops: Vec<Option<IpAddr>>) -> IpAddr {
        let mut client = peer;
        for hop in hops.into_iter().rev() {
            let Some(hop) = hop else { break };
            client = hop;
            if !self.is_trusted(hop) {
                break;
            }
        }
        client
    }

    fn is_trusted(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(address))
    }
}

fn peer(extensions: &Extensions) -> Option<IpAddr> {
    let ConnectInfo(peer) = extensions.get::<ConnectInfo<SocketAddr>>()?;
    Some(peer.ip().to_canonical())
}

/// The elements of a header that is a list, in all of its lines; those that are no address are none.
fn hops(headers: &HeaderMap, name: &str, part: fn(&str) -> Option<&str>) -> Vec<Option<IpAddr>> {
    let lines = headers.get_all(name).into_iter();
    lines
        .flat_map(|line| line.to_str().unwrap_or_default().split(','))
        .map(|element| part(element.trim()).and_then(address))
        .collect()
}

/// The address of an element of `Forwarded`, which has names (RFC 7239).
fn forwarded_for(element: &str) -> Option<&str> {
    let mut pairs = element.split(';').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(name, _)| name.trim().eq_ignore_ascii_case("for"))?;
    Some(value.trim().trim_matches('"'))
}

/// An address with or without a port.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let parsed = bare.parse().ok().or_else(|| text.parse().ok().map(|at: SocketAddr| at.ip()));
    parsed.map(|address: IpAddr| address.to_canonical())
}

fn last<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let line = headers.get_all(name).into_iter().next_back()?;
    line.to_str().ok()?.rsplit(',').next().map(str::trim)
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;
    use crate::options::RateLimit;

    fn client(trusted: &[&str], peer: &str, pairs: &[(&str, &str)]) -> Client {
        let trusted_proxies = trusted.iter().map(|network| (*network).to_owned()).collect();
        let rate_limit = RateLimit { trusted_proxies, ..RateLimit::default() };
        let clients = Clients::new(&Options { rate_limit, ..Options::default() });
        let mut request = Request::builder();
        for (name, value) in pairs {
            request = request.header(*name, *value);
        }
        let mut request = request.body(Body::empty()).expect("a request");
        let peer = SocketAddr::new(peer.parse().expect("an address"), 4711);
        request.extensions_mut().insert(ConnectInfo(peer));
        clients.of(&request)
    }

    fn address_of(trusted: &[&str], peer: &str, pairs: &[(&str, &str)]) -> String {
        client(trusted, peer, pairs).address.expect("an address").to_string()
    }

    #[test]
    fn only_a_trusted_proxy_speaks_for_another() {
        let spoofed = &[("x-forwarded-for", "203.0.113.9")][..];
        assert_eq!(address_of(&[], "198.51.100.1", spoofed), "198.51.100.1");
        assert_eq!(address_of(&["10.0.0.0/8"], "198.51.100.1", spoofed), "198.51.100.1");
        assert_eq!(address_of(&["10.0.0.0/8"], "10.0.0.1", spoofed), "203.0.113.9");
        assert_eq!(address_of(&["10.0.0.0/8"], "::ffff:10.0.0.1", spoofed), "203.0.113.9");
        assert_eq!(address_of(&["10.0.0.0/8"], "10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn the_last_hop_that_is_no_proxy_counts_whatever_stands_before_it() {
        let of = |pairs: &[(&str, &str)]| address_of(&["10.0.0.0/8"], "10.0.0.1", pairs);
        assert_eq!(of(&[("x-forwarded-for", "1.1.1.1, 203.0.113.9, 10.0.0.2")]), "203.0.113.9");
        assert_eq!(
            of(&[("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "203.0.113.9")]),
            "203.0.113.9"
        );
        assert_eq!(of(&[("x-forwarded-for", "203.0.113.9:5678")]), "203.0.113.9");
        assert_eq!(of(&[("x-forwarded-for", "1.1.1.1, unknown, 10.0.0.2")]), "10.0.0.2");
        assert_eq!(of(&[("x-forwarded-for", "nonsense")]), "10.0.0.1");
        assert_eq!(
            of(&[("forwarded", "for=1.1.1.1, for=\"[2001:db8::1]:80\";proto=https")]),
            "2001:db8::1"
        );
        assert_eq!(of(&[("forwarded", "proto=https;For=203.0.113.9")]), "203.0.113.9");
        // The proxy wrote one of them, and it is not known which.
        assert_eq!(
            of(&[("forwarded", "for=203.0.113.9"), ("x-forwarded-for", "1.1.1.1")]),
            "10.0.0.1"
        );
    }

    #[test]
    fn a_program_of_this_machine_is_local_unless_it_forwards() {
        assert!(client(&[], "127.0.0.1", &[]).local);
        assert!(client(&[], "::1", &[]).local);
        assert!(!client(&[], "127.0.0.1", &[("x-forwarded-for", "1.1.1.1")]).local);
        assert!(!client(&["127.0.0.0/8"], "127.0.0.1", &[("forwarded", "for=127.0.0.1")]).local);
        assert!(!client(&[], "10.0.0.1", &[]).local);
    }

    #[test]
    fn tls_is_believed_of_a_trusted_proxy() {
        let https = &[("x-forwarded-proto", "https")][..];
        assert!(client(&["10.0.0.1"], "10.0.0.1", https).tls);
        assert!(!client(&["10.0.0.1"], "10.0.0.1", &[("x-forwarded-proto", "https, http")]).tls);
        assert!(!client(&[], "10.0.0.1", https).tls);
    }
}
