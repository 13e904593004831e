//! The dead-letter queue: look, bring back, and drop.

use std::collections::HashSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::bus::Error;
use crate::bus::dead_letter::{Change, Filter, NewPayload, Operated, Swept};
use crate::hub::Hub;
use crate::hub::error::ApiError;
use crate::hub::extract::{Object, PathParams, StrictJson, StrictQuery};
use crate::hub::messages::NoQuery;
use crate::message::{InvalidName, MessageId};

/// How many are listed unless asked otherwise, and at most: each may carry megabytes.
const LIMIT: (u32, u32) = (50, 100);
/// How large those of one list may be in all; the one with which they get there is still told.
const LIST_BYTES: u32 = 16 * 1024 * 1024;
/// How many ids one call may name.
const IDS_MAX: usize = 1000;
/// How many that fit a filter one call takes unless asked otherwise, and at most: it must end in time.
const SWEEP: (u32, u32) = (1000, 10_000);

/// `GET /api/dead-letters`: those that fit, the latest first.
pub(crate) async fn list(
    State(hub): State<Arc<Hub>>,
    StrictQuery(query): StrictQuery<Vec<(String, String)>>,
) -> Result<Json<Value>, ApiError> {
    let (filter, limit) = read_query(query)?;
    let (messages, truncated) =
        hub.state.bus.dead_letters_within(&filter, limit, LIST_BYTES).await?;
    Ok(Json(json!({"ok": true, "messages": messages, "truncated": truncated})))
}

/// The fields of a [`Filter`], and `limit` beside them.
fn read_query(query: Vec<(String, String)>) -> Result<(Filter, u32), ApiError> {
    let (mut fields, mut limit) = (Map::new(), None);
    for (name, value) in query {
        let again = match name.as_str() {
            "limit" => {
                let number = value.parse().ok().filter(|n| (1..=LIMIT.1).contains(n));
                let rule = format_args!("must be from 1 to {}", LIMIT.1);
                let number = number.ok_or_else(|| ApiError::invalid("limit", rule))?;
                limit.replace(number).is_some()
            }
            _ => fields.insert(name.clone(), value.into()).is_some(),
        };
        if again {
            return Err(ApiError::invalid(&name, "stands twice"));
        }
    }
    let filter: Filter = serde_path_to_error::deserialize(Value::from(fields))
        .map_err(|error| ApiError::invalid(&error.path().to_string(), error.inner()))?;
    filter.validate().map_err(|error| refused("", error))?;
    Ok((filter, limit.unwrap_or(LIMIT.0)))
}

/// What is wrong with a filter, whose fields stand below `path`.
fn refused(path: &str, error: Error) -> ApiError {
    match error {
        Error::Name(InvalidName { field, rule, .. }) => {
            ApiError::invalid(&format!("{path}{field}"), format_args!("must be {rule}"))
        }
        Error::Field { field, rule, .. } => ApiError::invalid(&format!("{path}{field}"), rule),
        other => other.into(),
    }
}

