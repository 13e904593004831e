use cogo::testing::TestDb;
use serde_json::json;

use crate::support::{Cogo, http};
use crate::up::Home;

#[tokio::test]
async fn the_limits_of_a_hub_hold_for_everybody_until_a_hub_changes_them() {
    let db = TestDb::new().await;
    let home = Home::new(Cogo::on(&db));
    assert_eq!(home.cogo.json(&["limits"]), json!([]));
    home.configure(
        "limits.json",
        "{\"tenants\": {\"t\": {\"max_queued\": 2, \"weight\": 2}}, \"topics\": {\"*\": {\"max_queued\": 9}}}",
    );
    let up = home.up();
    let enqueue = ["enqueue", "echo/default", "echo", "--tenant", "t"];
    home.cogo.ok(&enqueue);
    home.cogo.ok(&enqueue);
    let refused = home.cogo.run(&enqueue);
    refused.refused(5, &["tenant t: 2 messages wait", "in 1 s", "cogo limits"]);
    let url = format!("{}/api/mcp/enqueue", up.url);
    let call = |tenant| {
        json!({"toolset": "demo", "tool": "echo", "tenant": tenant,
        "params": {"message": "x"}})
    };
    let (status, answer) = http("POST", &url, Some(&up.token), &call("t").to_string());
    assert_eq!((status, &answer["error"]), (429, &json!("rate_limited")), "{answer}");
    assert_eq!(answer["retry_after_ms"], 1000, "{answer}");
    let (status, answer) = http("POST", &url, Some(&up.token), &call("default").to_string());
    assert_eq!(status, 202, "others are not held up: {answer}");

    let limits = home.cogo.json(&["limits"]);
    let t = limits.as_array().and_then(|all| all.iter().find(|limit| limit["name"] == "t"));
    assert_eq!(
        t,
        Some(&json!({"kind": "tenant", "name": "t", "max_queued": 2, "weight": 2.0, "waiting": 2}))
    );
    let shown = home.cogo.ok(&["limits"]).stdout;
    assert!(shown.contains("topic") && shown.contains("AT MOST"), "{shown}");

    home.configure("limits.json", "{\"tenants\": {\"t\": {\"max_queued\": 3, \"weight\": 2}}}");
    up.running.signal("HUP");
    up.running.stderr.wait("Set limits for 1 tenants and 0 topics");
    home.cogo.ok(&enqueue);
    home.cogo.run(&enqueue).refused(5, &["at most 3 may"]);
    up.running.stop();

    // A hub without the file leaves them alone; one with an empty file does not.
    let other = Home::new(Cogo::on(&db));
    other.up().running.stop();
    assert_eq!(other.cogo.json(&["limits"]).as_array().map(Vec::len), Some(1));
    other.configure("limits.json", "{\"tenants\": {\"t\": {\"weight\": 0}}}");
    let bad = other.cogo.run(&["up", "--listen", "127.0.0.1:0"]);
    bad.refused(2, &["limits.json", "tenants.t.weight: must be from 0.01"]);
    other.configure("limits.json", "{}");
    other.up().running.stop();
    assert_eq!(other.cogo.json(&["limits"]), json!([]));
}

#[tokio::test]
async fn what_is_parked_is_shown_with_what_it_waits_for() {
    let db = TestDb::new().await;
    let cogo = Cogo::on(&db);
    sqlx::query(
        r#"select bus_enqueue(jsonb_agg('{"role": "r", "service": "s", "intent": "x", "payload": 1,
            "ordering_key": "k"}'::jsonb)) from generate_series(1, 3)"#,
    )
    .execute(db.pool())
    .await
    .expect("enqueued");
    let parked = cogo.json(&["status"])["parked"].clone();
    assert_eq!((&parked[0]["reason"], &parked[0]["messages"]), (&json!("ordering"), &json!(2)));
    let shown = cogo.ok(&["status"]).stdout;
    assert!(shown.contains("PARKED") && shown.contains("ordering"), "{shown}");
}
