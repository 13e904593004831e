use cogo::testing::TestDb;

use crate::support::{Cogo, temp_dir, write};

#[tokio::test]
async fn a_message_is_enqueued_and_shown() {
    let db = TestDb::new().await;
    let cogo = Cogo::on(&db);
    let done = cogo.ok(&["enqueue", "echo/default", "echo", "{\"a\": 1}", "--priority", "-5"]);
    let id = done.line();
    let found = cogo.json(&["get", id]);
    assert_eq!(found["message"]["id"], id);
    assert_eq!(found["message"]["status"], "queued");
    assert_eq!(found["message"]["payload"]["a"], 1);
    assert_eq!(found["message"]["priority"], -5);
    assert_eq!(found["events"][0]["event_type"], "echo_scheduled");
    let shown = cogo.ok(&["get", id]).stdout;
    assert!(shown.contains(id) && shown.contains("queued"), "{shown}");
}

#[tokio::test]
async fn a_deadline_and_a_place_in_line_come_with_the_message() {
    let db = TestDb::new().await;
    let dir = temp_dir();
    write(dir.path(), "retry_policy.json", "{\"policies\": {\"echo\": {\"deadline_ms\": 60000}}}");
    let cogo = Cogo::on(&db).with("COGO_CONFIG_DIR", dir.path().display().to_string());
    let seconds = |message: &serde_json::Value| {
        let time = |field: &str| {
            let text = message[field].as_str().expect("a time");
            chrono::DateTime::parse_from_rfc3339(text).expect("a time")
        };
        (time("deadline_at") - time("created_at")).num_seconds()
    };
    for (args, wanted) in [
        (vec!["enqueue", "echo/default", "echo"], 60),
        (vec!["enqueue", "echo/default", "echo", "--deadline", "5m", "--ordering-key", "k"], 300),
        (vec!["mcp", "call", "demo", "echo", "--deadline", "2m", "--no-wait"], 120),
    ] {
        let id = cogo.ok(&args).line().to_owned();
        let found = cogo.json(&["get", &id]);
        assert_eq!(seconds(&found["message"]), wanted, "{args:?}: {found}");
        let shown = cogo.ok(&["get", &id]).stdout;
        assert!(shown.contains("deadline"), "{shown}");
        let key = if wanted == 300 { "k".into() } else { serde_json::Value::Null };
        assert_eq!(found["message"]["ordering_key"], key);
    }
    let refused = cogo.run(&["enqueue", "echo/default", "echo", "--deadline", "0s"]);
    refused.refused(2, &["deadline_ms: must be"]);
}

#[tokio::test]
async fn the_same_key_gives_the_same_message() {
    let db = TestDb::new().await;
    let cogo = Cogo::on(&db);
    let args = ["enqueue", "echo/default", "echo", "--idempotency-key", "k"];
    let (first, second) = (cogo.json(&args), cogo.json(&args));
    assert_eq!((&first["duplicate"], &second["duplicate"]), (&false.into(), &true.into()));
    assert_eq!(first["id"], second["id"]);
}

#[tokio::test]
async fn a_payload_comes_from_stdin_or_a_file() {
    let db = TestDb::new().await;
    let cogo = Cogo::on(&db);
    let done = cogo.run_with(&["enqueue", "echo/default", "echo", "-"], "[1, 2]");
    assert_eq!(done.code, Some(0), "{done:?}");
    assert_eq!(cogo.json(&["get", done.line()])["message"]["payload"][1], 2);

    let dir = temp_dir();
    write(dir.path(), "p.json", "{\"from\": \"file\"}");
    let file = format!("@{}", dir.path().join("p.json").display());
    let done = cogo.ok(&["enqueue", "echo/default", "echo", &file]);
    assert_eq!(cogo.json(&["get", done.line()])["message"]["payload"]["from"], "file");
}

#[tokio::test]
async fn the_policy_says_how_often_a_message_is_tried() {
    let db = TestDb::new().await;
    let dir = temp_dir();
    write(dir.path(), "retry_policy.json", "{\"policies\": {\"echo\": {\"max_attempts\": 9}}}");
    let cogo = Cogo::on(&db).with("COGO_CONFIG_DIR", dir.path().display().to_string());
    let done = cogo.ok(&["enqueue", "echo/default", "echo"]);
    assert_eq!(cogo.json(&["get", done.line()])["message"]["max_attempts"], 9);
}

#[tokio::test]
async fn waiting_in_vain_says_so_by_its_exit_code() {
    let db = TestDb::new().await;
    let cogo = Cogo::on(&db);
    let done = cogo.ok(&["enqueue", "echo/default", "echo", "--delay", "1h"]);
    let done = cogo.run(&["get", done.line(), "--wait", "50ms", "--json"]);
    assert_eq!(done.code, Some(6), "{done:?}");
    assert!(done.stdout.contains("\"delayed\""), "{done:?}");
}

#[tokio::test]
async fn status_counts_what_waits() {
    let db = TestDb::new().await;
    let cogo = Cogo::on(&db);
    for _ in 0..3 {
        cogo.ok(&["enqueue", "echo/default", "echo"]);
    }
    let status = cogo.json(&["status"]);
    assert_eq!(status["queue"][0]["messages"], 3, "{status}");
    assert_eq!(status["schema_version"], status["newest_migration"]);
    assert_eq!(status["hub"], serde_json::Value::Null);
    let shown = cogo.ok(&["status"]).stdout;
    assert!(shown.contains("echo/default") && shown.contains("queued"), "{shown}");
}
