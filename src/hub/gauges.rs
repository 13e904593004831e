//! `/metrics`, and the gauges of the queue that are read for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use metrics::gauge;

use crate::breaker;
use crate::bus::circuit::Circuit;
use crate::bus::{Bus, Depth, Error, Parked, Pending};
use crate::error::chain;
use crate::hub::{Hub, health, process};
use crate::message::Status;
use crate::metrics::{
    BUILD_INFO, CIRCUIT_OPEN_CURRENT, FEED_AGE_SECONDS, HUB_READY, OTHER, PARKED_MESSAGES,
    PENDING_TASKS, QUEUE_MESSAGES, QUEUE_OLDEST_SECONDS, WORKERS_ONLINE,
};

/// How old the queue's gauges may be: several scrapers must not cost several counts.
const AGE: Duration = Duration::from_secs(5);
/// How long counting may take; a scrape that fails loses everything else as well.
const TIMEOUT: Duration = Duration::from_secs(2);
/// How many pairs of role and service get labels of their own, over the life of the process. Anybody who
/// may publish can make up services; a scraper's memory must not grow with them.
const PAIRS_MAX: usize = 500;
/// How many breakers, and how many roles of workers, get a label of their own, over the life of the process.
const NAMES_MAX: usize = 100;

const STATUSES: [Status; 4] = [Status::Delayed, Status::Queued, Status::Claimed, Status::Failed];

/// Why messages are parked. Which circuit breaker it is does not belong in a label.
const REASONS: [&str; 2] = ["ordering", "circuit"];

type Pair = (String, String);

/// Which series there are, so that one that has disappeared goes to 0 and does not stay as it was.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    pairs: Mutex<BTreeSet<Pair>>,
    circuits: Mutex<BTreeSet<String>>,
    roles: Mutex<BTreeSet<String>>,
}

impl Gauges {
    fn set(&self, counts: &Counts) {
        for ((role, service), sums) in self.sums(counts) {
            for (reason, messages) in REASONS.iter().zip(sums.parked) {
                let labels = [
                    ("role", role.clone()),
                    ("service", service.clone()),
                    ("reason", (*reason).to_owned()),
                ];
                #[allow(clippy::cast_precision_loss)] // counts of rows
                gauge!(PARKED_MESSAGES, &labels).set(messages as f64);
            }
            for (status, messages) in STATUSES.iter().zip(sums.messages) {
                let labels = [
                    ("role", role.clone()),
                    ("service", service.clone()),
                    ("status", status.as_str().to_owned()),
                ];
                #[allow(clippy::cast_precision_loss)] // counts of rows
                gauge!(QUEUE_MESSAGES, &labels).set(messages as f64);
            }
            let labels = [("role", role), ("service", service)];
            #[allow(clippy::cast_precision_loss)] // counts of rows
            gauge!(PENDING_TASKS, &labels).set(sums.pending as f64);
            gauge!(QUEUE_OLDEST_SECONDS, &labels)
                .set(Duration::from_millis(sums.oldest_ms).as_secs_f64());
        }
    }

    fn set_circuits(&self, circuits: &[Circuit]) {
        let open = circuits.iter().filter(|circuit| circuit.state != breaker::State::Closed);
        for (key, open) in summed(&self.circuits, open.map(|circuit| (&*circuit.key, 1))) {
            #[allow(clippy::cast_precision_loss)] // counts of rows
            gauge!(CIRCUIT_OPEN_CURRENT, "key" => key).set(open as f64);
        }
    }

    fn set_workers(&self, online: &[(String, i64)]) {
        let online = online.iter().map(|(role, workers)| (role.as_str(), *workers));
        for (role, workers) in summed(&self.roles, online) {
            #[allow(clippy::cast_precision_loss)] // counts of rows
            gauge!(WORKERS_ONLINE, "role" => role).set(workers as f64);
        }
    }

    /// What each series is now, those with nothing in them included.
    fn sums(&self, counts: &Counts) -> BTreeMap<Pair, Sums> {
        let mut pairs = self.pairs.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sums: BTreeMap<Pair, Sums> =
            pairs.iter().map(|pair| (pair.clone(), Sums::default())).collect();
        let mut pair = |role: &str, service: &str| {
            let mut pair = (role.to_owned(), service.to_owned());
            if !pairs.contains(&pair) {
                if pairs.len() >= PAIRS_MAX {
                    pair = (OTHER.to_owned(), OTHER.to_owned());
                }
                pairs.insert(pair.clone());
            }
            pair
        };
        for depth in &counts.depths {
            sums.entry(pair(&depth.role, &depth.service)).or_default().add(depth);
        }
        for waiting in &counts.pending {
            sums.entry(pair(&waiting.role, &waiting.service)).or_default().pending +=
                waiting.pending;
        }
        for parked in &counts.parked {
            sums.entry(pair(&parked.role, &parked.service)).or_default().park(parked);
        }
        sums
    }
}

/// The numbers of each name, those that had one before included; tenants are added up, and names too many.
fn summed<'a>(
    names: &Mutex<BTreeSet<String>>,
    numbers: impl Iterator<Item = (&'a str, i64)>,
) -> BTreeMap<String, i64> {
    let mut names = names.lock().unwrap_or_else(PoisonError::into_inner);
    let mut sums: BTreeMap<String, i64> = names.iter().map(|name| (name.clone(), 0)).collect();
    for (name, number) in numbers {
        let full = !names.contains(name) && names.len() >= NAMES_MAX;
        let name = if full { OTHER } else { name };
        names.insert(name.to_owned());
        *sums.entry(name.to_owned()).or_default() += number;
    }
    sums
}

