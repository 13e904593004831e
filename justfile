# What CI runs, and nothing else. `just check` at a desk is exactly CI.

export RUSTDOCFLAGS := "-D warnings"

# The recipes.
default:
    @just --list

# All of CI.
check: fmt lint docs alone sdk-check ops readme book peers-check compose dist-check test images

# The format is rustfmt's.
fmt:
    cargo fmt --all --check

# Clippy, with warnings denied.
lint:
    cargo clippy --workspace --all-features --all-targets --locked -- -D warnings

# The documentation builds without a warning.
docs:
    cargo doc --workspace --all-features --no-deps --locked --quiet

# Each crate alone, and the library with each feature alone: the workspace unifies features, so that a
# crate could lean on one that only its neighbour turns on.
alone:
    cargo check --quiet --locked -p cogo-bus --no-default-features
    cargo check --quiet --locked -p cogo-bus --no-default-features --features hub
    cargo check --quiet --locked -p cogo-bus --no-default-features --features gate
    cargo check --quiet --locked -p cogo-bus --no-default-features --features s3
    cargo check --quiet --locked -p cogo-bus --no-default-features --features embedded-postgres
    cargo check --quiet --locked -p cogo-bus --no-default-features --features download-postgres
    cargo check --quiet --locked -p cogo-bus --no-default-features --features test-util
    cargo check --quiet --locked -p cogo-worker-echo
    cargo check --quiet --locked -p cogo-worker-mcp-gateway
    cargo check --quiet --locked -p cogo-worker-mcp-gateway --no-default-features
    cargo check --quiet --locked -p cogo-worker-mcp-gateway --no-default-features --features pins
    cargo check --quiet --locked -p cogo-cli
    cargo check --quiet --locked -p cogo-cli --no-default-features --features full
    cargo check --quiet --locked -p cogo-cli --no-default-features --features worker
    cargo check --quiet --locked -p cogo-cli --no-default-features --features worker,otlp

# A role builds outside this repository, against the library as it would be published.
sdk-check:
    ./tests/sdk-check.sh

# What operators get, by parsers that others wrote: alerts, dashboard, manifests, workflows, dependencies. Needs
# tests/ops/install.sh; asks no network but the crates' registry.
ops:
    tests/ops/check.sh

# The README's test command. Every test, real servers included.
test:
    cargo test --locked --no-fail-fast

# What a message costs, in numbers that no machine changes, against tests/it/cost/budgets.json; what was counted is in
# target/cost. Part of the tests; here nothing may be left out. See docs/performance-guard.md.
cost:
    rm -rf target/cost
    COGO_COST_STRICT=1 COGO_COST_REPORT={{ justfile_directory() }}/target/cost cargo test --locked -p cogo-bus --test it cost::

# Sets these budgets anew, by what is counted now; then holds what was set.
cost-budgets:
    COGO_REGENERATE=1 COGO_COST_STRICT=1 cargo test --locked -p cogo-bus --test it cost::
    just cost

# The library's tests on Postgres 16, 17 and 18, or on those that are named; some minutes each. Installs them below
# target/postgres (x86_64 Linux, needs Node.js and npm).
postgres *versions:
    tests/postgres/install.sh
    tests/postgres/check.sh {{ versions }}

# The same tests with nextest, a process each.
nextest:
    cargo nextest run --workspace --all-features --locked

# More random schedules of the claim protocol than CI has time for.
schedules count="500":
    COGO_SCHEDULES={{ count }} cargo test --locked -p cogo-bus --test it claim_schedules -- --nocapture

# Faults on real processes, `runs` times: kill -9, SIGSTOP, cut and silent connections, full disks, wrong
# clocks, MCP servers that lie. The seeds follow `seed`; without one it is drawn and printed.
chaos runs="20" seed="":
    COGO_CHAOS_RUNS={{ runs }} COGO_CHAOS_SEED={{ seed }} cargo test --locked -p cogo-cli --test chaos series -- --nocapture

