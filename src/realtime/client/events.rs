//! What a channel hears, in a queue that never holds up the socket.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::value::RawValue;
use tokio::sync::Notify;

use super::wire::{Change, PresenceDiff, PresenceState};

/// The bytes that may wait beside the number of events: a change alone may have a megabyte.
const MAX_BYTES: usize = 8 * 1024 * 1024;

/// What a channel hears.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// It is joined. What happened before went unheard: look.
    Joined,
    /// Changes of tables are delivered from now on; those before were not: look.
    Subscribed,
    /// The server says that something is wrong with a subscription, a token or a call.
    SystemError(String),
    /// A row has changed.
    Change(Change),
    /// Someone has broadcast something.
    Broadcast {
        /// The sender's name for it.
        event: String,
        /// What was sent.
        payload: Content,
    },
    /// Everyone who is present.
    PresenceState(PresenceState),
    /// Who came and who went.
    PresenceDiff(PresenceDiff),
    /// The channel is lost. It is joined again by itself.
    Lost {
        /// Why.
        reason: String,
    },
    /// The reader was too slow, and events of any kind were dropped: look.
    Missed,
}

/// What a broadcast carries.
#[derive(Debug, Clone)]
pub enum Content {
    /// JSON.
    Json(Box<RawValue>),
    /// Bytes, which only version 2.0.0 can send.
    Bytes(Vec<u8>),
}

impl Event {
    /// What it weighs beside itself, roughly.
    fn weight(&self) -> usize {
        match self {
            Self::Change(change) => change.data.get().len(),
            Self::Broadcast { payload: Content::Json(json), .. } => json.get().len(),
            Self::Broadcast { payload: Content::Bytes(bytes), .. } => bytes.len(),
            Self::PresenceState(state) => state.len() * 256,
            _ => 0,
        }
    }
}

/// Events on their way to a reader. When there are too many, all of them become one [`Event::Missed`].
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    filled: Notify,
    capacity: usize,
}

#[derive(Default)]
struct Waiting {
    events: VecDeque<Event>,
    bytes: usize,
    closed: bool,
}

impl Queue {
    pub(super) fn new(capacity: usize) -> Self {
        Self { waiting: Mutex::default(), filled: Notify::new(), capacity: capacity.max(2) }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, event: Event) {
        let mut waiting = self.waiting();
        let weight = event.weight();
        if waiting.events.len() >= self.capacity || waiting.bytes + weight > MAX_BYTES {
            waiting.events.clear();
            waiting.bytes = 0;
            waiting.events.push_back(Event::Missed);
        }
        waiting.bytes += weight;
        waiting.events.push_back(event);
        drop(waiting);
        self.filled.notify_one();
    }

    pub(super) fn close(&self) {
        self.waiting().closed = true;
        self.filled.notify_one();
    }

    /// The next event; nothing once the queue is closed and empty. For one reader; cancel-safe.
    pub(super) async fn next(&self) -> Option<Event> {
        loop {
            {
                let mut waiting = self.waiting();
                if let Some(event) = waiting.events.pop_front() {
                    waiting.bytes = waiting.bytes.saturating_sub(event.weight());
                    return Some(event);
                }
                if waiting.closed {
                    return None;
                }
            }
            self.filled.notified().await; // a permit is kept if it was filled meanwhile
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(length: usize) -> Event {
        Event::Broadcast { event: String::new(), payload: Content::Bytes(vec![0; length]) }
    }

    #[tokio::test]
    async fn too_many_events_become_one_that_says_so_and_the_newest_stays() {
        let queue = Queue::new(4);
        for _ in 0..4 {
            queue.push(bytes(1));
        }
        queue.push(Event::Joined);
        assert!(matches!(queue.next().await, Some(Event::Missed)));
        assert!(matches!(queue.next().await, Some(Event::Joined)));
        queue.close();
        assert!(queue.next().await.is_none());
    }

    #[tokio::test]
    async fn too_many_bytes_are_too_many_as_well() {
        let queue = Queue::new(1_000);
        for _ in 0..3 {
            queue.push(bytes(MAX_BYTES / 2));
        }
        assert!(matches!(queue.next().await, Some(Event::Missed)));
        assert!(matches!(queue.next().await, Some(Event::Broadcast { .. })));
        queue.push(bytes(MAX_BYTES));
        assert!(matches!(queue.next().await, Some(Event::Broadcast { .. })), "room was given back");
    }
}
