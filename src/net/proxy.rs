//! HTTP proxies, by CONNECT.

use std::fmt;
use std::sync::Arc;

use http::Uri;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use reqwest::Url;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Error;
use super::dial::{self, Target};

/// The longest answer to CONNECT that is read.
const MAX_ANSWER: usize = 16 * 1024;

/// Which proxy to go through.
#[derive(Clone, Default)]
pub enum Proxy {
    /// That of the environment (`HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`, and in lower case), or
    /// of the system on macOS and Windows.
    #[default]
    System,
    /// None, whatever the environment says.
    None,
    /// This one.
    Fixed(Fixed),
}

/// A proxy that was named.
#[derive(Clone)]
pub struct Fixed {
    url: Arc<str>,
    no_proxy: Arc<str>,
}

impl Proxy {
    /// A proxy by its URL, `http://[user:password@]host:port`; hosts in `no_proxy` are reached without it.
    ///
    /// # Errors
    /// When it is not the URL of an HTTP proxy.
    pub fn fixed(url: &str, no_proxy: &str) -> Result<Self, Error> {
        let matcher = Matcher::builder().all(url.to_owned()).build();
        match matcher.intercept(&Uri::from_static("https://host.invalid")) {
            Some(found) => usable(found)?,
            None => return Err(Error::ProxyUrl { setting: "the proxy" }),
        };
        Ok(Self::Fixed(Fixed { url: url.into(), no_proxy: no_proxy.into() }))
    }

    /// The proxy to reach `url` through.
    pub(super) fn for_url(&self, url: &Url) -> Result<Option<Intercept>, Error> {
        let matcher = match self {
            Self::None => return Ok(None),
            Self::System => {
                well_formed(&|name| std::env::var(name).ok())?;
                Matcher::from_system()
            }
            Self::Fixed(fixed) => {
                Matcher::builder().all(fixed.url.to_string()).no(fixed.no_proxy.to_string()).build()
            }
        };
        let target = Target::of(url)?;
        // The matcher knows http and https alone.
        let scheme = if target.tls { "https" } else { "http" };
        let uri: Uri = format!("{scheme}://{target}/").parse().map_err(|_| Error::Url)?;
        matcher.intercept(&uri).map(usable).transpose()
    }

    /// The same for an HTTP client, which reads the environment as [`Proxy::System`] does.
    pub(super) fn apply(
        &self,
        builder: reqwest::ClientBuilder,
    ) -> Result<reqwest::ClientBuilder, Error> {
        Ok(match self {
            Self::System => builder,
            Self::None => builder.no_proxy(),
            Self::Fixed(fixed) => {
                let proxy = reqwest::Proxy::all(&*fixed.url)
                    .map_err(|_| Error::ProxyUrl { setting: "the proxy" })?;
                let no_proxy = reqwest::NoProxy::from_string(&fixed.no_proxy);
                builder.no_proxy().proxy(proxy.no_proxy(no_proxy))
            }
        })
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::System => "System",
            Self::None => "None",
            Self::Fixed(_) => "Fixed([redacted])",
        })
    }
}

impl fmt::Debug for Fixed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fixed([redacted])")
    }
}

