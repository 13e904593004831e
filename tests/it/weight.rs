//! What one large claim brings is bounded by its bytes, and what was put back while a claim was under way is not missed.

use cogo::bus::Bus;
use cogo::clock::Stopwatch;
use cogo::testing::TestDb;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::fixtures::{count, echo, eventually, publish, rows, topic};

/// Of what no compression makes less, in bytes.
const HEAVY: i64 = 4_000_000;
/// So many heavy ones one claim brings: the last of them is over 64 MiB.
const AT_ONCE: i64 = 17;

/// Enqueues heavy messages of `tenant`, and then as many light ones of `other`.
async fn fill(db: &TestDb, messages: i32, tenant: &str, other: &str) {
    let sql = format!(
        "do $$ declare
            heavy text := (select string_agg(md5(random()::text), '') from generate_series(1, {HEAVY} / 32));
        begin
            for n in 1..{messages} loop
                perform from bus_enqueue(jsonb_build_array(jsonb_build_object('tenant', '{tenant}', 'role', 'echo',
                    'service', 'default', 'intent', 'echo', 'payload', heavy)));
            end loop;
            for n in 1..{messages} loop
                perform from bus_enqueue(jsonb_build_array(jsonb_build_object('tenant', '{other}', 'role', 'echo',
                    'service', 'default', 'intent', 'echo', 'payload', n)));
            end loop;
        end $$"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(db.pool()).await.expect("enqueued");
}

/// Claims up to `max` of `tenant`; how many came of each tenant.
async fn claim(db: &TestDb, max: i32, tenant: &str) -> Vec<Value> {
    let query = format!(
        "select tenant, count(*) as n from bus_claim('w', '{{{}}}', {max}, 30000, '{tenant}')
            group by tenant order by tenant",
        topic()
    );
    rows(db, &query).await
}

#[tokio::test]
async fn a_large_claim_brings_the_first_that_weigh_so_much_and_the_next_one_the_others() {
    let db = TestDb::new().await;
    fill(&db, 20, "a", "b").await;
    let found = claim(&db, 100, "a").await;
    assert_eq!(found[0]["n"], AT_ONCE, "{found:?}");
    let wrong = "select count(*) from agent_messages q join agent_messages c using (tenant)
        where q.status = 'queued' and c.status = 'claimed' and (q.rank_at, q.id) < (c.rank_at, c.id)";
    let wrong: i64 = sqlx::query_scalar(wrong).fetch_one(db.pool()).await.expect("counted");
    assert_eq!(wrong, 0, "the first by rank");
    let rest = claim(&db, 100, "a").await;
    assert_eq!(rest[0]["n"], 20 - AT_ONCE, "they were not kept locked: {rest:?}");
    assert_eq!(claim(&db, 100, "a").await, Vec::<Value>::new());
    assert_eq!(claim(&db, 100, "b").await[0]["n"], 20, "light ones are not held back");
}

#[tokio::test]
async fn one_that_is_heavier_than_all_that_may_be_brought_is_brought_alone() {
    let db = TestDb::new().await;
    fill(&db, 3, "a", "b").await;
    let within = "select cardinality(cogo.within_weight(array(select ctid from agent_messages where tenant = 'a'), 1))";
    let alone: i32 = sqlx::query_scalar(within).fetch_one(db.pool()).await.expect("asked");
    assert_eq!(alone, 1);
}

#[tokio::test]
async fn a_small_claim_is_not_weighed() {
    let db = TestDb::new().await;
    fill(&db, 20, "a", "b").await;
    assert_eq!(claim(&db, 63, "a").await[0]["n"], 20);
}

#[tokio::test]
async fn of_a_claim_for_all_tenants_each_has_its_part_whose_messages_are_heavy_or_not() {
    let db = TestDb::new().await;
    // The light ones came later.
    fill(&db, 20, "a", "b").await;
    let found = claim(&db, 100, "*").await;
    assert_eq!((found.len(), &found[0]["n"]), (2, &json!(AT_ONCE)), "{found:?}");
    assert!(found[1]["n"].as_i64().is_some_and(|n| n > 10), "{found:?}");
}

#[tokio::test]
async fn what_was_claimed_and_put_back_while_a_claim_was_under_way_is_taken_by_it() {
    const LOCKED: usize = 20_000;
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    publish(&bus, LOCKED).await;
    let last = bus.publish(echo(json!("last")).with_priority(-100)).await.expect("published").id;
    // They keep a claim busy that has to pass over them.
    let mut locking = db.pool().begin().await.expect("begun");
    sqlx::query("select from agent_messages where priority = 0 for update")
        .execute(&mut *locking)
        .await
        .expect("locked");
    let mut session = db.pool().acquire().await.expect("a session");
    for round in 0.. {
        assert!(round < 50, "no claim was slow enough: this test tells nothing");
        let watch = Stopwatch::start();
        let claiming = async {
            let sql = "select id from bus_claim('w', '{echo/default}', 1)";
            let claimed: Vec<Uuid> =
                sqlx::query_scalar(sql).fetch_all(&mut *session).await.expect("claimed");
            (claimed, watch.elapsed())
        };
        let moving = async {
            eventually("the claim is under way", async || {
                let sql = "select from pg_stat_activity where datname = current_database()
                    and state = 'active' and query like 'select id from bus_claim%'";
                sqlx::query(sql).fetch_optional(db.pool()).await.expect("looked")
            })
            .await;
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            // What a claim and its release leave: the same message at another place.
            let sql = "update agent_messages set claim_no = claim_no + 1 where id = $1";
            sqlx::query(sql).bind(last).execute(db.pool()).await.expect("moved");
            watch.elapsed()
        };
        let ((claimed, ended), moved) = tokio::join!(claiming, moving);
        if moved < ended {
            assert_eq!(claimed.len(), 1, "it was locked, and not taken");
            break;
        }
        let sql =
            "update agent_messages set status = 'queued', claimed_by = null, claimed_at = null,
            lease_until = null where status = 'claimed'";
        sqlx::query(sql).execute(db.pool()).await.expect("put back");
    }
    locking.rollback().await.expect("let go");
    assert_eq!(count(&db, "agent_messages where status = 'claimed'").await, 1);
}
