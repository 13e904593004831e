//! Real MCP servers, a sick one, and what tests say again and again.

pub(crate) mod asks;
pub(crate) mod install;
pub(crate) mod process;
pub(crate) mod shelf;
pub(crate) mod sick;
pub(crate) mod sick_http;
pub(crate) mod teller;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use cogo::clock::utc_now;
use cogo::message::{Message, MessageId, Status, TraceId};
use cogo::retry::ErrorClass;
use cogo::shutdown::Shutdown;
use cogo_worker_mcp_gateway::config::Toolset;
use cogo_worker_mcp_gateway::handler::Attempt;
use cogo_worker_mcp_gateway::upstream::{Call, CallError, Reply, Upstream};
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

/// Longer than anything here takes on a slow machine; a test that waits this long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// An HTTP client. Whichever test of a process comes first brings the TLS that all of them use.
pub(crate) fn http() -> reqwest::Client {
    let _whoever_was_first = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::new()
}

pub(crate) fn upstream(toolset: Toolset) -> Arc<Upstream> {
    Upstream::start("subject", toolset, &Shutdown::new())
}

pub(crate) fn object(value: Value) -> Map<String, Value> {
    value.as_object().cloned().expect("a JSON object")
}

pub(crate) async fn call(
    upstream: &Upstream,
    tool: &str,
    params: Value,
) -> Result<Reply, CallError> {
    upstream.call(Call::new(tool, object(params), PATIENCE)).await
}

/// The class and whether the request may have arrived, of a call that must fail.
pub(crate) async fn failure(upstream: &Upstream, tool: &str, ms: u64) -> (ErrorClass, bool) {
    let call = Call::new(tool, Map::new(), Duration::from_millis(ms));
    let error = upstream.call(call).await.expect_err("the call must fail");
    (error.class, error.sent)
}

/// The text of a reply's first block.
pub(crate) fn text(result: &Value) -> &str {
    result["content"][0]["text"].as_str().unwrap_or_else(|| panic!("no text in {result}"))
}

/// Waits until `condition` holds, looking often; the last resort where nothing can be awaited.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

pub(crate) fn message(toolset: &str, tool: &str, params: Value) -> Message {
    let payload = json!({"toolset": toolset, "tool": tool, "params": params});
    let (now, id) = (utc_now(), MessageId::new());
    Message {
        id,
        tenant: "default".to_owned(),
        role: "mcp-gateway".to_owned(),
        service: toolset.to_owned(),
        shard: 0,
        intent: "mcp.call".to_owned(),
        payload,
        trace_id: TraceId::new(),
        parent_id: None,
        idempotency_key: None,
        priority: 0,
        status: Status::Claimed,
        attempts: 1,
        max_attempts: 5,
        claim_no: 1,
        run_at: now,
        claimed_by: None,
        claimed_at: None,
        lease_until: None,
        result: None,
        error: None,
        created_at: now,
        updated_at: now,
        done_at: None,
        deadline_at: None,
        ordering_key: None,
        parked_for: None,
    }
}

/// An attempt whose progress reports can be read.
pub(crate) fn attempt() -> (Attempt, Arc<Mutex<Vec<Value>>>) {
    let reports = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&reports);
    let attempt = Attempt {
        timeout: PATIENCE,
        cancelled: CancellationToken::new(),
        fallback: None,
        place: None,
        progress: Arc::new(move |report| sink.lock().expect("no panics").push(report)),
    };
    (attempt, reports)
}
