//! `tools/call`: a call is put on the bus, waited for, and its result given as the tool gave it.

use std::sync::Arc;
use std::time::Duration;

use cogo::hub::Principal;
use cogo::message::MessageId;
use serde_json::{Map, Value, json};

use super::Endpoint;
use super::asked::Asked;
use super::calls::Key;
use super::rpc::{Answer, CANCELLED, RpcError, notification};
use crate::catalogue::TaskSupport;
use crate::mesh::{Input, Outcome, Refusal, Request, Started};
use crate::platform;
use crate::revision::MODERN;
use crate::trace::{self, CallSpan, End};

/// How long a tool that may be a task is waited for: what is done by then needs none.
const AT_ONCE: Duration = Duration::from_millis(100);
/// How long a tool that must be a task is waited for, in case that it asks for something first: what is asked before
/// there is a task is answered by the next call, as for any tool (SEP-2663, "MRTR composition").
const ASKS_WITHIN: Duration = Duration::from_secs(1);
/// How long a client that waits may wait. The call's own deadline ends it before; this is for what has none.
const PATIENCE: Duration = Duration::from_secs(25 * 3600);

impl Endpoint {
    /// One call, to its end; or until it is a task.
    pub(super) async fn call_tool(&self, asked: &Asked, mut params: Map<String, Value>) -> Answer {
        let Some(Value::String(name)) = params.remove("name") else {
            return Err(RpcError::invalid("name", "must be a string"));
        };
        let arguments = match params.remove("arguments") {
            None | Some(Value::Null) => None,
            Some(Value::Object(arguments)) => Some(arguments),
            Some(_) => return Err(RpcError::invalid("arguments", "must be an object")),
        };
        let meta = match params.remove("_meta") {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(meta)) => meta,
            Some(_) => return Err(RpcError::invalid("_meta", "must be an object")),
        };
        let input = input(&mut params)?;
        let carried = asked.headers.clone().with_meta(&meta)?;
        let (toolset, tool, offer) = self.named(asked, &name).await?;
        if toolset == platform::TOOLSET {
            let deps = &self.0.builtin;
            return match platform::call(&asked.who, deps, &tool, arguments).await {
                Ok(result) => Ok(finished(asked, result, None)),
                Err(Refusal::InvalidArguments { pointer, message }) => {
                    Ok(finished(asked, invalid_arguments(&pointer, &message), None))
                }
                Err(refusal) => Err(refusal.into()),
            };
        }
        let support = offer.map_or(TaskSupport::Unsaid, |offer| offer.task_support);
        let patience = self.patience(asked, support)?;
        let in_meta = trace::in_meta(&meta);
        let mut span = trace::server_span(&trace::Asked {
            method: "tools/call",
            toolset: Some(&toolset),
            tool: Some(&tool),
            session: asked.key.as_ref().and_then(Key::session),
            protocol: asked.client.modern.then_some(MODERN),
            trace_id: carried.trace_id,
            meta: in_meta.as_ref(),
            header: carried.place.as_ref(),
        });
        let request = Request {
            toolset,
            tool,
            arguments,
            idempotency_key: carried.idempotency_key,
            trace_id: span.trace_id(),
            place: span.place(),
            meta,
            input,
            deadline: carried.timeout,
            priority: None,
        };
        let required = support == TaskSupport::Required;
        let answer = self.make(asked, request, (patience, required), &mut span).await;
        span.end(end(&answer));
        answer
    }

    /// Makes the call; after `patience`, if there is an end to it, the call is a task. One that is `required` to be
    /// a task is one however soon it ends, unless it ends with a question.
    async fn make(
        &self,
        asked: &Asked,
        request: Request,
        (patience, required): (Option<Duration>, bool),
        span: &mut CallSpan,
    ) -> Answer {
        let progress_token = request.meta.get("progressToken").cloned();
        let is_keyed = request.idempotency_key.is_some();
        let entered = asked.entered.clone();
        let entered = entered.unwrap_or_else(|| Arc::new(self.0.calls.enter(asked.key.clone())));
        if entered.waiting.unwanted.is_cancelled() {
            return Err(unwanted()); // nothing is on the bus
        }
        let (started, watch) = match self.0.mesh.begin(&asked.who, request).await {
            Ok(begun) => begun,
            // The model that wrote the arguments can write better ones, if it is told (SEP-1303).
            Err(Refusal::InvalidArguments { pointer, message }) => {
                return Ok(finished(asked, invalid_arguments(&pointer, &message), None));
            }
            Err(refusal) => return Err(refusal.into()),
        };
        span.message(started.id, started.duplicate);
        let waiting = &entered.waiting;
        let _only_once = waiting.id.set(started.id);
        if waiting.unwanted.is_cancelled() {
            self.cancel_call(&asked.who, started.id).await;
            return Err(unwanted());
        }
        let notes = asked.notes.clone();
        let mut growing = Growing::default();
        let mut tell = |report: Value| {
            let (Some(token), Value::Object(mut report)) = (&progress_token, report) else {
                return;
            };
            if !growing.takes(&report) {
                return;
            }
            report.insert("progressToken".to_owned(), token.clone());
            let note = notification("notifications/progress", &Value::Object(report));
            let _dropped_where_nobody_reads = notes.try_send(note);
        };
        let progress: Option<&mut (dyn FnMut(Value) + Send)> = match progress_token {
            Some(_) => Some(&mut tell),
            None => None,
        };
        let outcome = tokio::select! {
            outcome = self.0.mesh.outcome(watch, patience.unwrap_or(PATIENCE), progress) => outcome?,
            // Whoever cancelled tells the bus.
            () = waiting.unwanted.cancelled() => return Err(unwanted()),
        };
        match outcome {
            Outcome::Result(result) if required && result["resultType"] == "input_required" => {
                Ok(finished(asked, result, Some(&started)))
            }
            _ if required => self.created(asked, &started).await,
            Outcome::Result(result) => Ok(finished(asked, result, Some(&started))),
            Outcome::Failed(failed) => Err(failed.into()),
            Outcome::Cancelled => {
                let text = format!("The call was cancelled. It is kept as message {}.", started.id);
                Ok(finished(asked, failure(&text), Some(&started)))
            }
            Outcome::Pending if patience.is_some() => self.created(asked, &started).await,
            Outcome::Pending => {
                let how = match is_keyed {
                    true => "Call again with the same idempotency key to have its result.",
                    false => {
                        "To call again would be another call; its result is kept, and cogo__get_message shows it."
                    }
                };
                let text = format!(
                    "The hub is stopping; the call goes on as message {}. {how}",
                    started.id
                );
                Ok(finished(asked, failure(&text), Some(&started)))
            }
        }
    }

    /// After how long the call becomes a task, if it may become one.
    fn patience(&self, asked: &Asked, support: TaskSupport) -> Result<Option<Duration>, RpcError> {
        let knows = asked.client.tasks;
        Ok(match support {
            TaskSupport::Required => {
                asked.client.needs_tasks()?;
                Some(ASKS_WITHIN)
            }
            TaskSupport::Optional => knows.then_some(AT_ONCE),
            TaskSupport::Unsaid => {
                knows.then(|| Duration::from_millis(self.0.mesh.config().task_after_ms))
            }
            TaskSupport::Forbidden => None,
        })
    }

    /// Tells the bus that a call is not wanted any more.
    pub(super) async fn cancel_call(&self, who: &Principal, id: MessageId) {
        if let Err(refusal) = self.0.mesh.cancel(who, id, "cancelled by its client").await {
            tracing::warn!(message.id = %id, error = %refusal, "Could not cancel {id} for its client");
        }
    }
}

