//! One connection's life: what is due is sent, what comes is told, and whatever is not as it should be
//! ends it, since coming back is cheap.

use std::time::Duration;

use futures_util::{FutureExt, SinkExt, StreamExt};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use tracing::debug;

use crate::net::Route;

use super::backoff::Pace;
use super::channel::{Error, Outgoing};
use super::driver::{Awaited, Driver, pace_of};
use super::events::{Content, Event};
use super::socket::{Loss, Socket, said};
use super::subscription::{Phase, Subscription};
use super::wire::{
    self, AccessToken, Encoded, Encoding, Frame, HEARTBEAT_TOPIC, Payload, Presence, PresenceEvent,
    Reply, Side, System, UserBroadcast, Vsn, event,
};

/// How often the clocks and the route are looked at: timers do not see the machine sleep, nor a socket
/// that its address is gone.
const LAP: Duration = Duration::from_secs(3);

/// A lap that is longer than it should be by this much was slept through.
const SLEPT: Duration = Duration::from_secs(10);

/// Broadcasts that wait for their acknowledgement.
const MAX_AWAITED: usize = 1024;

/// How a session ended.
pub(super) enum End {
    Lost(Loss),
    Closed,
}

impl From<Loss> for End {
    fn from(loss: Loss) -> Self {
        Self::Lost(loss)
    }
}

/// The server's heartbeat.
struct Pulse {
    next: Instant,
    /// The `ref` of the heartbeat that is not answered yet, and when it was sent.
    pending: Option<(String, Instant)>,
    /// When anything was heard last.
    heard: Instant,
    /// When the clocks and the route are looked at next.
    lap: Instant,
}

impl Driver {
    pub(super) async fn session(&mut self, socket: &mut Socket, route: Option<Route>) -> End {
        let now = Instant::now();
        let next = now + self.options.heartbeat;
        let mut pulse = Pulse { next, pending: None, heard: now, lap: now + LAP };
        self.channels.iter_mut().for_each(|channel| channel.connected(now));
        let _ = (self.laps)();
        match self.converse(socket, &mut pulse, route).await {
            Ok(()) => {
                self.farewell(socket).await;
                End::Closed
            }
            Err(loss) => loss.into(),
        }
    }

    /// Until it is lost, or closed by its owner.
    async fn converse(
        &mut self,
        socket: &mut Socket,
        pulse: &mut Pulse,
        route: Option<Route>,
    ) -> Result<(), Loss> {
        // Whether nothing that was heard waits to be looked at. Only then is silence the server's: this
        // process may have stood still while answers came.
        let mut quiet = false;
        loop {
            self.advance(socket, pulse, quiet).await?;
            quiet = false;
            let due = self.due(pulse);
            tokio::select! {
                message = socket.next() => self.heard(message, pulse)?,
                outgoing = self.outgoing.recv() => match outgoing {
                    Some(outgoing) => self.broadcast(socket, outgoing).await?,
                    None => return Ok(()),
                },
                () = self.mailbox.changed.notified() => {
                    let wishes = self.mailbox.take();
                    self.open(wishes.open);
                    let now = Instant::now();
                    let new = |channel: &&mut Subscription| matches!(channel.phase, Phase::Offline);
                    self.channels.iter_mut().filter(new).for_each(|channel| channel.connected(now));
                    for left in self.forget_left() {
                        self.leave(socket, &left).await?;
                    }
                    if wishes.close {
                        return Ok(());
                    }
                    if wishes.check && pulse.pending.is_none() {
                        pulse.next = now;
                    }
                }
                Ok(()) = self.credentials.changed() => self.try_refused_again(),
                () = sleep_until(due) => match socket.next().now_or_never() {
                    Some(message) => self.heard(message, pulse)?,
                    None => quiet = true,
                },
            }
            if (self.laps)() >= LAP + SLEPT {
                return Err(Loss::new("the machine was asleep", Pace::Now));
            }
            if Instant::now() >= pulse.lap {
                pulse.lap = Instant::now() + LAP;
                if route.is_some_and(|route| route.has_changed()) {
                    return Err(Loss::new("the network has changed", Pace::Now));
                }
            }
        }
    }

