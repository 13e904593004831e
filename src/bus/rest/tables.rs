//! What is read from tables rather than asked of a function: messages, events, workers.

use futures_util::future::FutureExt as _;
use serde::de::DeserializeOwned;

use crate::bus::queries::Looked;
use crate::bus::queries::workers::WorkerRow;
use crate::bus::rest::Rest;
use crate::bus::rest::rows::{EventRow, read};
use crate::bus::transport::Answer;
use crate::event::Event;
use crate::message::{Message, MessageId, TraceId};

/// As many ids as go well into one URL.
const IDS: usize = 100;

fn rows<'a, T: DeserializeOwned>(
    rest: &'a Rest,
    call: &'static str,
    table: &'static str,
    query: Vec<(&'static str, String)>,
) -> Answer<'a, Vec<T>> {
    async move {
        let query: Vec<_> = query.iter().map(|(name, value)| (*name, value.as_str())).collect();
        read(call, &rest.http.rows(call, table, &query).await?)
    }
    .boxed()
}

pub(super) fn message(rest: &Rest, id: MessageId) -> Answer<'_, Option<Message>> {
    let query = vec![("select", "*".to_owned()), ("id", format!("eq.{id}"))];
    let rows = rows::<Message>(rest, "message", "agent_messages", query);
    async move { Ok(rows.await?.pop()) }.boxed()
}

/// One by one: whoever waits over HTTPS waits for few, and the columns that it may see are asked for in one place.
pub(super) fn look_at<'a>(rest: &'a Rest, ids: &'a [MessageId]) -> Answer<'a, Vec<Looked>> {
    async move {
        let mut looked = Vec::with_capacity(ids.len());
        for id in ids {
            let message = message(rest, *id).await?;
            looked.extend(message.map(|message| Looked { message, reported: true }));
        }
        Ok(looked)
    }
    .boxed()
}

pub(super) fn settled_of<'a>(rest: &'a Rest, ids: &'a [MessageId]) -> Answer<'a, Vec<MessageId>> {
    #[derive(serde::Deserialize)]
    struct Row {
        id: MessageId,
    }
    async move {
        let mut settled = Vec::new();
        for some in ids.chunks(IDS) {
            let list: Vec<_> = some.iter().map(MessageId::to_string).collect();
            let query = vec![
                ("select", "id".to_owned()),
                ("id", format!("in.({})", list.join(","))),
                ("status", "in.(delayed,queued,claimed)".to_owned()),
            ];
            let rows: Vec<Row> = rows(rest, "settled_of", "agent_messages", query).await?;
            let under_way = |id: &MessageId| rows.iter().any(|row| row.id == *id);
            settled.extend(some.iter().copied().filter(|id| !under_way(id)));
        }
        Ok(settled)
    }
    .boxed()
}

fn events<'a>(
    rest: &'a Rest,
    call: &'static str,
    column: &'static str,
    id: String,
    more: &[(&'static str, String)],
    max: i64,
) -> Answer<'a, Vec<Event>> {
    const COLUMNS: &str = "xid,seq,id,event_type,message_id,trace_id,tenant,service,role,shard,\
                           attempt,worker_id,reason,payload,created_at";
    let mut query = vec![
        ("select", COLUMNS.to_owned()),
        (column, format!("eq.{id}")),
        ("order", "seq.asc".to_owned()),
        ("limit", max.to_string()),
    ];
    query.extend_from_slice(more);
    let rows = rows::<EventRow>(rest, call, "bus_events", query);
    async move { Ok(rows.await?.into_iter().map(Event::from).collect()) }.boxed()
}

pub(super) fn message_events(rest: &Rest, id: MessageId, max: i64) -> Answer<'_, Vec<Event>> {
    events(rest, "message_events", "message_id", id.to_string(), &[], max)
}

pub(super) fn progress(rest: &Rest, id: MessageId, after: i64, max: i64) -> Answer<'_, Vec<Event>> {
    let more = [("seq", format!("gt.{after}")), ("event_type", "like.*\\_progress".to_owned())];
    events(rest, "message_events", "message_id", id.to_string(), &more, max)
}

pub(super) fn inputs(rest: &Rest, id: MessageId, max: i64) -> Answer<'_, Vec<Event>> {
    let more = [("event_type", "like.*\\_input".to_owned())];
    events(rest, "message_events", "message_id", id.to_string(), &more, max)
}

pub(super) fn trace_events(rest: &Rest, trace: TraceId, max: i64) -> Answer<'_, Vec<Event>> {
    events(rest, "trace_events", "trace_id", trace.to_string(), &[], max)
}

pub(super) fn workers(rest: &Rest, max: i64) -> Answer<'_, Vec<WorkerRow>> {
    let query = vec![
        ("select", "*".to_owned()),
        ("order", "status.desc,last_seen_at.desc".to_owned()),
        ("limit", max.to_string()),
    ];
    rows(rest, "workers", "workers", query)
}
