//! The routes, over real HTTP.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use cogo::bus::{self, Receipt};
use cogo::message::{NewMessage, TraceId};
use cogo::retry::Policies;
use cogo::shutdown::{Shutdown, Tasks};
use cogo_worker_mcp_gateway::Gateway;
use cogo_worker_mcp_gateway::api::Publish;
use cogo_worker_mcp_gateway::config::{Config, EnvValue, FromEnv, Toolset};
use cogo_worker_mcp_gateway::demo::Demo;
use serde_json::{Value, json};

use crate::support::sick::{Discover, Sick};

/// Takes down what is published.
#[derive(Clone, Default)]
pub(crate) struct Notebook(Arc<Mutex<Vec<NewMessage>>>);

impl Publish for Notebook {
    async fn publish(&self, message: NewMessage) -> Result<Receipt, bus::Error> {
        message.validate()?;
        if message.tenant == "broken" {
            return Err(bus::Error::Closed);
        }
        if message.tenant == "full" {
            let message = "tenant full: 9 messages wait, and at most 9 may".to_owned();
            return Err(bus::Error::Full { message, retry_after: Duration::from_millis(1200) });
        }
        let trace_id = message.trace_id.unwrap_or_else(TraceId::new);
        let receipt = Receipt { id: message.id, trace_id, duplicate: false };
        self.0.lock().expect("no panics").push(message);
        Ok(receipt)
    }
}

struct Site {
    url: String,
    published: Notebook,
    _demo: Demo,
    sick: Sick,
}

async fn site() -> Site {
    let shutdown = Shutdown::new();
    let demo = Demo::start(shutdown.clone()).await.expect("a free port");
    let sick = Sick::start(Discover::Refused).await;
    let mut locked =
        Toolset { enabled: false, ..Toolset::command("server", ["--api-key=k1", "x"]) };
    let reference = FromEnv { from_env: "CARGO_MANIFEST_DIR".to_owned() };
    locked.env.insert("TOKEN".to_owned(), EnvValue::FromEnv(reference));
    locked.env.insert("PASSWORD".to_owned(), EnvValue::Plain("k2".to_owned()));
    let toolsets = [
        ("gone", Toolset::at("ws://127.0.0.1:1/?key=k3")),
        ("locked", locked),
        ("sick", Toolset::at(&sick.url)),
    ];
    let toolsets = toolsets.into_iter().map(|(name, toolset)| (name.to_owned(), toolset)).collect();
    let config = Config { toolsets, ..Config::default() };
    let gateway = Gateway::start(config, Some(demo.url.clone()), &shutdown);
    let policies: Policies = serde_json::from_value(json!({"policies":
        {"mcp.call.demo": {"max_attempts": 7, "deadline_ms": 60_000}}}))
    .expect("policies");
    let published = Notebook::default();
    let router = gateway.routes(published.clone(), Arc::new(policies), None).into_router();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}/api/mcp", listener.local_addr().expect("an address"));
    Tasks::new().spawn(async move { axum::serve(listener, router).await });
    Site { url, published, _demo: demo, sick }
}

impl Site {
    async fn get(&self, path: &str) -> (u16, Value) {
        let response = reqwest::get(format!("{}/{path}", self.url)).await.expect("an answer");
        let status = response.status().as_u16();
        let text = response.text().await.expect("a body");
        (status, serde_json::from_str(&text).expect("JSON"))
    }

