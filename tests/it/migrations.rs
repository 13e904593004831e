use std::time::Duration;

use cogo::bus::Bus;
use cogo::db::MIGRATOR;
use cogo::testing::TestDb;
use serde_json::{Value, json};

use crate::fixtures::{broken_invariants, enqueue, raw, replay_differences, rows};

#[tokio::test]
async fn migrating_again_changes_nothing_whatever_the_user_is_called() {
    let db = TestDb::new().await;
    assert_eq!(db.connect_options().get_username(), "cogo", "whose own schema would come first");
    MIGRATOR.run(db.pool()).await.expect("nothing to do");
    let version = Bus::new(db.pool().clone()).schema_version().await.expect("a schema");
    assert_eq!(version, MIGRATOR.iter().map(|migration| migration.version).max());
}

/// A database without a schema; what it had is gone.
pub(crate) async fn emptied() -> TestDb {
    let db = TestDb::new().await;
    empty(&db).await;
    db
}

async fn empty(db: &TestDb) {
    sqlx::raw_sql("drop schema cogo, cogo_unscoped, public cascade; create schema public")
        .execute(db.pool())
        .await
        .expect("emptied");
}

/// Applies the migrations whose version is in `range` to a database without a migrator's table.
pub(crate) async fn migrate(db: &TestDb, range: impl std::ops::RangeBounds<i64>) {
    for migration in MIGRATOR.iter().filter(|migration| range.contains(&migration.version)) {
        let mut transaction = db.pool().begin().await.expect("begun");
        sqlx::raw_sql(migration.sql.clone())
            .execute(&mut *transaction)
            .await
            .expect(&migration.description);
        transaction.commit().await.expect("committed");
    }
}

/// Calls as the first release's client does, in its words.
async fn call(db: &TestDb, sql: &'static str, batch: Value) -> Vec<Value> {
    let sql = format!("select to_jsonb(x) from ({sql}) x");
    let query = sqlx::query_scalar(sqlx::AssertSqlSafe(sql.clone())).bind(batch);
    query.fetch_all(db.pool()).await.expect(&sql)
}

const STEP: &str =
    "select s.ord, s.outcome, (s.message).id, (s.message).claim_no, (s.message).status
    from bus_step($1::jsonb, 'old', '{echo/default}', 100, 30000, 'default') s";

/// Claims all that waits; the claims.
async fn claim_all(db: &TestDb) -> Vec<Value> {
    let rows = call(db, STEP, json!([])).await;
    rows.iter().map(|row| json!({"id": row["id"], "claim_no": row["claim_no"]})).collect()
}

fn with(claims: &[Value], fields: &Value) -> Value {
    let add = |claim: &Value| {
        let mut claim = claim.clone();
        for (name, value) in fields.as_object().expect("fields") {
            claim[name] = value.clone();
        }
        claim
    };
    claims.iter().map(add).collect()
}

#[tokio::test]
async fn what_the_first_release_left_goes_on_and_so_does_its_client() {
    left_by(202_611_210_006).await;
}

#[tokio::test]
async fn what_was_left_before_there_was_a_catalogue_goes_on_and_so_does_its_client() {
    let db = left_by(202_611_210_016).await;
    // Its workers are there, come and go, and offer what has no hashes; a gateway says so in a list.
    let offers = rows(&db, "select * from bus_offers()").await;
    assert_eq!(offers, Vec::<Value>::new());
    let old = json!({"id": "old-1", "role": "mcp-gateway", "topics": ["mcp-gateway/browser"], "lease_ms": 30000,
        "info": {"toolsets": {"browser": {"tools": ["click", "type"]}}}});
    let hash = "0".repeat(64);
    let new = json!({"id": "new", "role": "mcp-gateway", "topics": ["mcp-gateway/browser"], "lease_ms": 30000,
        "info": {"toolsets": {"browser": {"tools": {"click": hash}}}}});
    for worker in [old, new] {
        call(&db, "select bus_worker_seen($1) as seen", worker).await;
    }
    let offers = rows(&db, "select tool, workers from bus_offers()").await;
    assert_eq!(offers, [json!({"tool": "click", "workers": ["new"]})]);
    let gone = call(&db, "select bus_worker_gone($1 ->> 'id') as gone", json!({"id": "new"})).await;
    assert_eq!(gone, [json!({"gone": true})]);
    let offers = rows(&db, "select online, away from bus_offers()").await;
    assert_eq!(offers, [json!({"online": 0, "away": 1})], "for its grace");
}