/// What is read of the queue for the gauges.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    depths: Vec<Depth>,
    parked: Vec<Parked>,
    pending: Vec<Pending>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Sums {
    messages: [i64; STATUSES.len()],
    oldest_ms: u64,
    parked: [i64; REASONS.len()],
    pending: i64,
}

impl Sums {
    fn add(&mut self, depth: &Depth) {
        for (status, messages) in STATUSES.iter().zip(&mut self.messages) {
            if *status == depth.status {
                *messages += depth.messages;
            }
        }
        if depth.status == Status::Queued {
            let oldest = depth.oldest_ms.and_then(|ms| u64::try_from(ms).ok()).unwrap_or(0);
            self.oldest_ms = self.oldest_ms.max(oldest);
        }
    }

    fn park(&mut self, parked: &Parked) {
        let why = parked.reason.split(':').next().unwrap_or_default();
        for (reason, messages) in REASONS.iter().zip(&mut self.parked) {
            if *reason == why {
                *messages += parked.messages;
            }
        }
    }
}

/// All metrics, in the Prometheus text format.
pub(crate) async fn render(State(hub): State<Arc<Hub>>) -> impl IntoResponse {
    let count = async {
        let bus = &hub.state.bus;
        let (counts, circuits, workers) = tokio::join!(count(bus), circuits(bus), workers(bus));
        if let Some(counts) = &counts {
            hub.gauges.set(counts);
        }
        if let Some(circuits) = circuits {
            hub.gauges.set_circuits(&circuits);
        }
        if let Some(workers) = workers {
            hub.gauges.set_workers(&workers);
        }
    };
    hub.counted.get(AGE, count).await;
    gauge!(HUB_READY).set(if health::missing(&hub).await.is_empty() { 1.0 } else { 0.0 });
    if let Some(age) = hub.state.feed.age() {
        gauge!(FEED_AGE_SECONDS).set(age.as_secs_f64());
    }
    gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    process::measure();
    let text = (hub.state.metrics)();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}

async fn count(bus: &Bus) -> Option<Counts> {
    let counting = async {
        let (depths, parked) = (bus.stats().await?, bus.parked().await?);
        Ok::<_, Error>(Counts { depths, parked, pending: bus.pending("*").await? })
    };
    match tokio::time::timeout(TIMEOUT, counting).await {
        Ok(Ok(counts)) => Some(counts),
        Ok(Err(error)) => {
            tracing::warn!(error = %chain(&error), "Could not count the queue; its gauges are old");
            None
        }
        Err(_) => {
            tracing::warn!("Counting the queue took too long; its gauges are old");
            None
        }
    }
}

async fn circuits(bus: &Bus) -> Option<Vec<Circuit>> {
    match tokio::time::timeout(TIMEOUT, bus.circuits("*")).await {
        Ok(Ok(circuits)) => Some(circuits),
        Ok(Err(error)) => {
            tracing::warn!(error = %chain(&error), "Could not read the breakers; their gauges are old");
            None
        }
        Err(_) => {
            tracing::warn!("Reading the breakers took too long; their gauges are old");
            None
        }
    }
}

async fn workers(bus: &Bus) -> Option<Vec<(String, i64)>> {
    match tokio::time::timeout(TIMEOUT, bus.online()).await {
        Ok(Ok(online)) => Some(online),
        Ok(Err(error)) => {
            tracing::warn!(error = %chain(&error), "Could not count the workers; their gauge is old");
            None
        }
        Err(_) => {
            tracing::warn!("Counting the workers took too long; their gauge is old");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn depth(service: &str, status: Status, messages: i64) -> Depth {
        let (role, service) = ("r".to_owned(), service.to_owned());
        Depth { role, service, status, messages, oldest_ms: Some(1500) }
    }

    #[test]
    fn a_series_that_disappears_goes_to_zero() {
        let gauges = Gauges::default();
        let pair = ("r".to_owned(), "a".to_owned());
        let parked = |reason: &str, messages| Parked {
            role: "r".to_owned(),
            service: "a".to_owned(),
            reason: reason.to_owned(),
            messages,
            oldest_ms: None,
        };
        let counts = Counts {
            depths: vec![depth("a", Status::Queued, 3), depth("a", Status::Failed, 1)],
            parked: vec![parked("ordering", 5), parked("circuit:a.b", 1), parked("circuit:a.c", 1)],
            pending: vec![Pending {
                role: "r".to_owned(),
                service: "a".to_owned(),
                pending: 3,
                oldest_ms: 1500,
            }],
        };
        let wanted = Sums { messages: [0, 3, 0, 1], oldest_ms: 1500, parked: [5, 2], pending: 3 };
        assert_eq!(gauges.sums(&counts)[&pair], wanted);
        assert_eq!(gauges.sums(&Counts::default())[&pair], Sums::default());
    }

    #[test]
    fn made_up_services_do_not_make_series_without_end() {
        let gauges = Gauges::default();
        let depths: Vec<Depth> =
            (0..2000).map(|n| depth(&format!("s{n}"), Status::Queued, 1)).collect();
        let counts = Counts { depths, ..Counts::default() };
        let sums = gauges.sums(&counts);
        assert_eq!(sums.len(), PAIRS_MAX + 1);
        let other = &sums[&(OTHER.to_owned(), OTHER.to_owned())];
        assert_eq!(other.messages[1], 2000 - 500);
        assert_eq!(gauges.sums(&counts).len(), PAIRS_MAX + 1);
    }
}
