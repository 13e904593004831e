//! RemoteEnv for administrators: which names there are, set one, unset one. Values go in and never out.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::Code;
use crate::hub::Hub;
use crate::hub::error::ApiError;
use crate::hub::extract::{PathParams, StrictJson, StrictQuery};
use crate::message::{ALL_TENANTS, DEFAULT_TENANT, NAME_RULE, valid_name};
use crate::remote_env::{self, SecretString, Store};

/// Who acts, for the log: there is one admin token.
const ACTOR: &str = "hub-admin";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Of {
    tenant: Option<String>,
}

impl Of {
    fn tenant(self) -> Result<String, ApiError> {
        let tenant = self.tenant.unwrap_or_else(|| DEFAULT_TENANT.to_owned());
        if tenant != ALL_TENANTS && !valid_name(&tenant) {
            return Err(ApiError::invalid("tenant", format_args!("must be * or {NAME_RULE}")));
        }
        Ok(tenant)
    }
}

/// `GET /api/env`: the names of a tenant, and which keys this hub has.
pub(crate) async fn list(
    State(hub): State<Arc<Hub>>,
    headers: HeaderMap,
    StrictQuery(query): StrictQuery<Of>,
) -> Result<Json<Value>, ApiError> {
    // The one read that needs the token also where reads are open: names tell what somebody has accounts for.
    if !hub.state.token.is_in(&headers) {
        let message = "this needs the admin token: send it in the header `x-admin-token`";
        return Err(ApiError::new(Code::Unauthorized, message));
    }
    let names = hub.state.bus.env_names(&query.tenant()?, None).await?;
    let keys = hub.state.env_keys.as_ref().map(remote_env::Keyring::ids).unwrap_or_default();
    Ok(Json(json!({
        "ok": true, "tenant": names.tenant, "revision": names.revision,
        "names": names.names.unwrap_or_default(), "key_ids": keys,
    })))
}

/// The body of a `PUT`. The value is taken as any JSON, so that no error of its type repeats it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Put {
    value: Value,
}

/// `PUT /api/env/{name}`: sealed here, in place of what was there.
pub(crate) async fn put(
    State(hub): State<Arc<Hub>>,
    path: PathParams,
    StrictQuery(query): StrictQuery<Of>,
    StrictJson(Put { value }): StrictJson<Put>,
) -> Result<Json<Value>, ApiError> {
    let (tenant, name) = (query.tenant()?, path.text("name"));
    let Value::String(value) = value else {
        return Err(ApiError::invalid("value", "must be a string"));
    };
    let value = SecretString::from(value);
    remote_env::check_name(name).map_err(|rule| ApiError::invalid("name", rule))?;
    let keys = hub.state.env_keys.clone().map_err(|error| {
        ApiError::new(Code::Conflict, format!("this hub has no key to seal with: {error}"))
    })?;
    let key_id = keys.ids().first().map(|id| (*id).to_owned());
    let store = Store::new(hub.state.bus.clone(), &*tenant, keys);
    let version = store.set(name, &value, ACTOR).await.map_err(refused)?;
    Ok(Json(json!({
        "ok": true, "tenant": tenant, "name": name, "version": version, "key_id": key_id,
    })))
}

/// `DELETE /api/env/{name}`.
pub(crate) async fn delete(
    State(hub): State<Arc<Hub>>,
    path: PathParams,
    StrictQuery(query): StrictQuery<Of>,
) -> Result<Json<Value>, ApiError> {
    let (tenant, name) = (query.tenant()?, path.text("name"));
    // Also one that may not be set any more may go; but what is no name at all is not looked for.
    if name.contains('\0') {
        return Err(ApiError::invalid("name", "must be a name of RemoteEnv"));
    }
    let gone = hub.state.bus.env_unset(&tenant, &[name.to_owned()], Some(ACTOR)).await?;
    if gone == 0 {
        let message = format!("name: tenant {tenant} has none of this name");
        return Err(ApiError::new(Code::NotFound, message));
    }
    Ok(Json(json!({"ok": true, "tenant": tenant, "name": name})))
}

fn refused(error: remote_env::Error) -> ApiError {
    match error {
        remote_env::Error::Bus(error) => error.into(),
        remote_env::Error::Invalid { rule, too_large: true, .. } => {
            ApiError::new(Code::PayloadTooLarge, format!("value: {rule}"))
        }
        remote_env::Error::Invalid { rule, .. } => ApiError::invalid("value", rule),
        remote_env::Error::Contended(_) => ApiError::new(Code::Conflict, error.to_string()),
        error => ApiError::internal("sealing a value", &error),
    }
}