/// Leaves messages in every status in the schema of `release`, migrates to today's, and goes on with them as the first
/// release's client does.
async fn left_by(release: i64) -> TestDb {
    let db = TestDb::new().await;
    db.freeze_time().await;
    let clock: String = sqlx::query_scalar("select pg_get_functiondef('cogo.now'::regproc)")
        .fetch_one(db.pool())
        .await
        .expect("read");
    empty(&db).await;
    migrate(&db, ..=release).await;
    sqlx::raw_sql(sqlx::AssertSqlSafe(clock)).execute(db.pool()).await.expect("the test's clock");

    // Two of each: dead, cancelled, done, to be tried again, claimed, queued and delayed.
    let batch = |n: i64, key: &str| {
        raw(&json!({"payload": n, "priority": n, "max_attempts": 3,
            "idempotency_key": (n == 1).then_some(key)}))
    };
    let fail = json!({"op": "fail", "error": {"class": "timeout"}});
    let again = json!({"op": "fail", "error": {"class": "timeout"}, "retry_in_ms": 5000});
    let mut fates = Vec::new();
    for fate in ["dead", "cancelled", "done", "again", "claimed", "queued", "delayed"] {
        let mut pair = [batch(0, fate), batch(1, fate)];
        if fate == "delayed" {
            pair.iter_mut().for_each(|message| message["delay_ms"] = json!(60_000));
        }
        let ids = enqueue(&db, &pair).await;
        let ids: Vec<Value> = ids.iter().map(|id| json!({"id": id})).collect();
        if !["queued", "delayed", "cancelled"].contains(&fate) {
            let claims = claim_all(&db).await;
            assert_eq!(claims.len(), 2);
            match fate {
                "dead" => drop(call(&db, "select * from bus_fail($1)", with(&claims, &fail)).await),
                "done" => drop(call(&db, "select * from bus_complete($1)", json!(claims)).await),
                "again" => {
                    drop(call(&db, "select * from bus_fail($1)", with(&claims, &again)).await)
                }
                _ => {}
            }
        } else if fate == "cancelled" {
            call(&db, "select id, code from bus_cancel($1, null)", json!(ids)).await;
        }
        fates.push(ids);
    }
    let statuses = "select status, count(*) as n from agent_messages group by 1 order by 1";
    let before = rows(&db, statuses).await;
    assert_eq!(before.len(), 6, "{before:?}");
    let held = rows(&db, "select id, claim_no from agent_messages where status = 'claimed'").await;

    if release >= 202_611_210_015 {
        for id in ["old-1", "old-2"] {
            let worker =
                json!({"id": id, "role": "echo", "topics": ["echo/default"], "lease_ms": 30000});
            call(&db, "select bus_worker_seen($1) as seen", worker).await;
        }
        call(&db, "select bus_worker_gone($1 ->> 'id') as gone", json!({"id": "old-2"})).await;
    }
    migrate(&db, release + 1..).await;

    assert_eq!(rows(&db, statuses).await, before);
    assert_eq!(replay_differences(&db).await, Vec::<String>::new());
    assert_eq!(broken_invariants(&db).await, Vec::<String>::new());
    // Claims from before are extended and settled; what waited is claimed in its order; the rest follows.
    let extended =
        call(&db, "select id, claim_no, code from bus_extend($1, 30000)", json!(held)).await;
    assert!(extended.iter().all(|row| row["code"].is_null()), "{extended:?}");
    let stepped = call(&db, STEP, with(&held, &json!({"op": "complete", "result": 1}))).await;
    let outcomes: Vec<_> = stepped.iter().filter_map(|row| row["outcome"].as_str()).collect();
    assert_eq!(outcomes, ["settled", "settled"]);
    let claimed: Vec<_> =
        stepped.iter().filter(|row| row["ord"].is_null()).map(|row| row["id"].clone()).collect();
    let queued = &fates[5];
    assert_eq!(claimed, [queued[1]["id"].clone(), queued[0]["id"].clone()], "by priority");
    let requeued =
        call(&db, "select id, code from bus_requeue($1, 'fixed')", json!(fates[0])).await;
    assert!(requeued.iter().all(|row| row["code"].is_null()), "{requeued:?}");
    assert_eq!(claim_all(&db).await.len(), 2);
    db.advance(Duration::from_secs(60)).await;
    let reaped = rows(&db, "select promoted, expired, dead, next_due_ms from bus_reap(100)").await;
    assert_eq!((&reaped[0]["promoted"], &reaped[0]["expired"]), (&json!(4), &json!(4)));
    let claims = claim_all(&db).await;
    assert_eq!(claims.len(), 8);
    call(&db, "select * from bus_release($1)", json!(claims[..2])).await;
    call(&db, "select * from bus_complete($1)", json!(claims[2..])).await;
    // A key from before still finds its message.
    let (again, known) = (enqueue(&db, &[batch(1, "done")]).await, &fates[2][1]["id"]);
    assert_eq!(&json!(again[0]), known);
    call(&db, "select id, code from bus_cancel($1, null)", json!(fates[1])).await;
    assert_eq!(replay_differences(&db).await, Vec::<String>::new());
    db.advance(Duration::from_secs(3600)).await;
    let retain =
        "select bus_retain(make_interval(secs => 60), make_interval(secs => null), 100) as n
        where $1 is not null";
    assert_eq!(call(&db, retain, json!(1)).await, [json!({"n": 12})]);
    assert_eq!(replay_differences(&db).await, Vec::<String>::new());
    assert_eq!(
        call(&db, "select * from bus_stats() where $1 is not null", json!(1)).await.len(),
        1
    );
    db
}
