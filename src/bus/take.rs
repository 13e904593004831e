//! Runners of this process that take what it publishes, in the round trip that publishes it.
//!
//! Where a worker runs beside the publisher and has places free, a message is enqueued and claimed in one transaction:
//! one commit, which is before the handler is called, as two would be. What is claimed is what any claim would have
//! been given, the next by rank, so nobody is passed over. A taker that is full, or of other topics, changes nothing:
//! then messages are enqueued, and claimed by who comes first.

use std::sync::Arc;

use crate::bus::claim::ClaimRequest;
use crate::clock::Stopwatch;
use crate::message::{Message, NewMessage};

/// One who takes messages, on the publisher's own time: it must not wait.
#[allow(clippy::vec_box)] // as they come out of the rows; a message is some four hundred bytes
pub(crate) trait Take: std::fmt::Debug + Send + Sync {
    /// Keeps places for as many of `messages` as there is room for, if all of them are of its topics. What was kept
    /// is given back by [`Take::take`].
    fn reserve(&self, messages: &[NewMessage]) -> Option<ClaimRequest>;
    /// Takes what was claimed, and gives back the places that were kept for more.
    fn take(&self, messages: Vec<Box<Message>>, began: Stopwatch, reserved: usize);
}

/// Places that are kept, given back when dropped.
#[derive(Debug)]
pub(super) struct Reserved {
    taker: Arc<dyn Take>,
    began: Stopwatch,
    pub(super) request: ClaimRequest,
}

#[allow(clippy::vec_box)] // as above
impl Reserved {
    /// At the first of `takers` that has room.
    pub(super) fn at(takers: Vec<Arc<dyn Take>>, messages: &[NewMessage]) -> Option<Self> {
        takers.into_iter().find_map(|taker| {
            let request = taker.reserve(messages)?;
            Some(Self { taker, began: Stopwatch::start(), request })
        })
    }

    /// Hands over what was claimed.
    pub(super) fn take(mut self, messages: Vec<Box<Message>>) {
        let reserved = std::mem::take(&mut self.request.max);
        self.taker.take(messages, self.began, reserved);
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if self.request.max > 0 {
            self.taker.take(Vec::new(), self.began, self.request.max);
        }
    }
}
