//! The bus client: publish, claim, settle, read the log.
//!
//! Every transition is one round trip to a `bus_*` function, and every call is safe to repeat: the
//! sender chooses a message's id, and settles name the claim that they end. Concurrent publishes and
//! settles are grouped (`group.rs`); wake-ups carry nothing (`wake.rs`).

#[cfg(feature = "hub")]
pub(crate) mod activity;
mod at_hand;
pub mod circuit;
mod claim;
mod core;
pub mod dead_letter;
pub mod env;
mod error;
mod feed;
pub(crate) mod group;
pub(crate) mod json;
mod limits;
#[cfg(feature = "hub")]
pub(crate) mod lists;
#[cfg(feature = "hub")]
pub(crate) mod log;
pub mod offer;
mod patience;
mod postgres;
pub(crate) mod queries;
pub mod replay;
#[cfg(feature = "remote")]
pub mod rest;
pub(crate) mod take;
mod transport;
mod wake;

use std::sync::{Arc, Weak};
use std::time::Duration;

use serde_json::{Value, json};
use sqlx::postgres::PgPool;

pub use claim::{Claim, ClaimRequest, Settle, Settled};
pub use error::Error;
#[cfg(feature = "hub")]
pub(crate) use feed::Heads;
pub use feed::{Agents, Changed, Feed, Update, Watch};
pub use json::MAX_PAYLOAD_BYTES;
#[cfg(feature = "hub")]
pub(crate) use json::storable;
pub use limits::{Limits, TenantLimit, TopicLimit};
pub use queries::Reaped;
pub use queries::backlog::{Limit, Parked};
#[cfg(feature = "hub")]
pub(crate) use queries::events::Head;
#[cfg(feature = "hub")]
pub use queries::pending::Pending;
pub use queries::workers::{Depth, WorkerRow};
pub(crate) use transport::Pace;
pub use wake::{Signal, Waker};

use self::core::{Core, millis};
use crate::artifact;
use crate::error::Code;
use crate::event::{Cursor, Event};
use crate::identity::Claims;
use crate::message::{Message, MessageId, NewMessage, Topic, TraceId};
use crate::shutdown::Tasks;
use group::Grouper;
use postgres::Postgres;
use queries::Looked;
use take::Take;
use transport::{Transport, Want};
use wake::Wake;
pub(crate) use wake::{Ended, Hear};

/// The bus, over a pool of connections. Cheap to clone; its tasks end with the last clone.
#[derive(Debug, Clone)]
pub struct Bus {
    core: Core,
    publishes: Grouper<NewMessage, Receipt>,
    settles: Grouper<Settle, Settled>,
}

/// The bus's answer to a publish: the message is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Receipt {
    /// The message; an earlier one if the idempotency key was known.
    pub id: MessageId,
    /// Its trace.
    pub trace_id: TraceId,
    /// Whether the message was there already.
    pub duplicate: bool,
}

/// What one [`Bus::step`] did.
#[derive(Debug)]
pub struct Step {
    /// What became of each settle, in order.
    pub outcomes: Vec<Settled>,
    /// The messages that were claimed.
    pub claims: Vec<Claim>,
}

