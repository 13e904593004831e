//! The environment variables that the program reads: those of flags from clap, the others from a table that the sources
//! are held to.

use std::collections::{BTreeMap, BTreeSet};

use clap::{Arg, Command};

use super::sources::rust_files;
use super::{prose, sentence, table};

/// What no flag sets. A name with `[…]` stands for several.
const OTHERS: &[(&str, &str)] = &[
    ("ALL_PROXY", "The proxy for whatever has none of its own below, also in lower case."),
    (
        "COGO_ADMIN_TOKEN",
        "The hub's admin token; without it, that of the file `admin-token` in the data directory.",
    ),
    ("COGO_E2E_DATABASE_URL", "`cogo gate e2e`: the database to try."),
    ("COGO_E2E_KEY", "`cogo gate e2e`: the key that goes with `COGO_E2E_URL`."),
    ("COGO_E2E_URL", "`cogo gate e2e`: the hub or the Supabase project to try."),
    ("COGO_ENV_KEY", "The key that opens RemoteEnv's secrets: see [RemoteEnv](../remote-env.md)."),
    ("COGO_HUB_[FIELD]", "A field of `hub.json`: see [Configuration](configuration.md#hubjson)."),
    (
        "COGO_JWT_SECRET",
        "The secrets of tokens, with commas between them: the first signs, all verify. Without it, those of the file `jwt-secret` in the data directory.",
    ),
    (
        "COGO_PG_BIN",
        "The directory of the Postgres programs that `cogo up` runs; it must be an absolute path.",
    ),
    ("COGO_S3_ACCESS_KEY_ID", "Who reads and writes artifacts where they lie in a bucket."),
    ("COGO_S3_SECRET_ACCESS_KEY", "The key that goes with it."),
    (
        "COGO_WORKER_[FIELD]",
        "A field of `worker.json`: see [Configuration](configuration.md#workerjson).",
    ),
    ("COMPUTERNAME", "The machine's name on Windows."),
    ("HOME", "Below it lies the data directory of whoever is not root."),
    ("HOMEDRIVE", "With `HOMEPATH`, what `HOME` is on Windows."),
    ("HOMEPATH", "See `HOMEDRIVE`."),
    ("HOSTNAME", "The machine's name, as workers show it; without it, that of `/etc/hostname`."),
    ("HTTPS_PROXY", "The proxy for `https://` and `wss://`, also in lower case."),
    ("HTTP_PROXY", "The proxy for `http://` and `ws://`, also in lower case."),
    ("LOCALAPPDATA", "Below it lies the data directory on Windows."),
    ("NO_COLOR", "Set to anything: no colours."),
    ("NO_PROXY", "Hosts that are reached without a proxy, with commas between them."),
    ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "How many spans go at once. Default: 512."),
    ("OTEL_BSP_MAX_QUEUE_SIZE", "How many spans wait. Default: 2048."),
    ("OTEL_BSP_SCHEDULE_DELAY", "The longest wait for more spans, in milliseconds. Default: 5000."),
    ("OTEL_EXPORTER_OTLP_[CERTIFICATE]", "A PEM file with roots beside the system's."),
    ("OTEL_EXPORTER_OTLP_[COMPRESSION]", "`none`; anything else is refused."),
    ("OTEL_EXPORTER_OTLP_[HEADERS]", "`name=value,…`, such as a key."),
    ("OTEL_EXPORTER_OTLP_[PROTOCOL]", "`http/protobuf`; anything else is refused."),
    (
        "OTEL_EXPORTER_OTLP_[TIMEOUT]",
        "How long one export may take, in milliseconds. Default: 10000.",
    ),
    (
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "Where spans are posted, with `/v1/traces` behind it. Without it, and the next, nothing is traced.",
    ),
    (
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        "The same, as it is. The five above also have a form with `_TRACES`, which goes before.",
    ),
    ("OTEL_RESOURCE_ATTRIBUTES", "`key=value,…`, kept with every span."),
    ("OTEL_SDK_DISABLED", "`true` switches traces off."),
    ("OTEL_SERVICE_NAME", "`service.name` of the spans. Default: `cogo`."),
    ("OTEL_TRACES_EXPORTER", "`otlp` or `none`. Default: `otlp`."),
    ("OTEL_TRACES_SAMPLER", "Which traces are recorded. Default: `parentbased_always_on`."),
    ("OTEL_TRACES_SAMPLER_ARG", "The share of traces, for samplers that take one."),
    ("PATH", "Where Postgres programs and roles of others are looked for."),
    (
        "REQUIRE_ADMIN_FOR_NON_GET",
        "`require_admin_for_non_get` of `hub.json`, under the name that operators know.",
    ),
    ("TERM", "`dumb`: no colours, no progress."),
    (
        "XDG_DATA_HOME",
        "Below it lies the data directory, on systems that are neither macOS nor Windows.",
    ),
];

