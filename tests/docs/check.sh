#!/bin/sh
# Builds the book into target/book, and looks for pages that are not in it, and for dead links and anchors: in the
# repository's Markdown as GitHub shows it, and in the book's HTML. Asks no network. tests/docs/install.sh installs what
# it takes.
set -eu
cd "$(dirname "$0")/../.."
target=${CARGO_TARGET_DIR:-target}
tools=$target/docs-tools
mdbook=$tools/mdbook/bin/mdbook
modules=$tools/node/node_modules
if [ ! -x "$mdbook" ] || [ ! -x "$modules/.bin/remark" ]; then
    echo "docs: run tests/docs/install.sh first" >&2
    exit 1
fi
case $modules in /*) ;; *) modules=$PWD/$modules ;; esac
failed=0

for page in $(cd docs && find . -name '*.md' ! -name SUMMARY.md | sort); do
    if ! grep -qF "(${page#./})" docs/SUMMARY.md; then
        echo "docs/${page#./}: is not in docs/SUMMARY.md" >&2
        failed=1
    fi
done

# Those that are not committed yet too, and none that is ignored.
log=$(mktemp)
trap 'rm -f "$log"' EXIT
git ls-files -z --cached --others --exclude-standard '*.md' >"$log"
[ -s "$log" ] || { echo "docs: git lists no page" >&2; exit 1; }
xargs -0 <"$log" "$modules/.bin/remark" --no-color --no-config --no-ignore --frail --quiet --no-stdout \
        --use "$modules/remark-validate-links/index.js=repository:false" || failed=1

rm -rf "$target/book"
if ! "$mdbook" build docs --dest-dir "$(cd "$target" && pwd)/book" 2>"$log" || grep -qE '^ *(WARN|ERROR)' "$log"; then
    cat "$log" >&2
    exit 1
fi
# It tells of a dead anchor of another page only where no page has it: the book's print page holds them all.
"$modules/.bin/linkinator" "$target/book" --recurse --check-fragments --skip '^https?://(?!localhost)' \
    --verbosity error >"$log" 2>&1 || {
    cat "$log" >&2
    failed=1
}
exit "$failed"
