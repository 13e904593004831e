//! `POST /api/mcp/{toolset}/{tool}`.

use serde_json::json;

use super::site::{Site, TOKEN};
use crate::support::asks::Asks;
use crate::support::text;

#[tokio::test]
async fn a_tool_is_called_and_its_result_answered() {
    let site = Site::new().await;
    let _machine = site.demo().await;
    let trace = "4bf92f35-77b3-4da6-a3ce-929d0e0e4736";
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let headers = [("idempotency-key", "k-1"), ("traceparent", parent), ("x-trace-id", trace)];
    let answer = site.post("/api/mcp/demo/add?wait=20", json!({"a": 1, "b": 2}), &headers).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json["ok"], true);
    assert_eq!(answer.json["result"]["structuredContent"], json!({"sum": 3.0}));
    assert_eq!(
        (&answer.json["trace_id"], &answer.json["duplicate"]),
        (&json!(trace), &json!(false))
    );
    assert_eq!(answer.header("x-trace-id"), Some(trace));
    assert_eq!(answer.header("idempotency-key"), Some("k-1"));
    assert_eq!(answer.header("traceparent"), Some(parent));
    let again = site.post("/api/mcp/demo/add", json!({"a": 1, "b": 2}), &headers).await;
    assert_eq!((again.status, &again.json["id"]), (200, &answer.json["id"]));
    assert_eq!(
        (&again.json["duplicate"], &again.json["result"]),
        (&json!(true), &answer.json["result"])
    );
    let other = site.post("/api/mcp/demo/add", json!({"a": 1, "b": 3}), &headers).await;
    assert_eq!((other.status, &other.json["error"]), (409, &json!("conflict")), "{other:?}");
    // A tool that says that it failed has answered.
    let failed = site.post("/api/mcp/demo/fail", json!({"message": "no"}), &[]).await;
    assert_eq!((failed.status, &failed.json["result"]["isError"]), (200, &json!(true)));
    assert_eq!(text(&failed.json["result"]), "no");
}

#[tokio::test]
async fn who_does_not_wait_is_told_where_to_look() {
    let site = Site::new().await;
    let _machine = site.demo().await;
    let slow = json!({"ms": 1500});
    for (path, headers, applied) in [
        ("/api/mcp/demo/sleep", vec![("prefer", "respond-async")], Some("respond-async")),
        (
            "/api/mcp/demo/sleep",
            vec![("prefer", "respond-async, wait=1")],
            Some("respond-async, wait=1"),
        ),
        ("/api/mcp/demo/sleep", vec![("prefer", "wait=1")], Some("wait=1")),
        ("/api/mcp/demo/sleep?wait=0", vec![], None),
        ("/api/mcp/demo/sleep?wait=100ms", vec![("prefer", "wait=9")], None),
    ] {
        let answer = site.post(path, slow.clone(), &headers).await;
        assert_eq!(answer.status, 202, "{answer:?}");
        let id = answer.json["id"].as_str().expect("an id");
        assert_eq!(answer.header("location"), Some(&*format!("/api/messages/{id}")));
        assert_eq!(answer.header("preference-applied"), applied, "{path} {headers:?}");
    }
    // What is there within the time is answered at once, and then nothing was asynchronous.
    let headers = [("prefer", "respond-async, wait=20")];
    let quick = site.post("/api/mcp/demo/echo", json!({"message": "x"}), &headers).await;
    assert_eq!((quick.status, quick.header("preference-applied")), (200, Some("wait=20")));
    assert_eq!(quick.header("location"), None);
    let id = quick.json["id"].as_str().expect("an id");
    let message = site.send("GET", &format!("/api/messages/{id}"), "", &[]).await;
    assert_eq!(message.json["message"]["result"], quick.json["result"]);
}

