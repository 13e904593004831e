//! TLS for one server, where its entry says more than its address: whom to trust, and who we are.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::config::Tls;

/// Why the files of an entry cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("tls: cannot read {path}")]
    Read {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("tls: {path} {rule}")]
    Content { path: String, rule: String },
    #[error("tls: the client's certificate and key cannot be used")]
    Setup(#[source] rustls::Error),
}

/// The files are read at each connection, so that a renewed certificate is taken up.
pub(super) fn config(tls: &Tls) -> Result<Arc<ClientConfig>, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&tls.ca_file)? {
        roots.add(certificate).map_err(|error| content(&tls.ca_file, &error.to_string()))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(Error::Setup)?
        .with_root_certificates(roots);
    let config = match (&tls.client_cert, &tls.client_key) {
        (Some(cert), Some(key)) => builder
            .with_client_auth_cert(certificates(cert)?, private_key(key)?)
            .map_err(Error::Setup)?,
        _ => builder.with_no_client_auth(),
    };
    Ok(Arc::new(config))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(path)?).collect();
    let found = found.map_err(|error| content(path, &error.to_string()))?;
    if found.is_empty() {
        return Err(content(path, "has no CERTIFICATE section"));
    }
    Ok(found)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    PrivateKeyDer::from_pem_slice(&read(path)?)
        .map_err(|_| content(path, "holds no private key in PEM"))
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|source| Error::Read { path: path.display().to_string(), source })
}

fn content(path: &Path, rule: &str) -> Error {
    Error::Content { path: path.display().to_string(), rule: rule.to_owned() }
}
