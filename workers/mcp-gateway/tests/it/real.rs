//! The official reference server and the Python SDK's, by every transport.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use cogo::retry::ErrorClass;
use cogo_worker_mcp_gateway::config::{EnvValue, FromEnv, Toolset};
use cogo_worker_mcp_gateway::upstream::Call;
use serde_json::{Map, json};
use tokio_util::sync::CancellationToken;

use crate::support::process::{
    Server, everything_over_http, everything_over_stdio, everything_over_websocket, python,
};
use crate::support::{PATIENCE, call, eventually, object, text, upstream};

fn patient(toolset: Toolset) -> Toolset {
    Toolset { connect_timeout_ms: 60_000, ..toolset }
}

#[tokio::test]
async fn the_reference_server_answers_over_websocket() {
    let server = Server::start(everything_over_websocket).await;
    let upstream = upstream(patient(Toolset::at(format!("ws://localhost:{}", server.port))));
    let reply = call(&upstream, "echo", json!({"message": "hello"})).await.expect("an answer");
    assert_eq!(text(&reply.result), "Echo: hello");
    assert_eq!(reply.server.protocol, "2025-11-25");

    let ping = upstream.ping().await.expect("an answer");
    assert!(ping.tools.contains(&"echo".to_owned()), "{ping:?}");
    assert!(upstream.state().connected);

    let unknown = call(&upstream, "nonsense", json!({})).await.expect_err("no such tool");
    assert_eq!((unknown.class, unknown.sent), (ErrorClass::InvalidParams, false));
    upstream.close().await;
}

#[tokio::test]
async fn the_reference_server_reports_progress() {
    let server = Server::start(everything_over_websocket).await;
    let upstream = upstream(patient(Toolset::at(format!("ws://localhost:{}", server.port))));
    let reports = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&reports);
    let params = object(json!({"duration": 0.4, "steps": 4}));
    let call = Call {
        progress: Arc::new(move |report| sink.lock().expect("no panics").push(report)),
        ..Call::new("trigger-long-running-operation", params, PATIENCE)
    };
    let reply = upstream.call(call).await.expect("an answer");
    assert!(text(&reply.result).contains("completed"), "{}", reply.result);
    let reports = reports.lock().expect("no panics").clone();
    assert!(!reports.is_empty());
    assert!(reports.iter().all(|report| report["total"] == 4.0), "{reports:?}");
    upstream.close().await;
}

#[tokio::test]
async fn the_python_server_answers_over_websocket() {
    let server = Server::start(python).await;
    let upstream = upstream(patient(Toolset::at(format!("ws://127.0.0.1:{}", server.port))));
    let reply = call(&upstream, "echo", json!({"message": "grüß dich"})).await.expect("an answer");
    assert_eq!(text(&reply.result), "grüß dich");
    assert_eq!(reply.server.name, "python-websocket");
    let error = call(&upstream, "divide", json!({"a": 1, "b": 0})).await.expect_err("by zero");
    assert_eq!(error.class, ErrorClass::ToolError);
    assert!(error.message.contains("division by zero"), "{error}");
    assert_eq!(error.detail.expect("the result")["isError"], true);

    let reports = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&reports);
    let call = Call {
        progress: Arc::new(move |report| sink.lock().expect("no panics").push(report)),
        ..Call::new("count", object(json!({"to": 5})), PATIENCE)
    };
    upstream.call(call).await.expect("an answer");
    assert!(!reports.lock().expect("no panics").is_empty());
    assert!(upstream.tool("echo").expect("listed").repeatable());
    assert!(!upstream.tool("divide").expect("listed").repeatable());
    upstream.close().await;
}

