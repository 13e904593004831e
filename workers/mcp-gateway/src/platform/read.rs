//! The tools that only read.

use cogo::bus::Error;
use cogo::bus::dead_letter::{DeadLetter, Filter};
use cogo::error::Code;
use cogo::hub::Principal;
use cogo::message::{ALL_TENANTS, Message};
use serde_json::{Value, json};

use super::answer::{bounded, cut, events};
use super::arguments::{CircuitStatus, GetMessage, GetTrace, ListDeadLetters, ListWorkers};

/// As much of what a worker says of itself, and of the error of a dead letter, as is given, in bytes.
const DETAIL_BYTES: usize = 2 * 1024;
/// How many workers are read to find those that are asked for.
const WORKERS_READ: u32 = 1000;

pub(super) async fn message(who: &Principal, asked: GetMessage) -> Result<Value, Error> {
    let GetMessage { id, events: limit, max_bytes } = asked;
    let message = who.message(id).await?;
    let found = if limit == 0 { Vec::new() } else { who.message_events(id, limit + 1).await? };
    let (found, more) = cut(found, limit);
    Ok(json!({
        "message": summary(&message, max_bytes),
        "events": events(&found),
        "truncated": more || limit == 0,
    }))
}

/// A message, with as much of what is in it.
fn summary(message: &Message, max_bytes: usize) -> Value {
    let mut told = json!({
        "id": message.id, "topic": message.topic(), "intent": message.intent, "status": message.status,
        "attempts": message.attempts, "max_attempts": message.max_attempts, "priority": message.priority,
        "trace_id": message.trace_id, "created_at": message.created_at, "updated_at": message.updated_at,
        "run_at": message.run_at, "payload": bounded(&message.payload, max_bytes),
    });
    for (name, value) in [
        ("parent_id", message.parent_id.map(|id| json!(id))),
        ("idempotency_key", message.idempotency_key.as_ref().map(|key| json!(key))),
        ("ordering_key", message.ordering_key.as_ref().map(|key| json!(key))),
        ("parked_for", message.parked_for.as_ref().map(|why| json!(why))),
        ("claimed_by", message.claimed_by.as_ref().map(|worker| json!(worker))),
        ("deadline_at", message.deadline_at.map(|at| json!(at))),
        ("done_at", message.done_at.map(|at| json!(at))),
        ("result", message.result.as_ref().map(|result| bounded(result, max_bytes))),
        ("error", message.error.as_ref().map(|error| bounded(error, max_bytes))),
    ] {
        if let Some(value) = value {
            told[name] = value;
        }
    }
    told
}

pub(super) async fn trace(who: &Principal, asked: GetTrace) -> Result<Value, Error> {
    let GetTrace { trace_id, limit } = asked;
    let (found, more) = cut(who.trace_events(trace_id, limit + 1).await?, limit);
    if found.is_empty() {
        let message = format!("{trace_id}: there is no such trace");
        return Err(Error::Refused { code: Code::NotFound, message });
    }
    Ok(json!({"trace_id": trace_id, "events": events(&found), "truncated": more}))
}

pub(super) async fn workers(who: &Principal, asked: ListWorkers) -> Result<Value, Error> {
    let read = who.workers(WORKERS_READ).await?;
    let all_read = read.len() < WORKERS_READ as usize;
    let is_wanted = |worker: &cogo::bus::WorkerRow| {
        [who.tenant(), ALL_TENANTS].contains(&worker.tenant.as_str())
            && asked.status.as_ref().is_none_or(|status| *status == worker.status)
            && asked.topic.as_ref().is_none_or(|topic| worker.topics.contains(topic))
    };
    let (workers, more) = cut(read.into_iter().filter(is_wanted).collect(), asked.limit);
    let told = workers.iter().map(|worker| {
        json!({
            "id": worker.id, "status": worker.status, "role": worker.role, "host": worker.host,
            "version": worker.version, "topics": worker.topics, "in_flight": worker.in_flight,
            "started_at": worker.started_at, "last_seen_at": worker.last_seen_at,
            "info": bounded(&worker.info, DETAIL_BYTES),
        })
    });
    Ok(json!({"workers": told.collect::<Value>(), "truncated": more || !all_read}))
}

pub(super) async fn dead_letters(who: &Principal, asked: ListDeadLetters) -> Result<Value, Error> {
    let filter = Filter {
        tenant: Some(who.tenant().to_owned()),
        role: asked.role,
        service: asked.service,
        intent: asked.intent,
        class: asked.class,
        reason: asked.reason,
        trace_id: asked.trace_id,
        since: asked.since,
        until: asked.until,
    };
    let (letters, more) = cut(who.dead_letters(&filter, asked.limit + 1).await?, asked.limit);
    let told = letters.iter().map(|DeadLetter { message, class, reason, .. }| {
        json!({
            "id": message.id, "topic": message.topic(), "intent": message.intent, "class": class,
            "reason": reason, "attempts": message.attempts, "trace_id": message.trace_id,
            "created_at": message.created_at, "died_at": message.done_at,
            "error": message.error.as_ref().map(|error| bounded(error, DETAIL_BYTES)),
        })
    });
    Ok(json!({"dead_letters": told.collect::<Value>(), "truncated": more}))
}

pub(super) async fn circuits(who: &Principal, asked: CircuitStatus) -> Result<Value, Error> {
    let is_wanted = |circuit: &cogo::bus::circuit::Circuit| {
        let is_closed = json!(circuit.state) == "closed";
        (asked.include_closed || !is_closed)
            && asked.key.as_ref().is_none_or(|key| circuit.key.starts_with(key.as_str()))
    };
    let circuits = who.circuits().await?.into_iter().filter(is_wanted).collect();
    let (circuits, more) = cut(circuits, asked.limit);
    let told = circuits.iter().map(|circuit| {
        json!({
            "key": circuit.key, "state": circuit.state, "forced": circuit.forced,
            "open_for_ms": circuit.open_for_ms, "reason": circuit.reason, "by": circuit.worker_id,
            "opened_at": circuit.opened_at, "updated_at": circuit.updated_at,
        })
    });
    Ok(json!({"circuits": told.collect::<Value>(), "truncated": more}))
}
