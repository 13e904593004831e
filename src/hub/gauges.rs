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
use crate::bus::{Bus, Depth, Error, Parked};
use crate::error::chain;
use crate::hub::Hub;
use crate::message::Status;
use crate::metrics::{CIRCUIT_OPEN_CURRENT, PARKED_MESSAGES, QUEUE_MESSAGES, QUEUE_OLDEST_SECONDS};

/// How old the queue's gauges may be: several scrapers must not cost several counts.
const AGE: Duration = Duration::from_secs(5);
/// How long counting may take; a scrape that fails loses everything else as well.
const TIMEOUT: Duration = Duration::from_secs(2);
/// How many pairs of role and service get labels of their own, over the life of the process. Anybody who
/// may publish can make up services; a scraper's memory must not grow with them.
const PAIRS_MAX: usize = 500;
/// How many breakers get a label of their own, over the life of the process.
const KEYS_MAX: usize = 100;
/// The label of what is over that. No role or service is called so.
const OTHER: &str = "_other";

const STATUSES: [Status; 4] = [Status::Delayed, Status::Queued, Status::Claimed, Status::Failed];

/// Why messages are parked. Which circuit breaker it is does not belong in a label.
const REASONS: [&str; 2] = ["ordering", "circuit"];

type Pair = (String, String);

/// Which series there are, so that one that has disappeared goes to 0 and does not stay as it was.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    pairs: Mutex<BTreeSet<Pair>>,
    circuits: Mutex<BTreeSet<String>>,
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
            gauge!(QUEUE_OLDEST_SECONDS, &labels)
                .set(Duration::from_millis(sums.oldest_ms).as_secs_f64());
        }
    }

    fn set_circuits(&self, circuits: &[Circuit]) {
        for (key, open) in self.open(circuits) {
            gauge!(CIRCUIT_OPEN_CURRENT, "key" => key).set(f64::from(open));
        }
    }

    /// How many breakers of each key are not closed; tenants are added up.
    fn open(&self, circuits: &[Circuit]) -> BTreeMap<String, u32> {
        let mut keys = self.circuits.lock().unwrap_or_else(PoisonError::into_inner);
        let mut open: BTreeMap<String, u32> = keys.iter().map(|key| (key.clone(), 0)).collect();
        for circuit in circuits.iter().filter(|c| c.state != breaker::State::Closed) {
            let mut key = circuit.key.clone();
            if !keys.contains(&key) {
                if keys.len() >= KEYS_MAX {
                    OTHER.clone_into(&mut key);
                }
                keys.insert(key.clone());
            }
            *open.entry(key).or_default() += 1;
        }
        open
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
        for parked in &counts.parked {
            sums.entry(pair(&parked.role, &parked.service)).or_default().park(parked);
        }
        sums
    }
}

/// What is read of the queue for the gauges.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    depths: Vec<Depth>,
    parked: Vec<Parked>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Sums {
    messages: [i64; STATUSES.len()],
    oldest_ms: u64,
    parked: [i64; REASONS.len()],
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
        let (counts, circuits) = tokio::join!(count(bus), circuits(bus));
        if let Some(counts) = &counts {
            hub.gauges.set(counts);
        }
        if let Some(circuits) = circuits {
            hub.gauges.set_circuits(&circuits);
        }
    };
    hub.counted.get(AGE, count).await;
    let text = (hub.state.metrics)();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}

async fn count(bus: &Bus) -> Option<Counts> {
    let counting = async {
        let (depths, parked) = (bus.stats().await?, bus.parked().await?);
        Ok::<_, Error>(Counts { depths, parked })
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
        };
        let wanted = Sums { messages: [0, 3, 0, 1], oldest_ms: 1500, parked: [5, 2] };
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
