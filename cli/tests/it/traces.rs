//! Traces: the real hub and a worker of its own, and a collector that takes what they export.

mod collector;
mod server;
mod tool;

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use cogo::clock::Stopwatch;
use cogo::testing::TestDb;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use serde_json::{Value, json};

use self::collector::{Collector, one};
use self::tool::Tool;
use crate::support::{Cogo, Running, http_with, temp_dir, until, write};

/// What must not be in any trace.
const SECRET: &str = "hunter2";
const TOKEN: &str = "an-admin-token-of-this-test-alone-0123456789";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CLIENT_SPAN: &str = "00f067aa0ba902b7";

/// A hub and a gateway that are processes of their own, both exporting to the collector at `url`.
struct Mesh {
    cogo: Cogo,
    hub: Running,
    url: String,
    worker: Running,
    _dir: tempfile::TempDir,
}

impl Mesh {
    fn start(db: &TestDb, tool: &Tool, collector: &str) -> Self {
        let dir = temp_dir();
        let toolsets = json!({"toolsets": {"mirror": {"url": tool.url, "headers": {"x-key": {"from_env": "MIRROR_KEY"}}}}});
        write(dir.path(), "mcp.json", &toolsets.to_string());
        let policies = json!({"policies": {"default": {
            "max_attempts": 3, "backoff": {"kind": "fixed", "delay_ms": 10},
            "timeout_ms": 10_000, "retry_on": ["tool_error"],
        }}});
        write(dir.path(), "retry_policy.json", &policies.to_string());
        let cogo = Cogo::on(db)
            .with("COGO_DATA_DIR", dir.path().join("data").display().to_string())
            .with("COGO_CONFIG_DIR", dir.path().display().to_string())
            .with("COGO_ADMIN_TOKEN", TOKEN)
            .with("MIRROR_KEY", format!("{SECRET}-key"))
            .with("OTEL_EXPORTER_OTLP_ENDPOINT", collector)
            .with("OTEL_EXPORTER_OTLP_HEADERS", format!("x-api-key={SECRET}-header"))
            .with("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
            .with("OTEL_BSP_SCHEDULE_DELAY", "20");
        let hub = cogo.start(&["hub", "--listen", "127.0.0.1:0", "--log", "trace"]);
        let said = hub.stderr.wait("Ctrl-C stops it.");
        let url = said
            .lines()
            .find_map(|line| line.trim().strip_prefix("hub "))
            .or_else(|| said.split_whitespace().rfind(|word| word.starts_with("http://")))
            .expect("a URL")
            .trim()
            .to_owned();
        let worker = cogo.start(&["worker", "mcp-gateway", "--log", "trace"]);
        worker.stderr.wait("is ready");
        Self { cogo, hub, url, worker, _dir: dir }
    }

    /// Calls the tool through the hub; the message's id and its trace's.
    fn call(&self, headers: &[(&str, &str)]) -> (String, String) {
        let body = json!({"toolset": "mirror", "tool": "look", "params": {"password": SECRET}});
        let url = format!("{}/api/mcp/enqueue", self.url);
        let headers = [&[("x-admin-token", TOKEN)], headers].concat();
        let (status, answer) = http_with("POST", &url, &headers, &body.to_string());
        assert_eq!(status, 202, "{answer}");
        let text = |key: &str| answer[key].as_str().expect("an id").to_owned();
        (text("id"), text("trace_id"))
    }

    fn wait(&self, id: &str) -> Value {
        self.cogo.json(&["get", id, "--wait"])["message"].clone()
    }
}

#[tokio::test]
async fn a_call_is_one_trace_from_the_client_to_the_tool_under_the_id_that_cogo_trace_shows() {
    let db = TestDb::new().await;
    let (collector, tool) = (Collector::start(), Tool::start(0));
    let mesh = Mesh::start(&db, &tool, &collector.url);
    let traceparent = format!("00-{TRACE}-{CLIENT_SPAN}-01");
    let given = [("traceparent", traceparent.as_str()), ("tracestate", "rojo=1")];
    let (id, trace) = mesh.call(&given);
    assert_eq!(trace.replace('-', ""), TRACE);
    assert_eq!(mesh.wait(&id)["status"], "done");
    assert!(mesh.cogo.ok(&["trace", &trace]).stdout.contains(&id));

    let spans = collector.wait(&trace, 4);
    let server = one(&spans, SpanKind::Server, "tools/call look");
    let publish = one(&spans, SpanKind::Producer, "publish mcp-gateway/mirror");
    let process = one(&spans, SpanKind::Consumer, "process mcp-gateway/mirror");
    let client = one(&spans, SpanKind::Client, "tools/call look");
    assert_eq!(spans.len(), 4, "{spans:#?}");
    let parents = [server, publish, process, client].map(|seen| seen.parent());
    assert_eq!(parents, [CLIENT_SPAN.to_owned(), server.id(), publish.id(), process.id()]);
    assert!(spans.iter().all(|seen| !seen.failed()), "{spans:#?}");

    assert_eq!(server.says("mcp.method.name"), "tools/call");
    assert_eq!(server.says("gen_ai.tool.name"), "look");
    for seen in [server, publish, process] {
        assert_eq!(seen.says("messaging.message.id"), id, "{seen:?}");
    }
    assert_eq!(
        (process.says("cogo.attempt"), process.says("cogo.outcome")),
        ("1".into(), "done".into())
    );
    assert!(process.says("cogo.queue_wait_ms").parse::<u64>().is_ok(), "{process:?}");
    assert_eq!(client.says("mcp.protocol.version"), "2025-11-25");
    assert_eq!(client.says("cogo.server.name"), "mirror");
    assert_eq!(client.says("server.address"), "127.0.0.1");
    for seen in &spans {
        assert_eq!(seen.of("service.name"), "cogo");
        assert_eq!(seen.of("deployment.environment.name"), "test");
    }
    assert!(server.of("service.instance.id").starts_with("hub-"), "{server:?}");
    assert!(client.of("service.instance.id").starts_with("mcp-gateway-"), "{client:?}");
    let metas = tool.metas();
    assert_eq!(metas[0]["traceparent"], format!("00-{TRACE}-{}-01", client.id()));
    assert_eq!(metas[0]["tracestate"], "rojo=1");

    // Whoever gives no trace gets one, and it is the message's too.
    let (other, trace) = mesh.call(&[]);
    assert_eq!(mesh.wait(&other)["status"], "done");
    let spans = collector.wait(&trace, 4);
    assert_eq!(one(&spans, SpanKind::Server, "tools/call look").parent(), "");

    // A trace that is not recorded stays so, and its id goes to the tool all the same.
    let unsampled = traceparent.replace("-01", "-00").replace("4bf9", "4bf8");
    let (third, trace) = mesh.call(&[("traceparent", &unsampled)]);
    assert_eq!(mesh.wait(&third)["status"], "done");
    let told = tool.metas()[2]["traceparent"].as_str().expect("a place").to_owned();
    assert!(told.contains(&trace.replace('-', "")) && told.ends_with("-00"), "{told}");

    let (hub, worker) = (mesh.hub.stderr.clone(), mesh.worker.stderr.clone());
    mesh.worker.stop();
    mesh.hub.stop();
    let spans = collector.spans();
    assert!(
        !spans.iter().any(|seen| collector::hex(&seen.span.trace_id) == trace.replace('-', ""))
    );
    // The collector got its key, and nobody any other secret.
    let requests = collector.requests.lock().expect("unpoisoned").clone();
    let key = ("x-api-key".to_owned(), format!("{SECRET}-header"));
    assert!(!requests.is_empty() && requests.iter().all(|request| request.headers.contains(&key)));
    assert!(requests.iter().all(|request| request.path == "/v1/traces"), "{requests:?}");
    assert!(!holds(&collector.bytes(), SECRET), "a secret in a trace");
    for said in [hub.text(), worker.text()] {
        assert!(!said.contains(&format!("{SECRET}-header")), "a key in the log");
    }
}

/// What a client of `/mcp` of MCP 2026-07-28 sends.
fn tools_call(meta: Value) -> String {
    let mut meta = meta;
    meta["io.modelcontextprotocol/protocolVersion"] = json!("2026-07-28");
    meta["io.modelcontextprotocol/clientInfo"] = json!({"name": "t", "version": "1"});
    meta["io.modelcontextprotocol/clientCapabilities"] = json!({});
    let params = json!({"name": "mirror__look", "arguments": {"password": SECRET}, "_meta": meta});
    json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params}).to_string()
}

