//! What waits to be sent to one socket: bounded, so that whoever does not read costs the hub nothing but
//! his own connection.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Bytes;
use axum::extract::ws::{Message, Utf8Bytes};
use tokio::sync::Notify;

/// An encoded frame; all sockets that it goes to share its bytes.
#[derive(Debug, Clone)]
pub(crate) enum Frame {
    Text(Utf8Bytes),
    Binary(Bytes),
}

impl Frame {
    fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Binary(bytes) => bytes.len(),
        }
    }
}

impl From<String> for Frame {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<Frame> for Message {
    fn from(frame: Frame) -> Self {
        match frame {
            Frame::Text(text) => Self::Text(text),
            Frame::Binary(bytes) => Self::Binary(bytes),
        }
    }
}

/// How much may wait, and how much does in all outboxes.
#[derive(Debug)]
pub(crate) struct Budget {
    pub(crate) frames: usize,
    pub(crate) bytes: usize,
    pub(crate) bytes_all: usize,
    /// What one outbox may hold once all together hold too much, but for a single frame.
    pub(crate) share: usize,
    queued: AtomicUsize,
}

impl Budget {
    pub(crate) fn new(frames: usize, bytes: usize, bytes_all: usize) -> Self {
        let share = (bytes / 64).max(1024);
        Self { frames, bytes, bytes_all, share, queued: AtomicUsize::new(0) }
    }
}

/// The queue of one socket. Pushed to by anybody, taken from by the socket's task.
#[derive(Debug)]
pub(crate) struct Outbox {
    budget: Arc<Budget>,
    queue: Mutex<Queue>,
    ready: Notify,
    overflowed: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    frames: VecDeque<Frame>,
    bytes: usize,
    /// Of the frame that was taken last: the socket holds it, and a copy, until the client has read it.
    in_flight: usize,
    /// It takes nothing more.
    closed: bool,
    /// It was closed because it was full.
    full: bool,
}

impl Outbox {
    pub(crate) fn new(budget: Arc<Budget>) -> Self {
        Self { budget, queue: Mutex::default(), ready: Notify::new(), overflowed: Notify::new() }
    }

    /// Queues a frame. If there is no room, the socket is given up and what waits for it let go.
    pub(crate) fn push(&self, frame: Frame) {
        let mut queue = self.queue();
        if queue.closed {
            return;
        }
        let (bytes, all) = (frame.len(), self.budget.queued.load(Ordering::Relaxed));
        // What is in flight is not held against the socket alone: a large frame takes its time to be read.
        let held = queue.bytes + queue.in_flight;
        let full = queue.frames.len() >= self.budget.frames
            // One frame always has room, however large.
            || !queue.frames.is_empty() && queue.bytes + bytes > self.budget.bytes
            || held > 0
                && all + bytes > self.budget.bytes_all
                && held + bytes > self.budget.share;
        if full {
            queue.full = true;
            self.shut(&mut queue);
            drop(queue);
            self.overflowed.notify_one();
            return;
        }
        queue.frames.push_back(frame);
        queue.bytes += bytes;
        self.budget.queued.fetch_add(bytes, Ordering::Relaxed);
        drop(queue);
        self.ready.notify_one();
    }

    /// The next frame, if one waits; the one before was sent. It counts until the next is asked for.
    pub(crate) fn take(&self) -> Option<Frame> {
        let mut queue = self.queue();
        let sent = std::mem::take(&mut queue.in_flight);
        self.budget.queued.fetch_sub(sent, Ordering::Relaxed);
        let frame = queue.frames.pop_front()?;
        queue.bytes -= frame.len();
        queue.in_flight = frame.len();
        if queue.frames.is_empty() {
            // A burst must not be remembered by the memory of an idle socket.
            queue.frames.shrink_to(4);
        }
        Some(frame)
    }

    /// Waits until a frame may be there. For one task at a time; cancel-safe.
    pub(crate) async fn ready(&self) {
        self.ready.notified().await;
    }