/// Progress, which must grow with each notification (MCP, "Progress"): another attempt begins again.
struct Growing(f64);

impl Default for Growing {
    fn default() -> Self {
        Self(f64::NEG_INFINITY)
    }
}

impl Growing {
    /// Whether the report says more than those before it.
    fn takes(&mut self, report: &Map<String, Value>) -> bool {
        let progress = report.get("progress").and_then(Value::as_f64);
        let grows = progress.filter(|progress| *progress > self.0);
        self.0 = grows.unwrap_or(self.0);
        grows.is_some()
    }
}

/// How a call ended, for its span.
fn end(answer: &Answer) -> End<'_> {
    match answer {
        Err(error) if error.code == CANCELLED => End::Cancelled,
        Err(error) => End::Refused(error.code),
        Ok(result) if result["resultType"] == "task" => End::Pending,
        Ok(result) if result["isError"] == true => {
            End::Failed(result["_meta"]["cogo/class"].as_str().unwrap_or("tool_error"))
        }
        Ok(_) => End::Done,
    }
}

/// What answers a tool's questions (SEP-2322).
fn input(params: &mut Map<String, Value>) -> Result<Option<Input>, RpcError> {
    let responses = match params.remove("inputResponses") {
        None | Some(Value::Null) => None,
        Some(Value::Object(responses)) => Some(responses.into_iter().collect()),
        Some(_) => return Err(RpcError::invalid("inputResponses", "must be an object")),
    };
    let state = match params.remove("requestState") {
        None | Some(Value::Null) => None,
        Some(Value::String(state)) => Some(state),
        Some(_) => return Err(RpcError::invalid("requestState", "must be a string")),
    };
    if responses.is_none() && state.is_none() {
        return Ok(None);
    }
    Ok(Some(Input { responses: responses.unwrap_or_default(), state }))
}

