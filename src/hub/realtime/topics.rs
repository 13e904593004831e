//! The topics that are joined here, and who is in them. Broadcasts and presence live in this process alone:
//! two hubs do not hear each other.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use serde_json::{Map, Value};

use crate::hub::realtime::ChannelId;
use crate::hub::realtime::frame::{self, Shared};
use crate::hub::realtime::outbox::{Frame, Outbox};
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
    /// Who is present, as it is told in each version; none where nobody was told since it changed. Whoever joins shares
    /// its bytes, which may be megabytes.
    states: HashMap<Vsn, Frame>,
}

#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) channel: ChannelId,
    pub(crate) line: Arc<Line>,
    /// Whether it is told who is present.
    pub(crate) presence: bool,
}

impl Topic {
    /// Tells what has changed.
    fn tell_presence(&mut self, name: &Name, diff: &Value) {
        self.states.clear();
        let topic = name.on_wire();
        let diff = Shared::new(&topic, event::PRESENCE_DIFF, diff);
        self.members.iter().filter(|member| member.presence).for_each(|member| send(member, &diff));
    }

    fn tell_state(&mut self, name: &Name, channel: ChannelId) {
        if let Some(member) = self.members.iter().find(|member| member.channel == channel) {
            let vsn = member.line.vsn;
            let frame = self.states.entry(vsn).or_insert_with(|| {
                let (topic, state) = (name.on_wire(), self.presence.state());
                frame::text(vsn, None, None, &topic, event::PRESENCE_STATE, &state)
            });
            member.line.outbox.push(frame.clone());
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

#[cfg(test)]
mod tests {
    use axum::extract::ws::Utf8Bytes;
    use serde_json::json;

    use super::*;
    use crate::hub::realtime::outbox::Budget;

    /// A line whose channel joins the topic.
    fn joined(topics: &Topics, name: &Name, channel: ChannelId) -> Arc<Line> {
        let budget = Arc::new(Budget::new(100, 1 << 20, 1 << 20));
        let line = Arc::new(Line { vsn: Vsn::V2, outbox: Outbox::new(budget) });
        topics.join(name, Member { channel, line: Arc::clone(&line), presence: false });
        line
    }

    /// What a line is told next.
    fn heard(line: &Line) -> Utf8Bytes {
        match line.outbox.take() {
            Some(Frame::Text(text)) => text,
            other => panic!("a text frame: {other:?}"),
        }
    }

    #[test]
    fn whoever_joins_shares_the_state_until_it_changes() {
        let topics = Topics::default();
        let name = Name { space: "acme".into(), private: false, topic: "room".into() };
        let lines: Vec<Arc<Line>> = (0..5).map(|n| joined(&topics, &name, n)).collect();
        let says = |word: &str| {
            let said = Map::from_iter([("word".to_owned(), json!(word))]);
            topics.track(&name, 0, "k", said, || {}).expect("room");
        };
        let told = |channel: ChannelId, line: &Line| {
            topics.watch_presence(&name, channel);
            heard(line)
        };
        says("hello");
        let (first, second) = (told(1, &lines[1]), told(2, &lines[2]));
        assert!(first.as_str().contains("presence_state"), "{first:?}");
        assert!(first.as_str().contains("hello"), "{first:?}");
        assert_eq!(first.as_str().as_ptr(), second.as_str().as_ptr(), "encoded once");
        says("later");
        let third = told(3, &lines[3]);
        assert!(third.as_str().contains("later"), "{third:?}");
        assert!(!third.as_str().contains("hello"), "{third:?}");
        topics.untrack(&name, 0);
        let fourth = told(4, &lines[4]);
        assert!(fourth.as_str().contains("presence_state"), "{fourth:?}");
        assert!(!fourth.as_str().contains("later"), "{fourth:?}");
    }
}
