//! Routes that take keys as well as the admin token: who calls, what they may, and what stands before them.

mod operations;

use anyhow::{Context as _, Result};
use axum::Json;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue};
use cogo::hub::{ApiError, Mcp, Options, Principal, Principals, Routes};
use cogo::identity::{Claims, Keys};
use serde_json::{Value, json};

use crate::hub::{Answer, SECRET, Setup, TOKEN, TestHub, request};

/// A key with these claims, good for so many seconds.
fn key(claims: Value, seconds: i64) -> String {
    let mut all = json!({"exp": cogo::clock::utc_now().timestamp() + seconds});
    if let (Value::Object(all), Value::Object(claims)) = (&mut all, claims) {
        all.extend(claims);
    }
    let claims: Claims = serde_json::from_value(all).expect("claims");
    Keys::new(&[SECRET]).expect("a secret").mint(&claims)
}

/// A key of a tenant, for the tests' topic.
fn of(tenant: &str, more: Value) -> String {
    let mut claims = json!({"role": "authenticated", "tenant": tenant, "send": ["hub-test/*"]});
    if let (Value::Object(all), Value::Object(more)) = (&mut claims, more) {
        all.extend(more);
    }
    key(claims, 3600)
}

fn routes(principals: Principals) -> Routes {
    let who = move |headers: HeaderMap| {
        let principals = principals.clone();
        async move {
            let who = principals.of(&headers)?;
            Ok::<_, ApiError>(Json(json!({
                "tenant": who.tenant(), "operator": who.is_operator(), "all": who.is_for_all_tenants(),
                "expires": who.expires(), "debug": format!("{who:?}"),
            })))
        }
    };
    Routes::new()
        .get("/mcp", who.clone())
        .delete("/mcp", who)
        .post("/mcp/body", |body: Bytes| async move { body.len().to_string() })
        .get("/mcp/slow", async || {
            tokio::time::sleep(std::time::Duration::from_millis(1200)).await;
        })
}

fn setup(options: Options) -> Setup {
    Setup { options, open_routes: routes, ..Setup::default() }
}

fn hub() -> Result<TestHub> {
    TestHub::without_database(setup(Options::default()))
}

async fn who(hub: &TestHub, headers: &[(&str, &str)]) -> Result<Answer> {
    let mut request = request("GET", "/mcp");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    hub.send(request.body(Body::empty())?).await
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let pairs = pairs.iter().map(|(name, value)| {
        let name = axum::http::HeaderName::from_static(name);
        (name, HeaderValue::from_str(value).expect("a header value"))
    });
    let mut headers = HeaderMap::new();
    pairs.for_each(|(name, value)| {
        headers.append(name, value);
    });
    headers
}

fn principal(hub: &TestHub, token: &str) -> Principal {
    let bearer = format!("Bearer {token}");
    hub.principals.of(&headers(&[("authorization", &bearer)])).expect("let in")
}

#[tokio::test]
async fn the_admin_and_service_role_are_operators_for_the_tenant_that_they_name() -> Result<()> {
    let hub = hub()?;
    let service = format!("Bearer {}", key(json!({"role": "service_role"}), 3600));
    let bearer = format!("Bearer {TOKEN}");
    for auth in [("x-admin-token", TOKEN), ("authorization", &bearer), ("authorization", &service)]
    {
        let is = who(&hub, &[auth]).await?.json()?;
        assert_eq!(
            (&is["tenant"], &is["operator"], &is["all"]),
            (&json!("default"), &json!(true), &json!(true))
        );
        let is = who(&hub, &[auth, ("x-cogo-tenant", "acme")]).await?.json()?;
        assert_eq!(is["tenant"], "acme");
        for bad in ["", "*", "a/b", "a b"] {
            let refused = who(&hub, &[auth, ("x-cogo-tenant", bad)]).await?;
            assert!(refused.error(400, "invalid_argument")?.starts_with("x-cogo-tenant: "));
        }
        let twice = [auth, ("x-cogo-tenant", "a"), ("x-cogo-tenant", "b")];
        who(&hub, &twice).await?.error(400, "invalid_argument")?;
    }
    let admin = who(&hub, &[("x-admin-token", TOKEN)]).await?.json()?;
    assert_eq!(admin["expires"], json!(null));
    assert!(!admin["debug"].to_string().contains(TOKEN), "{admin}");
    Ok(())
}

