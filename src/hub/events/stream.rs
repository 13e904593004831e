//! `GET /api/events/stream`: the log as server-sent events, each event once and in the log's order.
//!
//! A stream is its cursor. It reads the log after it until there is nothing more, and from then on each time the feed
//! says that there is; both reads stay below the oldest transaction that runs, so nothing comes up behind the cursor.
//! The cursor is each event's `id`, and a browser that was cut off says the last one in `Last-Event-ID`: any hub goes
//! on from there, since the log is what they share. Nothing is kept for a stream that its client does not take: it reads
//! the next batch when the last one has gone. The time limit of a request holds until the stream begins, and not for it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream::unfold;
use serde::Deserialize;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, sleep_until};

use super::live::BATCH;
use super::{tenant, types, uuid};
use crate::bus::{Error, Heads};
use crate::clock::Stopwatch;
use crate::error::{Code, chain};
use crate::event::{Cursor, Event};
use crate::hub::error::ApiError;
use crate::hub::extract::StrictQuery;
use crate::hub::lists::{after, label, name};
use crate::hub::{Hub, tools};
use crate::message::TraceId;

/// How often something is said when nothing happens, so that proxies keep the connection and a dead one is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How long to wait until the log is read again when the database did not answer.
const AGAIN: Duration = Duration::from_millis(500);
/// How long a client may take for one batch. A slower one holds a place that others may want; it comes again with its
/// cursor, and then reads in larger bites.
const SLOW_MAX: Duration = Duration::from_secs(60);
/// Where a client that was cut off says how far it was.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StreamQuery {
    #[serde(rename = "type")]
    types: Option<String>,
    toolset: Option<String>,
    tool: Option<String>,
    trace_id: Option<String>,
    tenant: Option<String>,
    after: Option<String>,
}

/// Which events a client wants.
#[derive(Debug)]
struct Wanted {
    types: Option<Vec<String>>,
    toolset: Option<String>,
    tool: Option<String>,
    trace_id: Option<TraceId>,
    tenant: Option<String>,
}

impl Wanted {
    /// Whether an event is one, but for its tool, which stands elsewhere.
    fn fits(&self, event: &Event) -> bool {
        let same = |wanted: &Option<String>, its: &str| wanted.as_deref().is_none_or(|w| w == its);
        let of_calls = self.toolset.is_some() || self.tool.is_some();
        (!of_calls || event.event_type.starts_with(tools::EVENTS))
            && same(&self.tenant, &event.tenant)
            && same(&self.toolset, &event.service)
            && self.trace_id.is_none_or(|trace| trace == event.trace_id)
            && self.types.as_ref().is_none_or(|types| types.contains(&event.event_type))
    }
}

