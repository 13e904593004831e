//! The real `cogo up`, and what the tests ask of it themselves.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use cogo::clock::utc_now;
use cogo::identity::{Claims, Keys};
use serde_json::{Value, json};

use crate::support::{Cogo, Running, temp_dir, until};

/// The secret that signs tokens; the hub and `cogo token` read it from their environment.
const SECRET: &str = "the-secret-of-the-client-matrix-0123456789";

/// A hub with a database of its own.
#[derive(Debug)]
pub(crate) struct Hub {
    pub(crate) url: String,
    cogo: Cogo,
    service: String,
    running: Option<Running>,
    _dir: tempfile::TempDir,
}

impl Hub {
    /// Starts everything, and waits until it is ready.
    pub(crate) fn start() -> Self {
        let dir = temp_dir();
        let cogo = Cogo::new()
            .with("COGO_DATA_DIR", dir.path().join("data").display().to_string())
            .with("COGO_JWT_SECRET", SECRET);
        let mut hub = Self {
            url: "http://127.0.0.1:0".to_owned(),
            service: String::new(),
            running: None,
            cogo,
            _dir: dir,
        };
        hub.start_again();
        hub.service = hub.mint(&["--role", "service_role"]);
        hub
    }

    /// Starts it where it was before.
    pub(crate) fn start_again(&mut self) {
        let address = self.url.strip_prefix("http://").expect("an http:// address");
        let running = self.cogo.start(&["up", "--listen", address]);
        let failed = || running.stderr.text().contains("panicked at");
        let ready = || running.stderr.text().contains("Ctrl-C stops it.");
        assert!(until(|| ready() || failed()) && !failed(), "{}", running.stderr.text());
        let said = running.stderr.text();
        let url = said.split_whitespace().find(|word| word.starts_with("http://"));
        self.url = url.expect("a URL").trim_end_matches('/').to_owned();
        self.running = Some(running);
    }

    /// Ends it as Ctrl-C does.
    pub(crate) fn stop(&mut self) {
        self.running.take().expect("it runs").stop();
    }

    /// Ends it as a crash does.
    pub(crate) fn kill(&mut self) {
        let mut running = self.running.take().expect("it runs");
        running.signal("KILL");
        running.end();
    }

    /// A token, made by `cogo token mint`.
    pub(crate) fn mint(&self, args: &[&str]) -> String {
        self.cogo.ok(&[&["token", "mint"], args].concat()).line().to_owned()
    }

    /// The key of a worker of `tenant` that claims and enqueues `topics`.
    pub(crate) fn worker_key(&self, tenant: &str, worker: &str, topics: &str) -> String {
        self.mint(&["--tenant", tenant, "--worker", worker, "--topic", topics, "--send", topics])
    }

    /// A token for `tenant` and all its topics that ends `seconds` from now, or has ended.
    pub(crate) fn token_for(&self, tenant: &str, seconds: i64) -> String {
        let keys = Keys::new(&[SECRET]).expect("a secret");
        let now = utc_now().timestamp();
        let claims = json!({
            "role": "authenticated", "iss": "cogo", "sub": "test", "tenant": tenant,
            "topics": ["*"], "send": ["*"], "iat": now - 3600, "exp": now + seconds,
        });
        let claims: Claims = serde_json::from_value(claims).expect("claims");
        keys.mint(&claims)
    }

    /// A token that somebody made who does not have the secret.
    pub(crate) fn forged(&self) -> String {
        let keys = Keys::new(&["not-the-secret-of-the-client-matrix-4567"]).expect("a secret");
        let claims = json!({"role": "service_role", "exp": utc_now().timestamp() + 3600});
        keys.mint(&serde_json::from_value(claims).expect("claims"))
    }

    /// Enqueues one message with the rights of the service; its id.
    pub(crate) fn enqueue(&self, tenant: &str, topic: &str, payload: Value) -> String {
        self.enqueue_all(tenant, topic, &[payload]).remove(0)
    }

    /// Enqueues messages with the rights of the service; their ids.
    pub(crate) fn enqueue_all(&self, tenant: &str, topic: &str, payloads: &[Value]) -> Vec<String> {
        let (role, service) = topic.split_once('/').expect("role/service");
        let message = |payload| json!({"tenant": tenant, "role": role, "service": service, "intent": "echo", "payload": payload});
        let messages: Vec<_> = payloads.iter().map(message).collect();
        let rows = self.rpc("bus_enqueue", json!({"messages": messages}));
        let rows = rows.as_array().expect("rows").iter();
        rows.map(|row| row["id"].as_str().expect("an id").to_owned()).collect()
    }

    /// Calls a function with the rights of the service.
    pub(crate) fn rpc(&self, function: &str, args: Value) -> Value {
        let path = format!("/rest/v1/rpc/{function}");
        self.call("POST", &path, &args.to_string())
    }

    /// Reads with the rights of the service.
    pub(crate) fn get(&self, path: &str) -> Value {
        self.call("GET", path, "")
    }

    fn call(&self, method: &str, path: &str, body: &str) -> Value {
        let host = self.url.strip_prefix("http://").expect("an http:// address");
        let mut stream = TcpStream::connect(host).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\napikey: {}\r\ncontent-type: \
             application/json\r\ncontent-length: {}\r\n\r\n{body}",
            self.service,
            body.len()
        );
        stream.write_all(request.as_bytes()).expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        assert!(head.starts_with("HTTP/1.1 2"), "{method} {path}: {answer}");
        serde_json::from_str(body).unwrap_or(Value::Null)
    }

    /// The status of a message.
    pub(crate) fn status_of(&self, id: &str) -> Value {
        self.get(&format!("/rest/v1/agent_messages?id=eq.{id}&select=status"))[0]["status"].clone()
    }

    /// Waits until a message has this status.
    #[track_caller]
    pub(crate) fn wait_until(&self, id: &str, status: &str) {
        assert!(until(|| self.status_of(id) == status), "{id} is {}", self.status_of(id));
    }
}
