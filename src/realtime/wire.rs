//! Realtime's frames, as Supabase's clients and server write them.
//!
//! Two versions are spoken. 1.0.0 is text: objects of `topic`, `event`, `payload`, `ref` and, from the
//! client, `join_ref`. 2.0.0 is text arrays `[join_ref, ref, topic, event, payload]`, and binary frames
//! for broadcasts. A [`Frame`] is the same in both; a payload stays raw JSON until someone
//! reads it ([`Frame::read`]). Nothing here panics on any input, and no error quotes what was sent: it
//! may be a token.

mod binary;
mod error;
mod join;
mod payload;
mod presence;
mod text;

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::{RawValue, to_raw_value};

pub use binary::{Encoding, UserBroadcast};
pub use error::Error;
pub use join::{Binding, ChangeKind, Config, Join, JoinBroadcast, JoinPresence, Replay};
pub use payload::{AccessToken, Broadcast, Change, ChangeData, Column, JoinReply, Reply, System};
pub use presence::{Entry, Meta, Presence, PresenceDiff, PresenceEvent, PresenceState};
pub use text::{array, object};

/// What a frame's `event` may be; broadcasts carry names of their own inside.
pub mod event {
    /// Joins a channel.
    pub const JOIN: &str = "phx_join";
    /// Leaves a channel.
    pub const LEAVE: &str = "phx_leave";
    /// Answers the frame with the same `ref`.
    pub const REPLY: &str = "phx_reply";
    /// The server has closed the channel.
    pub const CLOSE: &str = "phx_close";
    /// The channel has crashed on the server.
    pub const ERROR: &str = "phx_error";
    /// Keeps the connection alive, on the topic [`super::HEARTBEAT_TOPIC`].
    pub const HEARTBEAT: &str = "heartbeat";
    /// Replaces the token of a joined channel.
    pub const ACCESS_TOKEN: &str = "access_token";
    /// A broadcast, in either direction.
    pub const BROADCAST: &str = "broadcast";
    /// Tracks or untracks the sender.
    pub const PRESENCE: &str = "presence";
    /// Everyone who is present.
    pub const PRESENCE_STATE: &str = "presence_state";
    /// Who came and who went.
    pub const PRESENCE_DIFF: &str = "presence_diff";
    /// News of a subscription or of the channel itself.
    pub const SYSTEM: &str = "system";
    /// A row was inserted, updated or deleted.
    pub const POSTGRES_CHANGES: &str = "postgres_changes";
}

/// The topic of heartbeats.
pub const HEARTBEAT_TOPIC: &str = "phoenix";

/// What every channel's topic starts with on the wire.
pub const TOPIC_PREFIX: &str = "realtime:";

/// Realtime's own limit of a frame, which the hub and the client keep.
pub const MAX_FRAME_BYTES: usize = 5_000_000;

/// The version of the serializer, which the client names in the URL (`vsn`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Vsn {
    /// Text objects; what is meant when no version is named.
    #[default]
    V1,
    /// Text arrays and binary broadcasts.
    V2,
}

impl Vsn {
    /// All of them, the oldest first.
    pub const ALL: [Self; 2] = [Self::V1, Self::V2];

    /// As it stands in the URL.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "1.0.0",
            Self::V2 => "2.0.0",
        }
    }
}

impl std::str::FromStr for Vsn {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "1.0.0" => Ok(Self::V1),
            "2.0.0" => Ok(Self::V2),
            _ => Err(Error::Field { field: "vsn", expected: "1.0.0 or 2.0.0" }),
        }
    }
}

impl fmt::Display for Vsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who has sent a frame: the two sides write some of them differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The client.
    Client,
    /// The server.
    Server,
}

/// One frame, in either direction and either version.
#[derive(Debug, Clone)]
pub struct Frame {
    /// The `ref` of the join that the frame belongs to. Not every client sends it.
    pub join_ref: Option<String>,
    /// `ref`: what the answer repeats. A heartbeat may have none and is answered nevertheless.
    pub reference: Option<String>,
    /// The channel, with [`TOPIC_PREFIX`].
    pub topic: String,
    /// One of [`event`].
    pub event: String,
    /// What it says.
    pub payload: Payload,
}

/// What a frame says.
#[derive(Debug, Clone)]
pub enum Payload {
    /// JSON that nobody has read yet.
    Json(Box<RawValue>),
    /// A broadcast of the binary format (kinds 3 and 4); `event` is [`event::BROADCAST`].
    UserBroadcast(UserBroadcast),
    /// Phoenix's own binary kinds 0, 1 and 2, which Supabase's clients never send.
    Binary {
        /// The status, if the frame is a reply.
        status: Option<String>,
        /// What was sent.
        data: Vec<u8>,
    },
}

