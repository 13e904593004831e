//! The calls of the bus, as any language makes them.

use serde_json::{Value, json};
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::server::look_again;

/// A message in hand.
pub(crate) type Claimed = (Uuid, i64);

/// What a tool's call may look like.
pub(crate) fn payload() -> Value {
    json!({"tool": "get_title", "args": {"url": "https://example.org/a/page", "wait": true}, "note": "x".repeat(100)})
}

/// `n` messages, with ids as clients give them.
pub(crate) fn batch(n: usize, more: &Value) -> Value {
    let one = || {
        let mut message = json!({
            "id": Uuid::now_v7(), "trace_id": Uuid::now_v7(), "role": "echo", "service": "default",
            "intent": "echo", "payload": payload(),
        });
        for (name, value) in more.as_object().into_iter().flatten() {
            message[name] = value.clone();
        }
        message
    };
    (0..n).map(|_| one()).collect()
}

pub(crate) fn results(claims: &[Claimed]) -> Value {
    let one = |(id, claim_no): &Claimed| json!({"op": "complete", "id": id, "claim_no": claim_no, "result": {"title": "A page"}});
    claims.iter().map(one).collect()
}

pub(crate) async fn enqueue(session: &mut PgConnection, batch: &Value) {
    look_again(session).await;
    let rows = sqlx::query("select id, trace_id, duplicate from bus_enqueue($1)")
        .bind(batch)
        .fetch_all(session)
        .await
        .expect("enqueued");
    assert_eq!(rows.len(), batch.as_array().expect("a batch").len());
}

/// Claims `n`, and sees that there were so many.
pub(crate) async fn claim(session: &mut PgConnection, n: usize) -> Vec<Claimed> {
    look_again(session).await;
    let claims: Vec<Claimed> =
        sqlx::query_as("select id, claim_no from bus_claim('w', '{echo/default}', $1, 30000)")
            .bind(i32::try_from(n).expect("few"))
            .fetch_all(session)
            .await
            .expect("claimed");
    assert_eq!(claims.len(), n);
    claims
}

pub(crate) async fn complete(session: &mut PgConnection, claims: &[Claimed]) {
    look_again(session).await;
    let rows = sqlx::query("select * from bus_complete($1)")
        .bind(results(claims))
        .fetch_all(session)
        .await
        .expect("settled");
    assert_eq!(rows.len(), claims.len());
}

/// Settles these and claims `n` others.
pub(crate) async fn step(session: &mut PgConnection, claims: &[Claimed], n: usize) -> Vec<Claimed> {
    look_again(session).await;
    let rows: Vec<(Option<String>, Option<Uuid>, Option<i64>)> = sqlx::query_as(
        "select s.outcome, (s.message).id, (s.message).claim_no
            from bus_step($1, 'w', '{echo/default}', $2, 30000, 'default') s",
    )
    .bind(results(claims))
    .bind(i32::try_from(n).expect("few"))
    .fetch_all(session)
    .await
    .expect("stepped");
    let settled = rows.iter().filter(|row| row.0.as_deref() == Some("settled")).count();
    assert_eq!(settled, claims.len());
    let claimed: Vec<_> = rows.into_iter().filter_map(|row| row.1.zip(row.2)).collect();
    assert_eq!(claimed.len(), n);
    claimed
}

/// Works on a few messages in every way that is measured, so that the session has its plans.
pub(crate) async fn warm_up(session: &mut PgConnection) {
    // A plan is for its parameters five times.
    for n in [1, 1, 1, 2, 2, 3, 3, 10, 10] {
        enqueue(session, &batch(n * 2, &json!({}))).await;
        let claims = claim(session, n).await;
        let claims = step(session, &claims, n).await;
        complete(session, &claims).await;
    }
}
