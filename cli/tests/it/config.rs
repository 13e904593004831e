use std::path::{Path, PathBuf};

use cogo_worker_mcp_gateway::config::Config;
use serde_json::Value;

use crate::support::{Cogo, temp_dir, write};

fn configs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs")
}

#[test]
fn the_schema_of_mcp_json_is_that_of_its_type() {
    let path = configs().join("schema/mcp.schema.json");
    let wanted = format!("{:#}\n", schemars::schema_for!(Config).to_value());
    if std::env::var_os("COGO_REGENERATE").is_some() {
        std::fs::write(&path, &wanted).expect("a schema can be written");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default().replace("\r\n", "\n");
    assert_eq!(found, wanted, "{} is stale: run COGO_REGENERATE=1 cargo test", path.display());
}

#[test]
fn the_files_of_the_repository_are_good_and_all_are_read() {
    let configs = configs().display().to_string();
    let checked = Cogo::new().json(&["config", "check", "--config-dir", &configs]);
    assert_eq!(checked["ok"], true, "{checked}");
    let mut states = checked["files"].as_array().expect("files").iter().map(|file| &file["state"]);
    assert!(states.all(|state| state == "good"), "{checked}");
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let dir = temp_dir();
    write(dir.path(), "worker.json", "{\n  \"concurency\": 3\n}");
    write(dir.path(), "retry_policy.json", "{\"policies\": {\"a..b\": {}}}");
    let breaker = "{\"policies\": {\"default\": {\"min_requests\": 0}}}";
    write(dir.path(), "circuit_breaker.json", breaker);
    write(dir.path(), "mcp.json", "{\"toolsets\": {\"x\": {\"url\": \"ftp://x\"}}}");
    write(dir.path(), "workers.json", "{}");
    write(dir.path(), "limits.json", "{\"tenants\": {\"*\": {\"max_queued\": 0}}}");
    let path = dir.path().display().to_string();
    let done = Cogo::new().run(&["config", "check", "--config-dir", &path]);
    assert_eq!(done.code, Some(2), "{done:?}");
    for words in [
        "worker.json:2:14: concurency: unknown field",
        "retry_policy.json:1: policies.a..b: ",
        "circuit_breaker.json:1: policies.default.min_requests: must be from 1 to 1000",
        "mcp.json:1: toolsets.x.url: ",
        "limits.json:1: tenants.*.max_queued: must be from 1",
        "workers.json: is no configuration file that anything reads",
    ] {
        assert!(done.stderr.contains(words), "{words:?} is missing: {done:?}");
    }
}

#[test]
fn a_bad_variable_is_told_by_its_name() {
    let cogo = Cogo::new().with("COGO_WORKER_CONCURRENCY", "none");
    let done = cogo.run(&["config", "check", "--json"]);
    assert_eq!(done.code, Some(2), "{done:?}");
    let checked: Value = serde_json::from_str(&done.stdout).expect("JSON");
    assert!(checked.to_string().contains("COGO_WORKER_CONCURRENCY: "), "{checked}");
}

#[test]
fn the_policy_of_a_key_is_shown_as_it_works_out() {
    let configs = configs().display().to_string();
    let args = ["config", "check", "--key", "mcp.call.browser.click", "--config-dir", &configs];
    let checked = Cogo::new().json(&args);
    assert_eq!(checked["policy"]["max_attempts"], 4, "{checked}");
    assert_eq!(checked["policy"]["timeout_ms"], 120_000, "{checked}");
    assert_eq!(checked["circuit_breaker"]["min_requests"], 5, "{checked}");
    assert_eq!(checked["circuit_breaker"]["slow_call_ms"], 100_000, "{checked}");
    let failures = checked["failures"].as_array().expect("failures");
    let then = |class: &str| {
        let failure = failures.iter().find(|failure| failure["class"] == class);
        failure.expect("every class is there")["then"].clone()
    };
    assert_eq!(then("connect"), "retry");
    assert_eq!(then("tool_error"), "dead_letter");
    assert_eq!(then("ambiguous"), "person");
    let shown = Cogo::new().ok(&args).stdout;
    assert!(
        shown.contains("needs a person") && shown.contains("Find out at the target"),
        "{shown}"
    );
}