/// `GET /api/dead-letters/{id}`: one, with all that led to it.
pub(crate) async fn show(
    State(hub): State<Arc<Hub>>,
    path: PathParams,
    StrictQuery(NoQuery {}): StrictQuery<NoQuery>,
) -> Result<Json<Value>, ApiError> {
    let examined = hub.state.bus.dead_letter(MessageId(path.uuid("id")?)).await?;
    Ok(Json(json!({"ok": true, "message": examined})))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Requeue {
    ids: Option<Vec<Uuid>>,
    filter: Option<Object<Filter>>,
    max: Option<u32>,
    params: Option<Map<String, Value>>,
    /// `null` is a payload as well.
    #[serde(default, deserialize_with = "given")]
    payload: Option<Value>,
    max_attempts: Option<i32>,
    reason: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Drop {
    ids: Option<Vec<Uuid>>,
    filter: Option<Object<Filter>>,
    max: Option<u32>,
    #[serde(default)]
    confirm: bool,
    reason: Option<String>,
}

fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// What a call operates on.
#[derive(Debug)]
enum Targets {
    Ids(Vec<MessageId>),
    Fitting(Filter, u32),
}

/// `POST /api/dead-letters/requeue`: each gets all its attempts again. What became of each is in the
/// answer; one that cannot come back does not hold up the others.
pub(crate) async fn requeue(
    State(hub): State<Arc<Hub>>,
    StrictJson(body): StrictJson<Requeue>,
) -> Result<Json<Value>, ApiError> {
    let Requeue { ids, filter, max, params, payload, max_attempts, reason } = body;
    let targets = targets(ids, filter, max)?;
    let payload = match (params, payload) {
        (Some(_), Some(_)) => {
            return Err(ApiError::invalid("params", "must not stand beside payload"));
        }
        (Some(params), None) => Some(NewPayload::Params(params)),
        (None, payload) => payload.map(NewPayload::Whole),
    };
    let (change, reason, bus) =
        (Change { payload, max_attempts }, reason.as_deref(), &hub.state.bus);
    let swept = match targets {
        Targets::Ids(ids) => all(bus.requeue_with(&ids, &change, reason).await?),
        Targets::Fitting(filter, max) => {
            bus.requeue_fitting(&filter, Some(max), &change, reason).await?
        }
    };
    Ok(answer("requeued", &swept))
}

/// `POST /api/dead-letters/drop`: they are gone for good; their events stay.
pub(crate) async fn drop(
    State(hub): State<Arc<Hub>>,
    StrictJson(body): StrictJson<Drop>,
) -> Result<Json<Value>, ApiError> {
    let Drop { ids, filter, max, confirm, reason } = body;
    let targets = targets(ids, filter, max)?;
    if !confirm {
        return Err(ApiError::invalid("confirm", "must be true, since this is for good"));
    }
    let (reason, bus) = (reason.as_deref(), &hub.state.bus);
    let swept = match targets {
        Targets::Ids(ids) => all(bus.drop_dead_letters(&ids, reason).await?),
        Targets::Fitting(filter, max) => bus.drop_fitting(&filter, Some(max), reason).await?,
    };
    Ok(answer("dropped", &swept))
}

fn targets(
    ids: Option<Vec<Uuid>>,
    filter: Option<Object<Filter>>,
    max: Option<u32>,
) -> Result<Targets, ApiError> {
    match (ids, filter) {
        (Some(_), Some(_)) => Err(ApiError::invalid("filter", "must not stand beside ids")),
        (None, None) => Err(ApiError::invalid("ids", "either ids or a filter must be given")),
        (Some(_), None) if max.is_some() => {
            Err(ApiError::invalid("max", "goes with a filter, not with ids"))
        }
        (Some(ids), None) => {
            if ids.is_empty() || ids.len() > IDS_MAX {
                return Err(ApiError::invalid("ids", format_args!("must be 1 to {IDS_MAX} ids")));
            }
            let mut seen = HashSet::new();
            if let Some(at) = ids.iter().position(|id| !seen.insert(id)) {
                return Err(ApiError::invalid(&format!("ids[{at}]"), "stands twice"));
            }
            Ok(Targets::Ids(ids.into_iter().map(MessageId).collect()))
        }
        (None, Some(Object(filter))) => {
            filter.validate().map_err(|error| refused("filter.", error))?;
            let max = max.unwrap_or(SWEEP.0);
            if !(1..=SWEEP.1).contains(&max) {
                let rule = format_args!("must be from 1 to {}", SWEEP.1);
                return Err(ApiError::invalid("max", rule));
            }
            Ok(Targets::Fitting(filter, max))
        }
    }
}

fn all(results: Vec<(MessageId, Operated)>) -> Swept {
    Swept { results, more: false }
}

fn answer(done: &str, Swept { results, more }: &Swept) -> Json<Value> {
    let word = |operated| match operated {
        Operated::Done => done,
        Operated::NotFound => "not_found",
        Operated::NotAllowed => "not_allowed",
        Operated::NoPlaceForParams => "no_place_for_params",
    };
    let results: Vec<Value> = results
        .iter()
        .map(|(id, operated)| json!({"id": id, "outcome": word(*operated)}))
        .collect();
    Json(json!({"ok": true, "results": results, "more": more}))
}
