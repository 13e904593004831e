use cogo::testing::TestDb;

use crate::support::{Cogo, temp_dir, write};

fn configured(cogo: Cogo) -> (Cogo, tempfile::TempDir) {
    let dir = temp_dir();
    let mcp = "{\"toolsets\": {\"sick\": {\"url\": \"ws://127.0.0.1:9/x?token=geheim\"}}}";
    write(dir.path(), "mcp.json", mcp);
    (cogo.with("COGO_CONFIG_DIR", dir.path().display().to_string()), dir)
}

#[test]
fn toolsets_are_listed_without_what_may_be_secret() {
    let (cogo, _dir) = configured(Cogo::new());
    let listed = cogo.json(&["mcp", "list"]);
    assert_eq!(listed[0]["toolset"], "sick");
    assert!(!listed.to_string().contains("geheim"), "{listed}");
    assert!(cogo.ok(&["mcp", "list"]).stdout.contains("ws://127.0.0.1:9/x"));
}

#[test]
fn a_sick_toolset_is_told_and_an_unknown_one_is_not_found() {
    let (cogo, _dir) = configured(Cogo::new());
    let done = cogo.run(&["mcp", "ping", "--json"]);
    assert_eq!(done.code, Some(4), "{done:?}");
    assert!(done.stdout.contains("\"ok\":false"), "{done:?}");
    cogo.run(&["mcp", "ping", "other"]).refused(3, &["other", "sick"]);
}

#[tokio::test]
async fn a_call_that_nobody_serves_goes_on_waiting() {
    let db = TestDb::new().await;
    let (cogo, _dir) = configured(Cogo::on(&db));
    let called = cogo.run(&["mcp", "call", "demo", "echo", "--timeout", "50ms"]);
    called.refused(6, &["queued", "mcp-gateway worker"]);
    let called = cogo.run(&["mcp", "call", "demo", "echo", "--params", "[1]"]);
    called.refused(2, &["JSON object"]);
    cogo.run(&["mcp", "call", "a b", "echo"]).refused(2, &["toolset"]);
    let id = cogo.ok(&["mcp", "call", "demo", "echo", "--no-wait"]).line().to_owned();
    let found = cogo.json(&["get", &id]);
    assert_eq!(found["message"]["intent"], "mcp.call");
    assert_eq!(found["message"]["payload"]["tool"], "echo");
}
