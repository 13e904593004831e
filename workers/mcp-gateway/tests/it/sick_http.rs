//! What becomes of a call when a server over HTTP misbehaves, and that the connection recovers.

use std::sync::Arc;
use std::time::Duration;

use cogo::retry::ErrorClass::{Ambiguous, Closed, Connect, Protocol};
use cogo_worker_mcp_gateway::config::Toolset;
use cogo_worker_mcp_gateway::upstream::{Call, Upstream};
use serde_json::{Map, json};

use crate::support::sick::FINE;
use crate::support::sick_http::{Refusal, SickHttp};
use crate::support::{call, failure, text, upstream};

async fn sick() -> (SickHttp, Arc<Upstream>) {
    let sick = SickHttp::start().await;
    let upstream = upstream(Toolset { max_in_flight: 1, ..Toolset::at(&sick.url) });
    assert_recovered(&upstream).await;
    (sick, upstream)
}

async fn assert_recovered(upstream: &Upstream) {
    // Less than anybody's patience: what waits for a place that nobody gives back has failed.
    let call = Call::new("healthy", Map::new(), Duration::from_secs(20));
    let reply = upstream.call(call).await.expect("the connection has recovered");
    assert_eq!(text(&reply.result), FINE);
}

#[tokio::test]
async fn a_call_in_a_forgotten_session_was_not_sent_however_the_server_says_so() {
    for refusal in [Refusal::NotFound, Refusal::Nameless, Refusal::Echoed] {
        let (sick, upstream) = sick().await;
        sick.forget(refusal);
        assert_eq!(failure(&upstream, "healthy", 60_000).await, (Connect, false), "{refusal:?}");
        assert_recovered(&upstream).await;
        assert_eq!(sick.count("initialize"), 2, "{refusal:?}");
        upstream.close().await;
    }
}

#[tokio::test]
async fn a_ping_in_a_forgotten_session_is_answered_and_begins_a_new_one() {
    for refusal in [Refusal::NotFound, Refusal::Nameless, Refusal::Echoed] {
        let (sick, upstream) = sick().await;
        sick.forget(refusal);
        let error = upstream.ping().await.expect_err("the session is forgotten");
        assert_eq!(error.class, Closed, "{refusal:?}: {error}");
        upstream.ping().await.expect("there is a new session");
        assert_eq!((sick.count("initialize"), sick.count("ping")), (2, 2), "{refusal:?}");
        upstream.close().await;
    }
}

#[tokio::test]
async fn an_error_that_does_not_name_its_request_is_a_lost_reply() {
    let (_sick, upstream) = sick().await;
    assert_eq!(failure(&upstream, "mixed_up", 60_000).await, (Ambiguous, true));
    assert_eq!(failure(&upstream, "mixed_up_ro", 60_000).await, (Closed, true));
    assert_eq!(failure(&upstream, "throws", 60_000).await, (Ambiguous, true));
    assert_recovered(&upstream).await;
    upstream.close().await;
}

#[tokio::test]
async fn a_call_that_streams_outlives_the_session_that_another_finds_forgotten() {
    let sick = SickHttp::start().await;
    let upstream = upstream(Toolset::at(&sick.url));
    let (slow, ()) = tokio::join!(call(&upstream, "slow", json!({})), async {
        sick.asked("slow", 1).await;
        sick.forget(Refusal::NotFound);
        assert_eq!(failure(&upstream, "healthy", 60_000).await, (Connect, false));
        assert_recovered(&upstream).await;
        sick.release();
    });
    assert_eq!(text(&slow.expect("its own answer").result), FINE);
    assert_eq!(sick.count("slow"), 1);
    upstream.close().await;
}

#[tokio::test]
async fn what_is_not_answered_leaves_room_for_calls() {
    let (sick, upstream) = sick().await;
    let listed = sick.count("tools/list");
    sick.silence("ping");
    sick.silence("tools/list");
    // More of them than may be under way at once.
    for times in 1..=4 {
        tokio::select! {
            outcome = upstream.ping() => panic!("it waited for a place: {outcome:?}"),
            () = sick.asked("ping", times) => {}
        }
        tokio::select! {
            outcome = upstream.refresh() => panic!("it waited for a place: {outcome:?}"),
            () = sick.asked("tools/list", listed + times) => {}
        }
    }
    assert_recovered(&upstream).await;
    sick.asked("notifications/cancelled", 8).await;
    assert_eq!(sick.count("initialize"), 1);
    upstream.close().await;
}

#[tokio::test]
async fn a_reply_in_a_stream_that_is_no_json_ends_its_call() {
    let (sick, upstream) = sick().await;
    assert_eq!(failure(&upstream, "not_a_number", 60_000).await, (Protocol, true));
    let reply = call(&upstream, "half_a_character", json!({})).await.expect("an answer");
    assert_eq!(text(&reply.result), "\u{fffd}!");
    assert_recovered(&upstream).await;
    assert_eq!(sick.count("initialize"), 1);
    upstream.close().await;
}
