//! The SDKs' clients: both lines of releases of TypeScript's and of Python's.

use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::client::{ALL, Client, Sdk, listed};
use crate::fixture::{Fixture, PNG};
use crate::hub::{Hub, busy};
use crate::support::until;

/// How long a call lasts in the middle of which something happens.
const LONG_MS: u64 = 60_000;
/// How long one lasts that is waited for to its end, and cancelled before it.
const SHORT_MS: u64 = 8000;

#[test]
fn each_sdk_calls_the_tools_of_machines_that_come_and_go() {
    let _busy = busy();
    let hub = Hub::start(&json!({}), &json!({"grace_s": 2}));
    let key = hub.client_key();
    let fixture = Fixture::start();
    let _worker = hub.join_with_fixture("machine", &fixture);
    listed(&hub, "fixture__greet");
    let url = format!("{}/mcp", hub.url);
    let clients: Vec<Client> = thread::scope(|scope| {
        let (url, key, fixture) = (&url, &key, &fixture);
        let clients = ALL.map(|sdk| {
            scope.spawn(move || {
                let client = sdk.connect(url, key);
                results_are_the_tools_own(&client);
                progress_is_passed_on(&client);
                mistakes_are_told(&client);
                a_cancelled_call_is_cancelled_or_kept(&client, fixture);
                client
            })
        });
        clients.map(|client| client.join().expect("a client")).into()
    });

    let other = hub.join("other", "more", &json!({"url": fixture.url}));
    for client in &clients {
        let seen = client.event("changed", |event| names(event).any(|name| name == "more__greet"));
        assert!(names(&seen).any(|name| name == "fixture__greet"), "{:?}: {seen}", client.sdk);
        assert_eq!(text(&client.call("more__greet", json!({"name": "you"}))), "Hello, you!");
    }
    other.stop();
    for client in &clients {
        client.event("changed", |event| !names(event).any(|name| name == "more__greet"));
        assert!(client.tools().iter().all(|name| name != "more__greet"), "{:?}", client.sdk);
    }
    for client in clients {
        client.ask("close", json!({}));
    }
}

