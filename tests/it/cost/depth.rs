//! What calls cost beside many rows that are none of their business: waiting, delayed, finished or dead ones.

use serde_json::{Value, json};
use sqlx::Executor as _;
use sqlx::postgres::PgConnection;

use super::budget::{Measure, hold};
use super::calls::{batch, claim, complete, enqueue, results, warm_up};
use super::plans::Plans;
use super::server::{Explained, Watched, explain, look_again};

const DEEP: &str = "a queue that slows down as it fills never gets empty";
const SHALLOW: &str = "what the ratios are ratios of";
const SCANS: &str = "a scan of a whole table takes longer with each message that ever was";
/// Issue 8: beside a million rows a claim costs at most so many times what it costs beside none.
const TARGET: f64 = 1.3;

/// How many rows lie beside.
const DEPTHS: [usize; 2] = [10_000, 100_000];

/// What lies beside the messages that are worked on.
#[derive(Debug, Clone, Copy)]
pub(super) enum Beside {
    Waiting,
    Delayed,
    Finished,
    Dead,
}

impl Beside {
    fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Delayed => "delayed",
            Self::Finished => "finished",
            Self::Dead => "dead",
        }
    }

    /// Makes one message such, by the bus itself. What is enqueued to be worked on goes before it.
    async fn make_one(self, session: &mut PgConnection) {
        let delay_ms = if matches!(self, Self::Delayed) { 86_400_000 } else { 0 };
        enqueue(session, &batch(1, &json!({"delay_ms": delay_ms, "max_attempts": 1}))).await;
        match self {
            Self::Waiting | Self::Delayed => {}
            Self::Finished => {
                let claims = claim(session, 1).await;
                complete(session, &claims).await;
            }
            Self::Dead => {
                let (id, claim_no) = claim(session, 1).await[0];
                let error = json!({"class": "tool_error", "message": "no"});
                let failed = json!([{"id": id, "claim_no": claim_no, "error": error}]);
                let rows = sqlx::query("select * from bus_fail($1)").bind(failed);
                assert_eq!(rows.fetch_all(session).await.expect("failed").len(), 1);
            }
        }
    }
}

/// Makes `n` copies of the newest message and of its events, a microsecond after one another. Quicker than to enqueue
/// as many, and to the tables and indexes the same. Columns that have a default of their own keep it.
async fn multiply(session: &mut PgConnection, n: usize) {
    let sql = format!(
        "do $$
        declare
            original uuid := (select id from agent_messages order by created_at desc, id desc limit 1);
            began bigint := extract(epoch from clock_timestamp()) * 1000;
            names text;
            terms text;
        begin
            create temp table copies on commit drop as
                select g, (substr(hex, 1, 8) || '-' || substr(hex, 9, 4) || '-7000-8000-' || lpad(to_hex(g), 12, '0'))::uuid as id
                from (select g, lpad(to_hex(began + g), 12, '0') as hex from generate_series(1, {n}) g) g;
            select string_agg(quote_ident(attname), ', '), string_agg(case
                    when attname = 'id' then 'c.id' when attname = 'trace_id' then 'gen_random_uuid()'
                    when atttypid = 'timestamptz'::regtype then format('m.%I + c.g * interval ''1 us''', attname)
                    else format('m.%I', attname) end, ', ')
                into names, terms from pg_attribute
                where attrelid = 'agent_messages'::regclass and attnum > 0 and not attisdropped and attgenerated = '';
            execute format('insert into agent_messages (%s) select %s from agent_messages m, copies c where m.id = %L order by c.g',
                names, terms, original);
            select string_agg(quote_ident(attname), ', '), string_agg(case
                    when attname = 'message_id' then 'c.id' when attname = 'trace_id' then 'gen_random_uuid()'
                    when atttypid = 'timestamptz'::regtype then format('e.%I + c.g * interval ''1 us''', attname)
                    else format('e.%I', attname) end, ', ')
                into names, terms from pg_attribute
                where attrelid = 'bus_events'::regclass and attnum > 0 and not attisdropped and attgenerated = ''
                    and attname not in ('seq', 'xid', 'id');
            execute format('insert into bus_events (%s) select %s from bus_events e, copies c where e.message_id = %L order by c.g',
                names, terms, original);
        end
        $$"
    );
    session.execute(sqlx::AssertSqlSafe(sql)).await.expect("multiplied");
}

