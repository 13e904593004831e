//! The API of the real `cogo up` beside its description: what schemathesis makes of it, whether every route is in it,
//! and the page that shows it, in Chromium. `tests/api/install.sh` installs schemathesis.

#![cfg(unix)]

mod contract;
mod hub;
#[allow(dead_code, reason = "another binary's, which uses all of it")]
#[path = "../mesh/install.rs"]
mod install;
mod page;
mod schemathesis;
mod shapes;
#[allow(dead_code, reason = "another binary's, which uses all of it")]
#[path = "../it/support.rs"]
mod support;
mod table;
