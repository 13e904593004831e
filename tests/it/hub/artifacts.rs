//! `GET /api/artifacts`, its summary, and `/artifacts/…`: what is listed, to whom, and how a part of it is given.

use std::path::Path;

use anyhow::{Context, Result};
use axum::body::Body;
use cogo::artifact::{Digest, Limits, Store};
use serde_json::{Value, json};

use super::{Answer, Setup, TestHub, request};

/// A hub with three attempts of two tenants, another file, and what must never be seen.
async fn hub() -> Result<TestHub> {
    let hub = TestHub::without_database(Setup::default())?;
    let dir = hub.artifacts.path();
    attempt(dir, "mcp/demo/20260101T000000.000Z-1", Some("acme"))?;
    attempt(dir, "mcp/demo/20260102T000000.000Z-2", Some("other"))?;
    attempt(dir, "mcp/figma/20260103T000000.000Z-3", None)?;
    std::fs::create_dir_all(dir.join("chaos"))?;
    std::fs::write(dir.join("chaos/report one.md"), "# Report")?;
    std::fs::write(dir.join("mcp/demo/.tmp-x"), "no")?;
    std::fs::create_dir_all(dir.join("mcp/demo/.tmp-20260102T000000.000Z-9"))?;
    std::fs::write(dir.join("mcp/demo/.tmp-20260102T000000.000Z-9/request.json"), "no")?;
    #[cfg(unix)]
    std::os::unix::fs::symlink("/etc", dir.join("mcp/demo/etc"))?;
    Ok(hub)
}

fn attempt(dir: &Path, path: &str, tenant: Option<&str>) -> Result<()> {
    let dir = dir.join(path);
    std::fs::create_dir_all(&dir)?;
    std::fs::write(dir.join("request.json"), r#"{"tool":"echo"}"#)?;
    std::fs::write(dir.join("summary.json"), json!({"tenant": tenant, "ok": true}).to_string())?;
    Ok(())
}

/// A store in the hub's folder, beside the hub's own.
fn store(hub: &TestHub) -> Store {
    Store::folder(hub.artifacts.path(), Limits::default())
}

async fn list(hub: &TestHub, query: &str) -> Result<Value> {
    let answer = hub.get(&format!("/api/artifacts?{query}")).await?;
    anyhow::ensure!(answer.status == 200, "{answer:?}");
    answer.json()
}

fn names(answer: &Value) -> Vec<&str> {
    let listed = answer["artifacts"].as_array().expect("a list");
    listed.iter().map(|artifact| artifact["name"].as_str().expect("a name")).collect()
}

/// All pages, of so many each.
async fn all(hub: &TestHub, query: &str, limit: usize) -> Result<Vec<String>> {
    let (mut all, mut after) = (Vec::new(), String::new());
    for _ in 0..100 {
        let page = list(hub, &format!("{query}&limit={limit}{after}")).await?;
        let found = names(&page);
        anyhow::ensure!(found.len() <= limit, "{found:?}");
        all.extend(found.into_iter().map(str::to_owned));
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return Ok(all),
        }
    }
    anyhow::bail!("the list has no end")
}

