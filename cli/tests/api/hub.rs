//! The real `cogo up`, with something in it to be found.

use serde_json::{Value, json};

use crate::support::{Cogo, Running, http, http_with, temp_dir, until, write};

/// Reading needs the token as well, so that an answer without it shows; and whoever tries out wrong ones, as
/// schemathesis does, is heard all the same.
const HUB_JSON: &str =
    "{\"open_reads\": false, \"rate_limit\": {\"wrong_tokens_per_minute\": 1000000}}";

/// A hub with a database of its own.
pub(crate) struct Hub {
    pub(crate) url: String,
    pub(crate) token: String,
    _running: Running,
    _dir: tempfile::TempDir,
}

impl Hub {
    /// Starts everything, and waits until it is ready.
    pub(crate) fn start() -> Self {
        let dir = temp_dir();
        let configs = dir.path().join("configs");
        std::fs::create_dir(&configs).expect("a directory");
        write(&configs, "hub.json", HUB_JSON);
        let data = dir.path().join("data");
        let running = Cogo::new()
            .with("COGO_DATA_DIR", data.display().to_string())
            .with("COGO_CONFIG_DIR", configs.display().to_string())
            .start(&["up", "--listen", "127.0.0.1:0"]);
        let said = running.stderr.wait("Ctrl-C stops it.");
        let url = said.split_whitespace().find(|word| word.starts_with("http://"));
        let token = std::fs::read_to_string(data.join("admin-token")).expect("a token");
        let url = url.expect("a URL").to_owned();
        Self { url, token: token.trim().to_owned(), _running: running, _dir: dir }
    }

    /// The description that it serves.
    pub(crate) fn description(&self) -> Value {
        let (status, document) = http("GET", &format!("{}/api/openapi.json", self.url), None, "");
        assert_eq!(status, 200, "{document}");
        document
    }

    pub(crate) fn get(&self, path: &str) -> Value {
        let (status, found) = http("GET", &format!("{}{path}", self.url), Some(&self.token), "");
        assert_eq!(status, 200, "{path}: {found}");
        found
    }

    fn post(&self, path: &str, headers: &[(&str, &str)], body: &Value) -> (u16, Value) {
        let headers = [&[("x-admin-token", self.token.as_str())], headers].concat();
        http_with("POST", &format!("{}{path}", self.url), &headers, &body.to_string())
    }

    /// A call that went well, one that is dead, a breaker that is open, and what they left behind.
    pub(crate) fn seed(&self) {
        // The hub is ready before it has heard what its own worker offers.
        let tools = || self.get("/api/mcp/tools")["tools"].as_array().map_or(0, Vec::len);
        assert!(until(|| tools() == 4), "the demo toolset is not offered");
        let call =
            |tool: &str, body: Value| self.post(&format!("/api/mcp/demo/{tool}"), &[], &body);
        let (status, done) = call("echo", json!({"message": "hello"}));
        assert_eq!(status, 200, "{done}");
        let (status, failed) = call("fail", json!({"message": "it broke"}));
        assert_eq!((status, &failed["result"]["isError"]), (200, &json!(true)), "{failed}");
        let open = json!({"key": "mcp.call.demo.sleep.0", "reason": "for the test"});
        let (status, opened) = self.post("/api/circuits/open", &[], &open);
        assert_eq!((status, &opened["circuit"]["state"]), (200, &json!("open")), "{opened}");
        let later = [("prefer", "respond-async")];
        let (status, waits) = self.post("/api/mcp/demo/sleep", &later, &json!({"ms": 1}));
        assert_eq!(status, 202, "{waits}");

        let dead = || self.get("/api/dead-letters")["messages"][0]["id"].clone();
        assert!(until(|| dead() == failed["id"]), "{failed} is no dead letter");
        let artifacts = &self.get("/api/dead-letters")["messages"][0]["artifacts"];
        assert_eq!(artifacts.as_array().map(Vec::len), Some(1), "{artifacts}");
    }
}
