//! From a message to a result, artifacts and metrics.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use cogo::message::Message;
use cogo::retry::{ErrorClass, Policies};
use cogo::shutdown::Shutdown;
use cogo_worker_mcp_gateway::config::{Config, EnvValue, FromEnv, Toolset};
use cogo_worker_mcp_gateway::demo::Demo;
use cogo_worker_mcp_gateway::handler::{Attempt, McpHandler};
use cogo_worker_mcp_gateway::toolsets::Toolsets;
use metrics_exporter_prometheus::PrometheusBuilder;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::process::everything_over_stdio;
use crate::support::sick::{Discover, Sick};
use crate::support::{attempt, message};

struct Bench {
    handler: McpHandler,
    toolsets: Arc<Toolsets>,
    artifacts: TempDir,
    _demo: Demo,
}

async fn bench(toolsets: &[(&str, Toolset)], policies: Value) -> Bench {
    let shutdown = Shutdown::new();
    let demo = Demo::start(shutdown.clone()).await.expect("a free port");
    let toolsets = toolsets.iter().map(|(name, toolset)| ((*name).to_owned(), toolset.clone()));
    let config = Config { toolsets: toolsets.collect(), ..Config::default() };
    let toolsets = Toolsets::start(config, Some(demo.url.clone()), &shutdown);
    let artifacts = tempfile::tempdir().expect("a directory");
    let policies: Policies = serde_json::from_value(policies).expect("policies");
    let handler = McpHandler::new(Arc::clone(&toolsets), Arc::new(policies), artifacts.path());
    Bench { handler, toolsets, artifacts, _demo: demo }
}

