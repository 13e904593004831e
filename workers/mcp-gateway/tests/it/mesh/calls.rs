//! Calls: what is checked before, what is waited for, and what comes back.

use std::collections::BTreeMap;
use std::time::Duration;

use cogo::clock::Stopwatch;
use cogo::message::Status;
use cogo_worker_mcp_gateway::config::{self, Filter};
use cogo_worker_mcp_gateway::mesh::{Failed, Outcome, Refusal, Request, Started};
use serde_json::{Value, json};

use super::site::{Machine, Site, request};
use crate::support::asks::Asks;
use crate::support::shelf::{Shelf, tool};
use crate::support::{PATIENCE, object, text};

fn result(outcome: Outcome) -> Value {
    match outcome {
        Outcome::Result(result) => result,
        other => panic!("no result: {other:?}"),
    }
}

#[tokio::test]
async fn a_tools_own_result_comes_back_unchanged_whether_it_went_well_or_not() {
    let site = Site::new().await;
    let _machine = site.demo().await;
    let sum = result(site.call("demo", "add", json!({"a": 1.5, "b": 2})).await);
    assert_eq!(sum["structuredContent"], json!({"sum": 3.5}));
    let failed = result(site.call("demo", "fail", json!({"message": "out of ink"})).await);
    assert_eq!((&failed["isError"], text(&failed)), (&json!(true), "out of ink"));
    assert!(failed.get("_meta").is_none(), "the tool's own: {failed}");
}

#[tokio::test]
async fn an_error_of_the_tools_server_comes_back_as_it_gave_it() {
    let (site, asks) = (Site::new().await, Asks::start().await);
    let _machine = site.machine(&[("asks", &asks.url)]).await;
    let Outcome::Failed(Failed { code, message, data, class, .. }) =
        site.call("asks", "error", json!({})).await
    else {
        panic!("an error")
    };
    assert_eq!((code, message.as_str(), class.as_str()), (-32050, "no", "tool_error"));
    assert_eq!(data, Some(json!({"why": [1, 2]})));
}

#[tokio::test]
async fn arguments_that_do_not_fit_are_refused_and_nothing_is_queued() {
    let site = Site::new().await;
    let _machine = site.demo().await;
    let who = site.admin();
    for (arguments, pointer, words) in [
        (json!({"a": 1}), "/b", "is missing, and required"),
        (json!({"a": 1, "b": "2"}), "/b", "not of type \"number\" (it is a string)"),
        (json!({"a": 1, "b": 2, "c": 3}), "/c", "is not known; there are: a, b"),
    ] {
        let refusal = site.mesh.start(&who, request("demo", "add", arguments)).await;
        let Err(Refusal::InvalidArguments { pointer: at, message }) = refusal else {
            panic!("{refusal:?}")
        };
        assert_eq!(at, pointer);
        assert!(message.contains(words), "{message}");
    }
    assert_eq!(site.messages().await, 0);
}

#[tokio::test]
async fn a_tool_that_is_not_there_is_refused_with_what_may_have_been_meant() {
    let deny = Filter { allow: None, deny: vec!["demo__sleep".to_owned()] };
    let config = config::Mesh {
        tenants: BTreeMap::from([("default".to_owned(), deny)]),
        ..config::Mesh::default()
    };
    let site = Site::with(config).await;
    let _machine = site.demo().await;
    let refused = async |who, toolset, tool| {
        let started = site.mesh.start(&who, request(toolset, tool, json!({}))).await;
        let refusal = started.expect_err("it is refused");
        assert!(matches!(refusal, Refusal::UnknownTool { .. }), "{refusal:?}");
        refusal.to_string()
    };
    let text = refused(site.admin(), "demo", "ehco").await;
    assert_eq!(text, "no machine offers demo__ehco; did you mean demo__echo?");
    let text = refused(site.admin(), "dmo", "echo").await;
    assert!(text.ends_with("did you mean demo__echo?"), "{text}");
    let text = refused(site.admin(), "demo", "sleep").await;
    assert!(!text.contains("demo__sleep?"), "what is denied is not told: {text}");
    // Whoever may not send there is told no more than where there is nothing.
    let text = refused(site.sender(&["mcp-gateway/other"]), "demo", "echo").await;
    assert_eq!(text, "no machine offers demo__echo");
    assert!(
        site.mesh
            .tools(&site.sender(&["mcp-gateway/other"]), None)
            .await
            .expect("a list")
            .is_empty()
    );
    let names: Vec<_> = site.mesh.tools(&site.admin(), None).await.expect("a list");
    let names: Vec<_> = names.iter().map(|offer| offer.name()).collect();
    assert_eq!(names, ["demo__add", "demo__echo", "demo__fail"]);
    assert_eq!(site.messages().await, 0);
}

