use std::time::Duration;

use cogo::bus::{Bus, ClaimRequest};
use cogo::testing::TestDb;
use serde_json::json;

use crate::support::Cogo;

/// Puts `count` messages into the dead-letter queue, by failures of `class`.
async fn kill(db: &TestDb, cogo: &Cogo, count: usize, class: &str) -> Vec<String> {
    for _ in 0..count {
        cogo.ok(&["enqueue", "echo/default", "echo"]);
    }
    let bus = Bus::new(db.pool().clone());
    let request = ClaimRequest {
        worker: "killer".to_owned(),
        tenant: "default".to_owned(),
        topics: vec!["echo/default".to_owned()],
        max: count,
        lease: Duration::from_secs(60),
    };
    let mut ids = Vec::new();
    for claim in bus.claim(&request).await.expect("claims") {
        ids.push(claim.message().id.to_string());
        let error = json!({"class": class, "message": "killed for a test"});
        claim.fail(error, None).await.expect("a dead letter");
    }
    assert_eq!(ids.len(), count);
    ids
}

#[tokio::test]
async fn dead_letters_are_listed_and_filtered() {
    let db = TestDb::new().await;
    let cogo = Cogo::on(&db);
    assert_eq!(cogo.ok(&["dlq", "list"]).stdout, "", "that there is none is no data");
    let ids = kill(&db, &cogo, 2, "timeout").await;
    let listed = cogo.json(&["dlq", "list", "--class", "timeout", "--role", "echo"]);
    assert_eq!(listed.as_array().map(Vec::len), Some(2), "{listed}");
    assert_eq!(cogo.json(&["dlq", "list", "--class", "connect"]), json!([]));
    let shown = cogo.ok(&["dlq", "list"]).stdout;
    assert!(shown.contains(&ids[0]) && shown.contains("timeout: killed for a test"), "{shown}");
}

#[tokio::test]
async fn requeued_messages_wait_again() {
    let db = TestDb::new().await;
    let cogo = Cogo::on(&db);
    let ids = kill(&db, &cogo, 3, "timeout").await;
    cogo.ok(&["dlq", "requeue", &ids[0], "--reason", "it is back"]);
    assert_eq!(cogo.json(&["get", &ids[0]])["message"]["status"], "queued");
    let all = cogo.json(&["dlq", "requeue", "--all", "--service", "default"]);
    assert_eq!(all.as_array().map(Vec::len), Some(2), "{all}");
    assert_eq!(cogo.json(&["dlq", "list"]), json!([]));
}

#[tokio::test]
async fn dropping_needs_yes_and_is_for_good() {
    let db = TestDb::new().await;
    let cogo = Cogo::on(&db);
    let ids = kill(&db, &cogo, 2, "timeout").await;
    cogo.run(&["dlq", "drop", "--all"]).refused(2, &["--yes", "for good"]);
    cogo.run(&["dlq", "drop", &ids[0]]).refused(2, &["--yes"]);
    assert_eq!(cogo.json(&["dlq", "list"]).as_array().map(Vec::len), Some(2));
    cogo.ok(&["dlq", "drop", &ids[0], "--yes"]);
    cogo.run(&["get", &ids[0]]).refused(3, &["not found"]);
    cogo.ok(&["dlq", "drop", "--all", "--yes"]);
    assert_eq!(cogo.json(&["dlq", "list"]), json!([]));
    let log = cogo.ok(&["tail", "--message", &ids[0], "--json"]).stdout;
    assert!(log.contains("echo_dropped"), "{log}");
}

#[tokio::test]
async fn what_is_not_dead_is_left_alone() {
    let db = TestDb::new().await;
    let cogo = Cogo::on(&db);
    let id = cogo.ok(&["enqueue", "echo/default", "echo"]).line().to_owned();
    let missing = "01900000-0000-7000-8000-000000000000";
    cogo.run(&["dlq", "requeue", missing]).refused(3, &["not found"]);
    cogo.run(&["dlq", "drop", &id, "--yes"]).refused(5, &["not in the dead-letter queue"]);
    cogo.run(&["dlq", "requeue"]).refused(2, &[]);
    cogo.run(&["dlq", "requeue", &id, "--role", "echo"]).refused(2, &["--all"]);
    assert_eq!(cogo.json(&["get", &id])["message"]["status"], "queued");
}
