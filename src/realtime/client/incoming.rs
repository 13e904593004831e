//! What the server says, and what follows from it.

use tokio::time::Instant;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use tracing::debug;

use super::backoff::Pace;
use super::channel::Error;
use super::driver::{Driver, pace_of};
use super::events::{Content, Event};
use super::session::Pulse;
use super::socket::{Loss, said};
use super::subscription::Phase;
use super::wire::{self, Encoding, Frame, HEARTBEAT_TOPIC, Payload, Reply, Side, System, event};

impl Driver {
    /// Takes whatever came over the socket.
    pub(super) fn heard(
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

fn said_in_json(broadcast: wire::Broadcast) -> Event {
    let null = || serde_json::value::RawValue::NULL.to_owned();
    let payload = Content::Json(broadcast.payload.unwrap_or_else(null));
    Event::Broadcast { event: broadcast.event, payload }
}
