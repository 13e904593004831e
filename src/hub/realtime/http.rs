//! Broadcasts without a socket: `POST /realtime/v1/api/broadcast`.

use std::sync::{Arc, PoisonError};

use axum::body::Bytes;
use axum::extract::{FromRequest as _, Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::hub::caller::Caller;
use crate::hub::realtime::Inner;
use crate::hub::realtime::admission::count_refusal;
use crate::hub::realtime::channel::TOPIC_MAX;
use crate::hub::realtime::frame::Shared;
use crate::hub::realtime::policy::{self, Action};
use crate::hub::realtime::scope::{self, RESERVED};
use crate::hub::realtime::topics::Name;
use crate::hub::rest::Error;
use crate::identity::Verified;
use crate::realtime::wire::{Encoding, UserBroadcast, event};

/// Messages of one request.
const MESSAGES_MAX: usize = 100;

#[derive(Debug, Deserialize)]
struct Batch {
    messages: Vec<Message>,
}

#[derive(Debug, Deserialize)]
struct Message {
    topic: String,
    event: String,
    payload: Option<Box<RawValue>>,
    #[serde(default)]
    private: Option<bool>,
}

#[derive(Serialize)]
struct Said<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    event: &'a str,
    payload: Option<&'a RawValue>,
}

/// Several messages at once: all or none.
pub(crate) async fn several(
    State(inner): State<Arc<Inner>>,
    request: Request,
) -> Result<Response, Error> {
    let sender = Sender::of(&inner, request.headers(), request.uri())?;
    let body = read(request).await?;
    let batch: Batch = serde_json::from_slice(&body).map_err(|error| {
        invalid(422, format!("messages: must be [{{topic, event, payload}}]: {error}"))
    })?;
    if batch.messages.len() > MESSAGES_MAX {
        return Err(invalid(413, format!("messages: at most {MESSAGES_MAX} in one request")));
    }
    sender.count(batch.messages.len())?;
    let mut names = Vec::with_capacity(batch.messages.len());
    for (at, message) in batch.messages.iter().enumerate() {
        if message.event.is_empty() {
            return Err(invalid(422, format!("messages[{at}].event: must not be empty")));
        }
        let bytes = message.payload.as_ref().map_or(0, |payload| payload.get().len());
        sender.fits(&format!("messages[{at}].payload"), bytes + message.event.len())?;
        names.push(sender.name(&message.topic, message.private.unwrap_or_default()).await?);
    }
    for (name, message) in names.iter().zip(&batch.messages) {
        let said =
            Said { kind: "broadcast", event: &message.event, payload: message.payload.as_deref() };
        let topic = name.on_wire();
        inner.topics.send(name, &Shared::new(&topic, event::BROADCAST, &said), None);
    }
    Ok(StatusCode::ACCEPTED.into_response())
}

/// One message, of JSON or of bytes.
pub(crate) async fn one(
    State(inner): State<Arc<Inner>>,
    Path((topic, name)): Path<(String, String)>,
    Query(query): Query<Vec<(String, String)>>,
    request: Request,
) -> Result<Response, Error> {
    let sender = Sender::of(&inner, request.headers(), request.uri())?;
    sender.count(1)?;
    let private = query.iter().any(|(key, value)| key == "private" && value == "true");
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let binary = kind.is_some_and(|kind| kind.starts_with("application/octet-stream"));
    let to = sender.name(&topic, private).await?;
    let body = read(request).await?;
    sender.fits("the body", body.len())?;
    let topic = to.on_wire();
    if binary {
        if name.len() > TOPIC_MAX {
            return Err(invalid(422, format!("event: at most {TOPIC_MAX} bytes")));
        }
        let (metadata, encoding) = (String::new(), Encoding::Binary);
        let said = UserBroadcast { event: name, metadata, encoding, payload: body.to_vec() };
        inner.topics.send(&to, &Shared::binary(&topic, &said), None);
    } else {
        let payload: &RawValue = serde_json::from_slice(&body)
            .map_err(|error| invalid(422, format!("the body must be JSON: {error}")))?;
        let said = Said { kind: "broadcast", event: &name, payload: Some(payload) };
        inner.topics.send(&to, &Shared::new(&topic, event::BROADCAST, &said), None);
    }
    Ok(StatusCode::ACCEPTED.into_response())
}

/// Reads a body, of somebody who has a key.
async fn read(request: Request) -> Result<Bytes, Error> {
    Bytes::from_request(request, &()).await.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => invalid(413, "the body is too large"),
        _ => invalid(400, "the body ended before it was complete"),
    })
}

fn invalid(status: u16, message: impl Into<String>) -> Error {
    Error::new(status, format!("CG{status}"), message)
}

/// Who sends, and how much it may.
struct Sender<'a> {
    inner: &'a Inner,
    token: Verified,
}

impl<'a> Sender<'a> {
    fn of(inner: &'a Inner, headers: &HeaderMap, uri: &Uri) -> Result<Self, Error> {
        let caller = Caller::of_request(&inner.keys, headers, uri)?;
        let token = Verified { claims: caller.claims, raw_json: caller.claims_json, key: 0 };
        Ok(Self { inner, token })
    }

    fn count(&self, messages: usize) -> Result<(), Error> {
        let rates = self.inner.admission.rates(&self.token.raw_json);
        let count = u32::try_from(messages).unwrap_or(u32::MAX);
        let mut rates = rates.lock().unwrap_or_else(PoisonError::into_inner);
        if rates.events.take(count) {
            return Ok(());
        }
        count_refusal("event", "rate");
        Err(invalid(429, "Too many messages per second")
            .with_retry_after(std::time::Duration::from_secs(1)))
    }

    /// Nothing larger goes to sockets than what comes from them: each that reads slowly has a copy.
    fn fits(&self, what: &str, bytes: usize) -> Result<(), Error> {
        let max = self.inner.options.max_frame_bytes;
        if bytes <= max {
            return Ok(());
        }
        count_refusal("event", "frame_bytes");
        Err(invalid(413, format!("{what}: at most {max} bytes")))
    }

    /// Where a message goes, if it may.
    async fn name(&self, topic: &str, private: bool) -> Result<Name, Error> {
        if topic.is_empty() || topic.len() > TOPIC_MAX {
            return Err(invalid(422, format!("topic: must be 1 to {TOPIC_MAX} bytes")));
        }
        let allowed = match (topic.starts_with(RESERVED), private) {
            (true, _) => false,
            (false, false) => true,
            (false, true) => {
                policy::allows(self.inner, &self.token, topic, Action::Broadcast).await.map_err(
                    |_| Error::new(503, "PGRST001", "The database does not answer; try again"),
                )?
            }
        };
        if !allowed {
            count_refusal("event", "policy");
            let message = format!("topic: this token may not broadcast to {topic:?}");
            return Err(invalid(403, message)
                .with_hint("Private topics are those of the token's tenant, as `acme:room`."));
        }
        let space = scope::space(&self.token.claims, private, topic);
        Ok(Name { space, private, topic: topic.into() })
    }
}
