//! What the task knows of a channel.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::secret::Secret;

use super::State;
use super::backoff::{Backoff, Pace, Retry};
use super::channel::Port;
use super::events::Event;
use super::wire::{Config, Join};

/// Where a channel is between two joins.
pub(super) enum Phase {
    /// There is no connection.
    Offline,
    /// It is to be joined then.
    Due(Instant),
    /// The join with this `ref` waits for its answer until then.
    Joining { reference: String, until: Instant },
    /// Joined by the join with this `ref`.
    Joined { reference: String, since: Instant },
}

pub(super) struct Subscription {
    pub(super) topic: Arc<str>,
    pub(super) config: Config,
    pub(super) port: Arc<Port>,
    pub(super) phase: Phase,
    /// The token that the server has of it.
    pub(super) token: Option<Secret>,
    /// The version of what it is tracked with, as far as the server knows.
    pub(super) tracked: u64,
    /// The `ref` of the last call of presence.
    pub(super) presence: Option<String>,
    /// What the server last complained of: it says why, and only then closes the channel.
    pub(super) complaint: Option<String>,
    state: watch::Sender<State>,
    backoff: Backoff,
}

impl Subscription {
    pub(super) fn new(
        topic: Arc<str>,
        config: Config,
        port: Arc<Port>,
        state: watch::Sender<State>,
        retry: Retry,
    ) -> Self {
        Self {
            topic,
            config,
            port,
            phase: Phase::Offline,
            token: None,
            tracked: 0,
            presence: None,
            complaint: None,
            state,
            backoff: Backoff::new(retry),
        }
    }

    /// The `ref` of the present join.
    pub(super) fn join_ref(&self) -> Option<&str> {
        match &self.phase {
            Phase::Joining { reference, .. } | Phase::Joined { reference, .. } => Some(reference),
            Phase::Offline | Phase::Due(_) => None,
        }
    }

    pub(super) fn is_joined(&self) -> bool {
        matches!(self.phase, Phase::Joined { .. })
    }

    /// When something about it is due.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.phase {
            Phase::Due(at) | Phase::Joining { until: at, .. } => Some(at),
            Phase::Offline | Phase::Joined { .. } => None,
        }
    }

    /// Begins to join; what to send.
    pub(super) fn joining(
        &mut self,
        reference: String,
        until: Instant,
        token: Option<Secret>,
    ) -> Join {
        self.phase = Phase::Joining { reference, until };
        self.token.clone_from(&token);
        self.tracked = 0;
        self.presence = None;
        self.complaint = None;
        self.state.send_replace(State::Joining);
        let version = concat!("cogo/", env!("CARGO_PKG_VERSION")).to_owned();
        Join { config: self.config.clone(), access_token: token, version: Some(version) }
    }

    pub(super) fn joined(&mut self, now: Instant) {
        if let Phase::Joining { reference, .. } = &self.phase {
            self.phase = Phase::Joined { reference: reference.clone(), since: now };
            self.tell(State::Joined, Event::Joined);
        }
    }

    pub(super) fn subscribed(&mut self) {
        if self.is_joined() {
            self.tell(State::Subscribed, Event::Subscribed);
        }
    }

    /// It is lost while the connection stands: joined again after a pause.
    pub(super) fn lost(&mut self, reason: String, pace: Pace, now: Instant, steady: Duration) {
        self.hold(now, steady);
        self.phase = Phase::Due(now + self.backoff.after_loss(pace));
        self.tell(State::Lost { reason: reason.clone() }, Event::Lost { reason });
    }

    /// The connection is lost, and it with it. Whether it had held.
    pub(super) fn disconnected(&mut self, reason: &str, now: Instant, steady: Duration) -> bool {
        let held = self.hold(now, steady);
        let heard = self.join_ref().is_some();
        self.phase = Phase::Offline;
        if heard {
            let reason = reason.to_owned();
            self.tell(State::Lost { reason: reason.clone() }, Event::Lost { reason });
        }
        held
    }

    /// A new connection stands: it is joined as soon as can be.
    pub(super) fn connected(&mut self, now: Instant) {
        self.phase = Phase::Due(now);
    }

    /// It is not to be joined any more.
    pub(super) fn close(&mut self) {
        self.phase = Phase::Offline;
        self.state.send_replace(State::Closed);
        self.port.queue.close();
    }

    fn hold(&mut self, now: Instant, steady: Duration) -> bool {
        let held = matches!(self.phase, Phase::Joined { since, .. } if now.duration_since(since) >= steady);
        if held {
            self.backoff.reset();
        }
        held
    }

    fn tell(&mut self, state: State, event: Event) {
        self.state.send_replace(state);
        self.port.queue.push(event);
    }
}
