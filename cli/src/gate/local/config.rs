//! The step `config`: the user's files are good, and a copy of them is what the scenario runs with.
//!
//! The copy keeps what the user says and adds rules for the scenario's own toolsets, `gate` and `gate_outbound`, below
//! the keys `mcp.call.gate…`: the longest prefix wins, so no other rule of the user's is changed. What would make the
//! scenario slow, or have it touch what is not its own, is set: short leases, the tenant, artifacts in a folder.

use std::path::{Path, PathBuf};

use cogo::breaker;
use cogo::config::Source;
use cogo::gate::Failure;
use cogo::retry;
use cogo_worker_mcp_gateway::config::FILE as MCP_FILE;
use serde_json::{Map, Value, json};

use super::Fault;
use super::tool::{FAILS_TWICE, SICK};
use crate::config;
use crate::connect::Global;

/// The toolset of the workers beside the database.
pub(super) const TOOLSET: &str = "gate";
/// The toolset that only the worker from far away has.
pub(super) const OUTBOUND: &str = "gate_outbound";
/// The variable that holds the credentials for the scenario's MCP server.
pub(super) const TOKEN_VARIABLE: &str = "GATE_TOOL_TOKEN";
/// How long a claim is held without a sign of life. Long enough for a machine that is busy, as CI's are.
const LEASE_MS: u64 = 2000;
/// How long a silent tool is waited for.
const SILENT_MS: u64 = 3000;
/// The pause between attempts.
const DELAY_MS: u64 = 300;
/// How long the breaker stays open; with the fault, far longer than anybody waits for.
const OPEN_MS: u64 = 1500;
const NEVER_MS: u64 = 3_600_000;

/// The files of one process.
const FILES: [&str; 6] = [
    "circuit_breaker.json",
    "hub.json",
    "limits.json",
    "retry_policy.json",
    "route_policies.json",
    "worker.json",
];

/// Those that are there also where the user has none.
const CHANGED: [&str; 4] = ["circuit_breaker.json", "hub.json", "retry_policy.json", "worker.json"];

/// The scenario's configuration.
#[derive(Debug)]
pub(super) struct Configs {
    /// Where the hub's and the workers' files are, but for `mcp.json`.
    pub(super) dir: PathBuf,
    pub(super) retry: retry::Policies,
    pub(super) breaker: breaker::Policies,
}

/// Checks the user's files, and writes the copy into `dir`.
pub(super) fn prepare(
    global: &Global,
    dir: &Path,
    inject: Option<Fault>,
) -> Result<(Configs, String), Failure> {
    let good = check(global)?;
    std::fs::create_dir_all(dir)?;
    let user = global.config_dir().map_err(told)?;
    for name in FILES {
        let mut value = match user.as_ref().map(|user| user.join(name)) {
            Some(file) if file.exists() => serde_json::from_str(&std::fs::read_to_string(file)?)?,
            _ if CHANGED.contains(&name) => json!({}),
            // The defaults hold, which are not what an empty file says.
            _ => continue,
        };
        change(name, &mut value, inject);
        std::fs::write(dir.join(name), format!("{}\n", serde_json::to_string_pretty(&value)?))?;
    }
    // Not the environment's values over it: the processes do not get them either.
    let source = Source::with_variables(Some(dir.to_owned()), []);
    let configs = Configs { dir: dir.to_owned(), retry: source.load()?, breaker: source.load()? };
    Ok((configs, format!("{good}; the scenario's copy is in {}", dir.display())))
}

/// The files that are `mcp.json`'s neighbours. That one is looked at, and its servers with it, by the stage `ping`.
fn check(global: &Global) -> Result<String, Failure> {
    let checked = config::check_all(global).map_err(told)?;
    let checked: Vec<_> =
        checked.iter().filter(|checked| !checked.file.ends_with(MCP_FILE)).collect();
    let wrong: Vec<&str> = checked.iter().filter_map(|checked| checked.error.as_deref()).collect();
    if !wrong.is_empty() {
        return Err(Failure::new(wrong.join("; "))
            .remedy("`cogo config check` tells the same; docs/operations.md has the fields."));
    }
    let there = checked.iter().filter(|checked| checked.file.exists()).count();
    Ok(format!("{there} files are good, {} are left to the defaults", checked.len() - there))
}

fn told(error: anyhow::Error) -> Failure {
    Failure::new(format!("{error:#}"))
}

/// Makes the scenario's file of the user's.
fn change(name: &str, file: &mut Value, inject: Option<Fault>) {
    if let Some(fields) = file.as_object_mut() {
        fields.remove("$schema"); // it lies beside the user's files
    }
    match name {
        "retry_policy.json" => add_rules(file, &retry_rules()),
        "circuit_breaker.json" => add_rules(file, &breaker_rules(inject)),
        "worker.json" => {
            file["tenant"] = json!("default");
            file["lease_ms"] = json!(LEASE_MS);
            file["drain_ms"] = json!(5000);
            file["concurrency"] = json!(file["concurrency"].as_u64().unwrap_or(16).max(8));
        }
        // No bucket of the user's is touched.
        "hub.json" => {
            file["artifacts"]["store"] = json!("folder");
            // What is done must stay until it was looked for.
            file["retention"] = json!({});
        }
        _ => {}
    }
}

