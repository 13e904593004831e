use std::time::Duration;

use cogo::bus::{Bus, ClaimRequest};
use cogo::testing::TestDb;
use serde_json::{Value, json};

use crate::support::{Cogo, until};
use crate::up::Home;

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
    assert_eq!(
        (&listed[0]["reason"], &listed[0]["class"]),
        (&json!("not_retried"), &json!("timeout"))
    );
    let trace = listed[0]["trace_id"].as_str().expect("a trace");
    for (flags, wanted) in [
        (&["--tenant", "default", "--intent", "echo", "--ended-by", "not_retried"][..], 2),
        (&["--since", "1h", "--service", "default"], 2),
        (&["--trace", trace], 1),
        (&["--tenant", "other"], 0),
        (&["--intent", "mcp.call"], 0),
        (&["--ended-by", "deadline_exceeded"], 0),
        (&["--until", "1h"], 0),
        (&["--since", "2999-01-01T00:00:00Z"], 0),
    ] {
        let listed = cogo.json(&[&["dlq", "list"], flags].concat());
        assert_eq!(listed.as_array().map(Vec::len), Some(wanted), "{flags:?}: {listed}");
    }
    cogo.run(&["dlq", "list", "--role", "a b"]).refused(2, &["role: "]);
    cogo.run(&["dlq", "list", "--since", "yesterday"]).refused(2, &["--since"]);
    cogo.run(&["dlq", "list", "--since", "1h", "--until", "2h"]).refused(2, &["until: "]);
}

#[tokio::test]
async fn one_is_shown_with_its_attempts_and_requeued_with_other_params() {
    let db = TestDb::new().await;
    let cogo = Cogo::on(&db);
    let id = kill(&db, &cogo, 1, "timeout").await.remove(0);
    cogo.run(&["dlq", "requeue", &id, "--params", "[1]"]).refused(2, &["--params: ", "object"]);
    cogo.run(&["dlq", "requeue", &id, "--params", "{"]).refused(2, &["--params: is no JSON"]);
    cogo.run(&["dlq", "requeue", &id, "--max-attempts", "0"]).refused(2, &["max_attempts: "]);
    cogo.run(&["dlq", "requeue", &id, "--params", "{}", "--payload", "1"])
        .refused(2, &["--payload"]);
    cogo.run(&["dlq", "requeue", &id, "--max", "3"]).refused(2, &["--all"]);
    cogo.ok(&["dlq", "requeue", &id, "--params", "{\"a\": 1}", "--max-attempts", "7"]);
    let message = cogo.json(&["get", &id])["message"].clone();
    assert_eq!(
        (&message["payload"]["params"], &message["max_attempts"]),
        (&json!({"a": 1}), &json!(7))
    );
    cogo.run(&["dlq", "show", &id]).refused(3, &["is queued"]);
    let worker = cogo.start(&["worker", "echo"]);
    assert_eq!(cogo.json(&["get", &id, "--wait"])["message"]["result"]["params"]["a"], 1);
    worker.stop();

    let id = kill(&db, &cogo, 1, "connect").await.remove(0);
    cogo.ok(&[
        "dlq",
        "requeue",
        "--all",
        "--class",
        "connect",
        "--payload",
        "[]",
        "--reason",
        "try",
    ]);
    let bus = Bus::new(db.pool().clone());
    let request = ClaimRequest {
        worker: "killer".to_owned(),
        tenant: "default".to_owned(),
        topics: vec!["echo/default".to_owned()],
        max: 1,
        lease: Duration::from_secs(60),
    };
    let claim = bus.claim(&request).await.expect("claims").pop().expect("a message");
    let why = json!({"class": "connect", "message": "killed again"});
    claim.fail(why, None).await.expect("a dead letter");
    let shown = cogo.ok(&["dlq", "show", &id]).stdout;
    for words in [
        &*id,
        "attempt 1",
        "killer",
        "connect: killed for a test",
        "— requeued —",
        "try · after 1 attempt · with another payload",
        "connect: killed again",
        "not_retried",
    ] {
        assert!(shown.contains(words), "{words:?} is missing:\n{shown}");
    }
    let shown = cogo.json(&["dlq", "show", &id]);
    let what = shown["history"].as_array().expect("steps").iter().map(|step| &step["what"]);
    let wanted = ["attempt", "dead_lettered", "requeued", "attempt", "dead_lettered"];
    assert!(what.eq(wanted.iter()), "{shown}");
    cogo.run(&["dlq", "requeue", &id, "--params", "{}"]);
    let answer = cogo.run(&["dlq", "requeue", &id, "--params", "{}", "--json"]);
    assert_eq!(answer.code, Some(5), "{answer:?}");
    assert!(answer.stderr.contains("no place for params"), "{answer:?}");
    assert!(answer.stdout.contains("no_place_for_params"), "{answer:?}");
}

#[tokio::test]
async fn a_call_that_kills_its_worker_process_each_time_ends_as_a_dead_letter() {
    let db = TestDb::new().await;
    let home = Home::new(Cogo::on(&db));
    let call = json!({"toolset": "demo", "tool": "sleep", "params": {"ms": 60_000}}).to_string();
    let args = ["enqueue", "mcp-gateway/demo", "mcp.call", &call, "--max-attempts", "2"];
    let id = home.cogo.ok(&args).line().to_owned();
    for attempt in 1..=2 {
        let mut up = home.up();
        // It is claimed from the start of the second round: by the dead one, until its lease runs out.
        let message = || home.cogo.json(&["get", &id])["message"].clone();
        let held = |found: &Value| found["status"] == "claimed" && found["attempts"] == attempt;
        assert!(until(|| held(&message())), "{}", message());
        up.running.signal("KILL");
        up.running.end();
    }
    // Any other process sees to what the dead ones left; here a worker of another role.
    let worker = home.cogo.start(&["worker", "echo"]);
    let dead = || home.cogo.json(&["dlq", "list", "--class", "lease_expired"]);
    assert!(until(|| dead()[0]["id"] == json!(id)), "{}", dead());
    worker.stop();
    let shown = home.cogo.json(&["dlq", "show", &id]);
    assert_eq!(
        (&shown["class"], &shown["reason"]),
        (&json!("lease_expired"), &json!("attempts_exhausted"))
    );
    let steps = shown["history"].as_array().expect("steps");
    let workers: Vec<_> = steps.iter().filter_map(|step| step["worker_id"].as_str()).collect();
    assert_eq!(workers.len(), 2, "{shown}");
    assert_ne!(workers[0], workers[1], "{shown}");
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
    // The log ends below the oldest transaction of the whole server, so other tests hold it up.
    let log = || cogo.ok(&["tail", "--message", &ids[0], "--json"]).stdout;
    assert!(until(|| log().contains("echo_dropped")), "{}", log());
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
