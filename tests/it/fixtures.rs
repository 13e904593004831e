//! What the tests of the bus share.

use std::sync::mpsc;
use std::time::Duration;

use cogo::bus::replay::{Options, Progress, Report};
use cogo::bus::{Bus, ClaimRequest};
use cogo::message::{NewMessage, Topic};
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
