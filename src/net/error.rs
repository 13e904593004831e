//! Why the outside cannot be reached.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Which step on the way out failed. Never shows a proxy's credentials.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The URL is not one to connect to.
    #[error("the URL must be http, https, ws or wss, with a host")]
    Url,
    /// The certificate file cannot be read.
    #[error("the root certificates in {} cannot be read", path.display())]
    CaFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The certificate file is not PEM, or one of its certificates is broken.
    #[error("{} must hold root certificates in PEM form: {reason}", path.display())]
    CaFileContent {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// TLS cannot be set up.
    #[error("TLS cannot be set up")]
    TlsSetup(#[source] rustls::Error),
    /// The HTTP client cannot be set up.
    #[error("the HTTP client cannot be set up")]
    Http(#[source] reqwest::Error),
    /// A proxy's URL cannot be read. It is not shown: it may hold a password.
    #[error("{setting} is not a proxy's URL: write http://[user:password@]host:port")]
    ProxyUrl {
        /// The variable or setting that holds it.
        setting: &'static str,
    },
    /// The proxy speaks what we do not.
    #[error(
        "proxies of scheme {scheme}:// are not supported: give an http:// proxy that allows CONNECT"
    )]
    ProxyScheme {
        /// Its scheme.
        scheme: String,
    },
    /// The name cannot be looked up.
    #[error("the name {host} cannot be resolved")]
    Dns {
        /// The name.
        host: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Nothing listens there.
    #[error("{host} refuses connections")]
    Refused {
        /// Host and port.
        host: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The network does not lead there now.
    #[error("{host} cannot be reached")]
    Unreachable {
        /// Host and port.
        host: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It took too long.
    #[error("no connection to {host} within {within:?}")]
    Timeout {
        /// Host and port.
        host: String,
        /// The time that it had.
        within: Duration,
    },
    /// The proxy itself cannot be reached.
    #[error("the proxy {proxy} cannot be reached")]
    Proxy {
        /// Its host and port.
        proxy: String,
        /// Why.
        #[source]
        source: Box<Error>,
    },
    /// The proxy does not want to.
    #[error("the proxy {proxy} refuses to connect to {host}: status {status}{}",
        if *status == 407 { " (give user and password in its URL)" } else { "" })]
    ProxyRefused {
        /// Its host and port.
        proxy: String,
        /// Where to.
        host: String,
        /// The HTTP status.
        status: u16,
    },
    /// The proxy does not answer as one.
    #[error("the proxy {proxy} does not answer as an HTTP proxy: {reason}")]
    ProxyAnswer {
        /// Its host and port.
        proxy: String,
        /// What it did.
        reason: &'static str,
    },
    /// The other side's certificate is signed by no one that is trusted.
    #[error(
        "the certificate of {host} is not trusted: if the hub, or a proxy that inspects TLS, has its own certificate authority, give its root certificate as a PEM file (ca_file)"
    )]
    Untrusted {
        /// Host and port.
        host: String,
        /// What is wrong with the certificate.
        #[source]
        source: io::Error,
    },
    /// The other side's certificate is not good for this.
    #[error("the certificate of {host} is refused")]
    Certificate {
        /// Host and port.
        host: String,
        /// What is wrong with it: expired, or for another name.
        #[source]
        source: io::Error,
    },
    /// The TLS handshake failed.
    #[error("the TLS handshake with {host} failed")]
    Tls {
        /// Host and port.
        host: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// Whether the network itself seems to be away, so that trying again soon costs nobody anything.
    #[must_use]
    pub fn is_offline(&self) -> bool {
        match self {
            Self::Dns { .. }
            | Self::Refused { .. }
            | Self::Unreachable { .. }
            | Self::Timeout { .. } => true,
            Self::Proxy { source, .. } => source.is_offline(),
            _ => false,
        }
    }
}
