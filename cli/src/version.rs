//! What this program is: its version and commit, how it was built, and what it speaks.

use std::sync::LazyLock;

use cogo::realtime::wire::Vsn;
use cogo_worker_mcp_gateway::revision;

use crate::connect::newest_migration;

/// The commit that it was built from, in full, with `-dirty` when the sources differed from it. None where neither
/// git nor `COGO_COMMIT` told: see `build.rs`.
pub(crate) const COMMIT: Option<&str> = option_env!("COGO_BUILD_COMMIT");

/// Version, commit and day in one line, as `0.1.0 (a1b2c3d 2026-11-22)`.
pub(crate) const SHORT: &str = env!("COGO_BUILD_VERSION");

/// What `--version` says; its first line is what `-V` says.
pub(crate) fn long() -> &'static str {
    static LONG: LazyLock<String> = LazyLock::new(|| {
        let lines = [
            ("commit", COMMIT.unwrap_or("unknown").to_owned()),
            ("target", env!("COGO_BUILD_TARGET").to_owned()),
            ("profile", env!("COGO_BUILD_PROFILE").to_owned()),
            ("features", features()),
            ("mcp", revision::SPOKEN.join(" ")),
            ("realtime", Vsn::ALL.map(Vsn::as_str).join(" ")),
            ("schema", newest_migration().to_string()),
            #[cfg(feature = "full")]
            ("gate", cogo::gate::SCHEMA.to_owned()),
        ];
        let lines =
            lines.iter().map(|(name, value)| format!("\n{:<10}{value}", format!("{name}:")));
        format!("{SHORT}{}", lines.collect::<String>())
    });
    &LONG
}

fn features() -> String {
    let all = [
        ("worker", !cfg!(feature = "full")),
        ("full", cfg!(feature = "full")),
        ("otlp", cfg!(feature = "otlp")),
        ("download-postgres", cfg!(feature = "download-postgres")),
    ];
    let on: Vec<_> = all.iter().filter(|(_, on)| *on).map(|(name, _)| *name).collect();
    on.join(" ")
}
