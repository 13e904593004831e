//! What a client joins with. Read as Realtime reads it: what cannot be understood is complained of and
//! its default taken, and the join goes on.

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::secret::Secret;

/// The payload of `phx_join`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Join {
    /// What the channel is to do.
    pub config: Config,
    /// The token that decides what the channel may; absent means that of the connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_token: Option<Secret>,
    /// The client's name and version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// What a channel is to do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Config {
    /// How broadcasts go.
    pub broadcast: JoinBroadcast,
    /// Whether and as whom to be present.
    pub presence: JoinPresence,
    /// Which changes to be told of.
    pub postgres_changes: Vec<Binding>,
    /// Whether the channel's policy is asked.
    pub private: bool,
}

/// How broadcasts of a channel go.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct JoinBroadcast {
    /// Whether each is answered.
    pub ack: bool,
    /// Whether the sender gets its own.
    #[serde(rename = "self")]
    pub own: bool,
    /// Which earlier ones to repeat.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replay: Option<Replay>,
    /// Whether to be told when broadcasts from the database flow.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub replication_ready: bool,
}

/// Which earlier broadcasts to repeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Replay {
    /// Those after this many milliseconds since 1970.
    pub since: i64,
    /// At most so many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// Whether and as whom to be present.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JoinPresence {
    /// The key to be listed under; empty means one of the server's choice.
    pub key: String,
    /// Whether to be told who is present. Clients that do not say so want it.
    pub enabled: bool,
}

impl Default for JoinPresence {
    /// As a client that says nothing has it.
    fn default() -> Self {
        Self { key: String::new(), enabled: true }
    }
}

impl JoinPresence {
    /// No presence.
    #[must_use]
    pub fn none() -> Self {
        Self { key: String::new(), enabled: false }
    }
}

/// What a subscription is told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChangeKind {
    /// Everything (`*`).
    All,
    /// New rows.
    Insert,
    /// Changed rows.
    Update,
    /// Deleted rows.
    Delete,
}

/// A subscription to the changes of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// `*`, `INSERT`, `UPDATE` or `DELETE`, as it was sent; see [`Binding::kind`].
    pub event: String,
    /// The table's schema.
    pub schema: String,
    /// The table; all of the schema's without it.
    pub table: Option<String>,
    /// Which rows, as `role=eq.planner`; commas mean *and*.
    pub filter: Option<String>,
    /// Which columns.
    pub select: Option<Vec<String>>,
    /// The request as it came, which the answer repeats.
    sent: Map<String, Value>,
}

impl Binding {
    /// All changes of `public.<table>` that are of `kind`.
    #[must_use]
    pub fn new(kind: ChangeKind, table: &str) -> Self {
        let event = match kind {
            ChangeKind::All => "*",
            ChangeKind::Insert => "INSERT",
            ChangeKind::Update => "UPDATE",
            ChangeKind::Delete => "DELETE",
        };
        Self {
            event: event.to_owned(),
            schema: "public".to_owned(),
            table: Some(table.to_owned()),
            filter: None,
            select: None,
            sent: Map::new(),
        }
    }

    /// Only rows that `filter` matches.
    #[must_use]
    pub fn filtered(mut self, filter: impl Into<String>) -> Self {
        self.filter = Some(filter.into());
        self
    }

    /// What it is told of; nothing for an event that there is not.
    #[must_use]
    pub fn kind(&self) -> Option<ChangeKind> {
        match self.event.to_ascii_uppercase().as_str() {
            "*" | "ALL" => Some(ChangeKind::All),
            "INSERT" => Some(ChangeKind::Insert),
            "UPDATE" => Some(ChangeKind::Update),
            "DELETE" => Some(ChangeKind::Delete),
            _ => None,
        }
    }

    /// The subscription as the join's answer repeats it, with the id that its changes carry. The id must
    /// not be 0, which clients take for none.
    #[must_use]
    pub fn granted(&self, id: u32) -> Value {
        let mut echo = match serde_json::to_value(self) {
            Ok(Value::Object(map)) if self.sent.is_empty() => map,
            _ => self.sent.clone(),
        };
        echo.insert("id".to_owned(), id.into());
        Value::Object(echo)
    }
}

impl Serialize for Binding {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("event", &self.event)?;
        map.serialize_entry("schema", &self.schema)?;
        if let Some(table) = &self.table {
            map.serialize_entry("table", table)?;
        }
        if let Some(filter) = &self.filter {
            map.serialize_entry("filter", filter)?;
        }
        if let Some(select) = &self.select {
            map.serialize_entry("select", select)?;
        }
        map.end()
    }
}

