//! COGO: a durable, event-sourced message bus for AI agents, on Postgres.
//!
//! Work is a message in `agent_messages`; everything that happens to it is an event in the
//! append-only `bus_events`; both change in one transaction, through SQL functions (`bus_*`) that any
//! language can call. This crate is the platform: the bus client, the worker runtime, the policies
//! and (feature `hub`) the HTTP server. `ARCHITECTURE.md` has the map and the invariants.

#![deny(unsafe_code)]

pub mod artifact;
pub mod breaker;
pub mod bus;
pub mod clock;
pub mod config;
pub mod db;
pub mod error;
pub mod event;
#[cfg(feature = "gate")]
pub mod gate;
#[cfg(feature = "hub")]
pub mod hub;
pub mod identity;
pub mod live;
pub mod message;
pub mod metrics;
#[cfg(feature = "remote")]
pub mod net;
#[cfg(any(feature = "hub", feature = "remote"))]
pub mod options;
pub mod policy;
#[cfg(any(feature = "hub", feature = "remote"))]
pub mod realtime;
#[cfg(feature = "remote-env")]
pub mod remote_env;
pub mod retry;
pub mod secret;
pub mod shutdown;
#[cfg(feature = "test-util")]
pub mod testing;
pub mod trace;
pub mod worker;
