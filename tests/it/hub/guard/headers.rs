//! The headers of every answer.

use anyhow::{Context, Result};
use axum::response::IntoResponse;
use cogo::hub::{Options, Routes};

use crate::hub::guard::{from, path_of};
use crate::hub::{Answer, Setup, TOKEN, TestHub, request};

/// What a page of the hub's own would say.
const OWN: &str = "default-src 'none'; script-src 'self'";

fn routes() -> Routes {
    Routes::new().get("/api/role/panic", panics).get("/api/role/page", || async {
        ([("content-security-policy", OWN)], "page").into_response()
    })
}

async fn panics() {
    panic!("on purpose");
}

fn checked(answer: &Answer, what: &str) -> Result<()> {
    for (name, value) in [
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
        ("origin-agent-cluster", "?1"),
        ("referrer-policy", "no-referrer"),
        ("x-content-type-options", "nosniff"),
        ("x-dns-prefetch-control", "off"),
        ("x-download-options", "noopen"),
        ("x-frame-options", "DENY"),
        ("x-permitted-cross-domain-policies", "none"),
        ("x-xss-protection", "0"),
    ] {
        anyhow::ensure!(answer.header(name) == value, "{what}: {name}: {answer:?}");
        anyhow::ensure!(answer.headers.get_all(name).iter().count() == 1, "{what}: {name} twice");
    }
    anyhow::ensure!(answer.header("permissions-policy").contains("camera=()"), "{what}");
    anyhow::ensure!(
        answer.header("content-security-policy").starts_with("default-src 'none'"),
        "{what}"
    );
    for name in ["x-powered-by", "server", "strict-transport-security"] {
        anyhow::ensure!(!answer.headers.contains_key(name), "{what}: {name}: {answer:?}");
    }
    Ok(())
}

#[tokio::test]
async fn every_answer_of_every_route_has_them() -> Result<()> {
    let hub = TestHub::without_database(Setup { routes: routes(), ..Setup::default() })?;
    for route in &hub.routes {
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"]
        {
            for token in [None, Some(TOKEN)] {
                let mut request = request(method, &path_of(route.path));
                if let Some(token) = token {
                    request = request.header("x-admin-token", token);
                }
                let what = format!("{method} {}", route.path);
                checked(&hub.bare(request).await.context(what.clone())?, &what)?;
            }
        }
    }
    let nowhere = hub.get("/nowhere").await?;
    nowhere.error(404, "not_found")?;
    checked(&nowhere, "404")?;
    let large = hub.bare(request("GET", "/healthz").header("x-large", "a".repeat(20_000))).await?;
    large.error(431, "payload_too_large")?;
    checked(&large, "431")?;
    let foreign = axum::http::Request::get("/healthz").header("host", "evil.example");
    let foreign = hub.bare(foreign).await?;
    foreign.error(403, "forbidden")?;
    checked(&foreign, "403")
}

#[tokio::test]
async fn what_a_handler_says_of_its_own_page_stands() -> Result<()> {
    let hub = TestHub::without_database(Setup { routes: routes(), ..Setup::default() })?;
    let page = hub.get("/api/role/page").await?;
    checked(&page, "page")?;
    assert_eq!(page.header("content-security-policy"), OWN);
    Ok(())
}

#[tokio::test]
async fn browsers_are_told_to_keep_to_tls_where_there_is_tls() -> Result<()> {
    let told = |options: Options, forwarded: bool| async move {
        let hub = TestHub::without_database(Setup { options, ..Setup::default() })?;
        let mut request = from("10.0.0.1", "GET", "/healthz")?;
        if forwarded {
            request = request.header("x-forwarded-proto", "https");
        }
        let answer = hub.bare(request).await?;
        anyhow::Ok(answer.headers.contains_key("strict-transport-security"))
    };
    let mut trusting = Options::default();
    trusting.rate_limit.trusted_proxies = vec!["10.0.0.0/8".to_owned()];
    assert!(!told(Options::default(), true).await?, "anybody may say so");
    assert!(told(trusting.clone(), true).await?);
    assert!(!told(trusting, false).await?);
    assert!(told(Options { tls_terminated: true, ..Options::default() }, false).await?);
    Ok(())
}
