use std::error::Error as _;

use super::*;

fn refused(text: &str) -> String {
    let error = Config::parse("mcp.json", text).expect_err("refused");
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

#[test]
fn the_shipped_file_is_good() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs");
    let config = Config::load(&dir).expect("configs/mcp.json");
    let names: Vec<_> = config.toolsets.keys().map(String::as_str).collect();
    assert_eq!(names, ["browser", "figma"]);
    assert_eq!(config.toolsets["figma"].transport(), Transport::WebSocket);
    assert_eq!(config.toolsets["figma"].max_in_flight, 16);
}

#[test]
fn the_scheme_chooses_the_transport() {
    for (url, transport) in [
        ("ws://h:1", Transport::WebSocket),
        ("wss://h/x", Transport::WebSocket),
        ("http://h/mcp", Transport::Http),
        ("https://h/mcp", Transport::Http),
    ] {
        assert_eq!(Toolset::at(url).transport(), transport, "{url}");
    }
    assert_eq!(Toolset::command("npx", ["x"]).transport(), Transport::Stdio);
}

#[test]
fn an_unknown_field_is_named_with_its_path() {
    let text = r#"{"toolsets": {"a": {"url": "ws://h", "timeout": 1}}}"#;
    let message = refused(text);
    assert!(message.starts_with("mcp.json: toolsets.a.timeout: unknown field"), "{message}");
    let message = refused(r#"{"toolsets": {"a": {"url": "ws://h", "enabled": "yes"}}}"#);
    assert!(message.starts_with("mcp.json: toolsets.a.enabled: invalid type"), "{message}");
}

#[test]
fn a_broken_rule_is_named_with_its_field() {
    for (toolset, expected) in [
        (r#"{}"#, "toolsets.a.url: is required"),
        (r#"{"url": "ws://h", "command": "x"}"#, "toolsets.a.command: must not stand beside"),
        (r#"{"url": "ftp://h"}"#, "toolsets.a.url: must begin with ws://"),
        (r#"{"url": "nonsense"}"#, "toolsets.a.url: must be a URL"),
        (r#"{"url": "http://u:p@h/"}"#, "toolsets.a.url: must hold no credentials"),
        (r#"{"url": "ws://h", "args": ["x"]}"#, "toolsets.a.url: takes no args"),
        (r#"{"command": "x", "headers": {"a": {"from_env": "B"}}}"#, "toolsets.a.headers: only"),
        (r#"{"url": "ws://h", "headers": {"a b": {"from_env": "B"}}}"#, "toolsets.a.headers: must"),
        (r#"{"url": "ws://h", "max_in_flight": 0}"#, "toolsets.a.max_in_flight: must be from 1"),
        (r#"{"url": "ws://h", "max_frame_bytes": 9}"#, "toolsets.a.max_frame_bytes: must be"),
        (r#"{"url": "ws://h", "connect_timeout_ms": 0}"#, "toolsets.a.connect_timeout_ms: must"),
        (r#"{"url": "ws://h", "fallback": "a"}"#, "toolsets.a.fallback: must be another"),
        (r#"{"url": "ws://h", "fallback": "b"}"#, "toolsets.a.fallback: must name an enabled"),
        (r#"{"url": "ws://h", "call_timeout_ms": 0}"#, "toolsets.a.call_timeout_ms: must be"),
    ] {
        let message = refused(&format!(r#"{{"toolsets": {{"a": {toolset}}}}}"#));
        assert!(message.starts_with(expected), "{toolset}: {message}");
    }
    assert!(refused(r#"{"toolsets": {"demo": {"url": "ws://h"}}}"#).contains("reserved"));
    assert!(refused(r#"{"toolsets": {"a/b": {"url": "ws://h"}}}"#).contains("toolsets.a/b"));
}

#[test]
fn a_toolset_whose_tools_could_not_be_told_apart_is_refused() {
    for (name, said) in
        [("a__b", "must hold no __"), ("a_", "must hold no __"), ("cogo", "reserved")]
    {
        let message = refused(&format!(r#"{{"toolsets": {{"{name}": {{"url": "ws://h"}}}}}}"#));
        assert!(
            message.starts_with(&format!("toolsets.{name}: ")) && message.contains(said),
            "{message}"
        );
    }
    let message = refused(r#"{"mesh": {"tenants": {"acme": {"deny": ["browser"]}}}}"#);
    assert!(
        message.starts_with("mesh.tenants.acme.deny[0]: must be <toolset>__<tool>"),
        "{message}"
    );
    let message =
        refused(r#"{"toolsets": {"a": {"url": "ws://h", "tools": {"x": {"max_in_flight": 0}}}}}"#);
    assert!(message.starts_with("toolsets.a.tools: must have a max_in_flight"), "{message}");
}

#[test]
fn a_header_is_a_reference_and_never_a_value() {
    let text =
        r#"{"toolsets": {"a": {"url": "ws://h", "headers": {"authorization": "Bearer x"}}}}"#;
    let message = refused(text);
    assert!(message.contains("toolsets.a.headers.authorization"), "{message}");
    let text = r#"{"toolsets": {"a": {"command": "x", "env": {"K": 1}}}}"#;
    assert!(refused(text).contains("expected a string or"), "{}", refused(text));
}
