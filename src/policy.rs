//! What all policy files have in common: dotted keys, the rule by which they merge, and what a class of
//! failure means.
//!
//! A file maps dotted keys to rules. For a message's key, such as `mcp.call.browser.get_title.0`, the rules
//! of `default` and of every dotted prefix hold, the longest winning field by field: what a rule leaves out
//! comes from the next shorter key that says it.

mod class;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use class::{ErrorClass, Remedy, Retried, Treatment};
pub(crate) use class::{Sign, listed};

/// What a file may say for one key.
pub trait Rule {
    /// All that holds for a key; its default is what holds where no rule says anything.
    type Policy: Default;

    /// Puts what the rule says over what shorter keys said.
    fn apply(&self, policy: &mut Self::Policy);

    /// Checks a policy as it works out for a key, since fields that are good alone may not fit together.
    ///
    /// # Errors
    /// Names the first field that breaks its rule.
    fn check(policy: &Self::Policy) -> Result<(), Invalid>;
}

/// A policy file: dotted keys to rules. Of the prefixes of a message's key the longest wins, field by field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "Policies")]
#[serde(deny_unknown_fields)]
pub struct Policies<R> {
    /// Where the file's JSON Schema lies; for editors.
    #[serde(rename = "$schema", default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// `default`, and dotted prefixes of keys such as `mcp.call.browser`.
    #[serde(default)]
    pub policies: BTreeMap<String, R>,
}

impl<R> Default for Policies<R> {
    fn default() -> Self {
        Self { schema: None, policies: BTreeMap::new() }
    }
}

/// A field that breaks its rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {rule}")]
pub struct Invalid {
    /// The path of the field within the file.
    pub field: String,
    /// What it must be.
    pub rule: String,
}

impl Invalid {
    /// `field` is not what `rule` says.
    pub fn new(field: impl Into<String>, rule: impl Into<String>) -> Self {
        Self { field: field.into(), rule: rule.into() }
    }
}

/// The key of the rule that holds for all.
const DEFAULT: &str = "default";

impl<R: Rule> Policies<R> {
    /// The policy for `key`: the rules of `default` and of every dotted prefix of the key, the longest
    /// winning field by field.
    #[must_use]
    pub fn resolve(&self, key: &str) -> R::Policy {
        let mut policy = R::Policy::default();
        let ends = key.match_indices('.').map(|(at, _)| at).chain([key.len()]);
        let keys = [DEFAULT].into_iter().chain(ends.map(|end| &key[..end]));
        for rule in keys.filter_map(|key| self.policies.get(key)) {
            rule.apply(&mut policy);
        }
        policy
    }

    /// Checks what the types cannot.
    ///
    /// # Errors
    /// Names the first field that breaks its rule.
    pub fn validate(&self) -> Result<(), Invalid> {
        // Each key is checked as it works out. Shorter keys come first, and `default` before all, so that
        // the key which is named is the one that broke the rule and not one that inherited it.
        let default = self.policies.contains_key(DEFAULT).then_some(DEFAULT);
        for key in default.into_iter().chain(self.policies.keys().map(String::as_str)) {
            if key.split('.').any(str::is_empty) {
                let rule = "the key must be words joined by single dots";
                return Err(Invalid::new(format!("policies.{key}"), rule));
            }
            R::check(&self.resolve(key)).map_err(|Invalid { field, rule }| Invalid {
                field: format!("policies.{key}.{field}"),
                rule,
            })?;
        }
        Ok(())
    }
}

/// Puts what a rule says of a field over what held before; how [`Rule::apply`] does it.
pub fn overlay<T: Clone>(field: &mut T, said: Option<&T>) {
    if let Some(said) = said {
        field.clone_from(said);
    }
}

/// Checks that a field is within its bounds.
///
/// # Errors
/// Names the field and its bounds.
pub fn within<T: PartialOrd + std::fmt::Display>(
    field: &str,
    value: T,
    bounds: std::ops::RangeInclusive<T>,
) -> Result<(), Invalid> {
    if bounds.contains(&value) {
        return Ok(());
    }
    let rule = format!("must be from {} to {}", bounds.start(), bounds.end());
    Err(Invalid::new(field, rule))
}
