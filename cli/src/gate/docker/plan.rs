//! What the file says: its services, and in `x-gate` what the gate calls.

use std::collections::BTreeSet;

use cogo::gate::Failure;
use serde::Deserialize;
use serde_json::{Map, Value};

/// What is done with the containers.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) hub: Published,
    pub(super) call: Call,
    pub(super) dead_letter: DeadLetter,
    /// All services.
    pub(super) services: BTreeSet<String>,
    /// Those of them that do their work once and end.
    pub(super) once: BTreeSet<String>,
}

/// `x-gate`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Gate {
    hub: Published,
    call: Call,
    dead_letter: DeadLetter,
}

/// Where the hub is.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Published {
    pub(super) service: String,
    /// Its port within the container.
    pub(super) port: u16,
}

/// A call that must succeed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Call {
    pub(super) toolset: String,
    pub(super) tool: String,
    pub(super) params: Map<String, Value>,
    /// A text that the result must have in it.
    pub(super) answers: String,
}

/// A call that must fail for good, and succeed once it is mended.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DeadLetter {
    pub(super) toolset: String,
    pub(super) tool: String,
    pub(super) params: Map<String, Value>,
    /// The class of failure that it must die of.
    pub(super) class: String,
    /// The params with which it is requeued.
    pub(super) mended: Map<String, Value>,
}

impl Plan {
    /// Of what `docker compose config --format json` says.
    pub(super) fn of(config: &Value) -> Result<Self, Failure> {
        let wrong = |why: String| {
            Failure::new(format!("{}: x-gate: {why}", super::FILE))
                .remedy("docs/compose.md says what x-gate holds.")
        };
        let gate = config.get("x-gate").cloned().ok_or_else(|| wrong("is missing".to_owned()))?;
        let Gate { hub, call, dead_letter } =
            serde_json::from_value(gate).map_err(|error| wrong(error.to_string()))?;
        let all = config["services"].as_object().cloned().unwrap_or_default();
        let services: BTreeSet<String> = all.keys().cloned().collect();
        if !services.contains(&hub.service) {
            return Err(wrong(format!("hub.service: there is no service {:?}", hub.service)));
        }
        let once = all
            .values()
            .filter_map(|service| service["depends_on"].as_object())
            .flatten()
            .filter(|(_, on)| on["condition"] == "service_completed_successfully")
            .map(|(name, _)| name.clone())
            .collect();
        Ok(Self { hub, call, dead_letter, services, once })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config() -> Value {
        let call = json!({"toolset": "t", "tool": "t", "params": {}, "answers": ""});
        let dead =
            json!({"toolset": "t", "tool": "t", "params": {}, "class": "tool_error", "mended": {}});
        json!({
            "services": {
                "db": {}, "migrate": {"depends_on": {"db": {"condition": "service_healthy"}}},
                "hub": {"depends_on": {"migrate": {"condition": "service_completed_successfully"}}},
            },
            "x-gate": {"hub": {"service": "hub", "port": 8787}, "call": call, "dead_letter": dead},
        })
    }

    #[test]
    fn what_others_wait_for_to_end_is_done_once() {
        let plan = Plan::of(&config()).expect("a plan");
        assert_eq!(plan.once.into_iter().collect::<Vec<_>>(), ["migrate"]);
        assert_eq!(plan.services.len(), 3);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let mut none = config();
        none.as_object_mut().expect("an object").remove("x-gate");
        let mut other = config();
        other["x-gate"]["hub"]["service"] = json!("huub");
        let mut typo = config();
        typo["x-gate"]["cal"] = json!({});
        for (config, says) in [(none, "is missing"), (other, "huub"), (typo, "`cal`")] {
            let failure = Plan::of(&config).expect_err("refused");
            assert!(failure.reason().contains(says), "{failure}");
        }
    }
}
