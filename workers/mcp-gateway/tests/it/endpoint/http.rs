//! Streamable HTTP without sessions, and its boundaries.

use std::time::Duration;

use cogo::bus::ClaimRequest;
use cogo::bus::offer::NewDefinition;
use cogo::message::Status;
use cogo_worker_mcp_gateway::catalogue::canonical;
use serde_json::json;

use super::wire::{MODERN, Wire, call, modern, read};
use crate::mesh::site::Site;
use crate::support::PATIENCE;

#[tokio::test]
async fn tools_are_listed_and_called_as_their_server_has_them() {
    let site = Site::new().await;
    let _machine = site.demo().await;
    let wire = Wire::of(&site).await;
    let listed = wire.ask("tools/list", json!({})).await;
    assert_eq!(listed.headers["content-type"], "application/json");
    let tools = listed.result()["tools"].as_array().expect("tools").clone();
    let names: Vec<_> = tools.iter().filter_map(|tool| tool["name"].as_str()).collect();
    assert!(names.is_sorted(), "{names:?}");
    assert!(names.contains(&"demo__echo") && names.contains(&"cogo__get_message"), "{names:?}");
    let echo = tools.iter().find(|tool| tool["name"] == "demo__echo").expect("echo");
    assert_eq!(echo["inputSchema"]["required"], json!(["message"]));
    assert_eq!(echo["annotations"]["readOnlyHint"], true);
    assert_eq!(
        (&listed.result()["resultType"], &listed.result()["cacheScope"]),
        (&json!("complete"), &json!("private"))
    );

    let called =
        wire.ask("tools/call", json!({"name": "demo__add", "arguments": {"a": 1, "b": 2}}));
    let called = called.await;
    let result = called.result();
    assert_eq!(result["structuredContent"], json!({"sum": 3.0}));
    let id = result["_meta"]["cogo/message_id"].as_str().expect("an id").parse().expect("an id");
    let message = site.admin().message(id).await.expect("the message");
    assert_eq!(message.status, Status::Done);
    assert_eq!(result["_meta"]["cogo/trace_id"], json!(message.trace_id));
}

#[tokio::test]
async fn one_toolset_is_served_alone_under_its_tools_own_names() {
    let site = Site::new().await;
    let _machine = site.demo().await;
    let wire = Wire::of(&site).await.at("/toolsets/demo");
    let listed = wire.ask("tools/list", json!({})).await;
    let tools = listed.result()["tools"].as_array().expect("tools").clone();
    let names: Vec<_> = tools.iter().filter_map(|tool| tool["name"].as_str()).collect();
    assert_eq!(names, ["add", "echo", "fail", "sleep"]);
    let called =
        wire.ask("tools/call", json!({"name": "echo", "arguments": {"message": "hi"}})).await;
    assert_eq!(called.result()["content"][0]["text"], "hi");
}

#[tokio::test]
async fn a_tools_failure_is_its_own_result_and_wrong_arguments_name_the_place() {
    let site = Site::new().await;
    let _machine = site.demo().await;
    let wire = Wire::of(&site).await;
    let failed =
        wire.ask("tools/call", json!({"name": "demo__fail", "arguments": {"message": "no"}}));
    let failed = failed.await;
    assert_eq!(failed.result()["isError"], true);
    assert_eq!(failed.result()["content"][0]["text"], "no");
    let before = site.messages().await;
    let wrong =
        wire.ask("tools/call", json!({"name": "demo__echo", "arguments": {"message": 7}})).await;
    assert_eq!(wrong.result()["isError"], true);
    assert_eq!(wrong.result()["_meta"]["cogo/pointer"], "/message");
    let unknown = wire.ask("tools/call", json!({"name": "demo__ecko", "arguments": {}})).await;
    assert_eq!((unknown.status, unknown.code()), (200, -32602));
    assert_eq!(unknown.last()["error"]["data"]["near"], json!(["demo__echo"]));
    assert_eq!(site.messages().await, before, "nothing was queued");
}

