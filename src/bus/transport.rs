//! The way to the bus: what senders and workers ask of it, whichever way that is.
//!
//! There are two: a pool of connections to the database (`postgres.rs`), and HTTPS to a hub or to hosted
//! Supabase (`rest.rs`, feature `remote`). What only an operator with a database can do, such as comparing the
//! table with the log, is not here: it asks for [`Transport::postgres`] and is refused where there is none.

use std::fmt;
use std::time::Duration;

use futures_util::future::BoxFuture;
use rand::RngExt as _;
use serde_json::Value;

use crate::artifact;
use crate::breaker;
use crate::bus::circuit::{Circuit, CircuitAction};
use crate::bus::claim::ClaimRequest;
use crate::bus::env::{Names, Sealed};
use crate::bus::error::Error;
use crate::bus::offer::{Definition, Offered, Pin};
use crate::bus::postgres::Postgres;
use crate::bus::queries::backlog::{Limit, Parked};
use crate::bus::queries::events::Head;
use crate::bus::queries::workers::{Depth, WorkerRow};
use crate::bus::queries::{Enqueued, Extended, Looked, Operated, Reaped, StepRow};
use crate::event::{Cursor, Event};
use crate::identity::Claims;
use crate::message::{Message, MessageId, NewMessage, TraceId};

/// An answer that is awaited.
pub(crate) type Answer<'a, T> = BoxFuture<'a, Result<T, Error>>;

