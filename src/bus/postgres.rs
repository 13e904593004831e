//! The bus over a pool of connections to its database.

mod listen;

use std::sync::Arc;

use futures_util::future::{BoxFuture, FutureExt as _};
use serde_json::Value;
use sqlx::postgres::PgPool;

use crate::artifact;
use crate::breaker;
use crate::bus::at_hand::AtHand;
use crate::bus::circuit::{Circuit, CircuitAction};
use crate::bus::claim::ClaimRequest;
use crate::bus::core::millis;
use crate::bus::env::{Names, Sealed};
use crate::bus::error::Error;
use crate::bus::offer::{Definition, Offered, Pin};
use crate::bus::patience::Patient;
use crate::bus::queries::backlog::{self, Limit, Parked};
use crate::bus::queries::events::Head;
use crate::bus::queries::workers::{Depth, WorkerRow};
use crate::bus::queries::{
    self, Enqueued, Extended, Looked, Operated, Reaped, StepRow, arrays, circuits, dead_letters,
    env, events, offers, workers,
};
use crate::bus::transport::{Answer, Pace, Transport, Want};
use crate::bus::wake::Wake;
use crate::event::{Cursor, Event};
use crate::identity::Claims;
use crate::message::{DEFAULT_TENANT, Message, MessageId, NewMessage, TraceId};
use crate::shutdown::Tasks;

/// The database, asked over a pool.
#[derive(Debug, Clone)]
pub(crate) struct Postgres {
    pool: PgPool,
    connections: Arc<AtHand>,
}

impl Postgres {
    pub(crate) fn new(pool: PgPool) -> Self {
        let connections = AtHand::of(&pool);
        Self { pool, connections }
    }

    /// Tells other processes of this one's wake-ups, and hears of theirs, from now on.
    pub(crate) fn start_waking(&self, wake: &Wake, tasks: &Tasks) {
        listen::start_telling(wake, tasks, Arc::clone(&self.connections));
        listen::start_listening(wake, tasks, self.pool.clone());
    }

    pub(crate) fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// For calls that somebody waits for.
    pub(crate) fn db(&self) -> Patient<'_> {
        Patient::new(&self.connections)
    }

    /// `bus_enqueue_and_claim`.
    pub(crate) async fn enqueue_and_claim(
        &self,
        messages: &str,
        request: &ClaimRequest,
    ) -> Result<(Vec<Enqueued>, Vec<StepRow>), Error> {
        let max = i32::try_from(request.max).unwrap_or(i32::MAX);
        let (worker, topics, tenant) = (&request.worker, &request.topics, &request.tenant);
        let lease_ms = millis(request.lease);
        let both =
            queries::enqueue_and_claim(self.db(), messages, worker, topics, max, lease_ms, tenant);
        both.await.map_err(|error| Error::from_sqlx("bus_enqueue_and_claim", error))
    }

    /// For calls that nobody waits for.
    pub(crate) fn chores(&self) -> Patient<'_> {
        Patient::for_chores(&self.connections)
    }
}

/// The answer to `call`.
fn ask<'a, T>(
    call: &'static str,
    answer: impl Future<Output = sqlx::Result<T>> + Send + 'a,
) -> Answer<'a, T> {
    answer.map(move |answer| answer.map_err(|error| Error::from_sqlx(call, error))).boxed()
}

impl Transport for Postgres {
    fn enqueue<'a>(&'a self, messages: &'a [NewMessage]) -> Answer<'a, Vec<Enqueued>> {
        ask("bus_enqueue", arrays::enqueue(self.db(), messages))
    }

