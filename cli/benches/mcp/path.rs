//! The bus alone, in this process and without HTTP: what a durable call costs before anybody speaks MCP to it.
//!
//! With `COGO_BENCH_STATEMENTS=1` it also says where Postgres' time goes (`pg_stat_statements`).

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use cogo::bus::{Bus, Feed};
use cogo::clock::Stopwatch;
use cogo::db::embedded::{self, Embedded};
use cogo::live::Live;
use cogo::message::{NewMessage, Status, Topic};
use cogo::shutdown::{Shutdown, Tasks};
use cogo_worker_mcp_gateway::Gateway;
use cogo_worker_mcp_gateway::config::{Config, Toolset};
use futures_util::future::try_join_all;
use serde_json::json;
use sqlx::Row as _;

use crate::load::{AT_ONCE, Measured};
use crate::{number, process, say};

/// The settings with which `pg_stat_statements` is there.
const STATEMENTS: [(&str, &str); 2] =
    [("shared_preload_libraries", "pg_stat_statements"), ("pg_stat_statements.track", "all")];

pub(crate) async fn measure() -> Result<()> {
    let (rounds, calls) = (number("COGO_BENCH_ROUNDS", 5)?, number("COGO_BENCH_CALLS", 400)?);
    let statements = std::env::var_os("COGO_BENCH_STATEMENTS").is_some();
    let mut dir = tempfile::Builder::new();
    dir.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o711));
    let dir = dir.prefix("cogo-bench-").tempdir()?;
    let mut options = embedded::Options::new(dir.path().join("data"));
    if statements {
        options.settings = STATEMENTS.map(|(n, v)| (n.to_owned(), v.to_owned())).into();
    }
    let embedded = Embedded::start(options).await?;
    let database = cogo::db::Options::new(embedded.connect_options());
    let pool = database.pool();
    cogo::db::MIGRATOR.run(&pool).await?;
    if statements {
        sqlx::query("create extension pg_stat_statements").execute(&pool).await?;
    }
    let (tasks, shutdown) = (Tasks::new(), Shutdown::new());
    let hub = Bus::new(pool.clone());
    let feed = Feed::start(hub.clone(), &tasks, &shutdown);
    let toolset =
        Toolset { max_in_flight: AT_ONCE[2], ..Toolset::command(process::echo()?, ["echo"]) };
    let config = Config { toolsets: [("bench".to_owned(), toolset)].into(), ..Config::default() };
    let gateway = Gateway::start(config, None, &shutdown);
    let context = cogo::worker::Context {
        bus: hub.beside(database.pool()),
        worker_id: "bench".to_owned(),
        tenant: "default".to_owned(),
        concurrency: AT_ONCE[2],
        prefetch: cogo::worker::Prefetch::Auto,
        lease: Duration::from_secs(30),
        drain: Duration::from_secs(10),
        retry: Live::default(),
        breaker: Live::default(),
        config_dir: dir.path().to_owned(),
        artifacts_dir: dir.path().join("artifacts"),
        artifacts: cogo::artifact::Store::folder(dir.path(), cogo::artifact::Limits::default()),
        reread: Live::default(),
        shutdown: shutdown.clone(),
        ready: tokio::sync::watch::Sender::new(false),
    };
    let worked =
        async { gateway.work(&context).await.map_err(|error| anyhow::anyhow!(error.to_string())) };
    let measured = async {
        for round in 0..=rounds {
            for at_once in AT_ONCE {
                let calls = if at_once == 1 { calls } else { calls * 2 };
                let seen = Stats::look(&pool, statements && round == rounds).await?;
                let before = process::cpu_of(&[std::process::id()]).unwrap_or_default();
                let measured = some(&hub, &feed, calls, at_once).await?;
                let cpu = process::cpu_of(&[std::process::id()]).unwrap_or_default() - before;
                let cpu = cpu.as_secs_f64() * 1e3 / measured.each.len() as f64;
                say(&format!(
                    "round {round}, {at_once} at once: p50 {:.2} ms, p95 {:.2} ms, {:.0} calls/s, \
                     {cpu:.2} ms of processor a call in all",
                    measured.quantile(0.5).as_secs_f64() * 1e3,
                    measured.quantile(0.95).as_secs_f64() * 1e3,
                    measured.calls_a_second()
                ));
                seen.tell(&pool, measured.each.len()).await?;
            }
        }
        shutdown.drain();
        anyhow::Ok(())
    };
    let ended = tokio::try_join!(worked, measured);
    shutdown.cancel();
    gateway.shutdown().await;
    tasks.join(Duration::from_secs(5)).await;
    pool.close().await;
    embedded.stop().await?;
    ended.map(drop)
}

