//! `cogo mcp add|remove|enable|disable`, and a gateway far away that takes up what they write.

use serde_json::{Value, json};

use crate::support::{Cogo, http, temp_dir, until, write};
use crate::up::Home;

const SECRET: &str = "a secret of this test alone and long enough";

fn configured() -> (Cogo, tempfile::TempDir) {
    let dir = temp_dir();
    let configs = dir.path().join("configs");
    std::fs::create_dir(&configs).expect("a directory");
    (Cogo::new().with("COGO_CONFIG_DIR", configs.display().to_string()), dir)
}

fn file(dir: &tempfile::TempDir) -> Value {
    let text = std::fs::read_to_string(dir.path().join("configs/mcp.json")).expect("a file");
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn toolsets_are_added_changed_and_removed_by_command() {
    let (cogo, dir) = configured();
    let done = cogo.ok(&["mcp", "add", "browser", "--url", "ws://localhost:3004"]);
    assert!(done.stderr.contains("takes it up by itself"), "{done:?}");
    let figma = "mcp add figma --url https://figma.example.com/mcp --timeout 30s --max-in-flight 2 \
                 --header Authorization=from_env:FIGMA_AUTH --fallback browser --disabled";
    let told = cogo.json(&figma.split_whitespace().collect::<Vec<_>>());
    assert_eq!((&told["did"], &told["unset"]), (&json!("added"), &json!(["FIGMA_AUTH"])));
    let files = "mcp add files --env KEY=from_env:K --env LANG=C --cwd /srv -- npx -y server /srv";
    cogo.ok(&files.split_whitespace().collect::<Vec<_>>());
    let expected = json!({
        "$schema": "schema/mcp.schema.json",
        "toolsets": {
            "browser": {"url": "ws://localhost:3004"},
            "figma": {
                "url": "https://figma.example.com/mcp",
                "headers": {"Authorization": {"from_env": "FIGMA_AUTH"}},
                "fallback": "browser", "enabled": false, "call_timeout_ms": 30000, "max_in_flight": 2,
            },
            "files": {
                "command": "npx", "args": ["-y", "server", "/srv"],
                "env": {"KEY": {"from_env": "K"}, "LANG": "C"}, "cwd": "/srv",
            },
        },
    });
    assert_eq!(file(&dir), expected);
    assert_eq!(cogo.json(&["mcp", "enable", "figma"])["changed"], true);
    cogo.run(&["mcp", "disable", "browser"]).refused(2, &["figma.fallback", "enabled toolset"]);
    cogo.run(&["mcp", "remove", "other"]).refused(3, &["other", "browser, figma, files"]);
    cogo.run(&["mcp", "add", "browser", "--url", "ws://x"]).refused(5, &["--replace"]);
    cogo.ok(&["mcp", "add", "browser", "--url", "ws://x", "--replace"]);
    assert_eq!(file(&dir)["toolsets"]["browser"], json!({"url": "ws://x"}));
    for name in ["figma", "files"] {
        assert_eq!(cogo.json(&["mcp", "remove", name])["did"], "removed");
    }
    assert_eq!(cogo.json(&["mcp", "list"]).as_array().map(Vec::len), Some(1));
}

#[test]
fn a_secret_that_is_written_out_is_refused_with_the_remedy_and_not_repeated() {
    let (cogo, dir) = configured();
    let add = |args: &[&str]| cogo.run(&[&["mcp", "add", "x"], args].concat());
    let url = ["--url", "https://x.example/mcp"];
    for (args, says) in [
        (&[&url[..], &["--header", "Authorization=Bearer geheim"]].concat()[..], "from_env:"),
        (&["--env", "API_KEY=geheim", "--", "server"], "--env API_KEY=from_env:API_KEY"),
        (&["--", "server", "--token=geheim"], "its environment"),
        (&["--url", "https://x.example/?token=geheim"], "--header"),
        (&["--url", "https://u:geheim@x.example/"], "credentials"),
        (&[], "--url"),
        (&["--url", "file:///x"], "must begin with"),
        (&["--url", "ws://x", "--header", "A=from_env:"], "environment variables"),
    ] {
        let done = add(args);
        done.refused(2, &[says]);
        let told = done.stderr.replace("'Authorization=Bearer geheim'", ""); // clap quotes what it was given
        assert!(!told.contains("geheim"), "{done:?}");
    }
    assert!(!dir.path().join("configs/mcp.json").exists());
}

#[test]
fn a_gateway_far_away_takes_up_what_is_written_and_keeps_large_results_at_its_hub() {
    let home = Home::new(Cogo::new().with("COGO_JWT_SECRET", SECRET));
    let up = home.up();
    let (_, shown) = http("GET", &format!("{}/api/mcp/config", up.url), Some(&up.token), "");
    let demo = shown["toolsets"]["demo"]["endpoint"].as_str().expect("an address").to_owned();
    let mint = "token mint --tenant default --worker pc --topic mcp-gateway/* --send mcp-gateway/*";
    let key = home.cogo.ok(&mint.split_whitespace().collect::<Vec<_>>()).line().to_owned();
    let (far, dir) = configured();
    let artifacts = dir.path().join("artifacts");
    let far = far
        .with("COGO_URL", &up.url)
        .with("COGO_KEY", &key)
        .with("COGO_ARTIFACTS_DIR", artifacts.display().to_string());
    let configs = dir.path().join("configs");
    write(&configs, "mcp.json", "{\"mesh\": {\"max_result_bytes\": 2048}}");
    let worker = far.start(&["worker", "mcp-gateway"]);
    worker.stderr.wait("No toolset is enabled");

    far.ok(&["mcp", "add", "far", "--url", &demo]);
    worker.stderr.wait("is ready");
    let text = "long ".repeat(2000);
    let params = json!({"message": text}).to_string();
    let call = far.json(&["mcp", "call", "far", "echo", "--params", &params]);
    let link = &call["message"]["result"]["content"][0];
    assert_eq!((&link["type"], &link["size"]), (&json!("resource_link"), &json!(10_000)), "{call}");
    let uri = link["uri"].as_str().expect("a URI");
    let path = uri.strip_prefix("cogo://artifacts/").expect("ours");
    assert!(!artifacts.join("blobs").exists(), "it is not kept here");
    let found = http("GET", &format!("{}/mcp/artifacts/{path}", up.url), Some(&up.token), "");
    assert_eq!(found, (200, Value::from(text)));

    far.ok(&["mcp", "disable", "far"]);
    worker.stderr.wait("Closing the old connection of far");
    let id =
        far.ok(&["mcp", "call", "far", "echo", "--no-wait", "--params", "{\"message\": \"x\"}"]);
    std::thread::sleep(std::time::Duration::from_millis(500));
    let found = far.json(&["get", id.line()]);
    assert_eq!(found["message"]["status"], "queued", "it stays for others: {found}");
    far.ok(&["mcp", "enable", "far"]);
    assert_eq!(far.json(&["get", id.line(), "--wait"])["message"]["status"], "done");

    let good = std::fs::read_to_string(configs.join("mcp.json")).expect("read");
    write(&configs, "mcp.json", "{\"toolsets\": {\n\"far\": {\"url\": \"nowhere\"}}}");
    worker.signal("HUP");
    let said = worker.stderr.wait("Refused mcp.json");
    assert!(said.contains("mcp.json:2: toolsets.far.url: must be a URL"), "{said}");
    far.ok(&["mcp", "call", "far", "echo", "--params", "{\"message\": \"still here\"}"]);
    far.run(&["mcp", "disable", "far"]).refused(2, &["toolsets.far.url"]);
    write(&configs, "mcp.json", &good.replace("\"max_result_bytes\": 2048", "\"grace_s\": 9"));
    assert!(until(|| worker.stderr.text().contains("Reloaded mcp.json")));
    worker.stop();
}