#[tokio::test]
async fn who_may_not_is_refused_before_anything_is_read() {
    let site = Site::new().await;
    let _machine = site.demo().await;
    let wire = Wire::of(&site).await;
    let nobody = wire.with_token("").ask("tools/list", json!({})).await;
    assert_eq!(nobody.status, 401);
    assert!(nobody.headers.contains_key("www-authenticate"));
    assert_eq!(wire.with_token("wrong").ask("tools/list", json!({})).await.status, 401);
    let foreign =
        wire.modern("tools/list", json!({}), false).header("origin", "https://evil.example");
    assert_eq!(read(foreign.send().await.expect("an answer")).await.status, 403);
    let rebound = wire.modern("tools/list", json!({}), false).header("host", "evil.example");
    assert!(matches!(read(rebound.send().await.expect("an answer")).await.status, 400 | 403 | 421));

    // A key sees and calls what it may send to.
    let other = wire.with_token(site.key(&["mcp-gateway/other"], 60));
    let listed = other.ask("tools/list", json!({})).await;
    let tools = listed.result()["tools"].as_array().expect("tools").clone();
    assert!(
        !tools.iter().any(|tool| tool["name"].as_str().unwrap_or_default().starts_with("demo"))
    );
    let called =
        other.ask("tools/call", json!({"name": "demo__echo", "arguments": {"message": "x"}}));
    assert_eq!(called.await.code(), -32602);
    let own = wire.with_token(site.key(&["mcp-gateway/demo"], 60));
    let called =
        own.ask("tools/call", json!({"name": "demo__echo", "arguments": {"message": "x"}}));
    assert_eq!(called.await.result()["content"][0]["text"], "x");
}

#[tokio::test]
async fn what_a_request_says_of_itself_must_be_whole_and_agree() {
    let site = Site::new().await;
    let wire = Wire::of(&site).await;
    let send = async |body: &str, headers: &[(&str, &str)]| {
        let answered = read(wire.request(body, headers).send().await.expect("an answer")).await;
        (answered.status, answered.last()["error"]["code"].as_i64())
    };
    assert_eq!(send("{", &[]).await, (400, Some(-32700)));
    assert_eq!(send("[]", &[]).await, (400, Some(-32600)));
    assert_eq!(send(&call(1, "x", json!({})).to_string(), &[]).await, (400, Some(-32600)));
    let (body, headers) = modern("tools/list", json!({}), false);
    let body = body.to_string();
    let without = |name: &str| -> Vec<(String, String)> {
        headers.iter().filter(|(known, _)| known != name).cloned().collect()
    };
    fn borrowed(headers: &[(String, String)]) -> Vec<(&str, &str)> {
        headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }
    assert_eq!(send(&body, &borrowed(&without("mcp-method"))).await, (400, Some(-32020)));
    assert_eq!(send(&body, &borrowed(&without("mcp-protocol-version"))).await, (400, Some(-32020)));
    let body = body.replace(MODERN, "2099-01-01");
    let mut headers = without("mcp-protocol-version");
    headers.push(("mcp-protocol-version".to_owned(), "2099-01-01".to_owned()));
    assert_eq!(send(&body, &borrowed(&headers)).await, (400, Some(-32022)));
    let unknown = wire.ask("tasks/list", json!({})).await;
    assert_eq!((unknown.status, unknown.code()), (404, -32601));
}

#[tokio::test]
async fn progress_comes_in_order_and_before_the_result() {
    let site = Site::new().await;
    let _machine = site.demo().await;
    let wire = Wire::of(&site).await;
    let params =
        json!({"name": "demo__sleep", "arguments": {"ms": 700}, "_meta": {"progressToken": "p"}});
    let answered = wire.ask("tools/call", params).await;
    let (last, before) = answered.messages.split_last().expect("messages");
    assert!(last["result"]["content"].is_array(), "{answered:?}");
    assert!(before.len() >= 2, "{answered:?}");
    let reports: Vec<f64> = before
        .iter()
        .map(|note| {
            assert_eq!(note["method"], "notifications/progress");
            assert_eq!(note["params"]["progressToken"], "p");
            note["params"]["progress"].as_f64().expect("a number")
        })
        .collect();
    assert!(reports.is_sorted(), "{reports:?}");
}

#[tokio::test]
async fn a_client_that_goes_away_finds_its_result_by_its_idempotency_key() {
    let site = Site::new().await;
    let _machine = site.demo().await;
    let wire = Wire::of(&site).await;
    let params = json!({"name": "demo__sleep", "arguments": {"ms": 1500},
        "_meta": {"cogo/idempotency_key": "once"}});
    let request = wire.modern("tools/call", params.clone(), false).send();
    let gone = tokio::time::timeout(Duration::from_millis(600), request).await;
    assert!(gone.is_err(), "it was still waiting: {gone:?}");
    let answered = wire.ask("tools/call", params).await;
    assert_eq!(answered.result()["content"][0]["text"], "slept 1500 ms");
    let id = answered.result()["_meta"]["cogo/message_id"].clone();
    let events = id.as_str().expect("an id").parse().expect("an id");
    let events = site.admin().message_events(events, 100).await.expect("events");
    let started = events.iter().filter(|event| event.event_type == "mcp_call_scheduled").count();
    assert_eq!(started, 1, "it was queued once: {events:?}");
    let other = json!({"name": "demo__sleep", "arguments": {"ms": 1}, "_meta": {"cogo/idempotency_key": "once"}});
    assert_eq!(wire.ask("tools/call", other).await.code(), -32004);
    // The header does as well.
    let request =
        wire.modern("tools/call", json!({"name": "demo__sleep", "arguments": {"ms": 1500}}), false);
    let answered =
        read(request.header("idempotency-key", "once").send().await.expect("an answer")).await;
    assert_eq!(answered.result()["_meta"]["cogo/message_id"], id, "it is the same call");
}

