//! How a process reaches the outside: name lookup, TCP, the HTTP proxy of its environment, TLS.
//!
//! The REST transport's HTTP client and the Realtime client's WebSocket both go this way, so that one
//! setting of a proxy or of root certificates serves both. Only outbound connections are ever made.

mod dial;
mod error;
mod proxy;
mod route;
mod tls;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use tokio::io::{AsyncRead, AsyncWrite};

pub use error::Error;
pub use proxy::Proxy;
pub use route::Route;

/// How long an HTTP client's TCP and TLS handshakes may take.
const CONNECT: Duration = Duration::from_secs(5);

/// Idle HTTP connections are closed before the usual balancer (60 s) does so under a request.
const POOL_IDLE: Duration = Duration::from_secs(50);

/// What a request sends must be acknowledged within this, or its connection is dead, as when a router has
/// forgotten it: a worker that waits for its answer all the longer is not back within five seconds.
#[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
const UNHEARD: Duration = Duration::from_secs(2);

/// How to reach the outside.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// A PEM file of root certificates to trust beside the system's.
    pub ca_file: Option<PathBuf>,
    /// Which proxy to go through.
    pub proxy: Proxy,
}

/// Anything that bytes go over.
pub trait AsyncReadWrite: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> AsyncReadWrite for T {}

/// Makes connections. Cheap to clone; the root certificates are those of the time it was made.
#[derive(Clone)]
pub struct Connector {
    proxy: Proxy,
    tls: Arc<rustls::ClientConfig>,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").field("proxy", &self.proxy).finish_non_exhaustive()
    }
}

impl Options {
    /// Looks whether `url` can be reached this way at all, without reaching out: so that what is wrong
    /// with a certificate file or a proxy's URL is said at the start.
    ///
    /// # Errors
    /// What is wrong, and with what.
    pub fn check(&self, url: &Url) -> Result<(), Error> {
        dial::Target::of(url)?;
        tls::roots(self.ca_file.as_deref())?;
        self.proxy.for_url(url).map(|_| ())
    }

    /// Prepares to make connections.
    ///
    /// # Errors
    /// When the certificate file cannot be used.
    pub fn connector(&self) -> Result<Connector, Error> {
        Ok(Connector { proxy: self.proxy.clone(), tls: tls::config(self.ca_file.as_deref())? })
    }

    /// An HTTP client that goes this way. It follows no redirect: a key must not follow one to another host.
    /// Requests have no deadline but the caller's.
    ///
    /// # Errors
    /// When the certificate file or the proxy cannot be used.
    pub fn http_client(&self) -> Result<reqwest::Client, Error> {
        let builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls::config(self.ca_file.as_deref())?.as_ref().clone())
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT)
            .pool_idle_timeout(POOL_IDLE)
            .tcp_nodelay(true)
            .tcp_keepalive(dial::KEEPALIVE)
            .tcp_keepalive_interval(dial::KEEPALIVE_INTERVAL)
            .tcp_keepalive_retries(dial::KEEPALIVE_RETRIES);
        #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
        let builder = builder.tcp_user_timeout(UNHEARD);
        self.proxy.apply(builder)?.build().map_err(|error| Error::Http(error.without_url()))
    }

    /// Connects once; see [`Connector::connect`].
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn connect(
        &self,
        url: &Url,
        within: Duration,
    ) -> Result<Box<dyn AsyncReadWrite>, Error> {
        self.connector()?.connect(url, within).await
    }
}

impl Connector {
    /// Connects to the host of an `http`, `https`, `ws` or `wss` URL: through the proxy if one is set for
    /// it, and with TLS if the scheme says so.
    ///
    /// # Errors
    /// Which of the steps failed; [`Error::Timeout`] after `within`.
    pub async fn connect(
        &self,
        url: &Url,
        within: Duration,
    ) -> Result<Box<dyn AsyncReadWrite>, Error> {
        self.connect_by_route(url, within).await.map(|(stream, _)| stream)
    }

    /// The same, and by which route, where the system tells.
    ///
    /// # Errors
    /// As [`Connector::connect`].
    pub async fn connect_by_route(
        &self,
        url: &Url,
        within: Duration,
    ) -> Result<(Box<dyn AsyncReadWrite>, Option<Route>), Error> {
        let target = dial::Target::of(url)?;
        let connecting = async {
            let stream = match self.proxy.for_url(url)? {
                None => dial::tcp(&target).await?,
                Some(proxy) => proxy::tunnel(&proxy, &target).await?,
            };
            let route = Route::of(&stream);
            if target.tls {
                let stream = tls::handshake(Arc::clone(&self.tls), &target, stream).await?;
                return Ok((Box::new(stream) as Box<dyn AsyncReadWrite>, route));
            }
            Ok((Box::new(stream) as Box<dyn AsyncReadWrite>, route))
        };
        tokio::time::timeout(within, connecting)
            .await
            .unwrap_or_else(|_| Err(Error::Timeout { host: target.to_string(), within }))
    }
}
