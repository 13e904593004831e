//! What the release before leaves when it is killed: messages in every state, in its own schema.

use cogo::testing::TestDb;
use serde_json::json;

use crate::previous::{self, SCHEMA};
use crate::support::{Cogo, temp_dir, until};
use crate::world::{World, call, echo, ends, hub, message, up, worker};

const WORKS: &str = "mcp.call.tools.works.0";

async fn sql(db: &TestDb, text: &str, id: &str) {
    let query = sqlx::query(sqlx::AssertSqlSafe(text.to_owned())).bind(id);
    query.execute(db.pool()).await.expect(text);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_in_every_state_are_taken_over_after_the_migration() {
    let world = World::empty().await;
    let (before, today) = (world.before(), world.today());
    assert_eq!(before.json(&["migrate"])["to"], json!(SCHEMA));
    let mut old = up(&before);

    let done = call(&before, "works", "done");
    ends(&before, &done, "done", 1);
    let dead = call(&before, "refuses", "dead");
    ends(&before, &dead, "failed", 1);
    let again = call(&before, "stumbles", "again");
    assert!(until(|| message(&before, &again)["status"] == "delayed"));
    before.ok(&["circuit", "open", WORKS, "--reason", "is sick"]);
    let parked = call(&before, "works", "parked");
    let is_parked = || before.ok(&["status"]).stdout.contains("circuit:mcp.call.tools.works.0");
    assert!(until(is_parked));
    let held = call(&before, "waits", "held");
    assert!(until(|| message(&before, &held)["status"] == "claimed"));
    let queued = echo(&before, &["--idempotency-key", "once"]);
    let ordered =
        [echo(&before, &["--ordering-key", "k"]), echo(&before, &["--ordering-key", "k"])];
    let delayed = echo(&before, &["--delay", "5s"]);
    let cancelled = echo(&before, &[]);
    sql(
        &world.db,
        "select bus_cancel(jsonb_build_array(jsonb_build_object('id', $1)))",
        &cancelled,
    )
    .await;
    old.running.signal("KILL");
    old.running.end();

    let left = world.states().await;
    let states: Vec<_> = left.iter().map(|(state, _)| &**state).collect();
    let every = ["cancelled", "claimed", "delayed", "done", "failed", "queued", "queued, parked"];
    assert_eq!(states, every, "{left:?}");
    // First the schema, then hubs and workers.
    for program in [&["hub", "--listen", "127.0.0.1:0"][..], &["worker", "echo"], &["status"]] {
        let refused = today.run(program);
        assert_eq!(refused.code, Some(4), "{refused:?}");
        assert!(refused.stderr.contains(&SCHEMA.to_string()), "{refused:?}");
        assert!(refused.stderr.contains("Run `cogo migrate`"), "{refused:?}");
    }
    let migrated = today.json(&["migrate"]);
    assert_eq!(migrated["from"], json!(SCHEMA), "{migrated}");
    assert!(migrated["to"].as_i64() > Some(SCHEMA), "{migrated}");
    assert_eq!(world.states().await, left);
    world.is_exact();

    let (new, gateway, echoes) =
        (hub(&today), worker(&today, "mcp-gateway"), worker(&today, "echo"));
    let shown = today.ok(&["dlq", "show", &dead]).stdout;
    assert!(shown.contains("attempt 1") && shown.contains("refuses dead"), "{shown}");
    assert_eq!(echo(&today, &["--idempotency-key", "once"]), queued, "its key still answers");
    assert!(today.ok(&["circuit", "list"]).stdout.contains("is sick"));
    today.ok(&["circuit", "close", WORKS]);
    world.go();
    ends(&today, &parked, "done", 1);
    ends(&today, &again, "done", 2);
    ends(&today, &held, "done", 2);
    for id in [&queued, &ordered[0], &ordered[1], &delayed] {
        ends(&today, id, "done", 1);
    }
    assert_eq!(message(&today, &cancelled)["status"], "cancelled");
    today.ok(&["dlq", "requeue", &dead]);
    assert!(until(|| message(&today, &dead)["status"] == "failed"));
    let shown = today.json(&["dlq", "show", &dead]);
    let what = shown["history"].as_array().expect("steps").iter().map(|step| &step["what"]);
    assert!(
        what.eq(&["attempt", "dead_lettered", "requeued", "attempt", "dead_lettered"]),
        "{shown}"
    );
    artifacts(&today, &done);
    for running in [echoes, gateway, new.running] {
        running.stop();
    }
    world.ends_exact().await;
}

/// What the release before kept of a call is read.
fn artifacts(cogo: &Cogo, id: &str) {
    let found = cogo.json(&["get", id]);
    let events = found["events"].as_array().expect("events").iter();
    let folder = events.filter_map(|event| event["payload"]["artifacts"].as_str()).next();
    let name = format!("{}/response.json", folder.expect("a folder"));
    let response = cogo.ok(&["artifact", "get", &name]).stdout;
    assert!(response.contains("works done"), "{response}");
}

/// Where `cogo up` has its own Postgres, it migrates by itself; and the release before can be gone back to.
#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_goes_forward_and_back() {
    let home = temp_dir();
    let data = home.path().join("data").display().to_string();
    let today = Cogo::new().with("COGO_DATA_DIR", &data).with("COGO_WORKER_LEASE_MS", "1000");
    let before = today.clone().of(previous::program());
    let add = |cogo: &Cogo| {
        let sum = ["mcp", "call", "demo", "add", "--params", "{\"a\": 1, \"b\": 2}"];
        assert!(cogo.ok(&sum).stdout.contains('3'));
    };
    let sleep = |cogo: &Cogo, ms: u32| {
        let params = json!({"ms": ms}).to_string();
        let slept = cogo.ok(&["mcp", "call", "demo", "sleep", "--params", &params, "--no-wait"]);
        slept.line().to_owned()
    };
    let mut old = up(&before);
    add(&before);
    let held = sleep(&before, 3000);
    assert!(until(|| message(&before, &held)["status"] == "claimed"));
    old.running.signal("KILL");
    old.running.end();

    let mut new = up(&today);
    add(&today);
    ends(&today, &held, "done", 2);
    let held = sleep(&today, 3000);
    assert!(until(|| message(&today, &held)["status"] == "claimed"));
    new.running.signal("KILL");
    new.running.end();

    let old = up(&before);
    add(&before);
    ends(&before, &held, "done", 2);
    assert_eq!(before.json(&["replay", "verify"])["exact"], true);
    old.running.stop();
    let new = up(&today);
    assert_eq!(today.json(&["replay", "verify"])["exact"], true);
    new.running.stop();
}
