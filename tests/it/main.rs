//! The one test binary of the library: real Postgres, real processes.

mod circuits;
mod claim;
mod claim_schedules;
mod config;
mod deadline;
mod embedded;
mod enqueue;
mod failures;
mod fairness;
mod fixtures;
mod hub;
mod layers;
mod limits;
mod log;
mod migrations;
mod odd_sequences;
mod order;
mod rebuild;
mod reload;
mod replay;
mod replay_trace;
mod rights;
mod runner;
mod support;
mod testing;
