//! Who may call which route.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use axum::body::{Body, Bytes};
use cogo::hub::{Options, Policies, RateLimit, Routes};
use cogo::identity::{Claims, Keys, Role};
use serde_json::json;

use crate::hub::guard::{from, path_of};
use crate::hub::{SECRET, Setup, TOKEN, TestHub, request};

fn routes() -> Routes {
    Routes::new()
        .get("/api/role/open", || async { "open" })
        .get("/api/role/read", || async { "read" })
        .post("/api/role/token", || async { "token" })
        .post("/api/role/service", || async { "service" })
        .delete("/api/role/forgotten", || async { "forgotten" })
        .get("/api/role/{name}", |path: cogo::hub::PathParams| async move {
            path.text("name").to_owned()
        })
}

fn policies() -> Result<Policies> {
    let mut policies = Policies::default();
    let own = json!([
        {"methods": ["GET"], "path": "/api/role/open", "who": "public"},
        {"methods": ["GET"], "path": "/api/role/read", "who": "reader"},
        {"methods": ["POST"], "path": "/api/role/token", "who": "token"},
        {"methods": ["POST"], "path": "/api/role/service", "who": "role:service_role"},
        {"methods": ["GET"], "path": "/api/role/{name}", "who": "admin"},
    ]);
    policies.routes.extend(serde_json::from_value::<Vec<_>>(own)?);
    Ok(policies)
}

fn hub(require_admin: bool) -> Result<TestHub> {
    let options = Options {
        require_admin_for_non_get: require_admin,
        open_reads: Some(false),
        ..Options::default()
    };
    let policies = Some(policies()?);
    TestHub::without_database(Setup { options, policies, routes: routes(), ..Setup::default() })
}

fn key(role: Role) -> Result<String> {
    let mut claims = Claims::new(role, cogo::clock::utc_now().timestamp() + 3600);
    claims.tenant = Some("default".to_owned());
    Ok(format!("Bearer {}", Keys::new(&[SECRET])?.mint(&claims)))
}

#[tokio::test]
async fn each_route_lets_in_whom_its_policy_says_and_nobody_else() -> Result<()> {
    let hub = hub(false)?;
    let (service, worker) = (key(Role::ServiceRole)?, key(Role::Authenticated)?);
    let admin = format!("Bearer {TOKEN}");
    let all = ["", "Bearer a.b.c", &worker, &service, &admin];
    for (method, path, wanted) in [
        ("GET", "/api/role/open", [200, 200, 200, 200, 200]),
        ("HEAD", "/api/role/open", [200, 200, 200, 200, 200]),
        ("GET", "/api/role/read", [401, 401, 401, 401, 200]),
        ("GET", "/api/role/other", [401, 401, 401, 401, 200]),
        ("POST", "/api/role/token", [401, 401, 200, 200, 200]),
        ("POST", "/api/role/service", [401, 401, 403, 200, 200]),
        ("DELETE", "/api/role/forgotten", [403, 403, 403, 403, 403]),
    ] {
        for (shown, status) in all.iter().zip(wanted) {
            let mut request = request(method, path);
            if !shown.is_empty() {
                request = request.header("authorization", *shown);
            }
            let answer = hub.bare(request).await?;
            assert_eq!(answer.status, status, "{method} {path} {shown}: {}", answer.text);
        }
    }
    Ok(())
}

#[tokio::test]
async fn without_a_word_to_the_contrary_all_but_reads_is_the_admins() -> Result<()> {
    let hub = hub(true)?;
    for path in ["/api/role/token", "/api/role/service"] {
        let with_key = request("POST", path).header("authorization", key(Role::ServiceRole)?);
        hub.bare(with_key).await?.error(401, "unauthorized")?;
        let answer = hub.bare(request("POST", path).header("x-admin-token", TOKEN)).await?;
        assert_eq!(answer.status, 200);
    }
    Ok(())
}

