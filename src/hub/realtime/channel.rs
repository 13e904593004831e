//! One channel of one socket.

use std::sync::Arc;
use std::time::Duration;

use metrics::gauge;
use serde::Serialize;
use serde_json::json;
use tokio::time::Instant;

use crate::clock;
use crate::hub::realtime::bucket::Bucket;
use crate::hub::realtime::subscriptions::Held;
use crate::hub::realtime::topics::{Line, Name};
use crate::hub::realtime::{ChannelId, Inner, binding, frame};
use crate::identity::{LEEWAY_S, Verified};
use crate::metrics::REALTIME_CHANNELS;
use crate::realtime::wire::{self, System, event};
use crate::secret::Secret;

/// The longest topic, without `realtime:`: with it, it must fit the one byte of a binary frame's length.
pub(crate) const TOPIC_MAX: usize = 246;
/// The longest reference of a join, which each frame of its channel repeats; binary frames have no room for more.
pub(crate) const REF_MAX: usize = 255;
/// Presence calls of one channel in [`PRESENCE_PERIOD`]; Realtime's own limit.
const PRESENCE_CALLS: u32 = 5;
const PRESENCE_PERIOD: Duration = Duration::from_secs(30);
/// Tokens are looked at again at least this often: clocks are set.
const RECHECK: Duration = Duration::from_secs(300);

/// A channel that was joined. Leaving is dropping it.
pub(crate) struct Channel {
    inner: Arc<Inner>,
    pub(crate) line: Arc<Line>,
    pub(crate) id: ChannelId,
    pub(crate) join_ref: Option<String>,
    /// With `realtime:`.
    pub(crate) topic: String,
    pub(crate) name: Name,
    pub(crate) token: Secret,
    pub(crate) verified: Arc<Verified>,
    /// When the token is to be looked at again.
    pub(crate) recheck: Instant,
    pub(crate) ack: bool,
    pub(crate) own: bool,
    pub(crate) key: String,
    pub(crate) presence: bool,
    pub(crate) presence_calls: Bucket,
    /// What the policy said, once it was asked.
    pub(crate) may_broadcast: Option<bool>,
    pub(crate) may_be_present: Option<bool>,
    pub(crate) bindings: Arc<[wire::Binding]>,
    /// How much there is of them.
    pub(crate) weight: usize,
    pub(crate) changes: Option<Held>,
}

/// What a channel is made of.
pub(crate) struct New {
    pub(crate) line: Arc<Line>,
    pub(crate) join_ref: Option<String>,
    pub(crate) topic: String,
    pub(crate) name: Name,
    pub(crate) token: Secret,
    pub(crate) verified: Arc<Verified>,
    pub(crate) config: wire::Config,
}

impl Channel {
    pub(crate) fn new(inner: &Arc<Inner>, new: New) -> Self {
        let New { line, join_ref, topic, name, token, verified, config } = new;
        let key = match config.presence.key {
            key if key.is_empty() => uuid::Uuid::new_v4().to_string(),
            key => key,
        };
        gauge!(REALTIME_CHANNELS).increment(1);
        Self {
            id: inner.next_channel(),
            inner: Arc::clone(inner),
            line,
            join_ref,
            topic,
            name,
            recheck: recheck(&verified),
            token,
            verified,
            ack: config.broadcast.ack,
            own: config.broadcast.own,
            key,
            presence: config.presence.enabled,
            presence_calls: Bucket::new(PRESENCE_CALLS, PRESENCE_PERIOD),
            may_broadcast: None,
            may_be_present: None,
            weight: binding::weight(&config.postgres_changes),
            bindings: config.postgres_changes.into(),
            changes: None,
        }
    }

    /// Sends a frame of this channel; without `reference`, one that answers nothing.
    pub(crate) fn push(&self, reference: Option<&str>, event: &str, payload: &impl Serialize) {
        let (vsn, join_ref) = (self.line.vsn, self.join_ref.as_deref());
        self.line.outbox.push(frame::text(vsn, join_ref, reference, &self.topic, event, payload));
    }

    /// Says that the channel is closed.
    pub(crate) fn push_close(&self) {
        self.push(self.join_ref.as_deref(), event::CLOSE, &json!({}));
    }

    /// Says why, and that the channel is closed.
    pub(crate) fn push_closing(&self, why: &str) {
        self.push(None, event::SYSTEM, &System::error("system", why, &self.name.topic));
        self.push_close();
    }

    /// Why the token is no longer good, if it is not.
    pub(crate) fn expired(&mut self) -> Option<String> {
        match self.verified.claims.check_time(clock::utc_now()) {
            Ok(()) => {
                self.recheck = recheck(&self.verified);
                None
            }
            Err(crate::identity::Error::Expired { seconds }) => {
                Some(format!("Token has expired {seconds} seconds ago"))
            }
            Err(error) => Some(error.to_string()),
        }
    }

    /// Puts another token in the place of this one.
    pub(crate) fn replace_token(&mut self, token: Secret, verified: Arc<Verified>) {
        self.recheck = recheck(&verified);
        self.token = token;
        self.verified = verified;
        self.may_broadcast = None;
        self.may_be_present = None;
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.inner.topics.leave(&self.name, self.id);
        gauge!(REALTIME_CHANNELS).decrement(1);
    }
}

/// When a token is to be looked at again: when it ends.
fn recheck(verified: &Verified) -> Instant {
    let left = verified.claims.exp.saturating_add(LEEWAY_S) - clock::utc_now().timestamp();
    let left = u64::try_from(left).map_or(Duration::ZERO, Duration::from_secs);
    Instant::now() + left.min(RECHECK)
}
