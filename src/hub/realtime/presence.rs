//! Who is there, of one topic: keys, and under each what its channels say of themselves.

use std::collections::BTreeMap;

use rand::RngExt as _;
use serde_json::{Map, Value, json};

use crate::hub::realtime::ChannelId;

/// The most that may be present in one topic.
const METAS_MAX: usize = 1000;
/// The largest thing that one may say of itself: a state of all of them must fit into a socket's queue.
const META_BYTES_MAX: usize = 4096;
/// The longest key.
pub(crate) const KEY_MAX: usize = 255;

#[derive(Debug, Default)]
pub(crate) struct Presence {
    keys: BTreeMap<String, Vec<Meta>>,
    metas: usize,
}

#[derive(Debug)]
struct Meta {
    channel: ChannelId,
    said: Map<String, Value>,
}

/// Why somebody cannot be present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    TooLarge,
    TooMany,
}

impl Refused {
    pub(crate) fn reason(self) -> String {
        match self {
            Self::TooLarge => format!("presence: at most {META_BYTES_MAX} bytes"),
            Self::TooMany => format!("presence: at most {METAS_MAX} in one topic"),
        }
    }
}

impl Presence {
    /// A channel says what it is; what it said before goes. Gives the payload of `presence_diff`.
    pub(crate) fn track(
        &mut self,
        channel: ChannelId,
        key: &str,
        mut said: Map<String, Value>,
    ) -> Result<Value, Refused> {
        if serde_json::to_string(&said).map_or(usize::MAX, |json| json.len()) > META_BYTES_MAX {
            return Err(Refused::TooLarge);
        }
        let before = self.remove(channel);
        if before.is_none() && self.metas >= METAS_MAX {
            return Err(Refused::TooMany);
        }
        said.insert("phx_ref".to_owned(), reference().into());
        if let Some((_, before)) = &before {
            said.insert("phx_ref_prev".to_owned(), before["phx_ref"].clone());
        }
        let joins = entry(key, &said);
        self.metas += 1;
        self.keys.entry(key.to_owned()).or_default().push(Meta { channel, said });
        let leaves = before.map_or_else(|| json!({}), |(key, said)| entry(&key, &said));
        Ok(json!({"joins": joins, "leaves": leaves}))
    }

    /// A channel goes; none if it was not there.
    pub(crate) fn untrack(&mut self, channel: ChannelId) -> Option<Value> {
        let (key, said) = self.remove(channel)?;
        Some(json!({"joins": {}, "leaves": entry(&key, &said)}))
    }

    /// The payload of `presence_state`.
    pub(crate) fn state(&self) -> Value {
        let metas =
            |metas: &[Meta]| -> Value { metas.iter().map(|meta| json!(meta.said)).collect() };
        let keys = self.keys.iter();
        Value::Object(keys.map(|(key, of)| (key.clone(), json!({"metas": metas(of)}))).collect())
    }

    fn remove(&mut self, channel: ChannelId) -> Option<(String, Map<String, Value>)> {
        let found = self.keys.iter().find_map(|(key, metas)| {
            let at = metas.iter().position(|meta| meta.channel == channel)?;
            Some((key.clone(), at))
        });
        let (key, at) = found?;
        let metas = self.keys.get_mut(&key)?;
        let meta = metas.remove(at);
        self.metas -= 1;
        if metas.is_empty() {
            self.keys.remove(&key);
        }
        Some((key, meta.said))
    }
}

fn entry(key: &str, said: &Map<String, Value>) -> Value {
    let mut entry = Map::new();
    entry.insert(key.to_owned(), json!({"metas": [said]}));
    Value::Object(entry)
}

fn reference() -> String {
    format!("{:016x}", rand::rng().random::<u64>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(name: &str) -> Map<String, Value> {
        Map::from_iter([("name".to_owned(), json!(name))])
    }

    #[test]
    fn a_second_track_replaces_the_first_and_two_channels_may_share_a_key() {
        let mut presence = Presence::default();
        let diff = presence.track(1, "k", said("a")).expect("room");
        assert_eq!(diff["joins"]["k"]["metas"][0]["name"], "a");
        assert_eq!(diff["leaves"], json!({}));
        let first = diff["joins"]["k"]["metas"][0]["phx_ref"].clone();
        presence.track(2, "k", said("b")).expect("room");
        let diff = presence.track(1, "k", said("c")).expect("room");
        assert_eq!(diff["leaves"]["k"]["metas"][0]["phx_ref"], first);
        assert_eq!(diff["joins"]["k"]["metas"][0]["phx_ref_prev"], first);
        assert_eq!(presence.state()["k"]["metas"].as_array().map(Vec::len), Some(2));
        assert!(presence.untrack(1).is_some() && presence.untrack(1).is_none());
        presence.untrack(2);
        assert_eq!(presence.state(), json!({}));
    }

    #[test]
    fn what_is_said_and_by_how_many_is_bounded() {
        let mut presence = Presence::default();
        let long = said(&"x".repeat(META_BYTES_MAX));
        assert_eq!(presence.track(1, "k", long), Err(Refused::TooLarge));
        for channel in 0..1000 {
            presence.track(channel, "k", said("a")).expect("room");
        }
        assert_eq!(presence.track(1000, "k", said("a")), Err(Refused::TooMany));
        assert!(presence.track(7, "k", said("b")).is_ok(), "one that is there may change");
    }
}
