//! Circuit breakers: look, open, close, reset.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::breaker;
use crate::bus::circuit::{Circuit, CircuitAction};
use crate::hub::Hub;
use crate::hub::error::ApiError;
use crate::hub::extract::{PathParams, StrictJson, StrictQuery};
use crate::message::{DEFAULT_TENANT, NAME_RULE, valid_name};

/// As much of a reason as the log keeps.
const REASON_MAX: usize = 200;
/// The longest key of a breaker.
const KEY_MAX: usize = 300;
/// The longest time for which one is opened by hand, in milliseconds: over eleven days. Longer is until somebody
/// closes it.
const OPEN_MS_MAX: u64 = 999_999_999;
/// Who acts, for the log: there is one admin token.
const ACTOR: &str = "hub-admin";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListQuery {
    tenant: Option<String>,
    state: Option<breaker::State>,
}

/// `GET /api/circuits`: all that have ever opened, those that are not closed first.
pub(crate) async fn list(
    State(hub): State<Arc<Hub>>,
    StrictQuery(query): StrictQuery<ListQuery>,
) -> Result<Json<Value>, ApiError> {
    let tenant = query.tenant.unwrap_or_else(|| "*".to_owned());
    if tenant != "*" && !valid_name(&tenant) {
        return Err(ApiError::invalid("tenant", format_args!("must be * or {NAME_RULE}")));
    }
    let mut circuits = hub.state.bus.circuits(&tenant).await?;
    circuits.retain(|circuit| query.state.is_none_or(|state| circuit.state == state));
    let circuits: Vec<Value> = circuits.iter().map(told).collect();
    Ok(Json(json!({"ok": true, "circuits": circuits})))
}

/// A breaker, with the window of the worker that opened it as that was then: what workers count now only they know.
fn told(circuit: &Circuit) -> Value {
    let mut told = json!(circuit);
    let calls = circuit.evidence.get("calls").and_then(Value::as_u64);
    told["window"] = calls.map_or(Value::Null, |calls| {
        let of = |rate: &str| {
            let share = circuit.evidence.get(rate).and_then(Value::as_f64).unwrap_or_default();
            #[allow(
                clippy::cast_precision_loss,
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss
            )]
            let count = (share.clamp(0.0, 1.0) * calls as f64).round() as u64;
            count
        };
        json!({"calls": calls, "failures": of("failure_rate"), "slow": of("slow_rate")})
    });
    told
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Set {
    key: String,
    tenant: Option<String>,
    reason: Option<String>,
    open_ms: Option<u64>,
}

/// `POST /api/circuits/{action}`, which is `open`, `close` or `reset`: what an operator does to one.
pub(crate) async fn set(
    State(hub): State<Arc<Hub>>,
    path: PathParams,
    StrictJson(Set { key, tenant, reason, open_ms }): StrictJson<Set>,
) -> Result<Json<Value>, ApiError> {
    let refuse = |field: &str, rule: &str| Err(ApiError::invalid(field, rule));
    let action = match path.text("action") {
        "open" => CircuitAction::Open(open_ms.map(Duration::from_millis)),
        "close" => CircuitAction::Close,
        "reset" => CircuitAction::Reset,
        _ => return refuse("action", "must be open, close or reset"),
    };
    if open_ms.is_some() && !matches!(action, CircuitAction::Open(_)) {
        return refuse("open_ms", "goes with open only");
    }
    if open_ms.is_some_and(|ms| !(1..=OPEN_MS_MAX).contains(&ms)) {
        return refuse("open_ms", &format!("must be from 1 to {OPEN_MS_MAX}"));
    }
    if key.is_empty() || key.chars().count() > KEY_MAX || key.chars().any(char::is_control) {
        return refuse("key", &format!("must be 1 to {KEY_MAX} characters, no control characters"));
    }
    let tenant = tenant.unwrap_or_else(|| DEFAULT_TENANT.to_owned());
    if !valid_name(&tenant) {
        return refuse("tenant", &format!("must be {NAME_RULE}"));
    }
    let too_long = |text: &str| text.chars().count() > REASON_MAX || text.contains('\0');
    if reason.as_deref().is_some_and(too_long) {
        let rule = format!("must be at most {REASON_MAX} characters, none of them U+0000");
        return refuse("reason", &rule);
    }
    let id = breaker::Id::new(tenant, key);
    let circuit = hub.state.bus.circuit_set(&id, action, Some(ACTOR), reason.as_deref()).await?;
    Ok(Json(json!({"ok": true, "circuit": told(&circuit)})))
}
