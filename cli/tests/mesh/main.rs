//! The mesh as MCP clients see it that nobody here wrote: the official conformance suite, the SDKs of TypeScript and
//! Python, the inspector's command line, and a browser on a machine behind a NAT.
//!
//! ```text
//!   a client ── /mcp ── cogo up ── https://…/rest/v1 ── cogo worker mcp-gateway ── WebSocket ── fixture (this process)
//!                                                                              └── stdio ────── @playwright/mcp
//! ```
//!
//! `tests/mesh/install.sh` installs the clients, exactly as pinned; `docs/conformance.md` is what the suite must say.

#![cfg(target_os = "linux")]

mod browser;
mod client;
mod conformance;
mod expected;
mod fixture;
mod hub;
#[allow(dead_code, reason = "another binary's, which uses all of it")]
#[path = "../nat/inside.rs"]
mod inside;
mod inspector;
mod install;
#[allow(dead_code, reason = "another binary's, which uses all of it")]
#[path = "../nat/net.rs"]
mod net;
mod proxy;
mod sdk;
#[allow(dead_code, reason = "another binary's, which uses all of it")]
#[path = "../it/support.rs"]
mod support;
#[allow(dead_code, reason = "another binary's, which uses all of it")]
#[path = "../nat/tls.rs"]
mod tls;
mod world;
