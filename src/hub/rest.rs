//! `/rest/v1`: the bus as PostgREST would serve it, for workers without a database and for Supabase's clients.
//!
//! Not a PostgREST: the functions `bus_*` and, to read, the tables of the bus. Each request is one transaction
//! under the caller's role ([`crate::hub::caller`]), in which grants, policies and the functions themselves
//! decide; nothing here does. What differs from PostgREST, on purpose:
//!
//! - There are no embedded resources, no writes to tables, no full-text search.
//! - `count=planned` and `count=estimated` are exact, up to a hundred thousand.
//! - What is over a bound is refused: addresses, filters, lists, depth, answers.
//! - A list's quoted value may hold quotes as they are, as the JavaScript client writes them.

mod answer;
mod call;
mod catalogue;
mod error;
mod field;
mod filter;
mod query;
mod scan;
mod select;
mod sql;
mod table;
mod wants;

use std::sync::Arc;

use axum::http::{StatusCode, Uri};
use axum::response::IntoResponse;
use axum::routing::any;

pub(crate) use catalogue::Cache;
pub(crate) use error::Error;

use crate::hub::Hub;

/// The routes; the caller adds limits and the check of origins.
pub(crate) fn routes(hub: &Arc<Hub>) -> axum::Router {
    axum::Router::new()
        .route("/rest/v1/rpc/{function}", any(call::call).options(allowed))
        // Of any depth, so that everything below is answered here.
        .route("/rest/v1/{*table}", any(table::read).options(allowed))
        .route("/rest/v1/", any(nothing))
        .route("/rest/v1", any(nothing))
        .with_state(Arc::clone(hub))
}

/// To whoever asks without being a browser.
async fn allowed() -> impl IntoResponse {
    (StatusCode::OK, [("allow", "GET, HEAD, POST, OPTIONS")])
}

async fn nothing(uri: Uri) -> Error {
    no_path(&uri)
}

fn no_path(uri: &Uri) -> Error {
    Error::new(404, "PGRST125", format!("Invalid path specified in request URL: {}", uri.path()))
}
