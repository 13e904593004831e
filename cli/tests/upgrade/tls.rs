//! What ends TLS before a hub, and is told where that is.

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use cogo::shutdown::Tasks;
use rcgen::{CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::NamedTempFile;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Listens on a port of its own for as long as it lives.
pub(crate) struct Terminator {
    backend: Arc<Mutex<String>>,
    address: SocketAddr,
    authority: NamedTempFile,
    _tasks: Tasks,
}

impl Terminator {
    /// Where nothing is behind it yet.
    pub(crate) async fn start() -> Self {
        let (acceptor, authority) = certified();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (backend, tasks) = (Arc::new(Mutex::new(String::new())), Tasks::new());
        let (behind, inner) = (Arc::clone(&backend), tasks.clone());
        tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, behind) = (acceptor.clone(), Arc::clone(&behind));
                inner.spawn(async move {
                    let Ok(mut outer) = acceptor.accept(stream).await else { return };
                    let backend = behind.lock().expect("unpoisoned").clone();
                    let Ok(mut inner) = TcpStream::connect(backend).await else { return };
                    let _either_end = copy_bidirectional(&mut outer, &mut inner).await;
                });
            }
        });
        Self { backend, address, authority, _tasks: tasks }
    }

    /// From now on leads to the hub at this URL.
    pub(crate) fn lead_to(&self, url: &str) {
        let host = url.strip_prefix("http://").expect("an http:// address");
        host.clone_into(&mut self.backend.lock().expect("unpoisoned"));
    }

    /// Its URL, and the file of the authority to trust.
    pub(crate) fn way(&self) -> (String, String) {
        let url = format!("https://localhost:{}", self.address.port());
        (url, self.authority.path().display().to_string())
    }
}

/// A certificate for `localhost`, and the PEM file of the authority that it is of.
fn certified() -> (TlsAcceptor, NamedTempFile) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "a test");
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key"));
    let issuer = issuer.expect("an authority");
    let mut file = NamedTempFile::new().expect("a file");
    file.write_all(issuer.pem().as_bytes()).expect("written");

    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    let certificate = params.signed_by(&key, &issuer).expect("signed");
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![CertificateDer::from(certificate.der().to_vec())], key);
    (TlsAcceptor::from(Arc::new(config.expect("a server"))), file)
}
