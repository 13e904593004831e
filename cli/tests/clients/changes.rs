//! `postgres_changes`: what a client asked for arrives, and nothing else does.

use serde_json::{Value, json};

use crate::driver::{ALL, Driver};
use crate::hub::Hub;

fn is(event: &Value, kind: &str, id: &str) -> bool {
    event["type"] == kind && event["record"]["id"] == id
}

#[test]
fn changes_that_match_a_filter_arrive_once_the_subscription_says_so() {
    let hub = Hub::start();
    for client in ALL {
        let topic = format!("echo/{}", client.word());
        let key = hub.worker_key("acme", &client.word(), &topic);
        let driver = client.connect(&hub.url, &key);
        let changes = json!([
            {"event": "INSERT", "schema": "public", "table": "agent_messages", "filter": "role=eq.echo"},
            {"event": "UPDATE", "schema": "public", "table": "agent_messages", "filter": "status=eq.done"},
            {"event": "INSERT", "schema": "public", "table": "bus_events",
             "filter": "event_type=in.(echo_scheduled,echo_succeeded)"},
            {"event": "*", "schema": "public", "table": "workers"},
        ]);
        driver.subscribe("wake", json!({"changes": changes}));
        driver.listening("wake");

        // What is none of its business: another tenant's, and a topic that its key does not open.
        let others = hub.enqueue("other", &topic, json!({"secret": 1}));
        let closed = hub.enqueue("acme", "echo/closed", json!({"secret": 2}));
        let payload = json!({"text": "größer 🦀", "n": 12345, "list": [1, null]});
        let id = hub.enqueue("acme", &topic, payload.clone());
        let change = driver.event("change", |event| is(event, "INSERT", &id));
        let record = &change["record"];
        assert_eq!(change["table"], "agent_messages", "{client:?}: {change}");
        assert_eq!(record["payload"], payload, "{client:?}: {change}");
        assert_eq!(record["status"], "queued", "{client:?}: {change}");
        assert!(record["claim_no"].is_i64(), "{client:?}: {change}");
        assert_eq!(record["tenant"], "acme", "{client:?}: {change}");
        let scheduled =
            driver.event("change", |event| event["record"]["event_type"] == "echo_scheduled");
        assert_eq!(scheduled["record"]["message_id"], *id, "{client:?}: {scheduled}");

        settle(&driver, &client.word(), &topic);
        let change = driver.event("change", |event| is(event, "UPDATE", &id));
        assert_eq!(change["record"]["status"], "done", "{client:?}: {change}");
        let succeeded =
            driver.event("change", |event| event["record"]["event_type"] == "echo_succeeded");
        assert_eq!(succeeded["record"]["message_id"], *id, "{client:?}: {succeeded}");

        for change in driver.events("change") {
            let text = change.to_string();
            assert!(!text.contains(&others), "{client:?} sees another tenant's: {change}");
            assert!(
                !text.contains(&closed),
                "{client:?} sees what its key does not open: {change}"
            );
            let a_claim = change["type"] == "UPDATE" && change["record"]["status"] == "claimed";
            assert!(!a_claim, "{client:?} sees what its filter leaves out: {change}");
        }
    }
}

/// Claims what there is, and completes it.
fn settle(driver: &Driver, worker: &str, topic: &str) {
    let claimed = driver.ask(
        "rpc",
        json!({"fn": "bus_claim", "args": {
            "worker": worker, "topics": [topic], "max": 10, "tenant": null,
        }}),
    );
    let rows = claimed["data"].as_array().unwrap_or_else(|| panic!("{claimed}")).iter();
    let claims: Vec<_> = rows
        .map(|row| json!({"id": row["id"], "claim_no": row["claim_no"], "result": {"ok": true}}))
        .collect();
    let done = driver.ask("rpc", json!({"fn": "bus_complete", "args": {"claims": claims}}));
    assert_eq!(done["data"][0]["code"], Value::Null, "{done}");
}

#[test]
fn a_filter_on_a_column_that_is_not_there_is_said_and_the_channel_stays() {
    let hub = Hub::start();
    for client in ALL.into_iter().filter(|client| client.is_js()) {
        let key = hub.worker_key("acme", &client.word(), "*");
        let driver = client.connect(&hub.url, &key);
        let change = json!({"event": "*", "schema": "public", "table": "agent_messages", "filter": "nothing=eq.1"});
        driver.subscribe("odd", json!({"changes": [change]}));
        let system = driver.event("system", |event| event["payload"]["status"] == "error");
        assert!(
            system["payload"]["message"].to_string().contains("nothing"),
            "{client:?}: {system}"
        );
    }
}
