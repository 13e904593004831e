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

use axum::extract::Request;
use axum::http::{StatusCode, Uri};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use metrics::{counter, histogram};

pub(crate) use catalogue::Cache;
pub(crate) use error::Error;

use crate::clock::Stopwatch;
use crate::hub::{Hub, Routes};
use crate::metrics::{REST_LATENCY_MS, REST_REQUESTS_TOTAL};

/// The routes; the caller adds limits and the check of origins.
pub(crate) fn routes(hub: &Arc<Hub>) -> Routes {
    Routes::new()
        .any("/rest/v1/rpc/{function}", call::call)
        .options("/rest/v1/rpc/{function}", allowed)
        // Of any depth, so that everything below is answered here.
        .any("/rest/v1/{*table}", table::read)
        .options("/rest/v1/{*table}", allowed)
        .any("/rest/v1/", nothing)
        .any("/rest/v1", nothing)
        .layer(from_fn(measure))
        .with_state(Arc::clone(hub))
}

/// Counts what is answered.
async fn measure(request: Request, next: Next) -> Response {
    let began = Stopwatch::start();
    let calls = request.uri().path().starts_with("/rest/v1/rpc/");
    let route = if calls { "function" } else { "table" };
    let response = next.run(request).await;
    let status = response.status().as_str().to_owned();
    counter!(REST_REQUESTS_TOTAL, "route" => route, "status" => status).increment(1);
    histogram!(REST_LATENCY_MS, "route" => route).record(began.elapsed().as_secs_f64() * 1000.0);
    response
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
