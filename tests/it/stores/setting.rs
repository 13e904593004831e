//! A store, and the disk below it.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use cogo::artifact::options::S3;
use cogo::artifact::s3::Keys;
use cogo::artifact::{Limits, Name, Store};
use cogo::clock::{Stopwatch, utc_now};
use cogo::net;

/// The key of the server's only account.
pub(crate) const KEY: (&str, &str) = ("a-key", "a-secret-for-tests-only");
/// The server's bucket.
pub(crate) const BUCKET: &str = "artifacts";
/// How long the server may take to start.
const STARTS_WITHIN: Duration = Duration::from_secs(30);

/// A store, and the disk below it.
pub(crate) struct Setting {
    pub(crate) store: Store,
    pub(crate) limits: Limits,
    dir: tempfile::TempDir,
    server: Option<Server>,
}

/// A server of S3 in a process of its own.
pub(crate) struct Server {
    child: Child,
    pub(crate) port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _gone_already = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Setting {
    pub(crate) async fn folder() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let limits = Limits::default();
        Self { store: Store::folder(dir.path(), limits), limits, dir, server: None }
    }

    pub(crate) async fn bucket() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let server = Server::start(dir.path()).await;
        let limits = Limits::default();
        let store = bucket(&s3(server.port), KEY, limits);
        store.check().await.expect("a bucket that can be asked");
        Self { store, limits, dir, server: Some(server) }
    }

    /// The same with other limits, as another process has it.
    pub(crate) fn again(&self, limits: Limits) -> Store {
        match &self.server {
            None => Store::folder(self.dir.path(), limits),
            Some(server) => bucket(&s3(server.port), KEY, limits),
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.server.as_ref().expect("a server").port
    }

    /// Where the bytes are on disk; both backends and this server keep them as they are.
    pub(crate) fn file(&self, name: &Name) -> PathBuf {
        match &self.server {
            None => self.dir.path().join("blobs").join(name.path()),
            Some(_) => self.dir.path().join(BUCKET).join("cogo/test").join(name.path()),
        }
    }

    /// Makes an artifact as old as this.
    pub(crate) fn age(&self, name: &Name, by: Duration) {
        let file = File::options().append(true).open(self.file(name)).expect("a file");
        file.set_modified((utc_now() - by).into()).expect("set");
    }
}

pub(crate) fn s3(port: u16) -> S3 {
    S3 {
        endpoint: format!("http://127.0.0.1:{port}"),
        bucket: BUCKET.to_owned(),
        prefix: "cogo/test".to_owned(),
        ..S3::default()
    }
}

pub(crate) fn bucket(options: &S3, (id, secret): (&str, &str), limits: Limits) -> Store {
    let keys = Keys::new(Some(id.into()), Some(secret.into())).expect("keys");
    let net = net::Options { proxy: net::Proxy::None, ..net::Options::default() };
    Store::bucket(options, &keys, limits, &net).expect("a bucket")
}

impl Server {
    async fn start(root: &Path) -> Self {
        let program = tokio::task::spawn_blocking(install).await.expect("the installer runs");
        std::fs::create_dir_all(root.join(BUCKET)).expect("a bucket");
        let watch = Stopwatch::start();
        loop {
            // Somebody else may take the port between the two.
            let port = free_port();
            let mut command = Command::new(&program);
            command.args(["--host", "127.0.0.1", "--port", &port.to_string()]);
            command.args(["--access-key", KEY.0, "--secret-key", KEY.1]).arg(root);
            let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let child = quiet.spawn().expect("the server starts");
            let mut server = Self { child, port };
            while server.child.try_wait().expect("a process").is_none() {
                if tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                    return server;
                }
                assert!(watch.elapsed() < STARTS_WITHIN, "the server does not listen");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            assert!(watch.elapsed() < STARTS_WITHIN, "the server ends at once");
        }
    }
}

pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

/// What cannot be installed fails the test: skipping would hide that nothing was tested.
fn install() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    // Other test processes may be at it.
    let lock = File::create(target.join("s3.lock")).expect("target/ is writable");
    lock.lock().expect("the file system has locks");
    let mut script = Command::new(root.join("tests/artifacts/install.sh"));
    let script = script.env("CARGO_TARGET_DIR", &target).stdin(Stdio::null());
    let output = script.output().expect("the script starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "tests/artifacts/install.sh failed; it needs cargo:\n{said}");
    target.join("s3/s3s-fs/bin/s3s-fs")
}
