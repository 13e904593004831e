//! What is refused, and how.

use anyhow::Result;
use axum::body::{Body, Bytes};
use cogo::hub::{Options, PathParams, Routes, StrictJson};
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

use crate::hub::{Answer, Setup, TOKEN, TestHub, request};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)]
struct Call {
    tool: String,
    times: Option<u8>,
}

/// What a role might bring.
fn routes() -> Routes {
    Routes::new()
        .post("/api/role/call", |StrictJson(call): StrictJson<Call>| async { call.tool })
        .post("/api/role/raw", |body: Bytes| async move { body.len().to_string() })
        .get("/api/role/{a}/{b}", |path: PathParams| async move { path.text("b").to_owned() })
        .get("/api/role/panic", panics)
        .get("/api/role/stuck", std::future::pending::<()>)
}

async fn panics() {
    panic!("the secret of {}", "the handler");
}

fn hub() -> Result<TestHub> {
    TestHub::without_database(Setup { routes: routes(), ..Setup::default() })
}

#[tokio::test]
async fn whatever_writes_needs_the_token() -> Result<()> {
    let hub = hub()?;
    let body = r#"{"tool":"echo"}"#;
    let call = |pairs: &[(&str, &str)]| {
        let mut request =
            request("POST", "/api/role/call").header("content-type", "application/json");
        for (name, value) in pairs {
            request = request.header(*name, *value);
        }
        request.body(Body::from(body))
    };
    for good in [("x-admin-token", TOKEN.to_owned()), ("authorization", format!("Bearer {TOKEN}"))]
    {
        let answer = hub.send(call(&[(good.0, &good.1)])?).await?;
        assert_eq!((answer.status.as_u16(), answer.text.as_str()), (200, "echo"));
    }
    for bad in [&[][..], &[("x-admin-token", "wrong")], &[("authorization", "Basic Og==")]] {
        let answer = hub.send(call(bad)?).await?;
        let message = answer.error(401, "unauthorized")?;
        assert!(message.contains("x-admin-token") && message.contains("COGO_ADMIN_TOKEN"));
        assert!(!answer.text.contains(TOKEN) && answer.header("www-authenticate") == "Bearer");
    }
    for (method, path) in [
        ("POST", "/api/dead-letters/requeue"),
        ("POST", "/api/dead-letters/drop"),
        ("DELETE", "/api/messages/x"),
        ("PUT", "/artifacts/a.json"),
        ("OPTIONS", "/api/status"),
        ("POST", "/nowhere"),
    ] {
        hub.send(request(method, path).body(Body::empty())?).await?.error(401, "unauthorized")?;
    }
    Ok(())
}

#[tokio::test]
async fn reads_need_the_token_where_others_can_reach_the_hub() -> Result<()> {
    let public = || Setup { listen: ([10, 0, 0, 1], 8787).into(), ..Setup::default() };
    let hub = TestHub::without_database(public())?;
    for path in ["/api/status", "/api/messages/x", "/artifacts/a.json", "/nowhere", "/healthz/"] {
        hub.get(path).await?.error(401, "unauthorized")?;
    }
    assert_eq!(hub.get("/healthz").await?.status, 200);
    assert_eq!(hub.get("/metrics").await?.status, 200);
    hub.get("/readyz").await?.error(503, "unavailable")?;
    let with_token = request("GET", "/artifacts/a.json").header("x-admin-token", TOKEN);
    hub.send(with_token.body(Body::empty())?).await?.error(404, "not_found")?;

    let options = Options { open_reads: Some(true), ..Options::default() };
    let open = TestHub::without_database(Setup { options, ..public() })?;
    open.get("/artifacts/a.json").await?.error(404, "not_found")?;
    let options = Options { open_reads: Some(false), ..Options::default() };
    let closed = TestHub::without_database(Setup { options, ..Setup::default() })?;
    closed.get("/artifacts/a.json").await?.error(401, "unauthorized")?;
    Ok(())
}

#[tokio::test]
async fn a_foreign_host_name_is_refused_on_every_route() -> Result<()> {
    let options = Options { allowed_hosts: vec!["bus.example".into()], ..Options::default() };
    let hub = TestHub::without_database(Setup { options, ..Setup::default() })?;
    let with = |host: &str, path: &str| {
        axum::http::Request::get(path).header("host", host).body(Body::empty())
    };
    for path in ["/healthz", "/metrics", "/api/status", "/artifacts/a.json", "/nowhere"] {
        let message = hub.send(with("rebound.example", path)?).await?.error(403, "forbidden")?;
        assert!(message.contains("rebound.example") && message.contains("allowed_hosts"));
    }
    for host in ["localhost", "127.0.0.1:8787", "[::1]:8787", "bus.example", "BUS.example:1"] {
        assert_eq!(hub.send(with(host, "/healthz")?).await?.status, 200, "{host}");
    }
    let without = axum::http::Request::get("/healthz").body(Body::empty())?;
    hub.send(without).await?.error(400, "invalid_argument")?;
    Ok(())
}

