//! From a message to a tool call and back.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cogo::artifact::{self, Limits, Store};
use cogo::clock::{Stopwatch, utc_now};
use cogo::error::{Code, chain};
use cogo::live::Live;
use cogo::message::Message;
use cogo::retry::{ErrorClass, Policies};
use cogo::trace::Place;
use cogo::worker::{Delivery, Failure, Fallback, Handler, Output};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use crate::capture::{Capture, Record};
use crate::catalogue::announce::Announced;
use crate::metrics;
use crate::redact::Redactor;
use crate::results::Keep;
use crate::toolsets::{Set, Toolsets};
use crate::trace::{self, TRACEPARENT, TRACESTATE};
use crate::upstream::{Call, CallError, Input, Reply, Upstream};

/// What the gateway's messages ask for.
pub const INTENT: &str = "mcp.call";

/// How long artifacts may take when the time is up.
const CAPTURE_GRACE: Duration = Duration::from_millis(500);
/// How long keeping what is too large may take then; both together are less than the runner waits.
const KEEP_GRACE: Duration = Duration::from_millis(400);

/// Calls tools: messages of intent `mcp.call`, the toolset as their service, and the payload
/// `{toolset, tool, params}`.
#[derive(Debug, Clone)]
pub struct McpHandler {
    toolsets: Arc<Toolsets>,
    policies: Live<Policies>,
    capture: Capture,
    announced: Arc<Announced>,
    store: Store,
}

/// The payload of a message; everything else in it is refused. What is optional was added later.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    toolset: String,
    tool: String,
    #[serde(default)]
    params: Option<Map<String, Value>>,
    /// The hash of the definition that the call was checked against.
    #[serde(default)]
    definition: Option<String>,
    /// What the caller put into its request's `_meta`.
    #[serde(default)]
    meta: Map<String, Value>,
    /// Answers to what the tool asked for, in a call before (MCP 2026-07-28, SEP-2322).
    #[serde(default)]
    input: Option<Input>,
    /// The place that sent it (W3C Trace Context).
    #[serde(default, rename = "traceparent")]
    _traceparent: Option<String>,
    #[serde(default, rename = "tracestate")]
    _tracestate: Option<String>,
}

/// What a handler is given beside the message.
pub struct Attempt {
    /// How long it may take.
    pub timeout: Duration,
    /// Cancelled when nobody wants the result any more.
    pub cancelled: CancellationToken,
    /// The toolset to call in place of the message's own, whose breaker is not closed.
    pub fallback: Option<String>,
    /// The attempt's span, if spans are made.
    pub place: Option<Place>,
    /// Takes progress reports.
    pub progress: Arc<dyn Fn(Value) + Send + Sync>,
}

impl Handler for McpHandler {
    async fn handle(&self, delivery: Delivery) -> Result<Output, Failure> {
        let message = Arc::clone(&delivery.message);
        let (timeout, cancelled) = (delivery.timeout, delivery.cancelled.clone());
        let (fallback, place) = (delivery.fallback.clone(), delivery.place.clone());
        let progress = Arc::new(move |report| delivery.progress(report));
        let attempt = Attempt { timeout, cancelled, fallback, place, progress };
        self.attempt(&message, attempt).await
    }

    /// The toolset was disabled or taken out while the claim was under way: another machine may have it.
    fn refuses(&self, message: &Message) -> Option<&'static str> {
        let served = self.toolsets.now().get(&message.service).is_some();
        (!served).then_some("toolset_not_served")
    }

    /// What was dropped in the middle of a call may have been done (DESIGN, invariant 10).
    fn may_repeat(&self, _message: &Message) -> bool {
        false
    }

    /// `mcp.call.<toolset>.<tool>.<shard>`, so that policies may go as deep as they like.
    fn policy_key(&self, message: &Message) -> String {
        key(message, &message.service)
    }

    fn sent_from(&self, message: &Message) -> Option<Place> {
        trace::in_meta(message.payload.as_object()?)
    }

    /// `{"toolsets": {"<name>": {"tools": {"<tool>": "<hash>"}}}}`, as last announced.
    fn info(&self) -> Value {
        self.announced.info()
    }

    async fn info_changed(&self) {
        self.announced.changed().await;
    }

    /// What may have been done at the toolset itself goes to another only where it changes nothing: what is
    /// idempotent on one server is not so on two.
    fn fallback(&self, message: &Message, may_have_run: bool) -> Option<Fallback> {
        let own = self.toolsets.get(&message.service)?;
        let read_only = || own.tool(message.payload.get("tool")?.as_str()?).map(|t| t.read_only);
        if may_have_run && read_only() != Some(true) {
            return None;
        }
        let name = own.toolset().fallback.clone()?;
        Some(Fallback { policy_key: key(message, &name), name })
    }
}

