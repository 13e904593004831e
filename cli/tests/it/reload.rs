use cogo::testing::TestDb;
use serde_json::json;

use crate::support::{Cogo, http, temp_dir, write};

fn policy(max_attempts: u32) -> String {
    json!({"policies": {"default": {"max_attempts": max_attempts}}}).to_string()
}

#[tokio::test]
async fn a_hub_reads_its_policies_again_when_told_to_and_when_they_change() {
    const TOKEN: &str = "a-token-of-the-environment";
    let db = TestDb::new().await;
    let (dir, data) = (temp_dir(), temp_dir());
    write(dir.path(), "mcp.json", "{\"toolsets\": {\"sick\": {\"url\": \"ws://127.0.0.1:9\"}}}");
    write(dir.path(), "retry_policy.json", &policy(3));
    let cogo = Cogo::on(&db)
        .with("COGO_CONFIG_DIR", dir.path().display().to_string())
        .with("COGO_DATA_DIR", data.path().display().to_string())
        .with("COGO_ADMIN_TOKEN", TOKEN);
    let hub = cogo.start(&["hub", "--listen", "127.0.0.1:0"]);
    let said = hub.stderr.wait("Ctrl-C stops it.");
    let url = said.split_whitespace().find(|word| word.starts_with("http://")).expect("a URL");
    let attempts = || {
        let call = json!({"toolset": "sick", "tool": "x"}).to_string();
        let (status, answer) = http("POST", &format!("{url}/api/mcp/enqueue"), Some(TOKEN), &call);
        assert_eq!(status, 202, "{answer}");
        let id = answer["id"].as_str().expect("an id");
        let (_, found) = http("GET", &format!("{url}/api/messages/{id}"), None, "");
        found["message"]["max_attempts"].clone()
    };
    assert_eq!(attempts(), 3);

    write(
        dir.path(),
        "retry_policy.json",
        "{\"policies\": {\n  \"default\": {\"max_attempts\": 0}\n}}",
    );
    hub.signal("HUP");
    let said = hub.stderr.wait("Refused retry_policy.json");
    let told = "retry_policy.json:2: policies.default.max_attempts: must be from 1 to 1000";
    assert!(said.contains("ERROR") && said.contains(told), "{said}");
    assert_eq!(attempts(), 3, "the old policy stays");

    write(dir.path(), "retry_policy.json", &policy(7));
    hub.signal("HUP");
    hub.stderr.wait("Reloaded retry_policy.json: policies.default.max_attempts: 3 -> 7");
    assert_eq!(attempts(), 7);

    write(dir.path(), "retry_policy.json", &policy(8));
    hub.stderr.wait("policies.default.max_attempts: 7 -> 8");
    assert_eq!(attempts(), 8, "without a signal");

    let (_, metrics) = http("GET", &format!("{url}/metrics"), None, "");
    let metrics = metrics.as_str().unwrap_or_default();
    for (outcome, times) in [("applied", 2), ("refused", 1)] {
        let line = format!(
            "cogo_config_reloads_total{{file=\"retry_policy.json\",outcome=\"{outcome}\"}} {times}"
        );
        assert!(metrics.contains(&line), "{line} is not in {metrics}");
    }
    hub.stop();
}

#[tokio::test]
async fn a_worker_reads_its_policies_again_and_goes_on() {
    let db = TestDb::new().await;
    let dir = temp_dir();
    let cogo = Cogo::on(&db).with("COGO_CONFIG_DIR", dir.path().display().to_string());
    let worker = cogo.start(&["worker", "echo"]);
    worker.stderr.wait("is ready");
    let breaker = json!({"policies": {"mcp.call": {"open_ms": 5}}}).to_string();
    write(dir.path(), "circuit_breaker.json", &breaker);
    worker.signal("HUP");
    worker.stderr.wait("Reloaded circuit_breaker.json: policies.mcp.call: unset -> ");
    worker.stderr.wait("Read retry_policy.json again: it says the same");
    worker.stop();
}
