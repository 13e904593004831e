//! The stage `local` of `cogo gate unified`, by the real binary: what it leaves behind where all is well, and that it
//! notices what is broken on purpose.

mod local;
mod migrate;
#[expect(dead_code, reason = "the half that runs things is used here")]
#[path = "../it/support.rs"]
mod support;
