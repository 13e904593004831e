//! What becomes of a call when the server misbehaves, and that the connection recovers.

use std::sync::Arc;
use std::time::Duration;

use cogo::retry::ErrorClass::{
    Ambiguous, Closed, Connect, InvalidParams, Protocol, Timeout, ToolError,
};
use cogo_worker_mcp_gateway::config::Toolset;
use cogo_worker_mcp_gateway::upstream::{Call, Upstream};
use serde_json::{Map, json};

use crate::support::sick::{Discover, FINE, Sick};
use crate::support::{PATIENCE, call, eventually, failure, text, upstream};

/// Long enough for a local answer, short enough to wait for in a test.
const SOON: u64 = 250;

async fn sick() -> (Sick, Arc<Upstream>) {
    let sick = Sick::start(Discover::Refused).await;
    let toolset = Toolset { max_frame_bytes: 64 << 10, ..Toolset::at(&sick.url) };
    let upstream = upstream(toolset);
    (sick, upstream)
}

async fn assert_recovered(upstream: &Upstream) {
    let reply = call(upstream, "healthy", json!({})).await.expect("the connection has recovered");
    assert_eq!(text(&reply.result), FINE);
}

#[tokio::test]
async fn a_silent_tool_is_ambiguous_unless_it_may_be_repeated() {
    let (sick, upstream) = sick().await;
    assert_eq!(failure(&upstream, "silent", SOON).await, (Ambiguous, true));
    assert_eq!(failure(&upstream, "silent_ro", SOON).await, (Timeout, true));
    assert_eq!(failure(&upstream, "silent_idempotent", SOON).await, (Timeout, true));
    assert_recovered(&upstream).await;
    assert_eq!(sick.count("initialize"), 1, "a timeout costs no connection");
}

#[tokio::test]
async fn a_timed_out_call_is_cancelled_and_its_late_reply_ignored() {
    let (sick, upstream) = sick().await;
    assert_eq!(failure(&upstream, "silent", SOON).await, (Ambiguous, true));
    let request = sick.heard(|message| message["params"]["name"] == "silent").await;
    let cancelled = sick.heard(|message| message["method"] == "notifications/cancelled").await;
    assert_eq!(cancelled["params"]["requestId"], request["id"]);
    assert_recovered(&upstream).await; // although the late reply came first
}

#[tokio::test]
async fn a_call_whose_caller_goes_away_is_cancelled() {
    let (sick, upstream) = sick().await;
    let call = upstream.call(Call::new("silent", Map::new(), PATIENCE));
    tokio::select! {
        outcome = call => panic!("a silent tool answered: {outcome:?}"),
        _ = sick.heard(|message| message["params"]["name"] == "silent") => {}
    }
    sick.heard(|message| message["method"] == "notifications/cancelled").await;
}

#[tokio::test]
async fn a_second_reply_and_noise_are_survived() {
    let (sick, upstream) = sick().await;
    for tool in ["twice", "noisy", "healthy"] {
        let reply = call(&upstream, tool, json!({})).await.expect(tool);
        assert_eq!(text(&reply.result), FINE, "{tool}");
    }
    assert_eq!(sick.count("initialize"), 1);
}

#[tokio::test]
async fn a_reply_that_breaks_the_protocol_fails_its_call_at_once() {
    let (sick, upstream) = sick().await;
    for tool in ["number", "hollow", "bad_error", "wants_input", "misreads"] {
        assert_eq!(failure(&upstream, tool, 60_000).await, (Protocol, true), "{tool}");
    }
    assert_recovered(&upstream).await;
    assert_eq!(sick.count("initialize"), 1);
}

#[tokio::test]
async fn a_reply_that_is_no_json_fails_its_call_at_once() {
    let (sick, upstream) = sick().await;
    for tool in ["not_a_number", "too_large", "too_deep"] {
        assert_eq!(failure(&upstream, tool, 60_000).await, (Protocol, true), "{tool}");
    }
    let reply = call(&upstream, "half_a_character", json!({})).await.expect("an answer");
    assert_eq!(text(&reply.result), "\u{fffd}!");
    assert_recovered(&upstream).await;
    assert_eq!(sick.count("initialize"), 1);
}

