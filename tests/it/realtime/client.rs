//! The client against a scripted server: whatever is lost, every channel comes back.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use cogo::realtime::wire::{
    Binding, ChangeKind, Config, Encoding, Frame, JoinBroadcast, JoinPresence, Payload, Presence,
    PresenceEvent, Reply, Side, System, UserBroadcast, Vsn, event,
};
use cogo::realtime::{Channel, Client, Content, Error, Event, Options, Retry, State, Status};
use cogo::secret::Secret;
use cogo::shutdown::Tasks;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::server::{DEADLINE, Peer, Server, soon};

const KEY: &str = "a-key-that-nobody-may-see";

fn options(server: &Server, vsn: Vsn) -> Options {
    let mut options = Options::new(&format!("http://{}", server.address), KEY).expect("a URL");
    options.vsn = vsn;
    let (short, long) = (Duration::from_millis(20), Duration::from_millis(60));
    options.retry = Retry { first: short, max: long, max_offline: long };
    options
}

fn changes() -> Config {
    let binding = Binding::new(ChangeKind::Insert, "agent_messages").filtered("role=eq.planner");
    Config { postgres_changes: vec![binding], presence: JoinPresence::none(), ..Config::default() }
}

fn quiet() -> Config {
    Config { presence: JoinPresence::none(), ..Config::default() }
}

async fn next(channel: &mut Channel) -> Result<Event> {
    soon("an event", channel.next()).await?.context("the channel's end")
}

async fn joined(channel: &mut Channel) -> Result<()> {
    match next(channel).await? {
        Event::Joined => Ok(()),
        other => bail!("Joined was expected, not {other:?}"),
    }
}

async fn lost(channel: &mut Channel) -> Result<String> {
    match next(channel).await? {
        Event::Lost { reason } => Ok(reason),
        other => bail!("Lost was expected, not {other:?}"),
    }
}

async fn ended(client: &Client, tasks: &Tasks) -> Result<()> {
    soon("the end", client.close()).await?;
    ensure!(tasks.join(DEADLINE).await, "the task goes on");
    Ok(())
}

/// Both joins, in whatever order they come.
async fn join_both(peer: &mut Peer, a: &mut Channel, b: &mut Channel) -> Result<[Frame; 2]> {
    let mut joins = [peer.join().await?, peer.join().await?];
    joins.sort_by(|one, other| one.topic.cmp(&other.topic));
    let topics = joins.each_ref().map(|join| join.topic.as_str());
    ensure!(topics == ["realtime:a", "realtime:b"], "{topics:?}");
    joined(a).await?;
    joined(b).await?;
    Ok(joins)
}

#[tokio::test]
async fn a_join_asks_for_changes_and_they_flow_once_the_server_says_so() -> Result<()> {
    for vsn in [Vsn::V1, Vsn::V2] {
        let (mut server, tasks) = (Server::start().await?, Tasks::new());
        let client = Client::start(options(&server, vsn), &tasks)?;
        let mut channel = client.channel("worker-1", changes());
        let mut peer = server.peer().await?;
        assert_eq!((peer.vsn, peer.key.as_str()), (vsn, KEY));
        let join = peer.join().await?;
        assert_eq!(join.topic, "realtime:worker-1");
        let asked: Value = join.read()?;
        let binding = json!({"event": "INSERT", "schema": "public", "table": "agent_messages", "filter": "role=eq.planner"});
        assert_eq!(asked["config"]["postgres_changes"], json!([binding]));
        assert_eq!(asked["config"]["presence"]["enabled"], json!(false));
        joined(&mut channel).await?;
        assert_eq!(*channel.state().borrow(), State::Joined);
        assert_eq!(*client.status().borrow(), Status::Connected);

        let subscribed = serde_json::to_value(System::subscribed("worker-1"))?;
        peer.push(&join, event::SYSTEM, &subscribed).await?;
        assert!(matches!(next(&mut channel).await?, Event::Subscribed));
        assert_eq!(*channel.state().borrow(), State::Subscribed);
        let change = json!({"ids": [1], "data": {"type": "INSERT", "record": {"id": 1}}});
        peer.push(&join, event::POSTGRES_CHANGES, &change).await?;
        let Event::Change(change) = next(&mut channel).await? else { bail!("no change") };
        assert_eq!((change.ids, change.data.get().contains("record")), (vec![1], true));
        let wrong = serde_json::to_value(System::error("postgres_changes", "no such column", ""))?;
        peer.push(&join, event::SYSTEM, &wrong).await?;
        let Event::SystemError(said) = next(&mut channel).await? else { bail!("no error") };
        assert_eq!(said, "no such column");
        drop(peer);
        ended(&client, &tasks).await?;
    }
    Ok(())
}

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