#[tokio::test]
async fn the_same_key_is_the_same_call_also_after_its_caller_went_away() {
    let site = Site::new().await;
    let _machine = site.demo().await;
    let who = site.sender(&["mcp-gateway/demo"]);
    let keyed = |arguments| Request {
        idempotency_key: Some("k-1".to_owned()),
        ..request("demo", "add", arguments)
    };
    // Numbers that Postgres writes in another way are the same.
    let first = site.mesh.start(&who, keyed(json!({"a": 1e2, "b": 2}))).await.expect("taken");
    // The caller goes away before there is an answer, and asks again.
    let waiting = site.mesh.wait(&first, Duration::ZERO, None).await.expect("a message");
    drop(waiting);
    let again = site.mesh.start(&who, keyed(json!({"a": 100, "b": 2}))).await.expect("taken");
    assert_eq!(again, Started { duplicate: true, ..first });
    assert_eq!(result(site.end(&again).await)["structuredContent"], json!({"sum": 102.0}));
    // And once more, long after.
    let late = site.mesh.start(&who, keyed(json!({"b": 2, "a": 100}))).await.expect("taken");
    assert_eq!(result(site.end(&late).await)["structuredContent"], json!({"sum": 102.0}));
    let message = site.bus.message(first.id).await.expect("a message");
    assert_eq!((message.attempts, message.status), (1, Status::Done), "called once");
    for other in [
        keyed(json!({"a": 1, "b": 2})),
        Request { tool: "echo".to_owned(), ..keyed(json!({"message": "x"})) },
    ] {
        let refusal = site.mesh.start(&who, other).await.expect_err("another call");
        assert!(matches!(refusal, Refusal::Conflict(id) if id == first.id), "{refusal:?}");
    }
}

#[tokio::test]
async fn a_call_is_found_by_its_key_also_when_its_tool_has_gone() {
    let site = Site::with(config::Mesh { grace_s: 1, ..config::Mesh::default() }).await;
    let machine = site.demo().await;
    let keyed = |key: &str, tool, arguments| Request {
        idempotency_key: Some(key.to_owned()),
        ..request("demo", tool, arguments)
    };
    let who = site.sender(&["mcp-gateway/demo"]);
    let add = keyed("done", "add", json!({"a": 1, "b": 2}));
    let done = site.mesh.start(&who, add.clone()).await.expect("taken");
    assert_eq!(result(site.end(&done).await)["structuredContent"], json!({"sum": 3.0}));
    machine.leave().await;
    let echo = keyed("waits", "echo", json!({"message": "x"}));
    let waits = site.mesh.start(&who, echo.clone()).await.expect("taken");
    site.gone("demo").await;
    for who in [&who, &site.admin()] {
        let again = site.mesh.start(who, add.clone()).await.expect("it is there");
        assert_eq!(again, Started { duplicate: true, ..done });
        assert_eq!(result(site.end(&again).await)["structuredContent"], json!({"sum": 3.0}));
        let again = site.mesh.start(who, echo.clone()).await.expect("it waits");
        assert_eq!(again, Started { duplicate: true, ..waits });
    }
    // Another call, a key that nobody knows, and whoever may not send there, are told of the tool.
    let stranger = site.sender(&["mcp-gateway/other"]);
    for (who, asked) in [
        (&who, keyed("done", "add", json!({"a": 1, "b": 3}))),
        (&who, keyed("new", "add", json!({"a": 1, "b": 2}))),
        (&who, keyed("\0", "add", json!({"a": 1, "b": 2}))),
        (&stranger, add),
    ] {
        let refusal = site.mesh.start(who, asked).await.expect_err("there is no such tool");
        assert!(matches!(refusal, Refusal::UnknownTool { .. }), "{refusal:?}");
    }
}

