//! What was measured: a figure each round, of which the median counts.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};

/// In which direction a figure is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Better {
    Higher,
    Lower,
    /// It says what was, such as how many messages there were.
    Neither,
}

/// A unit of measurement, and which way is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unit(pub(super) &'static str, pub(super) Better);

/// Milliseconds that something took.
pub(super) const MS: Unit = Unit("ms", Better::Lower);
/// Rows that were enqueued in a second.
pub(super) const ROWS: Unit = Unit("rows/s", Better::Higher);
/// Messages that were finished in a second.
pub(super) const JOBS: Unit = Unit("jobs/s", Better::Higher);

/// One figure of one case.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Measurement {
    /// What was done, such as `8 producers, one at a time`.
    pub(super) case: String,
    /// The same for programs.
    pub(super) parameters: Map<String, Value>,
    pub(super) metric: &'static str,
    pub(super) unit: &'static str,
    pub(super) better: Better,
    /// Of each round, in order.
    pub(super) rounds: Vec<f64>,
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
}

/// Something over something else, such as the speed over the messages that have passed; of the last round.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Series {
    pub(super) case: String,
    pub(super) x: &'static str,
    pub(super) y: &'static str,
    pub(super) points: Vec<(f64, f64)>,
}

/// A case: what is done, for people and for programs.
#[derive(Debug, Clone)]
pub(super) struct Case {
    name: String,
    parameters: Map<String, Value>,
}

impl Case {
    /// A case with its parameters, as `json!({…})`.
    pub(super) fn new(name: impl Into<String>, parameters: Value) -> Self {
        let Value::Object(parameters) = parameters else {
            return Self { name: name.into(), parameters: Map::new() };
        };
        Self { name: name.into(), parameters }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

/// Where a scenario puts its figures. They are kept when the scenario is cut off.
#[derive(Debug, Default)]
pub(crate) struct Record {
    kept: Mutex<(Vec<Measurement>, Vec<Series>)>,
}

impl Record {
    fn kept(&self) -> MutexGuard<'_, (Vec<Measurement>, Vec<Series>)> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds one figure of one round.
    pub(super) fn add(&self, case: &Case, metric: &'static str, unit: Unit, value: f64) {
        if !value.is_finite() {
            return; // JSON has no word for it, and it says nothing
        }
        let mut kept = self.kept();
        let known = kept.0.iter_mut().find(|m| m.case == case.name && m.metric == metric);
        if let Some(known) = known {
            known.rounds.push(value);
            (known.min, known.median, known.max) = spread(&known.rounds);
            return;
        }
        kept.0.push(Measurement {
            case: case.name.clone(),
            parameters: case.parameters.clone(),
            metric,
            unit: unit.0,
            better: unit.1,
            rounds: vec![value],
            median: value,
            min: value,
            max: value,
        });
    }

    /// Adds what calls took.
    pub(super) fn add_latencies(&self, case: &Case, latencies: Latencies) {
        let Latencies(mut sorted) = latencies;
        if sorted.is_empty() {
            return;
        }
        sorted.sort_unstable();
        for (metric, share) in [("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("max", 1.0)] {
            self.add(case, metric, MS, millis(quantile(&sorted, share)));
        }
    }

    /// Puts down a series; the one of the round before goes.
    pub(super) fn add_series(
        &self,
        case: &Case,
        x: &'static str,
        y: &'static str,
        points: Vec<(f64, f64)>,
    ) {
        let mut kept = self.kept();
        kept.1.retain(|series| series.case != case.name || series.y != y);
        kept.1.push(Series { case: case.name.clone(), x, y, points });
    }

    pub(super) fn measurements(&self) -> Vec<Measurement> {
        self.kept().0.clone()
    }

    pub(super) fn series(&self) -> Vec<Series> {
        self.kept().1.clone()
    }
}

/// What each of many calls took.
#[derive(Debug, Default)]
pub(super) struct Latencies(pub(super) Vec<Duration>);

pub(super) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// Of sorted values, the one that this share of them does not exceed.
fn quantile(sorted: &[Duration], share: f64) -> Duration {
    let place = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(place.saturating_sub(1)).copied().unwrap_or_default()
}

/// The median of what calls took.
pub(super) fn median(latencies: &[Duration]) -> Duration {
    let mut sorted = latencies.to_vec();
    sorted.sort_unstable();
    quantile(&sorted, 0.5)
}

/// The least, the median and the most. Of two in the middle it is the mean.
fn spread(values: &[f64]) -> (f64, f64, f64) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let median = match sorted.len() {
        0 => return (f64::NAN, f64::NAN, f64::NAN),
        n if n % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    };
    (sorted[0], median, sorted[sorted.len() - 1])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_median_is_that_of_the_rounds() {
        let (record, case) = (Record::default(), Case::new("a", json!({"n": 1})));
        for value in [3.0, 100.0, 1.0, 2.0] {
            record.add(&case, "speed", ROWS, value);
        }
        let all = record.measurements();
        assert_eq!((all.len(), all[0].median, all[0].min, all[0].max), (1, 2.5, 1.0, 100.0));
        assert_eq!(all[0].rounds, [3.0, 100.0, 1.0, 2.0], "in their order");
    }

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let case = Case::new("a", json!({}));
        let record = Record::default();
        record
            .add_latencies(&case, Latencies((1..=100).rev().map(Duration::from_millis).collect()));
        let of =
            |metric| record.measurements().iter().find(|m| m.metric == metric).map(|m| m.median);
        assert_eq!((of("p50"), of("p95"), of("p99")), (Some(50.0), Some(95.0), Some(99.0)));
        assert_eq!(of("max"), Some(100.0));
    }
}
