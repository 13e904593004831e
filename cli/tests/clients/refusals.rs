//! What a key does not allow is refused, in words and with a code.

use serde_json::{Value, json};

use crate::driver::{ALL, Client, Driver};
use crate::hub::Hub;

/// The refusal of a call or a read, with its HTTP status where the client tells that.
#[track_caller]
fn refused(driver: &Driver, command: &str, args: Value, code: &str, status: u16) -> String {
    let answer = driver.ask(command, args);
    let client = driver.client;
    assert_eq!(answer["data"], Value::Null, "{client:?}: {answer}");
    assert_eq!(answer["error"]["code"], code, "{client:?}: {answer}");
    if client.is_js() {
        assert_eq!(answer["status"], status, "{client:?}: {answer}");
    }
    let message = answer["error"]["message"].as_str().unwrap_or_default();
    assert!(!message.is_empty(), "{client:?}: {answer}");
    message.to_owned()
}

fn claim(worker: &str, topic: &str, tenant: Value) -> Value {
    json!({"fn": "bus_claim", "args": {"worker": worker, "topics": [topic], "tenant": tenant}})
}

fn each(test: impl Fn(Client, &Driver, &Hub)) {
    let hub = Hub::start();
    for client in ALL {
        let key = hub.worker_key("acme", &client.word(), "echo/mine");
        test(client, &client.connect(&hub.url, &key), &hub);
    }
}

#[test]
fn what_lies_outside_of_a_key_is_refused_and_stays_as_it_was() {
    each(|client, driver, hub| {
        let word = client.word();
        let theirs = hub.enqueue("other", "echo/mine", json!({"secret": 1}));
        let closed = hub.enqueue("acme", "echo/closed", json!({"secret": 2}));
        let said = refused(driver, "rpc", claim(&word, "echo/mine", json!("other")), "CG403", 403);
        assert!(said.contains("tenant") && said.contains("acme"), "{client:?}: {said}");
        let said = refused(driver, "rpc", claim(&word, "echo/closed", Value::Null), "CG403", 403);
        assert!(said.contains("topics"), "{client:?}: {said}");
        let said =
            refused(driver, "rpc", claim("somebody-else", "echo/mine", Value::Null), "CG403", 403);
        assert!(said.contains("worker"), "{client:?}: {said}");
        let message = json!({"role": "echo", "service": "closed", "intent": "echo", "payload": {}});
        let args = json!({"fn": "bus_enqueue", "args": {"messages": [message]}});
        refused(driver, "rpc", args, "CG403", 403);
        for id in [&theirs, &closed] {
            let read = driver
                .ask("select", json!({"table": "agent_messages", "steps": [["eq", "id", id]]}));
            assert_eq!(read["data"], json!([]), "{client:?}: {read}");
            let read = driver
                .ask("select", json!({"table": "bus_events", "steps": [["eq", "message_id", id]]}));
            assert_eq!(read["data"], json!([]), "{client:?}: {read}");
            assert_eq!(hub.status_of(id), "queued", "{client:?}");
        }
        // What only operators may call.
        let args = json!({"fn": "bus_cancel", "args": {"messages": [{"id": closed}]}});
        let answer = driver.ask("rpc", args);
        assert!(
            ["42501", "CG403"].contains(&answer["error"]["code"].as_str().unwrap_or_default()),
            "{answer}"
        );
        assert_eq!(hub.status_of(&closed), "queued", "{client:?}");
    });
}

