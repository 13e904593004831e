//! What the server and the client say in JSON, apart from joins and presence.

use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};

use crate::secret::Secret;

use super::{Binding, Error};

/// The answer to a frame (`phx_reply`).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Reply {
    /// `ok`, or anything else.
    pub status: String,
    /// What is said beside it: `{"reason":…}` of a refusal.
    #[serde(default = "null")]
    pub response: Box<RawValue>,
}

impl Reply {
    /// That it is done, and nothing beside.
    #[must_use]
    pub fn ok() -> Self {
        Self::with("ok", &json!({}))
    }

    /// That it is done, with what was asked for.
    ///
    /// # Errors
    /// When the response cannot be written as JSON.
    pub fn ok_with(response: &impl Serialize) -> Result<Self, Error> {
        let response = to_raw_value(response).map_err(|_| Error::Unwritable)?;
        Ok(Self { status: "ok".to_owned(), response })
    }

    /// That it is refused, and why. Realtime's reasons to a join read `<Code>: <text>`.
    #[must_use]
    pub fn error(reason: &str) -> Self {
        Self::with("error", &json!({ "reason": reason }))
    }

    fn with(status: &str, response: &Value) -> Self {
        let response = to_raw_value(response).unwrap_or_else(|_| null());
        Self { status: status.to_owned(), response }
    }

    /// Whether it is done.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.status == "ok"
    }

    /// Why it was refused, whatever form the reason has.
    #[must_use]
    pub fn reason(&self) -> String {
        let response: Value = serde_json::from_str(self.response.get()).unwrap_or_default();
        match response.get("reason") {
            Some(Value::String(reason)) => reason.clone(),
            Some(reason) => reason.to_string(),
            None => "no reason was given".to_owned(),
        }
    }
}

/// What a join is answered with: the subscriptions in the order of the request, each with its id.
///
/// Clients compare them one by one with what they asked for, and take an id of 0 for none.
#[derive(Debug, Clone, Default, Serialize)]
pub struct JoinReply {
    /// The subscriptions, by [`Binding::granted`].
    pub postgres_changes: Vec<Value>,
}

impl JoinReply {
    /// The answer that grants each subscription the id beside it.
    #[must_use]
    pub fn granting<'a>(bindings: impl IntoIterator<Item = (&'a Binding, u32)>) -> Self {
        Self { postgres_changes: bindings.into_iter().map(|(b, id)| b.granted(id)).collect() }
    }
}

/// News of a subscription (`extension` is `postgres_changes`) or of the channel (`system`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct System {
    /// For people.
    #[serde(default)]
    pub message: String,
    /// `ok` or `error`.
    #[serde(default)]
    pub status: String,
    /// What it is about.
    #[serde(default)]
    pub extension: String,
    /// The topic without its prefix.
    #[serde(default)]
    pub channel: String,
}

impl System {
    /// What is said once changes are delivered: those committed before are not.
    pub const SUBSCRIBED: &str = "Subscribed to PostgreSQL";

    /// Changes are delivered from now on.
    #[must_use]
    pub fn subscribed(channel: &str) -> Self {
        Self {
            message: Self::SUBSCRIBED.to_owned(),
            status: "ok".to_owned(),
            extension: super::event::POSTGRES_CHANGES.to_owned(),
            channel: channel.to_owned(),
        }
    }

    /// Something about `extension` went wrong.
    #[must_use]
    pub fn error(extension: &str, message: impl Into<String>, channel: &str) -> Self {
        Self {
            message: message.into(),
            status: "error".to_owned(),
            extension: extension.to_owned(),
            channel: channel.to_owned(),
        }
    }

    /// Whether it says that changes are delivered from now on.
    #[must_use]
    pub fn is_subscribed(&self) -> bool {
        self.status == "ok" && self.extension == super::event::POSTGRES_CHANGES
    }

    /// Whether it is bad news.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.status == "error"
    }
}

/// A changed row (`postgres_changes`). `D` is how the change is held: raw, so that it is written once for
/// all who get it, or [`ChangeData`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Change<D = Box<RawValue>> {
    /// The subscriptions of the receiver that it matches, by the ids of the join's answer.
    pub ids: Vec<u32>,
    /// The change itself.
    pub data: D,
}

/// What has changed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ChangeData {
    /// The table's schema.
    pub schema: String,
    /// The table.
    pub table: String,
    /// When it was committed, in UTC with milliseconds and `Z`.
    pub commit_timestamp: String,
    /// `INSERT`, `UPDATE` or `DELETE`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The columns of the table.
    #[serde(default)]
    pub columns: Vec<Column>,
    /// The row as it is now; not of a DELETE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<Box<RawValue>>,
    /// What is known of the row as it was; not of an INSERT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old_record: Option<Box<RawValue>>,
    /// What could not be delivered, such as `Error 413: Payload Too Large`; null if all could.
    #[serde(default)]
    pub errors: Option<Vec<String>>,
}

/// A column of a changed table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type by `pg_type.typname`, such as `int8` or `_text`.
    #[serde(rename = "type")]
    pub kind: String,
}

/// A broadcast in the text format.
#[derive(Debug, Clone, Deserialize)]
pub struct Broadcast {
    /// The sender's name for it.
    #[serde(default)]
    pub event: String,
    /// What was broadcast.
    #[serde(default)]
    pub payload: Option<Box<RawValue>>,
    /// About the broadcast, such as its id.
    #[serde(default)]
    pub meta: Option<Box<RawValue>>,
}

impl Serialize for Broadcast {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("type", "broadcast")?;
        map.serialize_entry("event", &self.event)?;
        if let Some(payload) = &self.payload {
            map.serialize_entry("payload", payload)?;
        }
        if let Some(meta) = &self.meta {
            map.serialize_entry("meta", meta)?;
        }
        map.end()
    }
}

/// A new token for a joined channel.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AccessToken {
    /// The token; null asks for that of the connection.
    #[serde(default)]
    pub access_token: Option<Secret>,
}

fn null() -> Box<RawValue> {
    RawValue::NULL.to_owned()
}
