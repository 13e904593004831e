//! The section `mesh` of `configs/mcp.json`: what the hub offers of the tools that its machines have, and how calls
//! of them are made.

use std::collections::BTreeMap;
use std::time::Duration;

use cogo::message::{ALL_TENANTS, NAME_RULE, valid_name};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What stands between a toolset's name and a tool's, wherever both are one name.
pub const SEPARATOR: &str = "__";
/// The most patterns in one list.
const MAX_PATTERNS: usize = 1000;

/// The tools of all machines as one: what is offered of them, and how calls are made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Mesh {
    /// Whether a tool whose description or schema has changed is held until somebody approves it with
    /// `cogo mcp pins approve`.
    pub pinning: Pinning,
    /// How long a machine's tools stay on the list after it was last seen, in seconds; from 0 to 86400 (a day).
    #[schemars(range(max = 86_400))]
    pub grace_s: u64,
    /// How long a call may take in all, waiting for a machine included, where its caller names no time; in
    /// milliseconds, from 1000 to 86400000 (a day).
    #[schemars(range(min = 1000, max = 86_400_000))]
    pub call_deadline_ms: u64,
    /// How long a call is waited for before it becomes a task, for clients that know tasks; in milliseconds, from 0
    /// to 600000.
    #[schemars(range(max = 600_000))]
    pub task_after_ms: u64,
    /// The largest result that is given as it is, in bytes; of a larger one the largest parts become artifacts. From
    /// 1024 to 67108864 (64 MiB).
    #[schemars(range(min = 1024, max = 67_108_864))]
    pub max_result_bytes: usize,
    /// Which tools a tenant is offered, by tenant; `*` holds for all tenants.
    pub tenants: BTreeMap<String, Filter>,
}

/// When a tool is offered that is not as it was when it was approved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Pinning {
    /// Always: a tool is offered as its machine describes it today.
    #[default]
    Off,
    /// What is seen first is approved by that; what differs from it is held.
    FirstUse,
    /// Nothing is offered that nobody has approved.
    Strict,
}

/// Which tools are offered: patterns of `<toolset>__<tool>`, in which `*` stands for anything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// If there is such a list, nothing else is offered. A tenant's own list stands in place of that of `*`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow: Option<Vec<String>>,
    /// These are not offered, whatever else is said. That of `*` holds beside the tenant's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<String>,
}

/// What holds for one tool of a toolset.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ToolLimits {
    /// How many calls of it may be in flight at once on this machine; further ones wait. From 1 to 1024. The
    /// toolset's own limit holds as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1024))]
    pub max_in_flight: Option<usize>,
}

impl Default for Mesh {
    fn default() -> Self {
        Self {
            pinning: Pinning::Off,
            grace_s: 60, // twice a worker's lease: a restart or a new address
            call_deadline_ms: 300_000, // what clients of MCP wait for at most
            task_after_ms: 5000, // most tools have answered by then
            max_result_bytes: 1 << 20, // more would not fit into a model's context either
            tenants: BTreeMap::new(),
        }
    }
}

impl Mesh {
    /// [`Mesh::grace_s`].
    #[must_use]
    pub fn grace(&self) -> Duration {
        Duration::from_secs(self.grace_s)
    }

    /// Whether `tenant` is offered the tool: what is denied is not, and where there is a list of what is allowed, only
    /// what it names.
    #[must_use]
    pub fn offers(&self, tenant: &str, toolset: &str, tool: &str) -> bool {
        let name = format!("{toolset}{SEPARATOR}{tool}");
        let named = |patterns: &[String]| patterns.iter().any(|pattern| fits(pattern, &name));
        let (own, all) = (self.tenants.get(tenant), self.tenants.get(ALL_TENANTS));
        if [own, all].into_iter().flatten().any(|filter| named(&filter.deny)) {
            return false;
        }
        let allow = own.and_then(|own| own.allow.as_ref());
        allow.or_else(|| all?.allow.as_ref()).is_none_or(|allow| named(allow))
    }

