//! schemathesis, which makes thousands of requests of the description, good and bad, and holds every answer to it.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cogo::clock::Stopwatch;

use crate::hub::Hub;
use crate::install::{plain, target};

/// How long it may take. A run of these settings takes half a minute on two cores that have nothing else to do.
const WITHIN_S: u64 = 600;
/// All that it knows of but `object_level_authorization`, which wants two users who own things: the API has one.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                      response_headers_conformance,response_schema_conformance,negative_data_rejection,\
                      positive_data_acceptance,missing_required_header,unsupported_method,allow_header_conformance,\
                      use_after_free,ensure_resource_availability,ignored_auth";

/// What is left out of these checks stands in `tests/api/schemathesis.toml` and `hooks.py`, each with its reason.
#[test]
fn schemathesis_finds_no_answer_that_is_not_as_described() {
    let hub = Hub::start();
    hub.seed();
    let began = Stopwatch::start();
    // Where it runs lie its hooks, and what it writes.
    let scratch = tempfile::tempdir().expect("a directory");
    std::fs::copy(pins().join("hooks.py"), scratch.path().join("hooks.py")).expect("the hooks");
    let mut command = Command::new(installed().join("bin/schemathesis"));
    command
        .arg("--config-file")
        .arg(pins().join("schemathesis.toml"))
        .args(["run", &format!("{}/api/openapi.json", hub.url), "--checks", CHECKS])
        .args(["--phases", "examples,coverage,fuzzing,stateful"])
        .current_dir(scratch.path())
        .envs([("COGO_ADMIN_TOKEN", hub.token.as_str()), ("NO_COLOR", "1")])
        .stdin(Stdio::null());
    plain(&mut command);
    let done = command.output().expect("schemathesis starts");
    let said = String::from_utf8_lossy(&done.stdout);
    let errors = String::from_utf8_lossy(&done.stderr);
    let summary = said.find("= SUMMARY =").map_or(&*said, |at| &said[at..]);
    let took = began.elapsed().as_secs();
    let mut stderr = std::io::stderr();
    let _nobody_listens = writeln!(stderr, "schemathesis, {took} s:\n{summary}");
    assert!(done.status.success(), "{said}\n{errors}");
    for phase in ["Examples", "Coverage", "Fuzzing", "Stateful"] {
        assert!(said.contains(&format!("✅ {phase}")), "{phase} did not run:\n{said}");
    }
    let operations: usize = hub.description()["paths"]
        .as_object()
        .into_iter()
        .flat_map(|paths| paths.values())
        .map(methods)
        .sum();
    // All but the stream of events, which does not end.
    let asked = operations - 1;
    assert!(said.contains(&format!("Tested: {asked}\n")), "not all {asked}:\n{said}");
    assert!(took < WITHIN_S, "{took} s:\n{said}");
}

fn methods(item: &serde_json::Value) -> usize {
    let is_operation = |name: &&String| name.as_str() != "parameters";
    item.as_object().map_or(0, |item| item.keys().filter(is_operation).count())
}

fn pins() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/api")
}

/// Where it is; installed first, if it is not yet there. What cannot be installed fails the test: skipping would hide
/// that nothing was tested.
fn installed() -> PathBuf {
    let lock = File::create(target().join("api.lock")).expect("target/ is writable");
    lock.lock().expect("the file system has locks");
    let mut script = Command::new(pins().join("install.sh"));
    let script = script.env("CARGO_TARGET_DIR", target()).stdin(Stdio::null());
    let installed = script.status().expect("tests/api/install.sh starts");
    assert!(installed.success(), "tests/api/install.sh failed");
    target().join("api/schemathesis")
}
