//! A worker that runs in the test's process, and what is waited for beside it.

use std::time::Duration;

use cogo::bus::Bus;
use cogo::live::Live;
use cogo::message::{Message, MessageId};
use cogo::retry::Policies;
use cogo::shutdown::{Shutdown, Tasks};
use cogo::worker::Handler;
use cogo::worker::runner::{Options, Runner};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::scripted::Scripted;
use crate::fixtures::{SOON, eventually, topic};

pub(super) const LEASE: Duration = Duration::from_secs(30);

pub(super) struct Running {
    pub(super) shutdown: Shutdown,
    pub(super) tasks: Tasks,
    /// The handler, where it is a scripted one.
    pub(super) script: Scripted,
}

impl Running {
    pub(super) async fn start(
        bus: &Bus,
        policies: Value,
        lease: Duration,
        concurrency: usize,
    ) -> Self {
        let script = Scripted::new();
        let running = Self::start_with(script.clone(), bus, policies, lease, concurrency).await;
        Self { script, ..running }
    }

    pub(super) async fn start_with<H: Handler>(
        handler: H,
        bus: &Bus,
        policies: Value,
        lease: Duration,
        concurrency: usize,
    ) -> Self {
        Self::start_live(handler, bus, policies_of(policies), lease, concurrency).await
    }

    pub(super) async fn start_live<H: Handler>(
        handler: H,
        bus: &Bus,
        policies: impl Into<Live<Policies>>,
        lease: Duration,
        concurrency: usize,
    ) -> Self {
        let options = Options {
            worker_id: "w1".to_owned(),
            tenant: "default".to_owned(),
            topics: vec![topic()],
            concurrency,
            prefetch: cogo::worker::Prefetch::Auto,
            lease,
        };
        Self::start_as(handler, options, bus, policies).await
    }

    pub(super) async fn start_as<H: Handler>(
        handler: H,
        options: Options,
        bus: &Bus,
        policies: impl Into<Live<Policies>>,
    ) -> Self {
        let runner = Runner::new(handler, options, bus.clone(), policies);
        let (shutdown, tasks) = (Shutdown::new(), Tasks::new());
        let (ready, mut is_ready) = watch::channel(false);
        let stop = shutdown.clone();
        tasks.spawn(async move { runner.run(&stop, &ready).await.expect("runs") });
        tokio::time::timeout(SOON, is_ready.wait_for(|ready| *ready))
            .await
            .expect("ready in time")
            .expect("running");
        Self { shutdown, tasks, script: Scripted::new() }
    }

    pub(super) async fn stop(self) {
        self.shutdown.drain();
        assert!(self.tasks.join(SOON).await, "the runner ends");
    }
}

pub(super) fn policies_of(policies: Value) -> Policies {
    serde_json::from_value(json!({"policies": policies})).expect("a good policy")
}

pub(super) async fn finished(bus: &Bus, id: MessageId) -> Message {
    until(bus, id, |message| message.status.is_final()).await
}

pub(super) async fn until(bus: &Bus, id: MessageId, wanted: impl Fn(&Message) -> bool) -> Message {
    eventually("the message is as wanted", async || {
        let message = bus.message(id).await.expect("found");
        wanted(&message).then_some(message)
    })
    .await
}

pub(super) async fn types(bus: &Bus, id: MessageId) -> Vec<String> {
    let events = bus.message_events(id, 100).await.expect("events");
    events.into_iter().map(|event| event.event_type).collect()
}