    /// Waits until the socket is given up. For one task at a time; cancel-safe.
    pub(crate) async fn overflowed(&self) {
        if !self.queue().full {
            self.overflowed.notified().await;
        }
    }

    /// Takes nothing more, and lets go what waits.
    pub(crate) fn close(&self) {
        self.shut(&mut self.queue());
    }

    fn shut(&self, queue: &mut Queue) {
        queue.closed = true;
        self.budget.queued.fetch_sub(queue.bytes + queue.in_flight, Ordering::Relaxed);
        (queue.bytes, queue.in_flight) = (0, 0);
        queue.frames = VecDeque::new();
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Nothing that can panic happens under the lock, so a poisoned one is still whole.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: usize) -> Frame {
        "x".repeat(bytes).into()
    }

    #[tokio::test]
    async fn a_full_outbox_is_given_up_and_holds_nothing() {
        let budget = Arc::new(Budget::new(3, 1000, 10_000));
        let outbox = Outbox::new(Arc::clone(&budget));
        outbox.push(text(5000)); // one always has room
        outbox.push(text(1));
        outbox.overflowed().await;
        assert!(outbox.take().is_none());
        outbox.push(text(1));
        assert!(outbox.take().is_none(), "it takes nothing more");
        assert_eq!(budget.queued.load(Ordering::Relaxed), 0);

        let outbox = Outbox::new(Arc::clone(&budget));
        (0..4).for_each(|_| outbox.push(text(1)));
        outbox.overflowed().await;
    }

    #[tokio::test]
    async fn past_the_sum_those_go_that_let_most_wait() {
        let budget = Arc::new(Budget::new(1000, 1 << 20, 1 << 20));
        let (slow, fast) = (Outbox::new(Arc::clone(&budget)), Outbox::new(Arc::clone(&budget)));
        slow.push(text(1 << 19));
        slow.push(text(1 << 18));
        fast.push(text(1000));
        let other = Outbox::new(Arc::clone(&budget));
        other.push(text(1 << 18));
        fast.push(text(1000));
        assert!(fast.take().is_some() && fast.take().is_some() && fast.take().is_none());
        slow.push(text(1000));
        slow.overflowed().await;
        assert_eq!(budget.queued.load(Ordering::Relaxed), 1 << 18);
        drop(other);
        assert_eq!(budget.queued.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn what_a_client_has_yet_to_read_counts_until_it_has() {
        let budget = Arc::new(Budget::new(1000, 1 << 20, 1 << 20));
        let queued = || budget.queued.load(Ordering::Relaxed);
        let (slow, fast) = (Outbox::new(Arc::clone(&budget)), Outbox::new(Arc::clone(&budget)));
        for outbox in [&slow, &fast] {
            outbox.push(text(1 << 19));
            assert!(outbox.take().is_some());
        }
        assert_eq!(queued(), 1 << 20, "both are in flight");
        assert!(fast.take().is_none());
        assert_eq!(queued(), 1 << 19, "one was read");
        // A frame that is read slowly takes nothing from the socket's own room.
        slow.push(text(1 << 19));
        assert!(!slow.queue().full);
        assert_eq!(queued(), 1 << 20);
        slow.push(text(1));
        assert!(slow.queue().full, "all is taken, and it holds more than its share");
        assert_eq!(queued(), 0, "nor what was in flight");
        assert!(slow.take().is_none());
        assert_eq!(queued(), 0);
    }

    #[test]
    fn past_the_sum_nobody_gets_more_than_a_share_behind_anything_else() {
        let budget = Arc::new(Budget::new(1000, 1 << 20, 1 << 20));
        let slow = Outbox::new(Arc::clone(&budget));
        slow.push(text(1 << 20));
        let [small, large, single] = [0; 3].map(|_| Outbox::new(Arc::clone(&budget)));
        for outbox in [&small, &large] {
            outbox.push(text(100));
        }
        small.push(text(1000));
        large.push(text(budget.share));
        single.push(text(budget.share + 1));
        assert!(!small.queue().full && large.queue().full && !single.queue().full);
    }
}
