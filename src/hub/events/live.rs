//! Reading the log for streams: what one reads, the others that are as far need not read again.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, OnceLock};

use tokio::sync::{Mutex, OnceCell, Semaphore};

use crate::bus::{Bus, Error};
use crate::event::{Cursor, Event};
use crate::hub::tools;
use crate::message::MessageId;

/// Events a round trip. Each is at most some 20 KB, since of large payloads the beginning is read, so a stream holds at
/// most two megabytes that its client has not taken.
pub(super) const BATCH: u32 = 100;
/// Batches that are kept for streams that are a little behind.
const KEPT: usize = 16;

/// What streams share.
#[derive(Debug)]
pub(crate) struct Live {
    bus: Bus,
    recent: Mutex<VecDeque<Arc<Batch>>>,
    /// How many more streams there may be.
    pub(super) places: Arc<Semaphore>,
}

/// A stretch of the log: all of it between two places.
#[derive(Debug)]
pub(super) struct Batch {
    after: Cursor,
    pub(super) upto: Cursor,
    pub(super) told: Vec<Told>,
    tools: OnceCell<HashMap<MessageId, String>>,
}

/// An event, and its text once somebody wanted it.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) event: Event,
    text: OnceLock<String>,
}

impl Live {
    pub(crate) fn new(bus: Bus, max_streams: usize) -> Self {
        let places = Arc::new(Semaphore::new(max_streams));
        Self { bus, recent: Mutex::default(), places }
    }

    /// What comes after `cursor`, at most [`BATCH`], and whether it was read just now: then nothing else was there if
    /// it is less than that.
    pub(super) async fn next(&self, cursor: Cursor) -> Result<(Arc<Batch>, bool), Error> {
        // Whoever comes first reads, and the others wait for that.
        let mut recent = self.recent.lock().await;
        let holds = |batch: &&Arc<Batch>| batch.after <= cursor && cursor < batch.upto;
        if let Some(batch) = recent.iter().find(holds) {
            return Ok((Arc::clone(batch), false));
        }
        if recent.back().is_some_and(|newest| cursor < newest.upto) {
            // One that is behind what is kept reads by itself, and keeps nobody waiting.
            drop(recent);
            return Ok((self.read(cursor).await?, true));
        }
        let batch = self.read(cursor).await?;
        if !batch.told.is_empty() {
            recent.push_back(Arc::clone(&batch));
            while recent.len() > KEPT {
                recent.pop_front();
            }
        }
        Ok((batch, true))
    }

    async fn read(&self, after: Cursor) -> Result<Arc<Batch>, Error> {
        let events = self.bus.following(after, BATCH).await?;
        let upto = events.last().map_or(after, |event| event.cursor);
        let told = events.into_iter().map(|event| Told { event, text: OnceLock::new() }).collect();
        Ok(Arc::new(Batch { after, upto, told, tools: OnceCell::new() }))
    }

    /// The tools of the messages in `batch`.
    pub(super) async fn tools<'b>(
        &self,
        batch: &'b Batch,
    ) -> Result<&'b HashMap<MessageId, String>, Error> {
        let find = || async {
            let calls =
                batch.told.iter().filter(|told| told.event.event_type.starts_with(tools::EVENTS));
            let mut ids: Vec<MessageId> = calls.filter_map(|told| told.event.message_id).collect();
            ids.sort_unstable();
            ids.dedup();
            self.bus.tools_of(&ids, tools::TOOL).await
        };
        batch.tools.get_or_try_init(find).await
    }
}

impl Told {
    /// The event as a stream tells it. JSON holds no line breaks, and neither do types.
    pub(super) fn text(&self) -> &str {
        self.text.get_or_init(|| {
            let Event { cursor, event_type, .. } = &self.event;
            let data = serde_json::to_string(&self.event).unwrap_or_default();
            format!("id: {cursor}\nevent: {event_type}\ndata: {data}\n\n")
        })
    }
}
