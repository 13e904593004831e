//! `POST /api/metrics/snapshot`: the figures, kept as an artifact.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::artifact;
use crate::error::Code;
use crate::hub::Hub;
use crate::hub::error::ApiError;
use crate::hub::extract::StrictJson;
use crate::message::{DEFAULT_TENANT, NAME_RULE, valid_name};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Snapshot {
    window_s: Option<u32>,
    tenant: Option<String>,
}

pub(crate) async fn snapshot(
    State(hub): State<Arc<Hub>>,
    StrictJson(Snapshot { window_s, tenant }): StrictJson<Snapshot>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let window_s = super::window(window_s)?;
    let tenant = tenant.unwrap_or_else(|| DEFAULT_TENANT.to_owned());
    if !valid_name(&tenant) {
        return Err(ApiError::invalid("tenant", format_args!("must be {NAME_RULE}")));
    }
    let mut summary = hub.summaries.get(&hub, window_s).await?.whole();
    if let Some(fields) = summary.as_object_mut() {
        // It tells of an answer, and this is a document.
        fields.shift_remove("ok");
    }
    let bytes = serde_json::to_vec_pretty(&summary)
        .map_err(|error| ApiError::internal("writing a snapshot", &error))?;
    let kept = hub.artifacts.put(&tenant, bytes, "application/json").await.map_err(refused)?;
    let artifact = json!({
        "uri": kept.uri(),
        "href": format!("/mcp/artifacts/{}/{}", kept.tenant, kept.sha256),
        "tenant": kept.tenant,
        "sha256": kept.sha256,
        "bytes": kept.bytes,
        "mime": kept.mime,
    });
    Ok((StatusCode::CREATED, Json(json!({"ok": true, "artifact": artifact, "summary": summary}))))
}

fn refused(error: artifact::Error) -> ApiError {
    match error.code() {
        Code::Internal => ApiError::internal("keeping a snapshot", &error),
        code => ApiError::new(code, error.to_string()),
    }
}
