//! Looks at the bus, and reads the log along.

use std::collections::BTreeMap;

use anyhow::Result;
use cogo::bus::{Bus, Depth, Error, Parked};
use cogo::clock::utc_now;
use cogo::error::Code;
use cogo::event::{Cursor, Event};
use cogo::message::Status;
use serde_json::{Map, Value, json};

use crate::top::frame::{Depths, Frame, Topic};
use crate::top::rates::Rates;

/// Events a round trip.
const BATCH: u32 = 500;
/// Round trips for events in one look; what is left then is skipped.
const BATCHES: usize = 4;
/// How many transactions of the log are looked back at first, so that the last failures are seen at once.
const LOOK_BACK: u64 = 4000;
/// How many workers are looked at.
const WORKERS: u32 = 500;

#[derive(Debug)]
pub(super) struct Sampler {
    bus: Bus,
    tenant: Option<String>,
    place: String,
    cursor: Cursor,
    rates: Rates,
}

impl Sampler {
    /// Starts a while before the log's present end.
    pub(super) async fn start(bus: Bus, tenant: Option<String>, place: String) -> Result<Self> {
        let tenant = tenant.or_else(|| bus.claims().and_then(|claims| claims.tenant));
        let end = bus.log_end().await?;
        let cursor = Cursor { xid: end.xid.saturating_sub(LOOK_BACK), seq: 0 };
        Ok(Self { bus, tenant, place, cursor, rates: Rates::default() })
    }

    pub(super) fn bus(&self) -> &Bus {
        &self.bus
    }

    pub(super) async fn look(&mut self) -> Result<Frame> {
        self.read_along().await?;
        let mut hidden = Vec::new();
        let tenant = self.tenant.as_deref().unwrap_or(cogo::message::ALL_TENANTS);
        let (stats, parked, workers, circuits) = tokio::join!(
            self.bus.stats(),
            self.bus.parked(),
            self.bus.workers(WORKERS),
            self.bus.circuits(tenant)
        );
        let stats = allowed("queues", stats, &mut hidden)?;
        let parked = allowed("queues", parked, &mut hidden)?;
        let mut workers = allowed("workers", workers, &mut hidden)?;
        let mut circuits = allowed("circuits", circuits, &mut hidden)?;
        if let Some(tenant) = &self.tenant {
            let serves = |of: &str| of == tenant || of == cogo::message::ALL_TENANTS;
            workers.retain(|worker| serves(&worker.tenant));
        }
        circuits.sort_by_key(super::frame::is_closed);
        hidden.dedup();
        Ok(Frame {
            at: utc_now(),
            place: self.place.clone(),
            tenant: self.tenant.clone(),
            rates: self.rates.summary(),
            queue: sum(&stats, &parked),
            topics: by_topic(&stats, &parked),
            workers,
            circuits,
            failures: self.rates.failures(),
            hidden,
            problem: None,
        })
    }

    /// Reads what is new in the log; of a flood only its beginning, and then from its end on.
    async fn read_along(&mut self) -> Result<()> {
        let filter = self.filter();
        for _ in 0..BATCHES {
            let events: Vec<Event> = self.bus.read_events(self.cursor, BATCH, &filter).await?;
            for event in &events {
                self.rates.take(event);
                self.cursor = event.cursor;
            }
            if events.len() < BATCH as usize {
                return Ok(());
            }
        }
        self.cursor = self.bus.log_end().await?.max(self.cursor);
        self.rates.skip();
        Ok(())
    }

    fn filter(&self) -> Value {
        let tenant = self.tenant.iter().map(|tenant| ("tenant".to_owned(), json!(tenant)));
        Value::Object(tenant.collect::<Map<_, _>>())
    }
}

/// What a key may not see is left out, and said; all else is a failure.
fn allowed<T: Default>(
    what: &'static str,
    answer: Result<T, Error>,
    hidden: &mut Vec<&'static str>,
) -> Result<T> {
    match answer {
        Ok(found) => Ok(found),
        Err(error) if error.code() == Code::Forbidden => {
            hidden.push(what);
            Ok(T::default())
        }
        Err(error) => Err(error.into()),
    }
}

impl Depths {
    fn add(&mut self, depth: &Depth) {
        match depth.status {
            Status::Queued => {
                self.queued += depth.messages;
                self.oldest_ms = self.oldest_ms.max(depth.oldest_ms);
            }
            Status::Delayed => self.delayed += depth.messages,
            Status::Claimed => self.claimed += depth.messages,
            Status::Failed => self.failed += depth.messages,
            _ => {}
        }
    }
}

fn sum(stats: &[Depth], parked: &[Parked]) -> Depths {
    let mut all = Depths::default();
    stats.iter().for_each(|depth| all.add(depth));
    all.parked = parked.iter().map(|parked| parked.messages).sum();
    all
}

fn by_topic(stats: &[Depth], parked: &[Parked]) -> Vec<Topic> {
    let mut topics: BTreeMap<(&str, &str), Depths> = BTreeMap::new();
    for depth in stats {
        topics.entry((&depth.role, &depth.service)).or_default().add(depth);
    }
    for parked in parked {
        topics.entry((&parked.role, &parked.service)).or_default().parked += parked.messages;
    }
    let mut topics: Vec<Topic> = topics
        .into_iter()
        .map(|((role, service), depths)| Topic {
            role: role.to_owned(),
            service: service.to_owned(),
            depths,
        })
        .collect();
    // What waits longest first; then by name, so that rows keep their places.
    topics.sort_by_key(|topic| std::cmp::Reverse(topic.depths.queued.min(1)));
    topics
}

#[cfg(test)]
mod tests {
    use super::*;

    fn depth(service: &str, status: Status, messages: i64, oldest_ms: i64) -> Depth {
        let (role, service) = ("mcp-gateway".to_owned(), service.to_owned());
        Depth { role, service, status, messages, oldest_ms: Some(oldest_ms) }
    }

    #[test]
    fn depths_are_summed_and_those_that_wait_come_first() {
        let stats = [
            depth("a", Status::Failed, 3, 9000),
            depth("b", Status::Queued, 2, 50),
            depth("b", Status::Claimed, 1, 10),
            depth("c", Status::Queued, 5, 700),
        ];
        let parked = [Parked {
            role: "mcp-gateway".to_owned(),
            service: "a".to_owned(),
            reason: "ordering".to_owned(),
            messages: 4,
            oldest_ms: None,
        }];
        let all = sum(&stats, &parked);
        let expected = Depths {
            queued: 7,
            claimed: 1,
            failed: 3,
            parked: 4,
            oldest_ms: Some(700),
            ..Depths::default()
        };
        assert_eq!(all, expected);
        let topics = by_topic(&stats, &parked);
        let names: Vec<_> = topics.iter().map(|topic| topic.service.as_str()).collect();
        assert_eq!(names, ["b", "c", "a"]);
        assert_eq!(topics[2].depths.parked, 4);
    }
}
