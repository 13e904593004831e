//! A claim for all tenants shares out fairly.

use std::collections::HashMap;

use cogo::bus::{Bus, ClaimRequest};
use cogo::testing::TestDb;
use serde_json::json;

use crate::fixtures::{request, rows};

fn for_all(worker: &str, max: usize) -> ClaimRequest {
    ClaimRequest { tenant: "*".to_owned(), ..request(worker, max) }
}

/// Fills the queue faster than bus_enqueue does: `n` messages of each tenant.
async fn fill(db: &TestDb, tenants: &str, n: i32) {
    sqlx::query(
        "insert into agent_messages (id, trace_id, run_at, rank_at, created_at, updated_at, max_attempts,
            status, tenant, role, service, intent, payload, claim_no)
        select gen_random_uuid(), gen_random_uuid(), now(), now() + n * interval '1 ms', now(), now(), 5,
            'queued', tenant, 'echo', 'default', 'echo', '1', 1
        from regexp_split_to_table($1, ' ') tenant, generate_series(1, $2) n",
    )
    .bind(tenants)
    .bind(n)
    .execute(db.pool())
    .await
    .expect("filled");
}

async fn claim(bus: &Bus, worker: &str, max: usize) -> HashMap<String, usize> {
    let mut tenants = HashMap::new();
    for claim in bus.claim(&for_all(worker, max)).await.expect("claimed") {
        *tenants.entry(claim.message().tenant.clone()).or_default() += 1;
    }
    tenants
}

#[tokio::test]
async fn a_small_tenant_gets_its_share_beside_a_large_one() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    fill(&db, "large", 20_000).await;
    fill(&db, "small", 10).await;
    let first = claim(&bus, "w", 8).await;
    assert_eq!(first.values().sum::<usize>(), 8);
    // Half the places, give or take what chance decides between equals: 3 to 5 in most runs, 6 in one of forty.
    assert!((2..=6).contains(&first["small"]), "{first:?}");
    let second = claim(&bus, "w", 24).await;
    assert_eq!(first["small"] + second["small"], 10, "as long as it has some waiting");
    assert_eq!(claim(&bus, "w", 5).await["large"], 5, "then all go to the other");
}

#[tokio::test]
async fn weights_are_the_shares_of_what_is_held_and_of_chance() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    sqlx::query("select bus_set_limits($1)")
        .bind(json!({"tenants": {"three": {"weight": 3}}}))
        .execute(db.pool())
        .await
        .expect("set");
    fill(&db, "three one", 2000).await;
    let held = claim(&bus, "w", 400).await;
    assert!((290..=310).contains(&held["three"]), "{held:?}");
    // And where nothing is held, one at a time.
    let mut three = 0;
    for _ in 0..400 {
        sqlx::query(
            "update agent_messages set status = 'done', done_at = now(), lease_until = null
            where status = 'claimed'",
        )
        .execute(db.pool())
        .await
        .expect("the owner may");
        three += claim(&bus, "w", 1).await.get("three").copied().unwrap_or(0);
    }
    // 300 are expected; six standard deviations are 52.
    assert!((248..=352).contains(&three), "{three} of 400");
}

#[tokio::test]
async fn many_claimers_at_once_find_all_there_is() {
    let db = TestDb::new().await;
    fill(&db, "a b c d e f g h", 20).await;
    fill(&db, "large", 500).await;
    let claimers = (0..8).map(|n| {
        let bus = Bus::new(db.pool().clone());
        async move {
            let mut all = 0;
            loop {
                let claimed: usize = claim(&bus, &format!("w{n}"), 7).await.values().sum();
                if claimed == 0 {
                    return all;
                }
                all += claimed;
            }
        }
    });
    let all: usize = futures_util::future::join_all(claimers).await.into_iter().sum();
    assert_eq!(all, 8 * 20 + 500);
    let held = rows(&db, "select id from agent_messages where attempts <> 1").await;
    assert!(held.is_empty(), "each is claimed once");
}

#[tokio::test]
async fn no_tenant_is_overlooked_however_many_wait() {
    let db = TestDb::new().await;
    let tenants: Vec<_> = (0..2500).map(|n| format!("tenant-{n:04}")).collect();
    fill(&db, &tenants.join(" "), 40).await;
    // One connection, as a worker's pool has few; what is claimed never empties a tenant.
    let mut connection = db.pool().acquire().await.expect("connected");
    let mut seen = std::collections::HashSet::new();
    for _ in 0..60 {
        let claimed: Vec<String> = sqlx::query_scalar(
            "select tenant from bus_claim('w', '{echo/default}', 100, tenant => '*')",
        )
        .fetch_all(&mut *connection)
        .await
        .expect("claimed");
        assert_eq!(claimed.len(), 100);
        seen.extend(claimed);
    }
    let beyond = seen.iter().filter(|tenant| tenant.as_str() >= "tenant-2000").count();
    assert!(beyond > 100, "{beyond} of the last 500 tenants were served");
}