/// The calls that are looked at, with how many messages each is for.
const CALLS: [(&str, usize, usize); 5] =
    [("claim", 1, 5), ("claim", 10, 3), ("claim", 100, 2), ("step", 100, 2), ("enqueue", 100, 2)];

/// Pages a call, one number for each of [`CALLS`]. What they work on goes before all that lies beside.
async fn pages(session: &mut PgConnection) -> Vec<f64> {
    let first = json!({"priority": 50});
    let literal = |value: &Value| value.to_string().replace('\'', "''");
    let mut found = Vec::new();
    for (op, n, rounds) in CALLS {
        let mut pages = 0.0;
        // The first look passes over what the calls before left dead, and marks it so.
        enqueue(session, &batch(1, &first)).await;
        claim(session, 1).await;
        for _ in 0..rounds {
            let call = match op {
                "claim" => {
                    enqueue(session, &batch(n, &first)).await;
                    format!("select * from bus_claim('w', '{{echo/default}}', {n}, 30000)")
                }
                "step" => {
                    enqueue(session, &batch(2 * n, &first)).await;
                    let held = literal(&results(&claim(session, n).await));
                    format!(
                        "select * from bus_step('{held}', 'w', '{{echo/default}}', {n}, 30000, 'default')"
                    )
                }
                _ => format!("select * from bus_enqueue('{}')", literal(&batch(n, &first))),
            };
            look_again(session).await;
            let Explained { rows, blocks } = explain(session, &call).await;
            let answered = if op == "step" { 2 * n } else { n };
            assert_eq!(rows, count(answered), "{op} of {n}");
            pages += blocks;
        }
        found.push(pages / count(rounds));
        // So that each starts beside the same.
        clear(session).await;
    }
    found
}

fn count(n: usize) -> f64 {
    f64::from(u32::try_from(n).expect("few"))
}

/// Settles what is claimed, and all that waits in front.
async fn clear(session: &mut PgConnection) {
    let waiting: i64 = sqlx::query_scalar(
        "select count(*) from agent_messages where status = 'queued' and priority = 50",
    )
    .fetch_one(&mut *session)
    .await
    .expect("counted");
    if waiting > 0 {
        claim(session, usize::try_from(waiting).expect("some")).await;
    }
    let held = sqlx::query_as("select id, claim_no from agent_messages where status = 'claimed'");
    let held: Vec<_> = held.fetch_all(&mut *session).await.expect("listed");
    complete(session, &held).await;
}

/// All calls on the way of a message, once. What they leave, the caller clears.
async fn every_call(session: &mut PgConnection) {
    let first = json!({"priority": 50});
    warm_up(session).await;
    enqueue(session, &batch(3, &first)).await;
    let keyed = json!({"priority": 50, "idempotency_key": uuid::Uuid::now_v7()});
    enqueue(session, &batch(1, &keyed)).await;
    enqueue(session, &batch(1, &json!({"delay_ms": 86_400_000}))).await;
    let claims = claim(session, 4).await;
    let error = json!({"class": "internal", "message": "no"});
    let claims: Vec<Value> =
        claims.iter().map(|(id, no)| json!({"id": id, "claim_no": no, "error": error})).collect();
    let bare = |of: &Value| json!({"id": of["id"], "claim_no": of["claim_no"]});
    for (call, with) in [
        ("bus_extend($1)", json!([bare(&claims[0]), bare(&claims[1])])),
        ("bus_release($1)", json!([bare(&claims[0])])),
        ("bus_fail($1)", json!([claims[1]])),
        ("bus_complete($1)", json!([bare(&claims[2]), bare(&claims[3])])),
        ("bus_enqueue_and_claim($1, 'w', '{echo/default}', 2, 30000, 'default')", batch(1, &first)),
        ("bus_reap(100) r, (select $1::jsonb) x", json!([])),
    ] {
        let sql = format!("select count(*) from {call}");
        let answer = sqlx::query_scalar::<_, i64>(sqlx::AssertSqlSafe(sql)).bind(with);
        answer.fetch_one(&mut *session).await.unwrap_or_else(|error| panic!("{call}: {error}"));
    }
}