fn key(message: &Message, toolset: &str) -> String {
    let tool = message.payload.get("tool").and_then(Value::as_str).unwrap_or(metrics::UNKNOWN);
    format!("{}.{toolset}.{tool}.{}", message.intent, message.shard)
}

impl McpHandler {
    /// A handler that calls `toolsets` and leaves artifacts below `artifacts_dir`. `policies` say
    /// whether an ambiguous outcome may be tried again.
    #[must_use]
    pub fn new(
        toolsets: Arc<Toolsets>,
        policies: impl Into<Live<Policies>>,
        artifacts_dir: impl Into<PathBuf>,
    ) -> Self {
        let announced = Arc::new(Announced::new(toolsets.offer()));
        let (policies, artifacts_dir) = (policies.into(), artifacts_dir.into());
        let store = Store::folder(&artifacts_dir, Limits::default());
        let capture = Capture::new(artifacts_dir);
        Self { toolsets, policies, capture, announced, store }
    }

    /// What it says of itself to others, for [`announce::run`](crate::catalogue::announce::run) to keep.
    #[must_use]
    pub fn announced(&self) -> Arc<Announced> {
        Arc::clone(&self.announced)
    }

    /// Keeps what is too large for a message in `store`; else below the artifacts directory.
    #[must_use]
    pub fn with_store(self, store: Store) -> Self {
        Self { store, ..self }
    }

    /// Makes one attempt at `message`, without a runner around it.
    ///
    /// # Errors
    /// See [`Upstream::call`]; and `invalid_params` for a payload that is not as it should be.
    pub async fn attempt(&self, message: &Message, attempt: Attempt) -> Result<Output, Failure> {
        let clock = Stopwatch::start();
        // One and the same, whatever the configuration becomes meanwhile.
        let toolsets = self.toolsets.now();
        let (payload, upstream) = match accept(&toolsets, message, attempt.fallback.as_deref()) {
            Ok(accepted) => accepted,
            Err(failure) => {
                let toolset = toolsets.get(&message.service).map(|u| u.name());
                let toolset = toolset.unwrap_or(metrics::UNKNOWN);
                metrics::call(toolset, metrics::UNKNOWN, clock.elapsed_ms(), Some(failure.class));
                return Err(*failure);
            }
        };
        let started = utc_now();
        let (timeout, cancelled) = (attempt.timeout, attempt.cancelled.clone());
        let fallback = attempt.fallback.clone();
        let checking = self.may_call(&toolsets, message, &payload);
        // The next attempt may be at the toolset itself: there it would be another server that does the work again.
        let elsewhere = fallback.is_some();
        let safe = || {
            let tool = upstream.tool(&payload.tool);
            tool.is_some_and(|tool| if elsewhere { tool.read_only } else { tool.repeatable() })
        };
        let outcome = match tokio::time::timeout(timeout, checking).await {
            Ok(true) => {
                let timeout = timeout.saturating_sub(clock.elapsed());
                let above = attempt.place.clone().or_else(|| self.sent_from(message));
                let above = above.filter(|place| place.trace_id() == message.trace_id.0);
                let (name, toolset) = (upstream.name(), upstream.toolset());
                let span = trace::upstream_span(above.as_ref(), name, toolset, &payload.tool);
                let attempt = Attempt { timeout, place: span.place(), ..attempt };
                let outcome = upstream.call(call(message, &payload, attempt)).await;
                let outcome =
                    outcome.map_err(|error| error_of(error, upstream, elsewhere && !safe()));
                span.end(outcome.as_ref());
                outcome
            }
            Ok(false) | Err(_) => Err(may_have_run(&payload.tool)),
        };
        // The runner waits a second longer than the timeout, and no more once it has cancelled: a slow
        // disk must not turn an outcome that is known into one that is not.
        let left = if cancelled.is_cancelled() { Duration::ZERO } else { timeout };
        let latency_ms = clock.elapsed_ms();
        // What leaves for the log must not hold our own secrets, should a tool give them back.
        let redactor: &Redactor = toolsets.redactor();
        let keep = Keep {
            store: &self.store,
            tenant: &message.tenant,
            max_bytes: toolsets.config().mesh.max_result_bytes,
        };
        let patience = left.saturating_sub(clock.elapsed()) + KEEP_GRACE;
        let ran = Ran { toolset: upstream.name(), tool: &payload.tool, safe: safe() };
        let outcome = kept(outcome, &keep, redactor, &ran, patience).await;
        let known = upstream.tool(&payload.tool);
        let label = known.as_ref().map_or(metrics::UNKNOWN, |tool| &tool.name);
        metrics::call(upstream.name(), label, latency_ms, outcome.as_ref().err().map(|e| e.class));

        let mut record = record(message, &payload, upstream, &outcome);
        record.summary["started_at"] = json!(started);
        record.summary["latency_ms"] = latency_ms.into();
        if fallback.is_some() {
            record.summary["fallback_of"] = json!(message.service);
        }
        let mut meta = json!({ "latency_ms": latency_ms });
        let patience = left.saturating_sub(clock.elapsed()) + CAPTURE_GRACE;
        let (name, redactor_of) = (upstream.name(), Arc::clone(toolsets.redactor()));
        let written = self.capture.write(name, message.id, record, redactor_of, patience).await;
        if let Some(path) = written {
            meta["artifacts"] = path.into();
        }
        match outcome {
            Ok(Reply { result, server, .. }) => {
                meta["server"] = json!(server);
                Ok(Output { result, meta })
            }
            Err(error) => {
                let failure = Failure::new(error.class, redactor.text(&error.message));
                let mut failure = failure.with_meta(meta);
                // Nothing was sent, and yet it is unknown: that was an earlier worker's call.
                // Or nothing was, because it is another machine's to do.
                failure.unasked = error.unasked;
                failure.unsent = !error.sent;
                Err(match error.detail {
                    Some(detail) => failure.with_detail(detail),
                    None => failure,
                })
            }
        }
    }

