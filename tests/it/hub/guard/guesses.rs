//! Wrong admin tokens.

use anyhow::Result;
use axum::http::StatusCode;
use cogo::hub::{Principals, Routes};

use crate::hub::guard::from;
use crate::hub::{Setup, TOKEN, TestHub};

/// As many as are forgiven within a minute.
const FORGIVEN: usize = 10;

fn open_routes(principals: Principals) -> Routes {
    let ask =
        move |headers: axum::http::HeaderMap| async move { principals.of(&headers).map(|_| "in") };
    Routes::new().get("/mcp/role", ask)
}

fn hub() -> Result<TestHub> {
    // As the gateway's list of tools: where reads are open anybody comes through to it, and it asks who calls.
    let asks = |headers: axum::http::HeaderMap| async move {
        let values = headers.values().filter_map(|value| value.to_str().ok());
        let right = values.map(|value| value.trim_start_matches("Bearer ")).any(|v| v == TOKEN);
        if right { StatusCode::OK } else { StatusCode::UNAUTHORIZED }
    };
    let routes = Routes::new().get("/api/role/asks", asks);
    TestHub::without_database(Setup { open_routes, routes, ..Setup::default() })
}

#[tokio::test]
async fn guessing_is_slow_wherever_a_token_is_taken_and_by_whichever_header() -> Result<()> {
    for (method, path) in [
        ("POST", "/api/dead-letters/drop"),
        ("GET", "/api/session"),
        ("GET", "/mcp/role"),
        ("PUT", "/nowhere"),
        ("GET", "/api/role/asks"),
    ] {
        for header in ["x-admin-token", "authorization"] {
            let hub = hub()?;
            let with = |address: &str, token: &str| {
                let shown = if header == "authorization" {
                    format!("Bearer {token}")
                } else {
                    token.to_owned()
                };
                anyhow::Ok(from(address, method, path)?.header(header, shown))
            };
            for n in 0..FORGIVEN {
                let answer = hub.bare(with("10.0.0.1", &format!("guess-number-{n}"))?).await?;
                assert!([200, 401].contains(&answer.status.as_u16()), "{path}: {answer:?}");
            }
            let answer = hub.bare(with("10.0.0.1", "one-guess-more")?).await?;
            assert!(answer.error(429, "rate_limited")?.contains("wrong admin tokens"));
            assert!(answer.header("retry-after").parse::<u64>()? > 30, "{answer:?}");
            // A right one must not be told from a wrong one now.
            hub.bare(with("10.0.0.1", TOKEN)?).await?.error(429, "rate_limited")?;
            // Whoever shows none is not concerned, and neither is anybody else.
            assert_eq!(hub.bare(from("10.0.0.1", "GET", "/api/session")?).await?.status, 200);
            assert_ne!(hub.bare(with("10.0.0.2", TOKEN)?).await?.status, 429);
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_key_that_is_not_taken_any_more_is_no_guess() -> Result<()> {
    let hub = hub()?;
    for _ in 0..3 * FORGIVEN {
        let request = from("10.0.0.1", "GET", "/mcp/role")?.header("authorization", "Bearer a.b.c");
        hub.bare(request).await?.error(401, "unauthorized")?;
    }
    let request = from("10.0.0.1", "GET", "/api/session")?.header("x-admin-token", TOKEN);
    assert_eq!(hub.bare(request).await?.json()?["admin"], true);
    Ok(())
}

/// A page that was left open over a change of the token goes on reading where that needs none.
#[tokio::test]
async fn what_needs_no_token_is_no_guess() -> Result<()> {
    let hub = hub()?;
    for _ in 0..3 * FORGIVEN {
        let request = from("10.0.0.1", "GET", "/artifacts/none")?.header("x-admin-token", "old");
        assert_eq!(hub.bare(request).await?.status, 404);
    }
    let request = from("10.0.0.1", "GET", "/api/session")?.header("x-admin-token", TOKEN);
    assert_eq!(hub.bare(request).await?.json()?["admin"], true);
    Ok(())
}
