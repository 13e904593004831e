//! A server's tools, as it lists them.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use crate::catalogue::canonical;

/// One tool. All of it is what the server claims.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Tool {
    /// Its name, unique on its server.
    pub name: String,
    /// What it does, for people and models.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The JSON Schema of its arguments.
    pub input_schema: Value,
    /// It changes nothing (`readOnlyHint`; false if the server does not say).
    pub read_only: bool,
    /// Calling it again with the same arguments changes nothing more (`idempotentHint`; false if the
    /// server does not say).
    pub idempotent: bool,
    /// The SHA-256 of the definition's canonical JSON, in hexadecimal.
    pub hash: String,
    /// All that the server says of it (MCP, `Tool`), as it came.
    #[serde(skip)]
    pub definition: Arc<Value>,
}

impl Tool {
    /// The tool of this definition; none where it is not one: it must be an object with a name and the schema of its
    /// arguments.
    #[must_use]
    pub fn of(definition: Value) -> Option<Self> {
        let hint = |name| definition["annotations"][name] == Value::Bool(true);
        let name = definition.get("name")?.as_str().filter(|name| !name.is_empty())?;
        Some(Self {
            name: name.to_owned(),
            description: definition["description"].as_str().map(str::to_owned),
            input_schema: definition
                .get("inputSchema")
                .filter(|schema| schema.is_object())?
                .clone(),
            read_only: hint("readOnlyHint"),
            idempotent: hint("idempotentHint"),
            hash: canonical::hash(&canonical::text(&definition)),
            definition: Arc::new(definition),
        })
    }

    /// Whether a call whose outcome is unknown may be made again (DESIGN, invariant 10).
    #[must_use]
    pub fn repeatable(&self) -> bool {
        self.read_only || self.idempotent
    }
}

/// The tools of one server, by name.
#[derive(Debug, Clone, Default)]
pub struct Tools(BTreeMap<String, Arc<Tool>>);

impl Tools {
    /// The tool called `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<Tool>> {
        self.0.get(name)
    }

    /// All tools, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Tool>> {
        self.0.values()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn extend(&mut self, tools: impl Iterator<Item = Tool>) {
        self.0.extend(tools.map(|tool| (tool.name.clone(), Arc::new(tool))));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_tool_is_read_leniently_and_kept_as_it_came() {
        let definition = json!({"name": "click", "title": "Click", "inputSchema": {"type": "object"},
            "annotations": {"readOnlyHint": true, "new": 1}, "x-unknown": [1]});
        let tool = Tool::of(definition.clone()).expect("a tool");
        assert!(tool.read_only && !tool.idempotent && tool.repeatable());
        assert_eq!(*tool.definition, definition);
        let described =
            json!({"description": "?", "name": "click", "inputSchema": {"type": "object"}});
        assert_ne!(Tool::of(described).expect("a tool").hash, tool.hash);
        for bad in [
            json!({}),
            json!("click"),
            json!({"name": "", "inputSchema": {}}),
            json!({"name": "x"}),
        ] {
            assert_eq!(Tool::of(bad), None);
        }
    }
}