#[tokio::test]
async fn what_cannot_be_done_is_answered_with_the_code_that_fits() {
    let (site, asks) = (Site::new().await, Asks::start().await);
    let _machine = site.machine(&[("asks", &asks.url)]).await;
    let demo = site.demo().await;
    let wrong = site.post("/api/mcp/demo/add", json!({"a": 1, "b": "x"}), &[]).await;
    assert_eq!((wrong.status, &wrong.json["pointer"]), (400, &json!("/b")), "{wrong:?}");
    assert!(wrong.json["message"].as_str().is_some_and(|m| m.starts_with("/b: ")), "{wrong:?}");
    let unknown = site.post("/api/mcp/demo/ad", json!({}), &[]).await;
    assert_eq!((unknown.status, &unknown.json["near"]), (404, &json!(["demo__add"])));
    let error = site.post("/api/mcp/asks/error", json!({}), &[]).await;
    let rpc = json!({"code": -32050, "message": "no", "data": {"why": [1, 2]}});
    assert_eq!((error.status, &error.json["rpc"]), (502, &rpc), "{error:?}");
    for (path, body, headers, status, field) in [
        ("/api/mcp/demo/add?wait=1h", "{}", vec![], 400, "wait"),
        ("/api/mcp/demo/add?wiat=1", "{}", vec![], 400, "query"),
        ("/api/mcp/demo/add", "[1]", vec![], 400, "body"),
        ("/api/mcp/demo/add", r#"{"a":1,"a":2}"#, vec![], 400, ""),
        ("/api/mcp/demo/add", "{}", vec![("x-trace-id", "x")], 400, "x-trace-id"),
        ("/api/mcp/demo/add", "{}", vec![("x-cogo-tenant", "a b")], 400, "x-cogo-tenant"),
        (
            "/api/mcp/demo/echo",
            r#"{"message":"x"}"#,
            vec![("idempotency-key", "")],
            400,
            "idempotency_key",
        ),
    ] {
        let mut all = vec![("x-admin-token", TOKEN), ("content-type", "application/json")];
        all.extend(headers);
        let answer = site.send("POST", path, body, &all).await;
        assert_eq!(answer.status, status, "{path} {body}: {answer:?}");
        let message = answer.json["message"].as_str().expect("a message");
        assert!(message.to_lowercase().starts_with(field), "{message}");
        assert_eq!(answer.json["ok"], false);
    }
    let nobody =
        site.send("POST", "/api/mcp/demo/add", "{}", &[("content-type", "application/json")]).await;
    assert_eq!(nobody.status, 401);
    let elsewhere = site
        .post("/api/mcp/demo/echo", json!({"message": "x"}), &[("x-cogo-tenant", "other")])
        .await;
    assert_eq!(elsewhere.status, 404, "no machine of that tenant offers it");
    demo.leave().await;
    let late = site.post("/api/mcp/demo/echo?deadline_ms=300", json!({"message": "x"}), &[]).await;
    assert_eq!((late.status, &late.json["class"]), (504, &json!("deadline_exceeded")), "{late:?}");
    assert!(late.json["id"].is_string() && late.json["may_have_run"] == false, "{late:?}");
}

#[tokio::test]
async fn a_full_queue_says_when_to_try_again() {
    let site = Site::new().await;
    site.demo().await.leave().await;
    let limits = json!({"tenants": {"default": {"max_queued": 1}}});
    let limits = serde_json::from_value(limits).expect("limits");
    cogo::hub::apply_limits(&site.bus, &limits).await.expect("applied");
    let body = json!({"message": "x"});
    let first = site.post("/api/mcp/demo/echo?wait=0", body.clone(), &[]).await;
    assert_eq!(first.status, 202, "{first:?}");
    let second = site.post("/api/mcp/demo/echo?wait=0", body, &[]).await;
    assert_eq!((second.status, &second.json["error"]), (429, &json!("rate_limited")), "{second:?}");
    assert!(second.header("retry-after").is_some() && second.json["retry_after_ms"].is_u64());
}

#[tokio::test]
async fn the_tools_of_the_bus_are_called_as_any_other() {
    let site = Site::new().await;
    let workers = site.post("/api/mcp/cogo/list_workers", json!({}), &[]).await;
    assert_eq!(
        (workers.status, &workers.json["result"]["isError"]),
        (200, &json!(false)),
        "{workers:?}"
    );
    let wrong = site.post("/api/mcp/cogo/get_message", json!({"id": 7}), &[]).await;
    assert_eq!((wrong.status, &wrong.json["pointer"]), (400, &json!("/id")), "{wrong:?}");
    assert_eq!(site.post("/api/mcp/cogo/nonsense", json!({}), &[]).await.status, 404);
    assert_eq!(site.messages().await, 0);
}

#[tokio::test]
async fn the_older_routes_still_answer() {
    let site = Site::new().await;
    let _machine = site.demo().await;
    assert_eq!(site.send("GET", "/api/mcp/health", "", &[]).await.status, 200);
    let admin = [("x-admin-token", TOKEN)];
    assert_eq!(site.send("GET", "/api/mcp/config", "", &admin).await.status, 200);
    assert_eq!(site.send("GET", "/api/mcp/demo/echo", "", &admin).await.status, 405);
    assert_eq!(site.send("GET", "/api/mcp/ping/demo/echo", "", &admin).await.status, 404);
    // This hub has no server of its own; the toolset is another machine's.
    let body = json!({"toolset": "demo", "tool": "echo", "params": {"message": "x"}});
    let taken = site.post("/api/mcp/enqueue", body, &[]).await;
    assert_eq!(taken.status, 202, "{taken:?}");
    let nowhere =
        site.post("/api/mcp/enqueue", json!({"toolset": "nowhere", "tool": "x"}), &[]).await;
    assert_eq!(nowhere.status, 404, "{nowhere:?}");
}
