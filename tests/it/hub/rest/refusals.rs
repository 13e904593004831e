//! Bounds, and a database that does not do as it is asked.

use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::body::Body;
use cogo::db;
use cogo::hub::{Options, Rest};
use cogo::testing::TestDb;
use futures_util::FutureExt as _;
use serde_json::json;
use sqlx::AssertSqlSafe;

use crate::fixtures::eventually;
use crate::hub::rest::{Sent, published, service, worker_of};
use crate::hub::{DEADLINE, Setup, TestHub, request};

fn with(rest: Rest) -> Setup {
    Setup { options: Options { rest, ..Options::default() }, ..Setup::default() }
}

#[tokio::test]
async fn bodies_and_answers_are_bounded() -> Result<()> {
    let rest = Rest { max_body_bytes: 4096, max_answer_bytes: 2048, ..Rest::default() };
    let hub = TestHub::with(with(rest)).await?;
    published(&hub, 8).await?;
    let key = service();
    let large = json!({"messages": "x".repeat(5000)});
    let told = Sent::post("/rest/v1/rpc/bus_enqueue", &key, &large).to(&hub).await?;
    assert!(told.refusal(413, "CG413")?.contains("4096 bytes"), "{told:?}");
    // The same without a length that says so.
    let text = large.to_string();
    let parts = text.as_bytes().chunks(100).map(|part| Ok::<_, std::io::Error>(part.to_vec()));
    let parts: Vec<_> = parts.collect();
    let body = Body::from_stream(futures_util::stream::iter(parts));
    let stream = request("POST", "/rest/v1/rpc/bus_enqueue").header("apikey", &key).body(body)?;
    hub.send(stream).await?.refusal(413, "CG413")?;

    let told = Sent::get("/rest/v1/agent_messages", &key).to(&hub).await?.refusal(413, "CG413")?;
    assert!(told.contains("2048 bytes") && told.contains("select"), "{told}");
    let claim = json!({"worker": "w", "topics": ["hub-test/here"], "max": 8, "tenant": "acme"});
    Sent::post("/rest/v1/rpc/bus_claim", &key, &claim).to(&hub).await?.refusal(413, "CG413")?;
    let few = json!({"worker": "w", "topics": ["hub-test/here"], "max": 1, "tenant": "acme"});
    // The refusal may be told a moment before the database has let go of what it undoes.
    eventually("one is claimed", async || {
        let answer = Sent::post("/rest/v1/rpc/bus_claim", &key, &few).to(&hub).await.expect("sent");
        let claimed = answer.json().expect("JSON").as_array().map(Vec::len);
        (claimed == Some(1)).then_some(())
    })
    .await;
    let sql = "select count(*) from agent_messages where status = 'claimed'";
    let claimed: i64 =
        sqlx::query_scalar(sql).fetch_one(hub.bus.pool().expect("a database")).await?;
    assert_eq!(claimed, 1, "the claim that could not be answered was undone");
    Ok(())
}

#[tokio::test]
async fn rows_are_given_in_pages() -> Result<()> {
    let hub = TestHub::with(with(Rest { max_rows: 3, ..Rest::default() })).await?;
    published(&hub, 4).await?;
    let key = service();
    for query in ["", "limit=100", "limit=3"] {
        let path = format!("/rest/v1/agent_messages?{query}");
        let answer = Sent::get(&path, &key).header("prefer", "count=exact").to(&hub).await?;
        assert_eq!(
            (answer.status.as_u16(), answer.header("content-range")),
            (206, "0-2/8"),
            "{query}"
        );
    }
    // What a function gave is never cut short.
    let claim = json!({"worker": "w", "topics": ["hub-test/here"], "max": 4, "tenant": "acme"});
    let answer = Sent::post("/rest/v1/rpc/bus_claim", &key, &claim).to(&hub).await?;
    assert_eq!(answer.json()?.as_array().map(Vec::len), Some(4));
    Ok(())
}

#[tokio::test]
async fn a_statement_that_takes_too_long_is_ended_by_the_database() -> Result<()> {
    let hub = TestHub::with(with(Rest { statement_timeout_ms: 200, ..Rest::default() })).await?;
    let sql = "create function public.bus_t_slow() returns int language sql as 'select 1 from pg_sleep(3600)'";
    sqlx::raw_sql(sql).execute(hub.bus.pool().expect("a database")).await?;
    let key = worker_of("acme");
    let answer = Sent::post("/rest/v1/rpc/bus_t_slow", &key, "{}").to(&hub).await?;
    assert!(answer.refusal(500, "57014")?.contains("statement timeout"), "{answer:?}");
    Ok(())
}