#[tokio::test]
async fn a_reader_that_does_not_read_holds_nothing_up() -> Result<()> {
    let (mut server, tasks) = (Server::start().await?, Tasks::new());
    let mut options = options(&server, Vsn::V2);
    options.queue = 16;
    let client = Client::start(options, &tasks)?;
    let (mut slow, mut busy) = (client.channel("a", quiet()), client.channel("b", quiet()));
    let mut peer = server.peer().await?;
    let joins = join_both(&mut peer, &mut slow, &mut busy).await?;
    let sent = json!({"type": "broadcast", "event": "e", "payload": "x".repeat(1000)});
    for _ in 0..2_000 {
        peer.push(&joins[0], event::BROADCAST, &sent).await?;
    }
    peer.push(&joins[1], event::BROADCAST, &sent).await?;
    assert!(matches!(next(&mut busy).await?, Event::Broadcast { .. }));
    client.check();
    assert_eq!(peer.frame().await?.event, event::HEARTBEAT);
    assert!(matches!(next(&mut slow).await?, Event::Missed));
    assert_eq!(*slow.state().borrow(), State::Joined);
    drop(peer);
    ended(&client, &tasks).await
}

#[tokio::test]
async fn pings_of_the_server_are_answered() -> Result<()> {
    let (mut server, tasks) = (Server::start().await?, Tasks::new());
    let client = Client::start(options(&server, Vsn::V2), &tasks)?;
    let mut peer = server.peer().await?;
    peer.raw(Message::Ping(b"are you there".to_vec().into())).await?;
    let pong = peer.message().await?;
    assert_eq!(pong, Some(Message::Pong(b"are you there".to_vec().into())));
    drop(peer);
    ended(&client, &tasks).await
}

#[tokio::test]
async fn closing_leaves_every_channel_and_says_goodbye() -> Result<()> {
    let (mut server, tasks) = (Server::start().await?, Tasks::new());
    let client = Client::start(options(&server, Vsn::V2), &tasks)?;
    let (mut a, mut b) = (client.channel("a", quiet()), client.channel("b", quiet()));
    let mut peer = server.peer().await?;
    let joins = join_both(&mut peer, &mut a, &mut b).await?;
    let (closed, heard) = tokio::join!(ended(&client, &tasks), async {
        let left = [peer.expect(event::LEAVE).await?, peer.expect(event::LEAVE).await?];
        let Some(Message::Close(Some(frame))) = peer.message().await? else { bail!("no close") };
        assert_eq!(u16::from(frame.code), 1000);
        while peer.message().await.is_ok_and(|message| message.is_some()) {}
        Ok(left)
    });
    closed?;
    let mut refs = heard?.map(|leave| leave.join_ref);
    refs.sort();
    let mut expected = joins.map(|join| join.join_ref);
    expected.sort();
    assert_eq!(refs, expected);
    while let Some(event) = soon("the end", a.next()).await? {
        assert!(matches!(event, Event::Lost { .. }), "{event:?}");
    }
    assert_eq!(
        (&*b.state().borrow(), &*client.status().borrow()),
        (&State::Closed, &Status::Closed)
    );
    Ok(())
}

#[tokio::test]
async fn closing_does_not_wait_for_a_server_that_says_nothing() -> Result<()> {
    let (mut server, tasks) = (Server::start().await?, Tasks::new());
    let mut options = options(&server, Vsn::V2);
    options.farewell = Duration::from_millis(50);
    let client = Client::start(options, &tasks)?;
    let mut channel = client.channel("a", quiet());
    let mut peer = server.peer().await?;
    peer.join().await?;
    joined(&mut channel).await?;
    ended(&client, &tasks).await?; // the server holds the connection and reads nothing
    drop(peer);

    // Nor for one that is not there.
    let address = server.address;
    drop(server);
    let tasks = Tasks::new();
    let client = Client::start(Options::new(&format!("http://{address}"), KEY)?, &tasks)?;
    ended(&client, &tasks).await
}

#[tokio::test]
async fn a_dropped_channel_is_left_and_a_second_one_takes_the_topic() -> Result<()> {
    let (mut server, tasks) = (Server::start().await?, Tasks::new());
    let client = Client::start(options(&server, Vsn::V2), &tasks)?;
    let mut first = client.channel("a", quiet());
    let mut peer = server.peer().await?;
    peer.join().await?;
    joined(&mut first).await?;
    let mut second = client.channel("a", quiet());
    let join = peer.join().await?;
    joined(&mut second).await?;
    assert!(soon("the first one's end", first.next()).await?.is_none());
    drop(first); // of which the server is told nothing: the topic is the second one's
    drop(second);
    let leave = peer.expect(event::LEAVE).await?;
    assert_eq!(leave.join_ref, join.join_ref);
    drop(client); // with the last handle the connection ends
    assert!(matches!(peer.message().await?, Some(Message::Close(_))));
    drop(peer);
    assert!(tasks.join(DEADLINE).await);
    Ok(())
}
