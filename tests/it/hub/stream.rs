//! The log as server-sent events, over real sockets: cut anywhere, it goes on without gap or repeat.

mod client;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cogo::clock::Stopwatch;
use cogo::hub::{Events, Options};
use cogo::testing::TestDb;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;

use crate::hub::figures::{another_hub, call, claim, hub_with_rights, settled};
use crate::hub::{DEADLINE, TestHub};
use client::{Site, Sse};

/// The log, as it is read: each event's cursor, in order.
async fn logged(db: &TestDb) -> Result<Vec<String>> {
    let sql = "select xid::text || '.' || seq from bus_events order by xid, seq";
    Ok(sqlx::query_scalar(sql).fetch_all(db.pool()).await?)
}

async fn say(hub: &TestHub, what: &str) -> Result<()> {
    Ok(hub
        .bus
        .append_event(json!({"event_type": what, "payload": {"text": "x".repeat(50)}}))
        .await?)
}

/// Appends within transactions that stay open while others commit: their events come late, in places of the log
/// that are long since behind its end.
async fn late_writers(db: &TestDb, others: Arc<AtomicUsize>) -> Result<()> {
    for _ in 0..6 {
        let mut open = db.pool().begin().await?;
        let append = "select bus_append_event('[{\"event_type\": \"late_progress\"}]')";
        sqlx::query(append).execute(&mut *open).await?;
        let before = others.load(Ordering::Acquire);
        while others.load(Ordering::Acquire) < before + 20 {
            tokio::task::yield_now().await;
            if others.load(Ordering::Acquire) == usize::MAX {
                break;
            }
        }
        sqlx::query(append).execute(&mut *open).await?;
        open.commit().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_anywhere_it_goes_on_without_gap_or_repeat() -> Result<()> {
    const WRITERS: usize = 4;
    const EACH: usize = 120;
    let seed: u64 = rand::rng().random();
    let mut random = StdRng::seed_from_u64(seed);
    let (db, first) = hub_with_rights().await?;
    let second = another_hub(&db, Options::default())?;
    let mut sites = vec![Site::serve(first).await?, Site::serve(second).await?];
    let written = Arc::new(AtomicUsize::new(0));
    let writer = another_hub(&db, Options::default())?;
    let writing = async {
        let many = (0..WRITERS).map(|_| async {
            for n in 0..EACH {
                writer
                    .bus
                    .append_event(json!({"event_type": "test_progress", "payload": {"n": n}}))
                    .await?;
                written.fetch_add(1, Ordering::AcqRel);
            }
            anyhow::Ok(())
        });
        let (many, late) = tokio::join!(
            futures_util::future::try_join_all(many),
            late_writers(&db, Arc::clone(&written))
        );
        many?;
        late
    };
    let total = WRITERS * EACH + 12;
    let (mut read, mut cuts, mut restarted) = (Vec::<String>::new(), 0, false);
    let reading = async {
        while read.len() < total {
            let hub = random.random_range(0..sites.len());
            if read.len() > total / 2 && !restarted {
                // A hub goes, and another comes at another place.
                sites.remove(0).stop().await?;
                sites.push(Site::serve(another_hub(&db, Options::default())?).await?);
                restarted = true;
                continue;
            }
            let last = read.last().cloned();
            // Now the header, now the address; a browser sends both, and then the header counts.
            let (header, after) = match random.random_range(0..3) {
                0 => (last.clone(), "0.0".to_owned()),
                1 => (last.clone(), last.clone().unwrap_or("0.0".to_owned())),
                _ => (None, last.clone().unwrap_or("0.0".to_owned())),
            };
            let path = format!("/api/events/stream?after={after}");
            let mut stream = Sse::open(sites[hub].address, &path, header.as_deref()).await?;
            let cut = random.random_range(1..20_000);
            stream.read_bytes(cut, Duration::from_millis(random.random_range(5..200))).await?;
            for event in stream.events()? {
                ensure!(event.name != "gap", "nothing is lost here: {event:?}");
                ensure!(event.data["cursor"] == json!(event.id), "{event:?}");
                ensure!(event.data["event_type"] == json!(event.name), "{event:?}");
                read.push(event.id);
            }
            cuts += 1;
        }
        anyhow::Ok(())
    };
    let both = async { tokio::try_join!(reading, writing) };
    let done = tokio::time::timeout(DEADLINE * 4, both).await;
    done.with_context(|| format!("seed {seed}: {} of {total} after {cuts} cuts", read.len()))??;
    assert!(restarted && cuts > 5, "{cuts} cuts");
    assert_eq!(read, logged(&db).await?, "seed {seed}, {cuts} cuts");
    Ok(())
}

#[tokio::test]
async fn who_is_cut_off_before_the_first_event_goes_on_from_where_it_began() -> Result<()> {
    let (_db, hub) = hub_with_rights().await?;
    say(&hub, "before_progress").await?;
    let site = Site::serve(hub).await?;
    let mut stream = Sse::open(site.address, "/api/events/stream", None).await?;
    stream.until(|text| text.contains("id: ") && text.ends_with("\n\n")).await?;
    let last = stream.last_id().context("where it began")?;
    drop(stream);
    say(&site.hub, "meanwhile_progress").await?;
    let mut stream = Sse::open(site.address, "/api/events/stream", Some(&last)).await?;
    stream.until(|text| text.contains("event: meanwhile_progress")).await?;
    site.stop().await
}

#[tokio::test]
async fn it_begins_at_the_end_and_tells_what_happens_at_once() -> Result<()> {
    let (db, hub) = hub_with_rights().await?;
    say(&hub, "before_progress").await?;
    settled(&db, &hub).await?;
    let site = Site::serve(hub).await?;
    let mut stream = Sse::open(site.address, "/api/events/stream", None).await?;
    let head = stream.head().await?;
    assert!(head.contains("content-type: text/event-stream"), "{head}");
    assert!(head.contains("cache-control: no-store"), "{head}");
    stream.until(|text| text.contains("retry: 1000")).await?;
    let began = Stopwatch::start();
    say(&site.hub, "after_progress").await?;
    stream.until(|text| text.contains("\ndata: ")).await?;
    let events = stream.events()?;
    assert_eq!(events[0].name, "after_progress");
    assert_eq!(events[0].data["payload"]["text"].as_str().map(str::len), Some(50));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    Ok(())
}

#[tokio::test]
async fn it_tells_what_was_asked_for_alone() -> Result<()> {
    let (_db, hub) = hub_with_rights().await?;
    let clicked = hub.bus.publish(call("browser", "click")?).await?;
    claim(&hub.bus, "browser").await?.complete(json!({})).await?;
    hub.bus.publish(call("browser", "type")?).await?;
    hub.bus.publish(call("figma", "click")?).await?;
    hub.publish().await?;
    say(&hub, "end_progress").await?;
    let site = Site::serve(hub).await?;
    let trace = clicked.trace_id;
    let of_trace = format!("trace_id={trace}");
    let (scheduled, succeeded, said) =
        ("mcp_call_scheduled", "mcp_call_succeeded", "echo_say_scheduled");
    for (filter, wanted) in [
        ("toolset=browser&tool=click", vec![scheduled, succeeded]),
        ("tool=click", vec![scheduled, succeeded, scheduled]),
        ("toolset=browser", vec![scheduled, succeeded, scheduled]),
        (&of_trace, vec![scheduled, succeeded]),
        ("type=mcp_call_succeeded,echo_say_scheduled", vec![succeeded, said]),
        ("type=mcp_call_scheduled&toolset=figma", vec![scheduled]),
        ("tenant=elsewhere", vec![]),
        ("", vec![scheduled, succeeded, scheduled, scheduled, said, "end_progress"]),
    ] {
        let path = format!("/api/events/stream?after=0.0&{filter}");
        let mut stream = Sse::open(site.address, &path, None).await?;
        // What was there comes in one piece with the first of it.
        if wanted.is_empty() {
            stream.until(|text| text.contains("retry: ")).await?;
            stream.read_bytes(1, Duration::from_millis(300)).await?;
        } else {
            stream.until(|text| text.matches("\ndata: ").count() >= wanted.len()).await?;
        }
        let told: Vec<_> = stream.events()?.into_iter().map(|event| event.name).collect();
        assert_eq!(told, wanted, "{filter}");
    }
    Ok(())
}

#[tokio::test]
async fn what_retention_took_is_told_as_a_gap_once() -> Result<()> {
    let (db, hub) = hub_with_rights().await?;
    for _ in 0..5 {
        say(&hub, "old_progress").await?;
    }
    settled(&db, &hub).await?;
    let log = logged(&db).await?;
    let gone = "delete from bus_events where seq <= (select min(seq) + 2 from bus_events)";
    sqlx::query(gone).execute(db.pool()).await?;
    let site = Site::serve(hub).await?;
    let mut stream = Sse::open(site.address, "/api/events/stream", Some(&log[0])).await?;
    stream.until(|text| text.matches("\ndata: ").count() >= 3).await?;
    let events = stream.events()?;
    assert_eq!(events[0].name, "gap");
    assert_eq!(events[0].data, json!({"from": log[0], "to": log[3]}));
    assert_eq!([&events[1].id, &events[2].id], [&log[3], &log[4]]);
    // The gap's own id goes on behind it.
    for (from, first) in [(&events[0].id, &log[3]), (&log[2], &log[3]), (&log[3], &log[4])] {
        let mut stream = Sse::open(site.address, "/api/events/stream", Some(from)).await?;
        stream.until(|text| text.contains("\ndata: ")).await?;
        let events = stream.events()?;
        assert_eq!((&events[0].id, events[0].name.as_str()), (first, "old_progress"), "{from}");
    }
    Ok(())
}

/// What one stream has read is given to others that are as far. None may take that for all there is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_stream_hears_of_the_last_event() -> Result<()> {
    let (db, hub) = hub_with_rights().await?;
    let site = Site::serve(hub).await?;
    let mut streams = Vec::new();
    for _ in 0..6 {
        let mut stream = Sse::open(site.address, "/api/events/stream", None).await?;
        stream.until(|text| text.contains("retry: ")).await?;
        streams.push(stream);
    }
    let ended = tokio_util::sync::CancellationToken::new();
    // Others come all the while, and read what has just been read, or not quite.
    let comers = async {
        while !ended.is_cancelled() {
            let mut stream = Sse::open(site.address, "/api/events/stream?after=0.0", None).await?;
            stream.read_bytes(2000, Duration::from_millis(5)).await?;
        }
        anyhow::Ok(())
    };
    let rounds = async {
        for round in 1..=40 {
            // Two by two, so that a reader may find the one and not the other.
            tokio::try_join!(say(&site.hub, "a_progress"), say(&site.hub, "b_progress"))?;
            for stream in &mut streams {
                stream.until(|text| text.matches("\ndata: ").count() >= 2 * round).await?;
            }
        }
        ended.cancel();
        anyhow::Ok(())
    };
    tokio::try_join!(comers, rounds)?;
    let log = logged(&db).await?;
    for stream in &streams {
        let read: Vec<_> = stream.events()?.into_iter().map(|event| event.id).collect();
        assert_eq!(read, log);
    }
    Ok(())
}

#[tokio::test]
async fn a_drain_ends_streams() -> Result<()> {
    let (_db, hub) = hub_with_rights().await?;
    let site = Site::serve(hub).await?;
    let mut stream = Sse::open(site.address, "/api/events/stream", None).await?;
    stream.until(|text| text.contains("retry: ")).await?;
    let began = Stopwatch::start();
    site.hub.shutdown.drain();
    stream.end().await?;
    assert!(stream.was_whole(), "the body ends as it should");
    site.stop().await?;
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    Ok(())
}

#[tokio::test]
async fn there_are_as_many_streams_as_there_may_be() -> Result<()> {
    let db = TestDb::new().await;
    let options = Options { events: Events { max_streams: 2 }, ..Options::default() };
    let site = Site::serve(another_hub(&db, options)?).await?;
    let open = async || {
        let mut stream = Sse::open(site.address, "/api/events/stream", None).await?;
        let head = stream.head().await?;
        anyhow::Ok((stream, head))
    };
    let (first, _) = open().await?;
    let (_second, _) = open().await?;
    let (mut third, head) = open().await?;
    assert!(head.starts_with("HTTP/1.1 429"), "{head}");
    assert!(head.contains("retry-after: "), "{head}");
    third.until(|text| text.contains("events.max_streams")).await?;
    drop(first);
    let again = async {
        loop {
            let (_stream, head) = open().await?;
            if head.starts_with("HTTP/1.1 200") {
                return anyhow::Ok(());
            }
        }
    };
    tokio::time::timeout(DEADLINE, again).await.context("the place is not given back")?
}

#[tokio::test]
async fn a_stream_lives_through_a_database_that_goes_away() -> Result<()> {
    let (db, hub) = hub_with_rights().await?;
    let site = Site::serve(hub).await?;
    let mut stream = Sse::open(site.address, "/api/events/stream?after=0.0", None).await?;
    say(&site.hub, "one_progress").await?;
    stream.until(|text| text.contains("one_progress")).await?;
    let ended = "select pg_terminate_backend(pid) from pg_stat_activity
        where datname = current_database() and pid <> pg_backend_pid()";
    sqlx::query(ended).execute(db.pool()).await?;
    // Appending is not made twice by itself, and may hit a connection that has gone.
    while say(&site.hub, "three_progress").await.is_err() {}
    stream.until(|text| text.contains("three_progress")).await?;
    let read: Vec<_> = stream.events()?.into_iter().map(|event| event.id).collect();
    assert_eq!(read, logged(&db).await?);
    Ok(())
}