/// One way to the bus. Each call is one round trip, made once: what may be repeated is `core.rs`' to decide.
pub(crate) trait Transport: fmt::Debug + Send + Sync {
    /// `bus_enqueue`, or what does the same. Answers in the order of `messages`.
    fn enqueue<'a>(&'a self, messages: &'a [NewMessage]) -> Answer<'a, Vec<Enqueued>>;
    /// `bus_step`, with an array of settles as JSON.
    fn step<'a>(&'a self, settles: &'a str, request: &'a ClaimRequest) -> Answer<'a, Vec<StepRow>>;
    /// `bus_step` that claims nothing.
    fn settle<'a>(&'a self, settles: &'a str) -> Answer<'a, Vec<StepRow>>;
    fn extend<'a>(&'a self, claims: &'a Value, lease_ms: i32) -> Answer<'a, Vec<Extended>>;
    fn reap(&self, max: i32) -> Answer<'_, Reaped>;

    fn message(&self, id: MessageId) -> Answer<'_, Option<Message>>;
    /// Those of `ids` that are there.
    fn look_at<'a>(&'a self, ids: &'a [MessageId]) -> Answer<'a, Vec<Looked>>;
    /// Which of `ids` name no message that is still under way.
    fn settled_of<'a>(&'a self, ids: &'a [MessageId]) -> Answer<'a, Vec<MessageId>>;
    fn message_events(&self, id: MessageId, max: i64) -> Answer<'_, Vec<Event>>;
    /// The events of a message's progress after one of them.
    fn progress(&self, id: MessageId, after: i64, max: i64) -> Answer<'_, Vec<Event>>;
    /// What was said to a message while it ran, and nothing else of its events.
    fn inputs(&self, id: MessageId, max: i64) -> Answer<'_, Vec<Event>>;
    fn trace_events(&self, trace: TraceId, max: i64) -> Answer<'_, Vec<Event>>;
    fn read_events<'a>(
        &'a self,
        after: Cursor,
        max: i32,
        filter: &'a Value,
    ) -> Answer<'a, Vec<Event>>;
    fn read_heads(&self, after: Cursor, max: i32) -> Answer<'_, Vec<Head>>;
    fn log_end(&self) -> Answer<'_, String>;
    fn append_events<'a>(&'a self, events: &'a Value) -> Answer<'a, i32>;

    fn worker_seen<'a>(&'a self, worker: &'a Value) -> Answer<'a, bool>;
    fn worker_gone<'a>(
        &'a self,
        worker: &'a str,
        reason: &'a str,
        tenant: &'a str,
    ) -> Answer<'a, bool>;
    fn workers(&self, max: i64) -> Answer<'_, Vec<WorkerRow>>;

    fn define<'a>(&'a self, definitions: &'a Value, tenant: &'a str) -> Answer<'a, Vec<String>>;
    fn definitions<'a>(
        &'a self,
        hashes: &'a [String],
        tenant: &'a str,
    ) -> Answer<'a, Vec<Definition>>;
    fn offers<'a>(&'a self, grace_ms: i64, tenant: &'a str) -> Answer<'a, Vec<Offered>>;
    fn pins<'a>(&'a self, tenant: &'a str) -> Answer<'a, Vec<Pin>>;
    fn pin<'a>(
        &'a self,
        pins: &'a Value,
        who: Option<&'a str>,
        first: bool,
        tenant: &'a str,
    ) -> Answer<'a, i32>;

    fn env_names<'a>(&'a self, tenant: &'a str, after: Option<i64>) -> Answer<'a, Names>;
    fn env_read<'a>(&'a self, names: &'a [String], tenant: &'a str) -> Answer<'a, Vec<Sealed>>;
    fn env_set<'a>(
        &'a self,
        entries: &'a Value,
        tenant: &'a str,
        who: Option<&'a str>,
        why: Option<&'a str>,
    ) -> Answer<'a, i64>;
    fn env_unset<'a>(
        &'a self,
        names: &'a [String],
        tenant: &'a str,
        who: Option<&'a str>,
    ) -> Answer<'a, i32>;

    fn stats(&self) -> Answer<'_, Vec<Depth>>;
    fn limits(&self) -> Answer<'_, Vec<Limit>>;
    fn set_limits<'a>(&'a self, limits: &'a Value) -> Answer<'a, bool>;
    fn parked(&self) -> Answer<'_, Vec<Parked>>;

    fn circuits<'a>(&'a self, tenant: &'a str) -> Answer<'a, Vec<Circuit>>;
    fn circuit_open<'a>(
        &'a self,
        id: &'a breaker::Id,
        worker: &'a str,
        reason: &'a str,
        seen_version: i64,
        policy: &'a Value,
        evidence: &'a Value,
    ) -> Answer<'a, Circuit>;
    fn circuit_probe<'a>(
        &'a self,
        id: &'a breaker::Id,
        worker: &'a str,
        lease_ms: i32,
    ) -> Answer<'a, (bool, Circuit)>;
    fn circuit_report<'a>(
        &'a self,
        id: &'a breaker::Id,
        worker: &'a str,
        ok: Option<bool>,
        reason: Option<&'a str>,
    ) -> Answer<'a, Option<Circuit>>;
    fn circuit_set<'a>(
        &'a self,
        id: &'a breaker::Id,
        action: CircuitAction,
        actor: Option<&'a str>,
        reason: Option<&'a str>,
    ) -> Answer<'a, Circuit>;

    fn cancel<'a>(
        &'a self,
        messages: &'a Value,
        reason: Option<&'a str>,
    ) -> Answer<'a, Vec<Operated>>;
    fn requeue<'a>(
        &'a self,
        messages: &'a Value,
        reason: Option<&'a str>,
    ) -> Answer<'a, Vec<Operated>>;
    fn drop_dead<'a>(
        &'a self,
        messages: &'a Value,
        reason: Option<&'a str>,
    ) -> Answer<'a, Vec<Operated>>;

    fn schema_version(&self) -> Answer<'_, Option<i64>>;

    /// How often to look when nothing wakes us, as it is now.
    fn pace(&self) -> Pace;
    /// Says what the wake-ups are to tell of from now on.
    fn want(&self, want: Want);
    /// Says what they need not tell of any more.
    fn forget(&self, want: &Want);
    /// Where artifacts are kept at the other end, if there is such a place.
    fn artifacts(&self) -> Option<artifact::Store>;
    /// A call was given up before it was answered, and before this noticed that: the way may be dead. Where giving up ends
    /// the connection, as over SQL, there is nothing to do.
    fn unanswered(&self) {}
    /// Wakes other processes now.
    fn wake_others(&self) -> BoxFuture<'_, ()>;
    /// How many bytes of messages or settles go well into one request.
    fn room(&self) -> usize;
    /// The database, where this is the way to one.
    fn postgres(&self) -> Option<&Postgres>;
    /// What the key says of itself, where this is a way with one.
    fn claims(&self) -> Option<Claims>;
}

