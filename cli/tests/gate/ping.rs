//! The stage `ping`.

use serde_json::json;

use crate::fixture::{Home, Server, free_port, stage, step};

const PING: [&str; 3] = ["unified", "--stage", "ping"];

#[test]
fn a_server_that_is_down_fails_its_step_and_names_the_url_and_the_remedy() {
    let (server, down) = (Server::start(), format!("ws://127.0.0.1:{}", free_port()));
    let mcp = json!({"toolsets": {"browser": {"url": down}, "well": {"url": server.url}}});
    let home = Home::new(&mcp.to_string());
    let done = home.gate(&PING);
    assert_eq!(done.code, Some(1), "{done:?}");

    let report = home.report();
    assert_eq!(report["verdict"], "failed");
    let ping = stage(&report, "ping");
    assert_eq!((&ping["outcome"], &ping["failed_step"]), (&json!("failed"), &json!("browser")));
    let browser = step(ping, "browser");
    let (reason, remedy) = (browser["reason"].as_str(), browser["remedy"].as_str());
    assert!(reason.is_some_and(|text| text.contains(&down) && text.contains("refused")), "{ping}");
    for way in ["--start-servers", "up -d browser-mcp", "cogo mcp disable browser"] {
        assert!(remedy.is_some_and(|text| text.contains(way)), "{way}: {ping}");
    }
    // The other was looked at all the same.
    assert_eq!(step(ping, "well")["outcome"], "passed", "{ping}");
    for words in ["ping / browser", &down, "What to do: Start it"] {
        assert!(done.stdout.contains(words), "{words:?}: {done:?}");
    }
    assert!(done.stderr.contains("✗ browser") && done.stderr.contains("✓ well"), "{done:?}");
}

#[test]
fn servers_that_answer_let_it_pass_and_no_tool_is_run() {
    let (one, other) = (Server::start(), Server::start());
    let mcp = json!({"toolsets": {
        "one": {"url": one.url}, "other": {"url": other.url},
        "off": {"url": "ws://127.0.0.1:9", "enabled": false},
    }});
    let home = Home::new(&mcp.to_string());
    let done = home.gate(&PING);
    assert_eq!(done.code, Some(0), "{done:?}");
    let report = home.report();
    let ping = stage(&report, "ping");
    let names: Vec<_> =
        ping["steps"].as_array().expect("steps").iter().map(|s| &s["name"]).collect();
    assert_eq!(names.len(), 3, "{ping}");
    let detail = step(ping, "one")["detail"].as_str().expect("a detail");
    assert!(
        detail.starts_with("4 tools, ")
            && detail.contains(concat!("cogo-demo ", env!("CARGO_PKG_VERSION"))),
        "{detail}"
    );
    assert_eq!(ping["facts"]["other"]["tools"], json!(["add", "echo", "fail", "sleep"]));
    assert!(step(ping, "config")["detail"].as_str().expect("a detail").contains("1 disabled"));
}

#[test]
fn a_server_that_speaks_no_mcp_is_told_apart_from_one_that_is_down() {
    // It takes connections, and says nothing.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("ws://{}", listener.local_addr().expect("an address"));
    let mcp = json!({"toolsets": {"mute": {"url": url, "connect_timeout_ms": 500}}});
    let home = Home::new(&mcp.to_string());
    assert_eq!(home.gate(&PING).code, Some(1));
    let report = home.report();
    let mute = step(stage(&report, "ping"), "mute");
    let reason = mute["reason"].as_str().expect("a reason");
    assert!(reason.contains(&url) && !reason.contains("refused"), "{reason}");
}

#[test]
fn a_wrong_file_fails_step_config_with_file_line_and_field() {
    for (mcp, line, field) in [
        ("{\"toolsets\": {\n\"x\": {\"url\": \"nowhere\"}}}", "mcp.json:2", "toolsets.x.url"),
        ("{\"toolsets\": {\"x\": {\"urn\": 1}}}", "mcp.json:1:", "toolsets.x.urn"),
        ("{\"toolsets\": ", "mcp.json:1:13", "toolsets"),
    ] {
        let home = Home::new(mcp);
        let done = home.gate(&PING);
        assert_eq!(done.code, Some(1), "{done:?}");
        let report = home.report();
        let ping = stage(&report, "ping");
        assert_eq!(ping["failed_step"], "config", "{ping}");
        let reason = ping["reason"].as_str().expect("a reason");
        assert!(reason.contains(line) && reason.contains(field), "{reason}");
        // As the command says that the remedy names.
        let mut check = home.cogo.command(&["config", "check"]);
        let said = check.current_dir(home.path()).output().expect("cogo starts").stderr;
        let said = String::from_utf8(said).expect("text");
        assert!(said.contains(reason), "{reason:?} is not in {said:?}");
    }
}

#[test]
fn without_a_toolset_there_is_nothing_to_look_at_and_that_is_a_failure() {
    let disabled = "{\"toolsets\": {\"x\": {\"url\": \"ws://127.0.0.1:9\", \"enabled\": false}}}";
    for (mcp, why) in [
        (Some("{}"), "names no toolset"),
        (Some(disabled), "all are disabled"),
        (None, "is not there"),
    ] {
        let home = Home::new(mcp.unwrap_or_default());
        if mcp.is_none() {
            std::fs::remove_file(home.path().join("configs/mcp.json")).expect("gone");
        }
        assert_eq!(home.gate(&PING).code, Some(1), "{why}");
        let report = home.report();
        let ping = stage(&report, "ping");
        assert_eq!(ping["failed_step"], "config", "{ping}");
        assert!(ping["reason"].as_str().expect("a reason").contains(why), "{ping}");
        assert!(ping["remedy"].as_str().expect("a remedy").contains("cogo mcp"), "{ping}");
    }
}