#[tokio::test]
async fn a_route_without_a_policy_is_refused_with_the_remedy() -> Result<()> {
    let hub = hub(true)?;
    let request = request("DELETE", "/api/role/forgotten").header("x-admin-token", TOKEN);
    let message = hub.bare(request).await?.error(403, "forbidden")?;
    for part in
        ["route_policies.json", r#""methods": ["DELETE"]"#, r#""path": "/api/role/forgotten""#]
    {
        assert!(message.contains(part), "{message}");
    }
    Ok(())
}

#[tokio::test]
async fn no_spelling_of_a_path_borrows_another_routes_policy() -> Result<()> {
    let hub = hub(true)?;
    for path in [
        "/api/role/%6fpen",
        "/api/role/open%2f",
        "/api/role/open/",
        "/api/role/./open",
        "/api/role/x/../open",
        "//api/role/open",
        "/API/role/open",
        "/api/role/open%00",
        "/api/role/open;x",
        "/healthz/../api/role/read",
    ] {
        let answer = hub.bare(request("GET", path)).await?;
        assert_eq!(answer.status, 401, "{path}: {}", answer.text);
    }
    Ok(())
}

#[tokio::test]
async fn it_is_decided_before_any_of_the_body_is_read() -> Result<()> {
    let touched = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&touched);
    let body = futures_util::stream::poll_fn(move |_| {
        seen.store(true, Ordering::SeqCst);
        std::task::Poll::Ready(Some(Ok::<_, std::io::Error>(Bytes::from_static(b"x"))))
    });
    let request = request("POST", "/api/role/token").body(Body::from_stream(body))?;
    hub(true)?.send(request).await?.error(401, "unauthorized")?;
    assert!(!touched.load(Ordering::SeqCst));
    Ok(())
}

/// The hub alone; the gateway's tests do the same for all there is.
#[tokio::test]
async fn every_route_of_the_hub_has_a_policy_and_changes_nothing_without_credentials() -> Result<()>
{
    let options = Options { open_reads: Some(false), ..Options::default() };
    let hub = TestHub::without_database(Setup { options, ..Setup::default() })?;
    assert_eq!(Policies::default().uncovered(&hub.routes), []);
    for route in &hub.routes {
        let method = if route.method == "*" { "POST" } else { route.method };
        if matches!(method, "GET" | "OPTIONS") {
            continue;
        }
        let answer = hub.bare(request(method, &path_of(route.path))).await?;
        let refused = [401, 404, 405].contains(&answer.status.as_u16());
        assert!(refused, "{route}: {answer:?}");
    }
    Ok(())
}

/// A hub on loopback behind a proxy of the same machine, which calls it by its address.
#[tokio::test]
async fn a_proxy_on_the_hubs_machine_opens_reads_to_nobody() -> Result<()> {
    for (open_reads, by_itself, for_another) in
        [(None, true, false), (Some(true), true, true), (Some(false), false, false)]
    {
        let trusted_proxies = vec!["127.0.0.1".to_owned()];
        for trusted_proxies in [Vec::new(), trusted_proxies] {
            let rate_limit = RateLimit { trusted_proxies, ..RateLimit::default() };
            let options = Options { open_reads, rate_limit, ..Options::default() };
            let hub = TestHub::without_database(Setup { options, ..Setup::default() })?;
            for (header, reads) in [
                (None, by_itself),
                (Some(("x-forwarded-for", "203.0.113.9")), for_another),
                (Some(("x-forwarded-for", "127.0.0.1")), for_another),
                (Some(("forwarded", "for=203.0.113.9")), for_another),
                (Some(("x-forwarded-proto", "https")), for_another),
            ] {
                let ask = |path| -> Result<_> {
                    let request = from("127.0.0.1", "GET", path)?;
                    Ok(match header {
                        Some((name, value)) => request.header(name, value),
                        None => request,
                    })
                };
                let what = format!("{open_reads:?} {header:?}");
                let read = hub.bare(ask("/artifacts/nothing.json")?).await?;
                assert_eq!(read.status, if reads { 404 } else { 401 }, "{what}");
                let told = hub.bare(ask("/api/session")?).await?.json()?;
                assert_eq!(told["reads"], reads, "{what}");
                let token = ask("/artifacts/nothing.json")?.header("x-admin-token", TOKEN);
                assert_eq!(hub.bare(token).await?.status, 404, "{what}");
            }
        }
    }
    Ok(())
}