#[tokio::test]
async fn an_oversized_reply_is_blamed_on_the_only_call_in_flight() {
    let (sick, upstream) = sick().await;
    assert_eq!(failure(&upstream, "oversized", 60_000).await, (Protocol, true));
    assert_recovered(&upstream).await;
    assert_eq!(sick.count("initialize"), 2, "the connection is lost with it");
}

#[tokio::test]
async fn an_oversized_reply_is_blamed_on_nobody_when_several_wait() {
    let (sick, upstream) = sick().await;
    let others = tokio::join!(
        failure(&upstream, "silent", 60_000),
        failure(&upstream, "silent_ro", 60_000),
        async {
            sick.heard(|message| message["params"]["name"] == "silent").await;
            sick.heard(|message| message["params"]["name"] == "silent_ro").await;
            failure(&upstream, "oversized_ro", 60_000).await
        },
    );
    assert_eq!(others, ((Ambiguous, true), (Closed, true), (Closed, true)));
    assert_recovered(&upstream).await;
}

#[tokio::test]
async fn a_connection_that_closes_mid_call_is_made_again() {
    let (sick, upstream) = sick().await;
    assert_eq!(failure(&upstream, "closes", 60_000).await, (Ambiguous, true));
    assert_eq!(failure(&upstream, "closes_ro", 60_000).await, (Closed, true));
    assert_eq!(failure(&upstream, "says_goodbye", 60_000).await, (Ambiguous, true));
    assert_recovered(&upstream).await;
    assert_eq!(sick.count("initialize"), 4);
}

#[tokio::test]
async fn json_rpc_errors_are_told_apart() {
    let (_sick, upstream) = sick().await;
    assert_eq!(failure(&upstream, "refuses", 60_000).await, (InvalidParams, true));
    assert_eq!(failure(&upstream, "breaks", 60_000).await, (ToolError, true));
    let error = call(&upstream, "breaks", json!({})).await.expect_err("it breaks");
    assert_eq!(error.detail, Some(json!({"code": -32603, "message": "disk full"})));
}

#[tokio::test]
async fn a_result_comes_through_unchanged() {
    let (_sick, upstream) = sick().await;
    let reply = call(&upstream, "extra", json!({})).await.expect("an answer");
    let expected = json!({"content": [{"type": "hologram", "x": 1, "text": "h"}],
        "future": {"a": [1, 2.5]}, "isError": false});
    assert_eq!(reply.result, expected);
    let reply = call(&upstream, "string_id", json!({})).await.expect("a string, but our id");
    assert_eq!(reply.result, json!({"new": 1}));
}

#[tokio::test]
async fn what_a_server_asks_is_refused_and_its_ping_answered() {
    let (sick, upstream) = sick().await;
    call(&upstream, "asks", json!({})).await.expect("an answer");
    for id in [901, 902, 903, 905] {
        let answer = sick.heard(|message| message["id"] == id && message["method"].is_null()).await;
        assert_eq!(answer["error"]["code"], -32601, "{answer}");
    }
    let pong = sick.heard(|message| message["id"] == 904 && message["method"].is_null()).await;
    assert_eq!(pong["result"], json!({}));
}

#[tokio::test]
async fn a_ping_never_calls_a_tool() {
    let (sick, upstream) = sick().await;
    let report = upstream.ping().await.expect("an answer");
    assert_eq!((report.server.name.as_str(), report.tools.len()), ("sick", 25));
    assert_eq!(report.server.protocol, "2025-06-18");
    assert_eq!((sick.count("ping"), sick.count("tools/call")), (1, 0));
}

#[tokio::test]
async fn a_server_that_ignores_the_probe_is_begun_with_the_old_way() {
    for discover in [Discover::Ignored, Discover::HangsUp] {
        let sick = Sick::start(discover).await;
        let toolset = Toolset { connect_timeout_ms: 1000, ..Toolset::at(&sick.url) };
        let upstream = upstream(toolset);
        assert_recovered(&upstream).await;
        // It is remembered: the next connection does not ask again.
        assert_eq!(failure(&upstream, "closes", 60_000).await, (Ambiguous, true), "{discover:?}");
        assert_recovered(&upstream).await;
        assert_eq!((sick.count("server/discover"), sick.count("initialize")), (1, 2));
        upstream.close().await;
    }
}

