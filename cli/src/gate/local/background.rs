//! Trivial messages that are sent all the while, by both ways: work goes on while something is wrong.

use std::time::Duration;

use cogo::bus::Bus;
use cogo::gate::Failure;
use cogo::message::{NewMessage, Topic};
use cogo::shutdown::{Shutdown, Tasks};
use serde_json::json;
use tokio::task::JoinHandle;

use super::config::TOOLSET;
use super::hub::Hub;
use super::tool::ECHO;
use super::world::{Acknowledged, World};

/// A message over HTTP each so often, and so many over Postgres with each fifth.
const PAUSE: Duration = Duration::from_millis(40);
const BATCH: usize = 5;
/// At least so many rounds, and at most: a scenario that is slow is no load test.
const ROUNDS: (u32, u32) = (100, 500);

/// The sender. Dropped, it ends.
#[derive(Debug)]
pub(super) struct Background {
    sending: JoinHandle<Result<(), Failure>>,
    stop: Shutdown,
}

impl Background {
    /// Starts to send.
    pub(super) fn start(world: &World) -> Self {
        let (hub, bus) = (world.hub.clone(), world.bus.clone());
        let (acknowledged, stop) = (world.acknowledged.clone(), Shutdown::new());
        let until = stop.clone();
        let sending =
            Tasks::new().spawn(async move { send(&hub, &bus, &acknowledged, &until).await });
        Self { sending, stop }
    }

    /// Has it end once it has sent enough, and waits for that.
    pub(super) async fn ended(mut self) -> Result<(), Failure> {
        self.stop.drain();
        let ended = (&mut self.sending).await;
        ended
            .map_err(|error| Failure::new(format!("the sender broke down: {error}")))?
            .map_err(|failure| Failure::new(format!("a message could not be sent: {failure}")))
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.sending.abort();
    }
}

async fn send(
    hub: &Hub,
    bus: &Bus,
    acknowledged: &Acknowledged,
    stop: &Shutdown,
) -> Result<(), Failure> {
    for round in 0..ROUNDS.1 {
        if round >= ROUNDS.0 && stop.draining().is_cancelled() {
            break;
        }
        let id = hub.enqueue(TOOLSET, ECHO, &json!({"round": round})).await?;
        acknowledged.add(id, "over HTTP");
        if round % 5 == 0 {
            let messages: Vec<_> = (0..BATCH).map(|n| trivial(n, Duration::ZERO)).collect();
            for receipt in bus.publish_all(&messages).await? {
                acknowledged.add(receipt.id, "over Postgres");
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

/// A message that is due after `delay`.
pub(super) fn trivial(n: usize, delay: Duration) -> NewMessage {
    let topic = Topic::new("mcp-gateway", TOOLSET).expect("both are names");
    let payload = json!({"toolset": TOOLSET, "tool": ECHO, "params": {"n": n}});
    NewMessage { max_attempts: Some(5), delay, ..NewMessage::new(&topic, "mcp.call", payload) }
}
