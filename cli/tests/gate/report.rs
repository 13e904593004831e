//! What is told: on stdout, in files for CI, and on stderr meanwhile.

use std::process::Command;

use serde_json::{Value, json};

use crate::fixture::{Home, Server, free_port};

const PING: [&str; 3] = ["unified", "--stage", "ping"];
/// Reads JUnit's XML, and gives what CI systems take from it.
const READ: &str = r#"
import json, sys, xml.etree.ElementTree as tree
root = tree.parse(sys.argv[1]).getroot()
assert root.tag == "testsuites", root.tag
cases = [(suite.get("name"), case.get("name"), [child.tag for child in case],
          [child.get("message") for child in case if child.tag == "failure"])
         for suite in root for case in suite if case.tag == "testcase"]
print(json.dumps({"tests": root.get("tests"), "failures": root.get("failures"), "cases": cases}))
"#;

fn home() -> (Home, Server) {
    let server = Server::start();
    let down = format!("ws://127.0.0.1:{}/<a>&amp;b", free_port());
    let mcp = json!({"toolsets": {"down": {"url": down}, "well": {"url": server.url}}});
    (Home::new(&mcp.to_string()), server)
}

#[test]
fn json_is_alone_on_stdout_and_the_same_as_in_the_file() {
    let (home, _server) = home();
    let done = home.gate(&[&PING[..], &["--json"]].concat());
    assert_eq!(done.code, Some(1), "{done:?}");
    let told: Value = serde_json::from_str(&done.stdout).expect("JSON, and nothing else");
    assert_eq!(told, home.report());
    assert_eq!(told["schema"], "cogo.gate/1");
    assert_eq!(told["name"], "gate:unified");
}

#[test]
fn junit_is_read_by_a_parser_that_others_wrote() {
    let (home, _server) = home();
    home.gate(&PING);
    let dir = home.run_dir();
    let read = Command::new("python3").args(["-c", READ]).arg(dir.join("junit.xml")).output();
    let read = read.expect("python3 is installed");
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    let read: Value = serde_json::from_slice(&read.stdout).expect("JSON");
    assert_eq!((&read["tests"], &read["failures"]), (&json!("3"), &json!("1")), "{read}");
    let reason = home.report()["stages"][0]["reason"].clone();
    let down = json!(["ping", "down", ["failure"], [reason]]);
    assert!(read["cases"].as_array().is_some_and(|cases| cases.contains(&down)), "{read}");

    let summary = std::fs::read_to_string(dir.join("summary.md")).expect("a summary");
    assert!(summary.starts_with("## gate:unified failed"), "{summary}");
    assert!(summary.contains("&lt;a&gt;"), "what others wrote is text: {summary}");
}

#[test]
fn a_pipe_has_plain_lines_and_nothing_is_drawn_anew() {
    let (home, _server) = home();
    let done = home.gate(&PING);
    for text in [&done.stdout, &done.stderr] {
        assert!(!text.contains('\u{1b}') && !text.contains('\r'), "{text:?}");
        assert!(!text.contains("::group::") && !text.contains("::error"), "{text:?}");
    }
}

#[test]
fn githubs_runner_gets_groups_and_errors() {
    let (mut home, _server) = home();
    home.cogo = home.cogo.with("GITHUB_ACTIONS", "true");
    let done = home.gate(&PING);
    let lines: Vec<_> = done.stderr.lines().collect();
    let at = |line: &str| lines.iter().position(|one| one.starts_with(line));
    let (group, end) = (at("::group::ping"), at("::endgroup::"));
    assert!(group.is_some() && group < end, "{lines:?}");
    assert!(at("::error title=ping / down::ws") > end, "{lines:?}");
}