#[tokio::test]
async fn whoever_waits_does_not_notice_that_the_database_was_away() {
    let site = Site::new().await;
    let machine = site.demo().await;
    machine.leave().await;
    let started = site.start("demo", "echo", json!({"message": "still there"})).await;
    site.db.disconnect().await;
    let restart = async {
        // Long enough for each try of a call to fail.
        tokio::time::sleep(Duration::from_secs(3)).await;
        site.db.reconnect();
        Machine::start(&site.db, &[]).await
    };
    // Who does not wait so long is told that it goes on, for it does.
    let short = site.mesh.wait(&started, Duration::from_millis(100), None).await;
    assert_eq!(short.expect("it is committed"), Outcome::Pending);
    let (outcome, _machine) = tokio::join!(site.end(&started), restart);
    assert_eq!(text(&result(outcome)), "still there");
}

#[tokio::test]
async fn what_does_not_go_on_leaves_nothing_in_the_message() {
    let site = Site::new().await;
    let _machine = site.demo().await;
    // A client of today sends this with each request; a gateway of before knows no `meta`, and would refuse the call.
    let meta =
        object(json!({"progressToken": 1, "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {}}));
    let asked = Request { meta, ..request("demo", "echo", json!({"message": "x"})) };
    let started = site.mesh.start(&site.admin(), asked).await.expect("taken");
    let payload = site.bus.message(started.id).await.expect("a message").payload;
    let fields: Vec<_> = payload.as_object().expect("an object").keys().collect();
    assert_eq!(fields, ["tool", "params", "toolset"], "in the database's order");
}

#[tokio::test]
async fn a_call_waits_for_a_machine_that_is_away() {
    let site = Site::new().await;
    site.demo().await.leave().await;
    // Its tools are still there, for a while.
    let started = site.start("demo", "echo", json!({"message": "still here?"})).await;
    let early = site.mesh.wait(&started, Duration::from_millis(300), None).await;
    assert_eq!(early.expect("a message"), Outcome::Pending);
    let task = site.task(&site.admin(), started.id, |_| true).await;
    let words = format!("{:?}", task.state);
    assert!(words.contains("waits for a machine that offers demo"), "{words}");
    let _machine = Machine::start(&site.db, &[]).await;
    assert_eq!(text(&result(site.end(&started).await)), "still here?");
}

#[tokio::test]
async fn a_call_to_a_machine_that_stays_away_ends_with_its_deadline() {
    let site = Site::new().await;
    site.demo().await.leave().await;
    let clock = Stopwatch::start();
    let asked = Request {
        deadline: Some(Duration::from_millis(400)),
        ..request("demo", "echo", json!({"message": "?"}))
    };
    let started = site.mesh.start(&site.admin(), asked).await.expect("taken");
    let ended = result(site.end(&started).await);
    assert!(clock.elapsed() < Duration::from_secs(20));
    assert_eq!(ended["isError"], true);
    let said = text(&ended);
    let id = started.id.to_string();
    for part in ["demo__echo", "deadline_exceeded", "It was not called", id.as_str()] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(ended["_meta"]["cogo/class"], "deadline_exceeded");
    assert_eq!(ended["_meta"]["cogo/message_id"], json!(started.id));
    // Where nobody says how long, the configuration does.
    let started = site.start("demo", "echo", json!({"message": "?"})).await;
    let message = site.bus.message(started.id).await.expect("a message");
    let time = message.deadline_at.expect("a deadline") - message.created_at;
    assert_eq!(time.num_milliseconds(), 300_000);
}

#[tokio::test]
async fn a_call_is_cancelled_while_it_waits_and_while_it_runs() {
    let site = Site::new().await;
    let machine = site.demo().await;
    let who = site.sender(&["mcp-gateway/*"]);
    let asked = request("demo", "sleep", json!({"ms": 60_000}));
    let running = site.mesh.start(&who, asked.clone()).await.expect("taken");
    site.task(&who, running.id, |task| format!("{:?}", task.state).contains("runs")).await;
    let clock = Stopwatch::start();
    site.mesh.cancel(&who, running.id, "changed my mind").await.expect("cancelled");
    assert_eq!(site.end(&running).await, Outcome::Cancelled);
    assert!(clock.elapsed() < Duration::from_secs(10));
    // Again is no error, and of somebody else's call nothing is said.
    site.mesh.cancel(&who, running.id, "again").await.expect("it has ended");
    let stranger = site.sender(&["mcp-gateway/other"]);
    let refusal = site.mesh.cancel(&stranger, running.id, "mine?").await.expect_err("not theirs");
    assert!(matches!(refusal, Refusal::NoCall(id) if id == running.id), "{refusal:?}");
    machine.leave().await;
    let waiting = site.mesh.start(&who, asked).await.expect("taken");
    site.mesh.cancel(&who, waiting.id, "no more").await.expect("cancelled");
    assert_eq!(site.end(&waiting).await, Outcome::Cancelled);
}

#[tokio::test]
async fn progress_comes_as_it_is_made_and_before_the_end() {
    let site = Site::new().await;
    let _machine = site.demo().await;
    let started = site.start("demo", "sleep", json!({"ms": 400})).await;
    let mut reports = Vec::new();
    let mut note = |report: Value| reports.push(report["progress"].as_f64().expect("a number"));
    let outcome = site.mesh.wait(&started, PATIENCE, Some(&mut note)).await.expect("a message");
    assert_eq!(text(&result(outcome)), "slept 400 ms");
    assert!(!reports.is_empty() && reports.is_sorted(), "{reports:?}");
}

#[tokio::test]
async fn of_meta_the_tool_gets_what_is_its_business() {
    let (site, asks) = (Site::new().await, Asks::start().await);
    let _machine = site.machine(&[("asks", &asks.url)]).await;
    let meta = object(json!({"progressToken": "theirs", "com.example/user": "u-1",
        "cogo/message_id": "forged", "io.modelcontextprotocol/clientInfo": {"name": "x", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {"elicitation": {}, "extensions": {"a/b": {}}}}));
    let asked = Request { meta, ..request("asks", "meta", json!({})) };
    let started = site.mesh.start(&site.admin(), asked).await.expect("taken");
    let got: Value =
        serde_json::from_str(text(&result(site.end(&started).await))).expect("its _meta");
    assert_eq!(got["com.example/user"], "u-1");
    assert_eq!(got["cogo/message_id"], json!(started.id));
    assert_ne!(got["progressToken"], "theirs");
    assert_eq!(got["io.modelcontextprotocol/clientCapabilities"], json!({"elicitation": {}}));
    assert_eq!(got["io.modelcontextprotocol/clientInfo"]["name"], "cogo");
}

#[tokio::test]
async fn of_machines_that_share_a_toolset_one_without_the_tool_leaves_the_call_to_the_others() {
    let site = Site::new().await;
    let one = Shelf::with([tool("both", "b"), tool("only", "o")]).await;
    let other = Shelf::with([tool("both", "b")]).await;
    let _has_it = site.machine(&[("shelf", &one.url)]).await;
    let definition = async |name: &str| {
        let started = site.start("shelf", name, json!({})).await;
        site.bus.message(started.id).await.expect("a message").payload["definition"].clone()
    };
    assert_eq!(
        definition("only").await,
        Value::Null,
        "while there is one machine, it is not needed"
    );
    let _lacks_it = site.machine(&[("shelf", &other.url)]).await;
    site.until_offers(|snapshot| snapshot.get("shelf", "both").is_some_and(|it| it.workers == 2))
        .await;
    assert_eq!(definition("both").await, Value::Null);
    assert!(definition("only").await.is_string(), "it says for which machine it is");
    for _ in 0..6 {
        // By chance the other may be the first each time; then it was not for good.
        let ended = result(site.call("shelf", "only", json!({})).await);
        let class = &ended["_meta"]["cogo/class"];
        assert!(ended["isError"] != true || class == "connect", "{ended}");
    }
}
