//! Frames that the hub sends, written once for each version of the protocol.

use std::cell::OnceCell;

use serde::Serialize;

use crate::hub::realtime::outbox::Frame;
use crate::realtime::wire::{self, Side, UserBroadcast, Vsn, event};

/// A text frame for one socket.
pub(crate) fn text(
    vsn: Vsn,
    join_ref: Option<&str>,
    reference: Option<&str>,
    topic: &str,
    event: &str,
    payload: &(impl Serialize + ?Sized),
) -> Frame {
    let text = match vsn {
        Vsn::V1 => wire::object(Side::Server, join_ref, reference, topic, event, payload),
        Vsn::V2 => wire::array(join_ref, reference, topic, event, payload),
    };
    text.expect("what the hub sends can be written as JSON").into()
}

/// What goes to everybody in a topic: encoded at most once for each version, when the first needs it.
pub(crate) struct Shared<'a, P: ?Sized> {
    topic: &'a str,
    event: &'a str,
    payload: &'a P,
    binary: Option<&'a UserBroadcast>,
    v1: OnceCell<Option<Frame>>,
    v2: OnceCell<Option<Frame>>,
}

impl<'a, P: Serialize + ?Sized> Shared<'a, P> {
    /// JSON, for both versions.
    pub(crate) fn new(topic: &'a str, event: &'a str, payload: &'a P) -> Self {
        let (v1, v2) = (OnceCell::new(), OnceCell::new());
        Self { topic, event, payload, binary: None, v1, v2 }
    }

    /// For a socket of this version; none if it cannot be told in it.
    pub(crate) fn frame(&self, vsn: Vsn) -> Option<Frame> {
        let (cell, write) = match vsn {
            Vsn::V1 => (&self.v1, self.binary.is_none_or(|said| said.to_json().is_ok())),
            Vsn::V2 => (&self.v2, true),
        };
        let encode = || match (self.binary, vsn) {
            (Some(said), _) => broadcast(vsn, self.topic, said),
            (None, _) => Some(text(vsn, None, None, self.topic, self.event, self.payload)),
        };
        cell.get_or_init(|| if write { encode() } else { None }).clone()
    }
}

impl<'a> Shared<'a, ()> {
    /// A broadcast of the binary format; bytes cannot be told to version 1.0.0.
    pub(crate) fn binary(topic: &'a str, said: &'a UserBroadcast) -> Self {
        Self { binary: Some(said), ..Self::new(topic, event::BROADCAST, &()) }
    }
}

fn broadcast(vsn: Vsn, topic: &str, said: &UserBroadcast) -> Option<Frame> {
    let frame = wire::Frame {
        join_ref: None,
        reference: None,
        topic: topic.to_owned(),
        event: event::BROADCAST.to_owned(),
        payload: wire::Payload::UserBroadcast(said.clone()),
    };
    match frame.encode(vsn, Side::Server).ok()? {
        wire::Encoded::Text(text) => Some(text.into()),
        wire::Encoded::Binary(bytes) => Some(Frame::Binary(bytes.into())),
    }
}
