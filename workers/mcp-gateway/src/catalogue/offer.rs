//! One tool as it is offered.

use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use crate::config::SEPARATOR;

/// Whether a tool may, or must, be called as a task (MCP, `execution.taskSupport`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskSupport {
    /// It must not be.
    Forbidden,
    /// It may be.
    Optional,
    /// It cannot be called otherwise.
    Required,
    /// Its server does not say.
    #[default]
    Unsaid,
}

/// One tool, as a tenant is offered it. All that the definition says is what the tool's server claims.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Offer {
    /// The toolset.
    pub toolset: String,
    /// The tool's name on its server.
    pub tool: String,
    /// The MCP `Tool` object as the server gave it; its name without the toolset.
    pub definition: Arc<Value>,
    /// What the definition is named by: the SHA-256 of its canonical JSON, in hexadecimal.
    pub hash: String,
    /// It changes nothing (`readOnlyHint`; false if the server does not say).
    pub read_only: bool,
    /// Calling it again with the same arguments changes nothing more (`idempotentHint`; false if the server does not
    /// say).
    pub idempotent: bool,
    /// Whether it may be called as a task.
    pub task_support: TaskSupport,
    /// How many workers that are online offer it like this. None while all that do are away, but not yet for long.
    pub workers: usize,
    /// Whether calls must go to machines that have it like this (pinning is on, or some machine has the toolset without
    /// the tool): the message of a call then names the hash as its `definition`.
    pub pinned: bool,
}

impl Offer {
    /// An offer of the tool that `definition` describes.
    #[must_use]
    pub fn new(
        toolset: impl Into<String>,
        tool: impl Into<String>,
        hash: impl Into<String>,
        definition: Arc<Value>,
    ) -> Self {
        let hint = |name| definition["annotations"][name] == Value::Bool(true);
        let task_support = match definition["execution"]["taskSupport"].as_str() {
            Some("forbidden") => TaskSupport::Forbidden,
            Some("optional") => TaskSupport::Optional,
            Some("required") => TaskSupport::Required,
            _ => TaskSupport::Unsaid,
        };
        Self {
            toolset: toolset.into(),
            tool: tool.into(),
            hash: hash.into(),
            read_only: hint("readOnlyHint"),
            idempotent: hint("idempotentHint"),
            task_support,
            workers: 0,
            pinned: false,
            definition,
        }
    }

    /// The one name of toolset and tool: `<toolset>__<tool>`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}{SEPARATOR}{}", self.toolset, self.tool)
    }

    /// What people call it: its `title`, or that among its annotations.
    #[must_use]
    pub fn title(&self) -> Option<&str> {
        let titles = [&self.definition["title"], &self.definition["annotations"]["title"]];
        titles.into_iter().find_map(Value::as_str)
    }

    /// The JSON Schema of its arguments.
    #[must_use]
    pub fn input_schema(&self) -> &Value {
        &self.definition["inputSchema"]
    }
}
