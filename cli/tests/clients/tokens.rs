//! Tokens that end while they are used.

use serde_json::json;

use crate::driver::{ALL, Client, Driver};
use crate::hub::Hub;

/// The hub takes a token for so long after its end, for the sake of clocks (`cogo::identity::LEEWAY_S`).
const LEEWAY_S: i64 = cogo::identity::LEEWAY_S;

#[test]
fn a_channel_lives_on_with_a_new_token_and_ends_with_the_old_one() {
    let hub = Hub::start();
    // Long enough to subscribe on a busy machine. As the key itself: to `setAuth` the clients take nothing that
    // has ended, and the hub's leeway is more than a test wants to wait for. The older supabase-js ends its own
    // process over a key that has ended by its clock; so it gets one that has not, and is not left with it.
    let short = |client| match client {
        Client::Js2_49 => hub.token_for("acme", 15),
        _ => hub.token_for("acme", 15 - LEEWAY_S),
    };
    let changes = json!([{"event": "INSERT", "schema": "public", "table": "agent_messages"}]);
    let drivers = ALL.map(|client| {
        // One that is given a new token, and one that is not.
        [true, false].map(|renewed| {
            // The token is made when the interpreter runs, whose start may take as long as it is good.
            let driver = client.start();
            driver.ask("connect", json!({"url": hub.url, "key": short(client)}));
            driver.subscribe("wake", json!({"changes": changes}));
            driver.listening("wake");
            if renewed || client == Client::Js2_49 {
                let token = hub.token_for("acme", 600);
                driver.ask("set_auth", json!({"token": token}));
            }
            driver
        })
    });
    let left_alone = |driver: &Driver| driver.client != Client::Js2_49;
    for [_, stale] in drivers.iter().filter(|[_, stale]| left_alone(stale)) {
        // Each tells of it in another way.
        match stale.client {
            Client::Py2_15 => stale.event("system", |event| event["payload"]["status"] == "error"),
            _ => stale.event("status", |event| event["status"] != "SUBSCRIBED"),
        };
    }
    let id = hub.enqueue("acme", "echo/a", json!({}));
    for [renewed, stale] in &drivers {
        // The oldest of them does not send a new token to channels that are joined.
        if renewed.client != Client::Py2_15 {
            renewed.event("change", |event| event["record"]["id"] == *id);
        }
        if left_alone(stale) {
            assert!(stale.events("change").is_empty(), "{:?}: {}", stale.client, stale.log());
        }
    }
}

#[test]
fn a_key_that_has_ended_or_is_not_ours_joins_nothing() {
    let hub = Hub::start();
    for client in ALL.into_iter().filter(|client| client.is_js()) {
        for key in [hub.token_for("acme", -3600), hub.forged()] {
            let driver = client.connect(&hub.url, &key);
            let status = driver.ask("subscribe", json!({"channel": "wake"}));
            assert_eq!(status, "CHANNEL_ERROR", "{client:?}: {}", driver.log());
        }
    }
    // supabase-py raises, once it has tried often enough; the old one tries for a minute and a half.
    let driver = Client::Py2_34.connect(&hub.url, &hub.token_for("acme", -3600));
    let failed = driver.fails("subscribe", json!({"channel": "wake"}));
    assert!(failed["message"].to_string().contains("401"), "{failed}");
}
