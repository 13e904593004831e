//! Workers and commands of the release before, with today's schema and hub.

use crate::support::{Cogo, until};
use crate::tls::Terminator;
use crate::world::{World, call, echo, ends, hub, message, worker};

/// Calls, retries, dead letters and a worker's death, where only a worker of the release before is there.
async fn serves(world: &World, old: &Cogo) {
    let today = world.today();
    let mut gateway = worker(old, "mcp-gateway");
    let listed = today.json(&["workers"]);
    assert_eq!(
        (&listed[0]["role"], &listed[0]["status"]),
        (&"mcp-gateway".into(), &"online".into())
    );
    assert!(until(|| today.ok(&["mcp", "tools"]).stdout.contains("stumbles")));

    let called =
        today.ok(&["mcp", "call", "tools", "works", "--params", "{\"key\": \"x\"}"]).stdout;
    assert!(called.contains("works x"), "{called}");
    let again = call(&today, "stumbles", "again");
    let dead = call(&today, "refuses", "dead");
    ends(&today, &again, "done", 2);
    ends(&today, &dead, "failed", 1);
    assert!(today.ok(&["dlq", "list"]).stdout.contains(&dead));
    today.ok(&["dlq", "requeue", &dead]);
    assert!(until(|| today.json(&["dlq", "list"]).to_string().contains(&dead)));

    // Killed with a call in hand, which today's worker takes over.
    let held = call(&today, "waits", "held");
    assert!(until(|| message(&today, &held)["status"] == "claimed"));
    gateway.signal("KILL");
    gateway.end();
    let new = worker(&today, "mcp-gateway");
    world.go();
    ends(&today, &held, "done", 2);
    new.stop();
    // And the other way round: stopped with nothing in hand, it leaves as it should.
    let gateway = worker(old, "mcp-gateway");
    ends(&today, &call(&today, "works", "last"), "done", 1);
    gateway.stop_with(|said| assert!(!said.contains("ERROR"), "{said}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_of_the_release_before_works_on_todays_schema() {
    let world = World::new().await;
    let hub = hub(&world.today());
    serves(&world, &world.before()).await;
    hub.running.stop();
    world.ends_exact().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_of_the_release_before_works_over_https_with_todays_hub() {
    let (world, tls) = (World::new().await, Terminator::start().await);
    let hub = hub(&world.today());
    tls.lead_to(&hub.url);
    serves(&world, &world.by_url(true, &tls, "laptop")).await;
    hub.running.stop();
    world.ends_exact().await;
}

/// Scripts and people who still have the old program.
#[tokio::test(flavor = "multi_thread")]
async fn commands_of_the_release_before_work_on_todays_schema_and_hub() {
    let (world, tls) = (World::new().await, Terminator::start().await);
    let (today, before) = (world.today(), world.before());
    let hub = hub(&today);
    tls.lead_to(&hub.url);
    let (gateway, echoes) = (worker(&today, "mcp-gateway"), worker(&today, "echo"));
    for cogo in [&before, &world.by_url(true, &tls, "desk")] {
        let sent = echo(cogo, &[]);
        ends(cogo, &sent, "done", 1);
        assert!(cogo.ok(&["trace", &sent]).stdout.contains("echo_succeeded"));
        assert!(cogo.ok(&["tail", "-n", "50"]).stdout.contains("echo_succeeded"));
        assert!(cogo.ok(&["workers"]).stdout.contains("mcp-gateway"));
        cogo.ok(&["circuit", "list"]);
        assert!(cogo.ok(&["mcp", "call", "tools", "works"]).stdout.contains("works"));
    }
    let dead = call(&before, "refuses", "dead");
    ends(&before, &dead, "failed", 1);
    assert!(before.ok(&["dlq", "show", &dead]).stdout.contains("refuses dead"));
    before.ok(&["dlq", "requeue", &dead, "--params", "{\"key\": \"again\"}"]);
    assert!(until(|| message(&before, &dead)["status"] == "failed"));
    before.ok(&["dlq", "drop", &dead, "--yes"]);
    assert!(before.ok(&["status"]).stdout.contains("echo"));
    before.ok(&["limits"]);
    assert!(before.ok(&["mcp", "tools"]).stdout.contains("stumbles"));
    assert_eq!(before.json(&["replay", "verify"])["exact"], true);
    for running in [echoes, gateway, hub.running] {
        running.stop();
    }
    world.ends_exact().await;
}
