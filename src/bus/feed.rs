//! The log as a feed: one reader tails it; whoever waits for a message is told, and who follows the log is
//! given what was read.

mod agents;
#[cfg(feature = "hub")]
mod follow;
mod watch;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use metrics::counter;
use serde_json::Value;
use tokio::sync::{Notify, broadcast, watch as channel};
use tokio_util::sync::CancellationToken;

pub use agents::{Agents, Changed};
pub use watch::{Update, Watch};

use crate::bus::error::Error;
use crate::bus::group::Grouper;
use crate::bus::queries::Looked;
use crate::bus::queries::events::Head;
use crate::bus::{Bus, Ended, Hear, Signal};
use crate::clock::Stopwatch;
use crate::error::chain;
use crate::event::Cursor;
use crate::message::{Message, MessageId};
use crate::metrics::{CIRCUIT_CLOSE_TOTAL, CIRCUIT_OPEN_TOTAL, EVENTS_TOTAL};
use crate::shutdown::{Shutdown, Tasks};

/// How often the log is looked at when nothing wakes us, and how often the waited-for messages are, all
/// of them in one round trip: a foreign transaction that stays open holds back the log, but not the
/// message.
const POLL: Duration = Duration::from_secs(1);
/// Events a round trip; as many as fit well into one answer.
const BATCH: u32 = 500;
/// From so many events in one look the next one waits for a moment, or each commit would be looked at by itself.
const MANY: usize = 8;
/// How long that is.
const GATHER: Duration = Duration::from_millis(5);
/// How long the log may grow by what this process did and has told all its waiters of: a look costs as much as a settle.
const UNHURRIED: Duration = Duration::from_millis(25);
/// Types of events that are counted by name: a dozen for each intent, and intents are few.
const MAX_TYPES: usize = 200;
/// Batches that are kept for followers; who is slower than that reads them from the log by itself.
const KEPT: usize = 16;

/// Tells waiters of what happens to their messages. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Feed {
    bus: Bus,
    waiters: Arc<Mutex<Waiters>>,
    stopped: CancellationToken,
    followed: broadcast::Sender<Arc<Heads>>,
    /// Tenants whose workers have changed.
    agents: broadcast::Sender<String>,
    /// How far the log was read; none until its end was asked for.
    position: channel::Sender<Option<Cursor>>,
    /// Since it had last read the log to its end.
    at_end: channel::Sender<Stopwatch>,
    /// Where reading began.
    began: Arc<OnceLock<Cursor>>,
    /// Looks of several waiters in one round trip.
    looks: Grouper<MessageId, Option<Looked>>,
}

/// What was read of the log in one go.
#[derive(Debug)]
#[cfg_attr(not(feature = "hub"), allow(dead_code))] // only the hub follows
pub(crate) struct Heads {
    /// Where reading went on from.
    pub(crate) after: Cursor,
    pub(crate) events: Vec<Head>,
}

#[derive(Debug, Default)]
struct Waiters {
    by_message: HashMap<MessageId, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    told: Arc<Told>,
    count: usize,
    /// How many of these want to hear of progress.
    curious: usize,
}

/// What those are told who wait for one message.
#[derive(Debug, Default)]
struct Told {
    /// Something happened to it.
    happened: Bell,
    /// Its handler reported how far it is.
    progressed: Bell,
    /// What it ended with, where this process settled it and nothing was reported before.
    done: OnceLock<Arc<Value>>,
}

/// Rings for all who listen, and counts, so that who was busy when it rang knows that it did.
#[derive(Debug, Default)]
struct Bell {
    rung: AtomicU64,
    ringing: Notify,
}

impl Bell {
    fn ring(&self) {
        self.rung.fetch_add(1, Ordering::AcqRel);
        self.ringing.notify_waiters();
    }

    /// Whether it has rung since `heard` was last brought up to date, which it is now.
    fn rang(&self, heard: &mut u64) -> bool {
        let rung = self.rung.load(Ordering::Acquire);
        std::mem::replace(heard, rung) != rung
    }
}

/// How far the log was read, and which types of events have been counted.
#[derive(Debug, Default)]
struct Tail {
    cursor: Option<Cursor>,
    /// The last look found many events, but not all that fit.
    is_busy: bool,
    types: HashSet<String>,
}

