//! A batch of new messages, in arrays: what each has of its own, and what they have in common once.

use std::collections::HashMap;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use sqlx::postgres::PgExecutor;
use sqlx::types::Json;
use uuid::Uuid;

use super::Enqueued;
use crate::message::{MessageId, NewMessage, TraceId, as_millis};

/// A message without its id, trace and payload, as `bus_enqueue_many` reads it: mostly all of a batch have the same.
#[derive(Debug, PartialEq, Eq, Hash, Serialize)]
struct Head<'m> {
    tenant: &'m str,
    role: &'m str,
    service: &'m str,
    shard: i32,
    intent: &'m str,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_id: Option<MessageId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    idempotency_key: Option<&'m str>,
    priority: i16,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_attempts: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deadline_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ordering_key: Option<&'m str>,
    #[serde(rename = "delay_ms", serialize_with = "as_millis")]
    delay: Duration,
}

/// The arguments of `bus_enqueue_many`.
#[derive(Debug, Default)]
struct Arrays<'m> {
    ids: Vec<Uuid>,
    traces: Vec<Uuid>,
    payloads: Vec<Json<&'m Value>>,
    /// In the order in which they come first.
    heads: Vec<Head<'m>>,
    /// The number of each message's head, from 1 on; nothing where there is one head.
    head_of: Option<Vec<i32>>,
}

impl<'m> Arrays<'m> {
    fn of(messages: &'m [NewMessage]) -> Self {
        let mut arrays = Self::default();
        let mut numbers = Vec::with_capacity(messages.len());
        // Of a batch whose messages are alike none is looked up.
        let mut known: HashMap<Head<'m>, i32> = HashMap::new();
        let mut last: Option<(Head<'m>, i32)> = None;
        for message in messages {
            // All fields by their names, so that none is forgotten.
            let NewMessage {
                id,
                tenant,
                role,
                service,
                shard,
                intent,
                payload,
                trace_id,
                parent_id,
                idempotency_key,
                priority,
                max_attempts,
                deadline_ms,
                ordering_key,
                delay,
            } = message;
            arrays.ids.push(id.0);
            arrays.traces.push(trace_id.unwrap_or_else(TraceId::new).0);
            arrays.payloads.push(Json(payload));
            let head = || Head {
                tenant,
                role,
                service,
                shard: *shard,
                intent,
                parent_id: *parent_id,
                idempotency_key: idempotency_key.as_deref(),
                priority: *priority,
                max_attempts: *max_attempts,
                deadline_ms: *deadline_ms,
                ordering_key: ordering_key.as_deref(),
                delay: *delay,
            };
            let number = match &last {
                Some((its, number)) if *its == head() => *number,
                _ => {
                    let next = i32::try_from(arrays.heads.len() + 1).unwrap_or(i32::MAX);
                    let number = *known.entry(head()).or_insert_with(|| {
                        arrays.heads.push(head());
                        next
                    });
                    last = Some((head(), number));
                    number
                }
            };
            numbers.push(number);
        }
        arrays.head_of = (arrays.heads.len() > 1).then_some(numbers);
        arrays
    }
}

/// A message that was known already, by its place in the batch from 1 on.
type Known = (i64, MessageId, TraceId);

/// Enqueues a batch; answers in its order.
pub(crate) async fn enqueue(
    db: impl PgExecutor<'_>,
    messages: &[NewMessage],
) -> sqlx::Result<Vec<Enqueued>> {
    let Arrays { ids, traces, payloads, heads, head_of } = Arrays::of(messages);
    let known: Vec<Known> =
        sqlx::query_as("select ord, id, trace_id from bus_enqueue_many($1, $2, $3, $4, $5)")
            .bind(&ids)
            .bind(&traces)
            .bind(payloads)
            .bind(Json(heads))
            .bind(head_of)
            .fetch_all(db)
            .await?;
    let mut enqueued: Vec<_> = ids
        .into_iter()
        .zip(traces)
        .map(|(id, trace)| Enqueued {
            id: MessageId(id),
            trace_id: TraceId(trace),
            duplicate: false,
        })
        .collect();
    for (place, id, trace_id) in known {
        let row = usize::try_from(place - 1).ok().and_then(|at| enqueued.get_mut(at));
        let row = row.ok_or_else(|| {
            sqlx::Error::Protocol(format!("bus_enqueue_many answered for message {place}"))
        })?;
        *row = Enqueued { id, trace_id, duplicate: true };
    }
    Ok(enqueued)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Topic;
    use serde_json::json;

    #[test]
    fn what_messages_have_in_common_is_sent_once_and_reads_as_the_messages_do() {
        let topic = Topic::new("echo", "default").expect("a topic");
        let plain = |n: i32| NewMessage::new(&topic, "echo", json!(n));
        let messages = [
            plain(1),
            plain(2).with_idempotency_key("k").with_delay(Duration::from_millis(5)),
            plain(3),
            plain(4).with_deadline(Duration::from_secs(1)).with_ordering_key("o"),
            plain(5).with_idempotency_key("k").with_delay(Duration::from_millis(5)),
        ];
        let arrays = Arrays::of(&messages);
        assert_eq!(arrays.head_of, Some(vec![1, 2, 1, 3, 2]));
        for (message, head) in messages.iter().zip(arrays.head_of.expect("several heads")) {
            let mut whole = serde_json::to_value(message).expect("JSON");
            let fields = whole.as_object_mut().expect("an object");
            fields.retain(|name, _| !["id", "trace_id", "payload"].contains(&name.as_str()));
            let head = &arrays.heads[usize::try_from(head - 1).expect("from 1 on")];
            assert_eq!(serde_json::to_value(head).expect("JSON"), whole);
        }
        assert_eq!(Arrays::of(&messages[..1]).head_of, None);
    }
}