    /// Checks what the types cannot; the field within the section, and what it must be.
    pub(super) fn check(&self) -> Result<(), (String, &'static str)> {
        let refuse = |field: &str, rule| Err((field.to_owned(), rule));
        if self.grace_s > 86_400 {
            return refuse("grace_s", "must be from 0 to 86400 (a day)");
        }
        if !(1000..=86_400_000).contains(&self.call_deadline_ms) {
            return refuse("call_deadline_ms", "must be from 1000 to 86400000 (a day)");
        }
        if self.task_after_ms > 600_000 {
            return refuse("task_after_ms", "must be from 0 to 600000");
        }
        if !(1024..=64 << 20).contains(&self.max_result_bytes) {
            return refuse("max_result_bytes", "must be from 1024 to 67108864 (64 MiB)");
        }
        for (tenant, filter) in &self.tenants {
            if tenant != ALL_TENANTS && !valid_name(tenant) {
                return Err((format!("tenants.{tenant}"), NAME_RULE));
            }
            let allow = filter.allow.as_deref().unwrap_or_default();
            for (list, patterns) in [("allow", allow), ("deny", &filter.deny)] {
                if patterns.len() > MAX_PATTERNS {
                    return Err((
                        format!("tenants.{tenant}.{list}"),
                        "takes at most 1000 patterns",
                    ));
                }
                if let Some(at) = patterns.iter().position(|pattern| !meant(pattern)) {
                    let rule = "must be <toolset>__<tool>, in which * stands for anything, or *";
                    return Err((format!("tenants.{tenant}.{list}[{at}]"), rule));
                }
            }
        }
        Ok(())
    }
}

/// Whether a pattern can fit anything: a list in which a toolset's name alone stands would let nothing through, or
/// everything, without a word.
fn meant(pattern: &str) -> bool {
    pattern.len() <= 255 && (pattern.contains('*') || pattern.contains(SEPARATOR))
}

/// Whether `name` fits `pattern`, in which `*` stands for any text. In time that grows with the product of the two at
/// worst.
fn fits(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else {
        return false;
    };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mesh(text: &str) -> Mesh {
        let mesh: Mesh = serde_json::from_str(text).expect("a section");
        mesh.check().expect("good");
        mesh
    }

    #[test]
    fn a_star_stands_for_anything_and_for_nothing() {
        for (pattern, name, whether) in [
            ("*", "browser__click", true),
            ("browser__*", "browser__click", true),
            ("browser__*", "browser__", true),
            ("browser__*", "browser2__click", false),
            ("*__click", "browser__click", true),
            ("*__click", "browser__click_all", false),
            ("browser__click", "browser__click", true),
            ("browser__click", "browser__click2", false),
            ("b*__c*k", "browser__click", true),
            ("b*__c*k", "browser__clock_in", false),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b*", "xxbxxaxx", false),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(fits(pattern, name), whether, "{pattern} {name}");
        }
    }

    #[test]
    fn what_is_denied_is_not_offered_and_a_list_of_what_is_allowed_admits_nothing_else() {
        let none = Mesh::default();
        assert!(none.offers("acme", "browser", "click"));
        let all = mesh(r#"{"tenants": {"*": {"deny": ["*__rm"], "allow": ["files__*"]}}}"#);
        assert!(all.offers("acme", "files", "read") && !all.offers("acme", "files", "rm"));
        assert!(!all.offers("acme", "browser", "click"));
        let both = mesh(
            r#"{"tenants": {"*": {"deny": ["*__rm"], "allow": ["files__*"]},
                "acme": {"allow": ["browser__*"], "deny": ["browser__click"]}, "zero": {"allow": []}}}"#,
        );
        assert!(both.offers("acme", "browser", "go") && !both.offers("acme", "browser", "click"));
        assert!(!both.offers("acme", "browser", "rm"), "denied to all");
        assert!(!both.offers("acme", "files", "read"), "its own list stands in place of the other");
        assert!(both.offers("other", "files", "read"));
        assert!(!both.offers("zero", "files", "read"), "an empty list allows nothing");
    }
}
