//! Workers: seen, woken, at work.

use std::sync::Arc;
use std::time::Duration;

use cogo::bus::dead_letter::Filter;
use cogo::bus::offer::{NewDefinition, NewPin};
use cogo::bus::{Bus, Error, Feed, Signal, Update};
use cogo::clock::Stopwatch;
use cogo::error::Code;
use cogo::message::Status;
use cogo::retry::Policies;
use cogo::shutdown::{Shutdown, Tasks};
use cogo::worker::runner::{Options, Runner};
use cogo::worker::{Delivery, Failure, Handler, Output};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::sync::{Notify, watch};

use super::setting::{Setting, Way};
use crate::fixtures::{SOON, echo, eventually, topic};

/// Gives back what it got.
struct Echo;

impl Handler for Echo {
    async fn handle(&self, delivery: Delivery) -> Result<Output, Failure> {
        Ok(delivery.message.payload.clone().into())
    }
}

/// Holds what it gets until it is let go, and says what it offers.
struct Holds(Arc<Notify>);

impl Handler for Holds {
    async fn handle(&self, _delivery: Delivery) -> Result<Output, Failure> {
        self.0.notified().await;
        Ok(json!(null).into())
    }

    fn info(&self) -> Value {
        json!({"toolsets": {"demo": {"tools": ["echo"]}}})
    }
}

/// Says when it has begun, and when it was cancelled.
#[derive(Clone, Default)]
struct Cancellable {
    begun: Arc<Notify>,
    cancelled: Arc<Notify>,
}

impl Handler for Cancellable {
    async fn handle(&self, delivery: Delivery) -> Result<Output, Failure> {
        self.begun.notify_one();
        delivery.cancelled.cancelled().await;
        self.cancelled.notify_one();
        Ok(json!("too late").into())
    }
}

/// Reports as it is told to, and then ends at once.
struct Reporter;

impl Handler for Reporter {
    async fn handle(&self, delivery: Delivery) -> Result<Output, Failure> {
        let (batches, each) =
            (&delivery.message.payload["batches"], &delivery.message.payload["each"]);
        let (batches, each) = (batches.as_i64().unwrap_or(1), each.as_i64().unwrap_or(1));
        for batch in 0..batches {
            if batch > 0 {
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
            for n in 0..each {
                delivery
                    .progress(json!({"progress": batch * each + n + 1, "total": batches * each}));
            }
        }
        Ok(json!("done").into())
    }
}

pub(super) struct Running {
    shutdown: Shutdown,
    tasks: Tasks,
}

impl Running {
    pub(super) async fn start<H: Handler>(bus: &Bus, handler: H, lease: Duration) -> Self {
        let (shutdown, tasks) = (Shutdown::new(), Tasks::new());
        let options = Options {
            worker_id: "w.1".to_owned(),
            tenant: "default".to_owned(),
            topics: vec![topic()],
            concurrency: 4,
            prefetch: cogo::worker::Prefetch::Auto,
            lease,
        };
        let runner = Runner::new(handler, options, bus.clone(), Arc::new(Policies::default()));
        let (ready, mut is_ready) = watch::channel(false);
        let stop = shutdown.clone();
        tasks.spawn(async move { runner.run(&stop, &ready).await.expect("runs") });
        let claims = is_ready.wait_for(|ready| *ready);
        tokio::time::timeout(SOON, claims).await.expect("ready in time").expect("running");
        Self { shutdown, tasks }
    }

