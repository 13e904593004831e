//! Watching one message: its progress, each report once, and its end.

use std::time::Duration;

use serde_json::Value;

use super::{Feed, Place};
use crate::bus::error::Error;
use crate::event::Event;
use crate::message::{Message, MessageId};

/// Events of progress a round trip; what is left is read at the next one.
const PROGRESS_MAX: u32 = 50;

/// What became of a message since it was last asked about.
#[derive(Debug, Clone, PartialEq)]
pub enum Update {
    /// What its handlers reported, the oldest first, at least one.
    Progress(Vec<Value>),
    /// It is finished: nothing more will come.
    Finished(Message),
    /// The time was up, or the process drains.
    Waiting(Message),
}

/// A watch on one message. It holds no connection, and costs a round trip only when something happened to the message.
#[derive(Debug)]
pub struct Watch {
    feed: Feed,
    place: Place,
    /// The last event of progress that was told.
    seen: i64,
    /// Whether the message, and its progress, are to be looked at before waiting.
    look: bool,
    look_for_progress: bool,
    finished: Option<Message>,
}

impl Feed {
    /// Watches a message for its progress and its end: each report that was ever made of it is told once, in order,
    /// and all of them before its end. Several attempts may each report from the start.
    #[must_use]
    pub fn watch(&self, id: MessageId) -> Watch {
        Watch {
            feed: self.clone(),
            place: self.take_place(id, true),
            seen: 0,
            look: true,
            look_for_progress: true,
            finished: None,
        }
    }
}

impl Watch {
    /// The message that is watched.
    #[must_use]
    pub fn id(&self) -> MessageId {
        self.place.id
    }

    /// The same without progress, which then costs nothing.
    #[must_use]
    pub fn without_progress(mut self) -> Self {
        self.place = self.feed.take_place(self.place.id, false);
        self.look_for_progress = false;
        self
    }

    /// Waits for what comes next, at most for `deadline` or until the process drains. Cancel-safe: what was not told is
    /// told by the next call.
    ///
    /// # Errors
    /// [`Error::NoMessage`], or when the database does not answer; call it again.
    pub async fn next(&mut self, deadline: Duration) -> Result<Update, Error> {
        let deadline = tokio::time::sleep(deadline);
        tokio::pin!(deadline);
        loop {
            // Armed before looking, so that what happens in between is not missed.
            let told = std::sync::Arc::clone(&self.place.told);
            let (happened, progressed) = (told.happened.notified(), told.progressed.notified());
            tokio::pin!(happened, progressed);
            happened.as_mut().enable();
            progressed.as_mut().enable();
            if self.look && self.finished.is_none() {
                let message = self.feed.bus.message(self.place.id).await?;
                if message.status.is_final() {
                    self.finished = Some(message);
                    // All that was reported is in the log by now.
                    self.look_for_progress = self.place.is_curious;
                }
                self.look = false;
            }
            if self.look_for_progress {
                let reports = self.read().await?;
                if !reports.is_empty() {
                    return Ok(Update::Progress(reports));
                }
            }
            if let Some(message) = &self.finished {
                return Ok(Update::Finished(message.clone()));
            }
            tokio::select! {
                () = happened => self.look = true,
                () = progressed => self.look_for_progress = true,
                () = &mut deadline => break,
                // Nobody tells any more.
                () = self.feed.stopped.cancelled() => break,
            }
        }
        // For whoever calls again: what happens from here on may go unheard.
        (self.look, self.look_for_progress) = (true, self.place.is_curious);
        Ok(Update::Waiting(self.feed.bus.message(self.place.id).await?))
    }

    /// The reports that were not told yet; looks again at the next call unless there were none.
    async fn read(&mut self) -> Result<Vec<Value>, Error> {
        let events = self.feed.bus.progress(self.place.id, self.seen, PROGRESS_MAX).await?;
        if let Some(last) = events.last() {
            self.seen = last.cursor.seq;
        } else {
            self.look_for_progress = false;
        }
        Ok(events.into_iter().flat_map(reports).collect())
    }
}

/// The reports in one event: what came together stands in a list, and else there is one.
fn reports(event: Event) -> Vec<Value> {
    let Value::Object(mut payload) = event.payload else { return Vec::new() };
    match (payload.remove("reports"), payload.remove("progress")) {
        (Some(Value::Array(reports)), _) => reports,
        (_, Some(report)) => vec![report],
        _ => Vec::new(),
    }
}