#[tokio::test]
async fn a_call_by_mcp_or_by_rest_goes_below_its_clients_span_too() {
    let db = TestDb::new().await;
    let (collector, tool) = (Collector::start(), Tool::start(0));
    let mesh = Mesh::start(&db, &tool, &collector.url);
    let bearer = [
        ("x-admin-token", TOKEN),
        ("accept", "application/json, text/event-stream"),
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", "tools/call"),
        ("mcp-name", "mirror__look"),
        ("traceparent", "00-11111111111111111111111111111111-1111111111111111-01"),
    ];
    let traceparent = format!("00-{TRACE}-{CLIENT_SPAN}-01");
    let body = tools_call(json!({"traceparent": traceparent}));
    let url = format!("{}/mcp", mesh.url);
    let mut last = Value::Null;
    // The catalogue has to hear of the worker first.
    let warm = tools_call(json!({}));
    assert!(
        until(|| {
            let (status, answer) = http_with("POST", &url, &bearer, &warm);
            last = json!([status, answer]);
            status == 200 && answer["result"]["content"][0]["text"] == SECRET
        }),
        "{last}"
    );
    let (_, answer) = http_with("POST", &url, &bearer, &body);
    let told = &answer["result"]["_meta"]["cogo/trace_id"];
    assert_eq!(told.as_str().map(|id| id.replace('-', "")).as_deref(), Some(TRACE), "{answer}");
    let spans = collector.wait(TRACE, 4);
    let server = one(&spans, SpanKind::Server, "tools/call look");
    assert_eq!(server.says("cogo.outcome"), "done");
    assert_eq!(server.parent(), CLIENT_SPAN, "_meta counts, not the header: {server:?}");
    assert_eq!(collector::hex(&server.span.links[0].span_id), "1".repeat(16));
    assert_eq!(server.says("mcp.protocol.version"), "2026-07-28");

    let url = format!("{}/api/mcp/mirror/look", mesh.url);
    let given = traceparent.replace("4bf9", "4bf7");
    let headers = [("x-admin-token", TOKEN), ("traceparent", given.as_str())];
    let (status, answer) = http_with("POST", &url, &headers, "{}");
    assert_eq!(status, 200, "{answer}");
    let spans = collector.wait(&TRACE.replace("4bf9", "4bf7"), 4);
    let server = one(&spans, SpanKind::Server, "tools/call look");
    assert_eq!((server.parent(), server.says("cogo.outcome")), (CLIENT_SPAN.into(), "done".into()));

    // What is refused is told by its class, and by nothing of what was sent.
    let body = body.replace("mirror__look", &format!("mirror__{}", "none")).replace("4bf9", "4bf6");
    let bearer =
        bearer.map(|(name, value)| (name, if name == "mcp-name" { "mirror__none" } else { value }));
    let (_, answer) = http_with("POST", &format!("{}/mcp", mesh.url), &bearer, &body);
    assert!(answer["error"]["code"].is_i64(), "{answer}");
    let spans = collector.wait(&TRACE.replace("4bf9", "4bf6"), 1);
    let server = one(&spans, SpanKind::Server, "tools/call none");
    assert!(server.failed() && server.says("error.type") == "-32602", "{server:?}");
    mesh.worker.stop();
    mesh.hub.stop();
    assert!(!holds(&collector.bytes(), SECRET), "a secret in a trace");
}

