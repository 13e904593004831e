//! The built-in toolset `cogo`: the bus as tools, so that an agent can operate the platform.
//!
//! | module | job |
//! |---|---|
//! | `tools` | what the tools are called, take and give, and what a model is told of them |
//! | `arguments` | arguments against the tools' schemas, and as types |
//! | `read` | the tools that only read |
//! | `write` | `enqueue` and `requeue` |
//! | `answer` | answers of a bounded size |
//!
//! They are not on any machine: the hub answers them itself, as the [`Principal`] that calls. What it may see and do
//! the database decides; a key of one tenant meets nothing of another's. The two tools that change something are
//! listed for operators alone (the admin token, `service_role`, keys with the claim `operate`), and who calls them all
//! the same is told which claim is missing.

mod answer;
mod arguments;
mod read;
mod tools;
mod write;

use cogo::bus;
use cogo::error::{Code, chain};
use cogo::hub::Principal;
use cogo::live::Live;
use cogo::retry::Policies;
use serde_json::{Map, Value};

use self::answer::{done, refused};
use self::arguments::read;
use crate::mesh::Refusal;

/// The name of the toolset. No machine may offer another of this name.
pub const TOOLSET: &str = "cogo";

/// What the tools need beside the caller.
#[derive(Debug, Clone, Default)]
pub struct Deps {
    /// How many attempts a message has, and what deadline, whose sender does not say.
    pub policies: Live<Policies>,
}

/// The tools that `who` is offered, as MCP's Tool objects, by name, which has no prefix.
#[must_use]
pub fn tools(who: &Principal) -> Vec<Value> {
    let all = tools::ALL.iter().filter(|tool| tool.is_for(who.is_operator()));
    all.map(|tool| tool.definition().clone()).collect()
}

/// One of the tools, whether or not it is offered to whoever asks.
#[must_use]
pub fn tool(name: &str) -> Option<Value> {
    tools::of(name).map(|tool| tool.definition().clone())
}

/// Calls one of the tools as `who`, and gives a CallToolResult. What a model can do something about (there is no such
/// message, a claim is missing) is a result with `isError`.
///
/// # Errors
/// [`Refusal::UnknownTool`]; [`Refusal::InvalidArguments`] names the place; [`Refusal::Bus`] when the database does not
/// answer.
pub async fn call(
    who: &Principal,
    deps: &Deps,
    tool: &str,
    arguments: Option<Map<String, Value>>,
) -> Result<Value, Refusal> {
    let Some(known) = tools::of(tool) else {
        let (toolset, tool, near) = (TOOLSET.to_owned(), tool.to_owned(), Vec::new());
        return Err(Refusal::UnknownTool { toolset, tool, near });
    };
    if !known.is_for(who.is_operator()) {
        return Ok(refused(&format!(
            "{tool}: this key may not change anything here; it lacks the claim `operate` (`cogo token mint --operate`)"
        )));
    }
    let arguments = known.check(arguments.unwrap_or_default())?;
    let answer = match tool {
        "get_message" => read::message(who, read(arguments)?).await,
        "get_trace" => read::trace(who, read(arguments)?).await,
        "list_workers" => read::workers(who, read(arguments)?).await,
        "list_dead_letters" => read::dead_letters(who, read(arguments)?).await,
        "circuit_status" => read::circuits(who, read(arguments)?).await,
        "enqueue" => write::enqueue(who, deps, read(arguments)?).await,
        _ => write::requeue(who, read(arguments)?).await,
    };
    match answer {
        Ok(answer) => Ok(done(answer)),
        Err(error) => told(error),
    }
}

/// What went wrong, for a model where it can do something about it.
fn told(error: bus::Error) -> Result<Value, Refusal> {
    match &error {
        bus::Error::NoMessage(id) => Ok(refused(&format!("{id}: there is no such message"))),
        bus::Error::Full { message, retry_after } => {
            Ok(refused(&format!("{message}; try again in {} ms", retry_after.as_millis())))
        }
        _ if matches!(
            error.code(),
            Code::Forbidden
                | Code::NotFound
                | Code::Conflict
                | Code::InvalidArgument
                | Code::PayloadTooLarge
        ) && !matches!(error, bus::Error::Data { .. } | bus::Error::Database { .. }) =>
        {
            Ok(refused(&error.to_string()))
        }
        bus::Error::Data { .. } => {
            tracing::info!(error = %chain(&error), "Refused data");
            Ok(refused("the data holds what the database cannot store"))
        }
        _ => Err(Refusal::Bus(error)),
    }
}