fn names(event: &Value) -> impl Iterator<Item = &str> {
    event["tools"].as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn text(result: &Value) -> &str {
    result["content"][0]["text"].as_str().unwrap_or_default()
}

fn results_are_the_tools_own(client: &Client) {
    let tools = client.ask("tools", json!({}));
    let tools = tools.as_array().expect("a list");
    let add = tools.iter().find(|tool| tool["name"] == "fixture__add").expect("fixture__add");
    assert_eq!(add["title"], "Add", "{:?}: {add}", client.sdk);
    assert_eq!(add["annotations"]["readOnlyHint"], true, "{add}");
    assert_eq!(add["outputSchema"]["required"], json!(["sum"]), "{add}");
    let sum = client.call("fixture__add", json!({"a": 1, "b": 2.5}));
    assert_eq!(sum["structuredContent"]["sum"], 3.5, "{:?}: {sum}", client.sdk);
    let greeted = client.call("fixture__greet", json!({"name": "Ada"}));
    assert_eq!(text(&greeted), "Hello, Ada!");
    let pictures = client.call("fixture__test_multiple_content_types", json!({}));
    assert_eq!(pictures["content"][1]["data"], PNG, "{:?}: {pictures}", client.sdk);
    assert_eq!(pictures["content"][1]["mimeType"], "image/png");
    assert_eq!(pictures["content"][2]["resource"]["uri"], "test://mixed-content-resource");
    let failed = client.call("fixture__test_error_handling", json!({}));
    assert_eq!(failed["isError"], true, "{:?}: {failed}", client.sdk);
    assert_eq!(text(&failed), "This tool intentionally returns an error for testing");
}

fn progress_is_passed_on(client: &Client) {
    client.begin(1, "fixture__test_tool_with_progress", json!({}), Value::Null);
    for done in [0.0, 50.0, 100.0] {
        let report = client.event("progress", |event| event["call"] == 1);
        assert_eq!(report["progress"].as_f64(), Some(done), "{:?}: {report}", client.sdk);
        assert_eq!(report["total"].as_f64(), Some(100.0));
    }
    assert_eq!(text(&client.ended(1)["result"]), "reported progress", "{:?}", client.sdk);
}

fn mistakes_are_told(client: &Client) {
    let error = client.fails("fixture__no_such_tool", json!({}));
    assert_eq!(error["code"], -32602, "{:?}: {error}", client.sdk);
    let answered = client.try_call("fixture__greet", json!({"name": 7}));
    assert!(answered.to_string().contains("/name"), "{:?}: {answered}", client.sdk);
}

fn a_cancelled_call_is_cancelled_or_kept(client: &Client, fixture: &Fixture) {
    let told = client.sdk.revision() == "2025-11-25";
    let label = format!("cancel-{}", client.sdk.word());
    let arguments = json!({"key": label, "ms": if told { LONG_MS } else { SHORT_MS }});
    let meta = json!({ "cogo/idempotency_key": label });
    client.begin(2, "fixture__count", arguments.clone(), meta.clone());
    assert!(until(|| fixture.has_begun(&label)), "{:?}: the call did not begin", client.sdk);
    client.ask("cancel", json!({"call": 2}));
    assert!(client.ended(2).get("failed").is_some(), "{:?}", client.sdk);
    if told {
        assert!(until(|| fixture.was_cancelled(&label)), "{:?}: not cancelled", client.sdk);
        assert_eq!(fixture.count(&label), 0);
        return;
    }
    // In 2026-07-28 these clients say it by closing the stream, as one does that is lost. So the call goes on.
    client.begin(3, "fixture__count", arguments, meta);
    let ended = client.ended(3);
    assert_eq!(ended["result"]["structuredContent"]["count"], 1, "{:?}: {ended}", client.sdk);
    assert_eq!(fixture.count(&label), 1, "{:?}", client.sdk);
}

#[test]
fn a_call_that_a_killed_hub_left_behind_is_made_once_and_found_by_its_key() {
    let _busy = busy();
    let mut hub = Hub::start(&json!({}), &json!({}));
    let key = hub.client_key();
    let fixture = Fixture::start();
    let _worker = hub.join_with_fixture("machine", &fixture);
    listed(&hub, "fixture__count");
    let url = format!("{}/mcp", hub.url);
    let call = |sdk: Sdk| json!({"key": format!("killed-{}", sdk.word()), "ms": 6000});
    let meta = |sdk: Sdk| json!({"cogo/idempotency_key": format!("once-{}", sdk.word())});
    let before: Vec<_> = ALL.into_iter().map(|sdk| sdk.connect(&url, &key)).collect();
    for client in &before {
        client.begin(1, "fixture__count", call(client.sdk), meta(client.sdk));
    }
    let begun = |sdk: Sdk| fixture.has_begun(&format!("killed-{}", sdk.word()));
    assert!(until(|| ALL.into_iter().all(begun)), "not all calls have begun: {}", hub.log());
    hub.kill();
    thread::sleep(Duration::from_secs(1)); // what was under way to the clients is lost
    hub.start_again();

    for client in before {
        let sdk = client.sdk;
        // A client of 2026-07-28 has no session that could be lost; an older one begins again.
        let client = match sdk {
            Sdk::TypeScript2 => client,
            // Python's ends with the stream on which it listened for changes.
            Sdk::TypeScript1 | Sdk::Python1 | Sdk::Python2 => sdk.connect(&url, &key),
        };
        client.begin(2, "fixture__count", call(sdk), meta(sdk));
        let ended = client.ended(2);
        assert_eq!(
            ended["result"]["structuredContent"]["count"],
            1,
            "{sdk:?}: {ended}\n{}",
            hub.log()
        );
        assert_eq!(fixture.count(&format!("killed-{}", sdk.word())), 1, "{sdk:?}");
    }
}
