//! Watching one message: its progress, each report once, and its end.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::{Feed, Place};
use crate::bus::error::Error;
use crate::bus::queries::Looked;
use crate::error::chain;
use crate::event::Event;
use crate::message::{Message, MessageId};

/// Events of progress a round trip; what is left is read at the next one.
const PROGRESS_MAX: u32 = 50;
/// How long until a database is asked again that did not answer.
const AGAIN: Duration = Duration::from_millis(500);

/// What became of a message since it was last asked about.
#[derive(Debug, Clone, PartialEq)]
pub enum Update {
    /// What its handlers reported, the oldest first, at least one.
    Progress(Vec<Value>),
    /// It is finished: nothing more will come.
    Finished(Message),
    /// The same, for who asked for [`Watch::results`]: it is done, with this result.
    Done(Arc<Value>),
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
    /// The result will do.
    brief: bool,
    finished: Option<Message>,
    /// How often what is told of the message had rung when it was last looked at.
    happened: u64,
    progressed: u64,
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
            brief: false,
            finished: None,
            happened: 0,
            progressed: 0,
        }
    }
}

impl Feed {
    /// As [`Feed::watch`], for a message that is yet to be published: there is nothing to look at until something
    /// happens to it, and what happens from now on is told. The id must be new.
    #[must_use]
    pub fn expect(&self, id: MessageId) -> Watch {
        Watch { look: false, look_for_progress: false, ..self.watch(id) }
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
        // The new place before the old one goes, so that both are told by the same.
        self.place = self.feed.take_place(self.place.id, false);
        self.look_for_progress = false;
        self
    }

    /// The same for who wants no more of a message that is done than its result: where this process settled it, that is
    /// told as it was committed, and the message need not be read for it. It is as the handler gave it: Postgres keeps
    /// the same value, and may write it otherwise (the order of fields, 100 for 1e2).
    #[must_use]
    pub fn results(mut self) -> Self {
        self.brief = true;
        self
    }

    /// Waits for what comes next, at most for `deadline` or until the process drains. Cancel-safe: what was not told is
    /// told by the next call.
    ///
    /// While the database does not answer, as when it is started anew, this waits on: the message is there all the same.
    ///
    /// # Errors
    /// [`Error::NoMessage`], or when the database does not answer when the time is up; call it again.
    pub async fn next(&mut self, deadline: Duration) -> Result<Update, Error> {
        let deadline = tokio::time::sleep(deadline);
        tokio::pin!(deadline);
        loop {
            // Armed before looking, so that what happens in between is not missed.
            let told = Arc::clone(&self.place.told);
            let happened = told.happened.ringing.notified();
            let progressed = told.progressed.ringing.notified();
            tokio::pin!(happened, progressed);
            happened.as_mut().enable();
            progressed.as_mut().enable();
            // What happened since, while nobody was listening.
            self.look |= told.happened.rang(&mut self.happened);
            self.look_for_progress |=
                self.place.is_curious && told.progressed.rang(&mut self.progressed);
            match self.now().await {
                Ok(Some(update)) => return Ok(update),
                Ok(None) => {}
                Err(error) if error.is_transient() => {
                    tracing::debug!(
                        message.id = %self.place.id, error = %chain(&error),
                        "Could not look at a message that is waited for; trying again"
                    );
                    tokio::select! {
                        () = tokio::time::sleep(AGAIN) => continue,
                        () = &mut deadline => return Err(error),
                        () = self.feed.stopped.cancelled() => return Err(error),
                    }
                }
                Err(error) => return Err(error),
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

    /// What is to be told now, as far as it is known that something may have happened.
    async fn now(&mut self) -> Result<Option<Update>, Error> {
        if self.brief
            && !self.look_for_progress
            && self.finished.is_none()
            && let Some(result) = self.place.told.done.get()
        {
            return Ok(Some(Update::Done(Arc::clone(result))));
        }
        if self.look && self.finished.is_none() {
            let Looked { message, reported } = self.feed.look(self.place.id).await?;
            if message.status.is_final() {
                self.finished = Some(message);
                // All that was reported is in the log by now.
                self.look_for_progress = self.place.is_curious && reported;
            }
            self.look = false;
        }
        if self.look_for_progress {
            let reports = self.read().await?;
            if !reports.is_empty() {
                return Ok(Some(Update::Progress(reports)));
            }
        }
        Ok(self.finished.clone().map(Update::Finished))
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
