//! What the tests of the bus share.

use std::sync::mpsc;
use std::time::Duration;

use cogo::bus::replay::{Options, Progress, Report};
use cogo::bus::{Bus, ClaimRequest};
use cogo::message::{MessageId, NewMessage, Topic};
use cogo::testing::TestDb;
use serde_json::Value;

/// Long enough for anything that should happen, on a machine that is busy with other tests.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// The topic of the tests' messages.
pub(crate) fn topic() -> Topic {
    Topic::new("echo", "default").expect("a good topic")
}

/// A message with this payload.
pub(crate) fn echo(payload: Value) -> NewMessage {
    NewMessage::new(&topic(), "echo", payload)
}

/// A claim of up to `max` messages for `worker`, with a lease of 30 s.
pub(crate) fn request(worker: &str, max: usize) -> ClaimRequest {
    ClaimRequest {
        worker: worker.to_owned(),
        tenant: "default".to_owned(),
        topics: vec![topic().to_string()],
        max,
        lease: Duration::from_secs(30),
    }
}

/// Publishes `n` messages, whose payloads count from 0.
pub(crate) async fn publish(bus: &Bus, n: usize) {
    for chunk in (0..n).collect::<Vec<_>>().chunks(1000) {
        let batch: Vec<_> = chunk.iter().map(|n| echo(Value::from(*n))).collect();
        bus.publish_all(&batch).await.expect("published");
    }
}

/// How many rows a table has.
pub(crate) async fn count(db: &TestDb, table: &str) -> i64 {
    let sql = format!("select count(*) from {table}");
    sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(db.pool()).await.expect("counted")
}

/// Where the table and the folded log disagree; empty is the proof that they agree. In one statement and
/// range by range, which must find the same.
pub(crate) async fn replay_differences(db: &TestDb) -> Vec<String> {
    let found: Vec<String> = sqlx::query_scalar(
        "select format('%s: %s is %s in the table and %s in the log', id, field, in_table, in_log)
            from cogo.replay_diff()",
    )
    .fetch_all(db.pool())
    .await
    .expect("the log folds");
    let report = verify(&Bus::new(db.pool().clone()), 40).await;
    assert_eq!(report.wrong(), found.len() as u64, "{found:?} or {report:?}");
    found
}

/// What a comparison in ranges of this size finds.
pub(crate) async fn verify(bus: &Bus, range: u32) -> Report {
    let options = Options { range, ..Options::default() };
    bus.replay_verify(&options, |_| {}).await.expect("verified")
}

/// What to hear a replay's progress with so that it stops at its first range: until whoever gets the sender
/// sends. For a runtime of several threads.
pub(crate) fn stopping() -> (impl FnMut(Progress) + Send, mpsc::Receiver<mpsc::Sender<()>>) {
    let (stopped, is_stopped) = mpsc::channel();
    let mut first = true;
    let tell = move |_| {
        if std::mem::take(&mut first) {
            let (go_on, may_go_on) = mpsc::channel();
            stopped.send(go_on).expect("the test waits");
            let told = tokio::task::block_in_place(|| may_go_on.recv_timeout(SOON));
            told.expect("the test goes on");
        }
    };
    (tell, is_stopped)
}

/// Waits until `check` gives something, or fails after [`SOON`].
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut check: impl FnMut() -> F,
) -> T {
    let looking = async {
        loop {
            if let Some(found) = check().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, looking).await.unwrap_or_else(|_| panic!("not in time: {what}"))
}

/// A message for [`topic`] as `bus_enqueue` takes it, with more or other fields.
pub(crate) fn raw(fields: &Value) -> Value {
    let mut message =
        serde_json::json!({"role": "echo", "service": "default", "intent": "echo", "payload": 1});
    for (name, value) in fields.as_object().expect("fields") {
        message[name] = value.clone();
    }
    message
}

/// Enqueues straight by the function; the ids, in the batch's order.
pub(crate) async fn enqueue(db: &TestDb, batch: &[Value]) -> Vec<MessageId> {
    sqlx::query_scalar("select id from bus_enqueue($1)")
        .bind(Value::from(batch))
        .fetch_all(db.pool())
        .await
        .expect("enqueued")
}

/// What a query answers, a JSON object a row.
pub(crate) async fn rows(db: &TestDb, query: &str) -> Vec<Value> {
    sqlx::query_scalar(sqlx::AssertSqlSafe(format!("select to_jsonb(x) from ({query}) x")))
        .fetch_all(db.pool())
        .await
        .expect(query)
}

/// With which SQLSTATE and message a query is refused.
pub(crate) async fn refusal(db: &TestDb, query: &str) -> (String, String) {
    let result = sqlx::query(sqlx::AssertSqlSafe(query.to_owned())).fetch_all(db.pool()).await;
    let error = result.expect_err(query);
    let error = error.as_database_error().expect("the database's own");
    (error.code().expect("a state").into_owned(), error.message().to_owned())
}

/// What must never be, whatever happened: two messages of an ordering key under way, one that waits for a
/// place in its order while none is under way, and one that is parked but not waiting.
pub(crate) async fn broken_invariants(db: &TestDb) -> Vec<String> {
    sqlx::query_scalar(
        "with under_way as (
            select tenant, role, service, ordering_key, count(*) as n from agent_messages
            where ordering_key is not null and status in ('delayed', 'queued', 'claimed')
                and parked_for is distinct from 'ordering'
            group by 1, 2, 3, 4
        )
        select format('%s messages of key %s are under way', n, ordering_key) from under_way where n > 1
        union all
        select format('%s waits in key %s, and nothing is under way', id, ordering_key)
            from agent_messages m left join under_way u using (tenant, role, service, ordering_key)
            where parked_for = 'ordering' and u.n is null
        union all
        select format('%s is %s and parked for %s', id, status, parked_for) from agent_messages
            where parked_for is not null and status not in ('delayed', 'queued')
        union all
        select format('%s is delayed and parked for %s', id, parked_for) from agent_messages
            where parked_for <> 'ordering' and status <> 'queued'",
    )
    .fetch_all(db.pool())
    .await
    .expect("checked")
}
