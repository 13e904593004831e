//! `cogo bench` as an operator runs it, with tiny numbers: that it measures and leaves nothing, not how fast.

use std::path::Path;

use cogo::testing::TestDb;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Row as _};

use crate::support::{Cogo, Done, temp_dir};

/// Numbers with which a scenario takes seconds, also on a busy machine.
const TINY: [&str; 15] = [
    "--quick",
    "--seconds",
    "1",
    "--messages",
    "60",
    "--workers",
    "1,2",
    "--depth",
    "40",
    "--subscribers",
    "5",
    "--rate",
    "50",
    "--concurrency",
    "10",
];

/// Runs scenarios to their end; the report, which must be as its schema says.
fn bench(cogo: &Cogo, scenarios: &[&str], more: &[&str]) -> Value {
    let out = temp_dir();
    let path = out.path().display().to_string();
    let args = [&["bench"], scenarios, &TINY, &["--out", &path], more].concat();
    let done = cogo.ok(&args);
    let report = report_in(out.path());
    for told in list(&report["scenarios"]) {
        assert_eq!(told["outcome"], "complete", "{told}");
        assert!(!list(&told["measurements"]).is_empty(), "{told}");
        for plot in list(&told["plots"]) {
            let plot = plot.as_str().expect("a name");
            let svg = std::fs::read_to_string(out.path().join(plot)).expect("a plot");
            assert!(svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>"), "{plot}");
        }
        assert!(!list(&told["plots"]).is_empty(), "{told}");
        let name = told["name"].as_str().expect("a name");
        assert!(done.stdout.contains(name), "the table lacks {name}: {}", done.stdout);
    }
    assert_eq!(report["complete"], true);
    let names: Vec<_> = list(&report["scenarios"]).iter().map(|told| &told["name"]).collect();
    assert_eq!(names, scenarios, "in the order in which they were asked for");
    report
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

/// The report, held to the schema that docs/benchmarks.md names.
fn report_in(dir: &Path) -> Value {
    let text = std::fs::read_to_string(dir.join("report.json")).expect("a report");
    let report: Value = serde_json::from_str(&text).expect("JSON");
    let schema: Value =
        serde_json::from_str(include_str!("../../src/bench/report.schema.json")).expect("JSON");
    let schema = jsonschema::validator_for(&schema).expect("a schema");
    let errors: Vec<_> = schema.iter_errors(&report).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{errors:?} in {text}");
    report
}

/// The figure of a case.
#[track_caller]
fn median(report: &Value, scenario: &str, case: &str, metric: &str) -> f64 {
    let scenarios = list(&report["scenarios"]);
    let told = scenarios.iter().find(|told| told["name"] == scenario).expect("the scenario");
    let found = list(&told["measurements"])
        .iter()
        .find(|m| m["case"].as_str().is_some_and(|c| c.contains(case)) && m["metric"] == metric);
    let found = found.unwrap_or_else(|| panic!("{scenario} has no {metric} of {case}: {told}"));
    found["median"].as_f64().expect("a number")
}

/// The databases of a run that are still there.
async fn left_behind(db: &TestDb, report: &Value) -> Vec<String> {
    let prefix = report["postgres"]["databases"].as_str().expect("a name");
    assert!(prefix.starts_with("cogo_bench_"), "{prefix}");
    let rows =
        sqlx::query("select datname::text from pg_database where starts_with(datname::text, $1)")
            .bind(prefix)
            .fetch_all(db.pool())
            .await
            .expect("the catalogue");
    rows.iter().map(|row| row.get(0)).collect()
}

/// All that is in the operator's own database.
async fn contents(db: &TestDb) -> String {
    sqlx::query_scalar(
        "select concat((select jsonb_agg(to_jsonb(m) order by m.id) from public.agent_messages m),
            (select jsonb_agg(to_jsonb(e) order by e.seq) from public.bus_events e),
            (select count(*) from public.workers),
            (select count(*) from pg_class), (select count(*) from pg_proc))",
    )
    .fetch_one(db.pool())
    .await
    .expect("its contents")
}

#[tokio::test]
async fn streams_are_measured_beside_an_operators_database_which_stays_as_it_is() {
    let db = TestDb::new().await;
    let cogo = Cogo::on(&db);
    cogo.ok(&["enqueue", "bench/work", "bench.work", "{\"n\": 1}"]);
    let before = contents(&db).await;
    let report = bench(&cogo, &["steady", "enqueue", "drain", "wakeup"], &[]);
    assert_eq!(contents(&db).await, before);
    assert_eq!(left_behind(&db, &report).await, Vec::<String>::new());

    for case in
        ["1 producer, one", "8 producers, one", "32 producers, one", "1 producer, batches of 100"]
    {
        assert!(median(&report, "enqueue", case, "enqueued") > 0.0);
        assert!(median(&report, "enqueue", case, "p99") >= median(&report, "enqueue", case, "p50"));
    }
    for case in ["60 messages, 1 worker", "60 messages, 2 workers"] {
        assert!(median(&report, "drain", case, "drained") > 0.0);
    }
    for (scenario, case) in [("steady", "50 a second, "), ("wakeup", "10 a second, ")] {
        for place in ["two processes", "one process"] {
            assert!(median(&report, scenario, &format!("{case}{place}"), "p50") > 0.0);
        }
    }
    // The tests' server does not keep what it acknowledges, which must be told loudly.
    assert_eq!(report["postgres"]["durable"], false);
    assert_eq!(report["postgres"]["settings"]["fsync"], "off");
    assert_eq!(report["postgres"]["started_for_the_run"], false);
    let warnings = report["warnings"].to_string();
    assert!(warnings.contains("NOT DURABLE: fsync is off"), "{warnings}");
}

#[tokio::test]
async fn the_far_way_and_the_memory_are_measured_by_processes_of_their_own() {
    let db = TestDb::new().await;
    let report = bench(&Cogo::on(&db), &["far", "memory"], &[]);
    assert!(median(&report, "far", "32 producers, one", "enqueued") > 0.0);
    assert!(median(&report, "far", "10 a second", "p95") > 0.0);
    for process in ["idle hub", "idle worker"] {
        // A process that did not run would have none; one of this size has megabytes.
        assert!(median(&report, "memory", process, "resident") > 2_000.0);
        assert!(median(&report, "memory", process, "anonymous") > 500.0);
    }
    assert_eq!(left_behind(&db, &report).await, Vec::<String>::new());
}

#[tokio::test]
async fn each_subscriber_is_told_of_each_change() {
    let db = TestDb::new().await;
    let report = bench(&Cogo::on(&db), &["fanout"], &[]);
    let last = median(&report, "fanout", "5 subscribers, the last", "max");
    assert!(last >= median(&report, "fanout", "5 subscribers, the first", "p50"));
    assert!(median(&report, "fanout", "hub with them idle", "resident") > 2_000.0);
    assert_eq!(left_behind(&db, &report).await, Vec::<String>::new());
}

#[tokio::test]
async fn what_many_rows_and_time_do_to_the_tables_is_measured() {
    let db = TestDb::new().await;
    let report = bench(&Cogo::on(&db), &["depth", "held"], &[]);
    for state in ["waiting", "delayed", "finished"] {
        for at_once in ["1", "10", "100"] {
            let case = format!("{at_once} beside 40 {state}");
            assert!(median(&report, "depth", &case, "ratio of p50") > 0.0);
        }
    }
    assert!(median(&report, "held", "transaction held open", "end, to that without one") > 0.0);
    assert!(!list(&report["scenarios"][1]["series"]).is_empty(), "the speed over the messages");
    assert_eq!(left_behind(&db, &report).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_figure_is_the_median_of_its_rounds() {
    let db = TestDb::new().await;
    let report = bench(&Cogo::on(&db), &["churn", "tail", "notify"], &["--rounds", "2"]);
    assert!(median(&report, "churn", "60 messages", "log a message, with its indexes") > 100.0);
    assert!(median(&report, "tail", "pages of 100", "read") > 0.0);
    assert!(median(&report, "notify", "heard by 16", "enqueued") > 0.0);
    let rounds =
        |told: &Value| list(&told["measurements"]).iter().all(|m| list(&m["rounds"]).len() == 2);
    assert!(list(&report["scenarios"]).iter().all(rounds), "{report}");
    let mean =
        |m: &Value| (m["min"].as_f64().expect("one") + m["max"].as_f64().expect("one")) / 2.0;
    for measured in list(&report["scenarios"][1]["measurements"]) {
        assert!(
            (measured["median"].as_f64().expect("one") - mean(measured)).abs() < 1e-6,
            "{measured}"
        );
    }
    assert_eq!(left_behind(&db, &report).await, Vec::<String>::new());
}

#[tokio::test]
async fn an_interrupted_run_keeps_what_was_measured_and_drops_its_databases() {
    let db = TestDb::new().await;
    let (cogo, out) = (Cogo::on(&db), temp_dir());
    let path = out.path().display().to_string();
    let scenarios = ["tail", "steady", "memory"];
    let more = ["--quick", "--messages", "60", "--seconds", "3600", "--out", &path];
    let mut running = cogo.start(&[&["bench"], scenarios.as_slice(), &more].concat());
    running.stderr.wait("steady: 200 a second");
    let made: i64 =
        sqlx::query_scalar("select count(*) from pg_database where datname ~ '^cogo_bench_'")
            .fetch_one(db.pool())
            .await
            .expect("the catalogue");
    assert!(made > 0, "it measures in databases of its own");
    running.signal("INT");
    assert_eq!(running.end(), Some(130), "{}", running.stderr.text());
    let report = report_in(out.path());
    assert_eq!(report["complete"], false);
    let outcomes: Vec<_> = list(&report["scenarios"]).iter().map(|told| &told["outcome"]).collect();
    assert_eq!(outcomes, ["complete", "partial", "not_run"], "{report}");
    assert!(median(&report, "tail", "pages of 100", "read") > 0.0);
    assert_eq!(left_behind(&db, &report).await, Vec::<String>::new());
}

#[test]
fn without_a_database_it_starts_a_durable_one_and_leaves_nothing_of_it() {
    let temporary = temp_dir();
    let path = temporary.path().display().to_string();
    let cogo = Cogo::new().with("TMPDIR", &path);
    let report = bench(&cogo, &["tail"], &["--set", "shared_buffers=64MB"]);
    let postgres = &report["postgres"];
    assert_eq!(
        (&postgres["durable"], &postgres["started_for_the_run"]),
        (&true.into(), &true.into())
    );
    for setting in ["fsync", "synchronous_commit", "full_page_writes"] {
        assert_eq!(postgres["settings"][setting], "on", "{postgres}");
    }
    assert_eq!(postgres["settings"]["shared_buffers"], "64MB", "{postgres}");
    let left: Vec<_> = std::fs::read_dir(temporary.path()).expect("a directory").collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn the_list_tells_of_all_that_can_be_measured() {
    let listed = Cogo::new().json(&["bench", "list"]);
    let names: Vec<_> =
        list(&listed).iter().map(|told| told["name"].as_str().expect("a name")).collect();
    let help = Cogo::new().ok(&["bench", "--help"]).stdout;
    for name in &names {
        assert!(help.contains(name), "{name} is missing: {help}");
    }
    assert_eq!(names.len(), 12);
    let shown = Cogo::new().ok(&["bench", "list"]).stdout;
    assert!(names.iter().all(|name| shown.contains(name)), "{shown}");
    assert!(help.contains("Examples:") && help.contains("cogo bench drain --messages"), "{help}");
}

#[tokio::test]
async fn what_cannot_be_measured_is_refused_and_nothing_is_made() {
    let db = TestDb::new().await;
    let (cogo, out) = (Cogo::on(&db), temp_dir());
    let file = out.path().join("file");
    std::fs::write(&file, "").expect("a file");
    let below = file.join("below").display().to_string();
    let elsewhere = out.path().join("out").display().to_string();
    let refused = |more: &[&str], words: &[&str]| {
        let done: Done = cogo.run(&[&["bench", "--out", &elsewhere], more].concat());
        done.refused(2, words);
    };
    refused(&["all", "--rounds", "0"], &["--rounds: must be from 1 to 100"]);
    refused(&["drain", "--messages", "5,0"], &["--messages: must be from 1"]);
    refused(&["drain", "--workers", "1000"], &["--workers: must be from 1 to 256"]);
    refused(&["steady", "--rate", "0"], &["--rate: must be from 1"]);
    refused(&["list", "drain"], &["list: stands alone"]);
    refused(
        &["tail", "--set", "jit=off"],
        &["--set: is for the Postgres that is started", "--local"],
    );
    refused(&["tail", "--local", "--set", "jit"], &["--set jit: must be NAME=VALUE"]);
    refused(&["nothing"], &["nothing"]);
    refused(&[], &["SCENARIO"]);
    let done = cogo.run(&["bench", "tail", "--out", &below]);
    done.refused(2, &["--out", "file"]);
    let flag = ["bench", "tail", "--local", "--database-url", &db.url()];
    Cogo::new().run(&flag).refused(2, &["--local and --database-url: only one"]);
    let hub = "https://hub.example.com";
    for way in ["--url", "--database-url"] {
        let done = Cogo::new().run(&["bench", "far", way, hub]);
        done.refused(2, &["over HTTPS cannot be measured from outside", "--database-url", "`far`"]);
    }
    assert!(!Path::new(&elsewhere).exists(), "nothing is written");
}

#[tokio::test]
async fn a_login_that_may_not_create_databases_is_told_what_to_ask_for() {
    let db = TestDb::new().await;
    let login = format!("poor_{}", db.name());
    let create = format!("create role {login:?} login password 'x'");
    sqlx::query(AssertSqlSafe(create)).execute(db.pool()).await.expect("a role");
    let (user, url) = (db.connect_options().get_username().to_owned(), db.url());
    let (as_owner, as_poor) = (format!("//{user}"), format!("//{login}:x"));
    assert!(url.contains(&as_owner), "{url}");
    let out = temp_dir();
    let path = out.path().join("out").display().to_string();
    let poor = url.replacen(&as_owner, &as_poor, 1);
    let args = ["bench", "tail", "--quick", "--out", &path, "--database-url", &poor];
    let done = Cogo::new().run(&args);
    let drop = format!("drop role {login:?}");
    sqlx::query(AssertSqlSafe(drop)).execute(db.pool()).await.expect("it goes");
    done.refused(4, &["may not create databases", "alter role", "createdb", &login]);
}
