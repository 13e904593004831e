use std::collections::HashMap;
use std::path::Path;
use std::process::Command;

use crate::support::Cogo;

fn long() -> (String, HashMap<String, String>) {
    let told = Cogo::new().ok(&["--version"]).stdout;
    let (first, rest) = told.split_once('\n').expect("several lines");
    let parts = rest.lines().map(|line| line.split_once(':').expect("name and value"));
    let parts = parts.map(|(name, value)| (name.to_owned(), value.trim().to_owned()));
    (first.to_owned(), parts.collect())
}

fn git(args: &[&str]) -> Option<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let done = Command::new("git").args(args).current_dir(root).output().ok()?;
    done.status.success().then(|| String::from_utf8_lossy(&done.stdout).trim().to_owned())
}

#[test]
fn the_version_is_one_line_or_begins_with_it() {
    let short = Cogo::new().ok(&["-V"]).stdout;
    let (first, _) = long();
    assert_eq!(short, format!("{first}\n"));
    assert!(short.starts_with(concat!("cogo ", env!("CARGO_PKG_VERSION"))), "{short}");
}

#[test]
fn the_version_tells_the_commit() {
    let (first, told) = long();
    let commit = &told["commit"];
    // As the build was told: a tarball has no history.
    let wanted = option_env!("COGO_COMMIT").filter(|commit| !commit.is_empty());
    let head = wanted.map(str::to_owned).or_else(|| git(&["rev-parse", "HEAD"]));
    let Some(head) = head else {
        assert_eq!(commit, "unknown");
        return;
    };
    let clean = commit.strip_suffix("-dirty").unwrap_or(commit);
    assert_eq!(clean, head.strip_suffix("-dirty").unwrap_or(&head));
    assert!(first.contains(&format!("({}", &head[..7])), "{first}");
    assert_eq!(first.contains("-dirty"), commit.ends_with("-dirty"), "{first}: {commit}");
}

#[test]
fn the_version_tells_what_was_built_and_what_it_speaks() {
    let (_, told) = long();
    assert!(told["target"].contains(std::env::consts::ARCH), "{told:?}");
    assert!(["debug", "release", "dist"].contains(&told["profile"].as_str()), "{told:?}");
    let mcp: Vec<_> = told["mcp"].split(' ').collect();
    assert!(mcp.contains(&"2025-11-25") && mcp.is_sorted(), "{mcp:?}");
    assert_eq!(told["realtime"], "1.0.0 2.0.0");
    assert_eq!(told["gate"], "cogo.gate/1");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations");
    let files = folder.read_dir().expect("migrations");
    let names = files.map(|file| file.expect("a file").file_name().into_string().expect("UTF-8"));
    let newest = names.filter(|name| name.ends_with(".sql")).max().expect("some");
    assert!(newest.starts_with(&format!("{}_", told["schema"])), "{newest}: {told:?}");
}
