//! A hub that goes away and comes back.

use serde_json::json;

use crate::driver::{ALL, Driver};
use crate::hub::Hub;

const CHANGES: &str = r#"[{"event": "INSERT", "schema": "public", "table": "agent_messages"}]"#;

#[test]
fn every_client_is_back_after_the_hub_was_restarted_and_after_it_was_killed() {
    let mut hub = Hub::start();
    let drivers = ALL.map(|client| {
        let driver = client.connect(&hub.url, &hub.worker_key("acme", &client.word(), "*"));
        let changes: serde_json::Value = serde_json::from_str(CHANGES).expect("JSON");
        driver.subscribe("wake", json!({"changes": changes}));
        driver.listening("wake");
        driver
    });
    hub.stop();
    hub.start_again();
    all_hear(&hub, &drivers);
    hub.kill();
    hub.start_again();
    all_hear(&hub, &drivers);
}

fn all_hear(hub: &Hub, drivers: &[Driver]) {
    for driver in drivers {
        driver.listening("wake");
    }
    let id = hub.enqueue("acme", "echo/a", json!({}));
    for driver in drivers {
        driver.event("change", |event| event["record"]["id"] == *id);
    }
}
