//! The text frames: objects in version 1.0.0, arrays in 2.0.0.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Error, Frame, Payload, Side, Vsn};

/// Writes a frame of version 1.0.0 from its parts. The server sends exactly four keys, with
/// `"ref":null` where there is none: supabase-py drops frames that lack it.
///
/// # Errors
/// When the payload cannot be written as JSON.
pub fn object(
    from: Side,
    join_ref: Option<&str>,
    reference: Option<&str>,
    topic: &str,
    event: &str,
    payload: &(impl Serialize + ?Sized),
) -> Result<String, Error> {
    #[derive(Serialize)]
    struct Sent<'a, P: ?Sized> {
        topic: &'a str,
        event: &'a str,
        payload: &'a P,
        #[serde(rename = "ref")]
        reference: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        join_ref: Option<Option<&'a str>>,
    }
    let join_ref = (from == Side::Client).then_some(join_ref);
    serde_json::to_string(&Sent { topic, event, payload, reference, join_ref })
        .map_err(|_| Error::Unwritable)
}

/// Writes a text frame of version 2.0.0 from its parts, for either side.
///
/// # Errors
/// When the payload cannot be written as JSON.
pub fn array(
    join_ref: Option<&str>,
    reference: Option<&str>,
    topic: &str,
    event: &str,
    payload: &(impl Serialize + ?Sized),
) -> Result<String, Error> {
    serde_json::to_string(&(join_ref, reference, topic, event, payload))
        .map_err(|_| Error::Unwritable)
}

pub(super) fn decode_object(text: &str) -> Result<Frame, Error> {
    #[derive(Deserialize)]
    struct Sent<'a> {
        #[serde(borrow)]
        topic: Option<&'a RawValue>,
        #[serde(borrow)]
        event: Option<&'a RawValue>,
        #[serde(borrow)]
        payload: Option<&'a RawValue>,
        #[serde(borrow, rename = "ref")]
        reference: Option<&'a RawValue>,
        #[serde(borrow)]
        join_ref: Option<&'a RawValue>,
    }
    const SHAPE: Error =
        Error::Shape { vsn: Vsn::V1, expected: "an object of topic, event, payload and ref" };
    // serde would take an array for the fields in their order.
    if !text.trim_start().starts_with('{') {
        return Err(if text.trim_start().is_empty() { end() } else { SHAPE });
    }
    let sent: Sent = serde_json::from_str(text).map_err(|error| syntax(&error, SHAPE))?;
    frame(sent.join_ref, sent.reference, sent.topic, sent.event, sent.payload)
}

pub(super) fn decode_array(text: &str) -> Result<Frame, Error> {
    const SHAPE: Error = Error::Shape {
        vsn: Vsn::V2,
        expected: "an array of join_ref, ref, topic, event and payload",
    };
    let sent: Vec<&RawValue> = serde_json::from_str(text).map_err(|error| syntax(&error, SHAPE))?;
    let [join_ref, reference, topic, event, payload] = sent[..] else { return Err(SHAPE) };
    frame(Some(join_ref), Some(reference), Some(topic), Some(event), Some(payload))
}

fn frame(
    join_ref: Option<&RawValue>,
    reference: Option<&RawValue>,
    topic: Option<&RawValue>,
    event: Option<&RawValue>,
    payload: Option<&RawValue>,
) -> Result<Frame, Error> {
    let payload = payload.map_or_else(|| RawValue::NULL.to_owned(), ToOwned::to_owned);
    Ok(Frame {
        join_ref: opaque("join_ref", join_ref)?,
        reference: opaque("ref", reference)?,
        topic: string("topic", topic)?,
        event: string("event", event)?,
        payload: Payload::Json(payload),
    })
}

/// A reference: any text, or none. Numbers are taken as their text; no known client sends them.
fn opaque(field: &'static str, raw: Option<&RawValue>) -> Result<Option<String>, Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Reference {
        Text(String),
        Number(serde_json::Number),
    }
    let Some(raw) = raw else { return Ok(None) };
    match serde_json::from_str(raw.get()) {
        Ok(None) => Ok(None),
        Ok(Some(Reference::Text(text))) => Ok(Some(text)),
        Ok(Some(Reference::Number(number))) => Ok(Some(number.to_string())),
        Err(_) => Err(Error::Field { field, expected: "a string or null" }),
    }
}

fn string(field: &'static str, raw: Option<&RawValue>) -> Result<String, Error> {
    raw.and_then(|raw| serde_json::from_str(raw.get()).ok())
        .ok_or(Error::Field { field, expected: "a string" })
}

fn end() -> Error {
    Error::NotJson { line: 1, column: 0 }
}

fn syntax(error: &serde_json::Error, shape: Error) -> Error {
    if error.is_data() {
        return shape;
    }
    Error::NotJson { line: error.line(), column: error.column() }
}
