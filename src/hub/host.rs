//! By which names the hub may be called.
//!
//! A browser sends what it reads in the address bar: a page whose own name points to 127.0.0.1 would
//! otherwise read the hub as if it were its own (DNS rebinding). An address is no such name, since a
//! page that was loaded from it came from there.

use std::net::IpAddr;

use axum::http::uri::Authority;
use axum::http::{HeaderMap, Uri, header};

use crate::error::Code;
use crate::hub::error::ApiError;
use crate::options::names::address;

/// The names that are good.
pub(crate) struct Hosts {
    listen: IpAddr,
    names: Vec<String>,
}

impl Hosts {
    pub(crate) fn new(listen: IpAddr, names: &[String]) -> Self {
        Self { listen, names: names.iter().map(|name| canonical(name)).collect() }
    }

    /// Lets a request pass, or says why not.
    pub(crate) fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), ApiError> {
        let mut values = headers.get_all(header::HOST).into_iter();
        let host = match (values.next(), values.next()) {
            (Some(host), None) => host.to_str().ok().and_then(|host| host.parse().ok()),
            _ => None,
        };
        let Some(host): Option<Authority> = host else {
            let message = "Host: must stand in the request once, as name or name:port";
            return Err(ApiError::new(Code::InvalidArgument, message));
        };
        for authority in [Some(&host), uri.authority()].into_iter().flatten() {
            if !self.allows(authority.host()) {
                let message = format!(
                    "Host: {:?} is not a name of this hub; call it by its address, or add the \
                     name to `allowed_hosts`",
                    authority.host()
                );
                return Err(ApiError::new(Code::Forbidden, message));
            }
        }
        Ok(())
    }

    fn allows(&self, host: &str) -> bool {
        let host = canonical(host);
        if host == "localhost" || self.names.contains(&host) {
            return true;
        }
        address(&host)
            .is_some_and(|ip| ip.is_loopback() || ip == self.listen || self.listen.is_unspecified())
    }
}

/// One spelling: lower case, no dot at the end, addresses as Rust prints them.
fn canonical(host: &str) -> String {
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    address(&host).map_or(host, |ip| ip.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(listen: &str, names: &[&str]) -> Hosts {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        Hosts::new(listen.parse().expect("an address"), &names)
    }

    #[test]
    fn only_names_of_the_hub_are_allowed() {
        let local = hosts("127.0.0.1", &["Bus.Example.com"]);
        for good in
            ["localhost", "LOCALHOST.", "127.0.0.1", "127.1.2.3", "[::1]", "bus.example.com"]
        {
            assert!(local.allows(good), "{good}");
        }
        for bad in ["evil.example", "localhost.evil.example", "10.0.0.1", "127.0.0.1.evil", ""] {
            assert!(!local.allows(bad), "{bad}");
        }
        assert!(hosts("10.0.0.1", &[]).allows("10.0.0.1"));
        assert!(!hosts("10.0.0.1", &[]).allows("10.0.0.2"));
        assert!(hosts("0.0.0.0", &[]).allows("10.0.0.2"));
        assert!(!hosts("0.0.0.0", &[]).allows("evil.example"));
    }

    #[test]
    fn every_place_that_names_a_host_is_looked_at() {
        let local = hosts("127.0.0.1", &[]);
        let check = |uri: &str, values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::HOST, value.parse().expect("a header value"));
            }
            local.check(&uri.parse().expect("a uri"), &headers).map_err(|error| error.code())
        };
        assert_eq!(check("/", &["localhost:8787"]), Ok(()));
        assert_eq!(check("/", &["[::1]:8787"]), Ok(()));
        assert_eq!(check("/", &["evil.example:8787"]), Err(Code::Forbidden));
        assert_eq!(check("http://evil.example/", &["localhost"]), Err(Code::Forbidden));
        assert_eq!(check("/", &[]), Err(Code::InvalidArgument));
        assert_eq!(check("/", &["localhost", "evil.example"]), Err(Code::InvalidArgument));
        assert_eq!(check("/", &["a b"]), Err(Code::InvalidArgument));
    }
}