#[tokio::test]
async fn changed_tools_are_seen_when_announced_and_when_not() {
    let (sick, upstream) = sick().await;
    assert_recovered(&upstream).await;
    sick.add_tool("announced", true);
    eventually("the new tool is listed", || upstream.tool("announced").is_some()).await;
    sick.add_tool("unannounced", false);
    assert!(upstream.tool("unannounced").is_none());
    call(&upstream, "unannounced", json!({})).await.expect("it was looked up");
}

#[tokio::test]
async fn a_server_of_the_newest_revision_tells_of_changed_tools_on_subscription() {
    let sick = Sick::start(Discover::Answered).await;
    let upstream = upstream(Toolset::at(&sick.url));
    assert_recovered(&upstream).await;
    assert_eq!(upstream.ping().await.expect("an answer").server.protocol, "2026-07-28");
    let request = sick.heard(|message| message["params"]["name"] == "healthy").await;
    let version = &request["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"];
    assert_eq!(version, "2026-07-28");
    sick.heard(|message| message["method"] == "subscriptions/listen").await;
    for tool in ["one", "another"] {
        sick.add_tool(tool, true);
        eventually("the new tool is listed", || upstream.tool(tool).is_some()).await;
    }
    assert_eq!((sick.count("subscriptions/listen"), sick.count("initialize")), (1, 0));
}

#[tokio::test]
async fn a_server_whose_tools_change_whenever_they_are_listed_is_not_asked_without_end() {
    let (sick, upstream) = sick().await;
    assert_recovered(&upstream).await;
    sick.announce_at_each_list();
    let before = sick.count("tools/list");
    sick.add_tool("one", true);
    eventually("the new tool is listed", || upstream.tool("one").is_some()).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    // Two pages a time: when it was announced, half a second later, and a second after that.
    let asked = sick.count("tools/list") - before;
    assert!((2..=8).contains(&asked), "{asked}");
    sick.add_tool("another", true);
    eventually("what is new is still seen", || upstream.tool("another").is_some()).await;
    assert_recovered(&upstream).await;
}

#[tokio::test]
async fn no_more_calls_are_in_flight_than_allowed() {
    let sick = Sick::start(Discover::Refused).await;
    let upstream = upstream(Toolset { max_in_flight: 1, ..Toolset::at(&sick.url) });
    let (first, second) = tokio::join!(failure(&upstream, "silent", SOON * 4), async {
        sick.heard(|message| message["params"]["name"] == "silent").await;
        failure(&upstream, "healthy", SOON).await
    });
    assert_eq!(first, (Ambiguous, true));
    assert_eq!(second, (Timeout, false), "it waited for a slot and was never sent");
    assert_recovered(&upstream).await;
}

#[tokio::test]
async fn the_toolsets_own_timeout_holds_too() {
    let sick = Sick::start(Discover::Refused).await;
    let upstream = upstream(Toolset { call_timeout_ms: Some(SOON), ..Toolset::at(&sick.url) });
    assert_eq!(failure(&upstream, "silent_ro", 60_000).await, (Timeout, true));
}

#[tokio::test]
async fn a_closed_upstream_fails_its_calls_at_once() {
    let (_sick, upstream) = sick().await;
    assert_recovered(&upstream).await;
    upstream.close().await;
    assert_eq!(failure(&upstream, "healthy", 60_000).await, (Connect, false));
    assert!(!upstream.state().connected);
}

#[tokio::test]
async fn a_server_that_does_not_speak_tls_is_a_matter_of_connecting() {
    let sick = Sick::start(Discover::Refused).await;
    for scheme in ["wss", "https"] {
        let url = sick.url.replacen("ws", scheme, 1);
        let upstream = upstream(Toolset::at(url));
        assert_eq!(failure(&upstream, "healthy", 60_000).await, (Connect, false), "{scheme}");
        upstream.close().await;
    }
}

#[tokio::test]
async fn meta_travels_with_the_request() {
    let (sick, upstream) = sick().await;
    let meta = json!({"cogo/message_id": "m1"}).as_object().cloned().expect("an object");
    let call = Call { meta, ..Call::new("healthy", Map::new(), Duration::from_secs(60)) };
    upstream.call(call).await.expect("an answer");
    let request = sick.heard(|message| message["params"]["name"] == "healthy").await;
    assert_eq!(request["params"]["_meta"]["cogo/message_id"], "m1");
    assert!(!request["params"]["_meta"]["progressToken"].is_null());
}
