//! `/api/docs` in Chromium.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::hub::Hub;
use crate::install::{home, node, pins, plain, target};

#[test]
fn the_page_shows_every_operation_and_lets_reads_be_tried() {
    let hub = Hub::start();
    hub.seed();
    let pictures = target().join("api/pictures");
    std::fs::create_dir_all(&pictures).expect("a directory");
    let mut command = Command::new(node());
    command
        .arg(pins().join("../api/page.mjs"))
        .args([hub.url.as_str(), hub.token.as_str()])
        .arg(&pictures)
        .current_dir(home("browser"))
        .stdin(Stdio::null());
    plain(&mut command);
    let done = command.output().expect("node starts");
    let errors = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{errors}");
    let found: Value = serde_json::from_slice(&done.stdout).expect("JSON");

    assert_eq!(found["said"], json!([]), "the console is to be silent");
    assert_eq!(found["strangers"], json!([]), "nothing is to come from outside");
    let document = hub.description();
    let paths = document["paths"].as_object().expect("paths").values();
    let operations: usize =
        paths.map(|item| item.as_object().map_or(0, serde_json::Map::len)).sum();
    assert_eq!(found["operations"], operations);
    assert_eq!(found["after_escape"], operations);
    assert_eq!((&found["without_an_example"], &found["text"]), (&json!(0), &json!([])));
    assert_eq!(found["filtered"], json!(["/api/circuits"]));
    assert_eq!((&found["opened"], &found["by_address"]), (&json!(1), &json!(1)));
    let text = |name: &str| found[name].as_str().unwrap_or_default().to_owned();
    assert!(text("without_token").contains("401"), "{found}");
    let answer = text("with_token");
    assert!(answer.contains("200") && answer.contains("mcp.call.demo.sleep.0"), "{answer}");
    assert_eq!(found["kept"], hub.token);
    assert_eq!(found["ground"], "rgb(20, 24, 27)", "dark where that is preferred");
    assert_eq!(found["wide"], 0, "all of it fits a phone");
}

#[test]
fn the_page_may_load_nothing_but_what_the_hub_has() {
    let hub = Hub::start();
    let head = |path: &str| {
        let done = Command::new("curl").args(["-sSI", &format!("{}{path}", hub.url)]).output();
        String::from_utf8_lossy(&done.expect("curl runs").stdout).into_owned()
    };
    for (path, kind) in [
        ("/api/docs", "text/html"),
        ("/api/docs/docs.css", "text/css"),
        ("/api/docs/docs.js", "text/javascript"),
    ] {
        let said = head(path);
        assert!(said.starts_with("HTTP/1.1 200") && said.contains(kind), "{path}: {said}");
        let policy =
            "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self';";
        assert!(said.contains(policy) && !said.contains("unsafe"), "{path}: {said}");
    }
    assert!(head("/api/docs/..%2Fopenapi.rs").starts_with("HTTP/1.1 404"));
    assert!(head("/api/docs/absent.js").starts_with("HTTP/1.1 404"));
}
