//! In place of traces, where the build has none: what asks for them is told so.

use anyhow::Result;

use crate::output::note;

/// What asks for an export of traces, where it is not empty.
const ASKS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];

/// What would export them: there is none.
#[derive(Debug)]
pub(crate) enum Telemetry {}

/// Starts nothing.
pub(crate) fn start(_part: &str) -> Result<Option<Telemetry>> {
    let asks = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    if let Some(name) = ASKS.into_iter().find(|name| asks(name)) {
        note(&format!("{name}: this build of cogo exports no traces; the full one does."));
    }
    Ok(None)
}
