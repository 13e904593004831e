//! Sessions, as MCP had them before 2026-07-28.

use serde_json::json;

use super::wire::{Wire, call, initialize, of_session, read, until};
use crate::mesh::site::{Machine, Site};

#[tokio::test]
async fn a_session_serves_tools_and_ends() {
    let site = Site::new().await;
    let _machine = site.demo().await;
    let wire = Wire::of(&site).await;
    let id = wire.session().await;
    let called = wire.post(&call("a", "demo__echo", json!({"message": "hi"})), &of_session(&id)).await;
    assert_eq!(called.last()["id"], "a");
    assert_eq!(called.result()["content"][0]["text"], "hi");
    assert!(called.result().get("resultType").is_none(), "older clients get what they know");
    let unknown = wire.post(&call(2, "demo__nothing", json!({})), &of_session(&id)).await;
    assert_eq!((unknown.status, unknown.code()), (200, -32602));
    let ping = json!({"jsonrpc": "2.0", "id": 3, "method": "ping"});
    assert!(wire.post(&ping, &of_session(&id)).await.result().is_object());
    let end = wire.http.delete(&wire.url).bearer_auth(&wire.token).header("mcp-session-id", &id);
    assert!(end.send().await.expect("an answer").status().is_success());
    let gone = wire.post(&call(4, "demo__echo", json!({"message": "hi"})), &of_session(&id)).await;
    assert_eq!((gone.status, gone.code()), (404, -32001));
}

#[tokio::test]
async fn a_session_is_its_openers_alone() {
    let site = Site::new().await;
    let _machine = site.demo().await;
    let wire = Wire::of(&site).await;
    let id = wire.session().await;
    let other = wire.with_token(site.key(&["mcp-gateway/demo"], 60));
    let body = call(1, "demo__echo", json!({"message": "hi"}));
    assert_eq!(other.post(&body, &of_session(&id)).await.status, 404);
    let stream = other.http.get(&other.url).bearer_auth(&other.token).header("mcp-session-id", &id);
    let stream = stream.header("accept", "text/event-stream").send().await.expect("an answer");
    assert_eq!(stream.status().as_u16(), 404);
    let end = other.http.delete(&other.url).bearer_auth(&other.token).header("mcp-session-id", &id);
    assert_eq!(end.send().await.expect("an answer").status().as_u16(), 404);
    // Nor does it serve another path.
    assert_eq!(wire.at("/toolsets/demo").post(&body, &of_session(&id)).await.status, 404);
    assert_eq!(wire.post(&body, &of_session(&id)).await.status, 200);
}

#[tokio::test]
async fn there_are_so_many_sessions_and_no_more() {
    let mut options = cogo::hub::Options::default();
    options.mcp.max_sessions_per_key = 1;
    let site = Site::with_options(cogo_worker_mcp_gateway::config::Mesh::default(), options).await;
    let wire = Wire::of(&site).await;
    let id = wire.session().await;
    let refused = wire.post(&initialize(json!({})), &[]).await;
    assert_eq!((refused.status, refused.code()), (429, -32005));
    let other = wire.with_token(site.key(&["mcp-gateway/demo"], 60));
    other.session().await;
    let end = wire.http.delete(&wire.url).bearer_auth(&wire.token).header("mcp-session-id", &id);
    assert!(end.send().await.expect("an answer").status().is_success());
    wire.session().await;
}

#[tokio::test]
async fn a_session_hears_that_tools_have_come() {
    let site = Site::new().await;
    let wire = Wire::of(&site).await;
    let id = wire.session().await;
    let stream = wire.http.get(&wire.url).bearer_auth(&wire.token).header("mcp-session-id", &id);
    let stream = stream.header("accept", "text/event-stream").send().await.expect("an answer");
    assert_eq!(stream.status().as_u16(), 200);
    let _machine = Machine::start(&site.db, &[]).await;
    until(stream, |message| message["method"] == "notifications/tools/list_changed").await;
}

#[tokio::test]
async fn a_client_of_today_subscribes_to_changes() {
    let site = Site::new().await;
    let wire = Wire::of(&site).await;
    let params = json!({"notifications": {"toolsListChanged": true}});
    let stream = wire.modern("subscriptions/listen", params, false).send().await.expect("an answer");
    assert_eq!(stream.status().as_u16(), 200);
    let _machine = Machine::start(&site.db, &[]).await;
    until(stream, |message| message["method"] == "notifications/tools/list_changed").await;
}

#[tokio::test]
async fn a_stream_ends_with_its_key() {
    let site = Site::new().await;
    let wire = Wire::of(&site).await;
    // Keys are taken for some seconds after their end (the leeway of clocks).
    let short = wire.with_token(site.key(&["mcp-gateway/demo"], 2 - cogo::identity::LEEWAY_S));
    let params = json!({"notifications": {"toolsListChanged": true}});
    let stream = short.modern("subscriptions/listen", params, false).send().await.expect("an answer");
    assert_eq!(stream.status().as_u16(), 200);
    let ended = read(stream).await;
    assert!(ended.messages.len() <= 2, "{ended:?}");
}

#[tokio::test]
async fn a_session_cancels_its_call() {
    let site = Site::new().await;
    let _machine = site.demo().await;
    let wire = Wire::of(&site).await;
    let id = wire.session().await;
    let body = call("long", "demo__sleep", json!({"ms": 60_000}));
    let calling = wire.request(&body.to_string(), &of_session(&id)).send();
    let cancelling = async {
        while site.messages().await == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        let told = json!({"jsonrpc": "2.0", "method": "notifications/cancelled",
            "params": {"requestId": "long"}});
        assert_eq!(wire.post(&told, &of_session(&id)).await.status, 202);
    };
    let (answer, ()) = tokio::join!(calling, cancelling);
    let answered = read(answer.expect("an answer")).await;
    assert!(answered.messages.is_empty(), "nothing is answered: {answered:?}");
}