/// Puts rules in place of all that the file may say for the scenario's toolsets.
fn add_rules(file: &mut Value, rules: &Value) {
    if !file["policies"].is_object() {
        file["policies"] = json!({});
    }
    let (Some(policies), Some(rules)) = (file["policies"].as_object_mut(), rules.as_object())
    else {
        return;
    };
    let ours = [format!("mcp.call.{TOOLSET}"), format!("mcp.call.{OUTBOUND}")];
    policies.retain(|key, _| !ours.iter().any(|our| is_below(key, our)));
    policies.extend(rules.clone());
}

fn is_below(key: &str, prefix: &str) -> bool {
    key.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

fn retry_rules() -> Value {
    let all = json!({
        "max_attempts": 5,
        "backoff": {"kind": "fixed", "delay_ms": DELAY_MS},
        "timeout_ms": 20_000,
        "deadline_ms": 600_000,
        "retry_on": ["connect", "timeout", "closed", "circuit_open"],
    });
    let mut rules = Map::new();
    for toolset in [TOOLSET, OUTBOUND] {
        rules.insert(format!("mcp.call.{toolset}"), all.clone());
    }
    for tool in [FAILS_TWICE, SICK] {
        rules.insert(format!("mcp.call.{TOOLSET}.{tool}"), json!({"timeout_ms": SILENT_MS}));
    }
    // Its probes count as attempts while it is still sick.
    rules[&format!("mcp.call.{TOOLSET}.{SICK}")]["max_attempts"] = json!(50);
    Value::Object(rules)
}

fn breaker_rules(inject: Option<Fault>) -> Value {
    let open_ms = match inject {
        Some(Fault::BreakerNeverCloses) => NEVER_MS,
        _ => OPEN_MS,
    };
    // Nothing but the sick tool opens its breaker, whatever the user's rules for all tools say.
    let calm = json!({
        "window": {"kind": "count", "calls": 100}, "min_requests": 50, "failure_rate": 1.0,
        "slow_call_rate": 1.0, "slow_call_ms": 86_400_000,
    });
    json!({
        (format!("mcp.call.{TOOLSET}")): calm,
        (format!("mcp.call.{OUTBOUND}")): calm,
        (format!("mcp.call.{TOOLSET}.{SICK}")): {
            "enabled": true, "window": {"kind": "count", "calls": 4}, "min_requests": 2, "failure_rate": 0.5,
            "open_ms": open_ms, "half_open_max_calls": 1, "successes_to_close": 2, "failure_on": ["timeout"],
        },
    })
}

/// An `mcp.json` with one toolset: the scenario's own server, at `url`.
pub(super) fn write_mcp(
    dir: &Path,
    toolset: &str,
    url: &str,
    guarded: bool,
) -> Result<(), Failure> {
    let mut server = json!({"url": url, "connect_timeout_ms": 10_000});
    if guarded {
        server["headers"] = json!({"authorization": {"from_env": TOKEN_VARIABLE}});
    }
    let file = json!({"toolsets": {toolset: server}});
    Ok(std::fs::write(dir.join(MCP_FILE), format!("{}\n", serde_json::to_string_pretty(&file)?))?)
}

impl Configs {
    /// The same files, without `mcp.json`, in another place.
    pub(super) fn copy_to(&self, dir: &Path) -> Result<(), Failure> {
        std::fs::create_dir_all(dir)?;
        for name in FILES.iter().filter(|name| self.dir.join(name).exists()) {
            std::fs::copy(self.dir.join(name), dir.join(name))?;
        }
        Ok(())
    }

    /// The key of a tool's policies.
    pub(super) fn key(tool: &str) -> String {
        format!("mcp.call.{TOOLSET}.{tool}.0")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_user_says_stays_but_for_the_scenarios_own_keys() {
        let mut file = json!({"$schema": "x", "policies": {
            "default": {"max_attempts": 2}, "mcp.call.gateway": {"max_attempts": 3},
            "mcp.call.gate.echo": {"max_attempts": 1}}});
        change("retry_policy.json", &mut file, None);
        let policies = &file["policies"];
        assert_eq!(policies["default"]["max_attempts"], 2);
        assert_eq!(policies["mcp.call.gateway"]["max_attempts"], 3);
        assert_eq!(policies["mcp.call.gate.echo"], Value::Null);
        assert_eq!(policies["mcp.call.gate"]["max_attempts"], 5);
        assert_eq!(file["$schema"], Value::Null);
    }

    #[test]
    fn the_rules_are_good_whatever_stands_beside_them() {
        for fault in [None, Some(Fault::BreakerNeverCloses)] {
            let mut file = json!({"policies": {"mcp.call": {"window": {"kind": "count", "calls": 5},
                "min_requests": 5, "slow_call_ms": 1}}});
            change("circuit_breaker.json", &mut file, fault);
            let policies: breaker::Policies = serde_json::from_value(file).expect("a file");
            policies.validate().expect("good rules");
            let open_ms = policies.resolve(&Configs::key(SICK)).open_ms;
            assert_eq!(open_ms == NEVER_MS, fault.is_some());
        }
    }
}
