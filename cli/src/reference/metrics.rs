//! metrics.md: what each part of the program tells its recorder, with the comments of the constants, held to
//! tests/ops/metrics.json, which /metrics of a busy process is held to.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Mutex;

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use serde_json::Value;

use super::sources::{documented, read};
use super::{page, prose, table};

const HEAD: &str = "\
`/metrics` of the hub, and of a worker with `--metrics-listen`, in Prometheus' text format. What to alert on is in
[Runbooks](../runbooks.md), what to look at in [Observability](../observability.md). Labels are bounded: what is one value
too many is `_other`.

A histogram `x` is exposed as `x_bucket`, `x_sum` and `x_count`.";

/// What a recorder is told.
#[derive(Default)]
struct Told(Mutex<BTreeMap<String, (&'static str, Option<Unit>)>>);

impl Told {
    fn by(describe: fn()) -> BTreeMap<String, (&'static str, Option<Unit>)> {
        let told = Self::default();
        metrics::with_local_recorder(&told, describe);
        told.0.into_inner().expect("no panic")
    }

    fn note(&self, name: &KeyName, kind: &'static str, unit: Option<Unit>) {
        self.0.lock().expect("no panic").insert(name.as_str().to_owned(), (kind, unit));
    }
}

impl Recorder for Told {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, _: SharedString) {
        self.note(&name, "counter", unit);
    }

    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, _: SharedString) {
        self.note(&name, "gauge", unit);
    }

    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, _: SharedString) {
        self.note(&name, "histogram", unit);
    }

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

#[test]
fn the_page_of_metrics_is_what_recorders_are_told() {
    let listed: BTreeMap<String, (String, Vec<String>)> =
        serde_json::from_str::<Value>(&read("tests/ops/metrics.json"))
            .and_then(serde_json::from_value)
            .expect("type and labels by name");
    let mut text = format!("{HEAD}\n\n");
    let mut seen = 0;
    for (title, file, describe) in [
        ("Hub and workers", "src/metrics.rs", cogo::metrics::describe as fn()),
        (
            "The MCP gateway",
            "workers/mcp-gateway/src/metrics.rs",
            cogo_worker_mcp_gateway::metrics::describe,
        ),
    ] {
        let comments = documented(&read(file));
        let rows: Vec<_> = Told::by(describe)
            .into_iter()
            .map(|(name, (kind, unit))| {
                let (wanted, labels) = listed
                    .get(&name)
                    .unwrap_or_else(|| panic!("{name}: is not in tests/ops/metrics.json"));
                assert_eq!(kind, wanted, "{name} in tests/ops/metrics.json");
                let of_it = format!("\"{name}\";");
                let comment = comments.iter().find(|(line, _)| line.ends_with(&of_it));
                let (_, comment) =
                    comment.unwrap_or_else(|| panic!("{name}: has no comment in {file}"));
                for label in labels {
                    let told = comment.contains(&format!("`{label}`"));
                    assert!(
                        told,
                        "{name}: its comment in {file} does not tell of the label {label}"
                    );
                }
                let labels: Vec<_> = labels.iter().map(|label| format!("`{label}`")).collect();
                let unit = unit.filter(|unit| *unit != Unit::Count);
                let kind =
                    unit.map_or(kind.to_owned(), |unit| format!("{kind}, {}", unit.as_str()));
                [format!("`{name}`"), kind, labels.join(", "), prose(comment)]
            })
            .collect();
        seen += rows.len();
        let table = table(["metric", "type", "labels", "what it says"], rows);
        let _infallible = write!(text, "## {title}\n\n{table}");
    }
    assert_eq!(seen, listed.len(), "tests/ops/metrics.json lists metrics that nothing describes");
    page("metrics.md", "Metrics", &text);
}
