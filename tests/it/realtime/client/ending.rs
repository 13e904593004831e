//! The end: of a channel, and of the client.

use std::time::Duration;

use anyhow::{Result, bail};
use cogo::realtime::wire::{Vsn, event};
use cogo::realtime::{Client, Event, Options, State, Status};
use cogo::shutdown::Tasks;
use tokio_tungstenite::tungstenite::Message;

use super::{KEY, ended, join_both, joined, options, quiet};
use crate::realtime::server::{DEADLINE, Server, soon};

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