    /// When there is something to do without being asked.
    fn due(&self, pulse: &Pulse) -> Instant {
        let silent = pulse.pending.as_ref().map(|(_, sent)| *sent + self.options.silence);
        let silent = silent.filter(|_| !pulse.answered_by_anything());
        let channels = self.channels.iter().filter_map(Subscription::due);
        let awaited = self.awaited.values().map(|awaited| awaited.until);
        channels.chain(awaited).chain(silent).chain([pulse.next]).fold(pulse.lap, Instant::min)
    }

    /// Does whatever is due. Looks at what is, not at what has changed, so that nothing is forgotten.
    async fn advance(
        &mut self,
        socket: &mut Socket,
        pulse: &mut Pulse,
        quiet: bool,
    ) -> Result<(), Loss> {
        let now = Instant::now();
        self.beat(socket, pulse, now, quiet).await?;
        let answer = self.options.answer;
        for (_, late) in self.awaited.extract_if(|_, awaited| quiet && awaited.until <= now) {
            let _ = late.done.send(Err(Error::Unanswered));
        }
        let token = self.credentials.borrow().token.clone();
        for at in 0..self.channels.len() {
            match self.channels[at].phase {
                Phase::Joining { until, .. } if quiet && until <= now => {
                    let reason = format!("the join was not answered within {answer:?}");
                    self.channels[at].lost(reason, Pace::Usual, now, self.options.steady);
                }
                Phase::Due(due) if due <= now => {
                    let reference = self.reference();
                    let channel = &mut self.channels[at];
                    let join = channel.joining(reference.clone(), now + answer, token.clone());
                    self.call(socket, at, event::JOIN, reference, &join).await?;
                }
                Phase::Joined { .. } => self.refresh(socket, at).await?,
                _ => {}
            }
        }
        Ok(())
    }

    async fn beat(
        &mut self,
        socket: &mut Socket,
        pulse: &mut Pulse,
        now: Instant,
        quiet: bool,
    ) -> Result<(), Loss> {
        if let Some((_, sent)) = &pulse.pending {
            let silence = self.options.silence;
            if quiet && now >= *sent + silence && !pulse.answered_by_anything() {
                let lost = format!("nothing was heard for {silence:?} after a heartbeat");
                return Err(Loss::new(lost, Pace::Offline));
            }
            if quiet && now >= pulse.next {
                return Err(Loss::new("a heartbeat was not answered", Pace::Usual));
            }
        } else if now >= pulse.next {
            let reference = self.reference();
            let mut frame = frame(HEARTBEAT_TOPIC, event::HEARTBEAT, &serde_json::json!({}))?;
            frame.reference = Some(reference.clone());
            self.send(socket, &frame).await?;
            pulse.next = now + self.options.heartbeat;
            pulse.pending = Some((reference, now));
        }
        Ok(())
    }

    /// Tells the server of a joined channel's new token and presence.
    async fn refresh(&mut self, socket: &mut Socket, at: usize) -> Result<(), Loss> {
        let token = self.credentials.borrow().token.clone();
        if token != self.channels[at].token {
            self.channels[at].token.clone_from(&token);
            let reference = self.reference();
            let payload = AccessToken { access_token: token };
            self.call(socket, at, event::ACCESS_TOKEN, reference, &payload).await?;
        }
        let tracked = self.channels[at].port.tracked();
        if tracked.version != self.channels[at].tracked {
            let fresh = self.channels[at].tracked == 0;
            self.channels[at].tracked = tracked.version;
            let event = match tracked.payload {
                Some(_) => PresenceEvent::Track,
                None if fresh => return Ok(()), // the server knows of nothing
                None => PresenceEvent::Untrack,
            };
            let reference = self.reference();
            self.channels[at].presence = Some(reference.clone());
            let payload = Presence { event, payload: tracked.payload };
            self.call(socket, at, event::PRESENCE, reference, &payload).await?;
        }
        Ok(())
    }

