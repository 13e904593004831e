//! Many subscribers of one hub's Realtime.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use cogo::bus::Bus;
use cogo::clock::Stopwatch;
use cogo::realtime::wire::{Binding, ChangeKind, Config};
use cogo::realtime::{Channel, Client, Event, Options, State};
use cogo::shutdown::Tasks;
use futures_util::future::join_all;
use serde_json::json;
use tokio::sync::mpsc;

use crate::bench::Run;
use crate::bench::child::{Hub, Memory, allow_open_files};
use crate::bench::load::{Messages, SENDER_CONNECTIONS, Spawned, spawn};
use crate::bench::measure::{Case, Latencies, Record};
use crate::bench::scenario::memory::{KB, put};

pub(super) const ABOUT: &str = "Subscribers of one hub's Realtime (--subscribers), each with a WebSocket of its own: from the \
    call that enqueues until the first and until the last has the change; what the hub has in memory before and with them idle";

/// How long all may take to be subscribed, and to be told of a change.
const SUBSCRIBED_WITHIN: Duration = Duration::from_secs(120);
const TOLD_WITHIN: Duration = Duration::from_secs(60);
/// Those who come first, so that what a hub makes once is not counted as theirs.
const WARM: usize = 20;
/// How many subscribe at once.
const AT_ONCE: usize = 100;

pub(super) async fn measure(run: &Run, record: &Record) -> Result<()> {
    let count = run.plan.subscribers;
    // Ours, the hub's, and some for all else.
    allow_open_files(count as u64 + 500)?;
    let changes = run.plan.either(5, 50);
    let settle = run.plan.either(Duration::from_secs(1), Duration::from_secs(10));
    for round in 1..=run.plan.rounds {
        let doing = |what: &str| run.screen.doing(&format!("fanout: {what}, round {round}"));
        doing(&format!("{count} subscribers join"));
        let database = run.place.database().await?;
        let hub = Hub::start(run, &database, count).await?;
        let sender = database.bus(SENDER_CONNECTIONS).await?;
        let mut warm = Subscribers::join(&hub, WARM.min(count), &database.tasks).await?;
        let messages = Messages::of(run.plan.payload_bytes);
        warm.change(&sender, &messages).await?;
        warm.leave().await;
        tokio::time::sleep(settle).await;
        let parameters = json!({"subscribers": count});
        let case =
            |name: &str| Case::new(format!("{count} subscribers, {name}"), parameters.clone());
        let before = Memory::of(hub.process.pid()?)?;
        put(record, &case("hub before"), hub.process.pid()?)?;
        let mut all = Subscribers::join(&hub, count, &database.tasks).await?;
        tokio::time::sleep(settle).await;
        let with = Memory::of(hub.process.pid()?)?;
        put(record, &case("hub with them idle"), hub.process.pid()?)?;
        let each = case("a connection");
        let of = |after: f64, before: f64| (after - before) / count as f64;
        record.add(&each, "resident", KB, of(with.resident, before.resident));
        record.add(&each, "proportional", KB, of(with.proportional, before.proportional));
        record.add(&each, "anonymous", KB, of(with.anonymous, before.anonymous));
        let (mut firsts, mut lasts) = (Vec::new(), Vec::new());
        for n in 0..changes {
            doing(&format!("change {n} of {changes}"));
            let (first, last) = all.change(&sender, &messages).await?;
            firsts.push(first);
            lasts.push(last);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        record.add_latencies(&case("the first is told"), Latencies(firsts));
        record.add_latencies(&case("the last is told"), Latencies(lasts));
        all.leave().await;
        hub.stop().await?;
        run.place.drop_database(database).await?;
    }
    Ok(())
}

/// Clients that hear of new messages.
struct Subscribers {
    clients: Vec<Client>,
    listening: Vec<Spawned<()>>,
    told: mpsc::UnboundedReceiver<Duration>,
    since: Arc<Stopwatch>,
}

impl Subscribers {
    /// Has so many join, and waits until each hears.
    async fn join(hub: &Hub, count: usize, tasks: &Tasks) -> Result<Self> {
        let _somebody_was_first = rustls::crypto::ring::default_provider().install_default();
        let since = Arc::new(Stopwatch::start());
        let (tell, told) = mpsc::unbounded_channel();
        let mut all = Self { clients: Vec::new(), listening: Vec::new(), told, since };
        let key = hub.key(false)?;
        while all.clients.len() < count {
            let mut joining = Vec::new();
            for _ in 0..AT_ONCE.min(count - all.clients.len()) {
                let client = Client::start(Options::new(&hub.url, key.clone())?, tasks)?;
                let config = Config {
                    postgres_changes: vec![Binding::new(ChangeKind::Insert, "agent_messages")],
                    ..Config::default()
                };
                let channel = client.channel("bench", config);
                joining.push(subscribed(channel));
                all.clients.push(client);
            }
            for channel in join_all(joining).await {
                let (mut channel, tell, since) = (channel?, tell.clone(), Arc::clone(&all.since));
                all.listening.push(spawn(tasks, async move {
                    while let Some(event) = channel.next().await {
                        if matches!(event, Event::Change(_)) && tell.send(since.elapsed()).is_err()
                        {
                            break;
                        }
                    }
                }));
            }
        }
        Ok(all)
    }

    /// Makes a change; how long after it was sent the first and the last were told of it. When it was committed is known to
    /// be later alone, by its acknowledgement, which some are told before.
    async fn change(&mut self, sender: &Bus, messages: &Messages) -> Result<(Duration, Duration)> {
        let sent = self.since.elapsed();
        sender.publish(messages.one(0)).await?;
        let mut times = Vec::new();
        while times.len() < self.clients.len() {
            let told = tokio::time::timeout(TOLD_WITHIN, self.told.recv()).await;
            let told = told.with_context(|| {
                format!("{} of {} were told of a change", times.len(), self.clients.len())
            })?;
            times.push(told.context("all are gone")?.saturating_sub(sent));
        }
        let ends = times.iter().min().zip(times.iter().max());
        let (first, last) = ends.context("nobody has subscribed")?;
        Ok((*first, *last))
    }

    async fn leave(self) {
        drop(self.listening);
        join_all(self.clients.iter().map(Client::close)).await;
    }
}

/// The channel, once it hears of changes.
async fn subscribed(channel: Channel) -> Result<Channel> {
    let mut state = channel.state();
    let there = state.wait_for(|state| *state == State::Subscribed);
    let there = tokio::time::timeout(SUBSCRIBED_WITHIN, there).await;
    ensure!(there.is_ok_and(|there| there.is_ok()), "a subscriber did not come to hear of changes");
    Ok(channel)
}
