//! Tells the program of which commit it is, for which target and in which profile.
//!
//! The commit comes from `COGO_COMMIT` (with `COGO_COMMIT_DATE`, as 2026-11-22) where that is set: an image or a
//! tarball has no history. Else from git, with `-dirty` when what the program is built of differs from it. Without
//! either, the program says none. It runs again at a new commit, and when what would be linked anew anyway changes.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// What the program is built of, from the repository's root.
const SOURCES: [&str; 10] = [
    "rust-toolchain.toml",
    "cli/build.rs",
    "Cargo.toml",
    "Cargo.lock",
    "src",
    "cli/src",
    "cli/Cargo.toml",
    "workers",
    "migrations",
    "configs/route_policies.json", // alone: the rest may be edited by whoever runs the program
];

fn main() {
    let root = manifest_dir().join("..");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=COGO_COMMIT");
    println!("cargo::rerun-if-env-changed=COGO_COMMIT_DATE");
    let (commit, date) = match variable("COGO_COMMIT") {
        Some(commit) => (Some(checked(commit)), variable("COGO_COMMIT_DATE").map(checked_date)),
        None => from_git(&root).map_or((None, None), |(commit, date)| (Some(commit), Some(date))),
    };
    let version = variable("CARGO_PKG_VERSION").unwrap_or_default();
    let short = commit.as_deref().map(|commit| {
        let (hash, dirty) = commit.split_once('-').unwrap_or((commit, ""));
        let hash = &hash[..7];
        if dirty.is_empty() { hash.to_owned() } else { format!("{hash}-{dirty}") }
    });
    let build: Vec<_> = [short, date].into_iter().flatten().collect();
    let version = match build.is_empty() {
        true => version,
        false => format!("{version} ({})", build.join(" ")),
    };
    println!("cargo::rustc-env=COGO_BUILD_VERSION={version}");
    if let Some(commit) = commit {
        println!("cargo::rustc-env=COGO_BUILD_COMMIT={commit}");
    }
    println!("cargo::rustc-env=COGO_BUILD_TARGET={}", variable("TARGET").unwrap_or_default());
    println!("cargo::rustc-env=COGO_BUILD_PROFILE={}", profile());
}

/// A variable; an empty one is none, so that an image's build argument may be left out.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}

fn manifest_dir() -> PathBuf {
    env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR").into()
}

fn checked(commit: String) -> String {
    let hash = commit.strip_suffix("-dirty").unwrap_or(&commit);
    let is_hash = (7..=64).contains(&hash.len())
        && hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if !is_hash {
        fail(&format!(
            "COGO_COMMIT: {commit:?} is no commit; give `git rev-parse HEAD`, or leave it unset"
        ));
    }
    commit
}

fn checked_date(date: String) -> String {
    let is_date = date.len() == 10
        && date.bytes().enumerate().all(|(at, byte)| match at {
            4 | 7 => byte == b'-',
            _ => byte.is_ascii_digit(),
        });
    if !is_date {
        fail(&format!("COGO_COMMIT_DATE: {date:?} is no day as 2026-11-22; leave it unset"));
    }
    date
}

fn fail(text: &str) -> ! {
    println!("cargo::error={text}");
    std::process::exit(1)
}

/// The commit and its day. None without git, and in a tarball that was unpacked in somebody else's repository.
fn from_git(root: &Path) -> Option<(String, String)> {
    watch(root);
    git(root, &["ls-files", "--error-unmatch", "cli/build.rs"])?;
    let told = git(root, &["log", "-1", "--no-show-signature", "--format=%H %cs"])?;
    let (commit, date) = told.split_once(' ')?;
    let mut changed = vec!["status", "--porcelain", "--"];
    changed.extend(SOURCES);
    let dirty = git(root, &changed)?;
    let mark = if dirty.is_empty() { "" } else { "-dirty" };
    Some((format!("{commit}{mark}"), date.to_owned()))
}

/// Has cargo run this again when the commit is another one, or the sources are changed.
fn watch(root: &Path) {
    for source in SOURCES {
        again_after(&root.join(source));
    }
    // The log of HEAD grows at every commit, checkout and reset; where none is kept, what HEAD stands for changes.
    let branch = git(root, &["symbolic-ref", "-q", "HEAD"]);
    let places = [Some("logs/HEAD"), Some("HEAD"), branch.as_deref(), Some("packed-refs")];
    for place in places.into_iter().flatten() {
        if let Some(path) = git(root, &["rev-parse", "--git-path", place]) {
            again_after(&root.join(path));
        }
    }
}

/// A path that is not there would make cargo run this every time.
fn again_after(path: &Path) {
    if fs::exists(path).unwrap_or(false) {
        println!("cargo::rerun-if-changed={}", path.display());
    }
}

fn git(root: &Path, args: &[&str]) -> Option<String> {
    // Without locks: a build must not get into the way of a commit.
    let done = Command::new("git").arg("--no-optional-locks").args(args).current_dir(root).output();
    let done = done.ok().filter(|done| done.status.success())?;
    Some(String::from_utf8(done.stdout).ok()?.trim().to_owned())
}

/// The profile by its own name, which cargo tells only by where it puts things: PROFILE is that which it inherits.
fn profile() -> String {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let name = out.ancestors().nth(3).and_then(Path::file_name).and_then(|name| name.to_str());
    name.map(str::to_owned).or_else(|| variable("PROFILE")).unwrap_or_default()
}