#[tokio::test]
async fn a_key_is_for_its_own_tenant() -> Result<()> {
    let hub = hub()?;
    let token = of("acme", json!({}));
    let acme = format!("Bearer {token}");
    let is = who(&hub, &[("authorization", &acme)]).await?.json()?;
    assert_eq!(
        (&is["tenant"], &is["operator"], &is["all"]),
        (&json!("acme"), &json!(false), &json!(false))
    );
    assert!(is["expires"].is_string() && !is.to_string().contains(&token));
    let same = who(&hub, &[("authorization", &acme), ("x-cogo-tenant", "acme")]).await?;
    assert_eq!(same.status, 200);
    let other = who(&hub, &[("authorization", &acme), ("x-cogo-tenant", "globex")]).await?;
    assert!(other.error(403, "forbidden")?.contains("\"acme\""));
    let operator = format!("Bearer {}", of("acme", json!({"operate": true})));
    assert_eq!(who(&hub, &[("authorization", &operator)]).await?.json()?["operator"], true);

    let homeless = format!("Bearer {}", key(json!({"role": "authenticated", "send": ["*"]}), 3600));
    assert!(
        who(&hub, &[("authorization", &homeless)])
            .await?
            .error(403, "forbidden")?
            .contains("--tenant")
    );
    let anon = format!("Bearer {}", key(json!({"role": "anon"}), 3600));
    assert!(
        who(&hub, &[("authorization", &anon)]).await?.error(403, "forbidden")?.contains("anon")
    );
    Ok(())
}

#[tokio::test]
async fn what_is_no_key_of_ours_is_refused_with_a_challenge_and_told_nothing_of() -> Result<()> {
    let hub = hub()?;
    let none = who(&hub, &[]).await?;
    assert!(none.error(401, "unauthorized")?.contains("cogo token mint"));
    assert_eq!(none.header("www-authenticate"), "Bearer");

    let expired = key(json!({"role": "authenticated", "tenant": "acme"}), -120);
    let good = of("acme", json!({}));
    let forged = format!("{}.{}", good.rsplit_once('.').context("parts")?.0, "A".repeat(43));
    let (bearer, basic) = (format!("Bearer {good}"), format!("Basic {good}"));
    let [expired_is, forged_is, wrong] =
        [&expired, &forged, "not-the-token-of-this-hub"].map(|it| format!("Bearer {it}"));
    for (sent, words) in [
        (vec![("authorization", expired_is.as_str())], "expired"),
        (vec![("authorization", &forged_is)], "signature"),
        (vec![("authorization", &wrong)], "JSON Web Token"),
        (vec![("authorization", &basic)], "Bearer <key>"),
        (vec![("authorization", "Bearer ")], "Bearer <key>"),
        (vec![("x-admin-token", "not-the-token-of-this-hub")], "admin token"),
        // A key is none, and the admin token in one header does not mend another.
        (vec![("x-admin-token", good.as_str())], "admin token"),
        (
            vec![("x-admin-token", "wrong-wrong-wrong-wrong"), ("authorization", &bearer)],
            "admin token",
        ),
        (vec![("authorization", &bearer), ("authorization", &bearer)], "once"),
        (vec![("x-admin-token", TOKEN), ("x-admin-token", TOKEN)], "once"),
    ] {
        let answer = who(&hub, &sent).await?;
        let message = answer.error(401, "unauthorized")?;
        assert!(message.contains(words), "{words}: {message}");
        assert!(
            answer.header("www-authenticate").starts_with("Bearer error=\"invalid_token\""),
            "{answer:?}"
        );
        for secret in [&expired, &forged, &good, TOKEN] {
            assert!(
                !answer.text.contains(secret) && !format!("{:?}", answer.headers).contains(secret)
            );
        }
    }
    // An anonymous key in the address, as Realtime takes it, is none here.
    let apikey = request("GET", &format!("/mcp?apikey={good}")).body(Body::empty())?;
    hub.send(apikey).await?.error(401, "unauthorized")?;
    Ok(())
}

