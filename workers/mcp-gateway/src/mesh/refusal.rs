//! Why something was not done.

use std::time::Duration;

use cogo::bus;
use cogo::error::Code;
use cogo::hub::ApiError;
use cogo::message::MessageId;

/// Why the mesh refuses. Nothing was queued.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// No such tool is offered to this caller.
    #[error("{}", unknown(.toolset, .tool, .near))]
    UnknownTool {
        /// The toolset that was named.
        toolset: String,
        /// The tool that was named.
        tool: String,
        /// What it may have meant, as `<toolset>__<tool>`.
        near: Vec<String>,
    },
    /// The tool is there, but its definition is new or has changed, and nobody has approved it.
    #[error(
        "{toolset}__{tool} is held: its definition is not the one that was approved. See what changed with \
         `cogo mcp pins`, and approve or refuse it there"
    )]
    Held {
        /// The toolset.
        toolset: String,
        /// The tool.
        tool: String,
    },
    /// The arguments do not fit the tool's `inputSchema`.
    #[error("{message}")]
    InvalidArguments {
        /// Where, as a JSON pointer into the arguments; empty for all of them.
        pointer: String,
        /// What is wrong there, and what is expected; the pointers are in it.
        message: String,
    },
    /// The caller may not do this.
    #[error("{message}")]
    Forbidden {
        /// What, and what would do.
        message: String,
    },
    /// More would wait than a limit allows.
    #[error("{message}")]
    Full {
        /// Which limit.
        message: String,
        /// When it may be tried again.
        retry_after: Duration,
    },
    /// The idempotency key was used before, for another call.
    #[error(
        "idempotency key: was used before, for another call ({0}); the same key means the same toolset, tool and \
         arguments"
    )]
    Conflict(MessageId),
    /// There is no such call, or it is not this caller's.
    #[error("{0}: there is no such call")]
    NoCall(MessageId),
    /// The bus refused, or does not answer.
    #[error(transparent)]
    Bus(bus::Error),
}

impl Refusal {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::UnknownTool { .. } | Self::NoCall(_) => Code::NotFound,
            Self::Held { .. } | Self::Forbidden { .. } => Code::Forbidden,
            Self::InvalidArguments { .. } => Code::InvalidArgument,
            Self::Full { .. } => Code::RateLimited,
            Self::Conflict(_) => Code::Conflict,
            Self::Bus(error) => error.code(),
        }
    }
}

impl From<bus::Error> for Refusal {
    fn from(error: bus::Error) -> Self {
        match error {
            bus::Error::Full { message, retry_after } => Self::Full { message, retry_after },
            bus::Error::Refused { code: Code::Forbidden, message } => Self::Forbidden { message },
            error => Self::Bus(error),
        }
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let error = Self::new(refusal.code(), refusal.to_string());
        match refusal {
            Refusal::Bus(error) => error.into(),
            Refusal::Full { retry_after, .. } => error.with_retry_after(retry_after),
            Refusal::InvalidArguments { pointer, .. } => error.with_detail("pointer", pointer),
            Refusal::UnknownTool { near, .. } if !near.is_empty() => {
                error.with_detail("near", near)
            }
            Refusal::Conflict(id) => error.with_detail("id", id.to_string()),
            _ => error,
        }
    }
}

fn unknown(toolset: &str, tool: &str, near: &[String]) -> String {
    let (toolset, tool) = (shown(toolset), shown(tool));
    let text = format!("no machine offers {toolset}__{tool}");
    match near {
        [] => text,
        near => format!("{text}; did you mean {}?", near.join(" or ")),
    }
}

/// A name from outside, bounded and on one line.
fn shown(name: &str) -> String {
    let clean: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
    if clean.len() < name.len() { format!("{clean}…") } else { clean }
}