    async fn post(&self, body: Value, header: Option<(&'static str, &str)>) -> (u16, Value) {
        let mut request = crate::support::http()
            .post(format!("{}/enqueue", self.url))
            .header("content-type", "application/json")
            .body(body.to_string());
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        let response = request.send().await.expect("an answer");
        let status = response.status().as_u16();
        let text = response.text().await.expect("a body");
        (status, serde_json::from_str(&text).expect("JSON"))
    }
}

#[tokio::test]
async fn a_call_is_enqueued_as_it_was_asked_for() {
    let site = site().await;
    let (status, answer) = site
        .post(json!({"toolset": "demo", "tool": "echo", "params": {"message": "hello"}}), None)
        .await;
    assert_eq!((status, &answer["ok"], &answer["duplicate"]), (202, &json!(true), &json!(false)));
    let trace = TraceId::new();
    let body = json!({"toolset": "demo", "tool": "add", "params": {"a": 1, "b": 2}, "tenant": "t1",
        "priority": -5, "shard": 2, "trace_id": trace, "delay_ms": 1500, "max_attempts": 3,
        "deadline_ms": 5000, "ordering_key": "o-1"});
    let (status, answer) = site.post(body, Some(("Idempotency-Key", "k-1"))).await;
    assert_eq!((status, &answer["trace_id"]), (202, &json!(trace)));
    let published = site.published.0.lock().expect("no panics").clone();
    let [first, second] = published.as_slice() else { panic!("two messages") };
    assert_eq!((first.role.as_str(), first.service.as_str()), ("mcp-gateway", "demo"));
    assert_eq!((first.intent.as_str(), first.max_attempts), ("mcp.call", Some(7)));
    assert_eq!(
        first.payload,
        json!({"toolset": "demo", "tool": "echo",
        "params": {"message": "hello"}})
    );
    assert_eq!((second.tenant.as_str(), second.priority, second.shard), ("t1", -5, 2));
    assert_eq!((second.delay.as_millis(), second.max_attempts), (1500, Some(3)));
    assert_eq!(second.idempotency_key.as_deref(), Some("k-1"));
    assert_eq!((first.deadline_ms, &first.ordering_key), (Some(60_000), &None), "by policy");
    assert_eq!((second.deadline_ms, second.ordering_key.as_deref()), (Some(5000), Some("o-1")));
}

#[tokio::test]
async fn a_full_queue_is_answered_with_when_to_try_again() {
    let site = site().await;
    let body = json!({"toolset": "demo", "tool": "echo", "tenant": "full"});
    let response = crate::support::http()
        .post(format!("{}/enqueue", site.url))
        .header("content-type", "application/json")
        .body(body.to_string())
        .send()
        .await
        .expect("an answer");
    assert_eq!(response.status().as_u16(), 429);
    let after: Vec<_> = response.headers().get_all("retry-after").iter().collect();
    assert_eq!(after, ["2"], "whole seconds, rounded up");
    let text = response.text().await.expect("a body");
    let answer: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(
        (&answer["code"], &answer["retry_after_ms"]),
        (&json!("rate_limited"), &json!(1200))
    );
    assert!(answer["message"].as_str().is_some_and(|m| m.starts_with("tenant full: ")), "{answer}");
}

#[tokio::test]
async fn what_does_not_fit_is_refused_by_its_name_and_nothing_is_written() {
    let site = site().await;
    let good = json!({"toolset": "demo", "tool": "echo"});
    let with = |field: &str, value: Value| {
        let mut body = good.clone();
        body[field] = value;
        body
    };
    for (body, status, expected) in [
        (with("parms", json!({})), 400, "parms: unknown field"),
        (with("params", json!([])), 400, "params: invalid type"),
        (with("tool", json!(1)), 400, "tool: invalid type"),
        (with("tool", json!("")), 400, "tool: must be 1 to 128"),
        (with("delay_ms", json!(-1)), 400, "delay_ms: invalid value"),
        (with("deadline_ms", json!(0.5)), 400, "deadline_ms: invalid type"),
        (with("ordering_key", json!(1)), 400, "ordering_key: invalid type"),
        (with("priority", json!("high")), 400, "priority: invalid type"),
        (with("trace_id", json!("x")), 400, "trace_id: "),
        (with("tenant", json!("a b")), 400, "tenant: "),
        (json!({"tool": "echo"}), 400, "body: missing field `toolset`"),
        (with("toolset", json!("nobody")), 404, "toolset: there is no \"nobody\"; there are: demo"),
        (with("toolset", json!("locked")), 404, "toolset: there is no \"locked\""),
        (with("tenant", json!("broken")), 503, ""),
    ] {
        let (got, answer) = site.post(body, None).await;
        let message = answer["message"].as_str().expect("a message");
        assert_eq!(got, status, "{answer}");
        assert!(message.starts_with(expected), "{message}");
        assert_eq!(answer["ok"], false);
        assert_eq!(answer["error"], answer["code"]);
    }
    let both = with("idempotency_key", json!("one"));
    let (status, answer) = site.post(both, Some(("Idempotency-Key", "two"))).await;
    assert_eq!((status, &answer["code"]), (400, &json!("invalid_argument")), "{answer}");
    assert!(site.published.0.lock().expect("no panics").is_empty());
}

#[tokio::test]
async fn the_configuration_is_shown_without_secrets() {
    let site = site().await;
    let (status, answer) = site.get("config").await;
    assert_eq!(status, 200);
    let toolsets = &answer["toolsets"];
    assert_eq!(toolsets["demo"]["transport"], "websocket");
    assert_eq!(toolsets["locked"]["env"]["TOKEN"], json!({"from_env": "CARGO_MANIFEST_DIR"}));
    assert_eq!(toolsets["locked"]["enabled"], false);
    let text = answer.to_string();
    for secret in ["k1", "k2", "k3", env!("CARGO_MANIFEST_DIR")] {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
}

#[tokio::test]
async fn health_tells_each_toolset_apart() {
    let site = site().await;
    let (status, answer) = site.get("health").await;
    assert_eq!((status, &answer["ok"], &answer["healthy"]), (200, &json!(true), &json!(false)));
    assert_eq!(answer["toolsets"]["demo"]["ok"], true);
    assert_eq!(answer["toolsets"]["demo"]["tools"], json!(["add", "echo", "fail", "sleep"]));
    assert_eq!(answer["toolsets"]["gone"]["ok"], false);
    assert_eq!(answer["toolsets"]["gone"]["class"], "connect");
    assert!(answer["toolsets"].get("locked").is_none(), "it is not enabled");
}

#[tokio::test]
async fn a_ping_finds_the_tool_and_never_runs_it() {
    let site = site().await;
    let (status, answer) = site.get("ping/sick/healthy").await;
    assert_eq!((status, &answer["tool"]["name"]), (200, &json!("healthy")), "{answer}");
    assert_eq!(answer["tool"]["input_schema"], json!({"type": "object"}));
    assert_eq!(site.sick.count("tools/call"), 0);
    for (path, status, code) in [
        ("ping/sick/nonsense", 404, "not_found"),
        ("ping/nobody/echo", 404, "not_found"),
        ("ping/gone/echo", 503, "unavailable"),
    ] {
        let (got, answer) = site.get(path).await;
        assert_eq!((got, &answer["code"]), (status, &json!(code)), "{answer}");
    }
}
