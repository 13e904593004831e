//! What senders and workers ask of the bus, each as its call over HTTPS.

use std::sync::Arc;

use futures_util::future::{BoxFuture, FutureExt as _};
use serde_json::{Value, json};

use crate::artifact;
use crate::breaker;
use crate::bus::circuit::{Circuit, CircuitAction};
use crate::bus::claim::ClaimRequest;
use crate::bus::env::{Names, Sealed};
use crate::bus::offer::{Definition, Offered, Pin};
use crate::bus::postgres::Postgres;
use crate::bus::queries::backlog::{Limit, Parked};
use crate::bus::queries::events::Head;
use crate::bus::queries::workers::{Depth, WorkerRow};
use crate::bus::queries::{Enqueued, Extended, Looked, Operated, Reaped, StepRow};
use crate::bus::rest::rows::{depths, parked, probed, read, read_one, read_row};
use crate::bus::rest::{Rest, batches, tables};
use crate::bus::transport::{Answer, Pace, Transport, Want};
use crate::event::{Cursor, Event};
use crate::identity::Claims;
use crate::message::{Message, MessageId, NewMessage, TraceId};

/// What goes well into one request: a quarter of what a hub takes.
const ROOM: usize = 4 * 1024 * 1024;

impl Transport for Rest {
    fn enqueue<'a>(&'a self, messages: &'a [NewMessage]) -> Answer<'a, Vec<Enqueued>> {
        batches::enqueue(self, messages)
    }