/// What wake-ups shall tell of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Want {
    /// Messages of this topic that may be claimed; of all tenants with `*`.
    Work { tenant: String, role: String, service: String },
    /// The log.
    Log,
    /// Circuit breakers.
    Circuit,
}

/// How often to look when nothing wakes us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pace {
    /// The pause between two looks is drawn from here, so that workers do not move in step.
    poll: (Duration, Duration),
    /// The shortest pause between two reaps.
    reap_min: Duration,
    /// Somebody near the database reaps; ours is only for the case that they are gone.
    pub(crate) is_reaped: bool,
    /// Wake-ups come.
    pub(crate) is_told: bool,
    /// A look costs a request over the internet. Then the breakers are looked at when there is something to do,
    /// and not otherwise.
    pub(crate) is_far: bool,
}

impl Pace {
    /// With a database at hand: a second.
    pub(crate) const NEAR: Self = Self {
        poll: (Duration::from_millis(750), Duration::from_secs(1)),
        reap_min: Duration::from_millis(20),
        is_reaped: false,
        is_told: true,
        is_far: false,
    };

    /// Over the internet, while wake-ups come or do not.
    #[cfg(feature = "remote")]
    pub(crate) fn far(is_told: bool, is_reaped: bool) -> Self {
        let poll = if is_told { (15, 30) } else { (2, 5) };
        Self {
            poll: (Duration::from_secs(poll.0), Duration::from_secs(poll.1)),
            reap_min: Duration::from_secs(1),
            is_reaped,
            is_told,
            is_far: true,
        }
    }

    /// How long to wait before looking again.
    pub(crate) fn pause(&self) -> Duration {
        let (from, to) = self.poll;
        from + (to - from).mul_f64(rand::rng().random_range(0.0..1.0))
    }

    /// How long to wait before looking again after something failed or was put off, which nobody need tell of.
    pub(crate) fn pause_untold(&self) -> Duration {
        match self.is_far {
            #[cfg(feature = "remote")]
            true => Self::far(false, self.is_reaped).pause(),
            _ => self.pause(),
        }
    }

    /// How long to wait before reaping again, when something is foreseen in `next_due`.
    pub(crate) fn reap_pause(&self, next_due: Option<Duration>) -> Duration {
        let pause = self.pause();
        match next_due {
            Some(due) if !self.is_reaped => {
                // A little late rather than all at once: every worker has been told of the same moment.
                let spread = self.reap_min.mul_f64(rand::rng().random_range(0.0..1.0));
                (due.max(self.reap_min) + spread).min(pause)
            }
            _ => pause,
        }
    }
}

#[cfg(all(test, feature = "remote"))]
mod tests {
    use super::*;

    #[test]
    fn the_pace_over_the_internet_is_slow_while_wake_ups_come_and_faster_while_they_do_not() {
        let s = Duration::from_secs;
        for _ in 0..200 {
            assert!((s(15)..=s(30)).contains(&Pace::far(true, true).pause()));
            assert!((s(2)..=s(5)).contains(&Pace::far(false, true).pause()));
            let soon = Pace::far(true, false).reap_pause(Some(Duration::from_millis(1)));
            assert!((s(1)..=s(2)).contains(&soon), "{soon:?}");
            let reaped = Pace::far(true, true).reap_pause(Some(Duration::from_millis(1)));
            assert!((s(15)..=s(30)).contains(&reaped), "{reaped:?}");
            let untold = Pace::far(true, false).pause_untold();
            assert!((s(2)..=s(5)).contains(&untold), "{untold:?}");
            let near = Pace::NEAR.reap_pause(Some(Duration::ZERO));
            assert!(near <= Duration::from_millis(40), "{near:?}");
        }
    }
}
