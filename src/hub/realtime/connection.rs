//! What a client says on its socket, and what is answered.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::hub::realtime::admission::{Place, count_refusal};
use crate::hub::realtime::bucket::Bucket;
use crate::hub::realtime::channel::Channel;
use crate::hub::realtime::frame::{self, Shared};
use crate::hub::realtime::handshake::word;
use crate::hub::realtime::policy::{self, Action};
use crate::hub::realtime::scope::{self, Scope};
use crate::hub::realtime::topics::Line;
use crate::hub::realtime::{Inner, join, subscribe};
use crate::identity::Verified;
use crate::metrics::REALTIME_FRAMES_TOTAL;
use crate::realtime::wire::{
    AccessToken, Frame, HEARTBEAT_TOPIC, Payload, Presence, PresenceEvent, Reply, UserBroadcast,
    event,
};
use crate::secret::Secret;

/// Frames of any kind a second: joins, leaves and new tokens of all channels at once are some hundreds.
const FRAMES_PER_SECOND: u32 = 1000;

/// The state of one socket.
pub(crate) struct Connection {
    pub(crate) inner: Arc<Inner>,
    pub(crate) line: Arc<Line>,
    pub(crate) place: Place,
    pub(crate) token: Secret,
    pub(crate) verified: Arc<Verified>,
    /// By topic, with `realtime:`.
    pub(crate) channels: HashMap<String, Channel>,
    frames: Bucket,
    events: Bucket,
}

/// Why a socket is closed: a code and a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Closing(pub(crate) u16, pub(crate) &'static str);

impl Connection {
    pub(crate) fn new(
        inner: Arc<Inner>,
        line: Arc<Line>,
        place: Place,
        token: Secret,
        verified: Verified,
    ) -> Self {
        let second = Duration::from_secs(1);
        let events = Bucket::new(inner.options.events_per_second, second);
        let frames = Bucket::new(FRAMES_PER_SECOND, second);
        let (verified, channels) = (Arc::new(verified), HashMap::new());
        Self { inner, line, place, token, verified, channels, frames, events }
    }

    /// Closes the channels whose tokens are no longer good. Gives when the first of the others is to be looked at
    /// again.
    pub(crate) fn expire(&mut self) -> Option<Instant> {
        let first = |channels: &HashMap<String, Channel>| {
            channels.values().map(|channel| channel.recheck).min()
        };
        let now = Instant::now();
        match first(&self.channels) {
            Some(recheck) if recheck <= now => {}
            later => return later,
        }
        self.channels.retain(|_, channel| {
            let why = if channel.recheck <= now { channel.expired() } else { None };
            if let Some(why) = &why {
                count_refusal("token", "expired");
                channel.push_closing(why);
            }
            why.is_none()
        });
        first(&self.channels)
    }

    /// Counts a frame that says nothing.
    pub(crate) fn ignored(&mut self) -> Result<(), Closing> {
        counter!(REALTIME_FRAMES_TOTAL, "direction" => "in").increment(1);
        if self.frames.take(1) {
            return Ok(());
        }
        count_refusal("event", "frames");
        Err(Closing(1008, "too many frames"))
    }

    /// Hears a frame.
    pub(crate) async fn hear(&mut self, frame: Frame) -> Result<(), Closing> {
        self.ignored()?;
        match frame.event.as_str() {
            event::HEARTBEAT if frame.topic == HEARTBEAT_TOPIC => self.reply(&frame, &Reply::ok()),
            // Rare, and large: kept out of what every idle socket holds.
            event::JOIN => Box::pin(self.join(&frame)).await,
            event::LEAVE => self.leave(&frame),
            event::ACCESS_TOKEN => Box::pin(self.access_token(&frame)).await,
            event::BROADCAST => Box::pin(self.broadcast(&frame)).await,
            event::PRESENCE => Box::pin(self.presence(&frame)).await,
            _ if self.channels.contains_key(&frame.topic) => {
                self.reply(&frame, &Reply::error("unknown event"));
            }
            _ => self.unmatched(&frame),
        }
        Ok(())
    }

