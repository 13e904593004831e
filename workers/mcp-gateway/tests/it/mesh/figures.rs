//! The hub's figures and lists know a call by the gateway's own words: the library repeats four of them.

use serde_json::json;

use super::site::Site;
use crate::support::PATIENCE;

#[tokio::test]
async fn a_call_is_counted_listed_and_found_under_its_toolset_and_tool() {
    let site = Site::new().await;
    let _machine = site.demo().await;
    let called = site.post("/api/mcp/demo/add?wait=20", json!({"a": 1, "b": 2}), &[]).await;
    assert_eq!(called.status, 200, "{called:?}");

    // Lists tell what is below the oldest running transaction, of any test on this server.
    let told = async {
        loop {
            let events = site.get("/api/metrics/mcp/events?toolset=demo&tool=add", &[]).await.json;
            if events["events"].as_array().is_some_and(|events| events.len() == 2) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, told).await.expect("both events of the call");
    let figures = site.get("/api/metrics/mcp/summary", &[]).await.json["mcp"].clone();
    assert_eq!((&figures["calls"], &figures["succeeded"]), (&json!(1), &json!(1)), "{figures}");
    let tool = &figures["tools"][0];
    assert_eq!((&tool["toolset"], &tool["tool"]), (&json!("demo"), &json!("add")));
    assert!(tool["p50_ms"].is_u64() && tool["handler_p50_ms"].is_u64(), "{tool}");

    let listed = site.get("/api/messages?tool=add&status=done", &[]).await.json;
    assert_eq!(listed["messages"][0]["id"], called.json["id"], "{listed}");
    let traces = site.get("/api/traces?toolset=demo&tool=add", &[]).await.json;
    assert_eq!(traces["traces"][0]["trace_id"], called.json["trace_id"], "{traces}");
    let workers = site.get("/api/workers?state=online", &[]).await.json;
    let worker = &workers["workers"][0];
    let tools = worker["toolsets"]["demo"].as_array().expect("its tools");
    assert!(tools.contains(&json!("add")), "{worker}");
    assert!(worker["capacity"].is_u64(), "{worker}");
}