    /// New credentials may serve where the old ones were refused.
    fn try_refused_again(&mut self) {
        let now = Instant::now();
        for channel in &mut self.channels {
            if let Phase::Due(at) = &mut channel.phase {
                *at = now;
            }
        }
    }

    async fn broadcast(&mut self, socket: &mut Socket, outgoing: Outgoing) -> Result<(), Loss> {
        let Outgoing { port, event: name, payload, done } = outgoing;
        let found = self.channels.iter().find(|c| std::sync::Arc::ptr_eq(&c.port, &port));
        let Some(channel) = found.filter(|channel| channel.is_joined()) else {
            let _ = done.send(Err(Error::NotJoined));
            return Ok(());
        };
        if self.awaited.len() >= MAX_AWAITED {
            let busy = "too many broadcasts wait for their acknowledgement";
            let _ = done.send(Err(Error::Refused(busy.to_owned())));
            return Ok(());
        }
        let (ack, topic) = (channel.config.broadcast.ack, channel.topic.to_string());
        let join_ref = channel.join_ref().map(str::to_owned);
        let reference = self.reference();
        let encoded = broadcast_payload(self.options.vsn, &name, payload).and_then(|payload| {
            let reference = Some(reference.clone());
            let frame =
                Frame { join_ref, reference, topic, event: event::BROADCAST.to_owned(), payload };
            frame.encode(self.options.vsn, Side::Client)
        });
        let encoded = match encoded {
            Ok(encoded) => encoded,
            Err(error) => {
                let _ = done.send(Err(error.into()));
                return Ok(());
            }
        };
        if let Err(loss) = self.write(socket, encoded).await {
            let _ = done.send(Err(Error::Lost));
            return Err(loss);
        }
        if ack {
            let until = Instant::now() + self.options.answer;
            self.awaited.insert(reference, Awaited { until, done });
        } else {
            let _ = done.send(Ok(()));
        }
        Ok(())
    }

    /// Sends something of a channel that has a join.
    async fn call(
        &mut self,
        socket: &mut Socket,
        at: usize,
        name: &str,
        reference: String,
        payload: &impl serde::Serialize,
    ) -> Result<(), Loss> {
        let mut frame = frame(&self.channels[at].topic, name, payload)?;
        frame.join_ref = self.channels[at].join_ref().map(str::to_owned);
        frame.reference = Some(reference);
        self.send(socket, &frame).await
    }

    async fn leave(&mut self, socket: &mut Socket, left: &Subscription) -> Result<(), Loss> {
        let Some(join_ref) = left.join_ref() else { return Ok(()) };
        let mut frame = frame(&left.topic, event::LEAVE, &serde_json::json!({}))?;
        frame.join_ref = Some(join_ref.to_owned());
        frame.reference = Some(self.reference());
        self.send(socket, &frame).await
    }

    async fn send(&mut self, socket: &mut Socket, frame: &Frame) -> Result<(), Loss> {
        let unwritable = |error: wire::Error| Loss::new(error.to_string(), Pace::Usual);
        let encoded = frame.encode(self.options.vsn, Side::Client).map_err(unwritable)?;
        self.write(socket, encoded).await
    }

