//! What a call of a bus function costs inside of the server, for batches of several sizes.

use serde_json::json;

use super::budget::{Measure, hold};
use super::calls::{batch, claim, complete, enqueue, step, warm_up};
use super::server::{Counted, Tables, Watched};

const STATEMENTS: &str =
    "each statement in a function costs tens of microseconds before it does anything";
const BLOCKS: &str =
    "pages are what a call reads, locks and dirties; each is a look-up in shared buffers";
const READ: &str = "a call looks at its own rows; more means that it searches";
const WAL: &str = "the log is what is written, synced and shipped; an index more, or a column written twice, shows here";
const WRITES: &str = "a row version costs an entry in each index, and vacuum later";
const HOT: &str = "an update that no index sees costs no index entries";

/// What was counted while one kind of call was made for `messages` messages in so many `calls`.
struct Spent {
    op: &'static str,
    calls: f64,
    messages: f64,
    counted: Counted,
    tables: Tables,
}

impl Spent {
    fn measures(&self, group: &str, n: usize) -> Vec<Measure> {
        let op = self.op;
        let key = |what: &str| format!("{group}.{op}.{what}");
        let what = |what: &str| format!("{what} of {op} in batches of {n}");
        let each =
            |count: i64| f64::from(i32::try_from(count).expect("not so many")) / self.messages;
        let calls =
            f64::from(i32::try_from(self.counted.nested).expect("not so many")) / self.calls;
        let mut found = vec![
            Measure::new(
                key("statements"),
                what("statements within functions per call"),
                calls,
                STATEMENTS,
            ),
            Measure::new(
                key("blocks"),
                what("pages per message"),
                each(self.counted.blocks()),
                BLOCKS,
            )
            .slack(1.05),
            Measure::new(
                key("read"),
                what("rows and index entries read per message"),
                each(self.tables.all.read),
                READ,
            )
            .slack(1.05),
        ];
        if n == 1 || n == 100 {
            let Tables { messages, events, all } = self.tables;
            let written = messages.inserted + messages.updated + messages.deleted;
            let total = all.inserted + all.updated + all.deleted;
            found.extend([
                Measure::new(
                    key("wal"),
                    what("bytes of log per message"),
                    each(self.counted.wal_bytes()),
                    WAL,
                )
                .slack(1.05),
                Measure::new(
                    key("writes.messages"),
                    what("row versions in agent_messages per message"),
                    each(written),
                    WRITES,
                ),
                Measure::new(
                    key("writes.events"),
                    what("row versions in bus_events per message"),
                    each(events.inserted),
                    WRITES,
                ),
                Measure::new(
                    key("writes.all"),
                    what("row versions in all tables per message"),
                    each(total),
                    WRITES,
                ),
            ]);
            if messages.updated > 0 {
                let share = each(messages.hot_updated) / each(messages.updated);
                // Whether there is room on the page depends on what came before.
                let hot = Measure::new(key("hot"), what("share of heap-only updates"), share, HOT);
                found.push(hot.at_least().slack(1.25));
            }
        }
        found
    }
}

/// Makes calls for `n` messages each, and counts.
pub(super) async fn measure(server: &Watched, group: &str, n: usize) -> Vec<Measure> {
    let rounds = (100 / n).clamp(4, 50);
    let session = &mut server.session().await;
    warm_up(session).await;
    let mut found = Vec::new();
    // Claims that wait for the next kind of call.
    let mut claims = Vec::new();
    for op in ["enqueue", "claim", "complete", "step"] {
        let batches: Vec<_> = (0..rounds).map(|_| batch(n, &json!({}))).collect();
        if op == "step" {
            for batch in &batches {
                enqueue(session, batch).await;
            }
            enqueue(session, &batch(n, &json!({}))).await;
            claims = vec![claim(session, n).await];
        }
        server.reset().await;
        let before = server.tables(session).await;
        match op {
            "enqueue" => {
                for batch in &batches {
                    enqueue(session, batch).await;
                }
            }
            "claim" => {
                for _ in 0..rounds {
                    claims.push(claim(session, n).await);
                }
            }
            "complete" => {
                for claims in claims.drain(..) {
                    complete(session, &claims).await;
                }
            }
            _ => {
                let mut held = claims.remove(0);
                for _ in 0..rounds {
                    held = step(session, &held, n).await;
                }
            }
        }
        let tables = server.tables(session).await - before;
        let counted = server.counted().await;
        assert_eq!(counted.calls(), i64::try_from(rounds).expect("few"), "{counted:?}");
        let count = |n: usize| f64::from(u32::try_from(n).expect("few"));
        let spent =
            Spent { op, calls: count(rounds), messages: count(rounds * n), counted, tables };
        found.extend(spent.measures(group, n));
    }
    found
}

async fn batches_of(n: usize) {
    let group = format!("functions.batch_{n}");
    let Some(server) = Watched::counting(&group).await else { return };
    hold(&server, &group, &measure(&server, &group, n).await);
}

#[tokio::test]
async fn calls_for_one_message_cost_what_they_may() {
    batches_of(1).await;
}

#[tokio::test]
async fn calls_for_ten_messages_cost_what_they_may() {
    batches_of(10).await;
}

#[tokio::test]
async fn calls_for_a_hundred_messages_cost_what_they_may() {
    batches_of(100).await;
}

#[tokio::test]
async fn calls_for_a_thousand_messages_cost_what_they_may() {
    batches_of(1000).await;
}