    fn step<'a>(&'a self, settles: &'a str, request: &'a ClaimRequest) -> Answer<'a, Vec<StepRow>> {
        batches::step(self, settles, request)
    }

    fn settle<'a>(&'a self, settles: &'a str) -> Answer<'a, Vec<StepRow>> {
        batches::settle(self, settles)
    }

    fn extend<'a>(&'a self, claims: &'a Value, lease_ms: i32) -> Answer<'a, Vec<Extended>> {
        self.rpc("bus_extend", json!({"claims": claims, "lease_ms": lease_ms}), read)
    }

    fn reap(&self, max: i32) -> Answer<'_, Reaped> {
        self.rpc("bus_reap", json!({"max": max}), read_one)
    }

    fn message(&self, id: MessageId) -> Answer<'_, Option<Message>> {
        tables::message(self, id)
    }

    fn look_at<'a>(&'a self, ids: &'a [MessageId]) -> Answer<'a, Vec<Looked>> {
        tables::look_at(self, ids)
    }

    fn settled_of<'a>(&'a self, ids: &'a [MessageId]) -> Answer<'a, Vec<MessageId>> {
        tables::settled_of(self, ids)
    }

    fn message_events(&self, id: MessageId, max: i64) -> Answer<'_, Vec<Event>> {
        tables::message_events(self, id, max)
    }

    fn progress(&self, id: MessageId, after: i64, max: i64) -> Answer<'_, Vec<Event>> {
        tables::progress(self, id, after, max)
    }

    fn inputs(&self, id: MessageId, max: i64) -> Answer<'_, Vec<Event>> {
        tables::inputs(self, id, max)
    }

    fn trace_events(&self, trace: TraceId, max: i64) -> Answer<'_, Vec<Event>> {
        tables::trace_events(self, trace, max)
    }

    fn read_events<'a>(
        &'a self,
        after: Cursor,
        max: i32,
        filter: &'a Value,
    ) -> Answer<'a, Vec<Event>> {
        self.rpc("bus_read_events", json!({"after": after, "max": max, "filter": filter}), read)
    }

    fn read_heads(&self, after: Cursor, max: i32) -> Answer<'_, Vec<Head>> {
        self.rpc("bus_read_events", json!({"after": after, "max": max}), read)
    }

    fn log_end(&self) -> Answer<'_, String> {
        self.rpc("bus_log_end", json!({}), read)
    }

    fn append_events<'a>(&'a self, events: &'a Value) -> Answer<'a, i32> {
        self.rpc("bus_append_event", json!({"events": events}), read)
    }

    fn worker_seen<'a>(&'a self, worker: &'a Value) -> Answer<'a, bool> {
        self.rpc("bus_worker_seen", json!({"worker": worker}), read)
    }

    fn worker_gone<'a>(
        &'a self,
        worker: &'a str,
        reason: &'a str,
        tenant: &'a str,
    ) -> Answer<'a, bool> {
        let arguments = json!({"worker": worker, "reason": reason, "tenant": tenant});
        self.rpc("bus_worker_gone", arguments, read)
    }

    fn workers(&self, max: i64) -> Answer<'_, Vec<WorkerRow>> {
        tables::workers(self, max)
    }

    fn define<'a>(&'a self, definitions: &'a Value, tenant: &'a str) -> Answer<'a, Vec<String>> {
        self.rpc("bus_define", json!({"definitions": definitions, "tenant": tenant}), read)
    }

    fn definitions<'a>(
        &'a self,
        hashes: &'a [String],
        tenant: &'a str,
    ) -> Answer<'a, Vec<Definition>> {
        self.rpc("bus_definitions", json!({"hashes": hashes, "tenant": tenant}), read)
    }

    fn offers<'a>(&'a self, grace_ms: i64, tenant: &'a str) -> Answer<'a, Vec<Offered>> {
        self.rpc("bus_offers", json!({"grace_ms": grace_ms, "tenant": tenant}), read)
    }

    fn pins<'a>(&'a self, tenant: &'a str) -> Answer<'a, Vec<Pin>> {
        self.rpc("bus_pins", json!({"tenant": tenant}), read)
    }

    fn pin<'a>(
        &'a self,
        pins: &'a Value,
        who: Option<&'a str>,
        first: bool,
        tenant: &'a str,
    ) -> Answer<'a, i32> {
        let arguments = json!({"pins": pins, "who": who, "first": first, "tenant": tenant});
        self.rpc("bus_pin", arguments, read)
    }

    fn env_names<'a>(&'a self, tenant: &'a str, after: Option<i64>) -> Answer<'a, Names> {
        self.rpc("bus_env_names", json!({"tenant": tenant, "after": after}), read)
    }

    fn env_read<'a>(&'a self, names: &'a [String], tenant: &'a str) -> Answer<'a, Vec<Sealed>> {
        self.rpc("bus_env_read", json!({"names": names, "tenant": tenant}), read)
    }

    fn env_set<'a>(
        &'a self,
        entries: &'a Value,
        tenant: &'a str,
        who: Option<&'a str>,
        why: Option<&'a str>,
    ) -> Answer<'a, i64> {
        let arguments = json!({"entries": entries, "tenant": tenant, "who": who, "why": why});
        self.rpc("bus_env_set", arguments, read)
    }

    fn env_unset<'a>(
        &'a self,
        names: &'a [String],
        tenant: &'a str,
        who: Option<&'a str>,
    ) -> Answer<'a, i32> {
        self.rpc("bus_env_unset", json!({"names": names, "tenant": tenant, "who": who}), read)
    }

    fn stats(&self) -> Answer<'_, Vec<Depth>> {
        self.rpc("bus_stats", json!({}), depths)
    }

    fn limits(&self) -> Answer<'_, Vec<Limit>> {
        self.rpc("bus_limits", json!({}), read)
    }

    fn set_limits<'a>(&'a self, limits: &'a Value) -> Answer<'a, bool> {
        self.rpc("bus_set_limits", json!({"limits": limits}), read)
    }

    fn parked(&self) -> Answer<'_, Vec<Parked>> {
        self.rpc("bus_parked", json!({}), parked)
    }

    fn circuits<'a>(&'a self, tenant: &'a str) -> Answer<'a, Vec<Circuit>> {
        self.rpc("bus_circuits", json!({"tenant": tenant}), read)
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
        let arguments = json!({
            "tenant": id.tenant, "key": id.key, "worker": worker, "reason": reason,
            "seen_version": seen_version, "policy": policy, "evidence": evidence,
        });
        self.rpc("bus_circuit_open", arguments, read_one)
    }

    fn circuit_probe<'a>(
        &'a self,
        id: &'a breaker::Id,
        worker: &'a str,
        lease_ms: i32,
    ) -> Answer<'a, (bool, Circuit)> {
        let arguments = json!({
            "tenant": id.tenant, "key": id.key, "worker": worker, "lease_ms": lease_ms,
        });
        self.rpc("bus_circuit_probe", arguments, probed)
    }

    fn circuit_report<'a>(
        &'a self,
        id: &'a breaker::Id,
        worker: &'a str,
        ok: Option<bool>,
        reason: Option<&'a str>,
    ) -> Answer<'a, Option<Circuit>> {
        let arguments = json!({
            "tenant": id.tenant, "key": id.key, "worker": worker, "ok": ok, "reason": reason,
        });
        self.rpc("bus_circuit_report", arguments, read_row)
    }

    fn circuit_set<'a>(
        &'a self,
        id: &'a breaker::Id,
        action: CircuitAction,
        actor: Option<&'a str>,
        reason: Option<&'a str>,
    ) -> Answer<'a, Circuit> {
        let arguments = json!({
            "tenant": id.tenant, "key": id.key, "action": action.as_str(), "actor": actor,
            "reason": reason, "open_ms": action.open_ms(),
        });
        self.rpc("bus_circuit_set", arguments, read_one)
    }

    fn cancel<'a>(
        &'a self,
        messages: &'a Value,
        reason: Option<&'a str>,
    ) -> Answer<'a, Vec<Operated>> {
        self.rpc("bus_cancel", json!({"messages": messages, "reason": reason}), read)
    }

    fn requeue<'a>(
        &'a self,
        messages: &'a Value,
        reason: Option<&'a str>,
    ) -> Answer<'a, Vec<Operated>> {
        self.rpc("bus_requeue", json!({"messages": messages, "reason": reason}), read)
    }

    fn drop_dead<'a>(
        &'a self,
        messages: &'a Value,
        reason: Option<&'a str>,
    ) -> Answer<'a, Vec<Operated>> {
        self.rpc("bus_drop", json!({"messages": messages, "reason": reason}), read)
    }

    fn schema_version(&self) -> Answer<'_, Option<i64>> {
        self.rpc("bus_schema_version", json!({}), read)
    }

    fn pace(&self) -> Pace {
        self.wakeups.pace()
    }

    fn want(&self, want: Want) {
        self.wakeups.want(want);
    }

    fn forget(&self, want: &Want) {
        self.wakeups.forget(want);
    }

    fn artifacts(&self) -> Option<artifact::Store> {
        let http: Arc<dyn artifact::Remote> = self.http.clone();
        Some(artifact::Store::hub(http))
    }

    fn unanswered(&self) {
        self.http.doubt().raise();
    }

    /// The hub does, since it reads the log.
    fn wake_others(&self) -> BoxFuture<'_, ()> {
        async {}.boxed()
    }

    fn room(&self) -> usize {
        ROOM
    }

    fn postgres(&self) -> Option<&Postgres> {
        None
    }

    fn claims(&self) -> Option<Claims> {
        Self::claims(self)
    }
}
