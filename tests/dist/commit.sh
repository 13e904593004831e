# shellcheck shell=bash disable=SC2154 # read by check.sh, which sets root, here and work
# What cli/build.rs tells of the commit: it is compiled alone and run as cargo would, in repositories made for it.
# Part of check.sh.

rustc --edition 2024 -o "$work/build" "$root/cli/build.rs"
repo=$work/repo
mkdir -p "$repo/cli/src" "$repo/src"
cp "$root/cli/build.rs" "$repo/cli/"
run_build() {
    (cd "$repo/cli" && env CARGO_MANIFEST_DIR="$repo/cli" CARGO_PKG_VERSION=0.1.0 TARGET=here \
        OUT_DIR="$work/target/x/dist/build/cogo-1/out" "$@" "$work/build")
}
git_there() {
    git -C "$repo" -c user.name=me -c user.email=me@example.com -c commit.gpgsign=false "$@" >/dev/null
}

must "without git the program knows no commit" 0 "COGO_BUILD_VERSION=0.1.0" "COGO_BUILD_PROFILE=dist" -- \
    run_build env GIT_CEILING_DIRECTORIES="$work" PATH="$PATH"
grep -q COGO_BUILD_COMMIT "$work/said" && not_ok "and says none" "$work/said"

git_there init -q -b main
git_there add cli/build.rs
git_there commit -m one
head=$(git -C "$repo" rev-parse HEAD)
day=$(git -C "$repo" log -1 --format=%cs)
must "the commit comes from git" 0 "COGO_BUILD_COMMIT=$head" "COGO_BUILD_VERSION=0.1.0 (${head:0:7} $day)" \
    "logs/HEAD" -- run_build env
grep -q dirty "$work/said" && not_ok "and is not dirty" "$work/said"
echo 'fn main() {}' >"$repo/src/x.rs"
must "a source beside it makes it dirty" 0 "COGO_BUILD_COMMIT=$head-dirty" "(${head:0:7}-dirty $day)" -- run_build env
rm "$repo/src/x.rs"
mkdir "$repo/docs"
echo >"$repo/docs/x.md"
must "a page of docs does not" 0 "COGO_BUILD_VERSION=0.1.0 (${head:0:7} $day)" -- run_build env
git_there rm -q --cached cli/build.rs
git_there commit -m two --allow-empty
must "somebody else's repository says nothing" 0 "COGO_BUILD_VERSION=0.1.0" -- run_build env
grep -q COGO_BUILD_COMMIT "$work/said" && not_ok "of us" "$work/said"

told=0123456789abcdef0123456789abcdef01234567
must "COGO_COMMIT tells it where git does not" 0 "COGO_BUILD_COMMIT=$told" "0.1.0 (0123456 2026-11-22)" -- \
    run_build env COGO_COMMIT=$told COGO_COMMIT_DATE=2026-11-22
must "an empty COGO_COMMIT is none" 0 "COGO_BUILD_VERSION=0.1.0" -- run_build env COGO_COMMIT=
must "a COGO_COMMIT that is none stops the build" 1 'COGO_COMMIT: "main" is no commit' "git rev-parse HEAD" -- \
    run_build env COGO_COMMIT=main
must "and so does a COGO_COMMIT_DATE" 1 "COGO_COMMIT_DATE:" "2026-11-22" -- \
    run_build env COGO_COMMIT=$told COGO_COMMIT_DATE=today