impl Tail {
    /// Counts an event under its type, or under `other` once there are too many types: whoever may enqueue
    /// may invent intents, and each label of a metric is memory for ever.
    fn count(&mut self, event_type: &str) {
        match event_type {
            "circuit_opened" => counter!(CIRCUIT_OPEN_TOTAL).increment(1),
            "circuit_closed" => counter!(CIRCUIT_CLOSE_TOTAL).increment(1),
            _ => {}
        }
        let known = self.types.contains(event_type)
            || self.types.len() < MAX_TYPES && self.types.insert(event_type.to_owned());
        let label = if known { event_type } else { "other" };
        counter!(EVENTS_TOTAL, "event_type" => label.to_owned()).increment(1);
    }
}

/// A place among the waiters, given up when dropped.
#[derive(Debug)]
struct Place {
    waiters: Arc<Mutex<Waiters>>,
    id: MessageId,
    told: Arc<Told>,
    is_curious: bool,
}

impl Feed {
    /// Starts to tail the log from its present end, until `shutdown` drains.
    #[must_use]
    pub fn start(bus: Bus, tasks: &Tasks, shutdown: &Shutdown) -> Self {
        let stopped = shutdown.draining().clone();
        // There before the first one happens, so that its rate is seen.
        counter!(CIRCUIT_OPEN_TOTAL).increment(0);
        counter!(CIRCUIT_CLOSE_TOTAL).increment(0);
        let looking = bus.clone();
        // Not the process' tasks: it ends with the last clone of the feed, and nobody needs to wait for it.
        let looks = Grouper::start(&Tasks::new(), None, move |ids: Arc<Vec<MessageId>>| {
            let bus = looking.clone();
            async move { Ok(in_order(&ids, bus.look_at(&ids).await?)) }
        });
        let feed = Self {
            looks,
            bus,
            waiters: Arc::default(),
            stopped,
            followed: broadcast::Sender::new(KEPT),
            agents: broadcast::Sender::new(agents::KEPT_CHANGES),
            position: channel::Sender::new(None),
            at_end: channel::Sender::new(Stopwatch::start()),
            began: Arc::default(),
        };
        let waiters: Weak<Mutex<Waiters>> = Arc::downgrade(&feed.waiters);
        feed.bus.hear(waiters);
        let running = feed.clone();
        tasks.spawn(async move {
            tokio::select! {
                () = running.tail() => {}
                () = running.look_for_waiters() => {}
                () = running.stopped.cancelled() => {}
            }
        });
        feed
    }

    /// Waits until the message is finished, at most for `deadline` or until the process drains, and
    /// gives it as it then is. A waiter holds no connection, and costs a round trip only when something
    /// happened to its message.
    ///
    /// # Errors
    /// [`Error::NoMessage`], or when the database does not answer.
    pub async fn wait(&self, id: MessageId, deadline: Duration) -> Result<Message, Error> {
        let place = self.take_place(id, false);
        let deadline = tokio::time::sleep(deadline);
        tokio::pin!(deadline);
        loop {
            // Armed before looking, so that what happens in between is not missed.
            let told = place.told.happened.ringing.notified();
            tokio::pin!(told);
            told.as_mut().enable();
            let message = self.look(id).await?.message;
            if message.status.is_final() {
                return Ok(message);
            }
            tokio::select! {
                () = told => {}
                () = &mut deadline => return self.bus.message(id).await,
                // Nobody tells any more.
                () = self.stopped.cancelled() => return self.bus.message(id).await,
            }
        }
    }

    /// The message as it stands; concurrent looks share a round trip.
    async fn look(&self, id: MessageId) -> Result<Looked, Error> {
        self.looks.call(id).await?.ok_or(Error::NoMessage(id))
    }

    /// Looks at the waited-for messages without the log.
    async fn look_for_waiters(&self) {
        loop {
            tokio::time::sleep(POLL).await;
            let waited: Vec<MessageId> = self.waiters().by_message.keys().copied().collect();
            if waited.is_empty() {
                continue;
            }
            match self.bus.settled_of(&waited).await {
                Ok(settled) => settled.into_iter().for_each(|id| self.tell_waiters(id)),
                Err(error) => {
                    tracing::debug!(error = %chain(&error), "Could not look for waiters; trying again");
                }
            }
        }
    }

    /// How long ago the log had last been read to its end; none once nobody reads it any more.
    #[must_use]
    pub fn age(&self) -> Option<Duration> {
        (!self.stopped.is_cancelled()).then(|| self.at_end.borrow().elapsed())
    }

