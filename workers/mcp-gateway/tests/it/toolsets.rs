//! `/api/mcp/toolsets`: what may be changed from afar, and what may not.

use cogo::shutdown::{Shutdown, Tasks};
use cogo_worker_mcp_gateway::Gateway;
use cogo_worker_mcp_gateway::config::{Config, FILE};
use serde_json::{Value, json};

use crate::api::Notebook;

struct Site {
    url: String,
    dir: tempfile::TempDir,
}

impl Site {
    async fn new(file: Value) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join(FILE), file.to_string()).expect("written");
        let config = Config::load(dir.path()).expect("good");
        let gateway = Gateway::start(config, None, &Shutdown::new()).with_config_dir(dir.path());
        let policies = cogo::live::Live::<cogo::retry::Policies>::default();
        let router = gateway.routes(Notebook::default(), policies, None).into_router();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        Tasks::new().spawn(async move { axum::serve(listener, router).await });
        Self { url, dir }
    }

    async fn send(&self, method: &str, name: &str, body: Value) -> (u16, Value) {
        let method = method.parse().expect("a method");
        let url = format!("{}/api/mcp/toolsets{name}", self.url);
        let request = crate::support::http()
            .request(method, url)
            .header("content-type", "application/json")
            .body(body.to_string());
        let response = request.send().await.expect("an answer");
        let status = response.status().as_u16();
        let text = response.text().await.expect("a body");
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    fn file(&self) -> Value {
        let text = std::fs::read_to_string(self.dir.path().join(FILE)).expect("read");
        serde_json::from_str(&text).expect("JSON")
    }
}

#[tokio::test]
async fn toolsets_are_added_changed_and_taken_out() {
    let site = Site::new(json!({"mesh": {"grace_s": 7}})).await;
    let entry = json!({"url": "ws://127.0.0.1:1", "max_in_flight": 2});
    let (status, told) = site.send("PUT", "/a", entry.clone()).await;
    assert_eq!((status, &told["added"]), (201, &json!(true)), "{told}");
    assert_eq!(site.file(), json!({"mesh": {"grace_s": 7}, "toolsets": {"a": entry}}));
    let (status, told) = site.send("PUT", "/a", json!({"url": "ws://127.0.0.1:2"})).await;
    assert_eq!((status, &told["added"]), (200, &json!(false)), "{told}");
    let (status, told) = site.send("PATCH", "/a", json!({"enabled": false})).await;
    assert_eq!((status, &told["changed"]), (200, &json!(true)), "{told}");
    assert_eq!(site.file()["toolsets"]["a"], json!({"url": "ws://127.0.0.1:2", "enabled": false}));
    let (status, list) = site.send("GET", "", Value::Null).await;
    assert_eq!((status, &list["toolsets"]["a"]["enabled"]), (200, &json!(false)), "{list}");
    assert_eq!(site.send("DELETE", "/a", Value::Null).await.0, 200);
    assert_eq!(site.file()["toolsets"], json!({}));
    for (method, body) in [("DELETE", Value::Null), ("PATCH", json!({"enabled": true}))] {
        let (status, told) = site.send(method, "/a", body).await;
        assert_eq!((status, &told["error"]), (404, &json!("not_found")), "{told}");
    }
}

#[tokio::test]
async fn what_would_run_a_program_or_send_a_secret_away_is_refused_and_changes_nothing() {
    let before = json!({
        "env_by_api": ["FIGMA_*", "COGO_ADMIN_TOKEN"],
        "toolsets": {"a": {"url": "ws://127.0.0.1:1", "headers": {"X": {"from_env": "OTHER_SECRET"}}}},
    });
    let site = Site::new(before.clone()).await;
    let to = |variable: &str| json!({"url": "https://x.example", "headers": {"Authorization": {"from_env": variable}}});
    for (entry, status, says) in [
        (json!({"command": "sh", "args": ["-c", "id"]}), 403, "allow_commands_by_api"),
        (to("COGO_ADMIN_TOKEN"), 403, "never given"),
        (to("DATABASE_URL"), 403, "never given"),
        (to("OTHER_SECRET"), 403, "env_by_api"),
        (json!({"url": "https://x.example/?token=abc"}), 403, "looks like a secret"),
        (json!({"url": "https://x.example", "headers": {"A": "Bearer abc"}}), 400, "headers"),
        (json!({"url": "https://u:p@x.example"}), 400, "credentials"),
        (json!({"url": "file:///etc/passwd"}), 400, "must begin with"),
        (json!({"url": "https://x.example", "allow_commands_by_api": true}), 400, "unknown field"),
        (json!({"url": "https://x.example", "max_in_flight": 0}), 400, "max_in_flight"),
    ] {
        let (found, told) = site.send("PUT", "/a", entry).await;
        let message = told["message"].as_str().unwrap_or_default().to_owned();
        assert!(found == status && message.contains(says), "{status} {says}: {found} {told}");
        assert!(!message.contains("abc"), "{message}");
    }
    for name in ["/demo", "/cogo", "/a__b", "/..%2fx"] {
        let (status, told) = site.send("PUT", name, json!({"url": "ws://127.0.0.1:1"})).await;
        assert_eq!(status, 400, "{name}: {told}");
    }
    let (status, told) = site.send("PATCH", "/a", json!({"url": "https://x.example"})).await;
    assert_eq!(status, 400, "{told}");
    assert_eq!(site.file(), before);
    assert_eq!(site.send("PUT", "/b", to("FIGMA_TOKEN")).await.0, 201);
}
