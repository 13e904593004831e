//! `/api/mcp/tools` and `/api/mcp/pins`: what the mesh offers, and what is approved of it.

use axum::Extension;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Json;
use cogo::bus::offer::NewPin;
use cogo::error::Code;
use cogo::hub::{ApiError, Principals, Routes, StrictJson};
use cogo::message::Topic;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::catalogue::{Catalogue, Offer, pins};
use crate::gateway::ROLE;

/// The most tools that one call names.
const NAMES_MAX: usize = 1000;
/// Who approves, where the caller does not say.
const WHO: &str = "api";

/// The routes of the catalogue. The tenant is the header `X-Cogo-Tenant`, and without one the default.
pub fn routes(catalogue: Catalogue, principals: Principals) -> Routes {
    Routes::new()
        .get("/api/mcp/tools", tools)
        .get("/api/mcp/pins", list)
        .post("/api/mcp/pins/approve", approve)
        .post("/api/mcp/pins/revoke", revoke)
        .with_state(catalogue)
        .extension(principals)
}

/// One tool, without its whole definition.
fn one(offer: &Offer) -> Value {
    json!({
        "name": offer.name(), "toolset": offer.toolset, "tool": offer.tool, "title": offer.title(),
        "description": offer.definition["description"], "read_only": offer.read_only,
        "idempotent": offer.idempotent, "task_support": offer.task_support, "hash": offer.hash,
        "workers": offer.workers,
    })
}

async fn tools(
    State(catalogue): State<Catalogue>,
    Extension(principals): Extension<Principals>,
    headers: HeaderMap,
) -> Result<Json<Value>, ApiError> {
    let who = principals.of(&headers)?;
    let snapshot = catalogue.snapshot(who.tenant()).await?;
    // Where reads are open a key comes through as well, and learns here what it does by MCP.
    let may = |offer: &Offer| {
        Topic::new(ROLE.name, &offer.toolset).is_ok_and(|topic| who.may_send(&topic))
    };
    let tools: Vec<Value> =
        snapshot.iter().filter(|offer| may(offer)).map(|offer| one(offer)).collect();
    let held = snapshot.held().iter().filter(|held| may(&held.offer)).map(|held| {
        let mut view = one(&held.offer);
        view["machines"] = json!(held.machines);
        view
    });
    let held: Vec<Value> = held.collect();
    Ok(Json(json!({"ok": true, "tenant": who.tenant(), "tools": tools, "held": held})))
}

async fn list(
    State(catalogue): State<Catalogue>,
    Extension(principals): Extension<Principals>,
    headers: HeaderMap,
) -> Result<Json<Value>, ApiError> {
    let who = principals.of(&headers)?;
    if !who.is_operator() {
        return Err(ApiError::new(Code::Forbidden, "only an operator sees what is approved"));
    }
    let mesh = catalogue.mesh();
    let pins = pins::read(catalogue.bus(), who.tenant(), &mesh).await?;
    let tenant = who.tenant();
    Ok(Json(json!({"ok": true, "tenant": tenant, "pinning": mesh.pinning, "pins": pins})))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Approve {
    /// `<toolset>__<tool>` each.
    #[serde(default)]
    tools: Vec<String>,
    #[serde(default)]
    all: bool,
    hash: Option<String>,
    by: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Revoke {
    tools: Vec<String>,
    by: Option<String>,
}

async fn approve(
    State(catalogue): State<Catalogue>,
    Extension(principals): Extension<Principals>,
    headers: HeaderMap,
    StrictJson(body): StrictJson<Approve>,
) -> Result<Json<Value>, ApiError> {
    if body.tools.is_empty() != body.all {
        return Err(ApiError::invalid("tools", "must name tools, unless all is true"));
    }
    if body.hash.is_some() && body.tools.len() != 1 {
        return Err(ApiError::invalid("hash", "goes with one tool"));
    }
    let choose =
        |views: &[pins::PinView]| pins::to_approve(views, &body.tools, body.hash.as_deref());
    change(&catalogue, &principals, &headers, (&body.tools, body.by.as_deref()), choose).await
}

async fn revoke(
    State(catalogue): State<Catalogue>,
    Extension(principals): Extension<Principals>,
    headers: HeaderMap,
    StrictJson(body): StrictJson<Revoke>,
) -> Result<Json<Value>, ApiError> {
    let choose = |views: &[pins::PinView]| pins::to_revoke(views, &body.tools);
    change(&catalogue, &principals, &headers, (&body.tools, body.by.as_deref()), choose).await
}

async fn change(
    catalogue: &Catalogue,
    principals: &Principals,
    headers: &HeaderMap,
    (tools, by): (&[String], Option<&str>),
    choose: impl FnOnce(&[pins::PinView]) -> Result<Vec<NewPin>, String>,
) -> Result<Json<Value>, ApiError> {
    if tools.len() > NAMES_MAX {
        return Err(ApiError::invalid("tools", "must name at most 1000"));
    }
    let who = principals.of(headers)?;
    if !who.is_operator() {
        return Err(ApiError::new(Code::Forbidden, "only an operator approves and revokes tools"));
    }
    let (bus, tenant) = (catalogue.bus(), who.tenant());
    let views = pins::read(bus, tenant, &catalogue.mesh()).await?;
    // The names are well formed; it is what the machines offer and what is approved that does not go with them.
    let pins =
        choose(&views).map_err(|why| ApiError::new(Code::Conflict, format!("tools: {why}")))?;
    let changed = bus.pin(tenant, &pins, Some(by.unwrap_or(WHO))).await?;
    // Whoever asks next is to see it.
    catalogue.refresh(tenant).await?;
    Ok(Json(json!({"ok": true, "tenant": tenant, "changed": changed, "pins": pins})))
}