#[tokio::test]
async fn pages_must_be_allowed_and_are_told_what_they_may_send_and_read() -> Result<()> {
    let app = "https://app.example.com";
    let options = Options { allowed_origins: vec![app.to_owned()], ..Options::default() };
    let hub = TestHub::without_database(setup(options))?;
    let token = ("x-admin-token", TOKEN);
    assert_eq!(who(&hub, &[token]).await?.status, 200, "whoever is no page");
    assert_eq!(
        who(&hub, &[token, ("origin", "http://localhost:8787")]).await?.status,
        200,
        "its own"
    );
    let page = who(&hub, &[token, ("origin", app)]).await?;
    assert_eq!((page.status.as_u16(), page.header("access-control-allow-origin")), (200, app));
    let exposed = page.header("access-control-expose-headers").to_lowercase();
    assert!(exposed.contains("mcp-session-id") && exposed.contains("mcp-protocol-version"));
    assert!(page.header("vary").to_lowercase().contains("origin"));
    for stranger in ["https://evil.example", "null", "http://localhost:3000"] {
        let refused = who(&hub, &[token, ("origin", stranger)]).await?;
        assert!(refused.error(403, "forbidden")?.contains("allowed_origins"), "{stranger}");
        assert_eq!(refused.header("access-control-allow-origin"), "");
    }

    let ask = |origin: &str, headers: &str| {
        let mut asked = request("OPTIONS", "/mcp")
            .header("origin", origin)
            .header("access-control-request-method", "POST");
        if !headers.is_empty() {
            asked = asked.header("access-control-request-headers", headers);
        }
        asked.body(Body::empty())
    };
    let wanted =
        "authorization,mcp-session-id,mcp-protocol-version,mcp-method,mcp-name,last-event-id";
    for asked in [wanted, ""] {
        let answer = hub.send(ask(app, asked)?).await?;
        assert_eq!(
            (answer.status.as_u16(), answer.header("access-control-allow-origin")),
            (204, app)
        );
        let allowed = answer.header("access-control-allow-headers").to_lowercase();
        assert!(wanted.split(',').all(|name| allowed.contains(name)), "{allowed}");
        assert!(answer.header("access-control-allow-methods").contains("DELETE"));
    }
    hub.send(ask("https://evil.example", "")?).await?.error(403, "forbidden")?;
    Ok(())
}

#[tokio::test]
async fn hosts_and_sizes_are_checked_and_time_is_not() -> Result<()> {
    let options = Options {
        mcp: Mcp { max_body_bytes: 4096, ..Mcp::default() },
        max_body_bytes: 1024,
        request_timeout_s: 1,
        ..Options::default()
    };
    let hub = TestHub::without_database(setup(options))?;
    let rebound = axum::http::Request::get("/mcp")
        .header("host", "evil.example")
        .header("x-admin-token", TOKEN);
    hub.send(rebound.body(Body::empty())?).await?.error(403, "forbidden")?;
    let post = |bytes: usize| request("POST", "/mcp/body").body(Body::from("x".repeat(bytes)));
    assert_eq!(hub.send(post(4096)?).await?.text, "4096");
    let refused = hub.send(post(4097)?).await?.error(413, "payload_too_large")?;
    assert!(refused.contains("4096"), "{refused}");
    assert_eq!(hub.get("/mcp/slow").await?.status, 200, "a stream may last");
    // What no role mounts is an error of the one shape, and what only begins so is the admin's.
    hub.get("/mcp/nowhere").await?.error(404, "not_found")?;
    hub.send(request("PUT", "/mcp").body(Body::empty())?)
        .await?
        .error(405, "method_not_allowed")?;
    hub.send(request("POST", "/mcpx").body(Body::empty())?).await?.error(401, "unauthorized")?;
    assert!(serde_json::from_value::<Options>(json!({"mcp": {"x": 1}})).is_err());
    let small = Options { mcp: Mcp { max_body_bytes: 10, ..Mcp::default() }, ..Options::default() };
    assert!(
        small.validate().is_err_and(|error| error.to_string().starts_with("mcp.max_body_bytes: "))
    );
    Ok(())
}

#[tokio::test]
async fn ids_tell_principals_apart_and_outlive_a_renewed_key() -> Result<()> {
    let hub = hub()?;
    let id = |token: &str| principal(&hub, token).id();
    let acme = of("acme", json!({}));
    let renewed =
        key(json!({"role": "authenticated", "tenant": "acme", "send": ["hub-test/*"]}), 7200);
    assert_ne!(acme, renewed);
    assert_eq!(id(&acme), id(&renewed));
    let others = [
        TOKEN.to_owned(),
        key(json!({"role": "service_role"}), 3600),
        of("globex", json!({})),
        of("acme", json!({"sub": "somebody"})),
        of("acme", json!({"worker": "w"})),
        of("acme", json!({"operate": true})),
        of("acme", json!({"send": ["hub-test/here"]})),
        of("acme", json!({"topics": ["hub-test/*"]})),
    ];
    let mut ids: Vec<_> = others.iter().map(|token| id(token)).chain([id(&acme)]).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), others.len() + 1);
    // One that acts for another tenant is another one, too.
    let for_acme = headers(&[("x-admin-token", TOKEN), ("x-cogo-tenant", "acme")]);
    assert!(!ids.contains(&hub.principals.of(&for_acme).expect("let in").id()));
    Ok(())
}
