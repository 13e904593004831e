//! All SQL of the hub's Realtime.

use std::collections::HashMap;
use std::fmt::Write as _;

use chrono::{DateTime, Utc};
use futures_util::stream::BoxStream;
use sqlx::postgres::{PgArguments, PgConnection, PgExecutor, PgRow};
use sqlx::{Arguments as _, AssertSqlSafe, Row as _};
use uuid::Uuid;

use crate::hub::realtime::binding::Filter;
use crate::hub::realtime::change::{Key, Table};
use crate::hub::realtime::filter::{Condition, Op};

/// Whether the policy lets the caller, whose transaction this is, into a private topic.
pub(crate) async fn channel_allowed(
    db: impl PgExecutor<'_>,
    topic: &str,
    action: &str,
) -> sqlx::Result<bool> {
    sqlx::query_scalar("select coalesce(public.bus_channel_allowed($1, $2), false)")
        .bind(topic)
        .bind(action)
        .fetch_one(db)
        .await
}

/// A column, as `pg_type.typname` and as SQL calls its type.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(crate) struct Column {
    pub(crate) table_name: String,
    pub(crate) name: String,
    pub(crate) typname: String,
    pub(crate) sql_type: String,
    pub(crate) is_array: bool,
    pub(crate) is_text: bool,
    pub(crate) is_bool: bool,
    /// The name, quoted where it must be.
    pub(crate) quoted: String,
}

/// The columns of the tables, in their order.
pub(crate) async fn columns(db: impl PgExecutor<'_>) -> sqlx::Result<Vec<Column>> {
    sqlx::query_as(
        "select c.relname::text as table_name, a.attname::text as name, t.typname::text,
            format_type(a.atttypid, null) as sql_type, t.typcategory = 'A' as is_array,
            t.typcategory = 'S' as is_text, t.typcategory = 'B' as is_bool,
            quote_ident(a.attname) as quoted
        from pg_class c
        join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
        join pg_type t on t.oid = a.atttypid
        where c.relnamespace = 'public'::regnamespace and c.relname = any ($1)
        order by c.relname, a.attnum",
    )
    .bind(Table::ALL.map(|table| table.name()).as_slice())
    .fetch_all(db)
    .await
}

/// Has Postgres read the values of a filter, so that those that cannot be are found before rows come.
pub(crate) async fn try_filter(
    db: impl PgExecutor<'_>,
    filter: &Filter,
    columns: &HashMap<&str, &Column>,
) -> sqlx::Result<()> {
    let mut sql = "select true".to_owned();
    let mut arguments = PgArguments::default();
    for condition in &filter.conditions {
        let Some(column) = columns.get(condition.column.as_str()) else { continue };
        let (n, kind) = (arguments.len() + 1, &column.sql_type);
        match &condition.op {
            Op::Compare(_, value) => {
                let _infallible = write!(sql, ", (${n}::text)::{kind}");
                add(&mut arguments, value.clone())?;
            }
            Op::Pattern(operator, value) => {
                // Not against an empty text alone: a pattern is read only as far as it matches.
                let _infallible = write!(sql, ", repeat('x', 8) {operator} ${n}::text");
                add(&mut arguments, value.clone())?;
            }
            Op::In(values) => {
                let _infallible = write!(sql, ", (${n}::text[])::{kind}[]");
                add(&mut arguments, values.clone())?;
            }
            Op::Is(_) => {}
        }
    }
    sqlx::query_with(AssertSqlSafe(sql), arguments).persistent(false).execute(db).await.map(drop)
}

fn add<'a, T>(arguments: &mut PgArguments, value: T) -> sqlx::Result<()>
where
    T: sqlx::Encode<'a, sqlx::Postgres> + sqlx::Type<sqlx::Postgres> + 'a,
{
    arguments.add(value).map_err(sqlx::Error::Encode)
}

/// A row as its reader may see it.
#[derive(Debug)]
pub(crate) struct Found {
    /// Which of the keys it is.
    pub(crate) at: usize,
    /// The row as JSON; none where no filter holds.
    pub(crate) record: Option<String>,
    /// Which of the filters hold.
    pub(crate) holds: Vec<bool>,
}

impl Found {
    pub(crate) fn of(row: &PgRow) -> sqlx::Result<Self> {
        let at: i64 = row.try_get(0)?;
        let at = usize::try_from(at - 1).unwrap_or_default();
        Ok(Self { at, record: row.try_get(1)?, holds: row.try_get(2)? })
    }
}

