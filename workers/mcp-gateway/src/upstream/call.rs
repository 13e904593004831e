//! One call of one tool.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cogo::clock::Stopwatch;
use cogo::retry::ErrorClass;
use rmcp::RoleClient;
use rmcp::model::{CallToolRequest, CallToolRequestParams, ClientRequest, ServerResult};
use rmcp::service::{RequestHandle, ServiceError};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use super::Upstream;
use super::connection::{CancelOnDrop, Connection, ProgressSink, Server, as_it_came, plain};
use super::error::CallError;
use super::tools::Tool;
use super::wire::Probe;

/// What to call, and how.
pub struct Call {
    /// The tool's name.
    pub tool: String,
    /// Its arguments.
    pub params: Map<String, Value>,
    /// The hash of the definition that the call was made for. A tool that is defined otherwise is not called.
    pub definition: Option<String>,
    /// Answers to what the tool asked for, in a call before.
    pub input: Option<Input>,
    /// How long the call may take, waiting for a connection and a free slot included. The toolset's
    /// `call_timeout_ms` also holds.
    pub timeout: Duration,
    /// What goes into the request's `_meta`.
    pub meta: Map<String, Value>,
    /// Takes the server's progress reports: `{progress, total?, message?}`.
    pub progress: ProgressSink,
    /// Ends the call from outside; the server is told.
    pub cancel: CancellationToken,
}

/// Answers to what a tool asked for (MCP 2026-07-28, "Multi Round-Trip Requests", SEP-2322).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// The answers, by the names that the tool gave its questions.
    #[serde(default)]
    pub responses: BTreeMap<String, Value>,
    /// What the tool wants to have back as it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
}

impl Call {
    /// A call of `tool` that reports no progress and is never cancelled.
    #[must_use]
    pub fn new(tool: impl Into<String>, params: Map<String, Value>, timeout: Duration) -> Self {
        Self {
            tool: tool.into(),
            params,
            definition: None,
            input: None,
            timeout,
            meta: Map::new(),
            progress: Arc::new(|_| {}),
            cancel: CancellationToken::new(),
        }
    }
}

/// What a tool answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// The tool's result (MCP, `CallToolResult`), as it came.
    pub result: Value,
    /// The server that answered.
    pub server: Server,
    /// How long it took, in milliseconds, waiting included.
    pub latency_ms: u64,
}

impl Upstream {
    /// Calls a tool.
    ///
    /// Dropping the future cancels the call; as with every cancellation, whether the tool had run is
    /// then unknown.
    ///
    /// # Errors
    /// The [`CallError`] says whether the request may have reached the server, and its class:
    /// `connect` when it did not, or was refused unread, or the tool is not defined here as the call means it; `invalid_params` for an unknown tool or refused arguments;
    /// `tool_error` when the tool failed; `protocol` when the reply breaks the protocol; `timeout`
    /// or `closed` when no reply came and the tool is annotated `readOnlyHint` or `idempotentHint`,
    /// or nothing was sent; else `ambiguous`.
    pub async fn call(&self, call: Call) -> Result<Reply, CallError> {
        let clock = Stopwatch::start();
        let limit = self.toolset().call_timeout_ms.map(Duration::from_millis);
        let limit = limit.map_or(call.timeout, |limit| limit.min(call.timeout));
        let outcome = self.attempt(call, limit, clock).await;
        let latency_ms = clock.elapsed_ms();
        match outcome {
            Ok((result, server)) => Ok(Reply { result, server, latency_ms }),
            Err(error) => Err(CallError { latency_ms, ..error }),
        }
    }

    async fn attempt(
        &self,
        call: Call,
        limit: Duration,
        clock: Stopwatch,
    ) -> Result<(Value, Server), CallError> {
        let left = || limit.saturating_sub(clock.elapsed());
        let cancel = call.cancel.clone();
        let prepare = async {
            // The tool's own first: who waits for one must not take from the toolset's other tools meanwhile.
            let slots = async {
                let own = match self.tool_slots.get(&call.tool) {
                    Some((slots, _)) => Some(slots.acquire().await),
                    None => None,
                };
                (own, self.slots.acquire().await)
            };
            let slots = tokio::time::timeout(left(), slots).await.map_err(|_| {
                let message = format!("{}: no free slot within {limit:?}", self.name());
                CallError::unsent(ErrorClass::Timeout, message)
            })?;
            let patience = Duration::from_millis(self.toolset().connect_timeout_ms);
            let connection = self.connection(patience.min(left())).await?;
            let tool = self.find(&connection, &call.tool, call.definition.as_deref()).await?;
            Ok((slots, connection, tool))
        };
        let (_slots, connection, tool) = tokio::select! {
            prepared = prepare => prepared?,
            () = cancel.cancelled() => {
                return Err(CallError::unsent(ErrorClass::Closed, "the call was cancelled"));
            }
        };
        let sent = Request::send(&connection, call).await?;
        let result = sent.outcome(&connection, &tool, left(), &cancel).await?;
        if result.get("isError") == Some(&Value::Bool(true)) {
            return Err(CallError::tool(&tool.name, result));
        }
        Ok((result, connection.server.clone()))
    }