impl Bus {
    /// A bus over `pool`. Call within a Tokio runtime.
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        let (wake, postgres) = (Wake::new(), Postgres::new(pool));
        postgres.start_waking(&wake, &Tasks::new());
        Self::over(Arc::new(postgres), wake)
    }

    /// A bus over HTTPS. Connects to nothing yet. Call within a Tokio runtime.
    ///
    /// # Errors
    /// [`Error::Refused`] names the option that cannot be used.
    #[cfg(feature = "remote")]
    pub fn remote(options: rest::Options) -> Result<Self, Error> {
        let wake = Wake::new();
        let rest = rest::Rest::new(options, &wake)?;
        Ok(Self::over(Arc::new(rest), wake))
    }

    /// Another bus of the same process, over a pool of its own, perhaps with other rights. The two wake
    /// each other at once, without the database in between, and listen on one connection.
    #[must_use]
    pub fn beside(&self, pool: PgPool) -> Self {
        Self::over(Arc::new(Postgres::new(pool)), self.core.wake.clone())
    }

    fn over(transport: Arc<dyn Transport>, wake: Wake) -> Self {
        // Not the process' tasks: these end with the bus, and nobody needs to wait for them, since
        // every call waits for its own answer.
        let tasks = Tasks::new();
        let core = Core { transport, wake };
        let publishing = core.clone();
        let settling = core.clone();
        let most = core.transport.room();
        Self {
            publishes: Grouper::start(&tasks, room(most), move |messages: Arc<Vec<NewMessage>>| {
                let core = publishing.clone();
                async move { core.enqueue(&messages, true).await }
            }),
            settles: Grouper::start(&tasks, room(most), move |settles: Arc<Vec<Settle>>| {
                let core = settling.clone();
                async move { core.settle(&settles).await }
            }),
            core,
        }
    }

    /// The pool, where the bus is over one.
    #[must_use]
    pub fn pool(&self) -> Option<&PgPool> {
        self.core.transport.postgres().map(Postgres::pool)
    }

    /// What the key of a bus over HTTPS says of itself: whose work it is for, and which topics.
    #[must_use]
    pub fn claims(&self) -> Option<Claims> {
        self.transport().claims()
    }

    fn transport(&self) -> &dyn Transport {
        &*self.core.transport
    }

    /// A waker for `signal`, armed from now on. For [`Signal::Work`] see also [`Bus::follow`].
    #[must_use]
    pub fn waker(&self, signal: Signal) -> Waker {
        match signal {
            Signal::Log => self.transport().want(Want::Log),
            Signal::Circuit => self.transport().want(Want::Circuit),
            Signal::Work | Signal::Claims | Signal::Link | Signal::Due | Signal::Env => {}
        }
        self.core.wake.waker(signal)
    }

    /// Has [`Signal::Work`] tell of messages to `topics` of `tenant` that other processes make claimable. Without
    /// it a bus over HTTPS tells of what this process does alone.
    pub fn follow(&self, tenant: &str, topics: &[Topic]) {
        for topic in topics {
            self.transport().want(Want::Work {
                tenant: tenant.to_owned(),
                role: topic.role().to_owned(),
                service: topic.service().to_owned(),
            });
        }
    }

    /// Where artifacts go that are not to lie on this machine: to the hub, where this is the way to one.
    #[must_use]
    pub fn artifacts(&self) -> Option<artifact::Store> {
        self.transport().artifacts()
    }

    /// Ends what [`Bus::follow`] asked for, of these topics.
    pub(crate) fn unfollow(&self, tenant: &str, topics: &[Topic]) {
        for topic in topics {
            self.transport().forget(&Want::Work {
                tenant: tenant.to_owned(),
                role: topic.role().to_owned(),
                service: topic.service().to_owned(),
            });
        }
    }

    /// How long to wait before looking again when nothing wakes us; another time at each call, and longer where
    /// a look costs a request over the internet.
    #[must_use]
    pub fn pause(&self) -> Duration {
        self.pace().pause()
    }

    pub(crate) fn pace(&self) -> Pace {
        self.transport().pace()
    }

    pub(crate) fn wake(&self, signal: Signal) {
        self.core.wake.wake(signal);
    }

    /// Says that a call was given up which should have been answered by then.
    pub(crate) fn unanswered(&self) {
        self.transport().unanswered();
    }

    /// Wakes other processes now. For a process that ends after a publish: otherwise wake-ups are sent
    /// soon after the call, by a task that would end with it, and the others would find the work only
    /// when they next poll.
    pub async fn wake_others(&self) {
        self.transport().wake_others().await;
    }

    /// Publishes one message; concurrent calls share a round trip. When it returns, the message is
    /// committed.
    ///
    /// # Errors
    /// [`Error::Name`], [`Error::Field`], [`Error::Refused`] and [`Error::Full`] mean that nothing was written;
    /// [`Error::Database`] that it is unknown: publishing the same [`NewMessage`] again is safe.
    pub async fn publish(&self, message: NewMessage) -> Result<Receipt, Error> {
        check(&message)?;
        self.publishes.call(message).await
    }

    /// Publishes a batch in one transaction: all or nothing. Answers in the batch's order.
    ///
    /// # Errors
    /// As [`Bus::publish`].
    pub async fn publish_all(&self, messages: &[NewMessage]) -> Result<Vec<Receipt>, Error> {
        messages.iter().try_for_each(check)?;
        self.core.enqueue(messages, false).await
    }

    /// Claims what waits, up to `request.max`.
    ///
    /// # Errors
    /// [`Error::Refused`] names the field; [`Error::Database`].
    pub async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Claim>, Error> {
        Ok(self.step(&[], request).await?.claims)
    }

    /// Settles one claim; concurrent calls share a round trip.
    ///
    /// # Errors
    /// [`Error::Refused`] names the field; [`Error::Database`]. A stale claim is no error here.
    pub async fn settle(&self, settle: Settle) -> Result<Settled, Error> {
        self.settles.call(settle).await
    }

    /// Settles a batch and claims the next in one round trip.
    ///
    /// Not tried again by itself: if the answer is lost, claims may have been made that nobody knows of,
    /// and they come back when their leases run out. The settles are safe to send again.
    ///
    /// # Errors
    /// [`Error::Refused`] names the field; [`Error::Database`].
    pub async fn step(&self, settles: &[Settle], request: &ClaimRequest) -> Result<Step, Error> {
        let (outcomes, messages) = self.step_bare(settles, request).await?;
        let claims =
            messages.into_iter().map(|message| Claim::new(self.clone(), *message)).collect();
        Ok(Step { outcomes, claims })
    }

    /// As [`Bus::step`], for a worker, which settles by itself.
    #[allow(clippy::vec_box)] // as they come out of the rows; a message is some four hundred bytes
    pub(crate) async fn step_bare(
        &self,
        settles: &[Settle],
        request: &ClaimRequest,
    ) -> Result<(Vec<Settled>, Vec<Box<Message>>), Error> {
        self.core.step(settles, request).await
    }

    /// Keeps claims alive: their leases end `lease` from now. Gives those that are no longer in force.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn extend(
        &self,
        claims: &[(MessageId, i64)],
        lease: Duration,
    ) -> Result<Vec<(MessageId, i64)>, Error> {
        let batch: Value =
            claims.iter().map(|(id, claim_no)| json!({"id": id, "claim_no": claim_no})).collect();
        let rows = self
            .core
            .retry("bus_extend", || self.transport().extend(&batch, millis(lease)))
            .await?;
        Ok(rows
            .into_iter()
            .filter(|row| row.code.is_some())
            .map(|row| (row.id, row.claim_no))
            .collect())
    }

    /// Promotes what has become due and takes back what was lost, at most `max` of each.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn reap(&self, max: u32) -> Result<Reaped, Error> {
        let max = i32::try_from(max).unwrap_or(i32::MAX);
        let reaped = self.transport().reap(max).await?;
        if reaped.promoted > 0 || reaped.expired > reaped.dead {
            self.wake(Signal::Work);
        }
        if reaped.expired > 0 {
            self.wake(Signal::Log);
        }
        Ok(reaped)
    }

    /// The message as it stands.
    ///
    /// # Errors
    /// [`Error::NoMessage`]; [`Error::Database`].
    pub async fn message(&self, id: MessageId) -> Result<Message, Error> {
        let found = self.core.retry("message", || self.transport().message(id)).await?;
        found.ok_or(Error::NoMessage(id))
    }

    /// The message that an idempotency key of `tenant` stands for, if it stands for one.
    #[cfg(feature = "hub")]
    pub(crate) async fn keyed_message(
        &self,
        tenant: &str,
        key: &str,
    ) -> Result<Option<Message>, Error> {
        let postgres = self.core.postgres("finding a message by its idempotency key")?;
        let find = || async {
            let found = queries::keyed_message(postgres.db(), tenant, key).await;
            found.map_err(|error| Error::from_sqlx("keyed_message", error))
        };
        self.core.retry("keyed_message", find).await
    }

    /// Those of `messages` that are there, as they stand.
    pub(crate) async fn look_at(&self, messages: &[MessageId]) -> Result<Vec<Looked>, Error> {
        self.core.retry("look_at", || self.transport().look_at(messages)).await
    }

    /// Whether another process told of the log since this was last asked.
    pub(crate) fn is_from_afar(&self) -> bool {
        self.core.wake.is_from_afar()
    }

    /// Waits for the log to have grown by what all who wait here were told of already.
    pub(crate) fn when_grown(&self) -> Waker {
        self.core.wake.when_grown()
    }

    /// Has `hearer` hear from now on of messages that this process has settled.
    pub(crate) fn hear(&self, hearer: Weak<dyn Hear>) {
        self.core.wake.hear(hearer);
    }

    /// Has `taker` take what this process publishes, where that goes to the database that this bus is at.
    /// Whether it is at one.
    pub(crate) fn join(&self, taker: Weak<dyn Take>) -> bool {
        let is_near = self.transport().postgres().is_some();
        if is_near {
            self.core.wake.join(taker);
        }
        is_near
    }

    /// Which of `messages` wait for nothing more: they are finished, or gone.
    pub(crate) async fn settled_of(&self, messages: &[MessageId]) -> Result<Vec<MessageId>, Error> {
        self.transport().settled_of(messages).await
    }

    /// What happened to one message, oldest first, at most `max` events.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn message_events(&self, id: MessageId, max: u32) -> Result<Vec<Event>, Error> {
        let max = i64::from(max);
        self.core.retry("message_events", || self.transport().message_events(id, max)).await
    }

    /// The events of one message's progress after the one with the number `after`, oldest first, at most `max`.
    pub(crate) async fn progress(
        &self,
        id: MessageId,
        after: i64,
        max: u32,
    ) -> Result<Vec<Event>, Error> {
        let max = i64::from(max);
        self.core.retry("message_events", || self.transport().progress(id, after, max)).await
    }

    /// What was said to one message (`<intent>_input`), oldest first, at most `max` events: without its progress, of
    /// which there may be far more.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn inputs(&self, id: MessageId, max: u32) -> Result<Vec<Event>, Error> {
        let max = i64::from(max);
        self.core.retry("message_events", || self.transport().inputs(id, max)).await
    }

    /// What happened within one trace, oldest first, at most `max` events.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn trace_events(&self, trace: TraceId, max: u32) -> Result<Vec<Event>, Error> {
        let max = i64::from(max);
        self.core.retry("trace_events", || self.transport().trace_events(trace, max)).await
    }

    /// The next events after `after`, at most `max`; `filter` as `bus_read_events` takes it.
    ///
    /// # Errors
    /// [`Error::Refused`] names the field; [`Error::Database`].
    pub async fn read_events(
        &self,
        after: Cursor,
        max: u32,
        filter: &Value,
    ) -> Result<Vec<Event>, Error> {
        let max = i32::try_from(max).unwrap_or(i32::MAX);
        let call = || self.transport().read_events(after, max, filter);
        self.core.retry("bus_read_events", call).await
    }

    /// As [`Bus::read_events`], without what is wide.
    pub(crate) async fn read_heads(
        &self,
        after: Cursor,
        max: u32,
    ) -> Result<Vec<queries::events::Head>, Error> {
        let max = i32::try_from(max).unwrap_or(i32::MAX);
        self.core.retry("bus_read_events", || self.transport().read_heads(after, max)).await
    }

    /// The end of the log: reading on from here gives what happens from now on.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn log_end(&self) -> Result<Cursor, Error> {
        let text = self.core.retry("bus_log_end", || self.transport().log_end()).await?;
        text.parse().map_err(|_| Error::Refused {
            code: Code::Internal,
            message: format!("bus_log_end: {text:?} is not a cursor"),
        })
    }

    /// Appends an event that is no transition, such as progress; an object as `bus_append_event` takes it.
    ///
    /// # Errors
    /// [`Error::Refused`] names the field; [`Error::Database`].
    pub async fn append_event(&self, event: Value) -> Result<(), Error> {
        self.append_events(vec![event]).await
    }

    /// As [`Bus::append_event`], for several: all or none.
    pub(crate) async fn append_events(&self, events: Vec<Value>) -> Result<(), Error> {
        let events: Value = events.into_iter().map(json::storable).collect();
        self.transport().append_events(&events).await?;
        self.wake(Signal::Log);
        Ok(())
    }

    /// Says that a worker is there; an object as `bus_worker_seen` takes it. Whether it was new.
    ///
    /// # Errors
    /// [`Error::Refused`] names the field; [`Error::Database`].
    pub async fn worker_seen(&self, worker: &Value) -> Result<bool, Error> {
        let new = self.transport().worker_seen(worker).await?;
        if new {
            self.wake(Signal::Log);
        }
        Ok(new)
    }

    /// Says that a worker goes. Whether it was there.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn worker_gone(
        &self,
        worker: &str,
        reason: &str,
        tenant: &str,
    ) -> Result<bool, Error> {
        let was = self.transport().worker_gone(worker, reason, tenant).await?;
        self.wake(Signal::Log);
        Ok(was)
    }

    /// How much waits, is held or is dead, by role, service and status.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn stats(&self) -> Result<Vec<Depth>, Error> {
        self.transport().stats().await
    }

    /// How much waits for a worker and for nothing else, by role and service; of `tenant`, or of all for `*`.
    ///
    /// # Errors
    /// [`Error::Database`].
    #[cfg(feature = "hub")]
    pub async fn pending(&self, tenant: &str) -> Result<Vec<Pending>, Error> {
        let postgres = self.core.postgres("counting what waits for a worker")?;
        let rows = queries::pending::pending(postgres.db(), tenant).await;
        rows.map_err(|error| Error::from_sqlx("pending", error))
    }

    /// How many workers of each role are online.
    ///
    /// # Errors
    /// [`Error::Database`].
    #[cfg(feature = "hub")]
    pub(crate) async fn online(&self) -> Result<Vec<(String, i64)>, Error> {
        let postgres = self.core.postgres("counting the workers")?;
        let rows = queries::pending::online(postgres.db()).await;
        rows.map_err(|error| Error::from_sqlx("online", error))
    }

    /// The workers, those online first, the last seen first, at most `max`.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn workers(&self, max: u32) -> Result<Vec<WorkerRow>, Error> {
        self.transport().workers(i64::from(max)).await
    }

    /// The newest migration that the database has.
    ///
    /// # Errors
    /// [`Error::Database`], also where the schema was never loaded.
    pub async fn schema_version(&self) -> Result<Option<i64>, Error> {
        self.transport().schema_version().await
    }

    /// Lets finished messages go, at most `max`; how many went.
    ///
    /// # Errors
    /// [`Error::Refused`] where the role may not; [`Error::Database`].
    pub async fn retain(
        &self,
        done_for: Duration,
        failed_for: Option<Duration>,
        max: u32,
    ) -> Result<u32, Error> {
        self.retain_keyed(done_for, done_for, failed_for, max).await
    }

    /// As [`Bus::retain`], but those with an idempotency key stay for `keyed_for`, if that is more than
    /// `done_for`: for so long the same key gives the same message.
    ///
    /// # Errors
    /// As [`Bus::retain`].
    pub async fn retain_keyed(
        &self,
        done_for: Duration,
        keyed_for: Duration,
        failed_for: Option<Duration>,
        max: u32,
    ) -> Result<u32, Error> {
        let max = i32::try_from(max).unwrap_or(i32::MAX);
        let (done_for, keyed_for) = (done_for.as_secs_f64(), keyed_for.as_secs_f64());
        let failed_for = failed_for.map(|keep| keep.as_secs_f64());
        let db = self.core.postgres("letting finished messages go")?.chores();
        let gone = queries::retain(db, done_for, keyed_for, failed_for, max).await;
        let gone = gone.map_err(|error| Error::from_sqlx("bus_retain", error))?;
        Ok(u32::try_from(gone).unwrap_or(0))
    }

    /// Makes the log's coming partitions and drops those older than `keep`; their names and what was done.
    ///
    /// # Errors
    /// [`Error::Refused`] where the role may not; [`Error::Database`].
    pub async fn partition(
        &self,
        ahead_weeks: u32,
        keep: Duration,
    ) -> Result<Vec<(String, String)>, Error> {
        let ahead = i32::try_from(ahead_weeks).unwrap_or(i32::MAX);
        let db = self.core.postgres("the partitions of the log")?.chores();
        let done = queries::partition(db, ahead, keep.as_secs_f64()).await;
        done.map_err(|error| Error::from_sqlx("bus_partition", error))
    }
}

