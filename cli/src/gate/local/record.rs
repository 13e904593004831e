//! What the scenario found, for the gate's report and for `summary.json`.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, SecondsFormat, Utc};
use cogo::clock::{Stopwatch, utc_now};
use cogo::gate::{Failure, Steps, Stopped, done};
use serde_json::{Map, Value, json};

use super::secrets::Secrets;

/// The shape of `summary.json`; another number when a field changes its meaning or goes.
const SCHEMA: &str = "cogo.gate.scenario/1";

/// The steps of one run, as they come.
pub(super) struct Record<'a, 'b> {
    steps: &'a Steps<'b>,
    secrets: Secrets,
    began: (DateTime<Utc>, Stopwatch),
    told: Mutex<Told>,
}

#[derive(Default)]
struct Told {
    steps: Vec<Value>,
    figures: Map<String, Value>,
    failed: bool,
}

impl<'a, 'b> Record<'a, 'b> {
    pub(super) fn new(steps: &'a Steps<'b>, secrets: Secrets) -> Self {
        Self { steps, secrets, began: (utc_now(), Stopwatch::start()), told: Mutex::default() }
    }

    /// Goes through a step, which gives a value and says what it saw. No secret gets into what it says.
    ///
    /// # Errors
    /// [`Stopped`] if the step fails.
    pub(super) async fn step<T>(
        &self,
        name: &'static str,
        work: impl Future<Output = Result<(T, String), Failure>>,
    ) -> Result<T, Stopped> {
        let watch = Stopwatch::start();
        let work = async {
            let ended = match work.await {
                Ok((value, seen)) => Ok((value, self.secrets.hide(&seen))),
                Err(failure) => Err(failure.map(|text| self.secrets.hide(text))),
            };
            let mut step = json!({ "name": name, "took_ms": watch.elapsed_ms() });
            match &ended {
                Ok((_, seen)) => {
                    step["outcome"] = json!("passed");
                    step["detail"] = json!(seen);
                }
                Err(failure) => {
                    step["outcome"] = json!("failed");
                    step["reason"] = json!(failure.reason());
                    step["remedy"] = json!(failure.what_to_do());
                    self.told().failed = true;
                }
            }
            self.told().steps.push(step);
            ended.map(|(value, seen)| done(value, seen))
        };
        self.steps.step(name, work).await
    }

    /// Something that was measured or counted.
    pub(super) fn figure(&self, name: &str, value: impl Into<Value>) {
        let value = value.into();
        self.steps.fact(name, value.clone());
        self.told().figures.insert(name.to_owned(), value);
    }

    /// Writes `summary.json`.
    pub(super) fn write(&self, dir: &Path) -> std::io::Result<()> {
        let (at, watch) = &self.began;
        let told = self.told();
        let summary = json!({
            "schema": SCHEMA,
            "verdict": if told.failed { "failed" } else { "passed" },
            "version": env!("CARGO_PKG_VERSION"),
            "started_at": at.to_rfc3339_opts(SecondsFormat::Millis, true),
            "took_ms": watch.elapsed_ms(),
            "steps": told.steps,
            "figures": told.figures,
        });
        let text = format!("{}\n", serde_json::to_string_pretty(&summary)?);
        std::fs::write(dir.join("summary.json"), self.secrets.hide(&text))
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
