//! A certificate authority of our own, and what ends TLS before the hub.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use cogo::shutdown::Tasks;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::inside;
use crate::net::{HUB, run};

/// The name by which the hub is called where a proxy looks it up.
pub(crate) const NAME: &str = "hub.example";

/// Files in a directory.
#[derive(Debug, Clone)]
pub(crate) struct Certificates {
    dir: PathBuf,
}

impl Certificates {
    /// Makes an authority, and a certificate of it for the hub.
    pub(crate) fn make(dir: &Path) -> Result<Self> {
        let file = |name: &str| dir.join(name).display().to_string();
        let extensions = format!("subjectAltName=IP:{HUB},DNS:{NAME}\n");
        std::fs::write(dir.join("extensions"), extensions)?;
        let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
        let openssl = |args: &[&str]| run("openssl", args, "");
        let (ca, ca_key) = (file("ca.pem"), file("ca.key"));
        let authority = ["-days", "30", "-subj", "/CN=a test", "-keyout", &ca_key, "-out", &ca];
        openssl(&[&["req", "-x509"][..], &key, &authority].concat())?;
        let (request, hub_key) = (file("hub.csr"), file("hub.key"));
        let asked = ["-subj", "/CN=hub", "-keyout", &hub_key, "-out", &request];
        openssl(&[&["req"][..], &key, &asked].concat())?;
        let (extensions, hub) = (file("extensions"), file("hub.pem"));
        let signed =
            ["x509", "-req", "-in", &request, "-CA", &ca, "-CAkey", &ca_key, "-CAcreateserial"];
        openssl(&[&signed[..], &["-days", "30", "-extfile", &extensions, "-out", &hub]].concat())?;
        Ok(Self { dir: dir.to_owned() })
    }

    /// The authority's certificate, for `--ca-file`.
    pub(crate) fn ca(&self) -> String {
        self.dir.join("ca.pem").display().to_string()
    }

    fn acceptor(&self) -> Result<TlsAcceptor> {
        let certificate = CertificateDer::from_pem_file(self.dir.join("hub.pem"))?;
        let key = PrivateKeyDer::from_pem_file(self.dir.join("hub.key"))?;
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)?;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }

    /// Takes TLS on port 443 of the namespace, and speaks plainly to `backend` there.
    pub(crate) fn terminate(&self, namespace: &str, backend: &'static str) -> Result<()> {
        let acceptor = self.acceptor()?;
        inside::serve(namespace, move || async move {
            let listener = TcpListener::bind((HUB, 443)).await?;
            let tasks = Tasks::new();
            loop {
                let (stream, _) = listener.accept().await?;
                let acceptor = acceptor.clone();
                tasks.spawn(async move {
                    let Ok(mut outer) = acceptor.accept(stream).await else { return };
                    let Ok(mut inner) = TcpStream::connect(backend).await else { return };
                    let _either_end = copy_bidirectional(&mut outer, &mut inner).await;
                });
            }
        });
        Ok(())
    }
}
