//! A request, with all that is known of who sent it and how.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::http::HeaderMap;
use cogo::hub::Principal;
use cogo::message::TraceId;
use cogo::trace::Place;
use serde_json::{Map, Value};
use tokio::sync::mpsc;

use super::calls::{Entered, Key};
use super::lifecycle::Client;
use super::places;
use super::rpc::RpcError;
use crate::trace;

/// The longest that a caller may have a call take: a day.
const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

/// Who asks, by which way, and where it is told what happens meanwhile.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    /// Who.
    pub(super) who: Principal,
    /// With what.
    pub(super) client: Client,
    /// The only toolset that is served, under the names of its own.
    pub(super) toolset: Option<Arc<str>>,
    /// What its headers say of a call.
    pub(super) headers: Carried,
    /// The request's name.
    pub(super) key: Option<Key>,
    /// That a call can be cancelled by that name, where it could be before it was begun.
    pub(super) entered: Option<Arc<Entered>>,
    /// Takes notifications that belong to the request. What it has no room for is dropped: only progress is told so.
    pub(super) notes: mpsc::Sender<String>,
    /// What its answer takes up until it has been sent.
    pub(super) kept: Kept,
}

/// A place that an answer takes up, for whoever sends it to keep. Cheap to clone.
pub(super) type Kept = Arc<OnceLock<places::Place>>;

/// What a call carries beside its arguments.
#[derive(Debug, Clone, Default)]
pub(super) struct Carried {
    pub(super) idempotency_key: Option<String>,
    pub(super) trace_id: Option<TraceId>,
    /// The span that the headers name; what `_meta` names counts before it.
    pub(super) place: Option<Place>,
    pub(super) timeout: Option<Duration>,
}

impl Carried {
    /// What the headers say.
    pub(super) fn of_headers(headers: &HeaderMap) -> Result<Self, RpcError> {
        let text = |name: &str| match headers.get(name).map(|value| value.to_str()) {
            None => Ok(None),
            Some(Ok(text)) => Ok(Some(text.to_owned())),
            Some(Err(_)) => Err(RpcError::invalid(name, "must be text")),
        };
        let trace_id = match text("x-trace-id")? {
            None => None,
            Some(id) => Some(trace_id("X-Trace-Id", &id)?),
        };
        Ok(Self {
            idempotency_key: text("idempotency-key")?,
            trace_id,
            place: trace::in_headers(headers),
            timeout: None,
        })
    }

    /// What the request's `_meta` says goes before what its headers say: it is nearer to the call.
    pub(super) fn with_meta(mut self, meta: &Map<String, Value>) -> Result<Self, RpcError> {
        let text = |name: &str| match meta.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(RpcError::invalid(&format!("_meta.{name}"), "must be a string")),
        };
        if let Some(key) = text("cogo/idempotency_key")? {
            self.idempotency_key = Some(key);
        }
        if let Some(id) = text("cogo/trace_id")? {
            self.trace_id = Some(trace_id("_meta.cogo/trace_id", &id)?);
        }
        match meta.get("cogo/timeout_ms") {
            None | Some(Value::Null) => {}
            Some(ms) => {
                let timeout = ms.as_u64().filter(|ms| *ms > 0).map(Duration::from_millis);
                let Some(timeout) = timeout.filter(|timeout| *timeout <= MAX_TIMEOUT) else {
                    let rule =
                        format!("must be a whole number from 1 to {}", MAX_TIMEOUT.as_millis());
                    return Err(RpcError::invalid("_meta.cogo/timeout_ms", rule));
                };
                self.timeout = Some(timeout);
            }
        }
        Ok(self)
    }
}

fn trace_id(field: &str, text: &str) -> Result<TraceId, RpcError> {
    text.parse().map_err(|_| RpcError::invalid(field, "must be a UUID"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_meta_says_goes_before_what_headers_say() {
        let mut headers = HeaderMap::new();
        headers.insert("idempotency-key", "from-header".parse().unwrap());
        let carried = Carried::of_headers(&headers).unwrap();
        let meta = json!({"cogo/idempotency_key": "from-meta", "cogo/timeout_ms": 1500});
        let carried = carried.with_meta(meta.as_object().unwrap()).unwrap();
        assert_eq!(carried.idempotency_key.as_deref(), Some("from-meta"));
        assert_eq!(carried.timeout, Some(Duration::from_millis(1500)));
    }

    #[test]
    fn what_is_not_as_it_must_be_is_named() {
        for (meta, named) in [
            (json!({"cogo/idempotency_key": 7}), "_meta.cogo/idempotency_key"),
            (json!({"cogo/timeout_ms": 0}), "_meta.cogo/timeout_ms"),
            (json!({"cogo/timeout_ms": "1"}), "_meta.cogo/timeout_ms"),
            (json!({"cogo/trace_id": "x"}), "_meta.cogo/trace_id"),
        ] {
            let refused = Carried::default().with_meta(meta.as_object().unwrap()).unwrap_err();
            assert!(refused.message.starts_with(named), "{}", refused.message);
        }
    }
}