async fn some(hub: &Bus, feed: &Feed, calls: usize, at_once: usize) -> Result<Measured> {
    let topic = Arc::new(Topic::new("mcp-gateway", "bench")?);
    let watch = Stopwatch::start();
    let callers = (0..at_once).map(|caller| {
        let (hub, feed, topic) = (hub.clone(), feed.clone(), Arc::clone(&topic));
        async move {
            let calling = async move {
                let mut each = Vec::new();
                for number in 0..calls.div_ceil(at_once) {
                    let text = format!("caller {caller}, call {number}");
                    let payload =
                        json!({"toolset": "bench", "tool": "echo", "params": {"message": text}});
                    let watch = Stopwatch::start();
                    let message = NewMessage::new(&topic, "mcp.call", payload);
                    let id = hub.publish(message).await?.id;
                    let message = feed.wait(id, Duration::from_secs(30)).await?;
                    each.push(watch.elapsed());
                    ensure!(message.status == Status::Done, "not done: {:?}", message.error);
                    let result = message.result.context("a result")?;
                    ensure!(result["content"][0]["text"] == *text, "another answer: {result}");
                }
                Ok(each)
            };
            #[allow(clippy::disallowed_methods, reason = "a measurement's own tasks")]
            let calling = tokio::spawn(calling);
            calling.await?
        }
    });
    let mut each = try_join_all(callers).await?.concat();
    let all = watch.elapsed();
    each.sort_unstable();
    Ok(Measured { each, all })
}

/// What Postgres has done so far.
struct Stats {
    wanted: bool,
}

impl Stats {
    async fn look(pool: &sqlx::PgPool, wanted: bool) -> Result<Self> {
        if wanted {
            sqlx::query("select pg_stat_statements_reset(), pg_stat_reset_shared('wal')")
                .execute(pool)
                .await?;
        }
        Ok(Self { wanted })
    }

    async fn tell(self, pool: &sqlx::PgPool, calls: usize) -> Result<()> {
        if !self.wanted {
            return Ok(());
        }
        let calls = calls as f64;
        let wal = sqlx::query(
            "select wal_records, wal_bytes::float8 as bytes, wal_sync from pg_stat_wal",
        )
        .fetch_one(pool)
        .await?;
        say(&format!(
            "  a call: {:.1} records of WAL, {:.0} bytes, {:.2} flushes",
            wal.get::<i64, _>("wal_records") as f64 / calls,
            wal.get::<f64, _>("bytes") / calls,
            wal.get::<i64, _>("wal_sync") as f64 / calls
        ));
        let rows = sqlx::query(
            "select toplevel, calls, total_exec_time + total_plan_time as ms,
                left(regexp_replace(query, '\\s+', ' ', 'g'), 110) as query
            from pg_stat_statements order by toplevel desc, 3 desc limit 30",
        )
        .fetch_all(pool)
        .await?;
        for row in rows {
            say(&format!(
                "  {} {:.3} ms a call, {:.2} times a call: {}",
                if row.get("toplevel") { "*" } else { " " },
                row.get::<f64, _>("ms") / calls,
                row.get::<i64, _>("calls") as f64 / calls,
                row.get::<String, _>("query")
            ));
        }
        Ok(())
    }
}
