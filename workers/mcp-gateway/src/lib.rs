//! The MCP gateway: messages that ask for a tool call, called at MCP servers.
//!
//! | module | job |
//! |---|---|
//! | [`config`] | `configs/mcp.json`: which servers there are, and how they are reached |
//! | [`upstream`] | one server: one connection kept, calls bounded, failures classified |
//! | [`toolsets`] | all servers, by name |
//! | `environment` | what it refers to: this process' variables, and RemoteEnv below them |
//! | [`handler`] | message to call and back, with the rule for redelivered messages |
//! | [`catalogue`] | what the machines offer, told and gathered |
//! | [`capture`], [`redact`] | artifacts of each attempt, without secrets |
//! | [`metrics`] | what is counted |
//! | [`revision`] | the revisions of MCP that are spoken |
//! | `mesh` (feature `api`) | one call over the bus: checked, durable, waited for; tasks |
//! | `platform` (feature `api`) | the built-in toolset `cogo`: the bus as tools |
//! | [`trace`] | spans of a call, from the hub to the tool's server |
//! | `demo` (feature) | a real MCP server to try it with |
//! | `api` (feature) | the routes `/api/mcp/*` |

#![deny(unsafe_code)]

#[cfg(feature = "api")]
pub mod api;
#[cfg(feature = "api")]
pub mod artifacts;
pub mod capture;
pub mod catalogue;
pub mod config;
#[cfg(feature = "demo")]
pub mod demo;
#[cfg(feature = "api")]
pub mod endpoint;
mod environment;
mod gateway;
pub mod handler;
#[cfg(feature = "api")]
pub mod mesh;
mod meta;
pub mod metrics;
#[cfg(feature = "api")]
pub mod platform;
pub mod redact;
mod results;
pub mod revision;
mod secret;
pub mod toolsets;
pub mod trace;
pub mod upstream;

pub use gateway::{Gateway, ROLE};
pub use secret::Secret;
