//! The direction of dependencies inside `src/`. The table below is the architecture.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

/// Top to bottom. A module imports only from rows below its own, never from its own row.
const ROWS: &[&[&str]] = &[
    &["config", "testing"],
    &["hub"],
    &["workflow"],
    &["worker", "gate", "remote_env"],
    &["bus", "options"],
    &["artifact", "realtime"],
    &["event", "identity", "net", "retry", "breaker", "shutdown", "db"],
    &["clock", "error", "live", "message", "metrics", "policy", "secret", "trace"],
];

fn row_of(module: &str) -> Option<usize> {
    ROWS.iter().position(|row| row.contains(&module))
}

/// What is wrong with the imports in `source`, a file of `module`.
fn violations(module: &str, path: &Path, source: &str) -> Vec<String> {
    let mut found = Vec::new();
    let Some(own) = row_of(module) else {
        return vec![format!("{}: `{module}` has no row in tests/it/layers.rs", path.display())];
    };
    for (number, line) in (1..).zip(source.lines()) {
        let code = line.split("//").next().unwrap_or_default();
        let mut report = |what: String| found.push(format!("{}:{number}: {what}", path.display()));
        for (at, _) in code.match_indices("crate::") {
            let rest = &code[at + "crate::".len()..];
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            let target = &rest[..end];
            if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') || target == module {
                continue;
            }
            match row_of(target) {
                _ if target.is_empty() => {
                    report("a group or glob of `crate::` hides the module; name it".to_owned())
                }
                None => report(format!("`crate::{target}` has no row in tests/it/layers.rs")),
                Some(row) if row < own => {
                    report(format!("`{module}` imports `crate::{target}` from above it"));
                }
                Some(row) if row == own => {
                    report(format!("`{module}` imports `crate::{target}` from its own row"));
                }
                Some(_) => {}
            }
        }
    }
    found
}

/// Every file below `src/` but `lib.rs`, with the module that it belongs to.
fn sources() -> Result<BTreeMap<PathBuf, String>> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = BTreeMap::new();
    let mut left = vec![src.clone()];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            let inside = path.strip_prefix(&src)?.with_extension("");
            if path.is_dir() {
                left.push(path);
            } else if path.extension().is_some_and(|end| end == "rs")
                && inside != Path::new("lib")
                && let Some(module) = inside.iter().next()
            {
                let module = module.to_string_lossy().into_owned();
                found.insert(path, module);
            }
        }
    }
    Ok(found)
}

#[test]
fn modules_import_only_from_the_rows_below_them() -> Result<()> {
    let mut found = Vec::new();
    for (path, module) in sources()? {
        found.extend(violations(&module, &path, &fs::read_to_string(&path)?));
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
    Ok(())
}

#[test]
fn a_planted_violation_is_caught() {
    let of = |module, source| violations(module, Path::new("planted.rs"), source);
    for (module, source, what) in [
        ("bus", "use crate::hub::Hub;", "from above"),
        ("event", "fn f() -> crate::retry::Policy {", "from its own row"),
        ("bus", "use crate::{hub, retry};", "hides the module"),
        ("bus", "use crate::*;", "hides the module"),
        ("bus", "use crate::novel::Thing;", "no row"),
        ("novel", "", "no row"),
    ] {
        let found = of(module, source);
        assert!(found.len() == 1 && found[0].contains(what), "{source}: {found:?}");
    }
    assert_eq!(of("bus", "use crate::message::Message; // not crate::hub"), Vec::<String>::new());
    assert_eq!(of("bus", "use crate::bus::claim::Claim;"), Vec::<String>::new());
    assert_eq!(of("bus", "use some_crate::hub::Hub;"), Vec::<String>::new());
}