/// What calls cost with more and more rows beside. `spoil` is done to the database first.
pub(super) async fn measure(server: &Watched, beside: Beside, spoil: &str) -> Vec<Measure> {
    let group = format!("depth.{}", beside.name());
    if !spoil.is_empty() {
        server.migrate(spoil).await;
    }
    let kept = &mut server.uncounted().await;
    warm_up(kept).await;
    let empty = pages(kept).await;
    let mut found = Vec::new();
    for ((op, n, _), empty) in CALLS.iter().zip(&empty) {
        let what = format!("pages of {op} of {n} beside no other rows");
        found.push(
            Measure::new(format!("{group}.empty.{op}_{n}"), what, *empty, SHALLOW).slack(1.05),
        );
    }
    let mut there = 0;
    for depth in DEPTHS {
        beside.make_one(kept).await;
        multiply(kept, depth - there).await;
        there = depth;
        let rows = format!("{depth} {} rows", beside.name());
        let pages = pages(kept).await;
        found.extend(ratios(&format!("{group}.{depth}"), &rows, &pages, &empty));
    }
    // Plans that were made while the tables were empty; that are made now; and with statistics.
    let mut fresh = server.uncounted().await;
    for plans in ["kept", "fresh", "analyzed"] {
        if plans == "analyzed" {
            fresh.execute("analyze").await.expect("analyzed");
            fresh = server.uncounted().await;
        }
        let session = if plans == "kept" { &mut *kept } else { &mut fresh };
        let rows = format!("{there} {} rows", beside.name());
        let what = format!("scans of whole tables by all calls, with {plans} plans, beside {rows}");
        let (scans, by) = whole_reads(server, session).await;
        let key = format!("{group}.scans.{plans}");
        // None has no room; where there are some, which plan is taken is a matter of what was sampled.
        found.push(Measure::new(key, what, scans, SCANS).slack(1.2).target(0.0).because(by));
        clear(session).await;
        // What this session did is not to be counted, late, while the next one's is.
        server.tables(session).await;
        if plans == "analyzed" {
            let pages = self::pages(session).await;
            found.extend(ratios(
                &format!("{group}.analyzed"),
                &format!("{rows}, with statistics"),
                &pages,
                &empty,
            ));
        }
    }
    found
}

/// What pages beside `rows` are to those beside none.
fn ratios(group: &str, rows: &str, pages: &[f64], empty: &[f64]) -> Vec<Measure> {
    let ratio = |(((op, n, _), pages), empty): (((&str, usize, usize), &f64), &f64)| {
        let what = format!("pages of {op} of {n} beside {rows}, to those beside none");
        let ratio =
            Measure::new(format!("{group}.{op}_{n}"), what, pages / empty, DEEP).slack(1.05);
        if op == "claim" { ratio.target(TARGET) } else { ratio }
    };
    CALLS.into_iter().zip(pages).zip(empty).map(ratio).collect()
}

/// How often every call reads whole tables, and by which statements.
async fn whole_reads(server: &Watched, session: &mut PgConnection) -> (f64, String) {
    let before = server.tables(session).await;
    let plans = Plans::of(session).await;
    every_call(session).await;
    let spent = server.tables(session).await - before;
    let scans = spent.messages.seq_scans + spent.events.seq_scans;
    let mut by = String::new();
    if let Some(plans) = plans {
        let (tables, seen) = plans.whole_reads();
        assert!(seen > 100, "only {seen} plans were told");
        by = tables.into_iter().collect::<Vec<_>>().join("; ");
        session.execute("set auto_explain.log_min_duration = -1").await.expect("no more plans");
    }
    (count(usize::try_from(scans).expect("not negative")), by)
}

async fn beside(beside: Beside) {
    let server = Watched::new().await;
    let measures = measure(&server, beside, "").await;
    hold(&server, &format!("depth.{}", beside.name()), &measures);
}

#[tokio::test]
async fn calls_beside_waiting_messages_cost_what_they_may() {
    beside(Beside::Waiting).await;
}

#[tokio::test]
async fn calls_beside_delayed_messages_cost_what_they_may() {
    beside(Beside::Delayed).await;
}

#[tokio::test]
async fn calls_beside_finished_messages_cost_what_they_may() {
    beside(Beside::Finished).await;
}

#[tokio::test]
async fn calls_beside_dead_letters_cost_what_they_may() {
    beside(Beside::Dead).await;
}
