//! The way out: TLS with roots of our own, an HTTP proxy, and what is said when either fails.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use cogo::net::{self, Error, Proxy};
use cogo::realtime::wire::Config;
use cogo::realtime::{Client, Event, Options};
use cogo::shutdown::Tasks;
use rcgen::{CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::NamedTempFile;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::server::{Server, soon};

const WITHIN: Duration = Duration::from_secs(5);

/// A certificate authority of our own, with the PEM file that a user would name.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    file: NamedTempFile,
}

impl Authority {
    fn new(name: &str) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let mut file = NamedTempFile::new()?;
        file.write_all(issuer.pem().as_bytes())?;
        Ok(Self { issuer, file })
    }

    /// A server's TLS with a certificate for `name`.
    fn serves(&self, name: &str, expired: bool) -> Result<TlsAcceptor> {
        let mut params = CertificateParams::new(vec![name.to_owned()])?;
        if expired {
            params.not_before = rcgen::date_time_ymd(2020, 1, 1);
            params.not_after = rcgen::date_time_ymd(2021, 1, 1);
        }
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![CertificateDer::from(certificate.der().to_vec())], key)?;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }

    fn trusted(&self) -> net::Options {
        net::Options { ca_file: Some(self.file.path().to_owned()), proxy: Proxy::None }
    }
}

/// An HTTP proxy that leads every CONNECT to one address, for who has the right password.
struct ConnectProxy {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    _tasks: Tasks,
}

impl ConnectProxy {
    /// `Basic dXNlcjpodW50ZXIy` is `user:hunter2`.
    async fn start(target: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (tasks, asked) = (Tasks::new(), Arc::<Mutex<Vec<String>>>::default());
        let (serving, log) = (tasks.clone(), Arc::clone(&asked));
        tasks.spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let log = Arc::clone(&log);
                serving.spawn(async move {
                    let mut request = Vec::new();
                    while !request.ends_with(b"\r\n\r\n") {
                        request.push(stream.read_u8().await?);
                    }
                    let request = String::from_utf8_lossy(&request).into_owned();
                    let first = request.lines().next().unwrap_or_default().to_owned();
                    log.lock().expect("not poisoned").push(first);
                    if !request.contains("Proxy-Authorization: Basic dXNlcjpodW50ZXIy\r\n") {
                        return stream.write_all(b"HTTP/1.1 407 No\r\n\r\n").await;
                    }
                    let mut onward = TcpStream::connect(target).await?;
                    stream.write_all(b"HTTP/1.1 200 OK\r\nVia: test\r\n\r\n").await?;
                    copy_bidirectional(&mut stream, &mut onward).await.map(|_| ())
                });
            }
        });
        Ok(Self { address, asked, _tasks: tasks })
    }

    fn proxy(&self, user: &str, no_proxy: &str) -> Result<Proxy> {
        Ok(Proxy::fixed(&format!("http://{user}@{}", self.address), no_proxy)?)
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("not poisoned").clone()
    }
}

async fn refusal(options: &net::Options, url: &str) -> Result<Error> {
    match options.connect(&url.parse()?, WITHIN).await {
        Ok(_) => bail!("{url} was reached"),
        Err(error) => Ok(error),
    }
}

#[tokio::test]
async fn the_client_joins_through_a_proxy_and_tls_of_its_own_authority() -> Result<()> {
    let authority = Authority::new("ours")?;
    let mut server = Server::start_with(Some(authority.serves("hub.example", false)?)).await?;
    let proxy = ConnectProxy::start(server.address).await?;
    let mut options = Options::new("https://hub.example", "key")?;
    options.net = net::Options { proxy: proxy.proxy("user:hunter2", "")?, ..authority.trusted() };
    let tasks = Tasks::new();
    let client = Client::start(options, &tasks)?;
    let mut channel = client.channel("a", Config::default());
    server.peer().await?.join().await?;
    let event = soon("an event", channel.next()).await?.context("the end")?;
    assert!(matches!(event, Event::Joined), "{event:?}");
    assert_eq!(proxy.asked()[0], "CONNECT hub.example:443 HTTP/1.1");
    assert!(!format!("{client:?}").contains("hunter2"));
    soon("the end", client.close()).await?;
    assert!(tasks.join(WITHIN).await);
    Ok(())
}

#[tokio::test]
async fn the_http_client_goes_the_same_way() -> Result<()> {
    let authority = Authority::new("ours")?;
    let server = Server::start_with(Some(authority.serves("hub.example", false)?)).await?;
    let proxy = ConnectProxy::start(server.address).await?;
    let through = proxy.proxy("user:hunter2", "")?;
    let trusted = net::Options { proxy: through, ..authority.trusted() };
    let sent = trusted.http_client()?.get("https://hub.example/").send();
    // No HTTP server stands there; that the WebSocket's hangs up shows that it was reached.
    let answer = soon("an answer", sent).await?.expect_err("no WebSocket");
    assert!(!answer.is_connect(), "{answer:?}");
    assert_eq!(proxy.asked(), ["CONNECT hub.example:443 HTTP/1.1"]);
    Ok(())
}

