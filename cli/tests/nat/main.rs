//! A worker behind a NAT, in real network namespaces of Linux.
//!
//! ```text
//!   worker ── 192.168.77.0/24 ── router ── 203.0.113.0/24 ── hub
//!                                nftables masquerade, conntrack; nothing comes in
//! ```
//!
//! The worker's only way out is the router, which lets nothing in. Its link is cut, its connections are forgotten,
//! addresses change, it is put to sleep; meanwhile messages come steadily. Afterwards each must have been
//! answered exactly once, and after each fault the worker must soon be back at work; how soon is printed.
//!
//! Needs root, `ip`, `nft`, `conntrack` and `openssl`; elsewhere the tests say so and pass.

#![cfg(target_os = "linux")]

mod inside;
mod net;
mod ordeal;
mod proxy;
#[allow(dead_code, reason = "another binary's, which uses all of it")]
#[path = "../it/support.rs"]
mod support;
mod tls;
mod world;
