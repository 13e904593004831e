//! The gate.
#![cfg(target_os = "linux")]
mod docker;
