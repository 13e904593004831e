//! Proven by faults: hub and workers run for real, and are killed, stopped, cut off and lied to.
//!
//! A run is made from a seed (`plan.rs`): how many workers, which messages, which faults at which times. It
//! starts the processes (`fleet.rs`), sends (`sender.rs`), injects (`faults.rs`), waits until everything has
//! ended, and judges the database, the log and the ledger of the MCP server (`checks.rs`). The report lies in
//! `artifacts/chaos/<time>/`. What runs when, and on what, is decided by the seed; how the threads of the
//! processes meet the faults is not, so a seed is run several times where it is to show something again.
//!
//! | variable | what |
//! |---|---|
//! | `COGO_CHAOS_RUNS` | how many seeds; by default as many as CI has time for |
//! | `COGO_CHAOS_SEED` | the first seed; the others follow it. By default it is drawn |
//! | `COGO_CHAOS_LANES` | how many runs go on side by side, each with a Postgres of its own |
//! | `COGO_CHAOS_LOG` | what the processes log; by default what they do by themselves |

#![cfg(target_os = "linux")] // /proc, SIGSTOP, tmpfs

mod checks;
mod config;
mod drills;
mod faults;
mod fleet;
mod full_disk;
mod http;
mod mcp;
mod memory;
mod plan;
mod postgres;
mod process;
mod proxy;
mod report;
mod run;
mod sender;
mod series;
mod skew;
mod slow;
mod snapshot;
