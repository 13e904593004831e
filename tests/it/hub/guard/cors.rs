//! Which pages on the web may call.

use anyhow::Result;
use axum::http::request::Builder;
use cogo::hub::Options;

use crate::hub::{Setup, TOKEN, TestHub, request};

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
