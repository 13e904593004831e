//! The binary frames of version 2.0.0: a byte for the kind, one-byte lengths, then the parts.
//!
//! Supabase's own are 3 (a client's broadcast) and 4 (a server's); 0, 1 and 2 are Phoenix's and only
//! tolerated.

use serde_json::value::RawValue;

use super::{Broadcast, Error, Frame, Payload, Side, event};

const PUSH: u8 = 0;
const REPLY: u8 = 1;
const BROADCAST: u8 = 2;
const USER_BROADCAST_PUSH: u8 = 3;
const USER_BROADCAST: u8 = 4;

/// How a broadcast's payload is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Bytes, which no client of version 1.0.0 can be sent.
    Binary,
    /// JSON text.
    Json,
}

/// A broadcast in the binary format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserBroadcast {
    /// The sender's name for it.
    pub event: String,
    /// JSON about the broadcast, such as its id; empty if there is none.
    pub metadata: String,
    /// What `payload` is.
    pub encoding: Encoding,
    /// What was broadcast.
    pub payload: Vec<u8>,
}

impl UserBroadcast {
    /// The same broadcast as the text format has it.
    ///
    /// # Errors
    /// When its payload is bytes, or what is said to be JSON is not.
    pub fn to_json(&self) -> Result<Broadcast, Error> {
        const NOT_JSON: Error = Error::Field { field: "payload", expected: "JSON, as it says" };
        const METADATA: Error = Error::Field { field: "metadata", expected: "JSON or empty" };
        if self.encoding == Encoding::Binary {
            return Err(Error::BytesInText);
        }
        let text = std::str::from_utf8(&self.payload).map_err(|_| NOT_JSON)?;
        let raw = |text: &str| RawValue::from_string(text.to_owned());
        let meta = match self.metadata.as_str() {
            "" => None,
            metadata => Some(raw(metadata).map_err(|_| METADATA)?),
        };
        Ok(Broadcast {
            event: self.event.clone(),
            payload: Some(raw(text).map_err(|_| NOT_JSON)?),
            meta,
        })
    }
}

/// Reads the parts of a frame in their order.
struct Parts<'a> {
    kind: u8,
    lengths: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Parts<'a> {
    /// Of a frame whose lengths are the `count` bytes after `skip` bytes more than the kind.
    fn new(kind: u8, bytes: &'a [u8], count: usize) -> Result<Self, Error> {
        let (lengths, rest) =
            bytes.split_at_checked(count).ok_or(Error::Truncated { kind, field: "lengths" })?;
        Ok(Self { kind, lengths, rest })
    }

    fn byte(&mut self, field: &'static str) -> Result<u8, Error> {
        let (byte, rest) =
            self.rest.split_first().ok_or(Error::Truncated { kind: self.kind, field })?;
        self.rest = rest;
        Ok(*byte)
    }

    fn text(&mut self, field: &'static str) -> Result<String, Error> {
        let truncated = Error::Truncated { kind: self.kind, field };
        let (length, lengths) = self.lengths.split_first().ok_or(truncated.clone())?;
        self.lengths = lengths;
        let (part, rest) = self.rest.split_at_checked(usize::from(*length)).ok_or(truncated)?;
        self.rest = rest;
        let text = std::str::from_utf8(part).map_err(|_| Error::NotUtf8 { field })?;
        Ok(text.to_owned())
    }

    /// A reference, which is absent when empty.
    fn reference(&mut self, field: &'static str) -> Result<Option<String>, Error> {
        Ok(Some(self.text(field)?).filter(|text| !text.is_empty()))
    }
}

