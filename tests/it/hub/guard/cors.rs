//! Which pages on the web may call.

use anyhow::{Result, bail};
use axum::body::{Body, Bytes};
use axum::http::request::Builder;
use cogo::hub::{Options, Rate, RateLimit};
use cogo::identity::{Claims, Keys};
use futures_util::stream;
use serde_json::json;

use crate::hub::guard::from;
use crate::hub::{Answer, SECRET, Setup, TOKEN, TestHub, request};

const PAGE: &str = "https://app.example.com";

fn hub(api_origins: &[&str]) -> Result<TestHub> {
    let api_origins = api_origins.iter().map(|origin| (*origin).to_owned()).collect();
    // These are for the protocols alone.
    let allowed_origins = vec!["*".to_owned()];
    let options = Options { api_origins, allowed_origins, ..Options::default() };
    TestHub::without_database(Setup { options, ..Setup::default() })
}

fn preflight(path: &str, origin: &str) -> Builder {
    request("OPTIONS", path)
        .header("origin", origin)
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "x-admin-token")
}

#[tokio::test]
async fn no_page_reads_the_api_unless_it_is_named() -> Result<()> {
    for origin in [PAGE, "null", "http://localhost:8787"] {
        for hub in [hub(&[])?, hub(&["https://other.example.com"])?] {
            let answer = hub.bare(request("GET", "/healthz").header("origin", origin)).await?;
            assert_eq!(answer.status, 200);
            assert!(!answer.headers.contains_key("access-control-allow-origin"), "{answer:?}");
            let asked = hub.bare(preflight("/api/dead-letters/drop", origin)).await?;
            assert!(asked.error(403, "forbidden")?.contains("api_origins"));
            assert!(!asked.headers.contains_key("access-control-allow-origin"));
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_page_that_is_named_may_ask_and_read_what_it_is_answered() -> Result<()> {
    let hub = hub(&[PAGE])?;
    let asked = hub.bare(preflight("/api/dead-letters/drop", PAGE)).await?;
    assert_eq!(asked.status, 204);
    assert_eq!(asked.header("access-control-allow-origin"), PAGE);
    assert!(asked.header("access-control-allow-methods").contains("DELETE"));
    assert_eq!(asked.header("access-control-allow-headers"), "x-admin-token");
    // Refusals as well: a page must be able to say what is wrong.
    for (answer, status) in [
        (hub.bare(request("GET", "/healthz").header("origin", PAGE)).await?, 200),
        (hub.bare(request("POST", "/api/dead-letters/drop").header("origin", PAGE)).await?, 401),
    ] {
        assert_eq!(
            (answer.status.as_u16(), answer.header("access-control-allow-origin")),
            (status, PAGE)
        );
        assert_eq!(answer.header("vary"), "Origin");
        assert!(!answer.headers.contains_key("access-control-allow-credentials"));
    }
    let stranger = request("GET", "/healthz").header("origin", "https://evil.example");
    let answer = hub.bare(stranger.header("x-admin-token", TOKEN)).await?;
    assert!(!answer.headers.contains_key("access-control-allow-origin"));
    assert_eq!(answer.header("vary"), "Origin", "a cache must not mix them up");
    Ok(())
}

#[tokio::test]
async fn the_protocols_take_a_wildcard_and_never_credentials() -> Result<()> {
    let answer = hub(&[])?.bare(preflight("/rest/v1/x", PAGE)).await?;
    assert_eq!((answer.status.as_u16(), answer.header("access-control-allow-origin")), (204, PAGE));
    assert!(!answer.headers.contains_key("access-control-allow-credentials"));
    Ok(())
}

/// A hub that a page may call everywhere.
fn hub_of_the_page(rate_limit: RateLimit) -> Result<TestHub> {
    let pages = vec![PAGE.to_owned()];
    let options = Options {
        api_origins: pages.clone(),
        allowed_origins: pages,
        rate_limit,
        ..Options::default()
    };
    TestHub::without_database(Setup { options, ..Setup::default() })
}

#[track_caller]
fn assert_that_the_page_reads(answer: &Answer, status: u16, path: &str) {
    let seen = (answer.status.as_u16(), answer.header("access-control-allow-origin"));
    assert_eq!(seen, (status, PAGE), "{path}: {answer:?}");
    assert!(answer.header("access-control-expose-headers").contains("Retry-After"), "{path}");
    let vary: Vec<_> = answer.headers.get_all("vary").iter().collect();
    assert_eq!(vary, ["Origin"], "{path}");
}

/// The refusal of a page whose address has asked too much.
async fn refused(hub: &TestHub, path: &str, origin: &str) -> Result<Answer> {
    for _ in 0..100 {
        let answer = hub.bare(from("10.0.0.1", "GET", path)?.header("origin", origin)).await?;
        if answer.status == 429 {
            return Ok(answer);
        }
    }
    bail!("{path}: never refused")
}

#[tokio::test]
async fn a_page_reads_that_it_asks_too_much() -> Result<()> {
    // So few that no time that a test takes matters.
    let per_address = Some(Rate { per_second: 1, burst: 5 });
    let hub = hub_of_the_page(RateLimit { per_address, ..RateLimit::default() })?;
    for path in ["/nowhere", "/rest/v1/x", "/realtime/v1/x", "/mcp/x"] {
        assert_that_the_page_reads(&refused(&hub, path, PAGE).await?, 429, path);
        let stranger = refused(&hub, path, "https://evil.example").await?;
        assert!(!stranger.headers.contains_key("access-control-allow-origin"), "{path}");
    }
    Ok(())
}

#[tokio::test]
async fn a_page_reads_answers_that_are_told_anew() -> Result<()> {
    let hub = hub_of_the_page(RateLimit::default())?;
    let nowhere = request("GET", "/nowhere").header("origin", PAGE);
    assert_that_the_page_reads(&hub.bare(nowhere).await?, 404, "/nowhere");
    for (method, path) in [
        ("POST", "/api/dead-letters/requeue"),
        ("POST", "/rest/v1/rpc/bus_claim"),
        ("PUT", "/mcp/artifacts/acme/x"),
    ] {
        let large = request(method, path)
            .header("origin", PAGE)
            .header("x-admin-token", TOKEN)
            .header("content-length", "999999999");
        assert_that_the_page_reads(&hub.bare(large).await?, 413, path);
    }
    Ok(())
}

/// Time passes when nobody has anything to do.
#[tokio::test(start_paused = true)]
async fn a_page_reads_that_no_answer_came_in_time() -> Result<()> {
    let hub = hub_of_the_page(RateLimit::default())?;
    let expires = cogo::clock::utc_now().timestamp() + 3600;
    let claims: Claims = serde_json::from_value(json!({"role": "service_role", "exp": expires}))?;
    let key = Keys::new(&[SECRET])?.mint(&claims);
    let path = "/rest/v1/rpc/bus_claim";
    let never = Body::from_stream(stream::pending::<std::io::Result<Bytes>>());
    let request = request("POST", path)
        .header("origin", PAGE)
        .header("content-type", "application/json")
        .header("authorization", format!("Bearer {key}"));
    let answer = hub.send(request.body(never)?).await?;
    assert_that_the_page_reads(&answer, 504, path);
    Ok(())
}
