//! Connections that are refused, and new keys and tokens.

use std::time::Duration;

use anyhow::{Result, bail};
use cogo::realtime::wire::{Vsn, event};
use cogo::realtime::{Client, Retry, Status};
use cogo::secret::Secret;
use cogo::shutdown::Tasks;
use serde_json::{Value, json};

use super::{KEY, ended, join_both, lost, options, quiet};
use crate::realtime::server::{Server, soon};

#[tokio::test]
async fn a_refused_connection_is_reported_and_tried_again_with_new_credentials() -> Result<()> {
    let (mut server, tasks) = (Server::start().await?, Tasks::new());
    server.refuse(&[
        (401, r#"{"error":"a-key-that-nobody-may-see is not a valid JWT"}"#),
        (403, r#"{"message":"suspended"}"#),
        (429, "<html>"),
    ]);
    let mut options = options(&server, Vsn::V2);
    let client = Client::start(options.clone(), &tasks)?;
    let mut status = client.status();
    let mut seen = Vec::new();
    while seen.len() < 3 {
        soon("a refusal", status.changed()).await??;
        if let Status::Refused { status, message, .. } = &*status.borrow_and_update()
            && seen.last().is_none_or(|(last, _)| last != status)
        {
            seen.push((*status, message.clone()));
        }
    }
    let said = |status, message: &str| (status, message.to_owned());
    let expected = [
        said(401, "[redacted] is not a valid JWT"),
        said(403, "suspended"),
        said(429, "Too Many Requests"),
    ];
    assert_eq!(seen, expected);
    server.peer().await?;
    ended(&client, &tasks).await?;

    // With pauses that would never end, a new key alone lets it in.
    let never = Duration::from_secs(3600);
    options.retry = Retry { first: never, max: never, max_offline: never };
    server.refuse(&[(401, "{}")]);
    let tasks = Tasks::new();
    let client = Client::start(options, &tasks)?;
    let refused = |status: &Status| matches!(status, Status::Refused { status: 401, .. });
    soon("a refusal", client.status().wait_for(refused)).await??;
    client.set_key(Secret::from("another"));
    assert_eq!(server.peer().await?.key, "another");
    assert_eq!(server.refusals_left(), 0);
    assert!(!format!("{client:?}").contains(KEY));
    ended(&client, &tasks).await
}

#[tokio::test]
async fn a_check_ends_the_pause_before_the_next_attempt() -> Result<()> {
    let (mut server, tasks) = (Server::start().await?, Tasks::new());
    server.refuse(&[(503, "")]);
    let mut options = options(&server, Vsn::V2);
    let never = Duration::from_secs(3600);
    options.retry = Retry { first: never, max: never, max_offline: never };
    let client = Client::start(options, &tasks)?;
    let refused = |status: &Status| matches!(status, Status::Refused { .. });
    soon("a refusal", client.status().wait_for(refused)).await??;
    client.check();
    let mut peer = server.peer().await?;
    let connected = |status: &Status| *status == Status::Connected;
    soon("the connection", client.status().wait_for(connected)).await??;
    client.check(); // and once connected, it is a heartbeat
    assert_eq!(peer.frame().await?.event, event::HEARTBEAT);
    drop(peer);
    ended(&client, &tasks).await
}

#[tokio::test]
async fn a_new_token_is_pushed_to_joined_channels_and_used_by_later_joins() -> Result<()> {
    let (mut server, tasks) = (Server::start().await?, Tasks::new());
    let mut options = options(&server, Vsn::V2);
    options.token = Some(Secret::from("first"));
    let never = Duration::from_secs(3600);
    options.retry = Retry { first: never, max: never, max_offline: never };
    let client = Client::start(options, &tasks)?;
    let (mut a, mut b) = (client.channel("a", quiet()), client.channel("b", quiet()));
    let mut peer = server.peer().await?;
    let joins = join_both(&mut peer, &mut a, &mut b).await?;
    assert_eq!(joins[0].read::<Value>()?["access_token"], "first");
    client.set_token(Secret::from("second"));
    client.set_token(Secret::from("second"));
    let mut told = vec![];
    for _ in 0..2 {
        let frame = peer.expect(event::ACCESS_TOKEN).await?;
        assert_eq!(frame.read::<Value>()?, json!({"access_token": "second"}));
        told.push((frame.topic, frame.join_ref));
    }
    told.sort();
    let expected = joins.each_ref().map(|join| (join.topic.clone(), join.join_ref.clone()));
    assert_eq!(told, expected);

    // A channel that waits an hour to be joined again is joined at once with a token that is new.
    peer.push(&joins[0], event::ERROR, &json!({})).await?;
    lost(&mut a).await?;
    client.set_token(Secret::from("third"));
    let (mut joined_with, mut pushed) = (None, None);
    while joined_with.is_none() || pushed.is_none() {
        let frame = peer.frame().await?;
        let token = Some(frame.read::<Value>()?["access_token"].clone());
        match frame.event.as_str() {
            event::JOIN => joined_with = token,
            event::ACCESS_TOKEN => pushed = token,
            other => bail!("{other} was not expected"),
        }
    }
    assert_eq!((joined_with, pushed), (Some(json!("third")), Some(json!("third"))));
    drop(peer);
    ended(&client, &tasks).await
}
