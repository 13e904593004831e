//! A rolling upgrade: a hub of the release before on today's schema, which workers of both releases join, and then today's.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::support::http_with;
use crate::tls::Terminator;
use crate::world::{World, call, echo, ends, hub, worker};

/// What lies between two messages of the stream.
const PACE: Duration = Duration::from_millis(50);

/// Says that it is enough, also where a test fails.
struct Enough<'a>(&'a AtomicBool);

impl Drop for Enough<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hubs_and_workers_are_replaced_one_by_one_while_messages_come() {
    let (world, tls) = (World::new().await, Terminator::start().await);
    let (today, before) = (world.today(), world.before());
    let old = hub(&before);
    tls.lead_to(&old.url);
    let (near, far) = (world.by_url(false, &tls, "new"), world.by_url(true, &tls, "old"));
    let old_gateway = worker(&far, "mcp-gateway");
    let old_echo = worker(&before, "echo");

    let stop = AtomicBool::new(false);
    let sent = thread::scope(|scope| {
        let stream = scope.spawn(|| {
            let mut sent = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let cogo = [&today, &before][sent.len() % 2];
                let (tool, echoed) = (call(cogo, "works", "stream"), echo(cogo, &[]));
                sent.extend([tool, echoed]);
                thread::sleep(PACE);
            }
            sent
        });
        let enough = Enough(&stop);
        // Today's workers join by the hub of before, and by its database.
        let new_gateway = worker(&near, "mcp-gateway");
        let new_echo = worker(&today, "echo");
        old_gateway.stop();
        old_echo.stop();
        // Only today's are left, and the hub is still the old one.
        ends(&near, &call(&near, "works", "by the old hub"), "done", 1);
        ends(&near, &call(&near, "stumbles", "by the old hub"), "done", 2);
        ends(&near, &call(&near, "refuses", "by the old hub"), "failed", 1);
        ends(&near, &echo(&near, &[]), "done", 1);

        // A function that the old hub never heard of.
        let names = format!("{}/rest/v1/rpc/bus_env_names", old.url);
        let bearer = format!("Bearer {}", world.key("new"));
        let (status, names) = http_with("POST", &names, &[("authorization", &bearer)], "{}");
        assert_eq!((status, &names["names"]), (200, &json!([])), "{names}");

        // Then the hub, under workers that stay.
        old.running.stop();
        let new = hub(&today);
        tls.lead_to(&new.url);
        ends(&near, &call(&near, "works", "by the new hub"), "done", 1);
        drop(enough);
        let sent = stream.join().expect("all were sent");
        for id in &sent {
            ends(&today, id, "done", 1);
        }
        for running in [new_gateway, new_echo, new.running] {
            running.stop();
        }
        sent
    });
    assert!(sent.len() > 10, "{}", sent.len());
    world.ends_exact().await;
}