#[tokio::test]
async fn an_unknown_route_or_method_is_an_error_of_the_one_shape() -> Result<()> {
    let hub = hub()?;
    let message = hub.get("/api/nowhere").await?.error(404, "not_found")?;
    assert!(message.contains("/api/nowhere"), "{message}");
    for (method, path, allow) in
        [("POST", "/healthz", "GET,HEAD"), ("DELETE", "/api/role/call", "POST")]
    {
        let request = request(method, path).header("x-admin-token", TOKEN);
        let answer = hub.send(request.body(Body::empty())?).await?;
        let message = answer.error(405, "method_not_allowed")?;
        assert!(message.contains(path) && message.contains(method), "{message}");
        assert_eq!(answer.header("allow"), allow);
    }
    Ok(())
}

#[tokio::test]
async fn a_body_that_does_not_fit_is_refused_by_field() -> Result<()> {
    let hub = hub()?;
    for (body, part) in [
        (r#"{"tool":"a","foo":1}"#, "foo: unknown field `foo`, expected `tool` or `times`"),
        (r#"{"tool":7}"#, "tool: invalid type"),
        (r#"{"tool":"a","times":300}"#, "times: invalid value"),
        (r#"{"times":1}"#, "missing field `tool`"),
        (r#"{"tool":"a","tool":"b"}"#, "`tool` stands twice"),
        (r#"{"tool":"a"} x"#, "trailing"),
        (r#"{"tool":"a""#, "EOF"),
        ("", "must be a JSON object"),
        (r#"["a", 1]"#, "must be a JSON object"),
        ("\u{feff}{}", "must be a JSON object"),
    ] {
        let message = hub.post("/api/role/call", body).await?.error(400, "invalid_argument")?;
        assert!(message.contains(part), "{body}: {message}");
    }
    let answer = hub.post("/api/role/call", Body::from(vec![b'"', 0xff, b'"'])).await?;
    answer.error(400, "invalid_argument")?;
    Ok(())
}

#[tokio::test]
async fn only_json_is_taken_for_json() -> Result<()> {
    let hub = hub()?;
    let send = |kind: Option<&'static str>| {
        let mut request = request("POST", "/api/role/call").header("x-admin-token", TOKEN);
        if let Some(kind) = kind {
            request = request.header("content-type", kind);
        }
        request.body(Body::from(r#"{"tool":"a"}"#))
    };
    for bad in [None, Some("text/plain"), Some("application/x-www-form-urlencoded"), Some("json")] {
        let answer = hub.send(send(bad)?).await?;
        let message = answer.error(415, "unsupported_media_type")?;
        assert!(message.contains("application/json"), "{message}");
    }
    let good = Some("Application/JSON; charset=utf-8");
    assert_eq!(hub.send(send(good)?).await?.status, 200);
    Ok(())
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_with_the_limit_however_it_comes() -> Result<()> {
    let options = Options { max_body_bytes: 2000, ..Options::default() };
    let hub = TestHub::without_database(Setup { options, routes: routes(), ..Setup::default() })?;
    let large = format!(r#"{{"tool":"{}"}}"#, "a".repeat(3000));
    for path in ["/api/role/call", "/api/role/raw"] {
        let announced = hub.send(
            request("POST", path)
                .header("x-admin-token", TOKEN)
                .header("content-type", "application/json")
                .header("content-length", large.len())
                .body(Body::from(large.clone()))?,
        );
        let message = announced.await?.error(413, "payload_too_large")?;
        assert!(message.contains("2000 bytes"), "{message}");
        let chunks: Vec<_> =
            large.as_bytes().chunks(100).map(|c| Ok::<_, std::io::Error>(c.to_vec())).collect();
        let chunked = Body::from_stream(futures_util::stream::iter(chunks));
        let message = hub.post(path, chunked).await?.error(413, "payload_too_large")?;
        assert!(message.contains("2000 bytes"), "{message}");
    }
    let fits = format!(r#"{{"tool":"{}"}}"#, "a".repeat(1989));
    assert_eq!(fits.len(), 2000);
    assert_eq!(hub.post("/api/role/call", fits).await?.status, 200);
    Ok(())
}

#[tokio::test]
async fn headers_over_the_limit_are_refused() -> Result<()> {
    let large = request("GET", "/healthz").header("x-large", "a".repeat(20_000));
    let answer = hub()?.send(large.body(Body::empty())?).await?;
    answer.error(431, "payload_too_large")?;
    Ok(())
}

#[tokio::test]
async fn a_path_parameter_that_does_not_fit_is_named() -> Result<()> {
    let hub = hub()?;
    let uuid = Uuid::now_v7();
    for bad in ["7", "%00", "..", &format!("{{{uuid}}}"), &uuid.simple().to_string()] {
        let path = format!("/api/messages/{}", bad.replace('{', "%7B").replace('}', "%7D"));
        let message = hub.get(&path).await?.error(400, "invalid_argument")?;
        assert_eq!(message, "id: must be a UUID", "{bad}");
    }
    let message = hub.get("/api/traces/7").await?.error(400, "invalid_argument")?;
    assert_eq!(message, "trace_id: must be a UUID");
    hub.get("/api/messages/%ff").await?.error(400, "invalid_argument")?;
    assert_eq!(hub.get("/api/role/x/y%2Fz").await?.text, "y/z");
    Ok(())
}

#[tokio::test]
async fn a_query_that_does_not_fit_is_refused_by_parameter() -> Result<()> {
    let hub = hub()?;
    let id = Uuid::now_v7();
    for (query, part) in [
        ("wait=61s", "wait: must be a time such as 30s, 500ms or 30 (seconds), at most 60s"),
        ("wait=-1", "wait: "),
        ("wait=", "wait: "),
        ("wait=soon", "wait: "),
        ("wait=1&wait=2", "duplicate field `wait`"),
        ("weight=1", "unknown field `weight`, expected `wait`"),
    ] {
        let path = format!("/api/messages/{id}?{query}");
        let message = hub.get(&path).await?.error(400, "invalid_argument")?;
        assert!(message.contains(part), "{query}: {message}");
    }
    for (query, part) in [
        ("limit=0", "limit: must be from 1 to 100"),
        ("limit=101", "limit: must be from 1 to 100"),
        ("limit=x", "limit"),
        ("role=a%20b", "role: must be "),
        ("class=%27%3B--", "class: must be "),
        ("colour=1", "unknown field `colour`"),
        ("tenant=%2A", "tenant: must be "),
        ("service=a/b", "service: must be "),
        ("intent=A", "intent: must be "),
        ("reason=", "reason: must be "),
        ("trace_id=7", "trace_id: "),
        ("since=yesterday", "since: "),
        ("until=1", "until: "),
        (
            "since=2026-01-02T00:00:00Z&until=2026-01-01T00:00:00Z",
            "until: must be later than since",
        ),
        ("role=a&role=b", "role: stands twice"),
        ("limit=1&limit=2", "limit: stands twice"),
    ] {
        let path = format!("/api/dead-letters?{query}");
        let message = hub.get(&path).await?.error(400, "invalid_argument")?;
        assert!(message.contains(part), "{query}: {message}");
    }
    hub.get("/api/dead-letters/7").await?.error(400, "invalid_argument")?;
    hub.get(&format!("/api/dead-letters/{id}?x=1")).await?.error(400, "invalid_argument")?;
    hub.get("/api/status?verbose=1").await?.error(400, "invalid_argument")?;
    Ok(())
}

#[tokio::test]
async fn a_panic_is_answered_without_what_it_said() -> Result<()> {
    let answer = hub()?.get("/api/role/panic").await?;
    answer.error(500, "internal")?;
    assert!(!answer.text.contains("secret"));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_request_that_takes_too_long_is_given_up() -> Result<()> {
    let message = hub()?.get("/api/role/stuck").await?.error(504, "timeout")?;
    assert!(message.contains("30 s"), "{message}");
    Ok(())
}

#[tokio::test]
async fn a_database_that_is_away_is_told_without_its_words() -> Result<()> {
    let hub = hub()?;
    for path in ["/api/status", "/api/dead-letters", &format!("/api/traces/{}", Uuid::now_v7())] {
        let answer = hub.get(path).await?;
        answer.error(503, "unavailable")?;
        assert_eq!(answer.header("retry-after"), "1");
        for word in ["refused", "bus_", "127.0.0.1", "pool", "sql"] {
            assert!(!answer.text.contains(word), "{word}: {}", answer.text);
        }
    }
    Ok(())
}

#[tokio::test]
async fn artifacts_are_read_and_nothing_beside_them() -> Result<()> {
    let hub = hub()?;
    let dir = hub.artifacts.path();
    std::fs::create_dir_all(dir.join("mcp/demo"))?;
    std::fs::write(dir.join("mcp/demo/a b.json"), r#"{"a":1}"#)?;
    std::fs::write(dir.join("mcp/demo/page.html"), "<script>alert(1)</script>")?;
    std::fs::write(dir.join(".secret"), "secret")?;
    let outside = tempfile::tempdir()?;
    std::fs::write(outside.path().join("secret"), "secret")?;
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(outside.path(), dir.join("out"))?;
        std::os::unix::fs::symlink(outside.path().join("secret"), dir.join("mcp/secret"))?;
    }

    let answer = hub.get("/artifacts/mcp/demo/a%20b.json").await?;
    assert_eq!((answer.status.as_u16(), answer.text.as_str()), (200, r#"{"a":1}"#));
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    let page = hub.get("/artifacts/mcp/demo/page.html").await?;
    assert!(page.header("content-security-policy").contains("sandbox"));

    for bad in [
        "/artifacts",
        "/artifacts/",
        "/artifacts/mcp",
        "/artifacts/mcp/",
        "/artifacts/mcp/demo",
        "/artifacts/absent.json",
        "/artifacts/.secret",
        "/artifacts/%2esecret",
        "/artifacts/../secret",
        "/artifacts/%2e%2e/secret",
        "/artifacts/%2e%2e%2fsecret",
        "/artifacts/mcp/../.secret",
        "/artifacts/mcp/..%2f.secret",
        "/artifacts/..%5csecret",
        "/artifacts/mcp%5cdemo%5ca%20b.json",
        "/artifacts/%252e%252e/secret",
        "/artifacts//etc/passwd",
        "/artifacts/%2fetc%2fpasswd",
        "/artifacts/out/secret",
        "/artifacts/mcp/secret",
        "/artifacts/mcp/demo/a%20b.json%00",
        "/artifacts/mcp/demo/a%20b.json/",
    ] {
        let answer = hub.get(bad).await?;
        answer.error(404, "not_found")?;
        assert!(!answer.text.contains("alert") && !answer.text.contains(r#""a":1"#), "{bad}");
    }
    let range = request("GET", "/artifacts/mcp/demo/page.html").header("range", "bytes=999-");
    hub.send(range.body(Body::empty())?).await?.error(416, "invalid_argument")?;
    Ok(())
}

#[tokio::test]
async fn every_answer_keeps_browsers_in_bounds() -> Result<()> {
    let hub = hub()?;
    for path in ["/healthz", "/metrics", "/api/nowhere", "/api/role/x/y", "/api/role/panic"] {
        let answer: Answer = hub.get(path).await?;
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("cache-control", "no-store"),
        ] {
            assert_eq!(answer.header(name), value, "{path}: {name}");
        }
        assert!(answer.header("content-security-policy").starts_with("default-src 'none'"));
    }
    Ok(())
}

#[tokio::test]
async fn what_is_refused_writes_nothing() -> Result<()> {
    let hub = TestHub::new().await?;
    let id = hub.publish().await?;
    let before = hub.written().await?;
    let known = json!({"ids": [id]}).to_string();
    for body in [
        "{}".to_owned(),
        r#"{"ids":[]}"#.to_owned(),
        r#"{"ids":["7"]}"#.to_owned(),
        r#"{"ids":"7"}"#.to_owned(),
        json!({"ids": [id, id]}).to_string(),
        json!({"ids": [id], "why": "x"}).to_string(),
        json!({"ids": [id], "reason": 7}).to_string(),
        json!({"ids": [id], "reason": "a".repeat(201)}).to_string(),
        json!({"ids": [id], "reason": "\0"}).to_string(),
        json!({"ids": vec![Uuid::nil(); 1001]}).to_string(),
    ] {
        let answer = hub.post("/api/dead-letters/requeue", body).await?;
        answer.error(400, "invalid_argument")?;
    }
    let bare = request("POST", "/api/dead-letters/requeue").body(Body::from(known.clone()))?;
    hub.send(bare).await?.error(401, "unauthorized")?;
    // Not a dead letter: told, and left alone.
    let answer = hub.post("/api/dead-letters/requeue", known).await?.json()?;
    assert_eq!(answer["results"][0]["outcome"], "not_allowed");
    assert_eq!(hub.written().await?, before);
    Ok(())
}
