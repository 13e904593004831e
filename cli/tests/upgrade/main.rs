//! The release before and this one on one database: what either leaves, the other goes on with.
//!
//! `tests/upgrade/previous` names the release before, and `tests/upgrade/install.sh` builds its `cogo`. Both are run as
//! people run them; the schema is the old one's own or today's. `docs/upgrading.md` is what is promised.

#![cfg(unix)]

mod hub_of_before;
mod left;
mod migrate;
mod previous;
#[allow(dead_code, reason = "another binary's, which uses all of it")]
#[path = "../it/support.rs"]
mod support;
mod tls;
mod worker_of_before;
mod world;
