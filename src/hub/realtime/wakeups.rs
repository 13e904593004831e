//! Waking workers: `cogo:work:<tenant>:<role>:<service>`, event `work`, says that messages of that topic may
//! have become claimable; event `claims`, that claims on some were taken away. Both carry nothing, and a worker that
//! hears none looks by itself.
//!
//! Most of it the log tells. What appends no event (promotions, breakers that close, the next of an ordering
//! key) is asked of the table, and only while somebody waits.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::bus::{Head, Signal};
use crate::error::chain;
use crate::hub::caller::within;
use crate::hub::realtime::Inner;
use crate::hub::realtime::change::{What, what};
use crate::hub::realtime::frame::Shared;
use crate::hub::realtime::queries::{self, Work};
use crate::hub::realtime::scope::{WORK, of_tenant};
use crate::hub::realtime::topics::Name;
use crate::realtime::wire::event;

/// A topic is told at most once in this time.
const COALESCE: Duration = Duration::from_millis(50);
/// The table is asked at most once in this time.
const ASK: Duration = Duration::from_millis(100);
/// And at least once in this, while somebody waits: a NOTIFY may be lost.
const POLL: Duration = Duration::from_secs(1);
/// And at most for this part of the time: a thousand topics take some 25 ms over a million messages.
const SHARE: u32 = 10;
/// How long the table may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// What workers are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Said {
    /// There may be something to claim.
    Work,
    /// Claims may have been taken away.
    Claims,
}

impl Said {
    fn event(self) -> &'static str {
        match self {
            Self::Work => "work",
            Self::Claims => "claims",
        }
    }
}

/// What is to be told, and when it was last.
struct Wakeups {
    inner: Arc<Inner>,
    told: HashMap<(Name, Said), Instant>,
    due: HashSet<(Name, Said)>,
    /// What may have become claimable without an event, and when the table may be asked.
    doubtful: bool,
    asked: Instant,
    pause: Duration,
}

/// Wakes workers from now on. Ends with the process.
pub(crate) async fn run(inner: Arc<Inner>) {
    let mut follower = inner.feed.follow();
    let mut work = inner.bus.waker(Signal::Work);
    let (told, due) = (HashMap::new(), HashSet::new());
    let asked = Instant::now();
    let mut wakeups = Wakeups { inner, told, due, doubtful: false, asked, pause: ASK };
    loop {
        let flush = Instant::now() + COALESCE;
        let ask = wakeups.asked + if wakeups.doubtful { ASK } else { POLL }.max(wakeups.pause);
        tokio::select! {
            heads = follower.next() => match heads {
                Ok(heads) => heads.iter().for_each(|head| wakeups.hear(head)),
                Err(error) => {
                    tracing::debug!(error = %chain(&error), "Could not read the log again");
                    tokio::time::sleep(COALESCE).await;
                }
            },
            () = work.woken() => wakeups.doubtful = true,
            () = tokio::time::sleep_until(flush), if !wakeups.due.is_empty() => {}
            () = tokio::time::sleep_until(ask) => wakeups.ask().await,
        }
        wakeups.flush();
    }
}

impl Wakeups {
    fn hear(&mut self, head: &Head) {
        if head.message_id.is_none() {
            return;
        }
        let name = Name {
            space: of_tenant(&head.tenant),
            private: true,
            topic: format!("{WORK}{}:{}:{}", head.tenant, head.role, head.service).into(),
        };
        if !self.inner.topics.has(&name) {
            return;
        }
        match what(head) {
            What::Scheduled | What::Waiting => {
                self.due.insert((name, Said::Work));
            }
            What::Finished => {
                // The next of its ordering key may go on.
                self.doubtful = true;
                // The event of a cancel names the worker that held the message.
                if head.worker_id.is_some() && head.event_type.ends_with("_cancelled") {
                    self.due.insert((name, Said::Claims));
                }
            }
            _ => {}
        }
    }

    /// Asks the table who has work.
    async fn ask(&mut self) {
        let began = Instant::now();
        self.doubtful = false;
        self.look().await;
        self.asked = Instant::now();
        self.pause = began.elapsed() * SHARE;
    }

    async fn look(&mut self) {
        let names = self.inner.topics.of_workers();
        if names.is_empty() {
            return;
        }
        let asked: Vec<(&Name, Work<'_>)> =
            names.iter().filter_map(|name| Some((name, parts(&name.topic)?))).collect();
        let works: Vec<Work<'_>> = asked.iter().map(|(_, work)| *work).collect();
        let found =
            queries::with_work(self.inner.bus.pool().expect("a hub has a database"), &works);
        match within(PATIENCE, found).await {
            Ok(found) => {
                let found = found.into_iter().filter_map(|n| usize::try_from(n - 1).ok());
                let work = |at: usize| Some((asked.get(at)?.0.clone(), Said::Work));
                self.due.extend(found.filter_map(work));
            }
            Err(error) => {
                tracing::debug!(error = %chain(&error), "Could not look for work; workers poll");
            }
        }
    }

    /// Tells those topics that were not told just now.
    fn flush(&mut self) {
        self.told.retain(|_, at| at.elapsed() < COALESCE);
        let told = &mut self.told;
        self.due.retain(|due| {
            if told.contains_key(due) {
                return true;
            }
            let (name, said) = due;
            let topic = name.on_wire();
            let said = json!({"type": "broadcast", "event": said.event(), "payload": {}});
            self.inner.topics.send(name, &Shared::new(&topic, event::BROADCAST, &said), None);
            told.insert(due.clone(), Instant::now());
            false
        });
    }
}

/// Tenant, role and service of a topic on which workers wait.
pub(crate) fn parts(topic: &str) -> Option<Work<'_>> {
    let mut parts = topic.strip_prefix(WORK)?.split(':');
    let work = (parts.next()?, parts.next()?, parts.next()?);
    parts.next().is_none().then_some(work)
}
