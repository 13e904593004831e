//! INSERT of the rows that a publish of COGO writes, and of nothing else: one of each table, without functions, checks
//! and wake-ups, into tables with the same columns and no index but the key.
//!
//! Which rows those are is looked up and not written down here: one message is published, and what it left in
//! `agent_messages` and `bus_events` is kept as a pattern.

use std::str::FromStr as _;

use anyhow::{Context as _, Result};
use cogo::bus::Bus;
use cogo::db;
use cogo::message::{MessageId, NewMessage, Topic};
use serde_json::Value;
use sqlx::postgres::{PgConnectOptions, PgPool};
use sqlx::types::Uuid;

use crate::drive::payload;

/// The tables of a publish, and the key of each.
const TABLES: [(&str, &str); 2] = [("agent_messages", "id"), ("bus_events", "seq")];
/// The number of the message in the pattern, which no other has.
const PATTERN: u64 = 123_456_789;

/// Makes COGO's tables, publishes one message and keeps its rows in `pattern.*`; `same.*` are to be filled.
pub(super) async fn setup(url: &str) -> Result<()> {
    let pool = &db::Options::new(PgConnectOptions::from_str(url)?).pool();
    db::MIGRATOR.run(pool).await?;
    let topic = Topic::new("bench", "peers")?;
    let message = NewMessage::new(&topic, "bench.count", payload(PATTERN));
    let id = Bus::new(pool.clone()).publish(message).await?.id;
    sqlx::raw_sql("create schema pattern; create schema same").execute(pool).await?;
    for (table, key) in TABLES {
        let of = if table == "agent_messages" { "id" } else { "message_id" };
        sqlx::raw_sql(sqlx::AssertSqlSafe(format!(
            "create table pattern.{table} as select * from public.{table} where {of} = '{id}';
             create table same.{table} (like public.{table} including defaults, primary key ({key}));"
        )))
        .execute(pool)
        .await?;
    }
    Ok(())
}

/// The statement.
pub(super) struct Insert(String);

impl Insert {
    pub(super) async fn new(pool: &PgPool) -> Result<Self> {
        let mut parts = Vec::new();
        for (table, _) in TABLES {
            let rows: Vec<Value> = sqlx::query_scalar(sqlx::AssertSqlSafe(format!(
                "select to_jsonb(t) from pattern.{table} t"
            )))
            .fetch_all(pool)
            .await?;
            for row in rows {
                parts.push(part(pool, table, &row).await?);
            }
        }
        let last = parts.pop().context("a publish left no rows")?;
        let with: Vec<String> =
            parts.iter().enumerate().map(|(n, part)| format!("w{n} as ({part})")).collect();
        Ok(Self(format!(
            "with u as materialized (select * from unnest($1::uuid[], $2::jsonb[]) as u (id, payload)), {} {last}",
            with.join(", ")
        )))
    }

    pub(super) async fn run(&self, pool: &PgPool, payloads: Vec<Value>) -> Result<()> {
        let ids: Vec<Uuid> = payloads.iter().map(|_| MessageId::new().0).collect();
        sqlx::query(sqlx::AssertSqlSafe(self.0.as_str()))
            .bind(ids)
            .bind(payloads)
            .execute(pool)
            .await?;
        Ok(())
    }
}

/// The INSERT of one row of the pattern for each message: what names the message or carries the payload is replaced,
/// all else is as it was. Keys and times are made by the tables' defaults, where they have any.
async fn part(pool: &PgPool, table: &str, row: &Value) -> Result<String> {
    let columns: Vec<(String, String, bool)> = sqlx::query_as(
        "select attname::text, format_type(atttypid, atttypmod), atthasdef and attname in ('seq', 'xid', 'id', 'created_at')
             from pg_attribute where attrelid = $1::regclass and attnum > 0 and not attisdropped order by attnum",
    )
    .bind(format!("same.{table}"))
    .fetch_all(pool)
    .await?;
    let id = row.get("message_id").or(row.get("id")).context("a row names no message")?;
    let (mut names, mut values) = (Vec::new(), Vec::new());
    for (name, kind, by_default) in columns {
        let value = &row[&name];
        if by_default {
            continue;
        }
        values.push(if value == id {
            "u.id".to_owned()
        } else if *value == payload(PATTERN) {
            "u.payload".to_owned()
        } else {
            let literal: String = sqlx::query_scalar(sqlx::AssertSqlSafe(format!(
                "select quote_nullable(r.{name}) || '::{kind}' from jsonb_populate_record(null::pattern.{table}, $1) r"
            )))
            .bind(row)
            .fetch_one(pool)
            .await?;
            literal
        });
        names.push(name);
    }
    Ok(format!(
        "insert into same.{table} ({}) select {} from u",
        names.join(", "),
        values.join(", ")
    ))
}
