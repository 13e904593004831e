//! Who is there.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// What a tracked client says of itself; the server adds `phx_ref`.
pub type Meta = Map<String, Value>;

/// Everyone who is present (`presence_state`), by key.
pub type PresenceState = BTreeMap<String, Entry>;

/// One key's presences.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// One for each connection that tracks under the key.
    #[serde(default)]
    pub metas: Vec<Meta>,
}

/// Who came and who went (`presence_diff`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PresenceDiff {
    /// Who came.
    #[serde(default)]
    pub joins: PresenceState,
    /// Who went.
    #[serde(default)]
    pub leaves: PresenceState,
}

/// What a client asks of the server's presence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PresenceEvent {
    /// To be listed, or listed anew.
    Track,
    /// Not to be listed any more.
    Untrack,
    /// What there is not.
    Other(String),
}

/// A client's `presence` frame. supabase-py sends no `type`, and either writes the event as it likes.
#[derive(Debug, Clone, Deserialize)]
pub struct Presence {
    /// What is asked for.
    #[serde(deserialize_with = "any_case")]
    pub event: PresenceEvent,
    /// What to be listed with.
    #[serde(default)]
    pub payload: Option<Box<RawValue>>,
}

impl Serialize for Presence {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("type", "presence")?;
        let event = match &self.event {
            PresenceEvent::Track => "track",
            PresenceEvent::Untrack => "untrack",
            PresenceEvent::Other(other) => other,
        };
        map.serialize_entry("event", event)?;
        if let Some(payload) = &self.payload {
            map.serialize_entry("payload", payload)?;
        }
        map.end()
    }
}

fn any_case<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PresenceEvent, D::Error> {
    let event = String::deserialize(deserializer)?;
    Ok(match event.to_ascii_lowercase().as_str() {
        "track" => PresenceEvent::Track,
        "untrack" => PresenceEvent::Untrack,
        _ => PresenceEvent::Other(event),
    })
}