    /// Writes, with a deadline: on a dead link the buffers fill and a write never ends.
    async fn write(&mut self, socket: &mut Socket, encoded: Encoded) -> Result<(), Loss> {
        let message = match encoded {
            Encoded::Text(text) => Message::text(text),
            Encoded::Binary(bytes) => Message::binary(bytes),
        };
        match timeout(self.options.answer, socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                Err(Loss::new(format!("the connection broke: {}", said(&error)), Pace::Usual))
            }
            Err(_) => Err(Loss::new("the connection takes no more", Pace::Offline)),
        }
    }

    /// Leaves all channels and closes, within the time that there is for it.
    async fn farewell(&mut self, socket: &mut Socket) {
        let within = self.options.farewell;
        let farewell = async {
            for channel in std::mem::take(&mut self.channels) {
                let left = self.leave(socket, &channel).await;
                self.channels.push(channel);
                left?;
            }
            let normal = CloseFrame { code: CloseCode::Normal, reason: "".into() };
            if socket.close(Some(normal)).await.is_ok() {
                // Its answer is enough; that it hangs up as well is not waited for.
                while let Some(Ok(message)) = socket.next().await {
                    if message.is_close() {
                        break;
                    }
                }
            }
            Ok::<(), Loss>(())
        };
        if timeout(within, farewell).await.is_err() {
            debug!("The server did not say goodbye within {within:?}");
        }
    }

    fn heard(
        &mut self,
        message: Option<Result<Message, WsError>>,
        pulse: &mut Pulse,
    ) -> Result<(), Loss> {
        pulse.heard = Instant::now();
        match message {
            Some(Ok(message)) => self.hear(message, pulse),
            Some(Err(error)) => {
                Err(Loss::new(format!("the connection broke: {}", said(&error)), Pace::Usual))
            }
            None => Err(Loss::new("the connection ended", Pace::Usual)),
        }
    }

    fn hear(&mut self, message: Message, pulse: &mut Pulse) -> Result<(), Loss> {
        let frame = match message {
            Message::Text(text) => Frame::decode_text(self.options.vsn, text.as_str()),
            Message::Binary(bytes) => Frame::decode_binary(Side::Server, &bytes),
            Message::Close(frame) => {
                let code = frame.map_or(1005, |frame| u16::from(frame.code));
                let lost = format!("the server closed the connection (code {code})");
                return Err(Loss::new(lost, Pace::Usual));
            }
            // The library answers pings by itself.
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => return Ok(()),
        };
        match frame {
            Ok(frame) => self.take(&frame, pulse),
            Err(error) => debug!(%error, "Left out a frame that cannot be read"),
        }
        Ok(())
    }

    fn take(&mut self, frame: &Frame, pulse: &mut Pulse) {
        if frame.topic == HEARTBEAT_TOPIC {
            if pulse.pending.as_ref().is_some_and(|(sent, _)| frame.is_answer_to(sent)) {
                pulse.pending = None;
            }
            return;
        }
        let Some(at) = self.channels.iter().position(|channel| *channel.topic == *frame.topic)
        else {
            return;
        };
        // What belongs to an earlier join of the topic is of no interest.
        let stale = |reference: Option<&str>| {
            reference.is_some() && reference != self.channels[at].join_ref()
        };
        if stale(frame.join_ref.as_deref()) {
            return;
        }
        match frame.event.as_str() {
            event::REPLY => self.answered(at, frame),
            event::CLOSE | event::ERROR if !stale(frame.reference.as_deref()) => {
                self.closed(at, frame);
            }
            _ => {
                if let Err(error) = self.told(at, frame) {
                    debug!(%error, event = frame.event, "Left out a frame that cannot be read");
                }
            }
        }
    }

    fn answered(&mut self, at: usize, frame: &Frame) {
        let Some(reference) = frame.reference.as_deref() else { return };
        let (ok, reason) = match (&frame.payload, frame.read::<Reply>()) {
            (_, Ok(reply)) => (reply.is_ok(), self.redacted(&reply.reason())),
            (Payload::Binary { status, .. }, _) => {
                (status.as_deref() == Some("ok"), "no reason was given".to_owned())
            }
            (_, Err(_)) => (false, "its answer cannot be read".to_owned()),
        };
        let now = Instant::now();
        let steady = self.options.steady;
        if let Some(awaited) = self.awaited.remove(reference) {
            let _ = awaited.done.send(if ok { Ok(()) } else { Err(Error::Refused(reason)) });
            return;
        }
        let channel = &mut self.channels[at];
        if matches!(channel.phase, Phase::Joining { .. }) && channel.join_ref() == Some(reference) {
            if ok {
                channel.joined(now);
            } else {
                let lost = format!("the join is refused: {reason}");
                channel.lost(lost, pace_of(&reason), now, steady);
            }
        } else if !ok && reason == "unmatched topic" {
            channel.lost(
                "the server does not know of the join".to_owned(),
                Pace::Usual,
                now,
                steady,
            );
        } else if !ok && channel.presence.as_deref() == Some(reference) {
            let told = format!("the presence is refused: {reason}");
            channel.port.queue.push(Event::SystemError(told));
        }
    }

    fn closed(&mut self, at: usize, frame: &Frame) {
        let channel = &mut self.channels[at];
        if channel.join_ref().is_none() {
            return;
        }
        let what = if frame.event == event::CLOSE { "closed" } else { "failed" };
        let why = channel.complaint.take().map(|why| format!(": {why}")).unwrap_or_default();
        let pace = if why.contains("rate limit") { Pace::Slow } else { pace_of(&why) };
        let reason = format!("the channel was {what} by the server{why}");
        channel.lost(reason, pace, Instant::now(), self.options.steady);
    }

    /// What the server tells of its own accord.
    fn told(&mut self, at: usize, frame: &Frame) -> Result<(), wire::Error> {
        let heard = match frame.event.as_str() {
            event::SYSTEM => {
                let system: System = frame.read()?;
                if system.is_subscribed() {
                    self.channels[at].subscribed();
                    return Ok(());
                }
                if !system.is_error() {
                    return Ok(());
                }
                let message = self.redacted(&system.message);
                self.channels[at].complaint = Some(message.clone());
                Event::SystemError(message)
            }
            event::POSTGRES_CHANGES => Event::Change(frame.read()?),
            event::BROADCAST => match &frame.payload {
                Payload::UserBroadcast(broadcast) if broadcast.encoding == Encoding::Binary => {
                    let payload = Content::Bytes(broadcast.payload.clone());
                    Event::Broadcast { event: broadcast.event.clone(), payload }
                }
                Payload::UserBroadcast(broadcast) => said_in_json(broadcast.to_json()?),
                _ => said_in_json(frame.read()?),
            },
            event::PRESENCE_STATE => Event::PresenceState(frame.read()?),
            event::PRESENCE_DIFF => Event::PresenceDiff(frame.read()?),
            _ => return Ok(()),
        };
        self.channels[at].port.queue.push(heard);
        Ok(())
    }
}

