//! Workers of the library, over the wire.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use cogo::bus::Bus;
use cogo::bus::rest::{self, Key};
use cogo::clock::Stopwatch;
use cogo::message::{NewMessage, Topic};
use cogo::net;
use cogo::retry;
use cogo::shutdown::{Shutdown, Tasks};
use cogo::worker::runner::{Options, Runner};
use cogo::worker::{Delivery, Failure, Handler, Output};
use serde_json::json;
use tokio::sync::{Mutex, mpsc, watch};

use crate::hub::Hub;

/// As in worker.json.
const LEASE: Duration = Duration::from_secs(30);
/// Longer than any poll.
const WITHIN: Duration = Duration::from_secs(120);

/// Says when it starts, and is done.
#[derive(Debug, Clone)]
struct Note {
    started: mpsc::Sender<Duration>,
    clock: Stopwatch,
    handled: Arc<AtomicUsize>,
}

impl Handler for Note {
    async fn handle(&self, delivery: Delivery) -> Result<Output, Failure> {
        let _nobody_waits = self.started.try_send(self.clock.elapsed());
        self.handled.fetch_add(1, Ordering::Relaxed);
        Ok(delivery.message.payload.clone().into())
    }
}

/// Workers that run.
pub(crate) struct Fleet {
    topics: Vec<Topic>,
    ready: Vec<watch::Receiver<bool>>,
    shutdown: Shutdown,
    tasks: Tasks,
    sender: Bus,
    clock: Stopwatch,
    started: Mutex<mpsc::Receiver<Duration>>,
    handled: Arc<AtomicUsize>,
}

fn bus(hub: &Hub, worker: Option<(&str, &str)>) -> Result<Bus> {
    let (url, key) = (hub.url.clone(), Key::Text(hub.key(worker)));
    Ok(Bus::remote(rest::Options { url, key, api_key: None, net: net::Options::default() })?)
}

impl Fleet {
    /// Starts `count` workers with places for `concurrency` messages, each with a topic of its own or all
    /// with the same.
    pub(crate) fn start(
        hub: &Hub,
        name: &str,
        count: usize,
        concurrency: usize,
        own_topics: bool,
    ) -> Result<Self> {
        let (shutdown, tasks) = (Shutdown::new(), Tasks::new());
        let (started, receiver) = mpsc::channel(16);
        let clock = Stopwatch::start();
        let handled = Arc::new(AtomicUsize::new(0));
        let note = Note { started, clock, handled: Arc::clone(&handled) };
        let (mut topics, mut all_ready) = (Vec::new(), Vec::new());
        for n in 0..count {
            let id = format!("{name}-{n}");
            let service = if own_topics { id.clone() } else { name.to_owned() };
            let topic = Topic::new("scale", &service)?;
            let bus = bus(hub, Some((&id, &topic.to_string())))?;
            let (tenant, topics_of) = ("default".to_owned(), vec![topic.clone()]);
            let options = Options {
                worker_id: id,
                tenant,
                topics: topics_of,
                concurrency,
                prefetch: cogo::worker::Prefetch::Auto,
                lease: LEASE,
            };
            let runner = Runner::new(note.clone(), options, bus, retry::Policies::default());
            let (ready, is_ready) = watch::channel(false);
            let shutdown = shutdown.clone();
            tasks.spawn(async move {
                runner.run(&shutdown, &ready).await.expect("the bus takes what the worker is");
            });
            topics.push(topic);
            all_ready.push(is_ready);
        }
        let sender = bus(hub, None)?;
        let started = Mutex::new(receiver);
        Ok(Self { topics, ready: all_ready, shutdown, tasks, sender, clock, started, handled })
    }

    /// Waits until all have claimed for the first time.
    pub(crate) async fn ready(&self) -> Result<()> {
        for ready in &self.ready {
            let mut ready = ready.clone();
            tokio::time::timeout(WITHIN, ready.wait_for(|ready| *ready))
                .await
                .context("not ready")??;
        }
        Ok(())
    }

    /// Sends one worker a message; how long after the answer its handler began.
    pub(crate) async fn wake(&self, which: usize) -> Result<Duration> {
        let mut started = self.started.lock().await;
        self.sender.publish(message(&self.topics[which])).await?;
        let sent = self.clock.elapsed();
        let at = tokio::time::timeout(WITHIN, started.recv()).await.context("nobody began")?;
        Ok(at.context("all are gone")?.saturating_sub(sent))
    }

    /// Sends a message, again and again under its id while the hub is too busy to answer.
    async fn send(&self, message: NewMessage) -> Result<()> {
        let watch = Stopwatch::start();
        loop {
            match self.sender.publish(message.clone()).await {
                Err(error) if error.is_transient() && watch.elapsed() < WITHIN => {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                answer => return Ok(answer.map(drop)?),
            }
        }
    }

    /// Enqueues messages for all, and waits until each was handled.
    pub(crate) async fn work_off(&self, hub: &Hub, count: usize) -> Result<()> {
        let topic = &self.topics[0];
        for chunk in (0..count).collect::<Vec<_>>().chunks(500) {
            let sending = chunk.iter().map(|_| self.send(message(topic)));
            futures_util::future::try_join_all(sending).await?;
        }
        let watch = Stopwatch::start();
        while self.handled.load(Ordering::Relaxed) < count {
            ensure!(watch.elapsed() < WITHIN, "not all were handled:\n{}", hub.said());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Ends all.
    pub(crate) async fn stop(self) {
        self.shutdown.drain();
        let _or_are_aborted = self.tasks.join(WITHIN).await;
    }
}

fn message(topic: &Topic) -> NewMessage {
    NewMessage::new(topic, "scale", json!({"n": 1}))
}
