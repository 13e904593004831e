//! `@modelcontextprotocol/conformance` against the hub, every server scenario in both revisions.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Output;
use std::sync::PoisonError;
use std::thread;

use serde_json::{Value, json};

use crate::client::listed;
use crate::expected::{self, Case, End};
use crate::fixture::Fixture;
use crate::hub::{BUSY, Hub, busy};
use crate::install::script;
use crate::proxy::Proxy;
use crate::support::temp_dir;

/// The revisions that the hub speaks.
const REVISIONS: [&str; 2] = ["2025-11-25", "2026-07-28"];
/// Where the suite lists a scenario of an extension; these run in the newest revision.
const EXTENSION: &str = "extension";
/// What follows a scenario's name in the name of its directory of results.
const STAMP: usize = "-2026-07-28T00-00-00-000Z".len();

#[test]
fn the_conformance_suite_says_what_the_documentation_says() {
    let busy = busy();
    let proxy = Proxy::bind();
    let hub = Hub::start(&json!({"allowed_origins": [proxy.origin]}), &json!({}));
    let key = hub.client_key();
    proxy.forward(&hub.url, &key);
    let fixture = Fixture::start();
    let _worker = hub.join_with_fixture("machine", &fixture);
    listed(&hub, "fixture__greet");

    let cases = cases();
    let fixture = format!("{}/mcp/toolsets/fixture", proxy.origin);
    let root = format!("{}/mcp", proxy.origin);
    let (told, of_root) = (expected::read("## With"), expected::read("## At"));
    let in_root = |revision: &str| {
        let cases = of_root.keys().filter(|(_, of)| of == revision);
        cases.map(|(scenario, _)| scenario.clone()).collect::<Vec<_>>()
    };
    let extensions: Vec<_> = cases
        .iter()
        .filter(|(_, of)| of == EXTENSION)
        .map(|(scenario, _)| scenario.clone())
        .collect();
    let (mut found, mut found_in_root) = (BTreeMap::new(), BTreeMap::new());
    thread::scope(|scope| {
        let suites = REVISIONS.map(|revision| {
            let url = &fixture;
            scope.spawn(move || suite(url, revision))
        });
        let alone = scope.spawn(|| scenarios(&fixture, EXTENSION, &extensions));
        let roots = scope.spawn(|| {
            REVISIONS
                .into_iter()
                .flat_map(|revision| scenarios(&root, revision, &in_root(revision)))
                .collect::<Vec<_>>()
        });
        for suite in suites {
            found.extend(suite.join().expect("a suite"));
        }
        found.extend(alone.join().expect("the extensions"));
        found_in_root.extend(roots.join().expect("the scenarios at /mcp"));
    });

    drop(busy);
    // It gives a call half a second, whatever else the machine does; so now nothing else of ours runs.
    let _quiet = BUSY.write().unwrap_or_else(PoisonError::into_inner);
    found.extend(scenarios(&fixture, "2026-07-28", &["server-stateless".to_owned()]));

    let missing: Vec<_> = cases.iter().filter(|case| !found.contains_key(*case)).collect();
    assert!(missing.is_empty(), "the suite did not run {missing:?}");
    let mut wrong = compare(&told, &found);
    wrong.extend(compare(&of_root, &found_in_root));
    assert!(
        wrong.is_empty(),
        "{} scenarios end otherwise than docs/conformance.md says:\n{}\n{}",
        wrong.len(),
        wrong.join("\n"),
        hub.log()
    );
}

/// A scenario's end, and what was wrong.
type Found = (Case, (End, String));

fn compare(told: &BTreeMap<Case, End>, found: &BTreeMap<Case, (End, String)>) -> Vec<String> {
    let mut wrong = Vec::new();
    for ((scenario, revision), (end, why)) in found {
        match told.get(&(scenario.clone(), revision.clone())) {
            Some(told) if told == end => {}
            Some(told) => {
                wrong.push(format!("{scenario} ({revision}): told {told}, found {end}{why}"))
            }
            None => wrong.push(format!("{scenario} ({revision}): not told, found {end}{why}")),
        }
    }
    let gone = told.keys().filter(|case| !found.contains_key(*case));
    wrong.extend(
        gone.map(|(scenario, revision)| format!("{scenario} ({revision}): told, and not found")),
    );
    wrong
}

