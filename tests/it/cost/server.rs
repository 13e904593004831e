//! A database whose statements, rows, pages and log are counted.
//!
//! Statements are counted by `pg_stat_statements`, which the tests' server loads and which is switched on here alone;
//! rows and pages of tables by the server's own statistics; those of one call by `explain (analyze, buffers)`.
//! Other tests' databases on the same server change none of these numbers.

use std::collections::BTreeMap;
use std::ops::Sub;

use cogo::testing::TestDb;
use serde_json::Value;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection, Executor};
use tokio::sync::Mutex;

/// Whatever the observer does is not counted.
const UNCOUNTED: (&str, &str) = ("pg_stat_statements.track", "none");

/// A database, and who watches it.
pub(crate) struct Watched {
    pub(crate) db: TestDb,
    observer: Mutex<PgConnection>,
    /// Whether statements can be counted.
    pub(crate) counts_statements: bool,
    /// The server's version.
    pub(crate) postgres: i32,
}

/// What statements of one kind did.
#[derive(Debug, Clone, Copy, Default, PartialEq, sqlx::FromRow)]
pub(crate) struct Statements {
    pub(crate) calls: i64,
    /// Pages of tables and indexes, found in memory or not.
    pub(crate) blocks: i64,
    pub(crate) wal_bytes: i64,
}

/// What all statements did since the last [`Watched::reset`].
#[derive(Debug, Clone, Default)]
pub(crate) struct Counted {
    /// What clients sent, by the function that it calls; with what was done for it within functions.
    pub(crate) sent: BTreeMap<String, Statements>,
    /// How many statements functions made of it.
    pub(crate) nested: i64,
}

impl Counted {
    /// How many statements clients sent.
    pub(crate) fn calls(&self) -> i64 {
        self.sent.values().map(|statements| statements.calls).sum()
    }

    /// How many of them called one of these functions.
    pub(crate) fn calls_of(&self, functions: &[&str]) -> i64 {
        let of = |name: &&str| self.sent.get(*name).map_or(0, |statements| statements.calls);
        functions.iter().map(of).sum()
    }

    /// Both together.
    pub(crate) fn plus(mut self, other: &Self) -> Self {
        for (name, more) in &other.sent {
            let sum = self.sent.entry(name.clone()).or_default();
            sum.calls += more.calls;
            sum.blocks += more.blocks;
            sum.wal_bytes += more.wal_bytes;
        }
        self.nested += other.nested;
        self
    }

    pub(crate) fn wal_bytes(&self) -> i64 {
        self.sent.values().map(|statements| statements.wal_bytes).sum()
    }

    pub(crate) fn blocks(&self) -> i64 {
        self.sent.values().map(|statements| statements.blocks).sum()
    }
}

/// What was done to tables and their indexes, ever.
#[derive(Debug, Clone, Copy, Default, PartialEq, sqlx::FromRow)]
pub(crate) struct Rows {
    /// Rows and index entries that were looked at, whether wanted or not.
    pub(crate) read: i64,
    pub(crate) seq_scans: i64,
    pub(crate) inserted: i64,
    pub(crate) updated: i64,
    pub(crate) hot_updated: i64,
    pub(crate) deleted: i64,
}

impl Sub for Rows {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            read: self.read - before.read,
            seq_scans: self.seq_scans - before.seq_scans,
            inserted: self.inserted - before.inserted,
            updated: self.updated - before.updated,
            hot_updated: self.hot_updated - before.hot_updated,
            deleted: self.deleted - before.deleted,
        }
    }
}

/// Of the messages, of the log, and of all tables.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Tables {
    pub(crate) messages: Rows,
    pub(crate) events: Rows,
    pub(crate) all: Rows,
}

impl Sub for Tables {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            messages: self.messages - before.messages,
            events: self.events - before.events,
            all: self.all - before.all,
        }
    }
}

/// What `explain (analyze, buffers)` says of a call, with all that its function did.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Explained {
    pub(crate) rows: f64,
    pub(crate) blocks: f64,
}