/// The tool's result as it goes out: as the tool gave it, and in `_meta` where it is to be found again. For a client
/// of 2026-07-28 a result says of which sort it is; what says nothing is complete.
fn finished(asked: &Asked, mut result: Value, started: Option<&Started>) -> Value {
    if !result.is_object() {
        result = failure("The tool's server gave a result that is no object.");
    }
    // A task is what the endpoint makes of a call: a tool that names one would have its caller look at another's.
    let is_known = |kind: &Value| kind.is_null() || kind == "complete" || kind == "input_required";
    if !is_known(&result["resultType"]) {
        result = failure("The tool's server gave a result of a kind that nobody asked for.");
    }
    if !asked.client.modern && result["resultType"] == "input_required" {
        result = failure(
            "The tool asks for input before it goes on. That takes a client of MCP 2026-07-28 or later.",
        );
    }
    if let Some(started) = started {
        if !result["_meta"].is_object() {
            result["_meta"] = json!({});
        }
        result["_meta"]["cogo/message_id"] = json!(started.id);
        result["_meta"]["cogo/trace_id"] = json!(started.trace_id);
    }
    match asked.client.modern {
        true if result.get("resultType").is_none() => result["resultType"] = json!("complete"),
        true => {}
        // It says how to read an answer, not what the tool said; older clients know one way.
        false => {
            if let Some(result) = result.as_object_mut() {
                result.shift_remove("resultType");
            }
        }
    }
    result
}

fn failure(text: &str) -> Value {
    json!({ "content": [{ "type": "text", "text": text }], "isError": true })
}

fn invalid_arguments(pointer: &str, message: &str) -> Value {
    let mut result = failure(message);
    result["_meta"] = json!({ "cogo/code": "invalid_argument", "cogo/pointer": pointer });
    result
}

fn unwanted() -> RpcError {
    RpcError::new(CANCELLED, "the client cancelled the request")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_attempt_is_told_from_where_it_is_further_than_the_first() {
        let mut growing = Growing::default();
        let reports = [json!(0), json!(1.5), json!(2), json!(0), json!(2), json!("3"), json!(3)];
        let told: Vec<_> = reports
            .into_iter()
            .filter(|progress| {
                growing.takes(&Map::from_iter([("progress".to_owned(), progress.clone())]))
            })
            .collect();
        assert_eq!(told, [json!(0), json!(1.5), json!(2), json!(3)]);
        assert!(!growing.takes(&Map::from_iter([("truncated".to_owned(), json!(true))])));
    }
}