# Supabase's own clients against the hub, and a worker behind a NAT (needs root), alone.
field:
    cargo test --locked -p cogo-cli --test clients --test nat

# MCP clients that nobody here wrote, the conformance suite and a browser among them (needs root and chromium), alone.
strangers:
    cargo test --locked -p cogo-cli --test mesh

# The API beside its description: schemathesis, the routes, and the page in a browser (needs chromium), alone.
api:
    cargo test --locked -p cogo-cli --test api -- --nocapture

# Writes the table of routes in docs/api.md anew.
docs-api:
    COGO_REGENERATE=1 cargo test --locked -p cogo-cli --test api table

# The console in a real browser (needs chromium and Node.js 20), alone. Screenshots: target/console/screenshots.
console:
    cargo test --locked -p cogo-cli --test console

# A thousand idle workers and two hundred busy ones on one hub; minutes. The figures are for docs/remote-scale.md.
remote-scale:
    cargo test --release --locked -p cogo-cli --test scale -- --ignored --nocapture

# What a durable call over /mcp costs beside proxies that store nothing, in one run; some minutes. Needs Node.js 20 and
# npm, and installs what it compares with below target/bench-mcp. The figures are for docs/benchmarks-mcp.md.
bench-mcp:
    cargo bench --locked -p cogo-cli --bench mcp

# What the bus itself can do, on a Postgres that is started for it with its usual durability; half an hour. The report and
# its plots go below artifacts/bench. `just bench enqueue drain` for some of it; see docs/benchmarks.md.
bench *args="all":
    cargo build --release --locked -p cogo-cli
    target/release/cogo bench --local {{ args }}

# COGO beside other queues on Postgres: the same work, on one cluster, in one run; some minutes. Installs them below
# target/bench-peers. The figures are for docs/benchmarks-peers.md. `just bench-peers --quick --only cogo,floor` takes half a minute.
bench-peers *args:
    cargo run --quiet --release --locked --manifest-path benches/peers/Cargo.toml --target-dir target/bench-peers -- {{ args }}

# benches/peers without building it: format, lock files, the drivers' syntax, what its document names. Needs Node.js 20.
peers-check:
    tests/peers/check.sh

# Advisories, licences, bans and sources of the dependencies (needs cargo-deny, and a network that reaches its database).
deny:
    cargo deny --all-features check advisories bans licenses sources

# Everything that must work, tried for real, as CI's ci-gate.yml does; `just gate --stage ping` for one stage. See docs/gate.md.
gate *args="--start-servers":
    cargo gate:unified {{ args }}

# The book into target/book, and its dead links. Needs tests/docs/install.sh; asks no network.
book:
    tests/docs/check.sh

# Writes docs/reference anew, from the code and from a migrated database.
reference:
    COGO_REGENERATE=1 cargo test --quiet --locked -p cogo-cli --bin cogo reference

# README.md and README.ko.md beside each other, and what pages quote of files beside those files.
readme:
    python3 tests/readme/check.py

# The images and the MCP servers that are shipped beside them, as far as they can be held to what docs/images.md says without
# an engine. Needs tests/images/install.sh, a built `cogo`, chromium, and root or sudo.
images:
    tests/images/check.sh

# Both compose files, by Docker Compose's own parser and by what docs/compose.md promises. Needs tests/compose/install.sh; no engine.
compose:
    tests/compose/check.sh

# The release before and this one on one database, both ways. Builds the one before from the history, once.
upgrade:
    cargo test --locked -p cogo-cli --test upgrade

# Everything compiles with the oldest Rust that Cargo.toml promises (needs rustup).
msrv:
    tests/msrv.sh

# Coverage into target/coverage (needs cargo-llvm-cov, cargo-nextest, rustup's llvm-tools); minutes.
coverage *args:
    tests/coverage.sh {{ args }}

# What is shipped: the commit in it, the small worker at a real hub, archives, installers and the formula. Needs
# tests/dist/install.sh.
dist-check:
    tests/dist/check.sh
