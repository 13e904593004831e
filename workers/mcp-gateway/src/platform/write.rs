//! The tools that change something: for operators alone.

use cogo::bus::Error;
use cogo::bus::dead_letter::Operated;
use cogo::error::Code;
use cogo::hub::Principal;
use cogo::message::{NewMessage, Topic};
use serde_json::{Value, json};

use super::Deps;
use super::arguments::{Enqueue, Requeue};
use crate::handler::INTENT;

pub(super) async fn enqueue(who: &Principal, deps: &Deps, asked: Enqueue) -> Result<Value, Error> {
    let topic: Topic = asked.topic.parse()?;
    // As the worker will look it up.
    let key = match asked.payload.get("tool").and_then(Value::as_str) {
        Some(tool) if asked.intent == INTENT => format!("{INTENT}.{}.{tool}.0", topic.service()),
        _ => format!("{}.{}", asked.intent, topic.service()),
    };
    let policy = deps.policies.get().resolve(&key);
    let delay = asked.delay();
    let message = NewMessage {
        trace_id: asked.trace_id,
        parent_id: asked.parent_id,
        idempotency_key: asked.idempotency_key,
        priority: asked.priority,
        max_attempts: asked.max_attempts.or(i32::try_from(policy.max_attempts).ok()),
        deadline_ms: asked.deadline_ms.or(policy.deadline_ms),
        ordering_key: asked.ordering_key,
        delay,
        ..NewMessage::new(&topic, asked.intent, asked.payload)
    };
    let receipt = who.publish(message).await?;
    Ok(json!({"id": receipt.id, "trace_id": receipt.trace_id, "duplicate": receipt.duplicate}))
}

pub(super) async fn requeue(who: &Principal, asked: Requeue) -> Result<Value, Error> {
    let Requeue { id, reason } = asked;
    match who.requeue(id, reason.as_deref()).await? {
        Operated::Done => Ok(json!({"id": id, "status": "queued"})),
        _ => {
            let status = who.message(id).await?.status;
            let message =
                format!("{id}: is {status}; only what is failed or cancelled can be requeued");
            Err(Error::Refused { code: Code::Conflict, message })
        }
    }
}
