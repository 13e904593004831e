//! Telling of changes: from the log to those who may read the rows.
//!
//! Rows are read as each subscriber may: under its role and claims, so that row-level security decides. They
//! are read when they are told of, so a row is as it is then, and one that is gone by then is not told of.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::StreamExt as _;
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::Executor as _;

use crate::bus::Head;
use crate::clock::Stopwatch;
use crate::error::chain;
use crate::hub::caller::{About, Access, Caller, Transaction, within};
use crate::hub::realtime::binding::Filter;
use crate::hub::realtime::catalog::{Catalog, is_of_data};
use crate::hub::realtime::change::{self, Change, Key, Table};
use crate::hub::realtime::filter::Op;
use crate::hub::realtime::frame::Shared;
use crate::hub::realtime::outbox::Frame;
use crate::hub::realtime::queries::{self, Column, Found};
use crate::hub::realtime::scope::Scope;
use crate::hub::realtime::subscriptions::{Group, Subscription};
use crate::hub::realtime::{Inner, STATEMENT_TIMEOUT, render};
use crate::realtime::wire::{ChangeKind, System, Vsn, event};

/// How many groups are read for at once; each holds a connection for a few milliseconds.
const AT_ONCE: usize = 3;
/// Filters in one query; each is an expression in it.
const FILTERS_MAX: usize = 100;
/// How often rows are tried to be read before their readers are told that they missed something.
const TRIES: u32 = 3;
/// How long to wait before the next try.
const RETRY: Duration = Duration::from_millis(500);

/// Why rows were not told of.
enum Failure {
    /// A filter cannot be evaluated, if there is one: a database that stalls cancels what takes too long as well.
    Filter(sqlx::Error),
    /// The database did not answer.
    Database(String),
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Database(refusal) if is_of_data(refusal.code().as_deref()) => {
                Self::Filter(error)
            }
            _ => Self::Database(chain(&error).to_string()),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Filter(error) => write!(f, "{}", chain(error)),
            Self::Database(error) => f.write_str(error),
        }
    }
}

/// Tells of all that happens from now on. Ends with the process.
pub(crate) async fn run(inner: Arc<Inner>) {
    let mut follower = inner.feed.follow();
    loop {
        let heads = match follower.next().await {
            Ok(heads) => heads,
            Err(error) => {
                tracing::warn!(error = %chain(&error), "Could not read the log again; trying again");
                tokio::time::sleep(RETRY).await;
                continue;
            }
        };
        let groups = inner.subscriptions.groups();
        if groups.is_empty() {
            continue;
        }
        let mut changes = Vec::with_capacity(heads.len() * 2);
        heads.iter().for_each(|head| change::of(head, &mut changes));
        let changes = without_repeats(&heads, changes);
        futures_util::stream::iter(groups)
            .for_each_concurrent(AT_ONCE, |group| tell_group(&inner, group, &changes))
            .await;
    }
}

/// A transaction changes a row once as far as anybody can see, however many events it appends about it.
fn without_repeats(heads: &[Head], changes: Vec<Change>) -> Vec<Change> {
    if heads.windows(2).all(|two| two[0].cursor.xid != two[1].cursor.xid) {
        return changes;
    }
    let mut seen: HashSet<(Key, ChangeKind, DateTime<Utc>)> = HashSet::new();
    let is_new = |change: &Change| {
        change.table == Table::Events || seen.insert((change.key.clone(), change.kind, change.at))
    };
    changes.into_iter().filter(is_new).collect()
}

