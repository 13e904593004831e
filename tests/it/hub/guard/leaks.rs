//! What no answer may hold, whatever fails.

use anyhow::{Context, Result};
use axum::body::Body;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::hub::connections::served;
use crate::hub::guard::path_of;
use crate::hub::{Answer, DEADLINE, Setup, TOKEN, TestHub, request};

/// What SQL, a driver, a stack trace or this machine's folders would show themselves by.
const NEVER: [&str; 15] = [
    "select ",
    "insert into",
    "relation \"",
    "does not exist",
    "bus_events",
    "agent_messages",
    "sqlx",
    "PoolTimedOut",
    "Connection refused",
    "os error",
    "panicked at",
    ".rs:",
    "stack backtrace",
    "/tmp/",
    "plpgsql",
];

fn clean(answer: &Answer, what: &str) -> Result<()> {
    for word in NEVER {
        anyhow::ensure!(!answer.text.contains(word), "{what}: {word:?} in {}", answer.text);
    }
    Ok(())
}

/// Asks every route of the hub for what it would do, with good parameters; how many failed.
async fn ask_all(hub: &TestHub) -> Result<usize> {
    let mut failed = 0;
    for route in hub.routes.clone() {
        // A stream that begins does not end.
        if route.path == "/api/events/stream" {
            continue;
        }
        let id = Uuid::now_v7().to_string();
        let path =
            route.path.replace("{id}", &id).replace("{trace_id}", &id).replace("{action}", "open");
        let method = if route.method == "*" { "POST" } else { route.method };
        let body = if route.path.contains("circuits") {
            r#"{"key": "a.b"}"#.to_owned()
        } else {
            format!(r#"{{"ids": ["{id}"]}}"#)
        };
        let request = request(method, &path_of(&path))
            .header("x-admin-token", TOKEN)
            .header("content-type", "application/json");
        let body = if method == "GET" { Body::empty() } else { Body::from(body) };
        let answer = hub.send(request.body(body)?).await?;
        // What it serves of its own, such as its description, may have any words.
        if !answer.status.is_success() {
            clean(&answer, &route.to_string())?;
        }
        failed += usize::from(answer.status.is_server_error());
    }
    Ok(failed)
}

#[tokio::test]
async fn a_database_that_is_away_shows_nothing_of_itself() -> Result<()> {
    let hub = TestHub::without_database(Setup::default())?;
    assert!(ask_all(&hub).await? > 5, "nothing failed");
    Ok(())
}

#[tokio::test]
async fn a_schema_that_is_broken_shows_nothing_of_itself() -> Result<()> {
    let hub = TestHub::new().await?;
    let broken = "alter table public.agent_messages rename to somewhere_else; \
        alter table public.bus_events rename to elsewhere; alter table public.circuits rename to nowhere";
    sqlx::raw_sql(broken).execute(hub.bus.pool().context("a pool")?).await?;
    assert!(ask_all(&hub).await? > 5, "nothing failed");
    Ok(())
}

#[tokio::test]
async fn a_row_that_makes_no_sense_shows_nothing_of_itself() -> Result<()> {
    let hub = TestHub::new().await?;
    let id = hub.publish().await?;
    let broken = "alter table public.agent_messages drop constraint if exists agent_messages_status_check; \
        update public.agent_messages set status = 'nonsense'";
    let pool = hub.bus.pool().context("a pool")?;
    // Where the schema does not let it be broken so, there is no such row to be read.
    if sqlx::raw_sql(broken).execute(pool).await.is_err() {
        sqlx::raw_sql("update public.agent_messages set role = 'no role at all!'")
            .execute(pool)
            .await?;
    }
    let answer = hub.get(&format!("/api/messages/{id}")).await?;
    assert!(answer.status.is_server_error(), "{answer:?}");
    clean(&answer, "a bad row")
}

/// A path as it goes over the wire, whatever it holds; the whole answer.
async fn raw(address: std::net::SocketAddr, path: &[u8]) -> Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let head =
        [b"GET /artifacts/", path, b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"]
            .concat();
    stream.write_all(&head).await?;
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut bytes));
    let _ = read.await.context("the connection was not closed")?; // a reset is an end as well
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[tokio::test]
async fn no_path_leads_out_of_the_artifacts() -> Result<()> {
    let hub = TestHub::without_database(Setup::default())?;
    let dir = hub.artifacts.path();
    let beside = dir.parent().context("a folder around it")?;
    let name = format!("cogo-outside-{}", Uuid::now_v7());
    let outside = beside.join(&name);
    std::fs::write(&outside, "hunter2")?;
    std::fs::create_dir_all(dir.join("a/b"))?;
    std::fs::write(dir.join("a/b/c.json"), "{}")?;
    std::fs::write(dir.join("a/.hidden"), "hunter2")?;
    let (address, _serving) = served(&hub).await?;
    let inside = raw(address, b"a/b/c.json").await?;
    assert!(inside.starts_with("HTTP/1.1 200"), "{inside}");

    let up: [&[u8]; 18] = [
        b"..",
        b"%2e%2e",
        b"%2E%2e",
        b".%2e",
        b"%252e%252e",
        b"%25252e%25252e",
        b"%c0%ae%c0%ae",
        b"%e0%80%ae%e0%80%ae",
        b"%ef%bc%8e%ef%bc%8e",
        b"\xc0\xae\xc0\xae",
        b"\xef\xbc\x8e\xef\xbc\x8e",
        b"%u002e%u002e",
        b"..;",
        b"..%00",
        b"%00..",
        b"..%20",
        b"...",
        b"%2e%2e%09",
    ];
    let separators: [&[u8]; 10] =
        [b"/", b"%2f", b"%5c", b"\\", b"%252f", b"%255c", b"%c0%af", b"%e2%88%95", b"//", b"/./"];
    let name = name.as_bytes();
    let mut tried = 0;
    for start in [&b""[..], b"a/", b"a/b/", b"/", b"./", b"%2f"] {
        for up in up {
            for separator in separators {
                let once = [start, up, separator, name].concat();
                let often = [start, &[up, separator].concat().repeat(4), name].concat();
                for path in [once, often] {
                    let answer = raw(address, &path).await?;
                    let shown = String::from_utf8_lossy(&path).into_owned();
                    assert!(!answer.contains("hunter2"), "{shown}: {answer}");
                    assert!(
                        !answer.starts_with("HTTP/1.1 2") && !answer.starts_with("HTTP/1.1 5"),
                        "{shown}: {answer}"
                    );
                    tried += 1;
                }
            }
        }
    }
    let absolute = outside.to_str().context("a plain path")?.to_owned();
    for path in [
        absolute.clone(),
        absolute.replace('/', "%2f"),
        format!("file:%2f%2f{absolute}"),
        "a/.hidden".into(),
        "a/%2ehidden".into(),
        "a/b/c.json%00.png".into(),
        "a/b/c.json::$DATA".into(),
        "C:%5cwindows%5cwin.ini".into(),
    ] {
        let answer = raw(address, path.as_bytes()).await?;
        assert!(
            !answer.contains("hunter2") && !answer.starts_with("HTTP/1.1 2"),
            "{path}: {answer}"
        );
    }
    std::fs::remove_file(outside)?;
    hub.shutdown.cancel();
    assert!(tried > 2000);
    Ok(())
}
