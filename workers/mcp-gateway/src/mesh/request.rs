//! What is asked for, and what was started.

use std::time::Duration;

use cogo::message::{MessageId, TraceId};
use cogo::trace::Place;
use serde_json::{Map, Value};

pub use crate::upstream::Input;

/// A call, as a caller asks for it.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The toolset.
    pub toolset: String,
    /// The tool, as its server calls it.
    pub tool: String,
    /// Its arguments; none is as good as an empty object.
    pub arguments: Option<Map<String, Value>>,
    /// The same key with the same call gives the same message, and its result.
    pub idempotency_key: Option<String>,
    /// The trace that the call belongs to; a new one when absent.
    pub trace_id: Option<TraceId>,
    /// The span that it belongs to: the hub's, or where there are none the caller's.
    pub place: Option<Place>,
    /// What the caller put into the request's `_meta`. What is not the tool's business is left out on the way.
    pub meta: Map<String, Value>,
    /// What the tool had asked for, in a call before.
    pub input: Option<Input>,
    /// How long all of it may take, waiting for a machine included.
    pub deadline: Option<Duration>,
    /// Higher goes first; from -100 to 100.
    pub priority: Option<i16>,
}

/// A call that is on the bus: committed, whatever becomes of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Started {
    /// Its message, and its task.
    pub id: MessageId,
    /// Its trace.
    pub trace_id: TraceId,
    /// Whether it had been started before, under the same idempotency key.
    pub duplicate: bool,
}
