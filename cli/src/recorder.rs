//! Metrics: the recorder behind `/metrics`.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use cogo::shutdown::{Shutdown, Tasks};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};

/// Gives all metrics in the Prometheus text format.
pub(crate) type Render = Arc<dyn Fn() -> String + Send + Sync>;

/// The upper ends of histograms in milliseconds: from one round trip to the longest call that is usual.
const BUCKETS_MS: [f64; 16] = [
    1., 2., 5., 10., 20., 50., 100., 200., 500., 1000., 2000., 5000., 10_000., 30_000., 60_000.,
    300_000.,
];
/// How often samples are taken out of the recorder's buffers, which grow when nobody scrapes.
const UPKEEP: Duration = Duration::from_secs(5);

/// Installs the recorder for this process, and gives what renders it.
pub(crate) fn install(tasks: &Tasks, shutdown: &Shutdown) -> Result<Render> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_ms".to_owned()), &BUCKETS_MS)
        .and_then(PrometheusBuilder::install_recorder)
        .context("installing the metrics recorder")?;
    cogo::metrics::describe();
    cogo_worker_mcp_gateway::metrics::describe();
    let (upkeep, stop) = (handle.clone(), shutdown.cancelled().clone());
    tasks.spawn(async move {
        loop {
            tokio::select! {
                () = tokio::time::sleep(UPKEEP) => upkeep.run_upkeep(),
                () = stop.cancelled() => return,
            }
        }
    });
    Ok(Arc::new(move || handle.render()))
}
