//! What is lost, and joined again.

use std::time::Duration;

use anyhow::{Result, bail};
use cogo::realtime::wire::{Reply, System, Vsn, event};
use cogo::realtime::{Client, Event};
use cogo::shutdown::Tasks;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use super::{ended, join_both, joined, lost, next, options, quiet};
use crate::realtime::server::Server;

/// How the server loses the client.
#[derive(Debug, Clone, Copy)]
enum Loss {
    Close(u16),
    Vanish,
    Silence,
    HeartbeatUnanswered,
}

#[tokio::test]
async fn every_channel_is_joined_again_after_every_loss_of_the_connection() -> Result<()> {
    for vsn in [Vsn::V1, Vsn::V2] {
        for loss in [
            Loss::Close(1000),
            Loss::Close(1001),
            Loss::Close(1012),
            Loss::Close(4000),
            Loss::Vanish,
            Loss::Silence,
            Loss::HeartbeatUnanswered,
        ] {
            let (mut server, tasks) = (Server::start().await?, Tasks::new());
            let mut options = options(&server, vsn);
            match loss {
                // Long enough for both joins and what is told in between, on a machine that is busy with something else.
                Loss::Silence => {
                    options.heartbeat = Duration::from_millis(1000);
                    options.silence = Duration::from_millis(500);
                }
                Loss::HeartbeatUnanswered => options.heartbeat = Duration::from_millis(1000),
                Loss::Close(_) | Loss::Vanish => {}
            }
            let client = Client::start(options, &tasks)?;
            let (mut a, mut b) = (client.channel("a", quiet()), client.channel("b", quiet()));
            let mut peer = server.peer().await?;
            let joins = join_both(&mut peer, &mut a, &mut b).await?;
            let mut kept = None;
            match loss {
                Loss::Close(code) => peer.close(code).await?,
                Loss::Vanish => drop(peer),
                Loss::Silence => kept = Some(peer),
                Loss::HeartbeatUnanswered => {
                    while peer.frame().await?.event != event::HEARTBEAT {}
                    let broadcast = json!({"type": "broadcast", "event": "e", "payload": {}});
                    peer.push(&joins[0], event::BROADCAST, &broadcast).await?;
                    assert!(matches!(next(&mut a).await?, Event::Broadcast { .. }));
                    kept = Some(peer);
                }
            }
            let reason = lost(&mut a).await?;
            assert_eq!(reason, lost(&mut b).await?);
            let expected = match loss {
                Loss::Close(code) => format!("code {code}"),
                Loss::Vanish => "connection".to_owned(),
                Loss::Silence => "nothing was heard".to_owned(),
                Loss::HeartbeatUnanswered => "not answered".to_owned(),
            };
            assert!(reason.contains(&expected), "{loss:?}: {reason}");
            let mut peer = server.peer().await?;
            let again = join_both(&mut peer, &mut a, &mut b).await?;
            assert_ne!(again[0].join_ref, joins[0].join_ref);
            drop((peer, kept));
            ended(&client, &tasks).await?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_channel_that_is_lost_alone_is_joined_again_on_the_same_connection() -> Result<()> {
    for vsn in [Vsn::V1, Vsn::V2] {
        let (mut server, tasks) = (Server::start().await?, Tasks::new());
        let mut options = options(&server, vsn);
        // Short, since one is waited for; and what is answered is so in time.
        options.answer = Duration::from_millis(1500);
        let client = Client::start(options, &tasks)?;
        let mut channel = client.channel("a", quiet());
        let mut peer = server.peer().await?;
        let refused = peer.expect(event::JOIN).await?;
        peer.reply(&refused, &Reply::error("Unauthorized: not for you")).await?;
        assert_eq!(lost(&mut channel).await?, "the join is refused: Unauthorized: not for you");
        let mut join = peer.join().await?;
        joined(&mut channel).await?;
        for (name, said) in [(event::ERROR, "failed"), (event::CLOSE, "closed")] {
            peer.push(&join, name, &json!({})).await?;
            assert_eq!(lost(&mut channel).await?, format!("the channel was {said} by the server"));
            join = peer.join().await?;
            joined(&mut channel).await?;
        }
        let expired = System::error("system", "Token has expired 3 seconds ago", "a");
        peer.push(&join, event::SYSTEM, &serde_json::to_value(expired)?).await?;
        peer.push(&join, event::CLOSE, &json!({})).await?;
        assert!(matches!(next(&mut channel).await?, Event::SystemError(_)));
        assert!(lost(&mut channel).await?.ends_with(": Token has expired 3 seconds ago"));
        peer.expect(event::JOIN).await?; // and never answers
        assert!(lost(&mut channel).await?.contains("not answered"));
        // The answer that comes too late is of a join that is over.
        let _ = peer.join().await?;
        joined(&mut channel).await?;
        drop(peer);
        ended(&client, &tasks).await?;
    }
    Ok(())
}

#[tokio::test]
async fn what_belongs_to_an_earlier_join_changes_nothing() -> Result<()> {
    let (mut server, tasks) = (Server::start().await?, Tasks::new());
    let client = Client::start(options(&server, Vsn::V1), &tasks)?;
    let mut channel = client.channel("a", quiet());
    let mut peer = server.peer().await?;
    let first = peer.join().await?;
    joined(&mut channel).await?;
    peer.push(&first, event::ERROR, &json!({})).await?;
    lost(&mut channel).await?;
    let second = peer.join().await?;
    joined(&mut channel).await?;
    peer.push(&first, event::CLOSE, &json!({})).await?;
    peer.raw(Message::text("{not a frame")).await?;
    peer.raw(Message::binary(vec![9, 9])).await?;
    let broadcast = json!({"type": "broadcast", "event": "still here", "payload": {}});
    peer.push(&second, event::BROADCAST, &broadcast).await?;
    let Event::Broadcast { event, .. } = next(&mut channel).await? else { bail!("lost") };
    assert_eq!(event, "still here");
    drop(peer);
    ended(&client, &tasks).await
}
