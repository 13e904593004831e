//! Many rows fast: as the bus itself leaves them, without a million calls.
//!
//! One message is brought into the state by the bus. Then its row and its events are copied, column by column, with
//! ids of their own and times that lie apart; so what is filled follows the schema, whatever columns it has.

use anyhow::{Context as _, Result, ensure};
use cogo::message::MessageId;
use sqlx::postgres::PgPool;
use sqlx::{AssertSqlSafe, Row as _};

/// How many messages are copied in one transaction: Ctrl-C need not wait for longer.
const SLAB: u64 = 50_000;

/// Copies the message `template` until there are `count` more like it.
pub(super) async fn copies(
    owner: &PgPool,
    template: MessageId,
    count: u64,
    told: impl Fn(u64),
) -> Result<()> {
    let tables = tables(owner).await?;
    ensure!(!tables.is_empty(), "no table has messages");
    let mut inserts = Vec::new();
    for (table, key) in &tables {
        inserts.push(insert(owner, table, key).await?);
    }
    let mut done = 0;
    while done < count {
        told(done);
        let slab = SLAB.min(count - done);
        let mut transaction = owner.begin().await?;
        // Older than what will come, and in the order of their ids, as if they had come one after the other.
        sqlx::query(
            "create temporary table bench_ids on commit drop as
            select n, cogo.uuid_v7(clock_timestamp() - (($2 - n) * interval '1 millisecond')) as id,
                gen_random_uuid() as trace_id
            from generate_series($1::bigint, $1 + $3 - 1) n",
        )
        .bind(i64::try_from(done)?)
        .bind(i64::try_from(count)?)
        .bind(i64::try_from(slab)?)
        .execute(&mut *transaction)
        .await?;
        for insert in &inserts {
            sqlx::query(AssertSqlSafe(insert.clone()))
                .bind(template.to_string())
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await?;
        done += slab;
    }
    // As autovacuum would have left it after a while.
    for (table, _) in &tables {
        let vacuum = format!("vacuum (analyze) {table}");
        sqlx::query(AssertSqlSafe(vacuum)).execute(owner).await.context("vacuum")?;
    }
    Ok(())
}

/// The tables that hold something of a message, and the column that says of which.
async fn tables(owner: &PgPool) -> Result<Vec<(String, String)>> {
    let rows = sqlx::query(
        "select format('%I.%I', n.nspname, c.relname), a.attname::text
        from pg_class c
        join pg_namespace n on n.oid = c.relnamespace
        join pg_attribute a on a.attrelid = c.oid and not a.attisdropped
        where n.nspname in ('public', 'cogo') and c.relkind in ('r', 'p') and not c.relispartition
            and a.atttypid = 'uuid'::regtype
            and (a.attname = 'message_id' or c.relname = 'agent_messages' and a.attname = 'id')
        order by c.relname",
    )
    .fetch_all(owner)
    .await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// The statement that copies what a table has of the template.
async fn insert(owner: &PgPool, table: &str, key: &str) -> Result<String> {
    let rows = sqlx::query(
        "select quote_ident(a.attname), a.attname::text, a.atttypid = 'timestamptz'::regtype
        from pg_attribute a
        where a.attrelid = $1::regclass and a.attnum > 0 and not a.attisdropped
            and a.attgenerated = '' and a.attidentity = ''
        order by a.attnum",
    )
    .bind(table)
    .fetch_all(owner)
    .await?;
    let of_a_message = key != "id";
    let (mut columns, mut values) = (Vec::new(), Vec::new());
    for row in rows {
        let (quoted, name, is_time): (String, String, bool) = (row.get(0), row.get(1), row.get(2));
        let value = match name.as_str() {
            name if name == key => "i.id".to_owned(),
            "trace_id" => "i.trace_id".to_owned(),
            // An event has its own, given when it is written.
            "id" | "seq" | "xid" if of_a_message => continue,
            // Of the log a time says in which partition it lies: those are left alone.
            _ if is_time && !of_a_message => {
                format!("t.{quoted} - i.n * interval '1 microsecond'")
            }
            _ => format!("t.{quoted}"),
        };
        columns.push(quoted);
        values.push(value);
    }
    Ok(format!(
        "insert into {table} ({}) select {} from {table} t, bench_ids i where t.{key} = $1::uuid order by i.n",
        columns.join(", "),
        values.join(", ")
    ))
}
