//! Joining, leaving, tokens.

use anyhow::Result;
use cogo::identity::Role;
use serde_json::json;

use super::{Served, claims, mint, token, token_for};

#[tokio::test]
async fn a_channel_is_joined_left_and_replaced() -> Result<()> {
    let hub = Served::new().await?;
    for vsn in ["1.0.0", "2.0.0"] {
        let mut client = hub.client(vsn, &token("acme")).await?;
        let response = client.joined("room", json!({"presence": {"enabled": false}})).await?;
        assert_eq!(response, json!({"postgres_changes": []}));
        // A second join of the topic ends the first.
        let reference = client.send("room", "phx_join", json!({})).await?;
        let closed = client.hear().await?;
        assert_eq!((&*closed.event, &*closed.topic), ("phx_close", "realtime:room"));
        assert_eq!(client.answer(&reference).await?["status"], "ok");
        let state = client.hear().await?;
        assert_eq!(state.event, "presence_state", "missing `enabled` counts as true");

        let reference = client.send("room", "phx_leave", json!({})).await?;
        assert_eq!(client.answer(&reference).await?["status"], "ok");
        assert_eq!(client.hear().await?.event, "phx_close");
        let reference = client.send("room", "broadcast", json!({"event": "x"})).await?;
        let answer = client.answer(&reference).await?;
        assert_eq!(answer, json!({"status": "error", "response": {"reason": "unmatched topic"}}));
        let reference = client.send("never", "phx_leave", json!({})).await?;
        assert_eq!(client.answer(&reference).await?["status"], "ok");
        client.hears_nothing().await?;
    }
    Ok(())
}

#[tokio::test]
async fn bad_joins_are_refused_or_read_leniently() -> Result<()> {
    let hub = Served::new().await?;
    let mut client = hub.client("2.0.0", &token("acme")).await?;
    let reason = |answer: &serde_json::Value| {
        answer["response"]["reason"].as_str().unwrap_or_default().to_owned()
    };
    let answer = client.join("", json!({})).await?;
    assert!(reason(&answer).starts_with("TopicNameRequired"), "{answer}");
    let answer = client.join(&"x".repeat(300), json!({})).await?;
    assert!(reason(&answer).starts_with("TopicNameRequired"), "{answer}");
    let reference = client.send("a", "phx_join", json!({"access_token": "nonsense"})).await?;
    let answer = client.answer(&reference).await?;
    assert!(reason(&answer).starts_with("MalformedJWT"), "{answer}");
    let old = mint(claims(Role::Anon, -100));
    let reference = client.send("a", "phx_join", json!({"access_token": old})).await?;
    let answer = client.answer(&reference).await?;
    assert!(reason(&answer).contains("Token has expired 100 seconds ago"), "{answer}");
    // Booleans as strings, nulls in lists, sections of the wrong kind, keys that are no tokens.
    let odd = json!({
        "config": {"broadcast": {"self": "true"}, "presence": 7, "postgres_changes": [null]},
        "access_token": "sb_publishable_x",
    });
    let reference = client.send("a", "phx_join", odd).await?;
    assert_eq!(client.answer(&reference).await?["status"], "ok");
    client.hear_of("presence_state").await?;
    client.send("a", "broadcast", json!({"event": "x", "payload": {}})).await?;
    assert_eq!(client.hear_of("broadcast").await?["event"], "x", "self is true");
    client.hears_nothing().await
}

#[tokio::test]
async fn private_channels_are_the_databases_to_allow() -> Result<()> {
    let hub = Served::new().await?;
    let mut acme = hub.client("2.0.0", &token_for("acme", &["r/s"])).await?;
    let private = json!({"private": true, "presence": {"enabled": false}});
    for good in ["acme:room", "cogo:work:acme:r:s"] {
        acme.joined(good, private.clone()).await?;
    }
    for bad in ["globex:room", "room", "cogo:work:acme:r:t", "cogo:work:globex:r:s", "cogo:else"] {
        let answer = acme.join(bad, private.clone()).await?;
        let reason = answer["response"]["reason"].as_str().unwrap_or_default().to_owned();
        assert!(reason.starts_with("Unauthorized: "), "{bad}: {answer}");
    }
    let answer = acme.join("cogo:work:acme:r:s2", json!({})).await?;
    let reason = answer["response"]["reason"].as_str().unwrap_or_default().to_owned();
    assert!(reason.starts_with("PrivateOnly: "), "{answer}");
    let mut anon = hub.client("2.0.0", &mint(claims(Role::Anon, 3600))).await?;
    let answer = anon.join("acme:room", private).await?;
    assert_eq!(answer["status"], "error", "{answer}");
    Ok(())
}

#[tokio::test]
async fn a_channel_ends_with_its_token() -> Result<()> {
    let hub = Served::new().await?;
    // Tokens are good for half a minute longer than they say.
    let mut client = hub.client("1.0.0", &mint(claims(Role::Anon, -28))).await?;
    client.joined("short", json!({"presence": {"enabled": false}})).await?;
    let system = client.hear().await?;
    assert_eq!(system.event, "system");
    assert_eq!(system.payload["status"], "error");
    assert_eq!(system.payload["extension"], "system");
    assert_eq!(system.payload["channel"], "short");
    let message = system.payload["message"].as_str().unwrap_or_default();
    assert!(message.starts_with("Token has expired 3"), "{message}");
    assert_eq!(client.hear().await?.event, "phx_close");
    let answer = client.join("short", json!({})).await?;
    assert!(answer["response"]["reason"].as_str().unwrap_or_default().contains("expired"));
    Ok(())
}

#[tokio::test]
async fn a_new_token_takes_the_place_of_the_old_and_a_bad_one_ends_the_channel() -> Result<()> {
    let hub = Served::new().await?;
    let quiet = json!({"presence": {"enabled": false}});
    let mut client = hub.client("2.0.0", &mint(claims(Role::Anon, -28))).await?;
    client.joined("room", quiet.clone()).await?;
    let fresh = token("acme");
    client.send("room", "access_token", json!({"access_token": fresh})).await?;
    // The same again, and a key that is no token, change nothing.
    client.send("room", "access_token", json!({"access_token": fresh})).await?;
    client.send("room", "access_token", json!({"access_token": "sb_secret_x"})).await?;
    client.hears_nothing().await?;

    let mut other = hub.client("2.0.0", &fresh).await?;
    other.joined("room", quiet).await?;
    other.send("room", "broadcast", json!({"event": "x", "payload": 1})).await?;
    assert_eq!(client.hear_of("broadcast").await?["payload"], 1, "it is of the tenant now");

    client.send("room", "access_token", json!({"access_token": "nonsense"})).await?;
    let system = client.hear_of("system").await?;
    assert!(system["message"].as_str().unwrap_or_default().starts_with("MalformedJWT"), "{system}");
    assert_eq!(client.hear().await?.event, "phx_close");
    Ok(())
}