#[tokio::test]
async fn the_reference_server_answers_over_stdio_and_sees_little_of_our_environment() {
    let mut toolset = patient(everything_over_stdio());
    let home = EnvValue::FromEnv(FromEnv { from_env: "CARGO_MANIFEST_DIR".to_owned() });
    toolset.env.insert("GIVEN".to_owned(), EnvValue::Plain("plain".to_owned()));
    toolset.env.insert("REFERRED".to_owned(), home);
    let upstream = upstream(toolset);
    let reply = call(&upstream, "echo", json!({"message": "hello"})).await.expect("an answer");
    assert_eq!(text(&reply.result), "Echo: hello");
    let reply = call(&upstream, "get-env", json!({})).await.expect("an answer");
    let env: Map<String, serde_json::Value> =
        serde_json::from_str(text(&reply.result)).expect("the environment as JSON");
    assert_eq!(env["GIVEN"], "plain");
    assert_eq!(env["REFERRED"], env!("CARGO_MANIFEST_DIR"));
    assert!(env.contains_key("PATH"));
    assert!(!env.contains_key("CARGO_MANIFEST_DIR") && !env.contains_key("CARGO"), "{env:?}");
    upstream.close().await;
}

#[tokio::test]
async fn a_child_process_ends_with_its_whole_group() {
    let dir = tempfile::tempdir().expect("a directory");
    let pid_file = dir.path().join("pid");
    let server = everything_over_stdio();
    // A shell that starts the server and something else, which ignores that its input closed.
    let script = format!(
        "sleep 1000 & echo $! > {}; trap '' TERM; {} {} stdio",
        pid_file.display(),
        server.command.expect("a command"),
        server.args[0]
    );
    let upstream = upstream(patient(Toolset::command("sh", ["-c", script.as_str()])));
    call(&upstream, "echo", json!({"message": "hello"})).await.expect("an answer");
    let pid: i32 =
        std::fs::read_to_string(&pid_file).expect("written").trim().parse().expect("a pid");
    let alive = || {
        let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
        let stat = std::fs::read_to_string(format!("/proc/{pid:?}/stat")).unwrap_or_default();
        rustix::process::test_kill_process(pid).is_ok() && !stat.contains(") Z ")
    };
    assert!(alive());
    upstream.close().await;
    eventually("the group is gone", || !alive()).await;
}

#[tokio::test]
async fn the_reference_server_answers_over_http() {
    let server = Server::start(everything_over_http).await;
    let url = format!("http://127.0.0.1:{}/mcp", server.port);
    let upstream = upstream(patient(Toolset::at(url)));
    let reply = call(&upstream, "echo", json!({"message": "hello"})).await.expect("an answer");
    assert_eq!(text(&reply.result), "Echo: hello");
    let ping = upstream.ping().await.expect("an answer");
    assert_eq!(ping.server.protocol, "2025-11-25");
    upstream.close().await;
}

#[tokio::test]
async fn a_restarted_http_server_is_found_again() {
    let server = Server::start(everything_over_http).await;
    let port = server.port;
    let upstream = upstream(patient(Toolset::at(format!("http://127.0.0.1:{port}/mcp"))));
    call(&upstream, "echo", json!({"message": "one"})).await.expect("an answer");
    drop(server);
    // The first request may still be written to a kept TCP connection; the next one surely is not.
    let first = call(&upstream, "echo", json!({"message": "two"})).await.expect_err("down");
    assert!(matches!(first.class, ErrorClass::Closed | ErrorClass::Connect), "{first:?}");
    let down = call(&upstream, "echo", json!({"message": "two"})).await.expect_err("down");
    assert_eq!((down.class, down.sent), (ErrorClass::Connect, false), "{down:?}");
    let _server = Server::at(port, everything_over_http).await.expect("the port is free again");
    let reply = call(&upstream, "echo", json!({"message": "three"})).await.expect("an answer");
    assert_eq!(text(&reply.result), "Echo: three");
    upstream.close().await;
}