/// The rows with these keys, as far as the caller may read them, with what of `filters` holds for each. Where
/// `unfiltered`, rows for which none holds come as well.
pub(crate) fn rows<'c>(
    db: &'c mut PgConnection,
    table: Table,
    columns: &[Column],
    keys: &[&Key],
    filters: &[&Filter],
    unfiltered: bool,
) -> sqlx::Result<BoxStream<'c, sqlx::Result<PgRow>>> {
    let mut arguments = PgArguments::default();
    let (from, found) = match table {
        Table::Messages => {
            let ids: Vec<Uuid> = keys.iter().filter_map(|key| key.message()).collect();
            add(&mut arguments, ids)?;
            ("unnest($1::uuid[]) with ordinality k (id, n)", "t.id = k.id")
        }
        Table::Events => {
            let (mut xids, mut seqs, mut ats) = (Vec::new(), Vec::new(), Vec::new());
            for (xid, seq, at) in keys.iter().filter_map(|key| key.event()) {
                xids.push(xid.to_string());
                seqs.push(seq);
                ats.push(at);
            }
            add(&mut arguments, xids)?;
            add(&mut arguments, seqs)?;
            add(&mut arguments, ats)?;
            (
                "unnest($1::text[], $2::bigint[], $3::timestamptz[]) with ordinality k (xid, seq, at, n)",
                "t.xid = k.xid::xid8 and t.seq = k.seq and t.created_at = k.at",
            )
        }
        Table::Workers => {
            let (tenants, ids): (Vec<&str>, Vec<&str>) =
                keys.iter().filter_map(|key| key.worker()).unzip();
            let owned = |texts: Vec<&str>| texts.into_iter().map(str::to_owned).collect::<Vec<_>>();
            add(&mut arguments, owned(tenants))?;
            add(&mut arguments, owned(ids))?;
            (
                "unnest($1::text[], $2::text[]) with ordinality k (tenant, id, n)",
                "t.tenant = k.tenant and t.id = k.id",
            )
        }
    };
    let mut holds = Vec::with_capacity(filters.len());
    for filter in filters {
        holds.push(filter_sql(filter, columns, &mut arguments)?);
    }
    let listed = columns.iter().map(|c| format!("t.{}", c.quoted)).collect::<Vec<_>>().join(", ");
    let wanted = if unfiltered { "true" } else { "true = any (h.holds)" };
    // Looked up one by one, behind a limit: the planner must not turn this into a join.
    let sql = format!(
        "select k.n, case when {wanted} then to_jsonb(r)::text end, h.holds from {from}
        cross join lateral (select {listed} from public.{} t where {found} limit 1) r
        cross join lateral (select array[{}]::boolean[] as holds) h
        order by k.n",
        table.name(),
        holds.join(", ")
    );
    Ok(sqlx::query_with(AssertSqlSafe(sql), arguments).persistent(false).fetch(db))
}

fn filter_sql(
    filter: &Filter,
    columns: &[Column],
    arguments: &mut PgArguments,
) -> sqlx::Result<String> {
    let mut all = Vec::with_capacity(filter.conditions.len());
    for condition in &filter.conditions {
        let Some(column) = columns.iter().find(|column| column.name == condition.column) else {
            return Ok("false".to_owned());
        };
        all.push(condition_sql(condition, column, arguments)?);
    }
    Ok(format!("coalesce({}, false)", all.join(" and ")))
}

/// Names come from the catalogue and operators from a list; values are arguments.
fn condition_sql(
    condition: &Condition,
    column: &Column,
    arguments: &mut PgArguments,
) -> sqlx::Result<String> {
    let Column { quoted, sql_type, .. } = column;
    let n = arguments.len() + 1;
    let test = match &condition.op {
        Op::Compare(operator, value) => {
            add(arguments, value.clone())?;
            format!("r.{quoted} {operator} (${n}::text)::{sql_type}")
        }
        Op::Pattern(operator, value) => {
            add(arguments, value.clone())?;
            format!("r.{quoted} {operator} ${n}::text")
        }
        Op::In(values) => {
            add(arguments, values.clone())?;
            format!("r.{quoted} = any ((${n}::text[])::{sql_type}[])")
        }
        Op::Is(what) => format!("r.{quoted} is {what}"),
    };
    Ok(if condition.negated { format!("(not ({test}))") } else { format!("({test})") })
}

impl Key {
    fn message(&self) -> Option<Uuid> {
        if let Self::Message(id) = self { Some(*id) } else { None }
    }

    fn event(&self) -> Option<(u64, i64, DateTime<Utc>)> {
        if let Self::Event { xid, seq, created_at } = self {
            Some((*xid, *seq, *created_at))
        } else {
            None
        }
    }

    fn worker(&self) -> Option<(&str, &str)> {
        if let Self::Worker { tenant, id } = self { Some((tenant, id)) } else { None }
    }
}

/// A topic of a tenant, as it is asked about.
pub(crate) type Work<'a> = (&'a str, &'a str, &'a str);

/// Which of these (tenant, role, service) have messages that may be claimed now, by their places. Each is one
/// look into the index of what may be claimed, however much waits.
pub(crate) async fn with_work(
    db: impl PgExecutor<'_>,
    asked: &[Work<'_>],
) -> sqlx::Result<Vec<i64>> {
    let part = |part: fn(&Work<'_>) -> String| asked.iter().map(part).collect::<Vec<_>>();
    sqlx::query_scalar(
        "select k.n from unnest($1::text[], $2::text[], $3::text[]) with ordinality k (tenant, role, service, n)
        cross join lateral (
            select from public.agent_messages m
            where m.role = k.role and m.service = k.service and m.tenant = k.tenant
                and m.status = 'queued' and m.parked_for is null
            order by m.rank_at, m.id limit 1
        ) m",
    )
    .bind(part(|(tenant, _, _)| (*tenant).to_owned()))
    .bind(part(|(_, role, _)| (*role).to_owned()))
    .bind(part(|(_, _, service)| (*service).to_owned()))
    .fetch_all(db)
    .await
}
