//! From a request to a message that is committed.

use std::time::Duration;

use cogo::bus::Watch;
use cogo::clock::Stopwatch;
use cogo::hub::Principal;
use cogo::message::{Message, NewMessage, Topic};
use serde_json::{Map, Value, json};

use super::{Mesh, Offer, Refusal, Request, Started, near::near, topic};
use crate::handler::INTENT;
use crate::trace;

impl Mesh {
    /// Checks the call and puts it on the bus. When this returns, it is committed: it goes on whatever becomes of
    /// the caller and of this process, and the same idempotency key finds it again.
    ///
    /// # Errors
    /// A [`Refusal`]; nothing was queued, unless the database did not answer: then nobody knows, and an idempotency
    /// key makes it safe to ask again.
    pub async fn start(&self, who: &Principal, request: Request) -> Result<Started, Refusal> {
        Ok(self.begin(who, request).await?.0)
    }

    /// As [`Mesh::start`], for those who wait: the watch was set before the call was on the bus, so that nothing needs
    /// to be looked at until something is told. For [`Mesh::outcome`].
    ///
    /// # Errors
    /// As [`Mesh::start`].
    pub async fn begin(
        &self,
        who: &Principal,
        mut request: Request,
    ) -> Result<(Started, Watch), Refusal> {
        let arguments = request.arguments.take().unwrap_or_default();
        let asked = request.idempotency_key.is_some().then(|| arguments.clone());
        let (offer, topic, arguments) = match self.check(who, &request, arguments).await {
            Ok(checked) => checked,
            Err(refusal) => {
                return match self.again(who, &request, asked, &refusal).await? {
                    Some(known) => Ok(known),
                    None => Err(refusal),
                };
            }
        };

        let policy = self.policies.get().resolve(&policy_key(&offer.toolset, &offer.tool));
        let default_ms = self.config.get().call_deadline_ms;
        let asked = request.deadline.map(millis);
        let mut payload = json!({
            "toolset": offer.toolset, "tool": offer.tool, "params": arguments,
        });
        if offer.pinned {
            payload["definition"] = json!(offer.hash);
        }
        // Nearly every client sends some `_meta`, of which mostly nothing goes on; a gateway that is older than this
        // field refuses it.
        let meta = crate::meta::passed_on(&request.meta);
        if !meta.is_empty() {
            payload["meta"] = Value::Object(meta);
        }
        if let Some(input) = request.input {
            payload["input"] = json!(input);
        }
        let span = trace::publish_span(request.place.as_ref(), &topic);
        trace::put_into(&mut payload, span.place().as_ref());
        let message = NewMessage {
            tenant: who.tenant().to_owned(),
            trace_id: request.trace_id,
            idempotency_key: request.idempotency_key,
            priority: request.priority.unwrap_or_default(),
            max_attempts: i32::try_from(policy.max_attempts).ok(),
            deadline_ms: Some(asked.or(policy.deadline_ms).unwrap_or(default_ms)),
            ..NewMessage::new(&topic, INTENT, payload)
        };
        // Only an own key can give another message than this one.
        let wanted = message.idempotency_key.is_some().then(|| message.payload.clone());
        let mut watch = self.feed.expect(message.id);
        let receipt = who.publish(message).await?;
        if receipt.duplicate {
            watch = self.feed.watch(receipt.id);
            let known = self.call(who, receipt.id).await.map_err(|refusal| match refusal {
                // The key belongs to a message that is no call, or not this caller's.
                Refusal::NoCall(id) => Refusal::Conflict(id),
                refusal => refusal,
            })?;
            if !wanted.is_some_and(|wanted| is_same(&known, &topic, &wanted)) {
                return Err(Refusal::Conflict(receipt.id));
            }
        }
        span.end(receipt.id, receipt.duplicate);
        let (id, trace_id, duplicate) = (receipt.id, receipt.trace_id, receipt.duplicate);
        Ok((Started { id, trace_id, duplicate }, watch))
    }

    /// The tool, where its calls wait, and the arguments, if they fit it.
    async fn check(
        &self,
        who: &Principal,
        request: &Request,
        arguments: Map<String, Value>,
    ) -> Result<(std::sync::Arc<Offer>, Topic, Map<String, Value>), Refusal> {
        let (offer, topic) = self.find(who, &request.toolset, &request.tool).await?;
        let clock = Stopwatch::start();
        let arguments = self.validators.check(&offer, arguments).await?;
        tracing::trace!(
            mcp.toolset = offer.toolset,
            mcp.tool = offer.tool,
            duration_us = u64::try_from(clock.elapsed().as_micros()).unwrap_or(u64::MAX),
            "Checked arguments"
        );
        Ok((offer, topic, arguments))
    }