#[tokio::test]
async fn a_restarted_http_server_that_forgot_the_session_is_spoken_to_anew() {
    let server = Server::start(everything_over_http).await;
    let port = server.port;
    let upstream = upstream(patient(Toolset::at(format!("http://127.0.0.1:{port}/mcp"))));
    call(&upstream, "echo", json!({"message": "one"})).await.expect("an answer");
    drop(server);
    let _server = Server::at(port, everything_over_http).await.expect("the port is free again");
    // The first call may meet the forgotten session; it was refused, so it may be made again.
    let first = call(&upstream, "echo", json!({"message": "two"})).await;
    if let Err(error) = &first {
        assert_eq!((error.class, error.sent), (ErrorClass::Connect, false), "{error:?}");
    }
    let reply = call(&upstream, "echo", json!({"message": "three"})).await.expect("an answer");
    assert_eq!(text(&reply.result), "Echo: three");
    upstream.close().await;
}

#[tokio::test]
async fn a_restarted_websocket_server_is_found_again() {
    let server = Server::start(everything_over_websocket).await;
    let port = server.port;
    let upstream = upstream(patient(Toolset::at(format!("ws://localhost:{port}"))));
    call(&upstream, "echo", json!({"message": "one"})).await.expect("an answer");
    drop(server);
    eventually("the loss is noticed", || !upstream.state().connected).await;
    let down = call(&upstream, "echo", json!({"message": "two"})).await.expect_err("down");
    assert_eq!((down.class, down.sent), (ErrorClass::Connect, false));
    let _server = Server::at(port, everything_over_websocket).await.expect("the port is free");
    let reply = call(&upstream, "echo", json!({"message": "three"})).await.expect("an answer");
    assert_eq!(text(&reply.result), "Echo: three");
    upstream.close().await;
}

#[tokio::test]
async fn a_call_in_flight_when_the_server_dies_is_ambiguous() {
    let server = Server::start(everything_over_websocket).await;
    let upstream = upstream(patient(Toolset::at(format!("ws://localhost:{}", server.port))));
    let (began, begun) = tokio::sync::oneshot::channel();
    let began = Mutex::new(Some(began));
    let params = object(json!({"duration": 60, "steps": 600}));
    let call = Call {
        progress: Arc::new(move |_| {
            if let Some(began) = began.lock().expect("no panics").take() {
                let _ = began.send(());
            }
        }),
        ..Call::new("trigger-long-running-operation", params, PATIENCE)
    };
    let killer = async {
        begun.await.expect("the tool has begun");
        drop(server);
    };
    let (outcome, ()) = tokio::join!(upstream.call(call), killer);
    let error = outcome.expect_err("the server is dead");
    let annotated = upstream.tool("trigger-long-running-operation").expect("listed").repeatable();
    let class = if annotated { ErrorClass::Closed } else { ErrorClass::Ambiguous };
    assert_eq!((error.class, error.sent), (class, true), "{error:?}");
    upstream.close().await;
}

#[tokio::test]
async fn a_cancelled_call_ends_at_once() {
    let server = Server::start(python).await;
    let upstream = upstream(patient(Toolset::at(format!("ws://127.0.0.1:{}", server.port))));
    let cancel = CancellationToken::new();
    let trigger = cancel.clone();
    let call = Call {
        cancel,
        progress: Arc::new(move |_| trigger.cancel()),
        ..Call::new("count", object(json!({"to": 100_000})), PATIENCE)
    };
    let error = upstream.call(call).await.expect_err("cancelled");
    assert_eq!((error.class, error.sent), (ErrorClass::Ambiguous, true));
    upstream.close().await;
}

#[tokio::test]
async fn a_server_that_is_not_there_is_a_matter_of_connecting() {
    let upstream = upstream(Toolset::at("ws://127.0.0.1:1"));
    let clock = cogo::clock::Stopwatch::start();
    let error = call(&upstream, "echo", json!({})).await.expect_err("nothing listens");
    assert_eq!((error.class, error.sent), (ErrorClass::Connect, false));
    assert!(clock.elapsed() < Duration::from_secs(5), "a refusal is known at once");
    assert!(upstream.ping().await.is_err());
    assert!(upstream.state().error.expect("a reason").contains("cannot connect"));
    upstream.close().await;
}
