//! The bus over HTTPS: `POST /rest/v1/rpc/bus_*` and `GET /rest/v1/<table>`, of a hub or of hosted Supabase.
//!
//! For machines with nothing but outbound HTTPS. Wake-ups come over a WebSocket (`wakeups.rs`); without it the
//! bus works as well, only slower.

mod artifacts;
mod error;
mod http;
mod key;
mod rows;
mod wakeups;

use std::sync::Arc;

use futures_util::future::{BoxFuture, FutureExt as _};
use reqwest::Url;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use serde_json::{Value, json};

pub use key::Key;

use self::http::Http;
use self::key::Keyring;
use self::rows::{EventRow, Probed, read, read_one, read_row, steps};
use self::wakeups::Wakeups;
use crate::artifact;
use crate::breaker;
use crate::bus::circuit::{Circuit, CircuitAction};
use crate::bus::claim::ClaimRequest;
use crate::bus::core::{batch, millis};
use crate::bus::env::{Names, Sealed};
use crate::bus::error::Error;
use crate::bus::offer::{Definition, Offered, Pin};
use crate::bus::postgres::Postgres;
use crate::bus::queries::backlog::{Limit, Parked};
use crate::bus::queries::events::Head;
use crate::bus::queries::workers::{Depth, WorkerRow};
use crate::bus::queries::{Enqueued, Extended, Looked, Operated, Reaped, StepRow};
use crate::bus::transport::{Answer, Pace, Transport, Want};
use crate::bus::wake::Wake;
use crate::error::Code;
use crate::event::{Cursor, Event};
use crate::identity::Claims;
use crate::message::{DEFAULT_TENANT, Message, MessageId, NewMessage, TraceId};
use crate::net;
use crate::secret::Secret;
use crate::shutdown::Tasks;

/// What goes well into one request: a quarter of what a hub takes.
const ROOM: usize = 4 * 1024 * 1024;
/// As many ids as go well into one URL.
const IDS: usize = 100;

/// How to reach the bus over HTTPS.
#[derive(Debug, Clone)]
pub struct Options {
    /// The hub or the Supabase project, such as `https://hub.example.com`.
    pub url: String,
    /// What to show there.
    pub key: Key,
    /// What to show to the gateway before it, which on hosted Supabase lets nobody pass without a key of the
    /// project's own: its publishable or `anon` key. A hub needs none.
    pub api_key: Option<Secret>,
    /// How to get there.
    pub net: net::Options,
}

/// A server of `/rest/v1` and `/realtime/v1`.
#[derive(Debug)]
pub(crate) struct Rest {
    http: Arc<Http>,
    wakeups: Wakeups,
}

impl Rest {
    /// Looks at the options, and connects to nothing yet.
    pub(crate) fn new(options: Options, wake: &Wake) -> Result<Self, Error> {
        let url = parse(&options.url)?;
        let keys = Keyring::open(options.key, options.api_key)?;
        Tasks::new().spawn(keys.clone().follow(wake.closed()));
        let http = Arc::new(Http::new(url.clone(), keys.clone(), options.net.clone())?);
        let wakeups = Wakeups::new(&url, &keys, &options.net, http.doubt(), wake);
        Ok(Self { http, wakeups })
    }

    /// What the key says of itself.
    pub(crate) fn claims(&self) -> Option<Claims> {
        self.http.keys().claims()
    }

    /// `call` with `arguments`, and its answer as `read` takes it.
    fn rpc<'a, A: Serialize, T: Send + 'a>(
        &'a self,
        call: &'static str,
        arguments: A,
        read: fn(&'static str, &[u8]) -> Result<T, Error>,
    ) -> Answer<'a, T> {
        let arguments = serde_json::to_string(&arguments).map_err(|error| Error::Refused {
            code: Code::InvalidArgument,
            message: format!("{call}: {error}"),
        });
        async move { read(call, &self.http.rpc(call, arguments?).await?) }.boxed()
    }

    fn rows<'a, T: DeserializeOwned>(
        &'a self,
        call: &'static str,
        table: &'static str,
        query: Vec<(&'static str, String)>,
    ) -> Answer<'a, Vec<T>> {
        async move {
            let query: Vec<_> = query.iter().map(|(name, value)| (*name, value.as_str())).collect();
            read(call, &self.http.rows(call, table, &query).await?)
        }
        .boxed()
    }

    fn events<'a>(
        &'a self,
        call: &'static str,
        column: &'static str,
        id: String,
        more: &[(&'static str, String)],
        max: i64,
    ) -> Answer<'a, Vec<Event>> {
        const COLUMNS: &str = "xid,seq,id,event_type,message_id,trace_id,tenant,service,role,shard,\
                               attempt,worker_id,reason,payload,created_at";
        let mut query = vec![
            ("select", COLUMNS.to_owned()),
            (column, format!("eq.{id}")),
            ("order", "seq.asc".to_owned()),
            ("limit", max.to_string()),
        ];
        query.extend_from_slice(more);
        let rows = self.rows::<EventRow>(call, "bus_events", query);
        async move { Ok(rows.await?.into_iter().map(Event::from).collect()) }.boxed()
    }
}