    async fn tail(&self) {
        let (mut woken, mut grown) = (self.bus.waker(Signal::Log), self.bus.when_grown());
        let mut place = Tail::default();
        let mut gathered = false;
        loop {
            let more = match self.read_on(&mut place).await {
                Ok(more) => {
                    if !more {
                        self.at_end.send_replace(Stopwatch::start());
                    }
                    more
                }
                Err(error) => {
                    tracing::warn!(error = %chain(&error), "Could not read the log; trying again");
                    false
                }
            };
            if place.is_busy && !gathered {
                // Much happens: more of it at a time costs less, and who waits here was told of it already.
                tokio::time::sleep(GATHER).await;
            } else if !more {
                gathered = tokio::select! {
                    () = woken.woken() => {
                        if !self.bus.is_from_afar() {
                            // Who waits for what this process did was told; the log may tell of some at once.
                            tokio::time::sleep(GATHER).await;
                        }
                        false
                    }
                    () = grown.woken() => tokio::select! {
                        () = woken.woken() => false,
                        () = tokio::time::sleep(UNHURRIED) => true,
                    },
                    () = tokio::time::sleep(POLL) => false,
                };
            }
        }
    }

    async fn read_on(&self, tail: &mut Tail) -> Result<bool, Error> {
        let after = match tail.cursor {
            Some(cursor) => cursor,
            None => *tail.cursor.insert(self.bus.log_end().await?),
        };
        self.began.get_or_init(|| after);
        self.position.send_if_modified(|position| position.replace(after) != Some(after));
        let events = self.bus.read_heads(after, BATCH).await?;
        let more = events.len() == BATCH as usize;
        tail.is_busy = !more && events.len() >= MANY;
        for head in &events {
            tail.cursor = Some(head.cursor);
            tail.count(&head.event_type);
            match head.message_id {
                Some(id) if is_progress(&head.event_type) => self.tell_curious(id),
                Some(_) if is_beginning(&head.event_type) => {}
                Some(id) => self.tell_waiters(id),
                None => {}
            }
        }
        self.tell_of_agents(&events);
        if !events.is_empty() {
            // Nobody may follow.
            let _ = self.followed.send(Arc::new(Heads { after, events }));
        }
        Ok(more)
    }

    fn tell_waiters(&self, id: MessageId) {
        if let Some(waiting) = self.waiters().by_message.get(&id) {
            waiting.told.happened.ring();
        }
    }

    fn tell_curious(&self, id: MessageId) {
        if let Some(waiting) = self.waiters().by_message.get(&id).filter(|it| it.curious > 0) {
            waiting.told.progressed.ring();
        }
    }

    fn take_place(&self, id: MessageId, is_curious: bool) -> Place {
        let mut waiters = self.waiters();
        let waiting = waiters.by_message.entry(id).or_insert_with(|| Waiting {
            told: Arc::default(),
            count: 0,
            curious: 0,
        });
        waiting.count += 1;
        waiting.curious += usize::from(is_curious);
        let told = Arc::clone(&waiting.told);
        Place { waiters: Arc::clone(&self.waiters), id, told, is_curious }
    }

    fn waiters(&self) -> MutexGuard<'_, Waiters> {
        lock(&self.waiters)
    }
}

/// Those who wait for what this process settles are told as soon as that is committed.
impl Hear for Mutex<Waiters> {
    fn ended(&self, ended: &[Ended<'_>]) {
        let waiters = lock(self);
        for Ended { id, result } in ended {
            let Some(waiting) = waiters.by_message.get(id) else { continue };
            if let Some(result) = result {
                let _the_first_is_the_one = waiting.told.done.set(Arc::clone(result));
            }
            waiting.told.happened.ring();
        }
    }
}

fn lock(waiters: &Mutex<Waiters>) -> MutexGuard<'_, Waiters> {
    // Nothing that can panic happens under the lock, so a poisoned one is still whole.
    waiters.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What was looked at, in the order of the question: one answer for each id, however often it stands there.
fn in_order(ids: &[MessageId], looked: Vec<Looked>) -> Vec<Option<Looked>> {
    let by_id: HashMap<_, _> = looked.into_iter().map(|it| (it.message.id, it)).collect();
    ids.iter().map(|id| by_id.get(id).cloned()).collect()
}

/// Whether a message waits after this, for the first time or again: nothing that a waiter waits for.
fn is_beginning(event_type: &str) -> bool {
    event_type.ends_with("_scheduled")
}

fn is_progress(event_type: &str) -> bool {
    event_type.ends_with("_progress")
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut waiters = lock(&self.waiters);
        if let Some(waiting) = waiters.by_message.get_mut(&self.id) {
            waiting.count -= 1;
            waiting.curious -= usize::from(self.is_curious);
            if waiting.count == 0 {
                waiters.by_message.remove(&self.id);
            }
        }
    }
}