    /// Whether the tool may be called, which it may not where it may have been called before
    /// (DESIGN, invariant 10): the worker that held the message vanished, so nobody knows how far it
    /// came. An operator's requeue begins again at attempt 1, and knows what it does.
    async fn may_call(&self, toolsets: &Set, message: &Message, payload: &Payload) -> bool {
        let class = message.error.as_ref().and_then(|error| error["class"].as_str());
        let vanished = class == Some(ErrorClass::LeaseExpired.as_str()) && message.attempts > 1;
        let policy = || self.policies.get().resolve(&self.policy_key(message));
        let retried = || policy().retries(ErrorClass::Ambiguous);
        if !vanished || retried() {
            return true;
        }
        // Where there is a fallback, nobody knows which of the two was called.
        let own = toolsets.get(&message.service);
        let fallback = own.and_then(|own| own.toolset().fallback.as_deref());
        let fallback = fallback.and_then(|name| toolsets.get(name));
        for upstream in own.into_iter().chain(fallback) {
            // If the server cannot be asked, the tool is taken for one that must not be repeated: the
            // next attempt would no longer know that a lease had expired.
            if upstream.tool(&payload.tool).is_none() {
                let _unreachable = upstream.ping().await;
            }
            // Calling one server twice may change nothing more where calling two does.
            let safe = match fallback {
                Some(_) => upstream.tool(&payload.tool).is_some_and(|tool| tool.read_only),
                None => upstream.tool(&payload.tool).is_some_and(|tool| tool.repeatable()),
            };
            if !safe {
                return false;
            }
        }
        true
    }
}

fn accept<'a>(
    toolsets: &'a Set,
    message: &Message,
    fallback: Option<&str>,
) -> Result<(Payload, &'a Upstream), Box<Failure>> {
    let refuse = |text: String| Box::new(Failure::new(ErrorClass::InvalidParams, text));
    if message.intent != INTENT {
        return Err(refuse(format!("intent: must be {INTENT}, not {}", message.intent)));
    }
    let payload: Payload = serde_path_to_error::deserialize(&message.payload).map_err(|error| {
        match error.path().to_string().as_str() {
            "." => refuse(format!("payload: {}", error.inner())),
            field => refuse(format!("payload.{field}: {}", error.inner())),
        }
    })?;
    if payload.toolset != message.service {
        return Err(refuse(format!(
            "payload.toolset: must be the message's service, {}",
            message.service
        )));
    }
    let Some(upstream) = toolsets.get(fallback.unwrap_or(&payload.toolset)) else {
        let known = toolsets.names().join(", ");
        let text = format!("payload.toolset: there is no {:?}, only {known}", payload.toolset);
        return Err(refuse(text));
    };
    // Whoever may send to the toolset may do so without the hub's mesh, which looks at the same lists.
    if !toolsets.config().mesh.offers(&message.tenant, &payload.toolset, &payload.tool) {
        return Err(refuse(format!(
            "payload.tool: {} is not for tenant {} (mcp.json, mesh.tenants)",
            payload.tool, message.tenant
        )));
    }
    Ok((payload, upstream))
}

/// The error as anybody may read it; ambiguous where the answer was lost and the work may be done `only_once`.
fn error_of(error: CallError, upstream: &Upstream, only_once: bool) -> CallError {
    let lost = matches!(error.class, ErrorClass::Timeout | ErrorClass::Closed) && error.sent;
    let class = if lost && only_once { ErrorClass::Ambiguous } else { error.class };
    CallError { class, message: upstream.told(&error.message), ..error }
}

/// A tool that was called, and whether it may be called again though it may have run.
struct Ran<'a> {
    toolset: &'a str,
    tool: &'a str,
    safe: bool,
}