/// The server's address, without what a base cannot have.
fn parse(url: &str) -> Result<Url, Error> {
    // Not repeated: somebody may have put a password into it.
    let refuse = |rule: &str| Error::Refused {
        code: Code::InvalidArgument,
        message: format!("url: {rule}, such as https://hub.example.com"),
    };
    let url: Url = url.trim().parse().map_err(|_| refuse("must be a URL"))?;
    if !matches!(url.scheme(), "https" | "http") || url.host_str().is_none_or(str::is_empty) {
        return Err(refuse("must begin with https:// and name a host"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refuse("must hold no user and no password: the key says who calls"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(refuse("must end with the host or a path"));
    }
    if url.path().contains("/rest/v1") || url.path().contains("/realtime/v1") {
        return Err(refuse("must be what comes before /rest/v1"));
    }
    Ok(url)
}

/// JSON that is written already.
fn raw(call: &'static str, text: &str) -> Result<Box<RawValue>, Error> {
    RawValue::from_string(text.to_owned()).map_err(|error| Error::Refused {
        code: Code::Internal,
        message: format!("{call}: {error}"),
    })
}

#[derive(Serialize)]
struct StepArguments<'a> {
    settles: Box<RawValue>,
    worker: &'a str,
    topics: &'a [String],
    max: i32,
    lease_ms: i32,
    tenant: &'a str,
}

fn read_steps(_call: &'static str, body: &[u8]) -> Result<Vec<StepRow>, Error> {
    steps(body)
}

impl Transport for Rest {
    fn enqueue<'a>(&'a self, messages: &'a [NewMessage]) -> Answer<'a, Vec<Enqueued>> {
        #[derive(Serialize)]
        struct Arguments {
            messages: Box<RawValue>,
        }
        match batch(messages).and_then(|messages| raw("bus_enqueue", &messages)) {
            Ok(messages) => self.rpc("bus_enqueue", Arguments { messages }, read),
            Err(error) => async { Err(error) }.boxed(),
        }
    }

    fn step<'a>(&'a self, settles: &'a str, request: &'a ClaimRequest) -> Answer<'a, Vec<StepRow>> {
        let settles = match raw("bus_step", settles) {
            Ok(settles) => settles,
            Err(error) => return async { Err(error) }.boxed(),
        };
        let arguments = StepArguments {
            settles,
            worker: &request.worker,
            topics: &request.topics,
            max: i32::try_from(request.max).unwrap_or(i32::MAX),
            lease_ms: millis(request.lease),
            tenant: &request.tenant,
        };
        self.rpc("bus_step", arguments, read_steps)
    }

    fn settle<'a>(&'a self, settles: &'a str) -> Answer<'a, Vec<StepRow>> {
        let settles = match raw("bus_step", settles) {
            Ok(settles) => settles,
            Err(error) => return async { Err(error) }.boxed(),
        };
        let claims = self.claims();
        let claims = claims.as_ref();
        let arguments = StepArguments {
            settles,
            // Who settles is not recorded, but a token may be for one worker and one tenant alone.
            worker: claims.and_then(|claims| claims.worker.as_deref()).unwrap_or("settle"),
            topics: &[],
            max: 0,
            lease_ms: 1000,
            tenant: claims.and_then(|claims| claims.tenant.as_deref()).unwrap_or(DEFAULT_TENANT),
        };
        self.rpc("bus_step", arguments, read_steps)
    }

    fn extend<'a>(&'a self, claims: &'a Value, lease_ms: i32) -> Answer<'a, Vec<Extended>> {
        self.rpc("bus_extend", json!({"claims": claims, "lease_ms": lease_ms}), read)
    }

    fn reap(&self, max: i32) -> Answer<'_, Reaped> {
        self.rpc("bus_reap", json!({"max": max}), read_one)
    }

    fn message(&self, id: MessageId) -> Answer<'_, Option<Message>> {
        let query = vec![("select", "*".to_owned()), ("id", format!("eq.{id}"))];
        let rows = self.rows::<Message>("message", "agent_messages", query);
        async move { Ok(rows.await?.pop()) }.boxed()
    }

    /// One by one: whoever waits over HTTPS waits for few, and the columns that it may see are asked for in one place.
    fn look_at<'a>(&'a self, ids: &'a [MessageId]) -> Answer<'a, Vec<Looked>> {
        async move {
            let mut looked = Vec::with_capacity(ids.len());
            for id in ids {
                let message = self.message(*id).await?;
                looked.extend(message.map(|message| Looked { message, reported: true }));
            }
            Ok(looked)
        }
        .boxed()
    }

    fn settled_of<'a>(&'a self, ids: &'a [MessageId]) -> Answer<'a, Vec<MessageId>> {
        #[derive(serde::Deserialize)]
        struct Row {
            id: MessageId,
        }
        async move {
            let mut settled = Vec::new();
            for some in ids.chunks(IDS) {
                let list: Vec<_> = some.iter().map(MessageId::to_string).collect();
                let query = vec![
                    ("select", "id".to_owned()),
                    ("id", format!("in.({})", list.join(","))),
                    ("status", "in.(delayed,queued,claimed)".to_owned()),
                ];
                let rows: Vec<Row> = self.rows("settled_of", "agent_messages", query).await?;
                let under_way = |id: &MessageId| rows.iter().any(|row| row.id == *id);
                settled.extend(some.iter().copied().filter(|id| !under_way(id)));
            }
            Ok(settled)
        }
        .boxed()
    }

    fn message_events(&self, id: MessageId, max: i64) -> Answer<'_, Vec<Event>> {
        self.events("message_events", "message_id", id.to_string(), &[], max)
    }

    fn progress(&self, id: MessageId, after: i64, max: i64) -> Answer<'_, Vec<Event>> {
        let more = [("seq", format!("gt.{after}")), ("event_type", "like.*\\_progress".to_owned())];
        self.events("message_events", "message_id", id.to_string(), &more, max)
    }

    fn inputs(&self, id: MessageId, max: i64) -> Answer<'_, Vec<Event>> {
        let more = [("event_type", "like.*\\_input".to_owned())];
        self.events("message_events", "message_id", id.to_string(), &more, max)
    }

    fn trace_events(&self, trace: TraceId, max: i64) -> Answer<'_, Vec<Event>> {
        self.events("trace_events", "trace_id", trace.to_string(), &[], max)
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
        let query = vec![
            ("select", "*".to_owned()),
            ("order", "status.desc,last_seen_at.desc".to_owned()),
            ("limit", max.to_string()),
        ];
        self.rows("workers", "workers", query)
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
        self.rpc("bus_stats", json!({}), |call, body| {
            let mut rows: Vec<Depth> = read(call, body)?;
            rows.sort_by(|a, b| {
                let key =
                    |row: &Depth| (row.role.clone(), row.service.clone(), row.status.as_str());
                key(a).cmp(&key(b))
            });
            Ok(rows)
        })
    }

    fn limits(&self) -> Answer<'_, Vec<Limit>> {
        self.rpc("bus_limits", json!({}), read)
    }

    fn set_limits<'a>(&'a self, limits: &'a Value) -> Answer<'a, bool> {
        self.rpc("bus_set_limits", json!({"limits": limits}), read)
    }

    fn parked(&self) -> Answer<'_, Vec<Parked>> {
        self.rpc("bus_parked", json!({}), |call, body| {
            let mut rows: Vec<Parked> = read(call, body)?;
            rows.sort_by(|a, b| {
                let key =
                    |row: &Parked| (row.role.clone(), row.service.clone(), row.reason.clone());
                key(a).cmp(&key(b))
            });
            Ok(rows)
        })
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
        self.rpc("bus_circuit_probe", arguments, |call, body| {
            let probed: Probed = read_one(call, body)?;
            Ok((probed.granted, probed.circuit))
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_that_cannot_be_a_base_is_refused_with_the_rule_and_without_being_shown() {
        for bad in [
            "",
            "hub.example.com",
            "postgres://u:hunter2@h/db",
            "ftp://h",
            "https://",
            "https://u:hunter2@h",
            "https://h/?key=hunter2",
            "https://h/rest/v1",
            "https://h/#x",
        ] {
            let text = parse(bad).expect_err(bad).to_string();
            assert!(text.starts_with("url: must ") && !text.contains("hunter2"), "{bad}: {text}");
        }
        for good in ["https://h", "http://127.0.0.1:8787/", " https://h/bus ", "https://[::1]:1"] {
            parse(good).expect(good);
        }
    }
}