/// Text in the sources that looks like the name of a variable, and is none that the program heeds.
const NONE: &[&str] = &[
    "COGO_",     // what all begin with
    "COGO_BIND", // of the compose files
    "COGO_BUILD_COMMIT",
    "COGO_BUILD_PROFILE",
    "COGO_BUILD_TARGET",
    "COGO_BUILD_VERSION", // of the build
    "COGO_HUB_OPEN_READS",
    "COGO_TEST_DATABASE_URL", // of tests
    "OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_CLIENT_KEY", // refused
    "PGPASSWORD",
    "SUPABASE_DB_URL",
    "SUPABASE_JWT_SECRET",
    "SUPABASE_SERVICE_ROLE_KEY", // refused as secrets of RemoteEnv
];

/// The section of the page: `root` is the built command.
pub(super) fn section(root: &Command) -> String {
    let of_flags = of_flags(root);
    held_to_sources(&of_flags);
    let mut rows: BTreeMap<String, String> = of_flags
        .into_iter()
        .map(|(name, (flag, help))| (name, format!("`{flag}`: {}", sentence(&prose(&help)))))
        .collect();
    rows.extend(OTHERS.iter().map(|(name, what)| (plain(name), (*what).to_owned())));
    let rows = rows.into_iter().map(|(name, what)| [format!("`{name}`"), what]);
    let head = "What a flag sets too is overridden by the flag. An empty variable is one that is not set, where \
        nothing else is said. Toolsets may refer to variables of any name: `from_env` in \
        [mcp.json](configuration.md#mcpjson).";
    format!("## Environment variables\n\n{head}\n\n{}", table(["variable", "what it does"], rows))
}

fn plain(name: &str) -> String {
    name.replace("[FIELD]", "<FIELD>").replace(['[', ']'], "")
}

/// The variables that flags read: the first flag of each, and its help.
fn of_flags(command: &Command) -> BTreeMap<String, (String, String)> {
    let mut found: BTreeMap<_, _> = command.get_subcommands().flat_map(of_flags).collect();
    found.extend(command.get_arguments().filter_map(|arg: &Arg| {
        let variable = arg.get_env()?.to_string_lossy().into_owned();
        let help = arg.get_long_help().or_else(|| arg.get_help()).map(ToString::to_string);
        Some((variable, (format!("--{}", arg.get_long()?), help.unwrap_or_default())))
    }));
    found
}

/// Each name in the sources is on the page or known to be none, and each of the table is in the sources.
fn held_to_sources(of_flags: &BTreeMap<String, (String, String)>) {
    const BEGINNINGS: [&str; 6] = ["COGO_", "OTEL_", "SUPABASE_", "PGPASS", "REQUIRE_", "XDG_"];
    let mut literals = BTreeSet::new();
    for (_, text) in rust_files() {
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        let pieces = code.flat_map(|line| {
            line.split('"').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>()
        });
        literals.extend(pieces.filter(|piece| {
            !piece.is_empty()
                && piece.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
        }));
    }
    let listed: BTreeSet<_> = OTHERS.iter().map(|(name, _)| *name).collect();
    for name in literals
        .iter()
        .filter(|name| BEGINNINGS.iter().any(|beginning| name.starts_with(beginning)))
    {
        let field = name.ends_with('_') && listed.contains(format!("{name}[FIELD]").as_str());
        assert!(
            field
                || listed.contains(name.as_str())
                || of_flags.contains_key(name)
                || NONE.contains(&name.as_str()),
            "{name} is read by the program, and not in cli/src/reference/environment.rs"
        );
    }
    for name in &listed {
        let read = name.split('[').next().filter(|_| name.ends_with("[FIELD]")).unwrap_or(name);
        let read = read.rsplit('[').next().unwrap_or(read).trim_end_matches(']');
        // The proxies' names are known to the HTTP client.
        let is_read = literals.contains(read) || ["ALL_PROXY", "NO_PROXY"].contains(name);
        assert!(is_read, "{name} is in cli/src/reference/environment.rs, and nothing reads it");
    }
}