impl Watched {
    pub(crate) async fn new() -> Self {
        let db = TestDb::new().await;
        let mut observer = uncounted(db.connect_options()).await;
        // Whether a row is known to be dead depends on whether the commit has been flushed, which must not be left to
        // the time that passes. The server does not sync; it costs nothing.
        let sql = format!(
            "create table cogo_horizon (); alter database {} set synchronous_commit = on",
            db.name()
        );
        observer.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(sql))).await.expect("prepared");
        let counts_statements: bool = sqlx::query_scalar(
            "select current_setting('shared_preload_libraries') ~ '\\mpg_stat_statements\\M'
                and exists (select from pg_available_extensions where name = 'pg_stat_statements')",
        )
        .fetch_one(&mut observer)
        .await
        .expect("the server answers");
        if counts_statements {
            let sql = format!(
                "create extension pg_stat_statements;
                alter database {} set pg_stat_statements.track = 'all'",
                db.name()
            );
            let sql = sqlx::raw_sql(sqlx::AssertSqlSafe(sql));
            observer.execute(sql).await.expect("statements are counted");
        }
        let postgres =
            sqlx::query_scalar("select current_setting('server_version_num')::integer / 10000");
        let postgres = postgres.fetch_one(&mut observer).await.expect("a version");
        Self { db, observer: Mutex::new(observer), counts_statements, postgres }
    }

    /// As [`Watched::new`], where statements can be counted.
    pub(crate) async fn counting(group: &str) -> Option<Self> {
        let watched = Self::new().await;
        if watched.counts_statements {
            return Some(watched);
        }
        super::report::not_measured(group, "the server does not load pg_stat_statements");
        None
    }

    /// A session as a client's.
    pub(crate) async fn session(&self) -> PgConnection {
        self.db.connect_options().connect().await.expect("a session")
    }

    /// A session of which nothing is counted but by [`Watched::tables`].
    pub(crate) async fn uncounted(&self) -> PgConnection {
        uncounted(self.db.connect_options()).await
    }

    /// Counts statements from here.
    pub(crate) async fn reset(&self) {
        let sql = "select pg_stat_statements_reset(0, oid, 0) from pg_database where datname = current_database()";
        self.observer.lock().await.execute(sql).await.expect("reset");
    }

    pub(crate) async fn counted(&self) -> Counted {
        let rows: Vec<(String, bool, i64, i64, i64)> = sqlx::query_as(
            "select case when toplevel then coalesce(substring(query from '\\mbus_[a-z_]+\\s*\\('),
                    substring(query from '\\mpg_notify\\s*\\('), left(query, 60)) else '' end,
                toplevel, sum(calls)::bigint, sum(shared_blks_hit + shared_blks_read)::bigint, sum(wal_bytes)::bigint
            from pg_stat_statements
            where dbid = (select oid from pg_database where datname = current_database())
                and query not like '%pg_stat_force_next_flush%' and query not like '%cogo_horizon%'
            group by 1, 2",
        )
        .fetch_all(&mut *self.observer.lock().await)
        .await
        .expect("counted");
        let mut counted = Counted::default();
        for (name, toplevel, calls, blocks, wal_bytes) in rows {
            if toplevel {
                let name = name.trim_end_matches('(').trim().to_owned();
                counted.sent.insert(name, Statements { calls, blocks, wal_bytes });
            } else {
                counted.nested += calls;
            }
        }
        counted
    }

    /// What was done to the tables up to now, by `session` and by those that have ended.
    pub(crate) async fn tables(&self, session: &mut PgConnection) -> Tables {
        session.execute("select pg_stat_force_next_flush()").await.expect("flushed");
        let rows: Vec<(String, i64, i64, i64, i64, i64, i64)> = sqlx::query_as(
            "select case when t.relid = 'agent_messages'::regclass then 'messages'
                    when t.relid in (select inhrelid from pg_inherits where inhparent = 'bus_events'::regclass) then 'events'
                    else '' end,
                sum(coalesce(t.seq_tup_read, 0) + coalesce(t.idx_tup_fetch, 0) + coalesce((
                    select sum(i.idx_tup_read) from pg_stat_user_indexes i where i.relid = t.relid), 0))::bigint,
                sum(t.seq_scan)::bigint, sum(t.n_tup_ins)::bigint, sum(t.n_tup_upd)::bigint, sum(t.n_tup_hot_upd)::bigint,
                sum(t.n_tup_del)::bigint
            from pg_stat_user_tables t where t.schemaname in ('public', 'cogo') group by 1",
        )
        .fetch_all(&mut *self.observer.lock().await)
        .await
        .expect("counted");
        let mut tables = Tables::default();
        for (kind, read, seq_scans, inserted, updated, hot_updated, deleted) in rows {
            let rows = Rows { read, seq_scans, inserted, updated, hot_updated, deleted };
            match kind.as_str() {
                "messages" => tables.messages = rows,
                "events" => tables.events = rows,
                _ => {}
            }
            let all = &mut tables.all;
            all.read += read;
            all.seq_scans += seq_scans;
            all.inserted += inserted;
            all.updated += updated;
            all.hot_updated += hot_updated;
            all.deleted += deleted;
        }
        tables
    }

    /// Has what the observer did counted now, and not in the middle of something.
    pub(crate) async fn flush(&self) {
        let sql = "select pg_stat_force_next_flush()";
        self.observer.lock().await.execute(sql).await.expect("flushed");
    }

    pub(crate) async fn scalar(&self, sql: &'static str) -> i64 {
        let mut observer = self.observer.lock().await;
        sqlx::query_scalar(sql).fetch_one(&mut *observer).await.expect(sql)
    }

    /// Changes the database as a careless migration would.
    pub(crate) async fn migrate(&self, sql: impl Into<String>) {
        let sql = sqlx::raw_sql(sqlx::AssertSqlSafe(sql.into()));
        self.observer.lock().await.execute(sql).await.expect("changed");
    }
}

async fn uncounted(options: PgConnectOptions) -> PgConnection {
    let mut session = options.clone().connect().await.expect("a session");
    let loaded: bool =
        sqlx::query_scalar("select current_setting('pg_stat_statements.track', true) is not null")
            .fetch_one(&mut session)
            .await
            .expect("the server answers");
    if !loaded {
        return session;
    }
    session.close().await.expect("closed");
    options.options([UNCOUNTED]).connect().await.expect("a session")
}

/// Has the session find out anew which dead rows nobody can see any more. By itself it may put that off for as long
/// as the oldest transaction of the whole server is the same one: then another test's would show in the numbers.
pub(crate) async fn look_again(session: &mut PgConnection) {
    session.execute("vacuum cogo_horizon").await.expect("vacuumed");
}

/// What the server says of a call while it does it.
pub(crate) async fn explain(session: &mut PgConnection, call: &str) -> Explained {
    let sql = format!("explain (analyze, buffers, costs off, timing off, format json) {call}");
    let plan: Value = sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
        .fetch_one(session)
        .await
        .unwrap_or_else(|error| panic!("{call}: {error}"));
    let plan = &plan[0]["Plan"];
    let number = |name: &str| plan[name].as_f64().unwrap_or_else(|| panic!("{name} of {plan}"));
    let blocks = number("Shared Hit Blocks") + number("Shared Read Blocks");
    Explained { rows: number("Actual Rows"), blocks }
}