/// A frame as it goes onto the WebSocket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Encoded {
    /// A text message.
    Text(String),
    /// A binary message.
    Binary(Vec<u8>),
}

impl Frame {
    /// A frame with a JSON payload and neither `ref`.
    ///
    /// # Errors
    /// When the payload cannot be written as JSON.
    pub fn new(
        topic: impl Into<String>,
        event: impl Into<String>,
        payload: &impl Serialize,
    ) -> Result<Self, Error> {
        let payload = to_raw_value(payload).map_err(|_| Error::Unwritable)?;
        Ok(Self {
            join_ref: None,
            reference: None,
            topic: topic.into(),
            event: event.into(),
            payload: Payload::Json(payload),
        })
    }

    /// The answer to this frame: the same topic and both references.
    ///
    /// # Errors
    /// When the reply cannot be written as JSON.
    pub fn reply(&self, reply: &Reply) -> Result<Self, Error> {
        let mut frame = Self::new(self.topic.clone(), event::REPLY, reply)?;
        frame.join_ref.clone_from(&self.join_ref);
        frame.reference.clone_from(&self.reference);
        Ok(frame)
    }

    /// Reads a text message of either side.
    ///
    /// # Errors
    /// When it is no frame of that version.
    pub fn decode_text(vsn: Vsn, text: &str) -> Result<Self, Error> {
        match vsn {
            Vsn::V1 => text::decode_object(text),
            Vsn::V2 => text::decode_array(text),
        }
    }

    /// Reads a binary message, which only version 2.0.0 has.
    ///
    /// # Errors
    /// When it is cut short, of an unknown kind, or not of the side that is said to have sent it.
    pub fn decode_binary(from: Side, bytes: &[u8]) -> Result<Self, Error> {
        binary::decode(from, bytes)
    }

    /// Writes the frame as `from` would write it. A broadcast of the binary format becomes text for
    /// version 1.0.0.
    ///
    /// # Errors
    /// When it cannot be said in that version: bytes in 1.0.0, a name over 255 bytes in a binary frame.
    pub fn encode(&self, vsn: Vsn, from: Side) -> Result<Encoded, Error> {
        let json;
        let payload: &RawValue = match (&self.payload, vsn) {
            (Payload::Json(payload), _) => payload,
            (Payload::UserBroadcast(broadcast), Vsn::V1) => {
                json = to_raw_value(&broadcast.to_json()?).map_err(|_| Error::Unwritable)?;
                &json
            }
            (Payload::Binary { .. }, Vsn::V1) => return Err(Error::BytesInText),
            (_, Vsn::V2) => return binary::encode(from, self).map(Encoded::Binary),
        };
        let (join_ref, reference) = (self.join_ref.as_deref(), self.reference.as_deref());
        let text = match vsn {
            Vsn::V1 => object(from, join_ref, reference, &self.topic, &self.event, payload),
            Vsn::V2 => array(join_ref, reference, &self.topic, &self.event, payload),
        };
        text.map(Encoded::Text)
    }

    /// Whether it is the answer to the frame of that `ref`.
    #[must_use]
    pub fn is_answer_to(&self, reference: &str) -> bool {
        self.event == event::REPLY && self.reference.as_deref() == Some(reference)
    }

    /// The payload as JSON.
    ///
    /// # Errors
    /// When it is bytes.
    pub fn json(&self) -> Result<&RawValue, Error> {
        match &self.payload {
            Payload::Json(payload) => Ok(payload),
            Payload::UserBroadcast(_) | Payload::Binary { .. } => Err(Error::BytesInText),
        }
    }

    /// The payload as what the frame's event carries, such as [`Reply`] or [`System`].
    ///
    /// # Errors
    /// When it is bytes, or not of that shape; the error names the field.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Error> {
        read(self.json()?)
    }
}

/// Reads a raw payload as `T`.
///
/// # Errors
/// When it is not of that shape; the error names the field and never the value.
pub fn read<T: DeserializeOwned>(payload: &RawValue) -> Result<T, Error> {
    let mut deserializer = serde_json::Deserializer::from_str(payload.get());
    serde_path_to_error::deserialize(&mut deserializer)
        .map_err(|error| Error::Payload { path: error.path().to_string() })
}

#[cfg(test)]
mod tests;
