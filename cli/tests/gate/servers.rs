//! `--start-servers`: what is started is used, and nothing of it remains.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::json;

use crate::fixture::{Home, ends, free_port, runs, signal, stage, step};
use crate::support::{until, write};

const START: [&str; 4] = ["unified", "--stage", "ping", "--start-servers"];
/// A server with a child and a grandchild that do not hear SIGTERM. It listens, says so, and speaks no MCP.
const LISTENS: &str = r#"
echo $$ >> pids
sh -c 'trap "" TERM; echo $$ >> pids; sleep 600 & echo $! >> pids; wait' &
python3 -m http.server "$PORT" --bind "$HOST" >/dev/null 2>&1 &
echo $! >> pids
until python3 -c 'import os, socket; socket.create_connection((os.environ["HOST"], int(os.environ["PORT"])))' \
    2>/dev/null; do sleep 0.1; done
until [ "$(wc -l < pids)" -ge 4 ]; do sleep 0.1; done
echo "ready: ws://$HOST:$PORT" >&2
wait
"#;
/// One that installs for ever.
const INSTALLS: &str = "echo $$ >> pids; sleep 600 & echo $! >> pids; echo installing; wait";

/// A home whose toolset `figma` is started by this script. Its process ids are in the file `pids`.
fn home(script: &str) -> (Home, u16) {
    let port = free_port();
    let mcp = json!({"toolsets": {"figma": {"url": format!("ws://localhost:{port}")}}});
    let home = Home::new(&mcp.to_string());
    let dir = home.path().join("mcp-servers");
    write(&dir, "servers.json", r#"{"figma": {"serve": "fixture/serve"}}"#);
    std::fs::create_dir(dir.join("fixture")).expect("a directory");
    serve(&dir.join("fixture/serve"), script);
    (home, port)
}

fn serve(path: &Path, script: &str) {
    std::fs::write(path, format!("#!/bin/sh\n{script}\n")).expect("a script");
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).expect("executable");
}