#[test]
fn a_stolen_claim_settles_nothing() {
    each(|client, driver, hub| {
        for topic in ["echo/closed", "echo/mine"] {
            let id = hub.enqueue("acme", topic, json!({}));
            let claimed = hub
                .rpc("bus_claim", json!({"worker": "owner", "topics": [topic], "tenant": "acme"}));
            let stolen =
                json!({"id": id, "claim_no": claimed[0]["claim_no"], "result": {"mine": true}});
            let answer =
                driver.ask("rpc", json!({"fn": "bus_complete", "args": {"claims": [stolen]}}));
            let code = match &answer["error"]["code"] {
                Value::Null => answer["data"][0]["code"].clone(),
                code => code.clone(),
            };
            assert!(
                ["CG403", "CG409"].contains(&code.as_str().unwrap_or_default()),
                "{client:?}: {answer}"
            );
            assert_eq!(hub.status_of(&id), "claimed", "{client:?}");
            let settle = json!({"id": id, "claim_no": claimed[0]["claim_no"], "result": {}});
            let settled = hub.rpc("bus_complete", json!({"claims": [settle]}));
            assert_eq!(settled[0]["code"], Value::Null, "{client:?}: {settled}");
        }
    });
}

#[test]
fn ids_of_other_tenants_conflict_and_unknown_names_are_not_found() {
    each(|client, driver, hub| {
        let theirs = hub.enqueue("other", "echo/mine", json!({}));
        let message = json!({"id": theirs, "role": "echo", "service": "mine", "intent": "echo", "payload": {}});
        let args = json!({"fn": "bus_enqueue", "args": {"messages": [message]}});
        refused(driver, "rpc", args, "CG409", 409);
        refused(driver, "rpc", json!({"fn": "bus_nothing", "args": {"a": 1}}), "PGRST202", 404);
        let args = json!({"fn": "bus_claim", "args": {"worker": client.word(), "no_such": 1}});
        refused(driver, "rpc", args, "PGRST202", 404);
        refused(driver, "select", json!({"table": "nothing"}), "PGRST205", 404);
        let bad = json!({"fn": "bus_claim", "args": {"worker": client.word(), "topics": [], "tenant": null}});
        let said = refused(driver, "rpc", bad, "CG400", 400);
        assert!(said.contains("topics"), "{client:?}: {said}");
        let read = driver.ask("select", json!({"table": "agent_messages", "columns": "no_such"}));
        assert_eq!(read["error"]["code"], "42703", "{client:?}: {read}");
        // The tables are written by the functions alone.
        let before = hub.get("/rest/v1/agent_messages?select=id").as_array().map(Vec::len);
        let written = driver.ask("insert", json!({"table": "agent_messages", "row": message}));
        assert_ne!(written["error"], Value::Null, "{client:?}: {written}");
        assert_eq!(hub.get("/rest/v1/agent_messages?select=id").as_array().map(Vec::len), before);
    });
}

#[test]
fn without_a_key_that_is_good_nothing_is_read_and_nothing_called() {
    let hub = Hub::start();
    let id = hub.enqueue("acme", "echo/mine", json!({"secret": 1}));
    for client in ALL {
        for key in [hub.token_for("acme", -3600), hub.forged()] {
            let driver = client.connect(&hub.url, &key);
            refused(
                &driver,
                "select",
                json!({"table": "agent_messages"}),
                code_of_401(&driver),
                401,
            );
            let args = claim(&client.word(), "echo/mine", Value::Null);
            refused(&driver, "rpc", args, code_of_401(&driver), 401);
        }
        let anon = client.connect(&hub.url, &hub.mint(&["--role", "anon"]));
        let read = anon.ask("select", json!({"table": "agent_messages"}));
        let empty = [&json!([]), &Value::Null].contains(&&read["data"]);
        assert!(empty, "{client:?}: {read}");
        let claimed = anon.ask("rpc", claim(&client.word(), "echo/mine", json!("acme")));
        assert_ne!(claimed["error"], Value::Null, "{client:?}: {claimed}");
    }
    assert_eq!(hub.status_of(&id), "queued");
}

/// PostgREST says which: 301 for a signature, 303 for claims. Both are 401.
fn code_of_401(driver: &Driver) -> &'static str {
    let answer = driver.ask("select", json!({"table": "workers"}));
    match answer["error"]["code"].as_str() {
        Some("PGRST301") => "PGRST301",
        Some("PGRST303") => "PGRST303",
        _ => panic!("{:?}: {answer}", driver.client),
    }
}
