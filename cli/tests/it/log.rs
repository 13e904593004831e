use std::io::{BufRead as _, BufReader, Read as _};
use std::process::Stdio;

use cogo::testing::TestDb;
use serde_json::Value;

use crate::support::{Cogo, until};

fn lines(stdout: &str) -> Vec<Value> {
    stdout.lines().map(|line| serde_json::from_str(line).expect("an event a line")).collect()
}

/// What `cogo tail` shows with these arguments, once the last of it is of the message `last`: the log ends below the oldest
/// transaction of the whole server, so other tests hold it up.
fn tail(cogo: &Cogo, args: &[&str], last: &str) -> Vec<Value> {
    let mut events = Vec::new();
    let there = until(|| {
        events = lines(&cogo.ok(&[&["tail"], args, &["--json"]].concat()).stdout);
        events.last().is_some_and(|event| event["message_id"] == last)
    });
    assert!(there, "{args:?}: {events:?}");
    events
}

#[tokio::test]
async fn tail_shows_the_end_of_the_log_in_order() {
    let db = TestDb::new().await;
    let cogo = Cogo::on(&db);
    let enqueue = || cogo.ok(&["enqueue", "echo/default", "echo"]).line().to_owned();
    let ids: Vec<_> = (0..4).map(|_| enqueue()).collect();
    let events = tail(&cogo, &["-n", "2"], &ids[3]);
    let tailed: Vec<_> = events.iter().map(|event| event["message_id"].as_str()).collect();
    assert_eq!(tailed, [Some(ids[2].as_str()), Some(ids[3].as_str())]);

    let cursor = events[0]["cursor"].as_str().expect("a cursor");
    let after = tail(&cogo, &["--after", cursor], &ids[3]);
    assert_eq!(after.len(), 1);
    assert_eq!(after[0]["message_id"], ids[3].as_str());

    let of = tail(&cogo, &["--message", &ids[1]], &ids[1]);
    assert_eq!(of.len(), 1);
    let none = cogo.ok(&["tail", "--role", "other", "--json"]);
    assert_eq!(none.stdout, "");
}

#[tokio::test]
async fn following_shows_what_comes_until_ctrl_c() {
    let db = TestDb::new().await;
    let cogo = Cogo::on(&db);
    let mut tail = cogo.start(&["tail", "--follow", "--type", "echo_scheduled"]);
    tail.stderr.wait("Following the log");
    let done = cogo.ok(&["enqueue", "echo/default", "echo"]);
    tail.stdout.wait(done.line());
    tail.signal("INT");
    assert_eq!(tail.end(), Some(130), "{}", tail.stderr.text());
}

#[tokio::test]
async fn following_outlives_a_database_that_is_away() {
    let db = TestDb::new().await;
    let cogo = Cogo::on(&db);
    let tail = cogo.start(&["tail", "--follow", "--type", "echo_scheduled"]);
    tail.stderr.wait("Following the log");
    let definition = "select pg_get_functiondef('bus_read_events'::regproc)";
    let definition: String =
        sqlx::query_scalar(definition).fetch_one(db.pool()).await.expect("its definition");
    let (head, _) = definition.split_once("AS $function$").expect("a body");
    let away = format!(
        "{head}AS $function$ begin raise exception 'shutting down' using errcode = '57P01'; end \
         $function$"
    );
    let run = async |sql: String| {
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(db.pool()).await.expect("replaced");
    };
    run(away).await;
    tail.stderr.wait("does not answer");
    let done = cogo.ok(&["enqueue", "echo/default", "echo"]);
    run(definition).await;
    tail.stdout.wait(done.line());
}

#[tokio::test]
async fn a_reader_that_stops_reading_does_not_keep_the_tail_from_ending() {
    let db = TestDb::new().await;
    // More in one line than a pipe holds.
    let message = serde_json::json!([{"role": "echo", "service": "default", "intent": "echo",
        "payload": "x".repeat(300_000)}]);
    let enqueue = sqlx::query("select from bus_enqueue($1::text::jsonb)").bind(message.to_string());
    enqueue.execute(db.pool()).await.expect("enqueued");
    let mut command = Cogo::on(&db).command(&["tail", "--follow", "--json"]);
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    let mut tail = command.spawn().expect("cogo starts");
    let mut stdout = tail.stdout.take().expect("a pipe");
    stdout.read_exact(&mut [0]).expect("the line has begun");
    let killed = std::process::Command::new("kill").arg(tail.id().to_string()).status();
    assert!(killed.expect("kill runs").success());
    let mut ended = None;
    assert!(until(|| {
        ended = tail.try_wait().expect("a child");
        ended.is_some()
    }));
    assert_eq!(ended.and_then(|status| status.code()), Some(130));
}

#[tokio::test]
async fn a_reader_that_goes_away_ends_the_tail_quietly() {
    let db = TestDb::new().await;
    let cogo = Cogo::on(&db);
    cogo.ok(&["enqueue", "echo/default", "echo"]);
    let mut command = cogo.command(&["tail", "--follow", "--json"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut tail = command.spawn().expect("cogo starts");
    // As `head -1` does: one line is read, and the pipe is closed.
    let mut line = String::new();
    let mut stdout = BufReader::new(tail.stdout.take().expect("a pipe"));
    stdout.read_line(&mut line).expect("an event");
    drop(stdout);
    cogo.ok(&["enqueue", "echo/default", "echo"]);
    let status = tail.wait().expect("an end");
    let mut said = String::new();
    tail.stderr.take().expect("a pipe").read_to_string(&mut said).expect("text");
    assert_eq!((status.code(), said.as_str()), (Some(0), ""));
}

#[tokio::test]
async fn a_trace_is_a_timeline_and_is_found_by_a_message_as_well() {
    let db = TestDb::new().await;
    let cogo = Cogo::on(&db);
    let first = cogo.json(&["enqueue", "echo/default", "echo"]);
    let trace = first["trace_id"].as_str().expect("a trace");
    cogo.ok(&["enqueue", "other/default", "echo", "--trace", trace]);
    let id = first["id"].as_str().expect("an id");
    for id in [trace, id] {
        let traced = cogo.json(&["trace", id]);
        assert_eq!(traced["trace_id"], trace);
        assert_eq!(traced["events"].as_array().map(Vec::len), Some(2), "{traced}");
    }
    let shown = cogo.ok(&["trace", trace]).stdout;
    assert!(shown.contains("2 messages, 2 events"), "{shown}");
    assert!(shown.contains("+0 ms  echo_scheduled"), "{shown}");
}
