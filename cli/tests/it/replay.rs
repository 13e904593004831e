use std::time::Duration;

use cogo::bus::{Bus, ClaimRequest};
use cogo::testing::TestDb;
use serde_json::{Value, json};

use crate::support::Cogo;

async fn sql(db: &TestDb, text: &'static str) {
    sqlx::raw_sql(text).execute(db.pool()).await.expect(text);
}

async fn finish(db: &TestDb, max: usize) {
    let request = ClaimRequest {
        worker: "w".to_owned(),
        tenant: "default".to_owned(),
        topics: vec!["echo/default".to_owned()],
        max,
        lease: Duration::from_secs(60),
    };
    let claims = Bus::new(db.pool().clone()).claim(&request).await.expect("claims");
    assert_eq!(claims.len(), max);
    for claim in claims {
        claim.complete(json!(1)).await.expect("done");
    }
}

fn enqueue(cogo: &Cogo, n: usize) -> Vec<String> {
    (0..n).map(|_| cogo.ok(&["enqueue", "echo/default", "echo", "{}"]).line().to_owned()).collect()
}

#[tokio::test]
async fn verify_tells_whether_the_messages_are_what_the_log_says() {
    let db = TestDb::new().await;
    let cogo = Cogo::on(&db);
    assert_eq!(cogo.ok(&["replay", "verify"]).line(), "exact: 0 messages, 0 events");
    let ids = enqueue(&cogo, 3);
    finish(&db, 1).await;
    let done = cogo.ok(&["replay", "verify", "--range", "2"]);
    assert_eq!((done.line(), done.stderr.as_str()), ("exact: 3 messages, 4 events", ""));
    let exact = cogo.json(&["replay", "verify"]);
    assert_eq!((&exact["exact"], &exact["differences"]), (&json!(true), &json!([])));

    sql(&db, "update agent_messages set priority = 9 where status = 'queued'").await;
    let done = cogo.run(&["replay", "verify", "--show", "1"]);
    assert_eq!(done.code, Some(1), "{done:?}");
    let says = |words: &str| assert!(done.stdout.contains(words), "{words:?} is missing: {done:?}");
    says(&ids[1]);
    says("priority");
    says("not exact: 2 messages (2 differ); 1 message as the log says, 4 events");
    assert!(!done.stdout.contains(&ids[2]) && done.stderr.contains("--show"), "{done:?}");
    let done = cogo.run(&["replay", "verify", "--json"]);
    assert_eq!(done.code, Some(1));
    let report: Value = serde_json::from_str(&done.stdout).expect("one document");
    assert_eq!((&report["exact"], &report["differing"]), (&json!(false), &json!(2)));
    let field = &report["differences"][0]["fields"][0];
    assert_eq!(field, &json!({"field": "priority", "in_table": "9", "in_log": "0"}));
}

#[tokio::test]
async fn rebuild_needs_yes_and_restores_what_was_lost() {
    let db = TestDb::new().await;
    let cogo = Cogo::on(&db);
    let ids = enqueue(&cogo, 3);
    let rebuild = |args: &[&str]| cogo.run(&[&["replay", "rebuild"], args].concat());
    assert_eq!(rebuild(&[]).line(), "nothing to restore: 3 messages as the log says");
    sql(&db, "truncate agent_messages").await;
    rebuild(&[]).refused(2, &["insert 3, replace 0, remove 0 messages", "--yes"]);
    rebuild(&["--yes", "--dry-run"]).refused(2, &["--dry-run"]);
    let done = rebuild(&["--dry-run"]);
    assert_eq!(done.code, Some(0));
    assert!(done.stdout.contains(&ids[0]) && done.stdout.contains("would insert 3"), "{done:?}");
    let would = cogo.json(&["replay", "rebuild", "--dry-run"]);
    assert_eq!((&would["dry_run"], &would["inserted"]), (&json!(true), &json!(3)));
    cogo.run(&["get", &ids[0]]).refused(3, &["not found"]);

    let done = rebuild(&["--yes"]);
    let line = "inserted 3, replaced 0, removed 0 messages; 0 messages were as the log says";
    assert_eq!((done.code, done.line()), (Some(0), line));
    assert_eq!(cogo.json(&["get", &ids[0]])["message"]["status"], "queued");
    assert_eq!(cogo.ok(&["replay", "verify"]).line(), "exact: 3 messages, 6 events");
    assert!(cogo.ok(&["get", &ids[0]]).stdout.contains("echo_restored"));
}

#[tokio::test]
async fn a_trace_is_done_again_once_it_is_finished() {
    let db = TestDb::new().await;
    let cogo = Cogo::on(&db);
    let first = cogo.json(&["enqueue", "echo/default", "echo", "{\"n\": 1}"]);
    let trace = first["trace_id"].as_str().expect("a trace");
    let id = first["id"].as_str().expect("an id");
    cogo.run(&["replay", "trace", trace]).refused(5, &[trace, "not finished", id]);
    finish(&db, 1).await;
    let done = cogo.ok(&["replay", "trace", trace]);
    let anew = done.line();
    assert!(done.stderr.contains(&format!("cogo trace {anew}")), "{done:?}");
    let traced = cogo.json(&["trace", anew]);
    assert_eq!(traced["events"][0]["payload"]["parent_id"], id);
    assert_eq!(traced["events"][0]["payload"]["payload"], json!({"n": 1}));
    let again = cogo.json(&["replay", "trace", trace, "--all"]);
    assert_eq!(again["replays"], trace);
    assert_eq!(again["messages"][0]["replays"], id);
    assert_ne!(again["trace_id"], anew);

    let missing = "01900000-0000-7000-8000-000000000000";
    cogo.run(&["replay", "trace", missing]).refused(3, &[missing, "not found"]);
    cogo.run(&["replay", "trace", "17"]).refused(2, &["17"]);
}

#[tokio::test]
async fn it_is_for_operators_and_says_so() {
    let db = TestDb::new().await;
    let url = format!("{}&options=-c%20role%3Dcogo_bus", db.url());
    let url = if url.contains('?') { url } else { url.replacen('&', "?", 1) };
    let cogo = Cogo::new().with("DATABASE_URL", url);
    cogo.ok(&["status"]);
    let missing = "01900000-0000-7000-8000-000000000000";
    for args in [&["verify"][..], &["rebuild"], &["rebuild", "--yes"], &["trace", missing]] {
        let done = cogo.run(&[&["replay"], args].concat());
        done.refused(4, &["permission denied", "cogo_operator"]);
    }
}
