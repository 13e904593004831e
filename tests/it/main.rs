//! The library's tests: one binary, real Postgres.

mod claim;
mod claim_schedules;
mod enqueue;
mod log;
mod rights;
mod runner;
mod support;
