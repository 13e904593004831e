//! Who may have a socket.

use anyhow::{Result, bail};
use cogo::hub::Options;
use cogo::hub::realtime;
use cogo::identity::Role;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::{Client, Served, claims, mint, token};

/// The status and the words of a refusal.
fn refusal(connected: Result<Client, Error>) -> Result<(u16, String)> {
    match connected {
        Err(Error::Http(response)) => {
            let body = response.body().clone().unwrap_or_default();
            let json: Value = serde_json::from_slice(&body)?;
            let error = json["error"].as_str().unwrap_or_default().to_owned();
            anyhow::ensure!(!error.is_empty(), "{json}");
            Ok((response.status().as_u16(), error))
        }
        Err(error) => Err(error.into()),
        Ok(_) => bail!("it was let in"),
    }
}

#[tokio::test]
async fn a_refusal_says_why() -> Result<()> {
    let hub = Served::new().await?;
    let old = mint(claims(Role::Anon, -100));
    let mut forged = token("acme");
    forged.pop();
    for (query, status, says) in [
        ("".to_owned(), 401, "key"),
        ("?apikey=nonsense".to_owned(), 401, "JSON Web Token"),
        ("?apikey=sb_publishable_x".to_owned(), 401, "sb_"),
        (format!("?apikey={old}"), 401, "expired"),
        (format!("?apikey={forged}"), 401, "signature"),
        (format!("?apikey={}&vsn=3.0.0", token("acme")), 400, "vsn"),
    ] {
        let (found, error) = refusal(hub.connect(&query, None).await)?;
        assert_eq!(found, status, "{query}: {error}");
        assert!(error.contains(says), "{query}: {error}");
    }
    let path = format!("/realtime/v1/websocket?apikey={}", token("acme"));
    let answer = hub.hub.get(&path).await?;
    assert!(answer.status == 400 || answer.status == 426, "{answer:?}");
    Ok(())
}

#[tokio::test]
async fn pages_of_strangers_get_no_socket() -> Result<()> {
    let allowed_origins = vec!["https://good.example".to_owned()];
    let hub = Served::with(Options { allowed_origins, ..Options::default() }).await?;
    let query = format!("?apikey={}", token("acme"));
    let refused = hub.connect(&query, Some("https://evil.example")).await;
    assert!(matches!(refused, Err(Error::Http(response)) if response.status() == 403));
    hub.connect(&query, Some("https://good.example")).await?;
    Ok(())
}

#[tokio::test]
async fn sockets_are_counted_in_all_and_by_key() -> Result<()> {
    let realtime = realtime::Options {
        max_connections: 3,
        max_connections_per_key: 2,
        ..realtime::Options::default()
    };
    let hub = Served::with(Options { realtime, ..Options::default() }).await?;
    let (acme, globex) = (token("acme"), token("globex"));
    let one = hub.client("1.0.0", &acme).await?;
    let _two = hub.client("1.0.0", &acme).await?;
    let of = |token: &str| format!("?apikey={token}");
    let (status, error) = refusal(hub.connect(&of(&acme), None).await)?;
    assert_eq!((status, &*error), (429, "Too many connected users"));
    let _three = hub.client("1.0.0", &globex).await?;
    assert_eq!(refusal(hub.connect(&of(&token("other")), None).await)?.0, 429);
    drop(one);
    // Its place is free as soon as the hub sees that it went.
    let again = async {
        loop {
            match hub.connect(&of(&acme), None).await {
                Err(Error::Http(response)) if response.status() == 429 => {}
                other => break other,
            }
        }
    };
    tokio::time::timeout(crate::hub::DEADLINE, again).await??;
    Ok(())
}

#[tokio::test]
async fn a_socket_without_a_version_speaks_the_first_and_pings_are_answered() -> Result<()> {
    let hub = Served::new().await?;
    let mut client = hub.connect(&format!("?apikey={}", token("acme")), None).await?;
    client.hears_nothing().await?;
    // supabase-py's heartbeats have no reference.
    let beat = json!({"topic": "phoenix", "event": "heartbeat", "payload": {}, "ref": null});
    client.raw(Message::text(beat.to_string())).await?;
    let heard = client.hear().await?;
    assert_eq!(heard.payload, json!({"status": "ok", "response": {}}));
    assert_eq!(heard.reference, Value::Null);
    client.raw(Message::Ping(vec![1, 2].into())).await?;
    use futures_util::StreamExt as _;
    let pong = tokio::time::timeout(crate::hub::DEADLINE, client.socket.next()).await?;
    assert!(matches!(pong, Some(Ok(Message::Pong(data))) if data[..] == [1, 2]));
    Ok(())
}

#[tokio::test]
async fn a_hub_that_stops_closes_its_sockets_with_1012() -> Result<()> {
    let hub = Served::new().await?;
    let mut clients = Vec::new();
    for vsn in ["1.0.0", "2.0.0"] {
        let mut client = hub.client(vsn, &token("acme")).await?;
        client.joined("room", json!({})).await?;
        clients.push(client);
    }
    hub.hub.shutdown.drain();
    for client in &mut clients {
        assert_eq!(client.closed().await?, 1012);
    }
    assert!(hub.hub.tasks.join(crate::hub::DEADLINE).await, "sockets are still held");
    Ok(())
}

#[tokio::test]
async fn a_silent_socket_is_closed() -> Result<()> {
    let realtime = realtime::Options { silence_s: 5, ..realtime::Options::default() };
    let hub = Served::with(Options { realtime, ..Options::default() }).await?;
    let mut client = hub.client("1.0.0", &token("acme")).await?;
    assert_eq!(client.closed().await?, 1012);
    Ok(())
}
