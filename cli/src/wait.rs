//! Waiting for a message, told of what happens to it meanwhile.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::Result;
use cogo::bus::{Bus, Signal};
use cogo::event::Event;
use cogo::message::{Message, MessageId};

use crate::output::note;
use crate::text::event_detail;

/// How often to look when nothing wakes us.
const POLL: Duration = Duration::from_millis(500);
/// The most events of one message that are looked at; more than any message has.
const EVENTS: u32 = 10_000;

/// Over the internet a look costs more; still a person waits.
fn pause(bus: &Bus) -> Duration {
    if bus.pool().is_some() { POLL } else { bus.pause().min(4 * POLL) }
}

/// Waits until the message is finished, at most for `deadline`, and gives it as it then is. Every event
/// that happens meanwhile is handed to `tell`, those from before are not.
pub(crate) async fn wait(
    bus: &Bus,
    id: MessageId,
    deadline: Duration,
    tell: impl Fn(&Event),
) -> Result<Message> {
    let mut woken = bus.waker(Signal::Log);
    let deadline = tokio::time::sleep(deadline);
    tokio::pin!(deadline);
    let mut message = bus.message(id).await?;
    let mut known = HashSet::new();
    let mut first = true;
    while !message.status.is_final() {
        for event in bus.message_events(id, EVENTS).await? {
            if known.insert(event.id) && !first {
                tell(&event);
            }
        }
        first = false;
        tokio::select! {
            () = woken.woken() => {}
            () = tokio::time::sleep(pause(bus)) => {}
            () = &mut deadline => break,
        }
        message = bus.message(id).await?;
    }
    Ok(message)
}

/// Says on stderr what happens to a message, as far as a waiting person wants to know.
pub(crate) fn tell(event: &Event) {
    let quiet = event.event_type.ends_with("_scheduled") && event.attempt == 0;
    if !quiet && !event.event_type.ends_with("_succeeded") {
        note(format!("{}  {}", event.event_type, event_detail(event)).trim_end());
    }
}