impl Pulse {
    /// Whether something came since the heartbeat that is pending: then the link is alive, and the answer
    /// may only stand in a queue.
    fn answered_by_anything(&self) -> bool {
        self.pending.as_ref().is_none_or(|(_, sent)| self.heard > *sent)
    }
}

fn frame(topic: &str, event: &str, payload: &impl serde::Serialize) -> Result<Frame, Loss> {
    Frame::new(topic, event, payload).map_err(|error| Loss::new(error.to_string(), Pace::Usual))
}

fn said_in_json(broadcast: wire::Broadcast) -> Event {
    let null = || serde_json::value::RawValue::NULL.to_owned();
    let payload = Content::Json(broadcast.payload.unwrap_or_else(null));
    Event::Broadcast { event: broadcast.event, payload }
}

/// As supabase-js does: text in version 1.0.0, the binary format in 2.0.0, unless a name is too long.
fn broadcast_payload(vsn: Vsn, name: &str, payload: Content) -> Result<Payload, wire::Error> {
    let event = name.to_owned();
    let (encoding, payload) = match payload {
        Content::Bytes(bytes) => (Encoding::Binary, bytes),
        Content::Json(json) if vsn == Vsn::V1 || name.len() > usize::from(u8::MAX) => {
            let broadcast = wire::Broadcast { event, payload: Some(json), meta: None };
            let raw = serde_json::value::to_raw_value(&broadcast);
            return raw.map(Payload::Json).map_err(|_| wire::Error::Unwritable);
        }
        Content::Json(json) => (Encoding::Json, json.get().as_bytes().to_vec()),
    };
    let metadata = String::new();
    Ok(Payload::UserBroadcast(UserBroadcast { event, metadata, encoding, payload }))
}