async fn tell_group(inner: &Inner, group: Group, changes: &[Change]) {
    let Group { scope, mut members } = group;
    let may = |change: &&Change| {
        scope.may_read(&change.tenant, change.topic.as_ref())
            // Row-level security cannot be asked about a message that is gone.
            && (change.table != Table::Messages || scope.has_topics())
    };
    let wanted = |change: &&Change| {
        members.iter().any(|member| member.bindings.iter().any(|one| one.may_match(change)))
    };
    let changes: Vec<&Change> = changes.iter().filter(may).filter(wanted).collect();
    if changes.is_empty() {
        return;
    }
    for table in Table::ALL {
        let of_table: Vec<&Change> =
            changes.iter().copied().filter(|change| change.table == table).collect();
        if of_table.is_empty() {
            continue;
        }
        let mut tries = 0;
        while let Err(failure) = tell_table(inner, &scope, &members, table, &of_table).await {
            tries += 1;
            if tries >= TRIES {
                tracing::warn!("Could not read changed rows; their readers are told so");
                members.iter().for_each(|member| missed(member));
                break;
            }
            let error = match failure {
                Failure::Filter(error)
                    if members.iter().any(|member| is_filtered(member, &of_table)) =>
                {
                    tracing::debug!(error = %chain(&error), "A filter cannot be evaluated");
                    match without_bad(inner, &scope, &members, table, &of_table).await {
                        Ok(good) => {
                            members = good;
                            continue;
                        }
                        Err(failure) => failure.to_string(),
                    }
                }
                failure => failure.to_string(),
            };
            tracing::debug!("Could not read changed rows ({error}); trying again");
            // A migration may have changed the tables.
            inner.catalog.forget().await;
            tokio::time::sleep(RETRY).await;
        }
    }
}

/// Says that changes were missed, and that later ones will not be: clients look for themselves then.
fn missed(member: &Subscription) {
    let text = "The database did not answer: changes were missed";
    member.tell(&System::error(event::POSTGRES_CHANGES, text, member.name()));
    member.tell(&System::subscribed(member.name()));
}

/// Whether a filter of a subscription is evaluated for these changes.
fn is_filtered(member: &Subscription, changes: &[&Change]) -> bool {
    let mut filtered = member.bindings.iter().filter(|binding| binding.filter.is_some());
    filtered.any(|binding| changes.iter().any(|change| binding.may_match(change)))
}

/// Ends the subscriptions whose filters cannot be evaluated; gives the others.
///
/// # Errors
/// When the rows cannot be read without any filter either: then it is none of theirs.
async fn without_bad(
    inner: &Inner,
    scope: &Scope,
    members: &[Arc<Subscription>],
    table: Table,
    changes: &[&Change],
) -> Result<Vec<Arc<Subscription>>, Failure> {
    let keys: Vec<&Key> = changes.iter().map(|change| &change.key).collect();
    let none = Filters { all: Vec::new(), places: HashMap::new(), unfiltered: true };
    let catalog = inner.catalog().await?;
    // One column says as much as all of them.
    let columns = catalog.columns(table).get(..1).unwrap_or_default();
    read_once(inner, scope, table, columns, &keys, &none, |_| {}).await?;

    let mut good = Vec::with_capacity(members.len());
    let began = Stopwatch::start();
    for member in members {
        if !is_filtered(member, changes) {
            good.push(Arc::clone(member));
            continue;
        }
        // Each by itself may be quick, and all together what everybody else waits for.
        if began.elapsed() > STATEMENT_TIMEOUT {
            end(inner, scope, member, "all of them take too long");
            continue;
        }
        let alone = std::slice::from_ref(member);
        match read_rows(inner, scope, alone, table, changes, |_, _, _, _| {}).await {
            Err(Failure::Filter(error)) => {
                let said = error.as_database_error().map_or("it takes too long", |e| e.message());
                end(inner, scope, member, said);
            }
            _ => good.push(Arc::clone(member)),
        }
    }
    Ok(good)
}

/// Ends a subscription, and says why.
fn end(inner: &Inner, scope: &Scope, member: &Arc<Subscription>, why: &str) {
    let text = format!("Unable to subscribe to changes with given parameters: filter: {why}");
    member.tell(&System::error(event::POSTGRES_CHANGES, text, member.name()));
    inner.subscriptions.remove(scope, member);
}

