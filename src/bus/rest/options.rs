//! How to reach the bus over HTTPS.

use reqwest::Url;

use crate::bus::error::Error;
use crate::bus::rest::Key;
use crate::error::Code;
use crate::net;
use crate::secret::Secret;

/// How to reach the bus over HTTPS.
#[derive(Debug, Clone)]
pub struct Options {
    /// The hub or the Supabase project, such as `https://hub.example.com`.
    pub url: String,
    /// What to show there.
    pub key: Key,
    /// What to show to the gateway before it, which on hosted Supabase lets nobody pass without a key of the
    /// project's own: its publishable or `anon` key. A hub needs none.
    pub api_key: Option<Secret>,
    /// How to get there.
    pub net: net::Options,
}

/// The server's address, without what a base cannot have.
pub(super) fn parse(url: &str) -> Result<Url, Error> {
    // Not repeated: somebody may have put a password into it.
    let refuse = |rule: &str| Error::Refused {
        code: Code::InvalidArgument,
        message: format!("url: {rule}, such as https://hub.example.com"),
    };
    let url: Url = url.trim().parse().map_err(|_| refuse("must be a URL"))?;
    if !matches!(url.scheme(), "https" | "http") || url.host_str().is_none_or(str::is_empty) {
        return Err(refuse("must begin with https:// and name a host"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refuse("must hold no user and no password: the key says who calls"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(refuse("must end with the host or a path"));
    }
    if url.path().contains("/rest/v1") || url.path().contains("/realtime/v1") {
        return Err(refuse("must be what comes before /rest/v1"));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_that_cannot_be_a_base_is_refused_with_the_rule_and_without_being_shown() {
        for bad in [
            "",
            "hub.example.com",
            "postgres://u:hunter2@h/db",
            "ftp://h",
            "https://",
            "https://u:hunter2@h",
            "https://h/?key=hunter2",
            "https://h/rest/v1",
            "https://h/#x",
        ] {
            let text = parse(bad).expect_err(bad).to_string();
            assert!(text.starts_with("url: must ") && !text.contains("hunter2"), "{bad}: {text}");
        }
        for good in ["https://h", "http://127.0.0.1:8787/", " https://h/bus ", "https://[::1]:1"] {
            parse(good).expect(good);
        }
    }
}
