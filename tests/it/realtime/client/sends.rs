//! What the client sends and hears beside changes: broadcasts and presence.

use std::time::Duration;

use anyhow::{Result, bail};
use cogo::realtime::wire::{
    Config, Encoding, Frame, JoinBroadcast, JoinPresence, Payload, Presence, PresenceEvent, Reply,
    Side, UserBroadcast, Vsn, event,
};
use cogo::realtime::{Client, Content, Error, Event};
use cogo::shutdown::Tasks;
use serde_json::{Value, json};

use super::{ended, joined, lost, next, options, quiet};
use crate::realtime::server::Server;

#[tokio::test]
async fn broadcasts_go_both_ways_with_acknowledgement_and_as_bytes() -> Result<()> {
    for vsn in [Vsn::V1, Vsn::V2] {
        let (mut server, tasks) = (Server::start().await?, Tasks::new());
        let mut options = options(&server, vsn);
        options.answer = Duration::from_millis(1500);
        let client = Client::start(options, &tasks)?;
        let broadcast = JoinBroadcast { ack: true, ..JoinBroadcast::default() };
        let mut channel = client.channel("a", Config { broadcast, ..quiet() });
        let (none, one) = (json!({}), json!({"n": 1}));
        let early = channel.broadcast("e", &json!({})).await;
        assert_eq!(early, Err(Error::NotJoined));
        let mut peer = server.peer().await?;
        let join = peer.join().await?;
        joined(&mut channel).await?;

        let (sent, got) = tokio::join!(channel.broadcast("e", &one), async {
            let frame = peer.expect(event::BROADCAST).await?;
            peer.reply(&frame, &Reply::ok()).await?;
            anyhow::Ok(frame)
        });
        assert_eq!(sent, Ok(()));
        let frame = got?;
        assert_eq!(frame.join_ref, join.join_ref);
        match (&frame.payload, vsn) {
            (Payload::UserBroadcast(sent), Vsn::V2) => {
                assert_eq!((sent.event.as_str(), &sent.payload[..]), ("e", &br#"{"n":1}"#[..]));
            }
            (Payload::Json(sent), Vsn::V1) => {
                assert_eq!(sent.get(), r#"{"type":"broadcast","event":"e","payload":{"n":1}}"#);
            }
            other => bail!("{other:?}"),
        }
        let (refused, _) = tokio::join!(channel.broadcast("e", &none), async {
            let frame = peer.expect(event::BROADCAST).await?;
            peer.reply(&frame, &Reply::error("too much")).await
        });
        assert_eq!(refused, Err(Error::Refused("too much".to_owned())));
        assert_eq!(channel.broadcast("e", &json!({})).await, Err(Error::Unanswered));
        peer.expect(event::BROADCAST).await?;

        let bytes = channel.broadcast_bytes("b", vec![1, 2, 255]);
        if vsn == Vsn::V1 {
            assert!(matches!(bytes.await, Err(Error::Wire(_))));
        } else {
            let (sent, got) = tokio::join!(bytes, async {
                let frame = peer.expect(event::BROADCAST).await?;
                peer.reply(&frame, &Reply::ok()).await?;
                anyhow::Ok(frame)
            });
            assert_eq!(sent, Ok(()));
            // The server sends it on as kind 4, and it is heard as it was sent.
            peer.send(got?).await?;
            let Event::Broadcast { event, payload: Content::Bytes(bytes) } =
                next(&mut channel).await?
            else {
                bail!("no bytes")
            };
            assert_eq!((event.as_str(), bytes), ("b", vec![1, 2, 255]));
            let mut json = Frame::new("realtime:a", event::BROADCAST, &())?;
            json.payload = Payload::UserBroadcast(UserBroadcast {
                event: "j".to_owned(),
                metadata: r#"{"id":"1"}"#.to_owned(),
                encoding: Encoding::Json,
                payload: b"[1]".to_vec(),
            });
            assert!(json.encode(Vsn::V2, Side::Server).is_ok());
            peer.send(json).await?;
        }
        if vsn == Vsn::V1 {
            let sent = json!({"type": "broadcast", "event": "j", "payload": [1]});
            peer.push(&join, event::BROADCAST, &sent).await?;
        }
        let Event::Broadcast { payload: Content::Json(heard), .. } = next(&mut channel).await?
        else {
            bail!("no JSON")
        };
        assert_eq!(heard.get(), "[1]");

        let (lost, _) = tokio::join!(channel.broadcast("e", &none), async move {
            peer.expect(event::BROADCAST).await?;
            drop(peer);
            anyhow::Ok(())
        });
        assert_eq!(lost, Err(Error::Lost));
        ended(&client, &tasks).await?;
        assert_eq!(channel.broadcast("e", &json!({})).await, Err(Error::Closed));
    }
    Ok(())
}

#[tokio::test]
async fn presence_is_tracked_again_after_every_join_until_it_is_untracked() -> Result<()> {
    let (mut server, tasks) = (Server::start().await?, Tasks::new());
    let client = Client::start(options(&server, Vsn::V2), &tasks)?;
    let presence = JoinPresence { key: "worker-1".to_owned(), enabled: true };
    let mut channel = client.channel("a", Config { presence, ..quiet() });
    channel.track(&json!({"host": "laptop"}))?;
    let mut peer = server.peer().await?;
    let mut join = peer.join().await?;
    joined(&mut channel).await?;
    for round in 0..2 {
        let frame = peer.expect(event::PRESENCE).await?;
        let sent: Value = frame.read()?;
        assert_eq!(
            sent,
            json!({"type": "presence", "event": "track", "payload": {"host": "laptop"}})
        );
        peer.reply(&frame, &Reply::ok()).await?;
        if round == 0 {
            peer.push(&join, event::ERROR, &json!({})).await?;
            lost(&mut channel).await?;
            join = peer.join().await?;
            joined(&mut channel).await?;
        }
    }
    let metas = json!({"worker-1": {"metas": [{"host": "laptop", "phx_ref": "1"}]}});
    peer.push(&join, event::PRESENCE_STATE, &metas).await?;
    let Event::PresenceState(state) = next(&mut channel).await? else { bail!("no state") };
    assert_eq!(state["worker-1"].metas[0]["host"], "laptop");
    peer.push(&join, event::PRESENCE_DIFF, &json!({"joins": {}, "leaves": metas})).await?;
    let Event::PresenceDiff(diff) = next(&mut channel).await? else { bail!("no diff") };
    assert_eq!((diff.joins.len(), diff.leaves.len()), (0, 1));

    channel.untrack();
    let frame = peer.expect(event::PRESENCE).await?;
    assert_eq!(frame.read::<Presence>()?.event, PresenceEvent::Untrack);
    peer.reply(&frame, &Reply::error("too often")).await?;
    let Event::SystemError(said) = next(&mut channel).await? else { bail!("no error") };
    assert!(said.contains("too often"));
    drop(peer);
    server.peer().await?.join().await?; // and nothing of presence follows it
    ended(&client, &tasks).await
}