impl Join {
    /// Reads a join, and says what of it could not be understood and was replaced by its default.
    #[must_use]
    pub fn read(payload: &RawValue) -> (Self, Vec<String>) {
        let value = serde_json::from_str(payload.get()).unwrap_or_default();
        let mut complaints = Vec::new();
        let mut top = Section::of("payload", Some(&value), &mut complaints);
        let access_token = top.text("access_token").map(Secret::from);
        let version = top.text("version");
        let config = Config::read(top.get("config"), &mut complaints);
        (Self { config, access_token, version }, complaints)
    }
}

impl Config {
    fn read(value: Option<&Value>, complaints: &mut Vec<String>) -> Self {
        let mut section = Section::of("config", value, complaints);
        let private = section.flag("private", false);
        let (broadcast, presence) = (section.get("broadcast"), section.get("presence"));
        let bindings = match section.get("postgres_changes") {
            None | Some(Value::Null) => &[],
            Some(Value::Array(bindings)) => bindings.as_slice(),
            Some(_) => {
                section.complain("postgres_changes", "a list");
                &[]
            }
        };
        Self {
            broadcast: JoinBroadcast::read(broadcast, complaints),
            presence: JoinPresence::read(presence, complaints),
            postgres_changes: bindings
                .iter()
                .filter(|binding| !binding.is_null())
                .filter_map(|binding| Binding::read(binding, complaints))
                .collect(),
            private,
        }
    }
}

impl JoinBroadcast {
    fn read(value: Option<&Value>, complaints: &mut Vec<String>) -> Self {
        let mut section = Section::of("broadcast", value, complaints);
        let (ack, own) = (section.flag("ack", false), section.flag("self", false));
        let replication_ready = section.flag("replication_ready", false);
        let replay = section.get("replay").filter(|replay| !replay.is_null()).and_then(|replay| {
            let since = replay.get("since").and_then(Value::as_i64);
            let limit = replay.get("limit").and_then(Value::as_u64);
            if since.is_none() {
                section.complain("replay.since", "milliseconds since 1970");
            }
            Some(Replay { since: since?, limit: limit.and_then(|limit| limit.try_into().ok()) })
        });
        Self { ack, own, replay, replication_ready }
    }
}

impl JoinPresence {
    fn read(value: Option<&Value>, complaints: &mut Vec<String>) -> Self {
        let mut section = Section::of("presence", value, complaints);
        Self {
            key: section.text("key").unwrap_or_default(),
            enabled: section.flag("enabled", true),
        }
    }
}

impl Binding {
    fn read(value: &Value, complaints: &mut Vec<String>) -> Option<Self> {
        let mut section = Section::of("postgres_changes", Some(value), complaints);
        let sent = section.fields?.clone();
        let select = section.get("select").and_then(|select| {
            let columns: Option<Vec<String>> = select
                .as_array()
                .map(|columns| columns.iter().filter_map(|c| c.as_str().map(str::to_owned)))
                .map(Iterator::collect);
            if columns.is_none() && !select.is_null() {
                section.complain("select", "a list of columns");
            }
            columns
        });
        Some(Self {
            event: section.text("event").unwrap_or_default(),
            schema: section.text("schema").unwrap_or_else(|| "public".to_owned()),
            table: section.text("table").filter(|table| table != "*"),
            filter: section.text("filter").filter(|filter| !filter.is_empty()),
            select,
            sent,
        })
    }
}

/// An object of the payload that is read leniently.
struct Section<'a, 'c> {
    name: &'static str,
    fields: Option<&'a Map<String, Value>>,
    complaints: &'c mut Vec<String>,
}

impl<'a, 'c> Section<'a, 'c> {
    fn of(name: &'static str, value: Option<&'a Value>, complaints: &'c mut Vec<String>) -> Self {
        let fields = value.and_then(Value::as_object);
        if fields.is_none() && value.is_some_and(|value| !value.is_null()) {
            complaints.push(format!("`{name}` must be an object"));
        }
        Self { name, fields, complaints }
    }

    fn get(&self, field: &str) -> Option<&'a Value> {
        self.fields.and_then(|fields| fields.get(field))
    }

    fn complain(&mut self, field: &str, expected: &str) {
        self.complaints.push(format!("`{}.{field}` must be {expected}", self.name));
    }

    /// A boolean, which some clients send as a string.
    fn flag(&mut self, field: &str, default: bool) -> bool {
        match self.get(field) {
            None | Some(Value::Null) => default,
            Some(Value::Bool(flag)) => *flag,
            Some(Value::String(text)) if text.eq_ignore_ascii_case("true") => true,
            Some(Value::String(text)) if text.eq_ignore_ascii_case("false") => false,
            Some(_) => {
                self.complain(field, "true or false");
                default
            }
        }
    }

    fn text(&mut self, field: &str) -> Option<String> {
        match self.get(field) {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => Some(text.clone()),
            Some(_) => {
                self.complain(field, "a string");
                None
            }
        }
    }
}
