//! Supabase's own clients, unmodified and pinned, against the real `cogo up`.
//!
//! What a client does is said by a test, a command a line, to a driver (`tests/clients/driver.mjs` and `.py`);
//! so one scenario runs with every client, and between them. `tests/clients/install.sh` installs them.

#![cfg(unix)]

mod changes;
mod driver;
mod examples;
mod hub;
mod messages;
mod reads;
mod refusals;
mod restart;
mod roles;
mod service;
mod strangers;
#[allow(dead_code, reason = "another binary's, which uses all of it")]
#[path = "../it/support.rs"]
mod support;
mod tokens;