pub(super) fn decode(from: Side, bytes: &[u8]) -> Result<Frame, Error> {
    let (&kind, bytes) = bytes.split_first().ok_or(Error::Empty)?;
    let data = |parts: &Parts<'_>| parts.rest.to_vec();
    match (kind, from) {
        (PUSH, Side::Client) => {
            let mut parts = Parts::new(kind, bytes, 4)?;
            Ok(Frame {
                join_ref: parts.reference("join_ref")?,
                reference: parts.reference("ref")?,
                topic: parts.text("topic")?,
                event: parts.text("event")?,
                payload: Payload::Binary { status: None, data: data(&parts) },
            })
        }
        // A server's push has no ref.
        (PUSH, Side::Server) => {
            let mut parts = Parts::new(kind, bytes, 3)?;
            Ok(Frame {
                join_ref: parts.reference("join_ref")?,
                reference: None,
                topic: parts.text("topic")?,
                event: parts.text("event")?,
                payload: Payload::Binary { status: None, data: data(&parts) },
            })
        }
        (REPLY, Side::Server) => {
            let mut parts = Parts::new(kind, bytes, 4)?;
            Ok(Frame {
                join_ref: parts.reference("join_ref")?,
                reference: parts.reference("ref")?,
                topic: parts.text("topic")?,
                event: event::REPLY.to_owned(),
                payload: Payload::Binary {
                    status: Some(parts.text("status")?),
                    data: data(&parts),
                },
            })
        }
        (BROADCAST, Side::Server) => {
            let mut parts = Parts::new(kind, bytes, 2)?;
            Ok(Frame {
                join_ref: None,
                reference: None,
                topic: parts.text("topic")?,
                event: parts.text("event")?,
                payload: Payload::Binary { status: None, data: data(&parts) },
            })
        }
        (USER_BROADCAST_PUSH, Side::Client) => {
            let mut parts = Parts::new(kind, bytes, 5)?;
            let encoding = encoding(parts.byte("encoding")?)?;
            let (join_ref, reference) = (parts.reference("join_ref")?, parts.reference("ref")?);
            user_broadcast(parts, join_ref, reference, encoding)
        }
        (USER_BROADCAST, Side::Server) => {
            let mut parts = Parts::new(kind, bytes, 3)?;
            let encoding = encoding(parts.byte("encoding")?)?;
            user_broadcast(parts, None, None, encoding)
        }
        (_, Side::Client) => Err(Error::Kind { kind, from: "client" }),
        (_, Side::Server) => Err(Error::Kind { kind, from: "server" }),
    }
}

fn user_broadcast(
    mut parts: Parts<'_>,
    join_ref: Option<String>,
    reference: Option<String>,
    encoding: Encoding,
) -> Result<Frame, Error> {
    let topic = parts.text("topic")?;
    let (name, metadata) = (parts.text("user_event")?, parts.text("metadata")?);
    let payload = parts.rest.to_vec();
    let broadcast = UserBroadcast { event: name, metadata, encoding, payload };
    let payload = Payload::UserBroadcast(broadcast);
    Ok(Frame { join_ref, reference, topic, event: event::BROADCAST.to_owned(), payload })
}

fn encoding(byte: u8) -> Result<Encoding, Error> {
    match byte {
        0 => Ok(Encoding::Binary),
        1 => Ok(Encoding::Json),
        _ => Err(Error::Field { field: "encoding", expected: "0 (bytes) or 1 (JSON)" }),
    }
}

pub(super) fn encode(from: Side, frame: &Frame) -> Result<Vec<u8>, Error> {
    let join_ref = ("join_ref", frame.join_ref.as_deref().unwrap_or_default());
    let reference = ("ref", frame.reference.as_deref().unwrap_or_default());
    let (topic, name) = (("topic", frame.topic.as_str()), ("event", frame.event.as_str()));
    match (&frame.payload, from) {
        (Payload::Json(_), _) => Err(Error::Field { field: "payload", expected: "bytes" }),
        (Payload::UserBroadcast(broadcast), _) => {
            let name = ("user_event", broadcast.event.as_str());
            let metadata = ("metadata", broadcast.metadata.as_str());
            let encoding = Some(u8::from(broadcast.encoding == Encoding::Json));
            match from {
                Side::Client => {
                    let parts = [join_ref, reference, topic, name, metadata];
                    write(USER_BROADCAST_PUSH, &parts, encoding, &broadcast.payload)
                }
                Side::Server => {
                    write(USER_BROADCAST, &[topic, name, metadata], encoding, &broadcast.payload)
                }
            }
        }
        (Payload::Binary { data, .. }, Side::Client) => {
            write(PUSH, &[join_ref, reference, topic, name], None, data)
        }
        (Payload::Binary { status: Some(status), data }, Side::Server) => {
            write(REPLY, &[join_ref, reference, topic, ("status", status)], None, data)
        }
        (Payload::Binary { status: None, data }, Side::Server) => match &frame.join_ref {
            Some(_) => write(PUSH, &[join_ref, topic, name], None, data),
            None => write(BROADCAST, &[topic, name], None, data),
        },
    }
}

fn write(
    kind: u8,
    parts: &[(&'static str, &str)],
    encoding: Option<u8>,
    data: &[u8],
) -> Result<Vec<u8>, Error> {
    let names: usize = parts.iter().map(|(_, text)| text.len()).sum();
    let mut bytes = Vec::with_capacity(2 + parts.len() + names + data.len());
    bytes.push(kind);
    for (field, text) in parts {
        let length = text.len();
        bytes.push(u8::try_from(length).map_err(|_| Error::TooLong { field, length })?);
    }
    bytes.extend(encoding);
    for (_, text) in parts {
        bytes.extend_from_slice(text.as_bytes());
    }
    bytes.extend_from_slice(data);
    Ok(bytes)
}