/// What the suite has for servers, by its own list: `  - name [revision,revision]`.
fn cases() -> Vec<Case> {
    let listed = conformance(&["list", "--server"]);
    let text = String::from_utf8_lossy(&listed.stdout);
    let mut cases = Vec::new();
    for line in text.lines().filter_map(|line| line.trim().strip_prefix("- ")) {
        let (name, of) = line.split_once(" [").expect("a scenario and its revisions");
        let of: Vec<_> = of.trim_end_matches(']').split(',').collect();
        let ours =
            REVISIONS.into_iter().chain([EXTENSION]).filter(|revision| of.contains(revision));
        cases.extend(ours.map(|revision| (name.to_owned(), revision.to_owned())));
    }
    assert!(cases.len() > 60, "the suite's list: {text}");
    cases
}

/// Runs all scenarios of a revision, in one process.
fn suite(url: &str, revision: &str) -> Vec<Found> {
    let dir = temp_dir();
    let out = dir.path().display().to_string();
    let args = ["server", "--url", url, "--suite", "all", "--spec-version", revision, "-o", &out];
    let said = conformance(&args);
    let found = results(dir.path(), revision);
    assert!(!found.is_empty(), "{revision}: {said:?}");
    found
}

/// Runs some scenarios of a revision, or of extensions, each in a process of its own.
fn scenarios(url: &str, revision: &str, names: &[String]) -> Vec<Found> {
    let mut found = Vec::new();
    for name in names {
        let dir = temp_dir();
        let out = dir.path().display().to_string();
        let mut args = vec!["server", "--url", url, "--scenario", name, "-o", &out];
        if revision != EXTENSION {
            args.extend(["--spec-version", revision]);
        }
        let said = conformance(&args);
        let one = results(dir.path(), revision);
        assert_eq!(one.len(), 1, "{name} ({revision}): {said:?}");
        found.extend(one);
    }
    found
}

fn conformance(args: &[&str]) -> Output {
    let mut command = script("conformance", "@modelcontextprotocol/conformance/dist/index.js");
    command.args(args).output().expect("node runs")
}

/// Reads `server-<scenario>-<time>/checks.json` of each scenario.
fn results(dir: &Path, revision: &str) -> Vec<Found> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let entry = entry.expect("an entry");
        let name = entry.file_name().into_string().expect("text");
        let Ok(text) = std::fs::read_to_string(entry.path().join("checks.json")) else { continue };
        let checks: Vec<Value> = serde_json::from_str(&text).expect("checks");
        let name = name.strip_prefix("server-").expect("server-<scenario>");
        let name = name[..name.len() - STAMP].to_owned();
        found.push(((name, revision.to_owned()), end(&checks)));
    }
    found
}

fn end(checks: &[Value]) -> (End, String) {
    let with =
        |status: &str| checks.iter().filter(|check| check["status"] == status).collect::<Vec<_>>();
    let (failed, warned) = (with("FAILURE"), with("WARNING"));
    let tested = checks
        .iter()
        .any(|check| check["id"] != "wire-schema-valid" && check["status"] == "SUCCESS");
    let end = match () {
        () if !failed.is_empty() => End::Fails,
        () if !warned.is_empty() => End::Warns,
        () if !tested && !with("SKIPPED").is_empty() => End::Skipped,
        () => End::Pass,
    };
    let why = failed.iter().chain(&warned).map(|check| {
        let text = check["errorMessage"].as_str().unwrap_or_default();
        let text: String = text.chars().take(300).collect();
        format!("\n    {} {}: {text}", check["status"].as_str().unwrap_or_default(), check["id"])
    });
    (end, why.collect())
}
