//! A worker for all tenants shares its places out fairly.

use std::sync::{Arc, Mutex};

use cogo::bus::{Bus, Limits};
use cogo::message::{ALL_TENANTS, NewMessage};
use cogo::retry::Policies;
use cogo::testing::TestDb;
use cogo::worker::runner::Options;
use cogo::worker::{Delivery, Failure, Handler, Output};
use serde_json::{Value, json};

use crate::fixtures::{echo, eventually, replay_differences, topic};
use crate::runner::{LEASE, Running};

/// Takes down whose messages it is given, in order.
#[derive(Clone, Default)]
struct Notebook(Arc<Mutex<Vec<String>>>);

impl Notebook {
    fn read(&self) -> Vec<String> {
        self.0.lock().expect("unpoisoned").clone()
    }
}

impl Handler for Notebook {
    async fn handle(&self, delivery: Delivery) -> Result<Output, Failure> {
        self.0.lock().expect("unpoisoned").push(delivery.message.tenant.clone());
        Ok(Value::Null.into())
    }
}

async fn send(bus: &Bus, tenant: &str, n: usize) {
    let message = || NewMessage { tenant: tenant.to_owned(), ..echo(json!({})) };
    let batch: Vec<_> = (0..n).map(|_| message()).collect();
    bus.publish_all(&batch).await.expect("published");
}

/// Lets a worker of four places handle all that waits; whose messages it was given, in order.
async fn work_off(bus: &Bus) -> Vec<String> {
    let notebook = Notebook::default();
    let options = Options {
        worker_id: "for-all".to_owned(),
        tenant: ALL_TENANTS.to_owned(),
        topics: vec![topic()],
        concurrency: 4,
        prefetch: cogo::worker::Prefetch::Auto,
        lease: LEASE,
    };
    let running = Running::start_as(notebook.clone(), options, bus, Policies::default()).await;
    let shown =
        eventually("the worker shows itself", async || bus.workers(1).await.expect("listed").pop())
            .await;
    assert_eq!(shown.tenant, "*");
    eventually("all is done", async || bus.stats().await.expect("stats").is_empty().then_some(()))
        .await;
    running.stop().await;
    let gone = bus.workers(1).await.expect("listed");
    assert_eq!(gone.first().map(|worker| worker.status.as_str()), Some("offline"));
    notebook.read()
}

fn of(tenant: &str, order: &[String]) -> usize {
    order.iter().filter(|whose| *whose == tenant).count()
}

#[tokio::test]
async fn a_small_tenant_does_not_wait_behind_the_backlog_of_a_large_one() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    send(&bus, "large", 600).await;
    send(&bus, "small", 30).await;
    let order = work_off(&bus).await;
    assert_eq!((of("large", &order), of("small", &order)), (600, 30));
    let last = order.iter().rposition(|whose| whose == "small").expect("it was served");
    // Half of the places were its own; left alone it would have been served last, at 629.
    assert!(last < 150, "the last of 30 was served at {last}");
    assert_eq!(replay_differences(&db).await, Vec::<String>::new());
}

#[tokio::test]
async fn places_are_shared_out_by_weight() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    let weights = json!({"tenants": {"heavy": {"weight": 3}, "*": {"weight": 1}}});
    let weights: Limits = serde_json::from_value(weights).expect("well-formed");
    bus.set_limits(&weights).await.expect("set");
    send(&bus, "heavy", 400).await;
    send(&bus, "light", 400).await;
    let order = work_off(&bus).await;
    // While both had work: three of four places, give or take what chance does to a few hundred.
    let heavy = of("heavy", &order[..400]);
    assert!((250..=350).contains(&heavy), "{heavy} of 400");
}
