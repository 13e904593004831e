//! A server's tools, as it lists them.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

/// One tool. All of it is what the server claims.
#[derive(Debug, Clone, PartialEq, Serialize)]
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
}

impl Tool {
    /// Whether a call whose outcome is unknown may be made again (DESIGN, invariant 10).
    #[must_use]
    pub fn repeatable(&self) -> bool {
        self.read_only || self.idempotent
    }
}

impl From<rmcp::model::Tool> for Tool {
    fn from(tool: rmcp::model::Tool) -> Self {
        let hints = tool.annotations.unwrap_or_default();
        Self {
            name: tool.name.into_owned(),
            description: tool.description.map(std::borrow::Cow::into_owned),
            input_schema: Value::Object((*tool.input_schema).clone()),
            read_only: hints.read_only_hint == Some(true),
            idempotent: hints.idempotent_hint == Some(true),
        }
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