    /// Answers a frame, whether or not it has a reference: supabase-py's heartbeats have none.
    fn reply(&self, frame: &Frame, reply: &Reply) {
        answer(&self.line, frame, reply);
    }

    fn unmatched(&self, frame: &Frame) {
        self.reply(frame, &Reply::error("unmatched topic"));
    }

    async fn join(&mut self, frame: &Frame) {
        if !frame.topic.starts_with(crate::realtime::wire::TOPIC_PREFIX) {
            return self.unmatched(frame);
        }
        // The second join of a topic ends the first.
        if let Some(before) = self.channels.remove(&frame.topic) {
            before.push_close();
        }
        if let Err(join::Refused(reason, text)) = join::join(self, frame).await {
            count_refusal("join", reason);
            self.reply(frame, &Reply::error(&text));
        }
    }

    fn leave(&mut self, frame: &Frame) {
        let channel = self.channels.remove(&frame.topic);
        self.reply(frame, &Reply::ok());
        if let Some(channel) = channel {
            channel.push_close();
        }
    }

    /// Ends a channel that does what it must not.
    fn close(&mut self, topic: &str, reason: &'static str, why: &str) {
        if let Some(channel) = self.channels.remove(topic) {
            count_refusal("event", reason);
            channel.push_closing(why);
        }
    }

    async fn access_token(&mut self, frame: &Frame) {
        let Some(channel) = self.channels.get(&frame.topic) else { return self.unmatched(frame) };
        let given = frame.read::<AccessToken>().ok().and_then(|payload| payload.access_token);
        let opaque = |token: &Secret| token.expose().starts_with("sb_");
        if given.as_ref().is_some_and(|token| *token == channel.token || opaque(token)) {
            return;
        }
        let (token, verified) = match join::read_token(self, given.as_ref()) {
            Ok(read) => read,
            Err(error) => {
                let said = join::said_of_token(&error);
                return self.close(&frame.topic, word(&error), &said);
            }
        };
        let (before, after) = (Scope::of(&channel.verified.claims), Scope::of(&verified.claims));
        let name = channel.name.clone();
        let changed = before.json != after.json;
        if changed && name.private {
            match policy::allows(&self.inner, &verified, &name.topic, Action::Join).await {
                Ok(true) => {}
                Ok(false) => {
                    let said = join::unauthorized(&name.topic);
                    return self.close(&frame.topic, "policy", &said);
                }
                Err(error) => {
                    tracing::warn!("Could not ask about a private channel: {error}");
                    // Clients join again after this, and not after a close.
                    if let Some(channel) = self.channels.remove(&frame.topic) {
                        channel.push(channel.join_ref.as_deref(), event::ERROR, &json!({}));
                    }
                    return;
                }
            }
        }
        let inner = Arc::clone(&self.inner);
        let Some(channel) = self.channels.get_mut(&frame.topic) else { return };
        let space = scope::space(&verified.claims, name.private, &name.topic);
        channel.replace_token(token, verified);
        if space != name.space {
            // It is heard by others from now on, and hears others.
            inner.topics.leave(&channel.name, channel.id);
            channel.name.space = space;
            join::enter(&inner, channel);
            if channel.presence {
                inner.topics.watch_presence(&channel.name, channel.id);
            }
        }
        if changed && channel.changes.as_ref().is_some_and(|held| held.scope().json != after.json) {
            subscribe::begin(&inner, channel);
        }
    }

    async fn broadcast(&mut self, frame: &Frame) {
        let Some(channel) = self.channels.get_mut(&frame.topic) else {
            return self.unmatched(frame);
        };
        if !self.events.take(1) {
            return self.close(&frame.topic, "rate", "Too many messages per second");
        }
        let sent = may_broadcast(&self.inner, channel).await && send(&self.inner, channel, frame);
        let (ack, own) = (channel.ack, channel.may_broadcast != Some(false));
        // Who may not is not told.
        if ack && own {
            self.reply(
                frame,
                &if sent { Reply::ok() } else { Reply::error("payload: cannot be read") },
            );
        }
    }