fn pids(home: &Home) -> Vec<String> {
    let text = std::fs::read_to_string(home.path().join("pids")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[track_caller]
fn nothing_remains(home: &Home, at_least: usize) {
    let pids = pids(home);
    assert!(pids.len() >= at_least, "{pids:?}");
    // SIGKILL was sent to all of them before the gate ended; the last of them may take a moment to be gone.
    until(|| !pids.iter().any(|pid| runs(pid)));
    let left: Vec<_> = pids.iter().filter(|pid| runs(pid)).collect();
    assert!(left.is_empty(), "{left:?} of {pids:?} remain");
}

#[test]
fn a_server_is_started_looked_at_and_ended_with_all_that_it_started() {
    let (home, port) = home(LISTENS);
    let done = home.gate(&START);
    nothing_remains(&home, 4);
    assert_eq!(done.code, Some(1), "it speaks no MCP: {done:?}");
    let report = home.report();
    let ping = stage(&report, "ping");
    assert_eq!(step(ping, "start figma")["outcome"], "passed", "{ping}");
    assert_eq!(ping["failed_step"], "figma", "{ping}");
    assert!(ping["reason"].as_str().is_some_and(|text| text.contains(&port.to_string())), "{ping}");
    let log = std::fs::read_to_string(home.run_dir().join("servers/figma.log")).expect("a log");
    assert!(log.contains(&format!("ready: ws://127.0.0.1:{port}")), "{log}");
}

#[test]
fn a_server_that_ends_at_once_fails_its_start_with_its_last_words() {
    let (home, _) = home("echo 'npm is missing' >&2; exit 7");
    let done = home.gate(&START);
    assert_eq!(done.code, Some(1), "{done:?}");
    let report = home.report();
    let ping = stage(&report, "ping");
    assert_eq!(ping["failed_step"], "start figma", "{ping}");
    let reason = ping["reason"].as_str().expect("a reason");
    assert!(reason.contains("npm is missing") && reason.contains("status 7"), "{reason}");
    assert!(ping["remedy"].as_str().is_some_and(|text| text.contains("figma.log")), "{ping}");
    assert_eq!(step(ping, "figma")["outcome"], "skipped", "{ping}");
}

#[test]
fn a_signal_in_the_middle_ends_it_with_130_and_leaves_no_process_and_no_report() {
    for name in ["INT", "TERM"] {
        let (home, _) = home(INSTALLS);
        let mut gate = home.start(&START);
        assert!(until(|| pids(&home).len() == 2), "it was not started");
        signal(&gate, name);
        assert_eq!(ends(&mut gate), Some(130));
        nothing_remains(&home, 2);
        assert!(!home.run_dir().join("report.json").exists());
        let said = std::fs::read_to_string(home.path().join("said")).expect("what it said");
        assert!(said.contains(&format!("SIG{name}: stopping")), "{said}");
        assert!(!said.contains("passed") && !said.contains("failed"), "{said}");
    }
}

#[test]
fn a_gate_that_is_killed_leaves_no_process_either() {
    let (home, _) = home(LISTENS);
    serve(&home.path().join("mcp-servers/fixture/serve"), INSTALLS);
    let mut gate = home.start(&START);
    assert!(until(|| pids(&home).len() == 2), "it was not started");
    signal(&gate, "KILL");
    assert_eq!(ends(&mut gate), None);
    assert!(until(|| pids(&home).iter().all(|pid| !runs(pid))), "{:?}", pids(&home));
}

#[test]
fn what_answers_or_cannot_be_started_is_left_alone() {
    let (home, port) = home("touch started; exit 1");
    let _listens = std::net::TcpListener::bind(("127.0.0.1", port)).expect("the port");
    let mcp = json!({"toolsets": {
        "figma": {"url": format!("ws://localhost:{port}"), "connect_timeout_ms": 500},
        "other": {"url": "ws://127.0.0.1:9"},
        "far": {"url": "ws://192.0.2.1:9", "connect_timeout_ms": 500},
    }});
    write(&home.path().join("configs"), "mcp.json", &mcp.to_string());
    let servers = r#"{"figma": {"serve": "fixture/serve"}, "far": {"serve": "fixture/serve"}}"#;
    write(&home.path().join("mcp-servers"), "servers.json", servers);
    assert_eq!(home.gate(&START).code, Some(1));
    assert!(!home.path().join("started").exists());
    let report = home.report();
    let ping = stage(&report, "ping");
    for (name, why) in [
        ("figma", "listens at its address already"),
        ("other", "servers.json does not name it"),
        ("far", "loopback"),
    ] {
        let start = step(ping, &format!("start {name}"));
        assert_eq!(start["outcome"], "skipped", "{ping}");
        assert!(start["reason"].as_str().expect("why").contains(why), "{start}");
    }
}

#[test]
fn a_file_that_does_not_say_what_to_start_fails_its_step() {
    for (text, words) in
        [(None, "No such file"), (Some("{\"figma\": {}}"), "missing field `serve`")]
    {
        let (home, _) = home(INSTALLS);
        let file = home.path().join("mcp-servers/servers.json");
        match text {
            Some(text) => std::fs::write(&file, text).expect("written"),
            None => std::fs::remove_file(&file).expect("gone"),
        }
        assert_eq!(home.gate(&START).code, Some(1));
        let report = home.report();
        let ping = stage(&report, "ping");
        assert_eq!(ping["failed_step"], "mcp-servers", "{ping}");
        let reason = ping["reason"].as_str().expect("a reason");
        assert!(reason.contains("mcp-servers/servers.json") && reason.contains(words), "{reason}");
    }
}

/// Needs Node.js, Chromium and a package registry, as the servers do; installs below target/mcp-servers.
#[test]
fn the_two_real_servers_are_started_and_give_a_sign_of_life() {
    let (figma, browser) = (free_port(), free_port());
    let mcp = json!({"toolsets": {
        "figma": {"url": format!("ws://127.0.0.1:{figma}")},
        "browser": {"url": format!("ws://localhost:{browser}")},
    }});
    let mut home = Home::new(&mcp.to_string());
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository");
    std::fs::remove_dir(home.path().join("mcp-servers")).expect("empty");
    std::os::unix::fs::symlink(repository.join("mcp-servers"), home.path().join("mcp-servers"))
        .expect("a link");
    home.cogo = home.cogo.with("HTTP_PORT", free_port().to_string());
    let done = home.gate(&START);
    assert_eq!(done.code, Some(0), "{done:?}");
    let report = home.report();
    for name in ["figma", "browser"] {
        let ping = stage(&report, "ping");
        assert_eq!(step(ping, &format!("start {name}"))["outcome"], "passed", "{ping}");
        let tools = ping["facts"][name]["tools"].as_array().expect("tools");
        assert!(!tools.is_empty(), "{ping}");
    }
    for port in [figma, browser] {
        let is_free = || std::net::TcpStream::connect(("127.0.0.1", port)).is_err();
        assert!(until(is_free), "something still listens at {port}");
    }
}
