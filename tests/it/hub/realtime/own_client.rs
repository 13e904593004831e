//! The library's own client, as remote workers use it.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use cogo::identity::Role;
use cogo::realtime::wire::{Binding, ChangeKind, Config, JoinBroadcast, JoinPresence, Vsn};
use cogo::realtime::{Channel, Client, Content, Event, Options, Retry, Status};
use cogo::secret::Secret;
use cogo::shutdown::Tasks;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{DEADLINE, Served, claims, mint, token, token_for};

fn start(hub: &Served, key: &str, vsn: Vsn, tasks: &Tasks) -> Result<Client> {
    let mut options = Options::new(&format!("http://{}", hub.address), key)?;
    options.vsn = vsn;
    let pause = Duration::from_millis(50);
    options.retry = Retry { first: pause, max: pause, max_offline: pause };
    Ok(Client::start(options, tasks)?)
}

async fn next(channel: &mut Channel) -> Result<Event> {
    timeout(DEADLINE, channel.next()).await.context("nothing was heard")?.context("the end")
}

async fn joined(channel: &mut Channel) -> Result<()> {
    match next(channel).await? {
        Event::Joined => Ok(()),
        other => bail!("Joined was expected, not {other:?}"),
    }
}

fn quiet() -> Config {
    Config { presence: JoinPresence::none(), ..Config::default() }
}

#[tokio::test]
async fn hears_of_changes_and_of_work() -> Result<()> {
    for vsn in [Vsn::V1, Vsn::V2] {
        let (hub, tasks) = (Served::new().await?, Tasks::new());
        let client = start(&hub, &token_for("acme", &["r/a"]), vsn, &tasks)?;
        let binding = Binding::new(ChangeKind::Insert, "agent_messages").filtered("role=eq.r");
        let config = Config { postgres_changes: vec![binding], ..quiet() };
        let mut changes = client.channel("worker-1", config);
        let mut work = client.channel("cogo:work:acme:r:a", Config { private: true, ..quiet() });
        joined(&mut work).await?;
        joined(&mut changes).await?;
        let subscribed = next(&mut changes).await?;
        assert!(matches!(subscribed, Event::Subscribed), "{subscribed:?}");
        let id = hub.publish_to("acme", "r/a").await?;
        let Event::Change(change) = next(&mut changes).await? else { bail!("no change") };
        assert!(change.data.get().contains(&id));
        let Event::Broadcast { event, .. } = next(&mut work).await? else { bail!("no work") };
        assert_eq!(event, "work");
        timeout(DEADLINE, client.close()).await?;
        assert!(tasks.join(DEADLINE).await);
    }
    Ok(())
}

#[tokio::test]
async fn broadcasts_and_is_present_for_others_of_either_version() -> Result<()> {
    let (hub, tasks) = (Served::new().await?, Tasks::new());
    let one = start(&hub, &token("acme"), Vsn::V1, &tasks)?;
    let two = start(&hub, &token("acme"), Vsn::V2, &tasks)?;
    let broadcast = JoinBroadcast { ack: true, ..JoinBroadcast::default() };
    let mut there = one.channel("room", Config { broadcast: broadcast.clone(), ..quiet() });
    let presence = JoinPresence { key: "two".to_owned(), enabled: true };
    let mut here = two.channel("room", Config { broadcast, presence, ..Config::default() });
    joined(&mut there).await?;
    joined(&mut here).await?;
    here.broadcast("hello", &json!({"n": 1})).await?;
    let Event::Broadcast { event, payload: Content::Json(payload) } = next(&mut there).await?
    else {
        bail!("no broadcast")
    };
    assert_eq!((event.as_str(), payload.get()), ("hello", r#"{"n":1}"#));

    here.track(&json!({"host": "laptop"}))?;
    loop {
        match next(&mut here).await? {
            Event::PresenceState(_) => {}
            Event::PresenceDiff(diff) => {
                assert_eq!(diff.joins["two"].metas[0]["host"], "laptop");
                break;
            }
            other => bail!("{other:?}"),
        }
    }
    there.broadcast("answer", &Value::Null).await?;
    let answer = next(&mut here).await?;
    assert!(
        matches!(answer, Event::Broadcast { ref event, .. } if event == "answer"),
        "{answer:?}"
    );
    for client in [one, two] {
        timeout(DEADLINE, client.close()).await?;
    }
    assert!(tasks.join(DEADLINE).await);
    Ok(())
}

#[tokio::test]
async fn is_told_why_it_is_refused_and_comes_in_with_a_good_key() -> Result<()> {
    let (hub, tasks) = (Served::new().await?, Tasks::new());
    let expired = mint(claims(Role::Authenticated, -100));
    let client = start(&hub, &expired, Vsn::V2, &tasks)?;
    let mut work = client.channel("cogo:work:globex:r:a", Config { private: true, ..quiet() });
    let mut status = client.status();
    let refused = |status: &Status| matches!(status, Status::Refused { status: 401, .. });
    let told = timeout(DEADLINE, status.wait_for(refused)).await??.clone();
    let Status::Refused { message, .. } = told else { bail!("{told:?}") };
    assert!(message.contains("expired") && !message.contains(&expired), "{message}");
    // A good key of another tenant gets in, and no further.
    client.set_key(Secret::from(token("acme")));
    let Event::Lost { reason } = next(&mut work).await? else { bail!("it was let in") };
    assert!(reason.contains("Unauthorized"), "{reason}");
    timeout(DEADLINE, client.close()).await?;
    assert!(tasks.join(DEADLINE).await);
    Ok(())
}
