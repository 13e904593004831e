//! The dead-letter queue: look, and bring back.

use std::collections::HashSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::bus::dead_letter::{Filter, Operated};
use crate::hub::Hub;
use crate::hub::error::ApiError;
use crate::hub::extract::{StrictJson, StrictQuery};
use crate::message::{MessageId, NAME_RULE, valid_name};

/// How many are listed unless asked otherwise, and at most: each may carry megabytes.
const LIMIT: (u32, u32) = (50, 100);
/// How many are brought back in one call; one transaction holds them all.
const IDS_MAX: usize = 1000;
/// As much of a reason as the log keeps.
const REASON_MAX: usize = 200;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListQuery {
    role: Option<String>,
    service: Option<String>,
    class: Option<String>,
    limit: Option<u32>,
}

/// `GET /api/dead-letters`: the latest first.
pub(crate) async fn list(
    State(hub): State<Arc<Hub>>,
    StrictQuery(query): StrictQuery<ListQuery>,
) -> Result<Json<Value>, ApiError> {
    let ListQuery { role, service, class, limit } = query;
    for (field, value) in [("role", &role), ("service", &service), ("class", &class)] {
        if value.as_deref().is_some_and(|value| !valid_name(value)) {
            return Err(ApiError::invalid(field, format_args!("must be {NAME_RULE}")));
        }
    }
    let limit = limit.unwrap_or(LIMIT.0);
    if !(1..=LIMIT.1).contains(&limit) {
        return Err(ApiError::invalid("limit", format_args!("must be from 1 to {}", LIMIT.1)));
    }
    let messages = hub.state.bus.dead_letters(&Filter { role, service, class }, limit).await?;
    Ok(Json(json!({"ok": true, "messages": messages})))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Requeue {
    ids: Vec<Uuid>,
    reason: Option<String>,
}

/// `POST /api/dead-letters/requeue`: each gets all its attempts again. What became of each is in the
/// answer; one that cannot come back does not hold up the others.
pub(crate) async fn requeue(
    State(hub): State<Arc<Hub>>,
    StrictJson(Requeue { ids, reason }): StrictJson<Requeue>,
) -> Result<Json<Value>, ApiError> {
    if ids.is_empty() || ids.len() > IDS_MAX {
        return Err(ApiError::invalid("ids", format_args!("must be 1 to {IDS_MAX} ids")));
    }
    let mut seen = HashSet::new();
    if let Some(at) = ids.iter().position(|id| !seen.insert(id)) {
        return Err(ApiError::invalid(&format!("ids[{at}]"), "stands twice"));
    }
    if reason
        .as_deref()
        .is_some_and(|text| text.chars().count() > REASON_MAX || text.contains('\0'))
    {
        let rule = format_args!("must be at most {REASON_MAX} characters, none of them U+0000");
        return Err(ApiError::invalid("reason", rule));
    }
    let ids: Vec<MessageId> = ids.into_iter().map(MessageId).collect();
    let outcomes = hub.state.bus.requeue(&ids, reason.as_deref()).await?;
    let results: Vec<Value> = outcomes
        .into_iter()
        .map(|(id, outcome)| json!({"id": id, "outcome": word(outcome)}))
        .collect();
    Ok(Json(json!({"ok": true, "results": results})))
}

fn word(outcome: Operated) -> &'static str {
    match outcome {
        Operated::Done => "requeued",
        Operated::NotFound => "not_found",
        Operated::NotAllowed => "not_allowed",
    }
}
