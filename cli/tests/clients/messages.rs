//! Broadcast and presence, between all clients.

use serde_json::{Value, json};

use crate::driver::{ALL, Client, Driver};
use crate::hub::Hub;

/// All clients, of one tenant.
fn all(hub: &Hub) -> Vec<Driver> {
    let connect =
        |client: Client| client.connect(&hub.url, &hub.worker_key("acme", &client.word(), "*"));
    ALL.into_iter().map(connect).collect()
}

#[test]
fn broadcasts_go_from_every_client_to_all_others() {
    let hub = Hub::start();
    let drivers = all(&hub);
    for (channel, config) in [
        ("lobby", json!({})),
        ("acme:room", json!({"private": true, "broadcast": {"ack": true, "self": false}})),
    ] {
        for driver in &drivers {
            driver.subscribe(channel, json!({"config": config}));
        }
        for from in &drivers {
            let payload =
                json!({"from": from.client.name(), "text": "größer 🦀", "n": [1, null, 2.5]});
            from.ask("send", json!({"channel": channel, "name": "text", "payload": payload}));
            for to in drivers.iter().filter(|to| to.client != from.client) {
                let heard = to.event("broadcast", |event| event["channel"] == channel);
                assert_eq!(heard["payload"], payload, "{:?} to {:?}", from.client, to.client);
                assert_eq!(heard["name"], "text", "{:?} to {:?}", from.client, to.client);
            }
        }
        for driver in &drivers {
            assert_eq!(driver.events("broadcast"), Vec::<Value>::new(), "{:?}", driver.client);
        }
    }
}

#[test]
fn bytes_go_between_clients_that_know_how() {
    let hub = Hub::start();
    let key = hub.worker_key("acme", "bytes", "*");
    let [from, to] = [0, 1].map(|_| Client::Js2_109.connect(&hub.url, &key));
    let old = Client::Js2_49.connect(&hub.url, &key);
    for driver in [&from, &to, &old] {
        driver.subscribe("lobby", json!({}));
    }
    let bytes = "AAEC/4AKDQ==";
    let said = json!({"channel": "lobby", "name": "binary", "base64": bytes});
    from.ask("send_bytes", said);
    let heard = to.event("broadcast", |event| event["name"] == "binary");
    assert_eq!(heard["payload"], json!({"base64": bytes}));
    // The old protocol has no bytes; what comes after them arrives all the same.
    from.ask("send", json!({"channel": "lobby", "name": "text", "payload": {"n": 1}}));
    let heard = old.event("broadcast", |_| true);
    assert_eq!((&heard["name"], &heard["payload"]), (&json!("text"), &json!({"n": 1})), "{heard}");
}

#[test]
fn a_broadcast_over_http_arrives_at_every_client() {
    let hub = Hub::start();
    let drivers = all(&hub);
    for driver in &drivers {
        driver.subscribe("lobby", json!({}));
    }
    for from in drivers.iter().filter(|d| [Client::Js2_109, Client::Py2_34].contains(&d.client)) {
        let payload = json!({"over": "http", "from": from.client.name()});
        from.ask("http_send", json!({"channel": "lobby", "name": "text", "payload": payload}));
        for to in &drivers {
            let heard = to.event("broadcast", |_| true);
            assert_eq!(heard["payload"], payload, "{:?} to {:?}", from.client, to.client);
        }
    }
}

#[test]
fn a_private_channel_is_closed_to_other_tenants() {
    let hub = Hub::start();
    for client in ALL {
        let driver = client.connect(&hub.url, &hub.worker_key("other", &client.word(), "*"));
        let config = json!({"private": true});
        let status = driver.ask("subscribe", json!({"channel": "acme:room", "config": config}));
        assert_eq!(status, "CHANNEL_ERROR", "{client:?}: {}", driver.log());
        let why = driver.event("status", |event| event["status"] == "CHANNEL_ERROR").to_string();
        assert!(why.contains("Unauthorized"), "{client:?}: {why}");
    }
}

#[test]
fn everyone_sees_who_is_there_and_who_is_gone() {
    let hub = Hub::start();
    let mut drivers = all(&hub);
    for driver in &drivers {
        let key = driver.client.name();
        let config = json!({"private": true, "presence": {"key": key}});
        driver.subscribe("acme:agents", json!({"config": config, "presence": true}));
        driver.ask("track", json!({"channel": "acme:agents", "state": {"tools": ["figma"]}}));
    }
    for driver in &drivers {
        let sync = driver.event("sync", |event| {
            ALL.iter().all(|client| event["state"].get(client.name()).is_some())
        });
        for client in ALL {
            let seen = &sync["state"][client.name()][0]["tools"];
            assert_eq!(*seen, json!(["figma"]), "{:?}: {sync}", driver.client);
        }
    }
    // One says that it goes, and one dies.
    drivers[0].ask("untrack", json!({"channel": "acme:agents"}));
    for driver in &drivers[1..] {
        driver.event("left", |event| event["key"] == ALL[0].name());
    }
    let dead = drivers.remove(1);
    dead.kill();
    for driver in &drivers {
        driver.event("left", |event| event["key"] == ALL[1].name());
        driver.event("sync", |event| {
            event["state"].as_object().is_some_and(|state| state.len() == 2)
        });
    }
}