#[tokio::test]
async fn a_collector_behind_tls_is_reached_and_a_certificate_that_nobody_vouches_for_is_told() {
    let db = TestDb::new().await;
    let collector = Collector::default();
    let (url, certificate) = server::serve_tls(collector.answer());
    let dir = temp_dir();
    write(dir.path(), "ca.pem", &certificate);
    let cogo = Cogo::on(&db)
        .with("OTEL_EXPORTER_OTLP_ENDPOINT", &url)
        .with("OTEL_BSP_SCHEDULE_DELAY", "20");
    let trusts = cogo
        .clone()
        .with("OTEL_EXPORTER_OTLP_CERTIFICATE", dir.path().join("ca.pem").display().to_string());
    let echo = || {
        let id = cogo.ok(&["enqueue", "echo/default", "echo", "1"]).line().to_owned();
        let message = cogo.json(&["get", &id, "--wait"])["message"].clone();
        message["trace_id"].as_str().expect("an id").to_owned()
    };
    let worker = trusts.start(&["worker", "echo"]);
    worker.stderr.wait("is ready");
    collector.wait(&echo(), 1);
    worker.stop();
    let worker = cogo.start(&["worker", "echo"]);
    worker.stderr.wait("is ready");
    echo();
    let said = worker.stderr.wait("takes no traces").to_lowercase();
    assert!(said.contains("certificate"), "{said}");
    worker.stop();
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[tokio::test]
async fn each_attempt_is_a_span_and_says_why_there_was_another() {
    let db = TestDb::new().await;
    let (collector, tool) = (Collector::start(), Tool::start(1));
    let mesh = Mesh::start(&db, &tool, &collector.url);
    let (id, trace) = mesh.call(&[]);
    assert_eq!(mesh.wait(&id)["status"], "done");
    let spans = collector.wait(&trace, 6);
    let mut attempts: Vec<_> =
        spans.iter().filter(|seen| seen.kind() == SpanKind::Consumer).collect();
    attempts.sort_by_key(|seen| seen.says("cogo.attempt"));
    let [first, second] = attempts[..] else { panic!("{spans:#?}") };
    assert_eq!(first.parent(), second.parent());
    assert!(first.failed() && !second.failed());
    assert_eq!(
        (first.says("error.type"), first.says("cogo.outcome")),
        ("tool_error".into(), "retried".into())
    );
    assert_eq!(first.events(), ["retry"]);
    assert_eq!(second.says("cogo.outcome"), "done");
    let calls: Vec<_> = spans.iter().filter(|seen| seen.kind() == SpanKind::Client).collect();
    let failed: Vec<_> = calls.iter().filter(|seen| seen.failed()).collect();
    let [failed] = failed[..] else { panic!("{spans:#?}") };
    assert_eq!(failed.parent(), first.id());
    assert_eq!(failed.says("rpc.response.status_code"), "-32603");
    mesh.worker.stop();
    mesh.hub.stop();
    assert!(!holds(&collector.bytes(), SECRET), "a secret in a trace");
}

#[tokio::test]
async fn a_collector_that_is_down_is_told_of_once_and_holds_nothing_up() {
    let db = TestDb::new().await;
    let tool = Tool::start(0);
    // Taken and let go: nobody is there, until somebody is.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let mesh = Mesh::start(&db, &tool, &format!("http://{address}"));
    let (hub, worker) = (mesh.hub.stderr.clone(), mesh.worker.stderr.clone());
    for _ in 0..3 {
        let (id, _) = mesh.call(&[]);
        assert_eq!(mesh.wait(&id)["status"], "done");
        hub.wait("takes no traces");
        worker.wait("takes no traces");
    }
    let warned = hub.text();
    assert_eq!(warned.matches("takes no traces").count(), 1, "{warned}");
    assert!(warned.to_lowercase().contains("refused"), "{warned}");

    let collector = Collector::default();
    let listener = TcpListener::bind(address).expect("still free");
    server::serve_on(listener, Arc::new(collector.answer()));
    let mut trace = String::new();
    assert!(until(|| {
        let (id, of) = mesh.call(&[]);
        assert_eq!(mesh.wait(&id)["status"], "done");
        trace = of;
        hub.text().contains("takes traces again") && worker.text().contains("takes traces again")
    }));
    collector.wait(&trace, 4);
    mesh.worker.stop();
    mesh.hub.stop();
}

#[tokio::test]
async fn a_collector_that_never_answers_delays_the_end_by_two_seconds_at_most() {
    let db = TestDb::new().await;
    // Connections are taken by the kernel, and nobody reads.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let cogo = Cogo::on(&db).with("OTEL_EXPORTER_OTLP_ENDPOINT", url);
    let mut worker = cogo.start(&["worker", "echo"]);
    worker.stderr.wait("is ready");
    let id = cogo.ok(&["enqueue", "echo/default", "echo", "1"]).line().to_owned();
    assert_eq!(cogo.json(&["get", &id, "--wait"])["message"]["status"], "done");
    worker.signal("INT");
    worker.stderr.wait("Stopped.");
    let stopped = Stopwatch::start();
    assert_eq!(worker.end(), Some(0), "{}", worker.stderr.text());
    // By itself the exporter would wait for ten.
    assert!(stopped.elapsed() < Duration::from_secs(9), "{:?}", stopped.elapsed());
    assert!(worker.stderr.text().contains("could not be exported"), "{}", worker.stderr.text());
}

#[tokio::test]
async fn any_role_makes_a_span_of_an_attempt_and_the_last_ones_go_out_at_the_end() {
    let db = TestDb::new().await;
    let collector = Collector::start();
    let cogo = Cogo::on(&db)
        .with("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", format!("{}/in", collector.url))
        .with("OTEL_SERVICE_NAME", "shop")
        .with("OTEL_BSP_SCHEDULE_DELAY", "3600000");
    let worker = cogo.start(&["worker", "echo"]);
    worker.stderr.wait("is ready");
    let id =
        cogo.ok(&["enqueue", "echo/default", "echo", "{\"a\": \"hunter2\"}"]).line().to_owned();
    let message = cogo.json(&["get", &id, "--wait"])["message"].clone();
    assert!(collector.spans().is_empty());
    worker.stop();
    let spans = collector.wait(message["trace_id"].as_str().expect("an id"), 1);
    let process = one(&spans, SpanKind::Consumer, "process echo/default");
    assert_eq!(process.parent(), "");
    assert_eq!(process.of("service.name"), "shop");
    assert_eq!(collector.requests.lock().expect("unpoisoned")[0].path, "/in");
    assert!(!holds(&collector.bytes(), SECRET), "a secret in a trace");
}

#[test]
fn a_wrong_variable_is_refused_before_anything_is_started() {
    let cogo = Cogo::new()
        .with("COGO_URL", "http://127.0.0.1:9")
        .with("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317");
    let grpc = cogo.clone().with("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
    grpc.run(&["worker", "echo"]).refused(2, &["OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"]);
    let headers = cogo.with("OTEL_EXPORTER_OTLP_HEADERS", "authorization hunter2");
    let done = headers.run(&["up"]);
    done.refused(2, &["OTEL_EXPORTER_OTLP_HEADERS", "entry 1"]);
    assert!(!done.stderr.contains(SECRET), "{done:?}");
    // Commands that make no traces do not look.
    headers.ok(&["worker"]);
}
