//! Where to connect, and how.

use std::fmt;
use std::time::Duration;

use reqwest::Url;

use crate::net;
use crate::secret::Secret;

use super::backoff::Retry;
use super::wire::Vsn;

/// Where the socket is, below the address of a project or hub.
const PATH: &str = "realtime/v1/websocket";

/// Where to connect, and how. [`Options::new`] fills in what suits hosted Supabase and the hub.
#[derive(Clone)]
#[non_exhaustive]
pub struct Options {
    /// The socket's URL, without its query.
    pub url: Url,
    /// The key of the connection (`apikey`).
    pub key: Secret,
    /// The token of the channels; that of the connection decides without one.
    pub token: Option<Secret>,
    /// The version to speak.
    pub vsn: Vsn,
    /// Between heartbeats. Realtime wants 25 s at most; one unanswered when the next is due is a loss.
    pub heartbeat: Duration,
    /// After a heartbeat without any byte for this long the link is dead.
    pub silence: Duration,
    /// A connection must be made within this.
    pub connect: Duration,
    /// A join, a broadcast with acknowledgement or a write must be through within this.
    pub answer: Duration,
    /// Leaving and closing take no longer than this.
    pub farewell: Duration,
    /// A join that has held for this long makes the next loss a first one.
    pub steady: Duration,
    /// How to come back.
    pub retry: Retry,
    /// Events that wait for a channel's reader; then they are dropped for one `Missed`.
    pub queue: usize,
    /// How to reach the outside.
    pub net: net::Options,
}

/// The address cannot be one of a project or hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the URL must be http(s):// or ws(s):// and a host, with neither user, password nor query: the key goes apart"
)]
pub struct UrlError;

impl Options {
    /// The Realtime of the project or hub at `url`, such as `https://hub.example`.
    ///
    /// # Errors
    /// When `url` is no such address. The error does not show it.
    pub fn new(url: &str, key: impl Into<Secret>) -> Result<Self, UrlError> {
        Ok(Self {
            url: endpoint(url)?,
            key: key.into(),
            token: None,
            vsn: Vsn::V2,
            heartbeat: Duration::from_secs(25),
            silence: Duration::from_secs(10),
            connect: Duration::from_secs(10),
            answer: Duration::from_secs(10),
            farewell: Duration::from_secs(2),
            steady: Duration::from_secs(15),
            retry: Retry::default(),
            queue: 256,
            net: net::Options::default(),
        })
    }

    /// The whole URL, with the key: never to be shown.
    pub(super) fn request(&self, key: &Secret) -> Url {
        let mut url = self.url.clone();
        url.query_pairs_mut()
            .append_pair("apikey", key.expose())
            .append_pair("vsn", self.vsn.as_str());
        url
    }
}

fn endpoint(url: &str) -> Result<Url, UrlError> {
    let mut url: Url = url.parse().map_err(|_| UrlError)?;
    let scheme = match url.scheme() {
        "https" | "wss" => "wss",
        "http" | "ws" => "ws",
        _ => return Err(UrlError),
    };
    // `set_scheme` refuses to leave a scheme of the web for another, so the text is changed.
    let rest = url.as_str().split_once(':').map(|(_, rest)| rest.to_owned()).ok_or(UrlError)?;
    url = format!("{scheme}:{rest}").parse().map_err(|_| UrlError)?;
    let bare = url.username().is_empty() && url.password().is_none() && url.query().is_none();
    if !bare || url.host_str().is_none_or(str::is_empty) {
        return Err(UrlError);
    }
    url.set_fragment(None);
    let path = url.path().trim_end_matches('/').to_owned();
    if !path.ends_with(PATH) {
        url.set_path(&format!("{path}/{PATH}"));
    }
    Ok(url)
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("url", &self.url.as_str())
            .field("vsn", &self.vsn)
            .field("heartbeat", &self.heartbeat)
            .field("retry", &self.retry)
            .field("net", &self.net)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_found_below_the_address() {
        for (given, url) in [
            ("https://hub.example", "wss://hub.example/realtime/v1/websocket"),
            ("http://127.0.0.1:8080/", "ws://127.0.0.1:8080/realtime/v1/websocket"),
            ("https://hub.example/cogo/", "wss://hub.example/cogo/realtime/v1/websocket"),
            ("wss://a.b/realtime/v1/websocket", "wss://a.b/realtime/v1/websocket"),
            ("https://[::1]:444", "wss://[::1]:444/realtime/v1/websocket"),
        ] {
            let options = Options::new(given, "k&y").expect(given);
            assert_eq!(options.url.as_str(), url);
            assert!(options.request(&options.key).as_str().ends_with("?apikey=k%26y&vsn=2.0.0"));
            assert!(!format!("{options:?}").contains("k&y"));
        }
    }

    #[test]
    fn an_address_that_is_none_is_refused_and_not_shown() {
        for given in [
            "",
            "hub.example",
            "ftp://hub.example",
            "https://",
            "https://user:hunter2@hub.example",
            "https://hub.example?apikey=hunter2",
        ] {
            let refused = Options::new(given, "").expect_err(given);
            assert!(!refused.to_string().contains("hunter2"));
        }
    }
}