    /// The tool called `name`, and defined as the caller means it. A name that is not listed, or is otherwise, is
    /// looked up once more: not every server announces that its tools have changed.
    async fn find(
        &self,
        connection: &Connection,
        name: &str,
        definition: Option<&str>,
    ) -> Result<Arc<Tool>, CallError> {
        let is_meant = |tool: &Arc<Tool>| definition.is_none_or(|hash| hash == tool.hash);
        if let Some(tool) = connection.tools().get(name).filter(|tool| is_meant(tool)) {
            return Ok(Arc::clone(tool));
        }
        let patience = Duration::from_millis(self.toolset().connect_timeout_ms);
        let _stale_is_good_enough = tokio::time::timeout(patience, connection.refresh()).await;
        match (connection.tools().get(name), definition) {
            (Some(tool), _) if is_meant(tool) => Ok(Arc::clone(tool)),
            // Another machine may have what is meant.
            (Some(_), Some(_)) => Err(CallError::unasked(format!(
                "the tool {name} of toolset {} is defined otherwise on this machine than where the call was made; \
                 `cogo mcp pins` shows how",
                self.name()
            ))),
            (None, Some(_)) => Err(CallError::unasked(format!(
                "the toolset {} has no tool {name:?} on this machine",
                self.name()
            ))),
            _ => {
                let message = format!("the toolset {} has no tool {name:?}", self.name());
                Err(CallError::unsent(ErrorClass::InvalidParams, message))
            }
        }
    }
}

/// A request in flight. Dropping it before its outcome tells the server that nobody waits.
struct Request {
    handle: Option<RequestHandle<RoleClient>>,
    probe: Arc<Probe>,
    cancel: CancelOnDrop,
}

impl Request {
    async fn send(connection: &Connection, call: Call) -> Result<Self, CallError> {
        let probe = Arc::new(Probe::default());
        let mut params = CallToolRequestParams::new(call.tool).with_arguments(call.params);
        if let Some(Input { responses, state }) = call.input {
            params.input_responses = (!responses.is_empty()).then_some(responses);
            params.request_state = state;
        }
        let mut request = CallToolRequest::new(params);
        request.extensions.insert(Arc::clone(&probe));
        // The token is known only after sending, and a report may come sooner than we are told:
        // reports wait for the lock. Sending only hands over to rmcp's queue.
        let mut sinks = connection.progress.0.lock().await;
        let handle = connection
            .peer
            .send_request_with_option(
                ClientRequest::CallToolRequest(request),
                Connection::options(&call.meta),
            )
            .await
            .map_err(|error| {
                CallError::unsent(ErrorClass::Connect, format!("cannot send: {}", plain(&error)))
            })?;
        sinks.insert(handle.progress_token.clone(), (f64::NEG_INFINITY, call.progress));
        drop(sinks);
        let cancel = connection.cancel_on_drop(&handle, &probe);
        Ok(Self { handle: Some(handle), probe, cancel })
    }

    async fn outcome(
        mut self,
        connection: &Connection,
        tool: &Tool,
        left: Duration,
        cancel: &CancellationToken,
    ) -> Result<Value, CallError> {
        let (name, safe) = (&tool.name, tool.repeatable());
        let Some(mut handle) = self.handle.take() else { unreachable!("set at its creation") };
        let answer = tokio::select! {
            biased; // an answer that is there counts
            answer = &mut handle.rx => answer.unwrap_or(Err(ServiceError::TransportClosed)),
            () = connection.wire.closed().cancelled() => Err(ServiceError::TransportClosed),
            () = cancel.cancelled() => {
                self.cancel.reason = "the caller gave up";
                return Err(self.unanswered(ErrorClass::Closed, safe, "the call was cancelled"));
            }
            () = tokio::time::sleep(left) => {
                self.cancel.reason = "timed out";
                let message = format!("the tool {name} did not answer in time");
                return Err(self.unanswered(ErrorClass::Timeout, safe, message));
            }
        };
        self.cancel.armed = false;
        connection.pass_on_reports().await;
        if let Some(fault) = self.probe.fault() {
            return Err(CallError::new(ErrorClass::Protocol, true, fault));
        }
        match answer {
            Ok(result) => self.result(result),
            // An answer, but none to what was asked; see `http`.
            Err(ServiceError::McpError(error)) if self.probe.withdraw() => {
                Err(CallError::refused(name, &error))
            }
            Err(ServiceError::McpError(error)) => Err(CallError::answered(name, &error)),
            Err(ServiceError::TransportClosed) => {
                let message = format!("no answer from {name}: {}", connection.wire.reason());
                Err(self.unanswered(ErrorClass::Closed, safe, message))
            }
            Err(error) => {
                let message = format!("no answer from {name}: {}", plain(&error));
                Err(self.unanswered(ErrorClass::Closed, safe, message))
            }
        }
    }

    /// The result as it came. Only what it must be is checked, not what its content is.
    fn result(&self, result: ServerResult) -> Result<Value, CallError> {
        let result = as_it_came(&self.probe, result);
        match result.get("resultType").and_then(Value::as_str) {
            // MCP 2026-07-28: the tool wants input first. Whoever called may give it, with another call.
            Some("input_required")
                if result["inputRequests"].is_object() || result["requestState"].is_string() =>
            {
                Ok(result)
            }
            // Or it has become a task, which was not offered; or it asks, and does not say what.
            Some(other) if other != "complete" => Err(CallError {
                detail: Some(result.clone()),
                ..CallError::new(
                    ErrorClass::Protocol,
                    true,
                    format!("the tool answered with a {other:?}, which the gateway did not offer"),
                )
            }),
            _ if result.is_object() => Ok(result),
            _ => Err(CallError::new(ErrorClass::Protocol, true, "the result is no object")),
        }
    }

    fn unanswered(&self, lost: ErrorClass, safe: bool, message: impl Into<String>) -> CallError {
        if !self.probe.withdraw() {
            return CallError::unanswered(lost, safe, message);
        }
        let class = if lost == ErrorClass::Closed { ErrorClass::Connect } else { lost };
        CallError::unsent(class, message)
    }
}
