//! `/api/mcp/toolsets`: the MCP servers of this hub's `configs/mcp.json`, added, changed and taken out.
//!
//! What is written here makes the hub's machine connect somewhere and send what the entry refers to. So the API takes
//! less than the file does (`config/remote.rs`): no command, and no variable that the file does not list.

use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use cogo::error::{Code, chain};
use cogo::hub::{ApiError, PathParams, Routes, StrictJson};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::view;
use crate::config::edit::{Edit, EditError};
use crate::config::{Config, Toolset};
use crate::toolsets::Toolsets;

/// What every change says.
const NEXT: &str = "gateways that use this file take it up within seconds";

struct Place {
    toolsets: Arc<Toolsets>,
    config_dir: Option<PathBuf>,
}

/// What may be changed of an entry without writing it anew.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Patch {
    enabled: bool,
}

pub(super) fn routes(toolsets: Arc<Toolsets>, config_dir: Option<PathBuf>) -> Routes {
    Routes::new()
        .get("/api/mcp/toolsets", list)
        .put("/api/mcp/toolsets/{name}", set)
        .patch("/api/mcp/toolsets/{name}", enable)
        .delete("/api/mcp/toolsets/{name}", remove)
        .with_state(Arc::new(Place { toolsets, config_dir }))
}

/// As the file has them, and where those stand that are served.
async fn list(State(place): State<Arc<Place>>) -> Result<Response, ApiError> {
    let config = match &place.config_dir {
        Some(dir) => file(dir.clone()).await?,
        None => (*place.toolsets.config()).clone(),
    };
    let now = place.toolsets.now();
    let one = |(name, toolset): (&String, &Toolset)| {
        let mut view = view::one(toolset, now.redactor());
        let served = now.get(name);
        view["state"] = match served {
            Some(upstream) => json!(upstream.state()),
            None => Value::Null,
        };
        view["current"] = json!(served.map(|upstream| upstream.toolset() == toolset));
        (name.clone(), view)
    };
    let toolsets: Map<_, _> = config.toolsets.iter().map(one).collect();
    Ok(Json(json!({
        "ok": true, "toolsets": toolsets, "allow_commands_by_api": config.allow_commands_by_api,
        "env_by_api": config.env_by_api,
    }))
    .into_response())
}

async fn file(dir: PathBuf) -> Result<Config, ApiError> {
    blocking(move || {
        if !dir.join(crate::config::FILE).exists() {
            return Ok(Config::default());
        }
        let bad = |error| ApiError::new(Code::Conflict, chain(&error).to_string());
        Config::load(&dir).map_err(bad)
    })
    .await
}

async fn set(
    State(place): State<Arc<Place>>,
    path: PathParams,
    StrictJson(toolset): StrictJson<Toolset>,
) -> Result<Response, ApiError> {
    let name = path.text("name").to_owned();
    let view = view::one(&toolset, place.toolsets.now().redactor());
    let added = place
        .edit({
            let name = name.clone();
            move |edit| {
                let refuse = |(field, rule): (String, String)| {
                    ApiError::new(Code::Forbidden, format!("{field}: {rule}"))
                };
                edit.config().check_by_api(&toolset).map_err(refuse)?;
                let added = !edit.config().toolsets.contains_key(&name);
                edit.put(&name, &toolset, true).map_err(|error| refused(&error))?;
                Ok(added)
            }
        })
        .await?;
    let status = if added { StatusCode::CREATED } else { StatusCode::OK };
    let told = json!({"ok": true, "name": name, "added": added, "toolset": view, "next": NEXT});
    Ok((status, Json(told)).into_response())
}

async fn enable(
    State(place): State<Arc<Place>>,
    path: PathParams,
    StrictJson(Patch { enabled }): StrictJson<Patch>,
) -> Result<Response, ApiError> {
    let name = path.text("name").to_owned();
    let of = name.clone();
    let changed =
        place.edit(move |edit| edit.enable(&of, enabled).map_err(|error| refused(&error))).await?;
    let told =
        json!({"ok": true, "name": name, "enabled": enabled, "changed": changed, "next": NEXT});
    Ok(Json(told).into_response())
}

async fn remove(State(place): State<Arc<Place>>, path: PathParams) -> Result<Response, ApiError> {
    let name = path.text("name").to_owned();
    let of = name.clone();
    place.edit(move |edit| edit.remove(&of).map_err(|error| refused(&error))).await?;
    Ok(Json(json!({"ok": true, "name": name, "removed": true, "next": NEXT})).into_response())
}

impl Place {
    /// One change of the file, saved if it went well.
    async fn edit<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Edit) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let Some(dir) = self.config_dir.clone() else {
            let message = "the hub has no configuration directory; start it with --config-dir";
            return Err(ApiError::new(Code::Conflict, message));
        };
        blocking(move || {
            let mut edit = Edit::begin(&dir).map_err(|error| refused(&error))?;
            let outcome = change(&mut edit)?;
            let path = edit.path().to_owned();
            edit.save().map_err(|error| refused(&error))?;
            tracing::info!(config.file = %path.display(), "Changed {} by the API", path.display());
            Ok(outcome)
        })
        .await
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) => Err(ApiError::internal("changing mcp.json", &error)),
    }
}

fn refused(error: &EditError) -> ApiError {
    let code = match error {
        EditError::Missing { .. } => Code::NotFound,
        EditError::Config { .. } => Code::InvalidArgument,
        EditError::Busy(_) => Code::Unavailable,
        EditError::Exists(_) | EditError::Changed(_) => Code::Conflict,
        EditError::Io { .. } => return ApiError::internal("changing mcp.json", error),
    };
    // The rule, and not where the file lies.
    let text = match std::error::Error::source(error) {
        Some(source) if matches!(error, EditError::Config { .. }) => chain(source).to_string(),
        _ => error.to_string(),
    };
    ApiError::new(code, text)
}