/// The matcher takes a URL that it cannot read for none, and would go out directly.
fn well_formed(read: &dyn Fn(&'static str) -> Option<String>) -> Result<(), Error> {
    const NAMES: [[&str; 2]; 3] =
        [["HTTPS_PROXY", "https_proxy"], ["HTTP_PROXY", "http_proxy"], ["ALL_PROXY", "all_proxy"]];
    for setting in NAMES.into_iter().flatten() {
        let Some(value) = read(setting).filter(|value| !value.is_empty()) else { continue };
        let matcher = Matcher::builder().all(value).build();
        if matcher.intercept(&Uri::from_static("https://host.invalid")).is_none() {
            return Err(Error::ProxyUrl { setting });
        }
    }
    Ok(())
}

fn usable(found: Intercept) -> Result<Intercept, Error> {
    match found.uri().scheme_str() {
        Some("http") => Ok(found),
        scheme => Err(Error::ProxyScheme { scheme: scheme.unwrap_or_default().to_owned() }),
    }
}

/// Asks the proxy for a connection to `target`.
pub(super) async fn tunnel(found: &Intercept, target: &Target) -> Result<TcpStream, Error> {
    let uri = found.uri();
    let host = uri.host().unwrap_or_default();
    let at = Target {
        host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
        port: uri.port_u16().unwrap_or(80),
        tls: false,
    };
    let proxy = at.to_string();
    let unreachable = |source| Error::Proxy { proxy: proxy.clone(), source: Box::new(source) };
    let mut stream = dial::tcp(&at).await.map_err(unreachable)?;

    let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n").into_bytes();
    if let Some(auth) = found.basic_auth() {
        request.extend_from_slice(b"Proxy-Authorization: ");
        request.extend_from_slice(auth.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    let broken = |reason| Error::ProxyAnswer { proxy: proxy.clone(), reason };
    let write = stream.write_all(&request).await;
    write.map_err(|_| broken("it hung up on the request"))?;
    match answer(&mut stream).await.map_err(broken)? {
        200..=299 => Ok(stream),
        status => Err(Error::ProxyRefused { proxy, host: target.to_string(), status }),
    }
}

/// The status of the answer. Reads no byte past it: what follows is the target's.
async fn answer(stream: &mut TcpStream) -> Result<u16, &'static str> {
    let mut answer = Vec::with_capacity(256);
    while !answer.ends_with(b"\r\n\r\n") {
        // A byte at a time is a system call each, for a hundred bytes once a connection.
        answer.push(stream.read_u8().await.map_err(|_| "it hung up instead of answering")?);
        if answer.len() == MAX_ANSWER {
            return Err("its answer has no end");
        }
    }
    let line = answer.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = std::str::from_utf8(line).map_err(|_| "its answer is not text")?;
    let mut words = line.split(' ');
    match (words.next(), words.next().map(str::parse)) {
        (Some("HTTP/1.0" | "HTTP/1.1"), Some(Ok(status))) => Ok(status),
        _ => Err("its answer has no status"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_variable_that_is_no_url_is_named_and_not_shown() {
        let read = |name| (name == "https_proxy").then(|| "ftp://user:hunter2@proxy".to_owned());
        let refused = well_formed(&read).expect_err("refused").to_string();
        assert!(refused.contains("https_proxy") && !refused.contains("hunter2"), "{refused}");
        assert!(well_formed(&|_| Some("proxy:3128".to_owned())).is_ok());
        assert!(well_formed(&|_| None).is_ok());
    }

    #[test]
    fn only_http_proxies_are_taken() {
        for scheme in ["socks5", "socks5h", "https"] {
            let refused = Proxy::fixed(&format!("{scheme}://user:hunter2@proxy:1"), "");
            let refused = refused.expect_err("refused").to_string();
            assert!(refused.contains(scheme) && !refused.contains("hunter2"), "{refused}");
        }
        assert!(matches!(Proxy::fixed("::", ""), Err(Error::ProxyUrl { .. })));
        let proxy = Proxy::fixed("http://user:hunter2@proxy:1", "").expect("a proxy");
        assert!(!format!("{proxy:?}").contains("hunter2"));
    }

    #[test]
    fn hosts_of_no_proxy_are_reached_directly() {
        let proxy = Proxy::fixed("http://proxy:1", "hub.example,10.0.0.0/8").expect("a proxy");
        for (url, through) in [
            ("wss://hub.example/x", false),
            ("wss://eu.hub.example/x", false),
            ("ws://10.1.2.3:80/x", false),
            ("wss://other.example/x", true),
            ("http://[::1]:8080/x", true),
        ] {
            let found = proxy.for_url(&url.parse().expect("a URL")).expect("readable");
            assert_eq!(found.is_some(), through, "{url}");
        }
    }
}
