//! `/metrics` of a busy process, read by Prometheus' own parser; and the SQL of the runbooks.
//!
//! `tests/ops/install.sh` installs the parser, as `.ci/run` does.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cogo::testing::TestDb;
use serde_json::json;
use sqlx::{AssertSqlSafe, Executor as _};

use crate::support::{Cogo, http, until};
use crate::up::Home;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace").to_owned()
}

/// What `tests/ops/metrics.py` says of an exposition; whether it found nothing wrong.
fn judged(exposition: &str, wanted: &[&str]) -> (bool, String) {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let python = target.unwrap_or_else(|| root().join("target")).join("ops/py/bin/python");
    assert!(python.exists(), "{} is missing: run tests/ops/install.sh", python.display());
    let mut judge = Command::new(python)
        .arg(root().join("tests/ops/metrics.py"))
        .args(wanted.iter().flat_map(|name| ["--want", name]))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("python starts");
    let mut stdin = judge.stdin.take().expect("a pipe");
    stdin.write_all(exposition.as_bytes()).expect("the exposition is read");
    drop(stdin);
    let done = judge.wait_with_output().expect("python ends");
    (done.status.success(), String::from_utf8_lossy(&done.stderr).into_owned())
}

#[tokio::test]
async fn what_a_busy_process_exposes_is_what_is_listed() {
    let db = TestDb::new().await;
    let home = Home::new(Cogo::on(&db));
    let up = home.up();
    let enqueue = |tool: &str, params: serde_json::Value| {
        let body = json!({"toolset": "demo", "tool": tool, "params": params}).to_string();
        let url = format!("{}/api/mcp/enqueue", up.url);
        let (status, accepted) = http("POST", &url, Some(&up.token), &body);
        assert_eq!(status, 202, "{accepted}");
        accepted["id"].as_str().expect("an id").to_owned()
    };
    let mut sent: Vec<_> =
        (0..20).map(|n| enqueue("echo", json!({"message": n.to_string()}))).collect();
    sent.extend((0..5).map(|_| enqueue("fail", json!({"message": "no"}))));
    // For a role that nobody serves.
    home.cogo.ok(&["enqueue", "nobody/here", "x"]);
    let settled = || {
        sent.iter().all(|id| {
            let (_, answer) = up.get(&format!("/api/messages/{id}"));
            ["done", "failed"].contains(&answer["message"]["status"].as_str().unwrap_or_default())
        })
    };
    assert!(until(settled));
    assert_eq!(http("GET", &format!("{}/rest/v1/agent_messages", up.url), None, "").0, 401);

    let wanted = [
        "cogo_queue_messages",
        "cogo_queue_oldest_seconds",
        "cogo_parked_messages",
        "cogo_pending_tasks",
        "cogo_workers_online",
        "cogo_hub_ready",
        "cogo_feed_age_seconds",
        "cogo_claim_latency_ms",
        "cogo_settle_latency_ms",
        "cogo_handler_latency_ms",
        "cogo_settles_total",
        "cogo_handlers_in_flight",
        "cogo_bus_events_total",
        "cogo_messages_published_total",
        "cogo_mcp_calls_total",
        "cogo_mcp_fail_total",
        "cogo_mcp_latency_ms",
        "cogo_rest_requests_total",
        "cogo_rest_latency_ms",
        "cogo_circuit_open_total",
        "cogo_build_info",
    ];
    let mut said = String::new();
    // The queue's gauges are up to five seconds old.
    let listed = until(|| {
        let (_, metrics) = up.get("/metrics");
        let metrics = metrics.as_str().expect("text").to_owned();
        let waiting = "cogo_pending_tasks{role=\"nobody\",service=\"here\"} 1";
        if !metrics.contains(waiting) || !metrics.contains("cogo_workers_online{role=") {
            said = format!("{waiting} is missing:\n{metrics}");
            return false;
        }
        let (right, wrong) = judged(&metrics, &wanted);
        said = format!("{wrong}\n{metrics}");
        assert!(right, "{said}");
        true
    });
    assert!(listed, "{said}");
    up.running.stop();
}

#[test]
fn a_metric_that_is_not_listed_is_found() {
    for (exposition, wrong) in [
        ("# HELP cogo_new x\n# TYPE cogo_new gauge\ncogo_new 1\n", "cogo_new: not in"),
        ("# TYPE cogo_hub_ready gauge\ncogo_hub_ready 1\n", "has no HELP"),
        (
            "# HELP cogo_hub_ready x\n# TYPE cogo_hub_ready gauge\ncogo_hub_ready{message=\"1\"} 1\n",
            "has the labels ['message']",
        ),
        (
            "# HELP cogo_feed_age_seconds x\n# TYPE cogo_feed_age_seconds untyped\ncogo_feed_age_seconds 1\n",
            "should be a gauge",
        ),
    ] {
        let (right, said) = judged(exposition, &[]);
        assert!(!right && said.contains(wrong), "{wrong}: {said}");
    }
}

/// A runbook is read when something burns; its SQL must run.
#[tokio::test]
async fn the_sql_of_the_runbooks_runs() {
    let db = TestDb::new().await;
    let page = std::fs::read_to_string(root().join("docs/runbooks.md")).expect("the runbooks");
    let page = page.replace("(PID)", "(0)");
    let statements: Vec<&str> =
        page.split('`').filter(|text| text.starts_with("select ") && text.ends_with(';')).collect();
    assert!(statements.len() >= 8, "{statements:?}");
    let mut connection = db.pool().acquire().await.expect("a connection");
    for statement in statements {
        let ran = connection.execute(AssertSqlSafe(statement.to_owned())).await;
        ran.unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
}
