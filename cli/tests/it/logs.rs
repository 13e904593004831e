//! Logs in JSON, of a real process.

use cogo::testing::TestDb;
use serde_json::{Value, json};

use crate::support::{Cogo, Running, http, until};
use crate::up::Home;

/// All that was said, each line read as JSON.
#[track_caller]
fn lines(running: &Running) -> Vec<Value> {
    let text = running.stderr.text();
    let read = |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line:?}"));
    text.lines().map(read).collect()
}

#[tokio::test]
async fn every_line_is_json_with_its_trace_and_without_secrets() {
    let db = TestDb::new().await;
    let secrets = ["an-admin-token-of-32-letters-0123", "a-jwt-secret-of-32-letters-012345"];
    let cogo = Cogo::on(&db)
        .with("COGO_ADMIN_TOKEN", secrets[0])
        .with("COGO_JWT_SECRET", secrets[1])
        .with("COGO_LOG_FORMAT", "json")
        .with("RUST_LOG", "debug");
    let home = Home::new(cogo.clone());
    let running = home.cogo.start(&["up", "--listen", "127.0.0.1:0"]);
    running.stderr.wait("Ctrl-C stops it.");
    let greeting = lines(&running)
        .into_iter()
        .find(|line| line["message"].as_str().is_some_and(|text| text.contains("COGO is up.")));
    let greeting = greeting.expect("a greeting");
    assert_eq!((&greeting["level"], &greeting["target"]), (&json!("INFO"), &json!("cogo")));
    let message = greeting["message"].as_str().expect("text");
    let url = message.split_whitespace().find(|word| word.starts_with("http://")).expect("a URL");

    // A call that fails for good is told of by the worker, within its attempt.
    let body = json!({"toolset": "demo", "tool": "fail", "params": {"message": "no"}});
    let (status, accepted) =
        http("POST", &format!("{url}/api/mcp/enqueue"), Some(secrets[0]), &body.to_string());
    assert_eq!(status, 202, "{accepted}");
    let trace = &accepted["trace_id"];
    let of_it = || lines(&running).into_iter().filter(|line| line["trace_id"] == *trace);
    assert!(until(|| of_it().any(|line| line["message.id"] == accepted["id"])), "{running:?}");
    running.stop_with(|lines| {
        for line in lines.lines() {
            let line: Value =
                serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line:?}"));
            for name in ["timestamp", "level", "target", "message"] {
                assert!(line[name].is_string(), "{name}: {line}");
            }
        }
        for secret in secrets {
            assert!(!lines.contains(secret), "a secret was logged");
        }
        let password = db.url();
        let password = password.split_once("://").and_then(|(_, rest)| rest.split_once('@'));
        let password = password.and_then(|(login, _)| login.split_once(':')).map(|(_, word)| word);
        if let Some(password) = password.filter(|word| word.len() > 3) {
            assert!(!lines.contains(password), "the password was logged");
        }
    });
}

#[tokio::test]
async fn what_ends_a_command_is_json_too() {
    let cogo = Cogo::new().with("COGO_LOG_FORMAT", "json");
    let done = cogo.run(&["hub", "--database-url", "mysql://nobody@127.0.0.1/x"]);
    assert_eq!(done.code, Some(2), "{done:?}");
    let line: Value = serde_json::from_str(done.stderr.trim()).expect("a line of JSON");
    assert_eq!(line["level"], "ERROR");
    assert!(line["message"].as_str().is_some_and(|text| text.contains("--database-url")), "{line}");
}
