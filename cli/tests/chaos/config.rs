//! The configuration of the processes: impatient, so that a run is short.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};

/// The least lease that a worker takes; stopped for longer, it has lost what it held.
pub(crate) const LEASE_MS: u64 = 1000;

/// Writes the configuration of one process: the policies, and the toolsets with their addresses.
pub(crate) fn write(
    dir: &Path,
    toolsets: &[(String, SocketAddr)],
    files: &[(String, Value)],
) -> Result<()> {
    std::fs::create_dir_all(dir)?;
    let toolsets: Map<String, Value> = toolsets
        .iter()
        .map(|(name, at)| {
            let toolset = json!({"url": format!("ws://{at}"), "connect_timeout_ms": 800});
            (name.clone(), toolset)
        })
        .collect();
    let ours = [
        ("mcp.json", json!({ "toolsets": toolsets })),
        ("retry_policy.json", policies()),
        ("circuit_breaker.json", breakers()),
    ];
    let theirs = files.iter().map(|(name, value)| (name.as_str(), value.clone()));
    for (name, value) in ours.into_iter().chain(theirs) {
        std::fs::write(dir.join(name), value.to_string()).with_context(|| name.to_owned())?;
    }
    Ok(())
}

/// Nothing is waited for longer than a second.
fn policies() -> Value {
    json!({"policies": {
        "default": {
            "max_attempts": 5,
            "backoff": {"kind": "exponential", "base_ms": 100, "max_ms": 500},
            "timeout_ms": 700,
            "retry_on": ["connect", "timeout", "closed", "circuit_open"],
        },
        "mcp.call.good.put_flaky": {"retry_on": ["connect", "timeout", "closed", "tool_error"]},
        "mcp.call.sick": {"max_attempts": 3, "timeout_ms": 500},
        // Long enough that it is the worker's death which ends the attempt.
        "mcp.call.sick.poison": {"max_attempts": 2, "timeout_ms": 5000},
        "mcp.call.good.wait": {"timeout_ms": 20_000},
        "mcp.call.good.wait_pay": {"timeout_ms": 20_000},
    }})
}

/// Breakers open soon, and not for long. Those of tools that never get well stay closed: what they park would
/// wait for ever.
fn breakers() -> Value {
    json!({"policies": {
        "default": {
            "window": {"kind": "count", "calls": 4}, "min_requests": 2, "failure_rate": 0.5,
            "open_ms": 300, "successes_to_close": 1,
        },
        "mcp.call.sick": {"enabled": false},
    }})
}