    async fn presence(&mut self, frame: &Frame) {
        let Some(channel) = self.channels.get_mut(&frame.topic) else {
            return self.unmatched(frame);
        };
        if !channel.presence_calls.take(1) {
            let why = "ClientPresenceRateLimitReached: Too many presence calls in 30 seconds";
            return self.close(&frame.topic, "presence_rate", why);
        }
        if !self.events.take(1) {
            return self.close(&frame.topic, "rate", "Too many messages per second");
        }
        match frame.read::<Presence>() {
            Err(_) => {
                answer(&self.line, frame, &Reply::error("presence: must be {event, payload}"))
            }
            Ok(said) => present(&self.inner, channel, frame, said).await,
        }
    }
}

async fn may_broadcast(inner: &Inner, channel: &mut Channel) -> bool {
    if !channel.name.private {
        return true;
    }
    if channel.may_broadcast.is_none() {
        let asked =
            policy::allows(inner, &channel.verified, &channel.name.topic, Action::Broadcast);
        channel.may_broadcast = asked.await.ok();
        if channel.may_broadcast == Some(false) {
            count_refusal("event", "policy");
        }
    }
    channel.may_broadcast == Some(true)
}

/// Sends a broadcast to the others; whether it could be read.
fn send(inner: &Inner, channel: &Channel, frame: &Frame) -> bool {
    let except = (!channel.own).then_some(channel.id);
    match &frame.payload {
        Payload::Json(payload) if payload.get().starts_with('{') => {
            let payload: &RawValue = payload;
            let said = Shared::new(&channel.topic, event::BROADCAST, payload);
            inner.topics.send(&channel.name, &said, except);
            true
        }
        Payload::UserBroadcast(said) => {
            let readable = match said.encoding {
                crate::realtime::wire::Encoding::Binary => true,
                crate::realtime::wire::Encoding::Json => {
                    serde_json::from_slice::<&RawValue>(&said.payload).is_ok()
                }
            };
            // What a client says about its broadcast is not passed on: there stand ids that the server gives.
            let said = UserBroadcast { metadata: String::new(), ..said.clone() };
            if readable {
                let said = Shared::binary(&channel.topic, &said);
                inner.topics.send(&channel.name, &said, except);
            }
            readable
        }
        _ => false,
    }
}

/// Lists a channel, or does not any more. It is answered before others are told, as Realtime does.
async fn present(inner: &Inner, channel: &mut Channel, frame: &Frame, said: Presence) {
    let line = Arc::clone(&channel.line);
    let refuse = |reason: &str| answer(&line, frame, &Reply::error(reason));
    if channel.name.private && channel.may_be_present.is_none() {
        let asked = policy::allows(inner, &channel.verified, &channel.name.topic, Action::Presence);
        channel.may_be_present = asked.await.ok();
    }
    if channel.name.private && channel.may_be_present != Some(true) {
        count_refusal("event", "policy");
        return refuse("presence: this token may not be present here");
    }
    match said.event {
        PresenceEvent::Track => {
            let meta = said.payload.as_ref().map_or("{}", |payload| payload.get());
            let Ok(meta) = serde_json::from_str::<Option<Map<String, Value>>>(meta) else {
                return refuse("presence: the payload must be an object");
            };
            if !std::mem::replace(&mut channel.presence, true) {
                inner.topics.watch_presence(&channel.name, channel.id);
            }
            let (name, meta) = (&channel.name, meta.unwrap_or_default());
            let accepted = || answer(&line, frame, &Reply::ok());
            let tracked = inner.topics.track(name, channel.id, &channel.key, meta, accepted);
            if let Err(refused) = tracked {
                refuse(&refused.reason());
            }
        }
        PresenceEvent::Untrack => {
            answer(&line, frame, &Reply::ok());
            inner.topics.untrack(&channel.name, channel.id);
        }
        PresenceEvent::Other(_) => refuse("presence: event must be track or untrack"),
    }
}

fn answer(line: &Line, frame: &Frame, reply: &Reply) {
    let (join_ref, reference) = (frame.join_ref.as_deref(), frame.reference.as_deref());
    let text = frame::text(line.vsn, join_ref, reference, &frame.topic, event::REPLY, reply);
    line.outbox.push(text);
}
