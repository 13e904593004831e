//! How much may wait, and what share of the workers a tenant gets.
//!
//! The limits are the database's, for all that enqueue and claim, and so one file sets them for all. A hub
//! writes them at its start and when its file changes; a hub *without* the file leaves them as they are, so
//! that it does not wipe what another one set.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::bus::error::Error;
use crate::bus::queries::backlog::{Limit, Parked};
use crate::bus::{Bus, Signal};
use crate::message::{NAME_RULE, Topic, valid_name};
use crate::policy::Invalid;

/// Stands for every name that has no limit of its own.
const ANY: &str = "*";
/// As many digits as `bus_set_limits` takes.
const QUEUED_MAX: u64 = 999_999_999_999_999;

/// `configs/limits.json`: how many messages may wait, by tenant and by topic, and the tenants' shares. Without
/// it, or where it is empty, nothing is limited and all tenants weigh the same.
///
/// A message must fit the limit of its tenant and that of its topic. `*` holds for each name that does not
/// stand beside it: not for all of them together.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Where the file's JSON Schema lies; for editors.
    #[serde(rename = "$schema", skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// By tenant, or `*`.
    pub tenants: BTreeMap<String, TenantLimit>,
    /// By topic, as `role/service`, or `*`.
    pub topics: BTreeMap<String, TopicLimit>,
}

/// What holds for a tenant.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TenantLimit {
    /// How many of its messages may wait, due or not; from 1. Further ones are refused. Unset: no limit.
    #[schemars(range(min = 1, max = 999_999_999_999_999u64))]
    pub max_queued: Option<u64>,
    /// Its share of the workers that serve all tenants, in relation to the others'; from 0.01 to 1000, and 1
    /// where unset.
    #[schemars(range(min = 0.01, max = 1000.0))]
    pub weight: Option<f64>,
}

/// What holds for a topic.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TopicLimit {
    /// How many of its messages may wait, due or not; from 1. Further ones are refused. Unset: no limit.
    #[schemars(range(min = 1, max = 999_999_999_999_999u64))]
    pub max_queued: Option<u64>,
}

fn refuse(field: String, rule: impl Into<String>) -> Result<(), Invalid> {
    Err(Invalid::new(field, rule))
}

fn check_max(path: &str, max: Option<u64>) -> Result<(), Invalid> {
    if max.is_some_and(|max| !(1..=QUEUED_MAX).contains(&max)) {
        return refuse(format!("{path}.max_queued"), format!("must be from 1 to {QUEUED_MAX}"));
    }
    Ok(())
}

impl Limits {
    /// Checks what the types cannot.
    ///
    /// # Errors
    /// Names the first field that breaks its rule.
    pub fn validate(&self) -> Result<(), Invalid> {
        for (name, limit) in &self.tenants {
            let path = format!("tenants.{name}");
            if name != ANY && !valid_name(name) {
                return refuse(path, format!("the name must be `*` or {NAME_RULE}"));
            }
            check_max(&path, limit.max_queued)?;
            if limit.weight.is_some_and(|weight| !(0.01..=1000.0).contains(&weight)) {
                return refuse(format!("{path}.weight"), "must be from 0.01 to 1000");
            }
        }
        for (name, limit) in &self.topics {
            let path = format!("topics.{name}");
            if name != ANY && name.parse::<Topic>().is_err() {
                return refuse(path, "the name must be `*` or of the form role/service");
            }
            check_max(&path, limit.max_queued)?;
        }
        Ok(())
    }

    fn to_json(&self) -> Value {
        json!({"tenants": self.tenants, "topics": self.topics})
    }
}

impl Bus {
    /// Sets all limits at once, for everybody; those that are not named are gone. Whether anything changed.
    ///
    /// # Errors
    /// [`Error::Refused`] names the field, or says that the role may not; [`Error::Database`].
    pub async fn set_limits(&self, limits: &Limits) -> Result<bool, Error> {
        let limits = limits.to_json();
        let call = || self.transport().set_limits(&limits);
        let changed = self.core.retry("bus_set_limits", call).await?;
        if changed {
            // Other weights, other claims.
            self.wake(Signal::Work);
        }
        Ok(changed)
    }

    /// The limits that hold, and how much waits within each.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn limits(&self) -> Result<Vec<Limit>, Error> {
        self.core.retry("bus_limits", || self.transport().limits()).await
    }

    /// What is due and may not be claimed, by role, service and reason.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn parked(&self) -> Result<Vec<Parked>, Error> {
        self.transport().parked().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_breaks_a_rule_names_its_field() {
        let refused = |json: Value| {
            let limits: Limits = serde_json::from_value(json).expect("well-formed");
            limits.validate().expect_err("refused").to_string()
        };
        for (json, start) in [
            (json!({"tenants": {"a b": {}}}), "tenants.a b: the name must be `*` or 1 to 64"),
            (json!({"tenants": {"*": {"max_queued": 0}}}), "tenants.*.max_queued: must be from 1"),
            (json!({"tenants": {"a": {"weight": 0.0}}}), "tenants.a.weight: must be from 0.01"),
            (json!({"tenants": {"a": {"weight": 1e9}}}), "tenants.a.weight: must be from 0.01"),
            (json!({"topics": {"echo": {}}}), "topics.echo: the name must be `*` or of the form"),
            (json!({"topics": {"a/b": {"max_queued": 0}}}), "topics.a/b.max_queued: must be"),
        ] {
            let message = refused(json);
            assert!(message.starts_with(start), "{message}");
        }
        let weight_of_a_topic = json!({"topics": {"a/b": {"weight": 1}}});
        assert!(serde_json::from_value::<Limits>(weight_of_a_topic).is_err());
        assert_eq!(Limits::default().validate(), Ok(()));
    }
}