async fn tell_table(
    inner: &Inner,
    scope: &Scope,
    members: &[Arc<Subscription>],
    table: Table,
    changes: &[&Change],
) -> Result<(), Failure> {
    let (gone, there): (Vec<&Change>, Vec<&Change>) =
        changes.iter().copied().partition(|change| change.kind == ChangeKind::Delete);
    let max_bytes = inner.options.max_record_bytes;
    if !there.is_empty() {
        read_rows(inner, scope, members, table, &there, |columns, changes, found, filters| {
            let holds = |filter: Option<&Arc<Filter>>| match filter {
                None => filters.unfiltered,
                Some(filter) => filters.at(filter).is_some_and(|at| found.holds[at]),
            };
            let record = found.record.as_deref();
            for change in changes {
                tell(members, change, columns, record, max_bytes, &holds);
            }
        })
        .await?;
    }
    let catalog = inner.catalog().await?;
    for change in gone {
        let holds = |filter: Option<&Arc<Filter>>| {
            filter.is_none_or(|filter| holds_of_key(filter, &change.key))
        };
        tell(members, change, catalog.columns(table), None, max_bytes, &holds);
    }
    Ok(())
}

/// Whether a filter holds for what is left of a deleted row: its key.
fn holds_of_key(filter: &Filter, key: &Key) -> bool {
    let Key::Message(id) = key else { return false };
    let is = |text: &str| text.parse::<uuid::Uuid>().is_ok_and(|other| other == *id);
    filter.conditions.iter().all(|condition| {
        let holds = match &condition.op {
            Op::Compare("=", value) => is(value),
            Op::Compare("<>" | "is distinct from", value) => !is(value),
            Op::In(values) => values.iter().any(|value| is(value)),
            _ => return false,
        };
        condition.column == "id" && holds != condition.negated
    })
}

/// The filters of one query.
struct Filters<'a> {
    all: Vec<&'a Filter>,
    places: HashMap<&'a str, usize>,
    unfiltered: bool,
}

impl Filters<'_> {
    fn at(&self, filter: &Filter) -> Option<usize> {
        self.places.get(filter.text.as_str()).copied()
    }
}