#[tokio::test]
async fn a_call_for_a_machine_that_is_away_waits_for_it() {
    let site = Site::new().await;
    let machine = site.demo().await;
    let wire = Wire::of(&site).await;
    machine.leave().await;
    let waiting = {
        let wire = wire.clone();
        async move {
            wire.ask("tools/call", json!({"name": "demo__echo", "arguments": {"message": "late"}}))
                .await
        }
    };
    let back = async {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        site.demo().await
    };
    let (answered, _machine) = tokio::join!(waiting, back);
    assert_eq!(answered.result()["content"][0]["text"], "late");
    assert_eq!(answered.headers["content-type"], "text/event-stream");
}

#[tokio::test]
async fn a_deadline_ends_the_wait_for_a_machine_that_stays_away() {
    let site = Site::new().await;
    let machine = site.demo().await;
    let wire = Wire::of(&site).await;
    machine.leave().await;
    let params = json!({"name": "demo__echo", "arguments": {"message": "x"}, "_meta": {"cogo/timeout_ms": 500}});
    let answered =
        tokio::time::timeout(PATIENCE, wire.ask("tools/call", params)).await.expect("in time");
    let result = answered.result();
    assert_eq!(result["isError"], true);
    assert!(result["_meta"]["cogo/message_id"].is_string(), "{result}");
}

#[tokio::test]
async fn a_call_is_cancelled_by_a_notification_and_the_tool_hears_of_it() {
    let site = Site::new().await;
    let _machine = site.demo().await;
    let wire = Wire::of(&site).await;
    let params = json!({"name": "demo__sleep", "arguments": {"ms": 60_000}, "_meta": {"cogo/idempotency_key": "long"}});
    let (wire, other) = (wire.clone(), wire);
    let calling = async {
        let answered = wire.ask("tools/call", params).await;
        assert!(
            answered.messages.iter().all(|message| message.get("result").is_none()),
            "{answered:?}"
        );
    };
    let cancelling = async {
        while site.messages().await == 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        let told = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}});
        assert_eq!(other.post(&told, &[]).await.status, 202);
    };
    tokio::time::timeout(PATIENCE, async { tokio::join!(calling, cancelling) })
        .await
        .expect("in time");
    let again = json!({"name": "demo__sleep", "arguments": {"ms": 60_000}, "_meta": {"cogo/idempotency_key": "long"}});
    let found = other.ask("tools/call", again).await;
    let text = found.result()["content"][0]["text"].as_str().expect("text").to_owned();
    assert!(text.contains("was cancelled"), "{text}");
}

