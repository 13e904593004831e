//! The demo server, called through the same path as any other.

use std::sync::{Arc, Mutex};

use cogo::retry::ErrorClass;
use cogo::shutdown::Shutdown;
use cogo_worker_mcp_gateway::config::Toolset;
use cogo_worker_mcp_gateway::demo::Demo;
use cogo_worker_mcp_gateway::upstream::Call;
use serde_json::json;
use tokio_tungstenite::tungstenite::client::ClientRequestBuilder;
use tokio_util::sync::CancellationToken;

use crate::support::{PATIENCE, call, object, text, upstream};

#[tokio::test]
async fn the_demo_server_answers_by_the_newest_protocol() {
    let shutdown = Shutdown::new();
    let demo = Demo::start(shutdown.clone()).await.expect("a free port");
    let upstream = upstream(Toolset::at(&demo.url));
    let echo = call(&upstream, "echo", json!({"message": "hello"})).await.expect("an answer");
    assert_eq!(text(&echo.result), "hello");
    assert_eq!(echo.server.protocol, "2026-07-28");
    let add = call(&upstream, "add", json!({"a": 2, "b": 0.5})).await.expect("an answer");
    assert_eq!(add.result["structuredContent"]["sum"], 2.5);
    let fail = call(&upstream, "fail", json!({"message": "oh no"})).await.expect_err("it fails");
    assert_eq!(fail.class, ErrorClass::ToolError);
    assert!(fail.message.contains("oh no"), "{fail}");
    for params in [json!({}), json!({"message": 1}), json!({"message": "a", "b": 1})] {
        let error = call(&upstream, "echo", params).await.expect_err("wrong arguments");
        assert_eq!((error.class, error.sent), (ErrorClass::InvalidParams, true));
    }
    let report = upstream.ping().await.expect("an answer");
    assert_eq!(report.tools, ["add", "echo", "fail", "sleep"]);
    assert!(upstream.tool("sleep").expect("listed").repeatable());
    shutdown.cancel();
    demo.stopped().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_calls_at_once_get_their_own_answers() {
    let demo = Demo::start(Shutdown::new()).await.expect("a free port");
    let upstream = upstream(Toolset::at(&demo.url));
    let calls = (0..2000).map(|number| {
        let upstream = Arc::clone(&upstream);
        async move {
            let message = format!("message {number}");
            let reply = call(&upstream, "echo", json!({"message": message})).await;
            assert_eq!(text(&reply.expect("an answer").result), message);
        }
    });
    futures_util::future::join_all(calls).await;
}

#[tokio::test]
async fn sleep_reports_progress_and_can_be_cancelled() {
    let demo = Demo::start(Shutdown::new()).await.expect("a free port");
    let upstream = upstream(Toolset::at(&demo.url));
    let (reports, cancel) = (Arc::new(Mutex::new(Vec::new())), CancellationToken::new());
    let (sink, trigger) = (Arc::clone(&reports), cancel.clone());
    let call = Call {
        cancel,
        progress: Arc::new(move |report| {
            let mut reports = sink.lock().expect("no panics");
            reports.push(report);
            if reports.len() == 3 {
                trigger.cancel();
            }
        }),
        ..Call::new("sleep", object(json!({"ms": 3_600_000})), PATIENCE)
    };
    let error = upstream.call(call).await.expect_err("cancelled");
    assert_eq!(error.class, ErrorClass::Closed, "sleeping again does no harm");
    let reports = reports.lock().expect("no panics").clone();
    assert!(
        reports.windows(2).all(|two| { two[0]["progress"].as_f64() < two[1]["progress"].as_f64() })
    );
}

#[tokio::test]
async fn the_demo_server_refuses_a_foreign_origin_and_host() {
    let demo = Demo::start(Shutdown::new()).await.expect("a free port");
    let request = || ClientRequestBuilder::new(demo.url.parse().expect("a URL"));
    let host = demo.url.trim_start_matches("ws://");
    assert!(tokio_tungstenite::connect_async(request()).await.is_ok());
    let own = request().with_header("Origin", format!("http://{host}"));
    assert!(tokio_tungstenite::connect_async(own).await.is_ok());
    let foreign = request().with_header("Origin", "http://evil.example");
    let refused = tokio_tungstenite::connect_async(foreign).await.expect_err("refused");
    assert!(refused.to_string().contains("403"), "{refused}");
}