pub(crate) async fn stream(
    State(hub): State<Arc<Hub>>,
    StrictQuery(query): StrictQuery<StreamQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let wanted = Wanted {
        types: query.types.as_deref().map(types).transpose()?,
        toolset: name("toolset", query.toolset)?,
        tool: label("tool", query.tool)?,
        trace_id: uuid("trace_id", query.trace_id)?.map(TraceId),
        tenant: tenant(query.tenant)?,
    };
    // The header is the newer one: a browser sends the address again as it was.
    let from = match last_event_id(&headers)? {
        Some(cursor) => Some(cursor),
        None => after(query.after.as_deref())?,
    };
    let Ok(place) = Arc::clone(&hub.live.places).try_acquire_owned() else {
        let max = hub.state.options.events.max_streams;
        let message = format!(
            "{max} streams are open already, as many as events.max_streams of hub.json allows; try again later"
        );
        return Err(ApiError::new(Code::RateLimited, message));
    };
    let reader = Reader::begin(hub, wanted, from, place).await?;
    let body = Body::from_stream(unfold(reader, |mut reader| async move {
        let text = reader.next().await?;
        Some((Ok::<_, Infallible>(Bytes::from(text)), reader))
    }));
    let kind = [
        (header::CONTENT_TYPE, "text/event-stream"),
        // A proxy that gathered what it passes on would hold it back.
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    Ok((kind, body).into_response())
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<Cursor>, ApiError> {
    let Some(value) = headers.get(LAST_EVENT_ID) else { return Ok(None) };
    match value.to_str().map(str::trim) {
        Ok("") => Ok(None),
        text => after(text.ok().or(Some("?"))).map_err(|_| {
            ApiError::invalid("last-event-id", "must be the `id` of an event of this stream")
        }),
    }
}

/// One stream.
struct Reader {
    hub: Arc<Hub>,
    wanted: Wanted,
    /// Everything up to here was told or is not wanted.
    cursor: Cursor,
    /// What the client knows of that.
    known: Cursor,
    /// What the feed has read.
    heard: Receiver<Arc<Heads>>,
    /// How far the feed was by the last that was heard of it.
    told: Option<Cursor>,
    /// Nothing was left to read when it last looked.
    caught_up: bool,
    /// What to say first.
    greeting: Option<String>,
    keep_alive: Instant,
    /// Since when the client takes the last text.
    taking: Option<Stopwatch>,
    _place: OwnedSemaphorePermit,
}

impl Reader {
    async fn begin(
        hub: Arc<Hub>,
        wanted: Wanted,
        from: Option<Cursor>,
        place: OwnedSemaphorePermit,
    ) -> Result<Self, ApiError> {
        // Before the log is looked at, so that nothing falls between the two.
        let heard = hub.state.feed.hear();
        let bus = &hub.state.bus;
        let mut greeting = "retry: 1000\n\n".to_owned();
        let cursor = match from {
            None => {
                let cursor = bus.log_end().await?;
                // Where it began, or who is cut off before the first event would begin at a later end.
                greeting += &format!("id: {cursor}\n\n");
                cursor
            }
            Some(from) => match bus.log_begin().await? {
                Some(begin) if is_lost(from, begin) => {
                    // As if all that is gone had been told.
                    let cursor = Cursor { seq: begin.seq - 1, ..begin };
                    let data = serde_json::json!({"from": from, "to": begin});
                    greeting += &format!("id: {cursor}\nevent: gap\ndata: {data}\n\n");
                    cursor
                }
                _ => from,
            },
        };
        let caught_up = from.is_none();
        let keep_alive = Instant::now() + KEEP_ALIVE;
        let (greeting, taking) = (Some(greeting), None);
        let known = cursor;
        Ok(Self {
            hub,
            wanted,
            cursor,
            known,
            heard,
            told: None,
            caught_up,
            greeting,
            keep_alive,
            taking,
            _place: place,
        })
    }

    /// The next text; none when the stream ends.
    async fn next(&mut self) -> Option<String> {
        if self.taking.take().is_some_and(|since| since.elapsed() > SLOW_MAX) {
            tracing::debug!("Ended a stream of events whose reader was too slow");
            return None;
        }
        let stopped = self.hub.state.feed.stopped().clone();
        let text = tokio::select! {
            biased;
            () = stopped.cancelled() => return None,
            text = self.text() => text,
        };
        self.keep_alive = Instant::now() + KEEP_ALIVE;
        self.taking = Some(Stopwatch::start());
        Some(text)
    }

    async fn text(&mut self) -> String {
        if let Some(greeting) = self.greeting.take() {
            return greeting;
        }
        loop {
            if self.caught_up {
                tokio::select! {
                    told = heard_beyond(&mut self.heard, self.cursor) => {
                        (self.caught_up, self.told) = (false, Some(told));
                    }
                    () = sleep_until(self.keep_alive) => return self.keep_alive_text(),
                }
            }
            match self.read().await {
                Ok(Some(text)) => return text,
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(error = %chain(&error), "Could not read the log for a stream; trying again");
                    tokio::select! {
                        () = tokio::time::sleep(AGAIN) => {}
                        () = sleep_until(self.keep_alive) => return self.keep_alive_text(),
                    }
                }
            }
        }
    }

    /// Reads a batch. What of it is wanted, if anything is.
    async fn read(&mut self) -> Result<Option<String>, Error> {
        let live = &self.hub.live;
        let (batch, is_fresh) = live.next(self.cursor).await?;
        let tools = match &self.wanted.tool {
            Some(tool) => Some((tool, live.tools(&batch).await?)),
            None => None,
        };
        let mut text = String::new();
        for told in batch.told.iter().filter(|told| told.event.cursor > self.cursor) {
            let its = told.event.message_id;
            let is_its_tool =
                tools.is_none_or(|(tool, of)| its.and_then(|id| of.get(&id)) == Some(tool));
            if is_its_tool && self.wanted.fits(&told.event) {
                text += told.text();
                self.known = told.event.cursor;
            }
        }
        self.cursor = self.cursor.max(batch.upto);
        // Less than fits: that was all there was, and what came meanwhile the feed tells of. Of what another stream read
        // before, that is not known, unless it is as far as the feed was.
        self.caught_up = if is_fresh {
            batch.told.len() < BATCH as usize
        } else {
            self.told.is_some_and(|told| told <= self.cursor)
        };
        Ok(Some(text).filter(|text| !text.is_empty()))
    }

    /// Also tells how far the log was read where nothing of it was wanted, so that it need not be read again.
    fn keep_alive_text(&mut self) -> String {
        if self.known == self.cursor {
            return ": keep-alive\n\n".to_owned();
        }
        self.known = self.cursor;
        format!(": keep-alive\n\nid: {}\n\n", self.cursor)
    }
}

/// Waits until the feed has read beyond `cursor`; how far. Cancel-safe.
async fn heard_beyond(heard: &mut Receiver<Arc<Heads>>, cursor: Cursor) -> Cursor {
    loop {
        match heard.recv().await {
            Ok(heads) => {
                if let Some(head) = heads.events.last()
                    && head.cursor > cursor
                {
                    return head.cursor;
                }
            }
            // What was missed was followed by what comes next.
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// Whether retention may have taken events after `from`: the oldest one left is neither the log's first nor the next.
fn is_lost(from: Cursor, begin: Cursor) -> bool {
    from < begin && begin.seq > 1 && from.seq.checked_add(1) != Some(begin.seq)
}
