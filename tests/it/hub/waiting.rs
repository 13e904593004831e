//! Long polls.

use std::time::Duration;

use anyhow::{Context, Result};
use cogo::clock::Stopwatch;
use cogo::hub::Options;
use cogo::shutdown::Tasks;
use serde_json::json;

use crate::hub::{DEADLINE, Setup, TestHub, request};

#[tokio::test]
async fn a_wait_ends_when_the_message_is_settled() -> Result<()> {
    let hub = TestHub::new().await?;
    let id = hub.publish().await?;
    let began = Stopwatch::start();
    let path = format!("/api/messages/{id}?wait=30s");
    let settle = async {
        let claim = hub.claim(1).await?.pop().context("a claim")?;
        anyhow::Ok(claim.complete(json!({"n": 1})).await?)
    };
    let (answer, settled) = tokio::join!(hub.get(&path), settle);
    settled?;
    let answer = answer?.json()?;
    assert_eq!(answer["message"]["status"], "done");
    assert_eq!(answer["message"]["result"], json!({"n": 1}));
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    Ok(())
}

#[tokio::test]
async fn a_wait_for_a_finished_message_is_none() -> Result<()> {
    let hub = TestHub::new().await?;
    let id = hub.publish().await?;
    hub.claim(1).await?.pop().context("a claim")?.complete(json!({})).await?;
    let began = Stopwatch::start();
    let answer = hub.get(&format!("/api/messages/{id}?wait=60")).await?.json()?;
    assert_eq!(answer["message"]["status"], "done");
    assert!(began.elapsed() < Duration::from_secs(15));
    Ok(())
}

#[tokio::test]
async fn a_wait_that_runs_out_gives_the_message_as_it_stands() -> Result<()> {
    let hub = TestHub::new().await?;
    let id = hub.publish().await?;
    let answer = hub.get(&format!("/api/messages/{id}?wait=20ms")).await?;
    assert_eq!(answer.status, 200);
    let answer = answer.json()?;
    assert_eq!(answer["message"]["status"], "queued");
    assert_eq!(answer["events"][0]["event_type"], "echo_say_scheduled");
    Ok(())
}

#[tokio::test]
async fn a_waiter_learns_what_an_open_transaction_keeps_from_the_log() -> Result<()> {
    let hub = TestHub::new().await?;
    let id = hub.publish().await?;
    let db = hub.db.as_ref().context("a database")?;
    // It holds back every reader of the log, for as long as it is open.
    let mut open = db.pool().begin().await?;
    sqlx::query("select pg_current_xact_id()").execute(&mut *open).await?;
    let path = format!("/api/messages/{id}?wait=30s");
    let settle = async {
        let claim = hub.claim(1).await?.pop().context("a claim")?;
        anyhow::Ok(claim.complete(json!({})).await?)
    };
    let began = Stopwatch::start();
    let (answer, settled) = tokio::join!(hub.get(&path), settle);
    settled?;
    assert_eq!(answer?.json()?["message"]["status"], "done");
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    open.rollback().await?;
    Ok(())
}

#[tokio::test]
async fn five_hundred_waiters_share_a_pool_of_ten() -> Result<()> {
    const WAITERS: usize = 500;
    let options = Options { max_waiters: WAITERS, ..Options::default() };
    let hub = TestHub::with(Setup { options, ..Setup::default() }).await?;
    let mut ids = Vec::new();
    for _ in 0..WAITERS {
        ids.push(hub.publish().await?);
    }
    let tasks = Tasks::new();
    let waits: Vec<_> = ids
        .iter()
        .map(|id| {
            use tower::ServiceExt as _;
            let path = format!("/api/messages/{id}?wait=60s");
            let router = hub.router.clone();
            tasks.spawn(async move {
                let response = loop {
                    let request = request("GET", &path).body(axum::body::Body::empty())?;
                    let response = router.clone().oneshot(request).await?;
                    // The probe below held the last place.
                    if response.status() != 429 {
                        break response;
                    }
                    tokio::task::yield_now().await;
                };
                let status = response.status();
                let body = axum::body::to_bytes(response.into_body(), usize::MAX).await?;
                let json: serde_json::Value = serde_json::from_slice(&body)?;
                anyhow::ensure!(status == 200 && json["message"]["status"] == "done", "{json}");
                anyhow::Ok(())
            })
        })
        .collect();
    // One more is refused once all of them wait.
    let probe = format!("/api/messages/{}?wait=1ms", ids[0]);
    let full = async {
        loop {
            let answer = hub.get(&probe).await?;
            if answer.status != 200 {
                break anyhow::Ok(answer);
            }
        }
    };
    let refused = tokio::time::timeout(DEADLINE, full).await.context("not all of them wait")??;
    let message = refused.error(429, "rate_limited")?;
    assert!(message.contains("500 requests wait already"), "{message}");
    assert_eq!(refused.header("retry-after"), "1");
    // Who does not wait is served as ever.
    assert_eq!(hub.get(&format!("/api/messages/{}", ids[0])).await?.status, 200);
    assert_eq!(hub.get("/readyz").await?.status, 200);

    let began = Stopwatch::start();
    let settles = async {
        for claim in hub.claim(WAITERS).await? {
            claim.complete(json!({})).await?;
        }
        anyhow::Ok(())
    };
    settles.await?;
    for wait in waits {
        tokio::time::timeout(DEADLINE, wait).await.context("a waiter was not told")???;
    }
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    Ok(())
}
