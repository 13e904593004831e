//! Tests of following the log, which needs a database and is nobody's outside the library.

use serde_json::json;

use crate::bus::{Bus, Feed};
use crate::shutdown::{Shutdown, Tasks};
use crate::testing::TestDb;

/// More batches than the feed keeps.
const BATCHES: usize = 40;

#[tokio::test]
async fn who_falls_behind_reads_what_it_missed_once_and_in_order() {
    let db = TestDb::new().await;
    let (tasks, shutdown) = (Tasks::new(), Shutdown::new());
    let bus = Bus::new(db.pool().clone());
    let feed = Feed::start(bus.clone(), &tasks, &shutdown);
    let (mut slow, mut fast) = (feed.follow(), feed.follow());
    feed.begun().await;
    let mut told = Vec::new();
    for n in 0..BATCHES {
        let event = json!({"event_type": format!("step_{n}"), "tenant": "acme"});
        bus.append_event(event).await.expect("it is appended");
        // A batch of its own, since the next is appended only when this one was read.
        let heads = fast.next().await.expect("it reads along");
        told.extend(heads.into_iter().map(|head| head.event_type));
    }
    let wanted: Vec<String> = (0..BATCHES).map(|n| format!("step_{n}")).collect();
    assert_eq!(told, wanted);
    let mut told = Vec::new();
    while told.len() < BATCHES {
        let heads = slow.next().await.expect("it reads what it missed");
        told.extend(heads.into_iter().map(|head| head.event_type));
    }
    assert_eq!(told, wanted);
    shutdown.cancel();
}
