//! Every limit, and what happens past it.

use anyhow::Result;
use axum::body::Body;
use cogo::hub::{Options, realtime};
use cogo::identity::{Claims, Role};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio_tungstenite::tungstenite::Message;

use super::{Served, claims, mint, token};
use crate::hub::{DEADLINE, metrics_handle, request};

async fn limited(realtime: realtime::Options) -> Result<Served> {
    Served::with(Options { realtime, ..Options::default() }).await
}

fn quiet() -> Value {
    json!({"presence": {"enabled": false}})
}

fn reason(answer: &Value) -> &str {
    answer["response"]["reason"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn channels_and_joins_are_limited() -> Result<()> {
    let hub = limited(realtime::Options { max_channels: 2, ..Default::default() }).await?;
    let mut client = hub.client("2.0.0", &token("acme")).await?;
    client.joined("a", quiet()).await?;
    client.joined("b", quiet()).await?;
    let answer = client.join("c", quiet()).await?;
    assert!(reason(&answer).starts_with("ChannelRateLimitReached"), "{answer}");
    // One that is joined again takes no place more.
    client.joined("b", quiet()).await?;

    let hub = limited(realtime::Options { joins_per_second: 2, ..Default::default() }).await?;
    let mut client = hub.client("2.0.0", &token("acme")).await?;
    let mut last = json!({});
    for at in 0..50 {
        last = client.join(&format!("t-{at}"), quiet()).await?;
        if last["status"] == "error" {
            break;
        }
    }
    assert!(reason(&last).starts_with("ClientJoinRateLimitReached"), "{last}");
    Ok(())
}

#[tokio::test]
async fn what_a_socket_has_the_hub_keep_is_bounded() -> Result<()> {
    let hub = Served::new().await?;
    let mut client = hub.client("2.0.0", &token("acme")).await?;
    // Subscriptions stay as long as their channel does: a thousand times this would be the hub's memory.
    let wide = |name: char| {
        let filter = format!("role=eq.{}", name.to_string().repeat(10_000));
        let one =
            json!({"event": "*", "schema": "public", "table": "agent_messages", "filter": filter});
        json!({"presence": {"enabled": false}, "postgres_changes": vec![one; 10]})
    };
    client.joined("a", wide('a')).await?;
    client.joined("b", wide('b')).await?;
    let answer = client.join("c", wide('c')).await?;
    assert!(reason(&answer).contains("at most 262144 bytes"), "{answer}");
    client.joined("b", wide('d')).await?;
    client.joined("c", quiet()).await?;

    let long = "x".repeat(256);
    let join = json!([long, long, "realtime:d", "phx_join", {"config": quiet()}]);
    client.raw(Message::text(join.to_string())).await?;
    let answer = client.answer(&long).await?;
    assert!(reason(&answer).contains("join_ref"), "{answer}");
    Ok(())
}

#[tokio::test]
async fn too_many_messages_end_the_channel_and_not_the_socket() -> Result<()> {
    let hub = limited(realtime::Options { events_per_second: 5, ..Default::default() }).await?;
    let mut client = hub.client("2.0.0", &token("acme")).await?;
    client.joined("room", quiet()).await?;
    for _ in 0..50 {
        client.send("room", "broadcast", json!({"event": "e"})).await?;
    }
    let system = client.hear_of("system").await?;
    assert_eq!(system["message"], "Too many messages per second");
    assert_eq!(client.hear().await?.event, "phx_close");
    client.joined("other", quiet()).await?;
    Ok(())
}

#[tokio::test]
async fn presence_calls_are_five_in_half_a_minute() -> Result<()> {
    let hub = Served::new().await?;
    let mut client = hub.client("2.0.0", &token("acme")).await?;
    client.joined("room", json!({})).await?;
    for n in 0..5 {
        let reference =
            client.send("room", "presence", json!({"event": "track", "payload": {"n": n}})).await?;
        assert_eq!(client.answer(&reference).await?["status"], "ok");
    }
    client.send("room", "presence", json!({"event": "untrack"})).await?;
    let system = client.hear_of("system").await?;
    assert!(system["message"].as_str().unwrap_or_default().contains("presence"), "{system}");
    assert_eq!(client.hear().await?.event, "phx_close");
    Ok(())
}

#[tokio::test]
async fn a_frame_that_is_too_large_ends_the_socket() -> Result<()> {
    let hub = limited(realtime::Options { max_frame_bytes: 2048, ..Default::default() }).await?;
    let mut client = hub.client("2.0.0", &token("acme")).await?;
    client.raw(Message::text("x".repeat(5000))).await?;
    assert_eq!(client.closed().await?, 1009);
    Ok(())
}

#[tokio::test]
async fn what_is_no_frame_is_ignored_until_it_is_too_much() -> Result<()> {
    let hub = Served::new().await?;
    let mut client = hub.client("2.0.0", &token("acme")).await?;
    for odd in ["", "{", "[]", "null", "[1,2,3,4,5]", r#"{"topic":"phoenix"}"#] {
        client.raw(Message::text(odd)).await?;
    }
    for odd in [&[][..], &[9], &[3, 1], &[3, 255, 255, 255, 255, 255, 0]] {
        client.raw(Message::binary(odd.to_vec())).await?;
    }
    client.hears_nothing().await?;
    for _ in 0..3000 {
        if client.raw(Message::text("nothing")).await.is_err() {
            break;
        }
    }
    assert!(matches!(client.closed().await?, 1008 | 1006));
    Ok(())
}

#[tokio::test]
async fn a_socket_that_does_not_read_is_dropped_and_holds_up_nobody() -> Result<()> {
    let slow_sockets = || -> u64 {
        let text = metrics_handle().render();
        let line = text.lines().find(|line| line.starts_with("cogo_realtime_slow_sockets_total "));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0)
    };
    let before = slow_sockets();
    let hub = limited(realtime::Options {
        queue_frames: 64,
        events_per_second: 100_000,
        ..Default::default()
    })
    .await?;
    let acme = token("acme");
    let mut slow = hub.client("2.0.0", &acme).await?;
    slow.joined("room", quiet()).await?;
    let mut fast = hub.client("1.0.0", &acme).await?;
    fast.joined("room", quiet()).await?;
    let mut sender = hub.client("2.0.0", &acme).await?;
    sender.joined("room", quiet()).await?;
    let payload = json!({"event": "e", "payload": "x".repeat(50_000)});
    // More than the system's buffers hold for the slow one.
    let mut sent = 0;
    while slow_sockets() == before {
        sender.send("room", "broadcast", payload.clone()).await?;
        fast.hear_of("broadcast").await?;
        sent += 1;
        assert!(sent < 10_000, "a socket that does not read is kept");
    }
    // The stream has what was sent before it was dropped, and then its end.
    slow.socket.get_mut().shutdown().await?;
    assert_eq!(slow.closed().await?, 1006);
    fast.hears_nothing().await
}

#[tokio::test]
async fn whoever_does_not_read_hears_no_longer_than_the_token_is_good() -> Result<()> {
    let hub = limited(realtime::Options {
        queue_frames: 65_536,
        queue_bytes: 256 << 20,
        queue_bytes_all: 1 << 30,
        events_per_second: 100_000,
        ..Default::default()
    })
    .await?;
    // Good for some six seconds more, which is enough to come in.
    let tenant = Some("acme".to_owned());
    let short =
        mint(Claims { tenant, ..claims(Role::Authenticated, 6 - cogo::identity::LEEWAY_S) });
    let over = tokio::time::Instant::now() + std::time::Duration::from_secs(9);
    let mut reader = hub.client("2.0.0", &short).await?;
    reader.joined("room", quiet()).await?;
    let mut sender = hub.client("2.0.0", &token("acme")).await?;
    sender
        .joined("room", json!({"presence": {"enabled": false}, "broadcast": {"ack": true}}))
        .await?;
    // More than the network takes, so that the hub waits for the reader.
    let large = json!({"event": "large", "payload": "x".repeat(900_000)});
    for _ in 0..40 {
        let reference = sender.send("room", "broadcast", large.clone()).await?;
        assert_eq!(sender.answer(&reference).await?["status"], "ok");
    }
    // Only time ends a token; the metrics of this process count other tests' tokens, too.
    tokio::time::sleep_until(over).await;
    let reference = sender.send("room", "broadcast", json!({"event": "late"})).await?;
    assert_eq!(sender.answer(&reference).await?["status"], "ok");
    loop {
        let heard = reader.hear().await?;
        assert_ne!(heard.payload["event"], "late");
        if heard.event == "phx_close" {
            return reader.hears_nothing().await;
        }
    }
}

#[tokio::test]
async fn a_broadcast_over_http_is_read_of_key_holders_alone_and_no_larger_than_a_frame()
-> Result<()> {
    let hub = limited(realtime::Options { max_frame_bytes: 2048, ..Default::default() }).await?;
    let paths = ["/realtime/v1/api/broadcast", "/realtime/v1/api/broadcast/room/events/e"];
    let key = token("acme");
    for path in paths {
        let endless = futures_util::stream::pending::<Result<Vec<u8>, std::io::Error>>();
        let sent = request("POST", path).body(Body::from_stream(endless))?;
        let answer = tokio::time::timeout(DEADLINE, hub.hub.send(sent)).await?;
        assert_eq!(answer?.status, 401);
        let text = "x".repeat(3000);
        let body = match path.ends_with("/broadcast") {
            true => json!({"messages": [{"topic": "room", "event": "e", "payload": text}]}),
            false => json!(text),
        };
        let sent =
            request("POST", path).header("apikey", &key).body(Body::from(body.to_string()))?;
        let answer = hub.hub.send(sent).await?;
        assert_eq!(answer.status, 413, "{answer:?}");
        assert!(answer.text.contains("2048 bytes"), "{answer:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_private_topic_that_can_be_no_text_is_refused_as_any_other() -> Result<()> {
    let hub = Served::new().await?;
    let mut client = hub.client("2.0.0", &token("acme")).await?;
    let config = json!({"private": true, "presence": {"enabled": false}});
    let answer = client.join("acme:a\u{0}b", config).await?;
    assert!(reason(&answer).starts_with("Unauthorized"), "{answer}");
    Ok(())
}
