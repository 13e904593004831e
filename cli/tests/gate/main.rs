//! `cogo gate` as its user meets it: what each stage finds, what is told of it, and that nothing remains.
//!
//! Real processes throughout: what must be seen to fail is broken for real where that can be done.

#![cfg(unix)] // signals and process groups

mod docker;
mod e2e;
mod fixture;
mod ping;
mod report;
mod servers;
#[allow(dead_code, reason = "another binary's, which uses all of it")]
#[path = "../it/support.rs"]
mod support;
mod usage;
