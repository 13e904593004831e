//! What a claim costs while somebody's transaction keeps all dead rows alive, and messages go by.

use serde_json::json;
use sqlx::Executor as _;
use sqlx::postgres::PgConnection;

use super::budget::{Measure, hold};
use super::calls::{batch, complete, enqueue, warm_up};
use super::server::{Watched, explain, look_again};

const HELD: &str = "a forgotten transaction of a stranger keeps dead rows; each claim that passes over them is slower than the one before";

/// How many go by, of how many a batch.
const PASSING: (usize, usize) = (5000, 100);
/// How many batches are looked at, in the beginning and in the end.
const LOOKED_AT: usize = 5;

/// Passes a batch by, and says how many pages its claim took.
async fn pass(session: &mut PgConnection, n: usize) -> f64 {
    enqueue(session, &batch(n, &json!({}))).await;
    let call = format!("select * from bus_claim('w', '{{echo/default}}', {n}, 30000)");
    look_again(session).await;
    let blocks = explain(session, &call).await.blocks;
    let held = sqlx::query_as("select id, claim_no from agent_messages where status = 'claimed'");
    let held: Vec<_> = held.fetch_all(&mut *session).await.expect("listed");
    assert_eq!(held.len(), n);
    complete(session, &held).await;
    blocks
}

/// As it is with `spoil` done to the database.
pub(super) async fn measure(server: &Watched, spoil: &str) -> Vec<Measure> {
    if !spoil.is_empty() {
        server.migrate(spoil).await;
    }
    let session = &mut server.uncounted().await;
    warm_up(session).await;
    let mut stranger = server.uncounted().await;
    stranger.execute("begin isolation level repeatable read").await.expect("begun");
    stranger.execute("select count(*) from agent_messages").await.expect("a snapshot");
    let (all, n) = PASSING;
    let mut pages = Vec::new();
    for _ in 0..all / n {
        pages.push(pass(session, n).await);
    }
    stranger.execute("rollback").await.expect("ended");
    let first: f64 = pages[..LOOKED_AT].iter().sum();
    let last: f64 = pages[pages.len() - LOOKED_AT..].iter().sum();
    let what = format!(
        "pages of claims of {n} after {all} messages went by a transaction held open, to those before"
    );
    vec![Measure::new("held.claim_100", what, last / first, HELD).slack(1.2).target(2.0)]
}

#[tokio::test]
async fn a_claim_costs_what_it_may_while_a_transaction_is_held_open() {
    let server = Watched::new().await;
    hold(&server, "held", &measure(&server, "").await);
}
