use std::collections::BTreeSet;

use cogo::testing::TestDb;
use serde_json::{Value, json};

use crate::support::{Cogo, http};
use crate::up::Home;

#[tokio::test]
async fn fifty_concurrent_calls_with_one_key_make_one_message_and_one_effect() {
    let db = TestDb::new().await;
    let home = Home::new(Cogo::on(&db));
    let up = home.up();
    let body = json!({"toolset": "demo", "tool": "echo", "params": {"message": "once"},
        "idempotency_key": "order-42"})
    .to_string();
    let url = format!("{}/api/mcp/enqueue", up.url);
    let answers: Vec<Value> = std::thread::scope(|scope| {
        let calls: Vec<_> =
            (0..50).map(|_| scope.spawn(|| http("POST", &url, Some(&up.token), &body))).collect();
        calls
            .into_iter()
            .map(|call| {
                let (status, answer) = call.join().expect("an answer");
                assert_eq!(status, 202, "{answer}");
                answer
            })
            .collect()
    });
    let ids: BTreeSet<&str> = answers.iter().filter_map(|answer| answer["id"].as_str()).collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
    assert_eq!(answers.iter().filter(|answer| answer["duplicate"] == true).count(), 49);
    let id = ids.first().expect("an id");
    let (_, found) = up.get(&format!("/api/messages/{id}?wait=30s"));
    assert_eq!(found["message"]["status"], "done", "{found}");
    // Also when it is done the key answers, and nothing is done again.
    let (_, late) = http("POST", &url, Some(&up.token), &body);
    assert_eq!((&late["id"], &late["duplicate"]), (&json!(id), &json!(true)));
    let counted: (i64, i64) = sqlx::query_as(
        "select (select count(*) from agent_messages), (select count(*) from bus_events
            where event_type in ('mcp_call_scheduled', 'mcp_call_succeeded'))",
    )
    .fetch_one(db.pool())
    .await
    .expect("counted");
    assert_eq!(counted, (1, 2));
    let (_, metrics) = up.get("/metrics");
    let metrics = metrics.as_str().unwrap_or_default();
    let calls = metrics.lines().find(|line| line.starts_with("cogo_mcp_calls_total{"));
    assert!(calls.is_some_and(|line| line.ends_with(" 1")), "{calls:?}");
    up.running.stop();
}