#[tokio::test]
async fn a_request_that_is_dropped_is_undone_and_gives_its_place_back() -> Result<()> {
    let hub = TestHub::with(with(Rest { max_connections: 1, ..Rest::default() })).await?;
    let sql = "create function public.bus_t_stuck() returns int language sql as 'select 1 from pg_sleep(3600)'";
    sqlx::raw_sql(sql).execute(hub.bus.pool().expect("a database")).await?;
    let key = service();
    let stuck = "select count(*) from pg_stat_activity where datname = current_database() and query like '%bus_t_stuck%' and state = 'active' and pid <> pg_backend_pid()";
    let count = async || {
        sqlx::query_scalar::<_, i64>(stuck).fetch_one(hub.bus.pool().expect("a database")).await
    };
    // More of them than there are connections.
    for _ in 0..2 {
        let sent = Sent::post("/rest/v1/rpc/bus_t_stuck", &key, "{}");
        let calling = sent.to(&hub);
        let running = async {
            while count().await? == 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            anyhow::Ok(())
        };
        tokio::select! {
            answer = calling => anyhow::bail!("it was answered: {answer:?}"),
            running = tokio::time::timeout(DEADLINE, running) => running.context("it runs")??,
        }
        let gone = async {
            while count().await? > 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            anyhow::Ok(())
        };
        // The server looks each second whether its client is still there.
        tokio::time::timeout(DEADLINE, gone).await.context("the server gave up on it")??;
    }
    let answer = Sent::get("/rest/v1/rpc/bus_stats", &key).to(&hub).await?;
    assert_eq!(answer.status, 200);
    Ok(())
}

/// How many calls of `bus_t_stuck` the database works on, and since when on the last one.
async fn stuck(hub: &TestHub) -> Result<(i64, String)> {
    let sql = "select count(*), coalesce(max(query_start)::text, '') from pg_stat_activity
        where datname = current_database() and query like '%bus_t_stuck%' and state = 'active' and pid <> pg_backend_pid()";
    Ok(sqlx::query_as(sql).fetch_one(hub.bus.pool().expect("a database")).await?)
}

async fn with_stuck(max_connections: u32) -> Result<TestHub> {
    let rest = Rest { max_connections, ..Rest::default() };
    let hub = TestHub::with(with(rest)).await?;
    let sql = "create function public.bus_t_stuck() returns int language sql as 'select 1 from pg_sleep(3600)'";
    sqlx::raw_sql(sql).execute(hub.bus.pool().expect("a database")).await?;
    Ok(hub)
}

#[tokio::test]
async fn what_takes_one_tenant_long_keeps_no_other_waiting() -> Result<()> {
    let hub = with_stuck(4).await?;
    let (acme, globex) = (worker_of("acme"), worker_of("globex"));
    let sent = Sent::post("/rest/v1/rpc/bus_t_stuck", &acme, "{}");
    let calls = futures_util::future::join_all((0..8).map(|_| sent.to(&hub)));
    let other = async {
        while stuck(&hub).await?.0 < 3 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let answer = Sent::get("/rest/v1/workers", &globex).to(&hub).await?;
        anyhow::ensure!(answer.status == 200, "{answer:?}");
        anyhow::ensure!(stuck(&hub).await?.0 == 3, "one connection is left to others");
        anyhow::Ok(())
    };
    tokio::select! {
        _ = calls => anyhow::bail!("they were answered"),
        other = tokio::time::timeout(DEADLINE, other) => other.context("it is served")?,
    }
}

