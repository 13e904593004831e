//! Broadcasts and presence.

use anyhow::Result;
use axum::body::Body;
use cogo::identity::Role;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::{Client, Served, claims, mint, token};
use crate::hub::request;

fn quiet() -> Value {
    json!({"presence": {"enabled": false}})
}

/// A broadcast in the binary format, as a client sends it.
fn push(topic: &str, name: &str, json: bool, payload: &[u8]) -> Message {
    let topic = format!("realtime:{topic}");
    let lengths =
        [1, 1, topic.len(), name.len(), 0].map(|length| u8::try_from(length).unwrap_or(0));
    let mut bytes = vec![3];
    bytes.extend(lengths);
    bytes.push(u8::from(json));
    bytes.extend([b"1", b"9", topic.as_bytes(), name.as_bytes(), payload].concat());
    Message::binary(bytes)
}

async fn four(hub: &Served, topic: &str) -> Result<[Client; 3]> {
    let token = token("acme");
    let mut clients = [
        hub.client("2.0.0", &token).await?,
        hub.client("1.0.0", &token).await?,
        hub.client("2.0.0", &token).await?,
    ];
    for client in &mut clients {
        client.joined(topic, quiet()).await?;
    }
    Ok(clients)
}

#[tokio::test]
async fn a_broadcast_is_heard_in_both_versions_and_by_its_tenant_alone() -> Result<()> {
    let hub = Served::new().await?;
    let [mut two, mut one, mut other] = four(&hub, "room").await?;
    let mut strangers = Vec::new();
    for token in
        [token("globex"), mint(claims(Role::ServiceRole, 3600)), mint(claims(Role::Anon, 3600))]
    {
        let mut stranger = hub.client("2.0.0", &token).await?;
        stranger.joined("room", quiet()).await?;
        strangers.push(stranger);
    }
    let said = json!({"type": "broadcast", "event": "e", "payload": {"n": 1}});
    two.send("room", "broadcast", said.clone()).await?;
    for client in [&mut one, &mut other] {
        let heard = client.hear().await?;
        assert_eq!((&*heard.event, &*heard.topic), ("broadcast", "realtime:room"));
        assert_eq!((heard.payload, heard.reference), (said.clone(), Value::Null));
    }
    two.hears_nothing().await?;
    one.send("room", "broadcast", said.clone()).await?;
    assert_eq!(two.hear().await?.payload, said);
    assert_eq!(other.hear().await?.payload, said);
    for stranger in &mut strangers {
        stranger.hears_nothing().await?;
    }
    Ok(())
}

