//! The gateway's metrics: names, labels and descriptions. Labels are bounded: a toolset or tool that
//! is not known is `unknown`.

use metrics::{Unit, counter, describe_counter, describe_histogram, histogram};

use cogo::metrics::Values;
use cogo::retry::ErrorClass;

/// Tools that get a label of their own, over the life of the process: a server may offer others each hour.
static TOOLS: Values = Values::new(1000);

/// Tool calls that were tried, attempts counted one by one, by `toolset` and `tool`.
pub const CALLS: &str = "cogo_mcp_calls_total";
/// Tool calls that gave no result, by `toolset`, `tool` and `class` of failure.
pub const FAILURES: &str = "cogo_mcp_fail_total";
/// How long tool calls took, failed ones too, waiting included; in milliseconds, by `toolset` and `tool`.
pub const LATENCY: &str = "cogo_mcp_latency_ms";
/// Artifacts that could not be written, by `toolset`.
pub const ARTIFACT_FAILURES: &str = "cogo_mcp_artifact_fail_total";

/// The label that holds the toolset.
pub const TOOLSET: &str = "toolset";
/// The label that holds the tool.
pub const TOOL: &str = "tool";
/// The label that holds the class of failure.
pub const CLASS: &str = "class";
/// What stands for a name that is not known.
pub const UNKNOWN: &str = "unknown";

/// Describes the metrics to the recorder; once, after it was installed.
pub fn describe() {
    describe_counter!(CALLS, Unit::Count, "MCP tool calls tried");
    describe_counter!(FAILURES, Unit::Count, "MCP tool calls failed, by class");
    describe_histogram!(LATENCY, Unit::Milliseconds, "MCP tool call latency");
    describe_counter!(ARTIFACT_FAILURES, Unit::Count, "MCP artifacts that could not be written");
}

pub(crate) fn call(toolset: &str, tool: &str, latency_ms: u64, failure: Option<ErrorClass>) {
    let labels = [(TOOLSET, toolset.to_owned()), (TOOL, TOOLS.bounded(tool))];
    counter!(CALLS, &labels).increment(1);
    #[allow(clippy::cast_precision_loss)] // exact for 285,000 years
    histogram!(LATENCY, &labels).record(latency_ms as f64);
    if let Some(class) = failure {
        let [toolset, tool] = labels;
        counter!(FAILURES, &[toolset, tool, (CLASS, class.to_string())]).increment(1);
    }
}

pub(crate) fn artifact_failed(toolset: &str) {
    counter!(ARTIFACT_FAILURES, TOOLSET => toolset.to_owned()).increment(1);
}