/// Reads the rows of `changes` as `scope` may, and gives each with its changes.
async fn read_rows(
    inner: &Inner,
    scope: &Scope,
    members: &[Arc<Subscription>],
    table: Table,
    changes: &[&Change],
    mut row: impl FnMut(&[Column], &[&Change], &Found, &Filters<'_>),
) -> Result<(), Failure> {
    let mut keys: Vec<&Key> = Vec::new();
    let mut of_key: Vec<Vec<&Change>> = Vec::new();
    let mut places: HashMap<&Key, usize> = HashMap::new();
    for change in changes {
        let at = *places.entry(&change.key).or_insert_with(|| {
            keys.push(&change.key);
            of_key.push(Vec::new());
            keys.len() - 1
        });
        of_key[at].push(change);
    }
    let bindings = || {
        let all = members.iter().flat_map(|member| &member.bindings);
        all.filter(|one| changes.iter().any(|change| one.may_match(change)))
    };
    let mut texts: HashMap<&str, &Filter> = HashMap::new();
    for filter in bindings().filter_map(|one| one.filter.as_deref()) {
        texts.insert(&filter.text, filter);
    }
    let filters: Vec<&Filter> = texts.into_values().collect();
    let mut unfiltered = bindings().any(|one| one.filter.is_none());
    let mut chunks = filters.chunks(FILTERS_MAX);
    let catalog = inner.catalog().await?;
    let columns = catalog.columns(table);
    loop {
        let all = chunks.next().unwrap_or_default().to_vec();
        if all.is_empty() && !unfiltered {
            return Ok(());
        }
        let places =
            all.iter().enumerate().map(|(at, filter)| (filter.text.as_str(), at)).collect();
        let filters = Filters { all, places, unfiltered };
        let read = read_once(inner, scope, table, columns, &keys, &filters, |found| {
            if let Some(changes) = of_key.get(found.at) {
                row(columns, changes, found, &filters);
            }
        });
        read.await?;
        unfiltered = false;
    }
}

async fn read_once(
    inner: &Inner,
    scope: &Scope,
    table: Table,
    columns: &[Column],
    keys: &[&Key],
    filters: &Filters<'_>,
    mut row: impl FnMut(&Found),
) -> Result<(), Failure> {
    let mut transaction = begin(inner, scope).await.map_err(Failure::Database)?;
    let patience = transaction.patience();
    // The clients read times in UTC, as Realtime gives them.
    within(patience, transaction.execute("set local timezone = 'UTC'")).await?;
    let mut rows =
        queries::rows(&mut transaction, table, columns, keys, &filters.all, filters.unfiltered)?;
    while let Some(found) = within(patience, async { rows.next().await.transpose() }).await? {
        row(&Found::of(&found)?);
    }
    drop(rows);
    transaction.commit().await?;
    Ok(())
}

/// A transaction in which a scope's rows can be read, and nothing takes for ever.
pub(crate) async fn begin(inner: &Inner, scope: &Scope) -> Result<Transaction, String> {
    let headers = axum::http::HeaderMap::new();
    let about = About { method: "GET", path: "/realtime/v1/websocket", headers: &headers };
    let caller = Caller {
        role: scope.role(),
        claims: scope.claims().clone(),
        claims_json: Arc::clone(&scope.json),
    };
    let begun = caller.begin(&inner.callers, Access::Read, &about).await;
    begun.map_err(|error| error.message().to_owned())
}

/// What a subscriber is sent.
#[derive(Serialize)]
struct Told<'a> {
    ids: &'a [u32],
    data: &'a RawValue,
}

/// What of a frame differs between those who are told of one change: topic, ids, columns, version.
type Same<'a> = (&'a str, Vec<u32>, Option<&'a [String]>, Vsn);

/// Tells all members of a change whose filters hold. Whatever is the same for several is written once.
fn tell(
    members: &[Arc<Subscription>],
    change: &Change,
    columns: &[Column],
    record: Option<&str>,
    max_bytes: usize,
    holds: &dyn Fn(Option<&Arc<Filter>>) -> bool,
) {
    let mut data: HashMap<Option<&[String]>, Option<Box<RawValue>>> = HashMap::new();
    let mut frames: HashMap<Same<'_>, Frame> = HashMap::new();
    for member in members.iter().filter(|member| !member.is_over()) {
        // One frame for each choice of columns.
        let mut told: Vec<(Option<&[String]>, Vec<u32>)> = Vec::new();
        let matching = member.bindings.iter().filter(|one| one.may_match(change));
        for binding in matching.filter(|one| holds(one.filter.as_ref())) {
            let select = binding.select.as_deref();
            match told.iter_mut().find(|(other, _)| *other == select) {
                Some((_, ids)) => ids.push(binding.id),
                None => told.push((select, vec![binding.id])),
            }
        }
        for (select, ids) in told {
            let written = data
                .entry(select)
                .or_insert_with(|| render::data(change, columns, select, record, max_bytes));
            let Some(data) = written else { continue };
            let vsn = member.line.vsn;
            let frame = frames.entry((&member.topic, ids, select, vsn)).or_insert_with_key(|key| {
                let told = Told { ids: &key.1, data };
                let shared = Shared::new(&member.topic, event::POSTGRES_CHANGES, &told);
                shared.frame(vsn).expect("JSON can be told in any version")
            });
            member.line.outbox.push(frame.clone());
        }
    }
}

impl Inner {
    pub(crate) async fn catalog(&self) -> sqlx::Result<Arc<Catalog>> {
        self.catalog.get(self.bus.pool().expect("a hub has a database")).await
    }
}
