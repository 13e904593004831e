#!/bin/sh
# Runs the tests of the library, the roles and the binary with coverage, into target/coverage: `lcov.info`, and `total.md`,
# a table by file that ends with the total. Needs cargo-llvm-cov, cargo-nextest, rustup's llvm-tools, and what the tests need.
# What is given says of what, such as `-p cogo-worker-echo`.
#
# Left out: tests that mostly run programs of others, which would take as long again and add little. A process that a test
# kills writes nothing down, so what only such a process did counts as not run.
set -eu
cd "$(dirname "$0")/.."
out=${CARGO_TARGET_DIR:-target}/coverage
[ "$#" -gt 0 ] || set -- --workspace --lib --bins --test it
mkdir -p "$out"
cargo llvm-cov nextest --locked --all-features --no-report "$@"
cargo llvm-cov report --lcov --output-path "$out/lcov.info"
cargo llvm-cov report --summary-only >"$out/summary.txt"
{
    printf '## Coverage\n\n'
    # FUNCTIONS and LINES of the last row.
    awk '$1 == "TOTAL" { printf "Lines **%s**, functions **%s**, regions **%s**.\n", $10, $7, $4 }' "$out/summary.txt"
    printf '\n<details><summary>By file</summary>\n\n```text\n'
    cat "$out/summary.txt"
    printf '```\n</details>\n'
} >"$out/total.md"
grep -q 'Lines \*\*' "$out/total.md"
awk '$1 == "TOTAL"' "$out/summary.txt"
