//! The tests of the binary: the real `cogo`, run as a person or a script runs it.

mod artifacts;
mod bench;
mod circuits;
mod config;
mod dead_letters;
mod env;
mod help;
mod idempotency;
mod install;
mod limits;
mod log;
mod logs;
mod mcp;
mod mcp_live;
mod messages;
mod metrics;
mod minimal;
#[cfg(target_os = "linux")]
mod open_files;
mod pins;
mod probe;
mod refusals;
mod reload;
mod remote;
mod replay;
mod supabase;
mod support;
mod token;
#[cfg(unix)]
mod top;
mod traces;
mod up;
mod version;
mod worker;
mod workers;