#[tokio::test]
async fn a_certificate_that_cannot_be_trusted_is_refused_with_the_remedy() -> Result<()> {
    let (ours, other) = (Authority::new("ours")?, Authority::new("other")?);
    let at = async |name: &str, expired| -> Result<_> {
        let server = Server::start_with(Some(ours.serves(name, expired)?)).await?;
        Ok((format!("wss://localhost:{}", server.address.port()), server))
    };
    let (good, _server) = at("localhost", false).await?;
    ours.trusted().connect(&good.parse()?, WITHIN).await?;
    let unknown = refusal(&other.trusted(), &good).await?;
    assert!(matches!(unknown, Error::Untrusted { .. }), "{unknown:?}");
    assert!(unknown.to_string().contains("PEM file"), "{unknown}");

    for (name, expired, said) in [("localhost", true, "expired"), ("else.example", false, "name")] {
        let (url, _server) = at(name, expired).await?;
        let refused = refusal(&ours.trusted(), &url).await?;
        assert!(matches!(refused, Error::Certificate { .. }), "{refused:?}");
        let chain = cogo::error::chain(&refused).to_string();
        assert!(chain.contains(said), "{chain}");
    }
    let plain = Server::start().await?;
    let refused = refusal(&ours.trusted(), &format!("wss://{}", plain.address)).await?;
    assert!(matches!(refused, Error::Tls { .. }), "{refused:?}");
    Ok(())
}

#[test]
fn a_certificate_file_that_cannot_be_used_is_named() -> Result<()> {
    let with = |path: &std::path::Path| {
        let options = net::Options { ca_file: Some(path.to_owned()), proxy: Proxy::None };
        let checked = options.check(&"https://hub.example".parse().expect("a URL"));
        let (client, connector) = (options.http_client(), options.connector());
        assert!(checked.is_err() && client.is_err() && connector.is_err());
        checked.expect_err("refused").to_string()
    };
    assert!(with("/nowhere/ca.pem".as_ref()).contains("/nowhere/ca.pem"));
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for content in ["", "not PEM", "-----BEGIN CERTIFICATE-----\n!!", broken] {
        let mut file = NamedTempFile::new()?;
        file.write_all(content.as_bytes())?;
        let said = with(file.path());
        assert!(said.contains(&file.path().display().to_string()), "{said}");
        assert!(said.contains("PEM"), "{said}");
    }
    let (one, two) = (Authority::new("one")?, Authority::new("two")?);
    let mut both = NamedTempFile::new()?;
    both.write_all(format!("{}\n{}", one.issuer.pem(), two.issuer.pem()).as_bytes())?;
    let options = net::Options { ca_file: Some(both.path().to_owned()), proxy: Proxy::None };
    options.check(&"https://hub.example".parse()?)?;
    Ok(())
}

#[tokio::test]
async fn a_proxy_that_refuses_is_told_apart_from_one_that_is_not_there() -> Result<()> {
    let server = Server::start().await?;
    let proxy = ConnectProxy::start(server.address).await?;
    let through = |proxy| net::Options { ca_file: None, proxy };
    let url = "ws://hub.example";
    let refused = refusal(&through(proxy.proxy("user:wrong", "")?), url).await?;
    let Error::ProxyRefused { status: 407, .. } = refused else { bail!("{refused:?}") };
    assert!(refused.to_string().contains("user and password"), "{refused}");
    assert!(!format!("{refused:?} {refused}").contains("wrong"));

    // A WebSocket server is no proxy.
    let odd = Proxy::fixed(&format!("http://{}", server.address), "")?;
    let refused = refusal(&through(odd), url).await?;
    assert!(
        matches!(refused, Error::ProxyAnswer { .. } | Error::ProxyRefused { .. }),
        "{refused:?}"
    );

    let gone = TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
    let refused = refusal(&through(Proxy::fixed(&format!("http://{gone}"), "")?), url).await?;
    assert!(matches!(refused, Error::Proxy { .. }) && refused.is_offline(), "{refused:?}");

    // A host of NO_PROXY is reached directly: without the proxy's password.
    let direct = through(proxy.proxy("user:wrong", "127.0.0.1")?);
    direct.connect(&format!("ws://{}", server.address).parse()?, WITHIN).await?;
    Ok(())
}

#[tokio::test]
async fn each_step_that_fails_has_its_own_error() -> Result<()> {
    let direct = net::Options { ca_file: None, proxy: Proxy::None };
    let gone = TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
    let refused = refusal(&direct, &format!("ws://{gone}")).await?;
    assert!(matches!(refused, Error::Refused { .. }) && refused.is_offline(), "{refused:?}");
    let unknown = refusal(&direct, "wss://no-such-host.invalid").await?;
    assert!(unknown.is_offline(), "{unknown:?}"); // Dns, or Timeout where no resolver answers
    assert!(matches!(refusal(&direct, "ftp://hub.example").await?, Error::Url));

    // Someone who takes the connection and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("wss://{}", silent.local_addr()?).parse()?;
    let late = direct.connect(&url, Duration::from_millis(50)).await.err().context("reached")?;
    assert!(matches!(late, Error::Timeout { .. }), "{late:?}");
    Ok(())
}