#[tokio::test]
async fn everything_is_listed_once_by_pages_of_any_size() -> Result<()> {
    let hub = hub().await?;
    let png = store(&hub).put("acme", vec![7; 100], "image/png").await?;
    let text = store(&hub).put("Other", b"text".to_vec(), "text/plain").await?;
    let whole = list(&hub, "").await?;
    assert_eq!(whole["ok"], true);
    assert_eq!(whole["next"], Value::Null);
    assert_eq!(
        names(&whole),
        [
            // As folders stand on disk: `.other` is that of `Other`.
            &format!("blobs/Other/{}", text.sha256),
            &format!("blobs/acme/{}", png.sha256),
            "chaos/report one.md",
            "mcp/demo/20260101T000000.000Z-1/request.json",
            "mcp/demo/20260101T000000.000Z-1/summary.json",
            "mcp/demo/20260102T000000.000Z-2/request.json",
            "mcp/demo/20260102T000000.000Z-2/summary.json",
            "mcp/figma/20260103T000000.000Z-3/request.json",
            "mcp/figma/20260103T000000.000Z-3/summary.json",
        ]
    );
    let listed = whole["artifacts"].as_array().context("a list")?;
    let mut blob = listed[1].clone();
    let at = blob["modified_at"].take();
    chrono::DateTime::parse_from_rfc3339(at.as_str().context("a time")?)?;
    assert_eq!(
        blob,
        json!({
            "name": format!("blobs/acme/{}", png.sha256), "href": format!("/mcp/artifacts/acme/{}", png.sha256),
            "tenant": "acme", "sha256": png.sha256, "bytes": 100, "mime": "image/png", "modified_at": null,
        })
    );
    assert_eq!(listed[2]["href"], "/artifacts/chaos/report%20one.md");
    assert_eq!((&listed[2]["tenant"], &listed[2]["sha256"]), (&Value::Null, &Value::Null));
    assert_eq!((&listed[3]["tenant"], &listed[3]["bytes"]), (&json!("acme"), &json!(15)));
    assert_eq!(listed[3]["mime"], "application/json");
    assert_eq!(listed[7]["tenant"], Value::Null);
    for limit in 1..=10 {
        assert_eq!(all(&hub, "prefix=", limit).await?, names(&whole), "{limit} a page");
    }
    for artifact in listed.iter().filter(|artifact| artifact["sha256"].is_null()) {
        let answer = hub.get(artifact["href"].as_str().context("a link")?).await?;
        assert_eq!(
            (answer.status.as_u16(), answer.text.len()),
            (200, artifact["bytes"].as_u64().unwrap_or(0) as usize)
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_prefix_and_a_tenant_narrow_the_list() -> Result<()> {
    let hub = hub().await?;
    let kept = store(&hub).put("acme", b"x".to_vec(), "text/plain").await?;
    let blob = format!("blobs/acme/{}", kept.sha256);
    let (one, two) = ("mcp/demo/20260101T000000.000Z-1", "mcp/demo/20260102T000000.000Z-2");
    let files = |dir: &str| [format!("{dir}/request.json"), format!("{dir}/summary.json")];
    assert_eq!(all(&hub, "tenant=acme", 1).await?, [&[blob.clone()][..], &files(one)].concat());
    assert_eq!(all(&hub, "tenant=other", 1).await?, files(two));
    assert_eq!(all(&hub, "tenant=nobody", 1).await?, Vec::<String>::new());
    assert_eq!(all(&hub, "prefix=mcp/demo/20260102", 1).await?, files(two));
    assert_eq!(all(&hub, "prefix=mcp/demo/&tenant=acme", 5).await?, files(one));
    assert_eq!(all(&hub, &format!("prefix={one}/sum"), 5).await?, [files(one)[1].clone()]);
    assert_eq!(all(&hub, "prefix=b", 5).await?, std::slice::from_ref(&blob));
    assert_eq!(all(&hub, &format!("prefix={}", &blob[..20]), 5).await?, [blob]);
    for nothing in ["mcp/dem0", "mcp/demo/.tmp", "blobs/other/", "mcp/demo/etc/"] {
        let answer = hub.get(&format!("/api/artifacts?prefix={nothing}")).await?;
        if answer.status == 200 {
            assert_eq!(names(&answer.json()?), Vec::<&str>::new(), "{nothing}");
        } else {
            answer.error(400, "invalid_argument")?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_list_leads_nowhere_outside_and_says_what_was_wrong() -> Result<()> {
    let hub = hub().await?;
    let outside = base64(b"f../../etc/");
    for (bad, field) in [
        ("prefix=../", "prefix: "),
        ("prefix=mcp/../../", "prefix: "),
        ("prefix=%2e%2e%2f", "prefix: "),
        ("prefix=..%2fsecret", "prefix: "),
        ("prefix=mcp%5c..%5c", "prefix: "),
        ("prefix=mcp%00", "prefix: "),
        ("prefix=/etc", "prefix: "),
        ("prefix=.hidden", "prefix: "),
        ("prefix=c:", "prefix: "),
        (&format!("prefix={}", "a".repeat(513)), "prefix: "),
        ("after=mcp/demo", "after: "),
        ("after=c../x", "after: "),
        ("limit=0", "limit: "),
        ("limit=501", "limit: "),
        ("tenant=../acme", "tenant: "),
        ("tenant=", "tenant: "),
        ("prefx=mcp", "query: "),
        ("limit=1&limit=2", "query: "),
    ] {
        let answer = hub.get(&format!("/api/artifacts?{bad}")).await?;
        let message = answer.error(400, "invalid_argument")?;
        assert!(message.starts_with(field), "{bad}: {message}");
    }
    // A cursor only says where to go on: it opens nothing.
    let beyond = list(&hub, &format!("after={outside}")).await?;
    assert!(
        names(&beyond).iter().all(|name| name.starts_with("chaos/") || name.starts_with("mcp/"))
    );
    Ok(())
}

#[tokio::test]
async fn the_summary_counts_all_of_them() -> Result<()> {
    let hub = hub().await?;
    store(&hub).put("acme", vec![7; 100], "image/png").await?;
    let mut answer = hub.get("/api/metrics/mcp/artifacts/summary").await?.json()?;
    for time in ["at", "oldest", "newest"] {
        let at = answer[time].take();
        chrono::DateTime::parse_from_rfc3339(at.as_str().context("a time")?)?;
    }
    assert_eq!(
        answer,
        json!({
            "ok": true, "at": null, "files": 8, "bytes": 233,
            "tenants": [
                {"tenant": "acme", "count": 3, "bytes": 142},
                {"tenant": "other", "count": 2, "bytes": 43},
            ],
            "toolsets": [
                {"toolset": "demo", "attempts": 2, "bytes": 85},
                {"toolset": "figma", "attempts": 1, "bytes": 40},
            ],
            "oldest": null, "newest": null, "truncated": false,
        })
    );
    hub.get("/api/metrics/mcp/artifacts/summary?x=1").await?.error(400, "invalid_argument")?;
    Ok(())
}

#[tokio::test]
async fn where_reading_needs_the_token_lists_do_too() -> Result<()> {
    let listen = std::net::SocketAddr::from(([192, 0, 2, 1], 8787));
    let hub = TestHub::without_database(Setup { listen, ..Setup::default() })?;
    for path in ["/api/artifacts", "/api/metrics/mcp/artifacts/summary", "/artifacts/a.json"] {
        hub.get(path).await?.error(401, "unauthorized")?;
        let with = request("GET", path).header("x-admin-token", super::TOKEN);
        let answer = hub.send(with.body(Body::empty())?).await?;
        assert_ne!(answer.status, 401, "{path}");
    }
    Ok(())
}

async fn get(hub: &TestHub, path: &str, method: &str, headers: &[(&str, &str)]) -> Result<Answer> {
    let mut request = request(method, path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    hub.send(request.body(Body::empty())?).await
}

#[tokio::test]
async fn a_file_is_given_in_part_and_not_again() -> Result<()> {
    let hub = hub().await?;
    let dir = hub.artifacts.path();
    let path = "/artifacts/mcp/demo/20260101T000000.000Z-1/request.json";
    let whole = hub.get(path).await?;
    let etag = whole.header("etag").to_owned();
    assert!(etag.starts_with('"') && etag.len() > 4, "a strong tag: {whole:?}");
    assert_eq!(whole.header("accept-ranges"), "bytes");
    assert_eq!(whole.header("content-disposition"), "inline; filename*=UTF-8''request.json");
    assert_eq!(whole.header("cache-control"), "private, no-cache");
    assert_eq!(whole.text, r#"{"tool":"echo"}"#);
    let part = get(&hub, path, "GET", &[("range", "bytes=1-6"), ("if-range", &etag)]).await?;
    assert_eq!((part.status.as_u16(), part.text.as_str()), (206, r#""tool""#));
    assert_eq!(part.header("content-range"), "bytes 1-6/15");
    let last = get(&hub, path, "GET", &[("range", "bytes=-2")]).await?;
    assert_eq!((last.status.as_u16(), last.text.as_str()), (206, "\"}"));
    let changed = get(&hub, path, "GET", &[("range", "bytes=1-6"), ("if-range", "\"x\"")]).await?;
    assert_eq!((changed.status.as_u16(), changed.text.len()), (200, 15));
    let many = get(&hub, path, "GET", &[("range", "bytes=0-0,2-3")]).await?;
    assert_eq!((many.status.as_u16(), many.text.len()), (200, 15));
    let beyond = get(&hub, path, "GET", &[("range", "bytes=15-")]).await?;
    beyond.error(416, "invalid_argument")?;
    assert_eq!(beyond.header("content-range"), "bytes */15");
    for condition in
        [("if-none-match", etag.as_str()), ("if-modified-since", whole.header("last-modified"))]
    {
        for method in ["GET", "HEAD"] {
            let known = get(&hub, path, method, &[condition]).await?;
            assert_eq!((known.status.as_u16(), known.text.as_str()), (304, ""), "{condition:?}");
            assert_eq!(known.header("etag"), etag);
        }
    }
    get(&hub, path, "GET", &[("if-match", "\"x\"")]).await?.error(412, "invalid_argument")?;
    let head = get(&hub, path, "HEAD", &[("range", "bytes=1-6")]).await?;
    assert_eq!((head.status.as_u16(), head.text.as_str()), (200, ""));
    assert_eq!((head.header("content-length"), head.header("etag")), ("15", etag.as_str()));
    // Another file has another tag.
    std::fs::write(dir.join("mcp/demo/20260101T000000.000Z-1/request.json"), "{}")?;
    let new = get(&hub, path, "GET", &[("if-none-match", &etag)]).await?;
    assert_eq!((new.status.as_u16(), new.text.as_str()), (200, "{}"));
    Ok(())
}

#[tokio::test]
async fn pictures_and_json_are_shown_and_pages_are_not() -> Result<()> {
    let hub = hub().await?;
    for (name, mime, shown) in [
        ("a.json", "application/json", true),
        ("a.png", "image/png", true),
        ("a.JPEG", "image/jpeg", true),
        ("a.gif", "image/gif", true),
        ("a.webp", "image/webp", true),
        ("a.avif", "image/avif", true),
        ("a.svg", "application/octet-stream", false),
        ("a.html", "application/octet-stream", false),
        ("a.xhtml", "application/octet-stream", false),
        ("a.txt", "text/plain; charset=utf-8", false),
        ("a", "application/octet-stream", false),
    ] {
        std::fs::write(hub.artifacts.path().join(name), "<script>alert(1)</script>")?;
        let answer = hub.get(&format!("/artifacts/{name}")).await?;
        assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, mime), "{name}");
        let how = answer.header("content-disposition");
        assert_eq!(how.starts_with("inline;"), shown, "{name}: {how}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert!(answer.header("content-security-policy").contains("sandbox"), "{answer:?}");
    }
    std::fs::write(hub.artifacts.path().join("é \"x\".json"), "{}")?;
    let answer = hub.get("/artifacts/%C3%A9%20%22x%22.json").await?;
    let how = answer.header("content-disposition");
    assert_eq!(how, "inline; filename*=UTF-8''%C3%A9%20%22x%22.json");
    Ok(())
}

/// Not used for secrets: only to write a cursor by hand.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let all = chunk.iter().fold(0_u32, |all, byte| all << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for at in 0..=chunk.len() {
            text.push(LETTERS[(all >> (18 - 6 * at) & 63) as usize].into());
        }
    }
    text
}

#[tokio::test]
async fn blobs_are_given_in_part_with_their_digest_as_the_tag() -> Result<()> {
    let hub = hub().await?;
    let digest = Digest::of(b"0123456789");
    store(&hub).put("acme", b"0123456789".to_vec(), "image/png").await?;
    let (path, token) = (format!("/mcp/artifacts/acme/{digest}"), ("x-admin-token", super::TOKEN));
    let whole = get(&hub, &path, "GET", &[token]).await?;
    assert_eq!((whole.status.as_u16(), whole.text.as_str()), (200, "0123456789"));
    assert_eq!(whole.header("etag"), format!("\"{digest}\""));
    assert!(whole.header("content-disposition").starts_with("inline"), "{whole:?}");
    let part = get(&hub, &path, "GET", &[token, ("range", "bytes=2-4")]).await?;
    assert_eq!((part.status.as_u16(), part.text.as_str()), (206, "234"));
    assert_eq!(
        (part.header("content-range"), part.header("content-length")),
        ("bytes 2-4/10", "3")
    );
    let known = get(&hub, &path, "GET", &[token, ("if-none-match", whole.header("etag"))]).await?;
    assert_eq!((known.status.as_u16(), known.text.as_str()), (304, ""));
    let beyond = get(&hub, &path, "GET", &[token, ("range", "bytes=10-")]).await?;
    beyond.error(416, "invalid_argument")?;
    let head = get(&hub, &path, "HEAD", &[token]).await?;
    assert_eq!((head.status.as_u16(), head.header("content-length")), (200, "10"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_is_served_and_listed_as_a_folder_is() -> Result<()> {
    let s = crate::stores::Setting::bucket().await;
    let hub =
        TestHub::without_database(Setup { store: Some(s.store.clone()), ..Setup::default() })?;
    let bytes: Vec<u8> = (0_u32..300_000).flat_map(u32::to_le_bytes).collect();
    let text: String = bytes.iter().map(|byte| char::from(b'a' + byte % 26)).collect();
    let kept = s.store.put("acme", text.clone().into_bytes(), "text/plain").await?;
    let (path, token) =
        (format!("/mcp/artifacts/acme/{}", kept.sha256), ("x-admin-token", super::TOKEN));
    let whole = get(&hub, &path, "GET", &[token]).await?;
    assert_eq!((whole.status.as_u16(), whole.header("content-length")), (200, "1200000"));
    assert!(whole.text == text, "what came is not what was put");
    let part = get(&hub, &path, "GET", &[token, ("range", "bytes=1199990-")]).await?;
    assert_eq!((part.status.as_u16(), part.text.as_str()), (206, &text[1_199_990..]));
    let known = get(&hub, &path, "GET", &[token, ("if-none-match", whole.header("etag"))]).await?;
    assert_eq!(known.status, 304);
    let put = request("PUT", &format!("/mcp/artifacts/b/{}", Digest::of(b"x")));
    let put = put.header("x-admin-token", super::TOKEN).header("content-type", "image/png");
    assert_eq!(hub.send(put.body(Body::from("x"))?).await?.status, 201);
    let listed = list(&hub, "").await?;
    let blob = |tenant, digest: &Digest| format!("blobs/{tenant}/{digest}");
    assert_eq!(names(&listed), [blob("acme", &kept.sha256), blob("b", &Digest::of(b"x"))]);
    assert_eq!(listed["artifacts"][1]["mime"], "image/png");
    assert_eq!(all(&hub, "prefix=blobs/", 1).await?, names(&listed));
    let summary = hub.get("/api/metrics/mcp/artifacts/summary").await?.json()?;
    assert_eq!((&summary["files"], &summary["bytes"]), (&json!(2), &json!(1_200_001)));
    Ok(())
}