/// The outcome without our secrets, and small enough for a message: what a tool answered, and also what it said when
/// it failed. A part that cannot be kept makes it an outcome that did not arrive: the tool has run, so that it is
/// tried again only where that does no harm.
async fn kept(
    outcome: Result<Reply, CallError>,
    keep: &Keep<'_>,
    redactor: &Redactor,
    &Ran { toolset, tool, safe }: &Ran<'_>,
    patience: Duration,
) -> Result<Reply, CallError> {
    let fit = async |result: Value| {
        let fitting = keep.fit(redactor.known(result));
        let fitted = tokio::time::timeout(patience, fitting).await;
        let error = match fitted {
            Ok(Ok(fitted)) => return Ok(fitted),
            Ok(Err(error)) => error,
            Err(_) => artifact::Error::Hub {
                code: Code::Timeout,
                message: "no answer in time".to_owned(),
            },
        };
        metrics::artifact_failed(toolset);
        let why = chain(&error);
        let text = format!("the tool {tool} ran, and its result could not be kept: {why}");
        Err(match error {
            // Another time it would be as large.
            artifact::Error::TooLarge { .. } => CallError::new(ErrorClass::Protocol, true, text),
            _ => CallError::unanswered(ErrorClass::Closed, safe, text),
        })
    };
    match outcome {
        Ok(Reply { result, server, latency_ms }) => {
            Ok(Reply { result: fit(result).await?, server, latency_ms })
        }
        Err(mut error) => {
            if let Some(detail) = error.detail.take() {
                error.detail = Some(fit(detail).await?);
            }
            Err(error)
        }
    }
}

fn may_have_run(tool: &str) -> CallError {
    CallError {
        class: ErrorClass::Ambiguous,
        sent: false,
        message: format!(
            "the worker that held the message vanished, the tool {tool} may have run, and nothing \
             says that it may run twice"
        ),
        detail: None,
        latency_ms: 0,
        unasked: true,
    }
}

fn call(message: &Message, payload: &Payload, attempt: Attempt) -> Call {
    let (traceparent, tracestate) = match &attempt.place {
        Some(place) => (place.traceparent(), place.tracestate()),
        None => (stand_in(message), None),
    };
    let mut meta = crate::meta::passed_on(&payload.meta);
    meta.extend([
        (TRACEPARENT.to_owned(), json!(traceparent)),
        ("cogo/message_id".to_owned(), json!(message.id)),
        ("cogo/trace_id".to_owned(), json!(message.trace_id)),
        ("cogo/attempt".to_owned(), json!(message.attempts)),
    ]);
    if let Some(state) = tracestate {
        meta.insert(TRACESTATE.to_owned(), json!(state));
    }
    if let Some(key) = &message.idempotency_key {
        meta.insert("cogo/idempotency_key".to_owned(), json!(key));
    }
    Call {
        tool: payload.tool.clone(),
        params: payload.params.clone().unwrap_or_default(),
        // Whoever set up a fallback said that it will do, however it is defined.
        definition: payload.definition.clone().filter(|_| attempt.fallback.is_none()),
        input: payload.input.clone(),
        timeout: attempt.timeout,
        meta,
        progress: attempt.progress,
        cancel: attempt.cancelled,
    }
}

/// What a tool's server is told where nobody made a span: the trace, and 64 bits of the message as the parent.
fn stand_in(message: &Message) -> String {
    let trace = message.trace_id.0.simple();
    let span = message.id.0.simple().to_string();
    format!("00-{trace}-{}-01", &span[16..])
}

fn record(
    message: &Message,
    payload: &Payload,
    upstream: &Upstream,
    outcome: &Result<Reply, CallError>,
) -> Record {
    let mut request = json!({
        "toolset": payload.toolset, "tool": payload.tool,
        "params": payload.params.clone().unwrap_or_default(),
    });
    if let Some(input) = &payload.input {
        request["input"] = json!(input);
    }
    let mut summary = json!({
        "message_id": message.id, "trace_id": message.trace_id, "tenant": message.tenant,
        "toolset": payload.toolset, "tool": payload.tool, "shard": message.shard,
        "attempt": message.attempts, "max_attempts": message.max_attempts,
        "endpoint": upstream.toolset().endpoint(), "transport": upstream.toolset().transport(),
        "ok": outcome.is_ok(),
    });
    match outcome {
        Ok(reply) => {
            summary["server"] = json!(reply.server);
            Record { request, response: Some(reply.result.clone()), summary, error: None }
        }
        Err(error) => {
            summary["class"] = json!(error.class);
            let why = json!({ "class": error.class, "message": error.message, "sent": error.sent });
            Record { request, response: error.detail.clone(), summary, error: Some(why) }
        }
    }
}
