//! `/api/pending-tasks`: how much work waits for workers, for whoever starts and stops those.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::bus::{Bus, Error, Pending};
use crate::error::{Code, chain};
use crate::hub::Hub;
use crate::hub::error::ApiError;
use crate::hub::extract::StrictQuery;
use crate::message::{NAME_RULE, valid_name};

/// How old the answer for all tenants may be: several who scale must not cost several counts.
pub(crate) const AGE: Duration = Duration::from_secs(2);
/// How long counting may take; whoever asks comes again soon.
const TIMEOUT: Duration = Duration::from_secs(3);
/// All tenants.
const ALL: &str = "*";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Query {
    role: Option<String>,
    service: Option<String>,
    tenant: Option<String>,
}

impl Query {
    fn validate(&self) -> Result<(), ApiError> {
        let fields = [("role", &self.role), ("service", &self.service), ("tenant", &self.tenant)];
        for (field, value) in fields {
            if value.as_ref().is_some_and(|value| !valid_name(value)) {
                return Err(ApiError::invalid(field, format_args!("must be {NAME_RULE}")));
            }
        }
        Ok(())
    }

    fn wants(&self, row: &Pending) -> bool {
        let fits = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|w| w == is);
        fits(&self.role, &row.role) && fits(&self.service, &row.service)
    }
}

/// What waits, by role and service. `pending_tasks` is the number that KEDA's `metrics-api` scaler reads.
pub(crate) async fn pending_tasks(
    State(hub): State<Arc<Hub>>,
    StrictQuery(query): StrictQuery<Query>,
) -> Result<Json<Value>, ApiError> {
    query.validate()?;
    let rows = match query.tenant.as_deref() {
        None => hub.pending.get(AGE, count(&hub.state.bus, ALL)).await,
        Some(tenant) => count(&hub.state.bus, tenant).await,
    };
    let Some(rows) = rows else {
        // Not 0, which would have the last worker stopped.
        let message = "the database does not answer, so nobody knows what waits; try again";
        return Err(ApiError::new(Code::Unavailable, message));
    };
    let rows: Vec<&Pending> = rows.iter().filter(|row| query.wants(row)).collect();
    let by: Vec<Value> = rows
        .iter()
        .map(|row| json!({"role": row.role, "service": row.service, "pending": row.pending}))
        .collect();
    Ok(Json(json!({
        "ok": true,
        "pending_tasks": rows.iter().map(|row| row.pending).sum::<i64>(),
        "oldest_ms": rows.iter().map(|row| row.oldest_ms).max().unwrap_or(0),
        "by": by,
    })))
}

/// What waits for a worker, if the database says it in time.
pub(crate) async fn count(bus: &Bus, tenant: &str) -> Option<Vec<Pending>> {
    let failed: Option<Error> = match tokio::time::timeout(TIMEOUT, bus.pending(tenant)).await {
        Ok(Ok(rows)) => return Some(rows),
        Ok(Err(error)) => Some(error),
        Err(_) => None,
    };
    match failed {
        Some(error) => {
            tracing::warn!(error = %chain(&error), "Could not count what waits for workers");
        }
        None => tracing::warn!("Counting what waits for workers took too long"),
    }
    None
}
