//! `/mcp/artifacts/{tenant}/{sha256}`: who may put and get what, and how it is given.

use std::io;
use std::time::Duration;

use anyhow::Result;
use axum::body::{Body, Bytes};
use axum::http::Request;
use cogo::artifact::Digest;
use cogo::hub::{Mcp, Options};
use cogo::identity::{Claims, Keys};
use futures_util::future::join_all;
use futures_util::stream;
use serde_json::{Value, json};

use super::{Answer, SECRET, Setup, TOKEN, TestHub};

fn key(claims: Value) -> String {
    let mut all =
        json!({"exp": cogo::clock::utc_now().timestamp() + 3600, "role": "authenticated"});
    if let (Value::Object(all), Value::Object(claims)) = (&mut all, claims) {
        all.extend(claims);
    }
    let claims: Claims = serde_json::from_value(all).expect("claims");
    Keys::new(&[SECRET]).expect("a secret").mint(&claims)
}

fn worker(tenant: &str) -> String {
    key(json!({"tenant": tenant, "worker": "w", "topics": ["mcp-gateway/*"]}))
}

async fn hub() -> Result<TestHub> {
    let mcp = Mcp { max_artifact_bytes: 5 << 20, ..Mcp::default() };
    TestHub::without_database(Setup {
        options: Options { mcp, ..Options::default() },
        ..Setup::default()
    })
}

async fn send(
    hub: &TestHub,
    method: &str,
    path: &str,
    key: &str,
    mime: &str,
    body: impl Into<Body>,
) -> Result<Answer> {
    let request = Request::builder()
        .method(method)
        .uri(format!("/mcp/artifacts/{path}"))
        .header("host", "127.0.0.1:8787")
        .header("content-type", mime)
        .header("authorization", format!("Bearer {key}"));
    hub.send(request.body(body.into())?).await
}

#[tokio::test]
async fn a_worker_puts_and_its_tenant_gets() -> Result<()> {
    let hub = hub().await?;
    let page = "<script>alert(1)</script>";
    let digest = Digest::of(page.as_bytes());
    let path = format!("acme/{digest}");
    let put = send(&hub, "PUT", &path, &worker("acme"), "text/html", page).await?;
    assert_eq!(put.status, 201, "{put:?}");
    assert_eq!(put.json()?["uri"], format!("cogo://artifacts/acme/{digest}"));
    let client = key(json!({"tenant": "acme", "send": ["mcp-gateway/*"]}));
    let service = key(json!({"role": "service_role"}));
    for key in [&worker("acme"), &client, &service, TOKEN] {
        let got = send(&hub, "GET", &path, key, "", "").await?;
        assert_eq!((got.status.as_u16(), got.text.as_str()), (200, page), "{got:?}");
        assert_eq!(got.header("content-type"), "text/html");
        assert_eq!(got.header("x-content-type-options"), "nosniff");
        assert!(got.header("content-disposition").starts_with("attachment"), "{got:?}");
        assert!(got.header("content-security-policy").contains("sandbox"), "{got:?}");
    }
    Ok(())
}

#[tokio::test]
async fn another_tenant_and_whoever_is_no_worker_are_refused_before_anything_is_looked_for()
-> Result<()> {
    let hub = hub().await?;
    let digest = Digest::of(b"x");
    let path = format!("acme/{digest}");
    send(&hub, "PUT", &path, &worker("acme"), "text/plain", "x").await?.json()?;
    for method in ["GET", "PUT"] {
        let other = send(&hub, method, &path, &worker("other"), "text/plain", "x").await?;
        other.error(403, "forbidden")?;
        let absent = format!("acme/{}", Digest::of(b"absent"));
        let same = send(&hub, method, &absent, &worker("other"), "text/plain", "x").await?;
        same.error(403, "forbidden")?;
        send(&hub, method, &path, "nonsense", "text/plain", "x")
            .await?
            .error(401, "unauthorized")?;
    }
    let client = key(json!({"tenant": "acme", "send": ["mcp-gateway/*"]}));
    let told =
        send(&hub, "PUT", &path, &client, "text/plain", "x").await?.error(403, "forbidden")?;
    assert!(told.contains("--worker"), "{told}");
    let anon = key(json!({"role": "anon"}));
    send(&hub, "GET", &path, &anon, "", "").await?.error(403, "forbidden")?;
    Ok(())
}

