//! The topics that are joined here, and who is in them. Broadcasts and presence live in this process alone:
//! two hubs do not hear each other.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use serde_json::{Map, Value};

use crate::hub::realtime::ChannelId;
use crate::hub::realtime::frame::{self, Shared};
use crate::hub::realtime::outbox::Outbox;
use crate::hub::realtime::presence::{Presence, Refused};
use crate::hub::realtime::scope::WORK;
use crate::realtime::wire::{TOPIC_PREFIX, Vsn, event};

/// The sending side of a socket.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) vsn: Vsn,
    pub(crate) outbox: Outbox,
}

/// What a topic is found by. Private ones are apart from others of the same name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Name {
    /// Those who can hear each other, by [`crate::hub::realtime::scope::space`].
    pub(crate) space: Arc<str>,
    pub(crate) private: bool,
    /// Without `realtime:`.
    pub(crate) topic: Arc<str>,
}

impl Name {
    pub(crate) fn on_wire(&self) -> String {
        format!("{TOPIC_PREFIX}{}", self.topic)
    }
}

/// All topics. One lock serves them: what is done under it takes microseconds and waits for nobody, and it
/// keeps what everybody hears of a topic in one order.
#[derive(Debug, Default)]
pub(crate) struct Topics(Mutex<HashMap<Name, Topic>>);

#[derive(Debug, Default)]
struct Topic {
    members: Vec<Member>,
    presence: Presence,
}

#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) channel: ChannelId,
    pub(crate) line: Arc<Line>,
    /// Whether it is told who is present.
    pub(crate) presence: bool,
}

impl Topic {
    fn tell_presence(&self, name: &Name, diff: &Value) {
        let topic = name.on_wire();
        let diff = Shared::new(&topic, event::PRESENCE_DIFF, diff);
        self.members.iter().filter(|member| member.presence).for_each(|member| send(member, &diff));
    }

    fn tell_state(&self, name: &Name, channel: ChannelId) {
        if let Some(member) = self.members.iter().find(|member| member.channel == channel) {
            let (topic, state) = (name.on_wire(), self.presence.state());
            let vsn = member.line.vsn;
            let frame = frame::text(vsn, None, None, &topic, event::PRESENCE_STATE, &state);
            member.line.outbox.push(frame);
        }
    }
}

fn send<P: Serialize + ?Sized>(member: &Member, said: &Shared<'_, P>) {
    if let Some(frame) = said.frame(member.line.vsn) {
        member.line.outbox.push(frame);
    }
}

impl Topics {
    pub(crate) fn join(&self, name: &Name, member: Member) {
        self.lock().entry(name.clone()).or_default().members.push(member);
    }

    /// A channel goes, and is no longer present.
    pub(crate) fn leave(&self, name: &Name, channel: ChannelId) {
        let mut topics = self.lock();
        let Some(topic) = topics.get_mut(name) else { return };
        topic.members.retain(|member| member.channel != channel);
        if topic.members.is_empty() {
            topics.remove(name);
        } else if let Some(diff) = topic.presence.untrack(channel) {
            topic.tell_presence(name, &diff);
        }
    }

    /// Tells everybody in a topic but `except`.
    pub(crate) fn send<P: Serialize + ?Sized>(
        &self,
        name: &Name,
        said: &Shared<'_, P>,
        except: Option<ChannelId>,
    ) {
        if let Some(topic) = self.lock().get(name) {
            let others = topic.members.iter().filter(|member| Some(member.channel) != except);
            others.for_each(|member| send(member, said));
        }
    }

    /// Tells a channel who is present, now and from now on.
    pub(crate) fn watch_presence(&self, name: &Name, channel: ChannelId) {
        if let Some(topic) = self.lock().get_mut(name) {
            let member = topic.members.iter_mut().find(|member| member.channel == channel);
            member.into_iter().for_each(|member| member.presence = true);
            topic.tell_state(name, channel);
        }
    }

    /// A channel says what it is; it is told that this is accepted before anybody else hears of it.
    pub(crate) fn track(
        &self,
        name: &Name,
        channel: ChannelId,
        key: &str,
        said: Map<String, Value>,
        accepted: impl FnOnce(),
    ) -> Result<(), Refused> {
        if let Some(topic) = self.lock().get_mut(name) {
            let diff = topic.presence.track(channel, key, said)?;
            accepted();
            topic.tell_presence(name, &diff);
        }
        Ok(())
    }

    pub(crate) fn untrack(&self, name: &Name, channel: ChannelId) {
        if let Some(topic) = self.lock().get_mut(name)
            && let Some(diff) = topic.presence.untrack(channel)
        {
            topic.tell_presence(name, &diff);
        }
    }

    /// Whether somebody is in the topic.
    pub(crate) fn has(&self, name: &Name) -> bool {
        self.lock().contains_key(name)
    }

    /// The topics on which workers wait to be woken.
    pub(crate) fn of_workers(&self) -> Vec<Name> {
        let topics = self.lock();
        topics.keys().filter(|name| name.private && name.topic.starts_with(WORK)).cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Name, Topic>> {
        // A panic under the lock would be in encoding, after which the members are as they were.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