/// How heavy a group may be, where there is a limit.
fn room<T: serde::Serialize>(most: usize) -> Option<group::Room<T>> {
    (most < usize::MAX).then_some(group::Room { most, weigh: |item: &T| json::size(item) })
}

pub(crate) fn check(message: &NewMessage) -> Result<(), Error> {
    message.validate()?;
    let refuse = |field, rule, code| Err(Error::Field { field, rule, code });
    if json::holds_nul(&message.payload) {
        let rule = "must not hold the character U+0000, which Postgres cannot store";
        return refuse("payload", rule, Code::InvalidArgument);
    }
    if let Some(key) = &message.idempotency_key
        && (key.is_empty() || key.chars().count() > 255 || key.contains('\0'))
    {
        return refuse(
            "idempotency_key",
            "must be 1 to 255 characters, none of them U+0000",
            Code::InvalidArgument,
        );
    }
    if !(-100..=100).contains(&message.priority) {
        return refuse("priority", "must be from -100 to 100", Code::InvalidArgument);
    }
    if !(0..=99_999).contains(&message.shard) {
        return refuse("shard", "must be from 0 to 99999", Code::InvalidArgument);
    }
    if message.max_attempts.is_some_and(|attempts| !(1..=1000).contains(&attempts)) {
        return refuse("max_attempts", "must be from 1 to 1000", Code::InvalidArgument);
    }
    if message.delay > Duration::from_secs(365 * 24 * 3600) {
        return refuse("delay_ms", "must be at most a year", Code::InvalidArgument);
    }
    Ok(())
}