    fn step<'a>(&'a self, settles: &'a str, request: &'a ClaimRequest) -> Answer<'a, Vec<StepRow>> {
        let max = i32::try_from(request.max).unwrap_or(i32::MAX);
        let (worker, topics, tenant) = (&request.worker, &request.topics, &request.tenant);
        let lease_ms = millis(request.lease);
        let step = queries::step(self.db(), settles, worker, topics, max, lease_ms, tenant);
        ask("bus_step", step)
    }

    fn settle<'a>(&'a self, settles: &'a str) -> Answer<'a, Vec<StepRow>> {
        let step = queries::step(self.db(), settles, "settle", &[], 0, 1000, DEFAULT_TENANT);
        ask("bus_step", step)
    }

    fn extend<'a>(&'a self, claims: &'a Value, lease_ms: i32) -> Answer<'a, Vec<Extended>> {
        ask("bus_extend", queries::extend(self.db(), claims, lease_ms))
    }

    fn reap(&self, max: i32) -> Answer<'_, Reaped> {
        ask("bus_reap", queries::reap(self.db(), max))
    }

    fn message(&self, id: MessageId) -> Answer<'_, Option<Message>> {
        ask("message", queries::message(self.db(), id))
    }

    fn look_at<'a>(&'a self, ids: &'a [MessageId]) -> Answer<'a, Vec<Looked>> {
        ask("look_at", queries::look_at(self.db(), ids))
    }

    fn settled_of<'a>(&'a self, ids: &'a [MessageId]) -> Answer<'a, Vec<MessageId>> {
        ask("settled_of", queries::settled_of(self.db(), ids))
    }

    fn message_events(&self, id: MessageId, max: i64) -> Answer<'_, Vec<Event>> {
        ask("message_events", events::message_events(self.db(), id, max))
    }

    fn progress(&self, id: MessageId, after: i64, max: i64) -> Answer<'_, Vec<Event>> {
        ask("message_events", events::progress(self.db(), id, after, max))
    }

    fn inputs(&self, id: MessageId, max: i64) -> Answer<'_, Vec<Event>> {
        ask("message_events", events::inputs(self.db(), id, max))
    }

    fn trace_events(&self, trace: TraceId, max: i64) -> Answer<'_, Vec<Event>> {
        ask("trace_events", events::trace_events(self.db(), trace, max))
    }

    fn read_events<'a>(
        &'a self,
        after: Cursor,
        max: i32,
        filter: &'a Value,
    ) -> Answer<'a, Vec<Event>> {
        ask("bus_read_events", events::read_events(self.db(), after, max, filter))
    }

    fn read_heads(&self, after: Cursor, max: i32) -> Answer<'_, Vec<Head>> {
        ask("bus_read_events", events::read_heads(self.db(), after, max))
    }

    fn log_end(&self) -> Answer<'_, String> {
        ask("bus_log_end", events::log_end(self.db()))
    }

    fn append_events<'a>(&'a self, events: &'a Value) -> Answer<'a, i32> {
        ask("bus_append_event", events::append_events(self.db(), events))
    }

    fn worker_seen<'a>(&'a self, worker: &'a Value) -> Answer<'a, bool> {
        ask("bus_worker_seen", workers::worker_seen(self.db(), worker))
    }

    fn worker_gone<'a>(
        &'a self,
        worker: &'a str,
        reason: &'a str,
        tenant: &'a str,
    ) -> Answer<'a, bool> {
        ask("bus_worker_gone", workers::worker_gone(self.db(), worker, reason, tenant))
    }

    fn workers(&self, max: i64) -> Answer<'_, Vec<WorkerRow>> {
        ask("workers", workers::workers(self.db(), max))
    }

    fn define<'a>(&'a self, definitions: &'a Value, tenant: &'a str) -> Answer<'a, Vec<String>> {
        ask("bus_define", offers::define(self.db(), definitions, tenant))
    }

    fn definitions<'a>(
        &'a self,
        hashes: &'a [String],
        tenant: &'a str,
    ) -> Answer<'a, Vec<Definition>> {
        ask("bus_definitions", offers::definitions(self.db(), hashes, tenant))
    }

    fn offers<'a>(&'a self, grace_ms: i64, tenant: &'a str) -> Answer<'a, Vec<Offered>> {
        ask("bus_offers", offers::offers(self.db(), grace_ms, tenant))
    }

    fn pins<'a>(&'a self, tenant: &'a str) -> Answer<'a, Vec<Pin>> {
        ask("bus_pins", offers::pins(self.db(), tenant))
    }

    fn pin<'a>(
        &'a self,
        pins: &'a Value,
        who: Option<&'a str>,
        first: bool,
        tenant: &'a str,
    ) -> Answer<'a, i32> {
        ask("bus_pin", offers::pin(self.db(), pins, who, first, tenant))
    }

    fn env_names<'a>(&'a self, tenant: &'a str, after: Option<i64>) -> Answer<'a, Names> {
        ask("bus_env_names", env::names(self.db(), tenant, after))
    }

    fn env_read<'a>(&'a self, names: &'a [String], tenant: &'a str) -> Answer<'a, Vec<Sealed>> {
        ask("bus_env_read", env::read(self.db(), names, tenant))
    }

    fn env_set<'a>(
        &'a self,
        entries: &'a Value,
        tenant: &'a str,
        who: Option<&'a str>,
        why: Option<&'a str>,
    ) -> Answer<'a, i64> {
        ask("bus_env_set", env::set(self.db(), entries, tenant, who, why))
    }

    fn env_unset<'a>(
        &'a self,
        names: &'a [String],
        tenant: &'a str,
        who: Option<&'a str>,
    ) -> Answer<'a, i32> {
        ask("bus_env_unset", env::unset(self.db(), names, tenant, who))
    }

    fn stats(&self) -> Answer<'_, Vec<Depth>> {
        ask("bus_stats", workers::stats(self.db()))
    }

    fn limits(&self) -> Answer<'_, Vec<Limit>> {
        ask("bus_limits", backlog::limits(self.db()))
    }

    fn set_limits<'a>(&'a self, limits: &'a Value) -> Answer<'a, bool> {
        ask("bus_set_limits", backlog::set_limits(self.db(), limits))
    }

    fn parked(&self) -> Answer<'_, Vec<Parked>> {
        ask("bus_parked", backlog::parked(self.db()))
    }

    fn circuits<'a>(&'a self, tenant: &'a str) -> Answer<'a, Vec<Circuit>> {
        ask("bus_circuits", circuits::circuits(self.db(), tenant))
    }

    fn circuit_open<'a>(
        &'a self,
        id: &'a breaker::Id,
        worker: &'a str,
        reason: &'a str,
        seen_version: i64,
        policy: &'a Value,
        evidence: &'a Value,
    ) -> Answer<'a, Circuit> {
        let (db, call) = (self.db(), "bus_circuit_open");
        ask(call, circuits::circuit_open(db, id, worker, reason, seen_version, policy, evidence))
    }

    fn circuit_probe<'a>(
        &'a self,
        id: &'a breaker::Id,
        worker: &'a str,
        lease_ms: i32,
    ) -> Answer<'a, (bool, Circuit)> {
        ask("bus_circuit_probe", circuits::circuit_probe(self.db(), id, worker, lease_ms))
    }

    fn circuit_report<'a>(
        &'a self,
        id: &'a breaker::Id,
        worker: &'a str,
        ok: Option<bool>,
        reason: Option<&'a str>,
    ) -> Answer<'a, Option<Circuit>> {
        ask("bus_circuit_report", circuits::circuit_report(self.db(), id, worker, ok, reason))
    }

    fn circuit_set<'a>(
        &'a self,
        id: &'a breaker::Id,
        action: CircuitAction,
        actor: Option<&'a str>,
        reason: Option<&'a str>,
    ) -> Answer<'a, Circuit> {
        ask("bus_circuit_set", circuits::circuit_set(self.db(), id, action, actor, reason))
    }

    fn cancel<'a>(
        &'a self,
        messages: &'a Value,
        reason: Option<&'a str>,
    ) -> Answer<'a, Vec<Operated>> {
        ask("bus_cancel", queries::cancel(self.db(), messages, reason))
    }

    fn requeue<'a>(
        &'a self,
        messages: &'a Value,
        reason: Option<&'a str>,
    ) -> Answer<'a, Vec<Operated>> {
        ask("bus_requeue", dead_letters::requeue(self.db(), messages, reason))
    }

    fn drop_dead<'a>(
        &'a self,
        messages: &'a Value,
        reason: Option<&'a str>,
    ) -> Answer<'a, Vec<Operated>> {
        ask("bus_drop", dead_letters::drop_dead(self.db(), messages, reason))
    }

    fn schema_version(&self) -> Answer<'_, Option<i64>> {
        ask("bus_schema_version", queries::schema_version(self.db()))
    }

    fn pace(&self) -> Pace {
        Pace::NEAR
    }

    /// NOTIFY tells of everything, to everybody.
    fn want(&self, _want: Want) {}

    fn forget(&self, _want: &Want) {}

    /// A database is no place for them.
    fn artifacts(&self) -> Option<artifact::Store> {
        None
    }

    fn wake_others(&self) -> BoxFuture<'_, ()> {
        listen::tell_now(&self.connections).boxed()
    }

    /// One request may be as large as Postgres takes it; what the grouper gathers is far below that.
    fn room(&self) -> usize {
        usize::MAX
    }

    fn postgres(&self) -> Option<&Postgres> {
        Some(self)
    }

    fn claims(&self) -> Option<Claims> {
        None
    }
}
