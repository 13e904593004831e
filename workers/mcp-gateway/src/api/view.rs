//! What the routes show of toolsets.

use serde_json::{Map, Value, json};

use crate::config::{EnvValue, Toolset};
use crate::redact::{MARK, Redactor, is_secret};
use crate::toolsets::Toolsets;
use crate::upstream::{CallError, PingReport, State};

/// All toolsets, those that are not enabled too. Of secrets, only the names of the variables that
/// hold them; and what looks like a secret although it stands in the file is hidden as well.
pub(super) fn config(toolsets: &Toolsets) -> Map<String, Value> {
    let now = toolsets.now();
    let redactor = now.redactor();
    let configured = now.config().toolsets.iter().map(|(name, t)| (name.as_str(), t));
    let running = now.iter();
    configured
        .chain(running.map(|(_, upstream)| (upstream.name(), upstream.toolset())))
        .map(|(name, toolset)| (name.to_owned(), one(toolset, redactor)))
        .collect()
}

pub(super) fn one(toolset: &Toolset, redactor: &Redactor) -> Value {
    let mut view = json!({
        "transport": toolset.transport(), "endpoint": toolset.endpoint(),
        "enabled": toolset.enabled, "connect_timeout_ms": toolset.connect_timeout_ms,
        "call_timeout_ms": toolset.call_timeout_ms, "max_in_flight": toolset.max_in_flight,
        "max_frame_bytes": toolset.max_frame_bytes,
    });
    if !toolset.headers.is_empty() {
        view["headers"] = json!(toolset.headers);
    }
    if toolset.command.is_some() {
        let hidden = toolset.args.iter().map(|arg| match arg.split_once('=') {
            Some((name, _)) if is_secret(name) => format!("{name}={MARK}"),
            _ => redactor.text(arg),
        });
        view["args"] = hidden.collect();
        let env = toolset.env.iter().map(|(name, value)| match value {
            EnvValue::Plain(_) if is_secret(name) => (name.clone(), json!(MARK)),
            EnvValue::Plain(value) => (name.clone(), json!(redactor.text(value))),
            EnvValue::FromEnv(reference) => (name.clone(), json!(reference)),
        });
        view["env"] = Value::Object(env.collect());
    }
    view
}

/// One toolset's health.
pub(super) fn health(state: Option<State>, ping: Result<PingReport, CallError>) -> Value {
    let since = state.map(|state| state.since);
    match ping {
        Ok(report) => json!({
            "ok": true, "latency_ms": report.latency_ms, "server": report.server,
            "tools": report.tools, "since": since,
        }),
        Err(error) => json!({
            "ok": false, "error": error.message, "class": error.class, "since": since,
        }),
    }
}
