//! `/rest/v1`: the bus as PostgREST would serve it, for workers without a database and for Supabase's clients.
//!
//! Not a PostgREST: the functions `bus_*` and, to read, the tables of the bus.

mod error;

use std::sync::Arc;

pub(crate) use error::Error;

use crate::hub::Hub;

/// The routes; the caller adds limits and the check of origins.
pub(crate) fn routes(hub: &Arc<Hub>) -> axum::Router {
    let _soon = hub;
    axum::Router::new()
}