    pub(super) async fn stop(self) {
        self.shutdown.drain();
        assert!(self.tasks.join(SOON).await, "the runner ends");
    }
}

pub(super) async fn a_worker_is_seen_and_goes(s: Setting) {
    let worker = json!({
        "id": "w.9", "tenant": "default", "role": "echo", "host": "here", "version": "1.2.3",
        "topics": ["echo/default"], "lease_ms": 30_000, "in_flight": 2,
        "info": {"toolsets": {"demo": {"tools": ["echo"]}}},
    });
    assert!(s.bus.worker_seen(&worker).await.expect("told"), "it is new");
    assert!(!s.bus.worker_seen(&worker).await.expect("told"), "it is known");
    let seen = s.bus.workers(10).await.expect("listed");
    let admins = s.admin.workers(10).await.expect("listed");
    assert_eq!(json!(seen), json!(admins));
    assert_eq!((seen[0].id.as_str(), seen[0].status.as_str()), ("w.9", "online"));
    assert!(s.bus.worker_gone("w.9", "enough", "default").await.expect("told"));
    assert!(!s.bus.worker_gone("w.9", "enough", "default").await.expect("told"), "it is gone");
    assert_eq!(s.bus.workers(10).await.expect("listed")[0].status, "offline");
    let nameless = s.bus.worker_seen(&json!({"role": "echo"})).await.expect_err("no name");
    assert!(matches!(nameless.code(), Code::InvalidArgument | Code::Forbidden), "{nameless:?}");
}

pub(super) async fn a_runner_does_what_is_published_and_stops(s: Setting) {
    let running = Running::start(&s.bus, Echo, Duration::from_secs(30)).await;
    let batch: Vec<_> = (0..40).map(|n| echo(json!({"n": n}))).collect();
    s.bus.publish_all(&batch).await.expect("published");
    for message in &batch {
        let done = eventually("the message is done", async || {
            let message = s.bus.message(message.id).await.expect("found");
            message.status.is_final().then_some(message)
        })
        .await;
        assert_eq!((done.status, done.result), (Status::Done, Some(message.payload.clone())));
    }
    running.stop().await;
    assert_eq!(s.admin.workers(10).await.expect("listed")[0].status, "offline");
}

pub(super) async fn a_worker_that_finds_nothing_is_woken_long_before_it_polls(s: Setting) {
    let running = Running::start(&s.bus, Echo, Duration::from_secs(30)).await;
    // Over the internet it waits for 15 s and more, once it is told of what happens.
    told(&s).await;
    // Another process' message, of which this one's bus knows nothing.
    for _ in 0..3 {
        let began = Stopwatch::start();
        let id = s.admin.publish(echo(json!(1))).await.expect("published").id;
        eventually("the message is done", async || {
            let message = s.admin.message(id).await.expect("found");
            message.status.is_final().then_some(())
        })
        .await;
        // On a database it looks each second anyway.
        let soon = s.way == Way::Postgres || began.elapsed() < Duration::from_secs(12);
        assert!(soon, "{:?}", began.elapsed());
    }
    running.stop().await;
}

pub(super) async fn a_worker_shows_what_it_holds_and_offers(s: Setting) {
    let let_go = Arc::new(Notify::new());
    let handler = Holds(Arc::clone(&let_go));
    let running = Running::start(&s.bus, handler, Duration::from_secs(3)).await;
    s.bus.publish(echo(json!(1))).await.expect("published");
    let sql = "select jsonb_build_object('topics', topics, 'info', info, 'lease_ms', lease_ms)
        from workers where id = 'w.1' and in_flight = 1 and status = 'online'";
    let shown: Value = eventually("the worker shows itself", async || {
        sqlx::query_scalar(sql).fetch_optional(s.db.pool()).await.expect("read")
    })
    .await;
    assert_eq!(shown["topics"], json!(["echo/default"]));
    assert_eq!(shown["lease_ms"], 3000);
    assert_eq!(shown["info"]["toolsets"]["demo"]["tools"], json!(["echo"]));
    let_go.notify_waiters();
    let_go.notify_one();
    running.stop().await;
}

/// Waits until a worker far away is told of what happens, and does not poll.
async fn told(s: &Setting) {
    if s.way != Way::Postgres {
        eventually("wake-ups come", async || {
            (s.bus.pause() >= Duration::from_secs(15)).then_some(())
        })
        .await;
    }
}

pub(super) async fn a_cancel_reaches_the_handler_long_before_its_lease_is_looked_after(s: Setting) {
    let handler = Cancellable::default();
    // It looks after its leases each two minutes, which is later than anything is waited for here.
    let running = Running::start(&s.bus, handler.clone(), Duration::from_secs(360)).await;
    told(&s).await;
    // The first also by a process that knows nothing of the worker; then by the worker's own.
    for by in [&s.admin, &s.bus] {
        let id = s.admin.publish(echo(json!(1))).await.expect("published").id;
        tokio::time::timeout(SOON, handler.begun.notified()).await.expect("the message is held");
        // The look that the start of wake-ups asked for is over.
        tokio::time::sleep(Duration::from_millis(300)).await;
        by.cancel(&[id], Some("not wanted")).await.expect("cancelled");
        let told = tokio::time::timeout(SOON, handler.cancelled.notified());
        told.await.expect("the handler is told");
        assert_eq!(s.admin.message(id).await.expect("found").status, Status::Cancelled);
    }
    running.stop().await;
}

pub(super) async fn every_report_reaches_whoever_watches_before_the_end(s: Setting) {
    let (shutdown, tasks) = (Shutdown::new(), Tasks::new());
    let feed = Feed::start(s.admin.clone(), &tasks, &shutdown);
    let running = Running::start(&s.bus, Reporter, Duration::from_secs(30)).await;
    let message = echo(json!({"batches": 3, "each": 20}));
    // Watched from before it is there, as whoever publishes must.
    let mut watch = feed.watch(message.id);
    s.admin.publish(message.clone()).await.expect("published");
    let (mut told, mut pieces) = (Vec::new(), 0);
    let done = loop {
        match watch.next(SOON).await.expect("watched") {
            Update::Progress(reports) => {
                assert!(!reports.is_empty());
                pieces += 1;
                told.extend(
                    reports
                        .into_iter()
                        .map(|report| report["progress"].as_i64().expect("a number")),
                );
            }
            Update::Finished(message) => break message,
            update => panic!("{update:?}"),
        }
    };
    assert_eq!(done.result, Some(json!("done")));
    assert_eq!(told, (1..=60).collect::<Vec<_>>(), "each once, in order");
    assert!(pieces >= 2, "they were told while the handler ran");
    // Whoever comes later is told the same, and who does not care nothing of it.
    let mut late = feed.watch(message.id);
    let mut reports = 0;
    while let Update::Progress(more) = late.next(SOON).await.expect("watched") {
        reports += more.len();
    }
    assert_eq!(reports, 60);
    let mut careless = feed.watch(message.id).without_progress();
    let update = careless.next(SOON).await.expect("watched");
    assert!(matches!(update, Update::Finished(_)), "{update:?}");
    running.stop().await;
    shutdown.cancel();
}

pub(super) async fn only_a_database_has_a_dead_letter_queue(s: Setting) {
    let listed = s.bus.dead_letters(&Filter::default(), 10).await;
    match s.way {
        Way::Postgres => assert_eq!(listed.expect("listed"), []),
        Way::Service | Way::Token => {
            let error = listed.expect_err("refused");
            assert!(matches!(error, Error::NeedsDatabase { .. }), "{error:?}");
            assert!(error.to_string().contains("postgres://"), "{error}");
        }
    }
    let mut woken = s.bus.waker(Signal::Log);
    s.bus.publish(echo(json!(1))).await.expect("published");
    tokio::time::timeout(SOON, woken.woken()).await.expect("its own doings wake at once");
}

pub(crate) async fn what_is_offered_is_defined_read_and_approved_alike(its: Setting) {
    let new = |n: usize| {
        let definition = json!({"name": "echo", "description": format!("{n} ").repeat(5000)});
        let definition = definition.to_string();
        let hash = Sha256::digest(definition.as_bytes());
        let hash = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        NewDefinition { hash, definition }
    };
    // More than goes into one request.
    let many: Vec<_> = (0..40).map(new).collect();
    for _ in 0..2 {
        assert!(its.bus.define("default", &many).await.expect("defined").is_empty());
    }
    let hashes: Vec<_> = many.iter().map(|new| new.hash.clone()).collect();
    let read = its.bus.definitions("default", &hashes).await.expect("read");
    assert_eq!(read.len(), 40);
    assert!(read.iter().all(|known| many.iter().any(|new| new.definition == known.definition)));
    let bad = NewDefinition { hash: many[0].hash.clone(), definition: "{}".to_owned() };
    let large = NewDefinition { definition: "x".repeat(70_000), ..new(41) };
    let fine = new(42);
    let refused = its.bus.define("default", &[bad, large, fine.clone()]).await.expect("defined");
    assert_eq!(refused.len(), 1, "what is known is not looked at: {refused:?}");
    assert_eq!(its.bus.definitions("default", &[fine.hash]).await.expect("read").len(), 1);

    let worker = json!({"id": "w", "tenant": "default", "role": "mcp-gateway", "topics": ["mcp-gateway/demo"],
        "info": {"toolsets": {"demo": {"tools": {"echo": hashes[0]}}}}});
    its.bus.worker_seen(&worker).await.expect("seen");
    let offers = its.bus.offers("default", Duration::from_secs(60)).await.expect("read");
    assert_eq!(offers.len(), 1);
    assert_eq!(
        (offers[0].tool.as_str(), &offers[0].hash, offers[0].online),
        ("echo", &hashes[0], 1)
    );
    assert_eq!(offers[0].workers, ["w"]);
    let pin = NewPin {
        toolset: "demo".to_owned(),
        tool: "echo".to_owned(),
        hash: Some(hashes[0].clone()),
    };
    let approved = its.bus.pin("default", std::slice::from_ref(&pin), Some("ann")).await;
    if its.way == Way::Token {
        assert_eq!(approved.expect_err("an operator's").code(), Code::Forbidden);
        its.admin.pin("default", &[pin], Some("ann")).await.expect("approved");
    } else {
        assert_eq!(approved.expect("approved"), 1);
    }
    let pins = its.bus.pins("default").await.expect("read");
    assert_eq!((pins.len(), pins[0].pinned_by.as_deref()), (1, Some("ann")));
}
