//! TLS with the system's root certificates, and those of a file beside them.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CertificateError, ClientConfig, RootCertStore};
use rustls_platform_verifier::Verifier;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Error;
use super::dial::Target;

pub(super) fn config(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, Error> {
    let extra = roots(ca_file)?;
    let given = !extra.is_empty();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(Error::TlsSetup)?;
    Ok(Arc::new(match Verifier::new_with_extra_roots(extra, provider) {
        Ok(verifier) => builder
            .dangerous() // the name of the way in; the verifier is the system's own
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth(),
        Err(error) if given => return Err(Error::TlsSetup(error)),
        // A system without roots, such as a bare container: plain HTTP works, and TLS says how to
        // give some.
        Err(_) => builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth(),
    }))
}

/// The certificates of the file, each looked at.
pub(super) fn roots(ca_file: Option<&Path>) -> Result<Vec<CertificateDer<'static>>, Error> {
    let Some(path) = ca_file else { return Ok(Vec::new()) };
    let bytes =
        std::fs::read(path).map_err(|source| Error::CaFile { path: path.to_owned(), source })?;
    let broken = |reason: String| Error::CaFileContent { path: path.to_owned(), reason };
    let found: Vec<_> = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<_, pem::Error>>()
        .map_err(|error| broken(error.to_string()))?;
    if found.is_empty() {
        return Err(broken("it has no CERTIFICATE section".to_owned()));
    }
    let mut store = RootCertStore::empty();
    for (number, certificate) in (1..).zip(&found) {
        store
            .add(certificate.clone())
            .map_err(|error| broken(format!("certificate {number} is broken: {error}")))?;
    }
    Ok(found)
}

pub(super) async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
    config: Arc<ClientConfig>,
    target: &Target,
    stream: S,
) -> Result<TlsStream<S>, Error> {
    let name = ServerName::try_from(target.host.clone()).map_err(|_| Error::Url)?;
    TlsConnector::from(config)
        .connect(name, stream)
        .await
        .map_err(|source| refusal(target.to_string(), source))
}

fn refusal(host: String, source: io::Error) -> Error {
    let inner = source.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(
            CertificateError::UnknownIssuer
            | CertificateError::BadSignature
            | CertificateError::Other(_),
        )) => Error::Untrusted { host, source },
        Some(rustls::Error::InvalidCertificate(_)) => Error::Certificate { host, source },
        _ => Error::Tls { host, source },
    }
}