#[tokio::test]
async fn whoever_sends_and_goes_does_not_make_the_database_work_on_more_and_more() -> Result<()> {
    let hub = with_stuck(4).await?;
    let key = worker_of("acme");
    for _ in 0..8 {
        let (_, before) = stuck(&hub).await?;
        let sent = Sent::post("/rest/v1/rpc/bus_t_stuck", &key, "{}");
        let begun = async {
            loop {
                let (count, last) = stuck(&hub).await?;
                anyhow::ensure!(count <= 4, "{count} at once");
                if last > before {
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            answer = sent.to(&hub) => anyhow::bail!("it was answered: {answer:?}"),
            begun = tokio::time::timeout(DEADLINE, begun) => begun.context("it runs")??,
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_row_that_is_too_large_does_not_leave_the_database() -> Result<()> {
    let rest = Rest { max_answer_bytes: 2048, ..Rest::default() };
    let hub = TestHub::with(with(rest)).await?;
    published(&hub, 1).await?;
    let sql =
        "update agent_messages set payload = to_jsonb(repeat('x', 5000)) where tenant = 'acme'";
    sqlx::raw_sql(sql).execute(hub.bus.pool().expect("a database")).await?;
    let key = worker_of("acme");
    for accept in ["application/json", "text/csv", "application/vnd.pgrst.object+json"] {
        let sent = Sent::get("/rest/v1/agent_messages?select=payload", &key);
        sent.header("accept", accept).to(&hub).await?.refusal(413, "CG413")?;
    }
    // Neither is it made larger first.
    let path = "/rest/v1/agent_messages?select=a:payload,b:payload,c:payload,d:payload";
    let told = Sent::get(path, &key).to(&hub).await?.refusal(400, "PGRST100")?;
    assert!(told.contains("at most three times"), "{told}");
    let answer = Sent::get("/rest/v1/agent_messages?select=id", &key)
        .header("prefer", "count=exact")
        .to(&hub)
        .await?;
    assert_eq!((answer.status.as_u16(), answer.header("content-range")), (200, "0-0/1"));
    Ok(())
}

#[tokio::test]
async fn a_name_with_a_nul_is_refused_before_it_becomes_sql() -> Result<()> {
    let hub = TestHub::new().await?;
    let key = worker_of("acme");
    for query in ["select=payload->%22a%00b%22", "select=%22a%00b%22", "order=payload->%22a%00%22"]
    {
        let path = format!("/rest/v1/agent_messages?{query}");
        Sent::get(&path, &key).to(&hub).await?.refusal(400, "PGRST100")?;
    }
    Ok(())
}

#[tokio::test]
async fn a_hub_that_may_not_act_for_callers_says_how_it_could() -> Result<()> {
    let db = TestDb::new().await;
    let login = format!("{}_login", db.name());
    let sql = format!("create role {login} login in role cogo_operator");
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(db.pool()).await?;
    let pool = db::Options::new(db.connect_options().username(&login)).pool();
    let dropped = db.pool().clone();
    let tested = async {
        let hub = TestHub::over(pool, None, Setup::default())?;
        let answer = Sent::get("/rest/v1/agent_messages", &service()).to(&hub).await?;
        let told = answer.refusal(503, "PGRST000")?;
        anyhow::ensure!(told.contains("grant cogo_hub to"), "{told}");
        let sql = format!("grant cogo_hub to {login}");
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(db.pool()).await?;
        let answer = Sent::get("/rest/v1/agent_messages", &worker_of("acme")).to(&hub).await?;
        anyhow::ensure!(answer.text == "[]", "{answer:?}");
        anyhow::Ok(())
    };
    let tested = std::panic::AssertUnwindSafe(tested).catch_unwind().await;
    let sql = format!("drop owned by {login}; drop role {login}");
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&dropped).await?;
    tested.expect("no panic")
}

#[tokio::test]
async fn without_a_database_it_says_so_and_when_to_come_back() -> Result<()> {
    let hub = TestHub::without_database(Setup::default())?;
    let key = service();
    for answer in [
        Sent::get("/rest/v1/agent_messages", &key).to(&hub).await?,
        Sent::post("/rest/v1/rpc/bus_reap", &key, "{}").to(&hub).await?,
    ] {
        answer.refusal(503, "PGRST002")?;
        assert_eq!(answer.header("retry-after"), "1");
    }
    // A wrong name for the hub, and headers without end, are refused in the same words.
    let host = request("GET", "/rest/v1/workers").header("host", "evil.example");
    hub.send(host.body(Body::empty())?).await?.refusal(400, "CG400")?;
    let long = "x".repeat(20_000);
    Sent::get("/rest/v1/workers", &key)
        .header("x-long", &long)
        .to(&hub)
        .await?
        .refusal(431, "CG431")?;
    Ok(())
}
