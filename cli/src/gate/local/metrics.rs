//! The step `metrics`: what /metrics counted is what the log says was done.

use std::collections::BTreeMap;
use std::time::Duration;

use cogo::event::Event;
use cogo::gate::Failure;

use super::wait::Patience;
use super::world::{World, what};

/// How long it may take until what was done last is counted: the hub reads the log in the background.
const COUNTED_WITHIN: Duration = Duration::from_secs(60);
/// How long an answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// Counts by what is counted.
type Counts = BTreeMap<String, u64>;

/// Compares the hub's counters with the log, and each living worker's with its part of it. Gives the text of both, for
/// `metrics.txt`.
pub(super) async fn metrics(world: &mut World) -> Result<(String, String), Failure> {
    let patience = Patience::with("the counters of /metrics agree with the log", COUNTED_WITHIN);
    loop {
        world.all_run()?;
        // The counters first: the log may only be ahead of them.
        let hub = world.hub.read("/metrics").await?.text;
        let mut all = format!("# hub\n{hub}");
        let mut counted = vec![("the hub".to_owned(), of_hub(&hub))];
        for server in &world.servers {
            let text = scrape(&server.said()).await?;
            all.push_str(&format!("\n# {}\n{text}", server.name));
            counted.push((server.name.clone(), of_worker(&text)));
        }
        let events = super::log::all(world).await?;
        let mut happened = vec![in_log(&events)];
        happened.extend(world.servers.iter().map(|server| by_worker(&events, &server.name)));
        let wrong = counted.iter().zip(&happened).find_map(|((who, counted), happened)| {
            difference(counted, happened).map(|text| format!("{who}: {text}"))
        });
        match wrong {
            None => {
                let kinds = counted.iter().map(|(_, counts)| counts.len()).sum::<usize>();
                let total: u64 = happened[0].values().sum();
                let who =
                    counted.iter().map(|(who, _)| who.as_str()).collect::<Vec<_>>().join(", ");
                return Ok((all, format!("{kinds} counters of {who} agree with {total} events")));
            }
            Some(wrong) => patience.again(wrong).await?,
        }
    }
}

/// A worker's own metrics, at the address that it said.
async fn scrape(said: &str) -> Result<String, Failure> {
    let url = said.split_whitespace().find(|word| word.ends_with("/metrics"));
    let url = url.ok_or_else(|| Failure::new("a worker does not say where its metrics are"))?;
    let http = reqwest::Client::builder().no_proxy().timeout(ANSWER_WITHIN).build()?;
    Ok(http.get(url).send().await?.error_for_status()?.text().await?)
}

/// What the hub counted of calls and circuits, by type.
fn of_hub(text: &str) -> Counts {
    let mut counts = Counts::new();
    for (name, labels, value) in samples(text) {
        let event_type = labels.get("event_type").filter(|_| name == "cogo_bus_events_total");
        if let Some(event_type) = event_type.filter(|event_type| is_compared(event_type)) {
            counts.insert((*event_type).to_owned(), value);
        }
        // Counted a second time, for alerts.
        match name {
            "cogo_circuit_open_total" => counts.insert("opened".to_owned(), value),
            "cogo_circuit_close_total" => counts.insert("closed".to_owned(), value),
            _ => None,
        };
    }
    counts
}

fn is_compared(event_type: &str) -> bool {
    // Workers come, go and say how far they are at times of their own.
    event_type.starts_with("circuit_")
        || event_type.starts_with("mcp_call_") && event_type != "mcp_call_progress"
}

fn in_log(events: &[Event]) -> Counts {
    let mut counts = Counts::from([("opened".to_owned(), 0), ("closed".to_owned(), 0)]);
    for event in events.iter().filter(|event| is_compared(&event.event_type)) {
        *counts.entry(event.event_type.clone()).or_default() += 1;
        match event.event_type.as_str() {
            "circuit_opened" => *counts.entry("opened".to_owned()).or_default() += 1,
            "circuit_closed" => *counts.entry("closed".to_owned()).or_default() += 1,
            _ => {}
        }
    }
    counts
}

/// How a worker settled, by what became of the message.
fn of_worker(text: &str) -> Counts {
    let settles = samples(text).filter(|(name, ..)| *name == "cogo_settles_total");
    let mut counts = Counts::new();
    for (_, labels, value) in settles {
        if let Some(outcome @ ("done" | "retried" | "dead_lettered" | "parked")) =
            labels.get("outcome").copied()
        {
            *counts.entry(outcome.to_owned()).or_default() += value;
        }
    }
    counts.retain(|_, value| *value > 0);
    counts
}

fn by_worker(events: &[Event], worker: &str) -> Counts {
    let mut counts = Counts::new();
    for event in events.iter().filter(|event| event.worker_id.as_deref() == Some(worker)) {
        let lost = event.payload["class"] == "lease_expired";
        let outcome = match what(event) {
            "succeeded" => "done",
            "retry_scheduled" => "retried",
            "dead_lettered" if !lost => "dead_lettered",
            "released" if event.payload["circuit"].is_string() => "parked",
            _ => continue,
        };
        *counts.entry(outcome.to_owned()).or_default() += 1;
    }
    counts
}

fn difference(counted: &Counts, happened: &Counts) -> Option<String> {
    let names = counted.keys().chain(happened.keys());
    let of = |counts: &Counts, name: &str| counts.get(name).copied().unwrap_or_default();
    let mut wrong = names.filter(|name| of(counted, name) != of(happened, name));
    let name = wrong.next()?;
    let (counted, happened) = (of(counted, name), of(happened, name));
    Some(format!("{name} is counted {counted} times, and happened {happened} times"))
}

/// The samples of Prometheus' text format that are whole numbers; no label of those that are looked at holds a quote.
fn samples(text: &str) -> impl Iterator<Item = (&str, BTreeMap<&str, &str>, u64)> {
    text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let (name, labels) = match series.split_once('{') {
            Some((name, rest)) => (name, rest.strip_suffix('}')?),
            None => (series, ""),
        };
        let labels = labels.split(',').filter_map(|label| {
            let (name, value) = label.split_once('=')?;
            Some((name, value.trim_matches('"')))
        });
        Some((name, labels.collect(), value.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_and_differences_told() {
        let text = "# HELP x y\ncogo_bus_events_total{event_type=\"mcp_call_failed\"} 3\n\
            cogo_bus_events_total{event_type=\"agent_heartbeat\"} 9\ncogo_circuit_open_total 1\n\
            cogo_settles_total{role=\"mcp-gateway\",outcome=\"done\"} 4\ncogo_x 1.5\n";
        let counts = of_hub(text);
        let expected = [("mcp_call_failed".to_owned(), 3), ("opened".to_owned(), 1)];
        assert_eq!(counts, Counts::from(expected));
        assert_eq!(of_worker(text), Counts::from([("done".to_owned(), 4)]));
        assert_eq!(difference(&counts, &counts), None);
        let other = Counts::from([("opened".to_owned(), 1)]);
        let told = difference(&counts, &other).expect("different");
        assert_eq!(told, "mcp_call_failed is counted 3 times, and happened 0 times");
    }
}