#[tokio::test]
async fn binary_broadcasts_become_text_for_the_first_version_and_bytes_do_not_reach_it()
-> Result<()> {
    let hub = Served::new().await?;
    let [mut two, mut one, mut other] = four(&hub, "bin").await?;
    two.raw(push("bin", "msg", true, br#"{"x":1}"#)).await?;
    let heard = one.hear().await?;
    assert_eq!(heard.payload, json!({"type": "broadcast", "event": "msg", "payload": {"x": 1}}));
    let told = other.message().await?.into_data();
    assert_eq!(told[..], *b"\x04\x0c\x03\x00\x01realtime:binmsg{\"x\":1}");
    two.raw(push("bin", "b", false, &[1, 2, 255])).await?;
    let told = other.message().await?.into_data();
    assert_eq!(told[..], *b"\x04\x0c\x01\x00\x00realtime:binb\x01\x02\xff");
    // What says that it is JSON and is not reaches nobody.
    two.raw(push("bin", "b", true, b"{")).await?;
    one.hears_nothing().await?;
    other.hears_nothing().await?;
    two.hears_nothing().await
}

#[tokio::test]
async fn broadcasts_are_acknowledged_and_echoed_where_that_was_asked_for() -> Result<()> {
    let hub = Served::new().await?;
    let mut client = hub.client("2.0.0", &token("acme")).await?;
    let config = json!({"broadcast": {"ack": true, "self": true}, "presence": {"enabled": false}});
    client.joined("own", config).await?;
    let reference = client.send("own", "broadcast", json!({"event": "e", "payload": 1})).await?;
    assert_eq!(client.hear().await?.event, "broadcast");
    assert_eq!(client.answer(&reference).await?, json!({"status": "ok", "response": {}}));
    let reference = client.send("own", "broadcast", json!("nothing")).await?;
    assert_eq!(client.answer(&reference).await?["status"], "error");
    Ok(())
}

#[tokio::test]
async fn only_the_hub_sends_to_its_own_channels() -> Result<()> {
    let hub = Served::new().await?;
    let service = mint(claims(Role::ServiceRole, 3600));
    let config =
        json!({"private": true, "broadcast": {"ack": true}, "presence": {"enabled": false}});
    let mut listener = hub.client("2.0.0", &token("acme")).await?;
    listener.joined("cogo:work:acme:r:s", config.clone()).await?;
    let mut sender = hub.client("2.0.0", &service).await?;
    sender.joined("cogo:work:acme:r:s", config).await?;
    sender.send("cogo:work:acme:r:s", "broadcast", json!({"event": "work"})).await?;
    let reference =
        sender.send("cogo:work:acme:r:s", "presence", json!({"event": "track"})).await?;
    assert_eq!(sender.answer(&reference).await?["status"], "error");
    let answer = post(
        &hub,
        &service,
        "",
        r#"{"messages":[{"topic":"cogo:work:acme:r:s","event":"work","private":true}]}"#,
    )
    .await?;
    assert_eq!(answer.0, 403, "{answer:?}");
    listener.hears_nothing().await
}

async fn post(
    hub: &Served,
    token: &str,
    path: &str,
    body: impl Into<Body>,
) -> Result<(u16, String)> {
    let request = request("POST", &format!("/realtime/v1/api/broadcast{path}"))
        .header("apikey", token)
        .header("content-type", "application/json");
    let answer = hub.hub.send(request.body(body.into())?).await?;
    Ok((answer.status.as_u16(), answer.text))
}

#[tokio::test]
async fn broadcasts_come_over_http_as_well() -> Result<()> {
    let hub = Served::new().await?;
    let [_, mut one, mut other] = four(&hub, "room 4/a").await?;
    let acme = token("acme");
    let messages = r#"{"messages":[{"topic":"room 4/a","event":"a","payload":{"x":1}},
        {"topic":"room 4/a","event":"b","payload":2,"private":false}]}"#;
    assert_eq!(post(&hub, &acme, "", messages).await?.0, 202);
    for client in [&mut one, &mut other] {
        assert_eq!(
            client.hear_of("broadcast").await?,
            json!({"type": "broadcast", "event": "a", "payload": {"x": 1}})
        );
        assert_eq!(client.hear_of("broadcast").await?["event"], "b");
    }
    assert_eq!(post(&hub, &acme, "/room%204%2Fa/events/my%20event", r#"{"x":1}"#).await?.0, 202);
    assert_eq!(one.hear_of("broadcast").await?["event"], "my event");
    // A private topic of the same name is another one, and one of another tenant is refused.
    let path = "/globex:room/events/e?private=true";
    assert_eq!(post(&hub, &acme, path, "{}").await?.0, 403);
    assert_eq!(post(&hub, &acme, "/acme:room/events/e?private=true", "{}").await?.0, 202);
    assert_eq!(post(&hub, &token("globex"), "/room%204%2Fa/events/e", "{}").await?.0, 202);
    one.hears_nothing().await?;
    for (token, body, status) in [
        ("nonsense", "{}", 401),
        (&*acme, "{", 422),
        (&*acme, r#"{"messages":[{"topic":"","event":"e"}]}"#, 422),
        (&*acme, r#"{"messages":[{"topic":"t","event":""}]}"#, 422),
    ] {
        assert_eq!(post(&hub, token, "", body).await?.0, status, "{body}");
    }
    Ok(())
}

#[tokio::test]
async fn a_private_room_of_a_tenant_is_open_to_the_service() -> Result<()> {
    let hub = Served::new().await?;
    let mut client = hub.client("1.0.0", &token("acme")).await?;
    client.joined("acme:room", json!({"private": true, "presence": {"enabled": false}})).await?;
    let service = mint(claims(Role::ServiceRole, 3600));
    let path = "/acme:room/events/e?private=true";
    assert_eq!(post(&hub, &service, path, r#"{"x":1}"#).await?.0, 202);
    assert_eq!(client.hear_of("broadcast").await?["payload"], json!({"x": 1}));
    Ok(())
}

#[tokio::test]
async fn presence_is_kept_in_both_versions_and_ends_with_the_socket() -> Result<()> {
    let hub = Served::new().await?;
    let acme = token("acme");
    let present = |key: &str| json!({"presence": {"enabled": true, "key": key}});
    let mut one = hub.client("1.0.0", &acme).await?;
    one.joined("agents", present("w-1")).await?;
    assert_eq!(one.hear().await?.payload, json!({}), "presence_state");
    let reference =
        one.send("agents", "presence", json!({"event": "TRACK", "payload": {"n": 1}})).await?;
    let answer = one.hear().await?;
    assert_eq!((&*answer.event, &answer.reference), ("phx_reply", &json!(reference)));
    let diff = one.hear().await?;
    assert_eq!(diff.event, "presence_diff");
    assert_eq!(diff.payload["joins"]["w-1"]["metas"][0]["n"], 1);
    assert!(diff.payload["joins"]["w-1"]["metas"][0]["phx_ref"].is_string());

    let mut two = hub.client("2.0.0", &acme).await?;
    two.joined("agents", present("w-2")).await?;
    let state = two.hear_of("presence_state").await?;
    assert_eq!(state["w-1"]["metas"][0]["n"], 1);
    two.send(
        "agents",
        "presence",
        json!({"type": "presence", "event": "track", "payload": {"n": 2}}),
    )
    .await?;
    assert_eq!(one.hear_of("presence_diff").await?["joins"]["w-2"]["metas"][0]["n"], 2);
    two.hear_of("presence_diff").await?;

    one.send("agents", "presence", json!({"event": "untrack"})).await?;
    assert_eq!(two.hear_of("presence_diff").await?["leaves"]["w-1"]["metas"][0]["n"], 1);
    one.hear_of("presence_diff").await?;
    drop(two);
    assert_eq!(one.hear_of("presence_diff").await?["leaves"]["w-2"]["metas"][0]["n"], 2);
    // Another tenant sees nobody.
    let mut stranger = hub.client("2.0.0", &token("globex")).await?;
    stranger.joined("agents", present("w-3")).await?;
    assert_eq!(stranger.hear_of("presence_state").await?, json!({}));
    Ok(())
}