    /// The call that the request's key stands for, where it would be refused as a new one: what was committed is found
    /// again, also when its machine has left since, or its tool is held or takes other arguments.
    async fn again(
        &self,
        who: &Principal,
        request: &Request,
        arguments: Option<Map<String, Value>>,
        refusal: &Refusal,
    ) -> Result<Option<(Started, Watch)>, Refusal> {
        use Refusal::{Held, InvalidArguments, UnknownTool};
        let is_of_the_tool =
            matches!(refusal, UnknownTool { .. } | Held { .. } | InvalidArguments { .. });
        let key = request.idempotency_key.as_deref().filter(|key| !key.contains('\0'));
        let topic = topic(&request.toolset).filter(|topic| who.may_send(topic));
        let (true, Some(key), Some(topic), Some(arguments)) =
            (is_of_the_tool, key, topic, arguments)
        else {
            return Ok(None);
        };
        let Some(known) = who.keyed_message(key).await? else { return Ok(None) };
        let wanted = json!({"tool": request.tool, "params": arguments, "input": request.input});
        if known.intent != INTENT || !is_same(&known, &topic, &wanted) {
            return Ok(None);
        }
        let started = Started { id: known.id, trace_id: known.trace_id, duplicate: true };
        Ok(Some((started, self.feed.watch(known.id))))
    }

    /// The tool, if it is offered to `who`, and where its calls wait.
    async fn find(
        &self,
        who: &Principal,
        toolset: &str,
        tool: &str,
    ) -> Result<(std::sync::Arc<Offer>, Topic), Refusal> {
        let snapshot = self.catalogue.snapshot(who.tenant()).await?;
        let topic = topic(toolset).filter(|topic| who.may_send(topic));
        // What it may not send to is not told from what is not there.
        if let Some(topic) = topic {
            if let Some(offer) = snapshot.get(toolset, tool) {
                return Ok((offer.clone(), topic));
            }
            let mut held = snapshot.held().iter();
            if held.any(|held| held.offer.toolset == toolset && held.offer.tool == tool) {
                let (toolset, tool) = (toolset.to_owned(), tool.to_owned());
                return Err(Refusal::Held { toolset, tool });
            }
        }
        let mut seen = super::Seen::default();
        let offers = snapshot.iter().map(|offer| &**offer).filter(|o| seen.may(who, &o.toolset));
        let near = near(toolset, tool, offers);
        Err(Refusal::UnknownTool { toolset: toolset.to_owned(), tool: tool.to_owned(), near })
    }
}

/// The key of the policies for a tool of a toolset that is not sharded.
pub(super) fn policy_key(toolset: &str, tool: &str) -> String {
    format!("{INTENT}.{toolset}.{tool}.0")
}

/// Whether two values are the same, as Postgres keeps them: it makes 100 of 1e2, and so on. Whole numbers it keeps as they
/// are, also those that are one as floating-point numbers.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => {
            a == b || (a.is_f64() || b.is_f64()) && a.as_f64() == b.as_f64()
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(k, a)| b.get(k).is_some_and(|b| same(a, b)))
        }
        (a, b) => a == b,
    }
}

/// Whether a message is the call that was asked for again. Where it came from, its trace and its `_meta`, may differ;
/// so may the tool's definition: the call that is there was checked against the one of its time.
fn is_same(known: &Message, topic: &Topic, wanted: &Value) -> bool {
    let field = |payload: &Value, name| payload.get(name).cloned().unwrap_or_default();
    let arguments = |payload: &Value| match field(payload, "params") {
        Value::Null => Value::Object(Map::new()),
        params => params,
    };
    known.topic() == topic.to_string()
        && field(&known.payload, "tool") == field(wanted, "tool")
        && same(&arguments(&known.payload), &arguments(wanted))
        && same(&field(&known.payload, "input"), &field(wanted, "input"))
}

/// In milliseconds, at least one: a deadline of nothing is one that has passed.
fn millis(deadline: Duration) -> u64 {
    u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX).clamp(1, cogo::message::DEADLINE_MS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_same_however_they_are_written_and_only_then() {
        let pair = |a: &str, b: &str| {
            let read = |text: &str| -> Value { serde_json::from_str(text).expect("JSON") };
            same(&json!([{"a": read(a)}]), &json!([{"a": read(b)}]))
        };
        for (a, b) in
            [("1e2", "100"), ("1.50", "1.5"), ("-0.0", "0"), ("1e20", "100000000000000000000")]
        {
            assert!(pair(a, b) && pair(b, a), "{a} {b}");
        }
        // Whole numbers that one floating-point number stands for.
        for (a, b) in [
            ("9007199254740993", "9007199254740992"),
            ("18446744073709551615", "18446744073709551614"),
            ("-9007199254740993", "-9007199254740992"),
            ("1", "1.5"),
        ] {
            assert!(!pair(a, b) && !pair(b, a), "{a} {b}");
        }
    }
}