fn read(dir: &Path, file: &str) -> Value {
    let text = std::fs::read(dir.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
    serde_json::from_slice(&text).expect("JSON")
}

impl Bench {
    fn directory(&self, meta: &Value) -> std::path::PathBuf {
        self.artifacts.path().join(meta["artifacts"].as_str().expect("a path"))
    }

    async fn refused(&self, message: &Message) -> (ErrorClass, String) {
        let failure = self.handler.attempt(message, attempt().0).await.expect_err("refused");
        (failure.class, failure.message)
    }
}

#[tokio::test]
async fn a_message_becomes_a_result_and_artifacts() {
    let bench = bench(&[], json!({})).await;
    let params = json!({"message": "hello", "token": "s3cret"});
    let mut message = message("demo", "echo", json!({"message": "hello"}));
    let output = bench.handler.attempt(&message, attempt().0).await.expect("a result");
    assert_eq!(output.result["content"][0]["text"], "hello");
    let dir = bench.directory(&output.meta);
    assert!(output.meta["artifacts"].as_str().expect("a path").starts_with("mcp/demo/"));
    assert!(dir.ends_with(dir.file_name().expect("a name")));
    assert!(dir.to_string_lossy().ends_with(&format!("-{}", message.id)));
    assert_eq!(read(&dir, "request.json")["params"]["message"], "hello");
    assert_eq!(read(&dir, "response.json"), output.result);
    let summary = read(&dir, "summary.json");
    assert_eq!((&summary["attempt"], &summary["ok"]), (&json!(1), &json!(true)));
    assert!(!dir.join("error.json").exists());
    let mode = |path: &Path| path.metadata().expect("it exists").permissions().mode() & 0o777;
    assert_eq!((mode(&dir), mode(&dir.join("request.json"))), (0o700, 0o600));

    // A second attempt has a directory of its own; here it fails, and its arguments hold a secret.
    message.attempts = 2;
    message.payload["params"] = params;
    let failure = bench.handler.attempt(&message, attempt().0).await.expect_err("unknown field");
    assert_eq!(failure.class, ErrorClass::InvalidParams);
    let second = bench.directory(&failure.meta);
    assert_ne!(second, dir);
    assert_eq!(read(&second, "request.json")["params"]["token"], "[redacted]");
    assert_eq!(read(&second, "error.json")["class"], "invalid_params");
    assert_eq!(read(&second, "summary.json")["attempt"], 2);
    let left: Vec<_> = std::fs::read_dir(bench.artifacts.path().join("mcp/demo"))
        .expect("a directory")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
        .collect();
    assert_eq!(left.len(), 2, "{left:?}");
    assert!(left.iter().all(|name| !name.starts_with(".tmp-")), "{left:?}");
}

#[tokio::test]
async fn what_a_tenant_may_not_have_is_not_called_for_it_by_whatever_way() {
    let shutdown = Shutdown::new();
    let demo = Demo::start(shutdown.clone()).await.expect("a free port");
    let config: Config = serde_json::from_value(json!({"mesh": {"tenants": {
        "default": {"deny": ["demo__echo"]}, "acme": {"allow": ["other__*"]}}}}))
    .expect("a configuration");
    let toolsets = Toolsets::start(config, Some(demo.url.clone()), &shutdown);
    let artifacts = tempfile::tempdir().expect("a directory");
    let handler = McpHandler::new(toolsets, Arc::new(Policies::default()), artifacts.path());
    let call = async |tenant: &str, tool: &str, params: Value| {
        let message = Message { tenant: tenant.to_owned(), ..message("demo", tool, params) };
        handler.attempt(&message, attempt().0).await
    };
    let echo = json!({"message": "x"});
    for tenant in ["default", "acme"] {
        let refused = call(tenant, "echo", echo.clone()).await.expect_err("denied");
        assert_eq!(refused.class, ErrorClass::InvalidParams);
        let named = format!("echo is not for tenant {tenant}");
        assert!(refused.message.contains(&named), "{}", refused.message);
    }
    call("other", "echo", echo).await.expect("nothing is said of it");
    call("default", "add", json!({"a": 1, "b": 2})).await.expect("nor of this");
}

#[tokio::test]
async fn a_tool_that_fails_leaves_its_answer_and_the_error() {
    let bench = bench(&[], json!({})).await;
    let message = message("demo", "fail", json!({"message": "oh no"}));
    let failure = bench.handler.attempt(&message, attempt().0).await.expect_err("it fails");
    assert_eq!(failure.class, ErrorClass::ToolError);
    assert_eq!(failure.detail.as_ref().expect("the result")["isError"], true);
    let dir = bench.directory(&failure.meta);
    assert_eq!(read(&dir, "response.json")["content"][0]["text"], "oh no");
    assert_eq!(read(&dir, "error.json")["class"], "tool_error");
    assert_eq!(read(&dir, "summary.json")["ok"], false);
}

#[tokio::test]
async fn a_payload_that_does_not_fit_is_refused_by_the_name_of_its_field() {
    let bench = bench(&[], json!({})).await;
    let good = message("demo", "echo", json!({"message": "x"}));
    let with = |payload: Value| Message { payload, ..good.clone() };
    for (payload, expected) in [
        (json!({"toolset": "demo", "tool": "echo", "parms": {}}), "payload.parms: unknown field"),
        (json!({"toolset": "demo", "tool": 1}), "payload.tool: invalid type"),
        (json!({"toolset": "demo"}), "payload: missing field `tool`"),
        (json!({"toolset": "demo", "tool": "echo", "params": []}), "payload.params: invalid type"),
        (json!({"toolset": "other", "tool": "echo"}), "payload.toolset: must be"),
        (json!("x"), "payload: invalid type"),
    ] {
        let (class, text) = bench.refused(&with(payload)).await;
        assert_eq!(class, ErrorClass::InvalidParams);
        assert!(text.starts_with(expected), "{text}");
    }
    let intent = Message { intent: "other".to_owned(), ..good.clone() };
    assert!(bench.refused(&intent).await.1.starts_with("intent: must be mcp.call"));
    let (class, text) = bench.refused(&message("nobody", "echo", json!({}))).await;
    assert_eq!(class, ErrorClass::InvalidParams);
    assert!(text.contains("\"nobody\"") && text.contains("demo"), "{text}");
}

#[tokio::test]
async fn progress_reaches_the_delivery() {
    let bench = bench(&[], json!({})).await;
    let (attempt, reports) = attempt();
    let message = message("demo", "sleep", json!({"ms": 350}));
    bench.handler.attempt(&message, attempt).await.expect("a result");
    let reports = reports.lock().expect("no panics");
    assert!(!reports.is_empty() && reports[0]["total"] == 350.0, "{reports:?}");
}

#[tokio::test]
async fn after_an_expired_lease_only_what_may_run_twice_runs_again() {
    let sick = Sick::start(Discover::Refused).await;
    let policies = json!({"policies": {"mcp.call.lenient": {"retry_on": ["ambiguous"]}}});
    let toolsets = [("sick", Toolset::at(&sick.url)), ("lenient", Toolset::at(&sick.url))];
    let bench = bench(&toolsets, policies).await;
    let expired = |toolset: &str, tool: &str| Message {
        error: Some(json!({"class": "lease_expired", "message": "the worker vanished"})),
        attempts: 2,
        ..message(toolset, tool, json!({}))
    };
    let refused = bench.handler.attempt(&expired("sick", "healthy"), attempt().0).await;
    let failure = refused.expect_err("it may have run");
    assert_eq!(failure.class, ErrorClass::Ambiguous);
    assert_eq!(sick.count("tools/call"), 0);
    assert_eq!(read(&bench.directory(&failure.meta), "error.json")["sent"], false);

    let closes = bench.handler.attempt(&expired("sick", "closes_ro"), attempt().0).await;
    assert_eq!(closes.expect_err("it was called").class, ErrorClass::Closed);
    assert_eq!(sick.count("tools/call"), 1);
    let lenient = bench.handler.attempt(&expired("lenient", "healthy"), attempt().0).await;
    lenient.expect("the policy says that it may be repeated");

    let other = Message { error: Some(json!({"class": "connect"})), ..expired("sick", "healthy") };
    bench.handler.attempt(&other, attempt().0).await.expect("nothing was sent then");
    let requeued = Message { attempts: 1, ..expired("sick", "healthy") };
    bench.handler.attempt(&requeued, attempt().0).await.expect("an operator said so");
}

#[tokio::test]
async fn after_an_expired_lease_two_servers_are_called_only_for_what_changes_nothing() {
    let (first, second) =
        (Sick::start(Discover::Refused).await, Sick::start(Discover::Refused).await);
    let fallback = Some("second".to_owned());
    let toolsets = [
        ("first", Toolset { fallback: fallback.clone(), ..Toolset::at(&first.url) }),
        ("gone", Toolset { fallback, ..Toolset::at("ws://127.0.0.1:1") }),
        ("second", Toolset::at(&second.url)),
    ];
    let bench = bench(&toolsets, json!({})).await;
    for (toolset, tool, fallback, class) in [
        // It may have been done at the one, and calling the other does it again.
        ("first", "silent_idempotent", true, ErrorClass::Ambiguous),
        ("first", "silent_idempotent", false, ErrorClass::Ambiguous),
        // What the first server says of its tool nobody can ask.
        ("gone", "closes_ro", true, ErrorClass::Ambiguous),
        ("first", "closes_ro", true, ErrorClass::Closed),
        ("first", "closes_ro", false, ErrorClass::Closed),
    ] {
        let expired = Message {
            error: Some(json!({"class": "lease_expired"})),
            attempts: 2,
            ..message(toolset, tool, json!({}))
        };
        let attempt = Attempt {
            fallback: fallback.then(|| "second".to_owned()),
            timeout: std::time::Duration::from_secs(5),
            ..attempt().0
        };
        let failure = bench.handler.attempt(&expired, attempt).await.expect_err("no answer");
        assert_eq!(failure.class, class, "{toolset} {tool} {fallback}: {}", failure.message);
    }
    assert_eq!((first.count("tools/call"), second.count("tools/call")), (1, 1));
}

#[tokio::test]
async fn after_an_expired_lease_an_unreachable_tool_is_ambiguous() {
    let bench = bench(&[("gone", Toolset::at("ws://127.0.0.1:1"))], json!({})).await;
    let message = Message {
        error: Some(json!({"class": "lease_expired"})),
        attempts: 2,
        ..message("gone", "anything", json!({}))
    };
    let failure = bench.handler.attempt(&message, attempt().0).await.expect_err("unknown");
    assert_eq!(failure.class, ErrorClass::Ambiguous);
}

#[tokio::test]
async fn secrets_are_in_no_artifact_result_or_failure() {
    // CARGO_PKG_DESCRIPTION is set for every test; any variable will do for a secret.
    let secret = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    let mut toolset = Toolset { connect_timeout_ms: 60_000, ..everything_over_stdio() };
    let reference = FromEnv { from_env: "CARGO_MANIFEST_DIR".to_owned() };
    toolset.env.insert("HARMLESS_NAME".to_owned(), EnvValue::FromEnv(reference));
    toolset.env.insert("MY_API_KEY".to_owned(), EnvValue::Plain("plain-but-a-key".to_owned()));
    let bench = bench(&[("everything", toolset)], json!({})).await;
    let message = message("everything", "get-env", json!({}));
    let output = bench.handler.attempt(&message, attempt().0).await.expect("a result");
    let result = output.result.to_string();
    assert!(result.contains("HARMLESS_NAME") && !result.contains(&secret), "{result}");
    let dir = bench.directory(&output.meta);
    for file in ["request.json", "response.json", "summary.json"] {
        let text = read(&dir, file).to_string();
        assert!(!text.contains(&secret) && !text.contains("plain-but-a-key"), "{file}: {text}");
    }
    assert!(read(&dir, "response.json").to_string().contains("MY_API_KEY"));
    bench.toolsets.shutdown().await;
}

#[tokio::test]
async fn a_key_in_a_servers_url_is_told_to_nobody() {
    let toolset = Toolset::at("http://127.0.0.1:1/mcp?api_key=sk-in-the-query&q=also-in-it");
    let bench = bench(&[("away", toolset)], json!({})).await;
    let message = message("away", "anything", json!({}));
    let failure = bench.handler.attempt(&message, attempt().0).await.expect_err("nobody is there");
    assert_eq!((failure.class, failure.unsent), (ErrorClass::Connect, true));
    let upstream = bench.toolsets.get("away").expect("it is served");
    let ping = upstream.ping().await.expect_err("nobody is there");
    let state = upstream.state().error.expect("it is not connected");
    let error = read(&bench.directory(&failure.meta), "error.json").to_string();
    for told in [failure.message, ping.message, state, error] {
        assert!(!told.contains("in-the-query") && !told.contains("also-in-it"), "{told}");
        assert!(told.contains("[redacted]"), "the address itself is told: {told}");
    }
}

#[tokio::test]
async fn what_was_done_at_the_fallback_is_done_again_only_if_it_changes_nothing() {
    let sick = Sick::start(Discover::Refused).await;
    let own = Toolset { fallback: Some("second".to_owned()), ..Toolset::at("ws://127.0.0.1:1") };
    let bench = bench(&[("first", own), ("second", Toolset::at(&sick.url))], json!({})).await;
    let call = async |toolset: &str, tool: &str, fallback: Option<&str>| {
        let fallback = fallback.map(str::to_owned);
        let timeout = std::time::Duration::from_millis(500);
        let attempt = Attempt { fallback, timeout, ..attempt().0 };
        let failure = bench.handler.attempt(&message(toolset, tool, json!({})), attempt).await;
        failure.expect_err("no answer").class
    };
    // Until it is connected nothing is sent.
    bench.toolsets.get("second").expect("it is served").ping().await.expect("it is there");
    let fallback = Some("second");
    // The next attempt may be at the toolset itself, which has not seen the work.
    assert_eq!(call("first", "silent_idempotent", fallback).await, ErrorClass::Ambiguous);
    assert_eq!(call("first", "silent_ro", fallback).await, ErrorClass::Timeout);
    assert_eq!(call("second", "silent_idempotent", None).await, ErrorClass::Timeout);
    assert_eq!(call("first", "closes_ro", fallback).await, ErrorClass::Closed);
}

#[tokio::test]
async fn a_failure_says_whether_the_call_was_sent() {
    let sick = Sick::start(Discover::Refused).await;
    let toolset = Toolset { max_in_flight: 1, ..Toolset::at(&sick.url) };
    let bench = bench(&[("sick", toolset)], json!({})).await;
    let call = async |tool: &str, ms: u64| {
        let attempt = Attempt { timeout: std::time::Duration::from_millis(ms), ..attempt().0 };
        let failure = bench.handler.attempt(&message("sick", tool, json!({})), attempt).await;
        let failure = failure.expect_err("no answer");
        (failure.class, failure.unsent, failure.unasked)
    };
    let (sent, waited) = tokio::join!(call("silent", 2000), async {
        sick.heard(|message| message["params"]["name"] == "silent").await;
        call("healthy", 250).await
    });
    assert_eq!(sent, (ErrorClass::Ambiguous, false, false));
    assert_eq!(waited, (ErrorClass::Timeout, true, false), "it waited for a place");
}

#[tokio::test]
async fn a_disk_that_fails_does_not_fail_the_call() {
    let bench = bench(&[], json!({})).await;
    std::fs::write(bench.artifacts.path().join("mcp"), "in the way").expect("writable");
    let message = message("demo", "echo", json!({"message": "hello"}));
    let output = bench.handler.attempt(&message, attempt().0).await.expect("the result stands");
    assert_eq!(output.result["content"][0]["text"], "hello");
    assert!(output.meta.get("artifacts").is_none());
}

#[tokio::test]
async fn a_toolset_without_its_secret_fails_alone() {
    let mut toolset = Toolset::at("ws://127.0.0.1:1");
    let reference = FromEnv { from_env: "COGO_TEST_NEVER_SET".to_owned() };
    toolset.headers.insert("authorization".to_owned(), reference);
    let bench = bench(&[("locked", toolset)], json!({})).await;
    let (class, text) = bench.refused(&message("locked", "x", json!({}))).await;
    assert_eq!(class, ErrorClass::Connect);
    assert!(text.contains("toolsets.locked.headers.authorization"), "{text}");
    assert!(text.contains("COGO_TEST_NEVER_SET"), "{text}");
    let pings = bench.toolsets.ping_all().await;
    assert!(pings["demo"].is_ok() && pings["locked"].is_err());
}

#[tokio::test] // one thread, so that the recorder of this thread sees all
async fn calls_are_counted_by_toolset_tool_and_class() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _here = metrics::set_default_local_recorder(&recorder);
    cogo_worker_mcp_gateway::metrics::describe();
    let bench = bench(&[], json!({})).await;
    for (toolset, tool, params) in [
        ("demo", "echo", json!({"message": "a"})),
        ("demo", "echo", json!({"message": 1})),
        ("demo", "fail", json!({"message": "b"})),
        ("demo", "no-such-tool", json!({})),
        ("no-such-toolset", "echo", json!({})),
    ] {
        let _either = bench.handler.attempt(&message(toolset, tool, params), attempt().0).await;
    }
    let text = recorder.handle().render();
    for line in [
        r#"cogo_mcp_calls_total{toolset="demo",tool="echo"} 2"#,
        r#"cogo_mcp_calls_total{toolset="demo",tool="unknown"} 1"#,
        r#"cogo_mcp_calls_total{toolset="unknown",tool="unknown"} 1"#,
        r#"cogo_mcp_fail_total{toolset="demo",tool="echo",class="invalid_params"} 1"#,
        r#"cogo_mcp_fail_total{toolset="demo",tool="fail",class="tool_error"} 1"#,
        r#"cogo_mcp_latency_ms_count{toolset="demo",tool="echo"} 2"#,
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    assert!(!text.contains("no-such"), "labels are bounded");
}

#[tokio::test]
async fn the_policy_key_goes_down_to_tool_and_shard() {
    use cogo::worker::Handler as _;
    let bench = bench(&[], json!({})).await;
    let message = Message { shard: 3, ..message("demo", "echo", json!({})) };
    assert_eq!(bench.handler.policy_key(&message), "mcp.call.demo.echo.3");
}