#[tokio::test]
async fn a_key_may_wait_for_so_many_calls_and_no_more() {
    let mut options = cogo::hub::Options::default();
    options.mcp.max_calls_per_key = 1;
    let site = Site::with_options(cogo_worker_mcp_gateway::config::Mesh::default(), options).await;
    let _machine = site.demo().await;
    let wire = Wire::of(&site).await;
    let long =
        wire.modern("tools/call", json!({"name": "demo__sleep", "arguments": {"ms": 3000}}), false);
    let waiting = cogo::shutdown::Tasks::new().spawn(long.send());
    let mut refused = None;
    for _ in 0..100 {
        let answered = wire.ask("tools/list", json!({})).await;
        if answered.status == 429 {
            refused = Some(answered);
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let refused = refused.expect("one too many");
    assert_eq!(refused.code(), -32005);
    assert!(refused.last()["error"]["data"]["retry_after_ms"].is_number());
    // Another key has places of its own.
    let other = wire.with_token(site.key(&["mcp-gateway/demo"], 60));
    assert_eq!(other.ask("tools/list", json!({})).await.status, 200);
    let answered = read(waiting.await.expect("it ends").expect("an answer")).await;
    assert_eq!(answered.result()["content"][0]["text"], "slept 3000 ms");
}

#[tokio::test]
async fn what_a_result_links_to_is_read_by_whose_it_is() {
    let site = Site::new().await;
    let wire = Wire::of(&site).await;
    let text =
        site.store.put("default", b"a long text".to_vec(), "text/plain").await.expect("it is kept");
    let image = site.store.put("default", vec![0xff, 0, 1], "image/png").await.expect("it is kept");
    let read = wire.ask("resources/read", json!({"uri": text.uri()})).await;
    assert_eq!(read.result()["contents"][0]["text"], "a long text");
    let read = wire.ask("resources/read", json!({"uri": image.uri()})).await;
    assert_eq!(read.result()["contents"][0]["blob"], "/wAB");
    assert_eq!(read.result()["contents"][0]["mimeType"], "image/png");
    let foreign =
        site.store.put("other", b"not yours".to_vec(), "text/plain").await.expect("it is kept");
    let key = wire.with_token(site.key(&["mcp-gateway/demo"], 60));
    assert_eq!(key.ask("resources/read", json!({"uri": foreign.uri()})).await.code(), -32602);
    assert_eq!(
        wire.ask("resources/read", json!({"uri": "file:///etc/passwd"})).await.code(),
        -32602
    );
    let templates = wire.ask("resources/templates/list", json!({})).await;
    assert!(templates.result()["resourceTemplates"].is_array());
}

#[tokio::test]
async fn who_is_slow_to_take_artifacts_has_few_of_them_in_memory() {
    let site = Site::new().await;
    let wire = Wire::of(&site).await;
    let large =
        site.store.put("default", vec![0; 16 << 20], "text/plain").await.expect("it is kept");
    let uri = json!({"uri": large.uri()});
    let mut slow = Vec::new();
    for _ in 0..4 {
        let begun =
            wire.modern("resources/read", uri.clone(), false).send().await.expect("an answer");
        assert_eq!(begun.status(), 200);
        slow.push(begun);
    }
    let refused = wire.ask("resources/read", uri.clone()).await;
    assert_eq!((refused.status, refused.code()), (429, -32005));
    assert!(refused.last()["error"]["data"]["retry_after_ms"].is_number());
    assert_eq!(wire.ask("tools/list", json!({})).await.status, 200, "all else is as it was");
    let other = wire.with_token(site.key(&["mcp-gateway/demo"], 60));
    let whole = other.ask("resources/read", uri.clone()).await;
    assert!(
        whole.result()["contents"][0].get("text").is_none(),
        "in JSON it is six times as large"
    );
    assert!(
        whole.result()["contents"][0]["blob"].as_str().is_some_and(|blob| blob.len() > 16 << 20)
    );
    // Once they are taken, or their client has gone, there is room again.
    let taken = read(slow.pop().expect("one")).await;
    assert!(taken.result()["contents"][0]["blob"].is_string());
    drop(slow);
    let again = async {
        while wire.ask("resources/read", uri.clone()).await.status != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE * 5, again).await.expect("there is room");
}

#[tokio::test]
async fn a_tool_makes_no_task_of_a_call() {
    let site = Site::new().await;
    let definition = canonical::text(&json!({"name": "click", "inputSchema": {"type": "object"}}));
    let hash = canonical::hash(&definition);
    let new = NewDefinition { hash: hash.clone(), definition };
    site.bus.define("default", &[new]).await.expect("defined");
    let worker = json!({"id": "w", "role": "mcp-gateway", "topics": ["mcp-gateway/odd"],
        "info": {"toolsets": {"odd": {"tools": {"click": hash}}}}});
    site.bus.worker_seen(&worker).await.expect("seen");
    site.offered("odd").await;
    let wire = Wire::of(&site).await;
    let calling = wire.ask("tools/call", json!({"name": "odd__click", "arguments": {}}));
    let settling = async {
        let request = ClaimRequest {
            worker: "w".to_owned(),
            tenant: "default".to_owned(),
            topics: vec!["mcp-gateway/odd".to_owned()],
            max: 1,
            lease: PATIENCE,
        };
        let claim = loop {
            if let Some(claim) = site.bus.claim(&request).await.expect("claimed").pop() {
                break claim;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let another =
            json!({"resultType": "task", "taskId": claim.message().id, "status": "working"});
        claim.complete(another).await.expect("settled");
    };
    let (answered, ()) = tokio::join!(calling, settling);
    let result = answered.result();
    assert_eq!((&result["resultType"], &result["isError"]), (&json!("complete"), &json!(true)));
    assert!(result.get("taskId").is_none(), "{result}");
}
