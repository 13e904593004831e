//! The inspector's command line.

use serde_json::{Value, json};

use crate::client::listed;
use crate::fixture::Fixture;
use crate::hub::{Hub, busy};
use crate::install::script;
use crate::support::temp_dir;

#[test]
fn the_inspector_lists_and_calls_tools() {
    let _busy = busy();
    let hub = Hub::start(&json!({}), &json!({}));
    let fixture = Fixture::start();
    let _worker = hub.join_with_fixture("machine", &fixture);
    listed(&hub, "fixture__greet");
    let inspector = Inspector { hub: &hub, key: hub.client_key(), home: temp_dir() };

    let listed = inspector.run(&["--method", "tools/list"]);
    let tools = listed["tools"].as_array().expect("a list");
    let greet = tools.iter().find(|tool| tool["name"] == "fixture__greet");
    assert_eq!(greet.expect("fixture__greet")["inputSchema"]["required"], json!(["name"]));
    let call =
        ["--method", "tools/call", "--tool-name", "fixture__greet", "--tool-arg", "name=Ada"];
    let called = inspector.run(&call);
    assert_eq!(called["content"][0]["text"], "Hello, Ada!", "{called}");
    let call =
        ["--method", "tools/call", "--tool-name", "fixture__add", "--tool-arg", "a=1", "b=2"];
    let called = inspector.run(&call);
    assert_eq!(called["structuredContent"]["sum"], 3.0, "{called}");
}

struct Inspector<'a> {
    hub: &'a Hub,
    key: String,
    home: tempfile::TempDir,
}

impl Inspector<'_> {
    /// What it prints, which is a result of MCP.
    #[track_caller]
    fn run(&self, args: &[&str]) -> Value {
        let mut command =
            script("inspector", "@modelcontextprotocol/inspector/clients/launcher/build/index.js");
        let (url, header) =
            (format!("{}/mcp", self.hub.url), format!("Authorization: Bearer {}", self.key));
        command.args(["--cli", &url, "--transport", "http", "--header", &header]).args(args);
        command.env("HOME", self.home.path()); // where it keeps what it has seen
        let output = command.output().expect("node runs");
        let said = String::from_utf8_lossy(&output.stdout);
        let parsed = serde_json::from_str(&said);
        parsed.unwrap_or_else(|error| {
            panic!(
                "{error}: {said}\n{}\n{}",
                String::from_utf8_lossy(&output.stderr),
                self.hub.log()
            )
        })
    }
}
