//! Following the log: all that is appended from now on, each event once, in the log's order.

use std::sync::Arc;

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use super::{BATCH, Feed};
use crate::bus::error::Error;
use crate::bus::queries::events::Head;
use crate::event::Cursor;

/// Reads along with the feed. It holds no connection, and costs the database nothing unless it falls behind
/// what the feed keeps: then it reads what it missed by itself.
#[derive(Debug)]
pub(crate) struct Follower {
    feed: Feed,
    batches: broadcast::Receiver<Arc<super::Heads>>,
    cursor: Option<Cursor>,
    /// A batch that came while an earlier stretch is still to be read.
    ahead: Option<Arc<super::Heads>>,
}

impl Feed {
    /// Follows the log from where the feed is.
    pub(crate) fn follow(&self) -> Follower {
        // In this order: what comes in between is then seen twice, and the cursor tells.
        let batches = self.followed.subscribe();
        let cursor = *self.position.borrow();
        Follower { feed: self.clone(), batches, cursor, ahead: None }
    }

    /// Hears of what is read from now on: for who reads the log by himself, and wants to know when.
    pub(crate) fn hear(&self) -> broadcast::Receiver<Arc<super::Heads>> {
        self.followed.subscribe()
    }

    /// Cancelled when the process drains and nothing more is read.
    pub(crate) fn stopped(&self) -> &CancellationToken {
        &self.stopped
    }

    /// Waits until the feed knows its place in the log: from then on nothing that is committed is missed, since
    /// the feed reads only below the oldest running transaction. Cancel-safe.
    pub(crate) async fn begun(&self) {
        // The sender lives in `self`.
        let _ = self.position.subscribe().wait_for(Option::is_some).await;
    }
}

impl Follower {
    /// The next events, at least one. Pending for ever once the feed has ended. Cancel-safe.
    ///
    /// # Errors
    /// When events had to be read again and the database does not answer; call it again.
    pub(crate) async fn next(&mut self) -> Result<Vec<Head>, Error> {
        let mut cursor = match self.cursor {
            Some(cursor) => cursor,
            None => {
                self.feed.begun().await;
                *self.cursor.insert(self.feed.began.get().copied().unwrap_or_default())
            }
        };
        loop {
            let batch = match self.ahead.take() {
                Some(batch) => batch,
                None => match self.batches.recv().await {
                    Ok(batch) => batch,
                    // What was lost shows as a gap before the next one.
                    Err(RecvError::Lagged(_)) => continue,
                    Err(RecvError::Closed) => std::future::pending().await,
                },
            };
            if batch.after > cursor {
                // Kept across the `await`, which may be cancelled or fail.
                let batch = self.ahead.insert(batch);
                let missed = self.feed.bus.read_heads(cursor, BATCH).await?;
                match missed.last() {
                    Some(last) => {
                        self.cursor = Some(last.cursor);
                        return Ok(missed);
                    }
                    // Retention took what was in between.
                    None => cursor = *self.cursor.insert(batch.after),
                }
                continue;
            }
            let new: Vec<Head> =
                batch.events.iter().filter(|head| head.cursor > cursor).cloned().collect();
            if let Some(last) = new.last() {
                self.cursor = Some(last.cursor);
                return Ok(new);
            }
        }
    }
}