#[tokio::test]
async fn what_is_wrong_too_large_or_no_name_is_refused() -> Result<()> {
    let hub = hub().await?;
    let key = worker("acme");
    let put =
        async |path: &str, body: String| send(&hub, "PUT", path, &key, "text/plain", body).await;
    let digest = Digest::of(b"x");
    put(&format!("acme/{digest}"), "y".to_owned()).await?.error(400, "invalid_argument")?;
    let large = "z".repeat((5 << 20) + 1);
    let told = put(&format!("acme/{}", Digest::of(large.as_bytes())), large).await?;
    told.error(413, "payload_too_large")?;
    let fits = "z".repeat(5 << 20);
    let kept = put(&format!("acme/{}", Digest::of(fits.as_bytes())), fits).await?;
    assert_eq!(kept.status, 201, "more than other bodies of /mcp may have: {kept:?}");
    for path in [
        "acme/abc".to_owned(),
        format!("acme/{}", digest.to_string().to_uppercase()),
        "acme/..%2f..%2fetc%2fpasswd".to_owned(),
    ] {
        put(&path, "x".to_owned()).await?.error(400, "invalid_argument")?;
    }
    let operators =
        send(&hub, "PUT", &format!("..%2fx/{digest}"), TOKEN, "text/plain", "x").await?;
    operators.error(400, "invalid_argument")?;
    let absent = send(&hub, "GET", &format!("acme/{}", Digest::of(b"no")), &key, "", "").await?;
    absent.error(404, "not_found")?;
    Ok(())
}

/// Time passes when nobody has anything to do.
#[tokio::test(start_paused = true)]
async fn uploads_that_do_not_get_on_are_given_up_and_keep_no_other_tenant_from_theirs() -> Result<()>
{
    let hub = hub().await?;
    let (stalls, path) = (worker("acme"), format!("acme/{}", Digest::of(b"x")));
    let stalled = join_all((0..20).map(|_| {
        let never = Body::from_stream(stream::pending::<io::Result<Bytes>>());
        send(&hub, "PUT", &path, &stalls, "text/plain", never)
    }));
    let (theirs, at) = (worker("other"), format!("other/{}", Digest::of(b"y")));
    let other = send(&hub, "PUT", &at, &theirs, "text/plain", "y");
    let (stalled, other) = tokio::join!(stalled, other);
    assert_eq!(other?.status, 201);
    let (mut given_up, mut refused) = (0, 0);
    for answer in stalled {
        let answer = answer?;
        match answer.status.as_u16() {
            504 => given_up += 1,
            503 => refused += 1,
            _ => panic!("{answer:?}"),
        }
    }
    assert_eq!((given_up, refused), (6, 14), "of eight places three quarters");
    // They were given back.
    assert_eq!(send(&hub, "PUT", &path, &stalls, "text/plain", "x").await?.status, 201);
    Ok(())
}

async fn put_slowly(hub: &TestHub, key: &str, n: u8) -> Result<Answer> {
    let bytes = Bytes::from(n.to_string());
    let path = format!("acme/{}", Digest::of(&bytes));
    let slowly = stream::once(async move {
        tokio::time::sleep(Duration::from_secs(2)).await;
        io::Result::Ok(bytes)
    });
    send(hub, "PUT", &path, key, "text/plain", Body::from_stream(slowly)).await
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_finds_all_places_taken_waits_a_little() -> Result<()> {
    let hub = hub().await?;
    let key = worker("acme");
    for answer in join_all((0..10).map(|n| put_slowly(&hub, &key, n))).await {
        let answer = answer?;
        assert_eq!(answer.status, 201, "{answer:?}");
    }
    Ok(())
}
