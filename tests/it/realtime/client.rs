//! The client against a scripted server: whatever is lost, every channel comes back.

mod ending;
mod losses;
mod refusals;
mod sends;

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use cogo::realtime::wire::{Binding, ChangeKind, Config, Frame, JoinPresence, System, Vsn, event};
use cogo::realtime::{Channel, Client, Event, Options, Retry, State, Status};
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
