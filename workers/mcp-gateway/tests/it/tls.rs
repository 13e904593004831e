//! Servers behind TLS whose certificates the system does not know.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cogo::shutdown::{Shutdown, Tasks};
use cogo_worker_mcp_gateway::config::{Tls, Toolset};
use cogo_worker_mcp_gateway::demo::Demo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::support::{call, text, upstream};

/// Whoever signs.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("a certificate"))
    }

    fn file(&self, dir: &Path) -> PathBuf {
        write(dir, &self.0.pem())
    }

    /// A certificate for `localhost`, and its key.
    fn sign(&self) -> (rcgen::Certificate, KeyPair) {
        let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        let key = KeyPair::generate().expect("a key");
        (params.signed_by(&key, &self.0).expect("signed"), key)
    }
}

fn write(dir: &Path, pem: &str) -> PathBuf {
    let path = dir.join(format!("{}.pem", uuid::Uuid::now_v7()));
    std::fs::write(&path, pem).expect("written");
    path
}

/// The demo server behind TLS; it wants a certificate that `clients` signed, if given.
async fn behind_tls(demo: &Demo, server: &Authority, clients: Option<&Authority>) -> String {
    let (certificate, key) = server.sign();
    let builder =
        ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().expect("versions");
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(clients) => {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from(clients.0.der().to_vec())).expect("a certificate");
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().expect("a verifier"))
        }
    };
    let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).expect("a key");
    let config = builder
        .with_single_cert(vec![CertificateDer::from(certificate.der().to_vec())], key)
        .expect("fits");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let address = demo.url.trim_start_matches("ws://").trim_end_matches('/').to_owned();
    let tasks = Tasks::new();
    tasks.clone().spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, address) = (acceptor.clone(), address.clone());
            tasks.spawn(async move {
                let Ok(mut inside) = acceptor.accept(stream).await else { return };
                let (mut head, mut part) = (Vec::new(), [0; 4096]);
                while !head.ends_with(b"\r\n\r\n") {
                    match inside.read(&mut part).await {
                        Ok(read) if read > 0 => head.extend_from_slice(&part[..read]),
                        _ => return,
                    }
                }
                // The demo server answers to its own name alone.
                let head =
                    String::from_utf8_lossy(&head).replace(&format!("localhost:{port}"), &address);
                let mut outside = TcpStream::connect(&address).await.expect("the demo server");
                outside.write_all(head.as_bytes()).await.expect("sent");
                let _until_it_ends = copy_bidirectional(&mut inside, &mut outside).await;
            });
        }
    });
    format!("wss://localhost:{port}")
}

fn toolset(url: &str, tls: Option<Tls>) -> Toolset {
    Toolset { tls, connect_timeout_ms: 5000, ..Toolset::at(url) }
}

fn trusting(ca_file: PathBuf) -> Tls {
    Tls { ca_file, client_cert: None, client_key: None }
}

#[tokio::test]
async fn a_server_is_trusted_by_the_file_that_its_entry_names_and_by_no_other() {
    let demo = Demo::start(Shutdown::new()).await.expect("a free port");
    let (ours, theirs) = (Authority::new(), Authority::new());
    let dir = tempfile::tempdir().expect("a directory");
    let url = behind_tls(&demo, &ours, None).await;
    let good = upstream(toolset(&url, Some(trusting(ours.file(dir.path())))));
    let reply = call(&good, "echo", json!({"message": "hello"})).await.expect("a reply");
    assert_eq!(text(&reply.result), "hello");
    for tls in [None, Some(trusting(theirs.file(dir.path())))] {
        let bad = upstream(toolset(&url, tls));
        let refused = bad.ping().await.expect_err("not trusted").message;
        assert!(refused.contains("certificate"), "{refused}");
    }
    for (content, says) in [("", "CERTIFICATE"), ("-----BEGIN CERTIFICATE-----\n!\n", "tls:")] {
        let bad = upstream(toolset(&url, Some(trusting(write(dir.path(), content)))));
        let refused = bad.ping().await.expect_err("no certificates").message;
        assert!(refused.contains(says), "{refused}");
    }
}

#[tokio::test]
async fn a_server_that_wants_a_certificate_gets_ours() {
    let demo = Demo::start(Shutdown::new()).await.expect("a free port");
    let (server, clients) = (Authority::new(), Authority::new());
    let dir = tempfile::tempdir().expect("a directory");
    let url = behind_tls(&demo, &server, Some(&clients)).await;
    let ca_file = server.file(dir.path());
    let without = upstream(toolset(&url, Some(trusting(ca_file.clone()))));
    without.ping().await.expect_err("it wants one");
    let (certificate, key) = clients.sign();
    let tls = Tls {
        ca_file,
        client_cert: Some(write(dir.path(), &certificate.pem())),
        client_key: Some(write(dir.path(), &key.serialize_pem())),
    };
    let with = upstream(toolset(&url, Some(tls)));
    let reply = call(&with, "echo", json!({"message": "hello"})).await.expect("a reply");
    assert_eq!(text(&reply.result), "hello");
}
