use cogo::testing::TestDb;

use crate::support::{Cogo, http, temp_dir, write};

#[tokio::test]
async fn an_echo_worker_answers_and_stops_when_told_to() {
    let db = TestDb::new().await;
    let cogo = Cogo::on(&db);
    let mut worker = cogo.start(&["worker", "echo"]);
    worker.stderr.wait("is ready");
    let id = cogo.ok(&["enqueue", "echo/default", "echo", "{\"hello\": 1}"]).line().to_owned();
    let found = cogo.json(&["get", &id, "--wait"]);
    assert_eq!(found["message"]["status"], "done", "{found}");
    assert_eq!(found["message"]["result"]["hello"], 1);
    let trace = cogo.ok(&["trace", &id]).stdout;
    assert!(trace.contains("echo_succeeded") && trace.contains("attempt 1"), "{trace}");

    let status = cogo.json(&["status"]);
    assert_eq!(status["workers"][0]["status"], "online", "{status}");
    let name = status["workers"][0]["id"].as_str().expect("an id");
    assert!(name.starts_with("echo-"), "{name}");

    worker.signal("TERM");
    assert_eq!(worker.end(), Some(0), "{}", worker.stderr.text());
    let said = worker.stderr.wait("Stopped.");
    assert!(!said.contains("WARN"), "{said}");
    assert_eq!(cogo.json(&["status"])["workers"][0]["status"], "offline");
}

#[tokio::test]
async fn a_worker_for_all_tenants_serves_each_and_says_so() {
    let db = TestDb::new().await;
    let cogo = Cogo::on(&db);
    cogo.clone()
        .with("COGO_WORKER_TENANT", "a b")
        .run(&["worker", "echo"])
        .refused(2, &["COGO_WORKER_TENANT: must be `*` or 1 to 64"]);
    let worker = cogo.clone().with("COGO_WORKER_TENANT", "*").start(&["worker", "echo"]);
    worker.stderr.wait("is ready");
    for tenant in ["default", "t2"] {
        let id = cogo.ok(&["enqueue", "echo/default", "echo", "1", "--tenant", tenant]);
        assert_eq!(cogo.json(&["get", id.line(), "--wait"])["message"]["status"], "done");
    }
    cogo.run(&["enqueue", "echo/default", "echo", "1", "--tenant", "*"]).refused(2, &["tenant: "]);
    assert_eq!(cogo.json(&["status"])["workers"][0]["tenant"], "*");
    worker.stop();
    let status = cogo.json(&["status"]);
    assert_eq!(status["workers"][0]["status"], "offline", "{status}");
}

#[tokio::test]
async fn a_worker_shows_its_metrics_where_it_is_told_to_and_names_a_taken_port() {
    let db = TestDb::new().await;
    let cogo = Cogo::on(&db);
    let worker = cogo.start(&["worker", "echo", "--metrics-listen", "127.0.0.1:0"]);
    let said = worker.stderr.wait("is ready");
    let url = said.split_whitespace().find(|word| word.starts_with("http://")).expect("a URL");
    let url = url.strip_suffix("/metrics").expect("the URL of the metrics");
    let id = cogo.ok(&["enqueue", "echo/default", "echo", "1"]).line().to_owned();
    assert_eq!(cogo.json(&["get", &id, "--wait"])["message"]["status"], "done");
    let (status, metrics) = http("GET", &format!("{url}/metrics"), None, "");
    let metrics = metrics.as_str().unwrap_or_default();
    assert_eq!(status, 200);
    assert!(metrics.contains("cogo_settles_total{role=\"echo\",outcome=\"done\"} 1"), "{metrics}");
    for (method, path, status) in [
        ("GET", "/readyz", 200),
        ("GET", "/healthz", 200),
        ("GET", "/", 404),
        ("POST", "/metrics", 405),
    ] {
        assert_eq!(http(method, &format!("{url}{path}"), None, "").0, status, "{method} {path}");
    }

    let address = url.strip_prefix("http://").expect("an http:// address");
    let taken = cogo.run(&["worker", "echo", "--metrics-listen", address]);
    let port = address.split(':').next_back().expect("a port");
    taken.refused(1, &["--metrics-listen", port]);
}

#[test]
fn without_a_role_the_roles_are_listed() {
    let listed = Cogo::new().json(&["worker"]);
    let roles = listed.as_array().expect("roles").iter();
    let names: Vec<_> = roles.map(|role| role["name"].as_str()).collect();
    assert_eq!(names, [Some("echo"), Some("mcp-gateway")]);
}

#[cfg(unix)]
#[test]
fn an_unknown_role_is_a_program_on_path_or_an_error() {
    use std::os::unix::fs::PermissionsExt;
    let dir = temp_dir();
    let program = "#!/bin/sh\necho \"mine $* $DATABASE_URL\"; exit 7\n";
    write(dir.path(), "cogo-worker-mine", program);
    let path = dir.path().join("cogo-worker-mine");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("executable");
    let search = format!("{}:/bin:/usr/bin", dir.path().display());
    let cogo = Cogo::new().with("PATH", search);
    let done = cogo.run(&["--database-url", "postgres://x/y", "worker", "mine", "--fast", "1"]);
    assert_eq!(done.code, Some(7), "{done:?}");
    assert_eq!(done.line(), "mine --fast 1 postgres://x/y");

    cogo.run(&["worker", "yours"]).refused(3, &["no role \"yours\"", "echo, mcp-gateway"]);
    cogo.run(&["worker", "../mine"]).refused(2, &["role:"]);
    cogo.run(&["worker", "echo", "--fast"]).refused(2, &["--fast"]);
}
