//! `GET /rest/v1/{table}`: the bus's tables, to read.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, header};
use axum::response::Response;

use crate::hub::Hub;
use crate::hub::caller::{About, Access, Caller};
use crate::hub::extract::PathParams;
use crate::hub::rest::answer::{self, Failed};
use crate::hub::rest::catalogue::{Catalogue, TABLES};
use crate::hub::rest::query::{self, Query};
use crate::hub::rest::sql::{Form, Shape, Source, Sql, Total};
use crate::hub::rest::wants::{Count, Media, Prefer, check_schema, heed_range};
use crate::hub::rest::{Error, no_path};

/// How far rows are counted for whom an estimate is good enough. It counts what the caller may see, which the
/// statistics of the table do not know.
const ESTIMATE_MAX: u32 = 100_000;

/// Reads a table.
pub(super) async fn read(
    State(hub): State<Arc<Hub>>,
    path: PathParams,
    request: Request,
) -> Result<Response, Error> {
    let (uri, headers, method) = (request.uri(), request.headers(), request.method());
    let caller = Caller::of_request(&hub.state.keys, headers, uri)?;
    let name = path.text("table");
    if name.contains('/') {
        return Err(no_path(uri));
    }
    check_schema(method, headers)?;
    if !TABLES.contains(&name) {
        return Err(no_table(name));
    }
    if !matches!(*method, Method::GET | Method::HEAD) {
        return Err(only_read(name, method));
    }
    let (media, prefer) = (Media::of(headers)?, Prefer::of(headers)?);
    let mut query = query::read(&query::pairs(uri)?, name)?;
    heed_range(headers, &mut query)?;

    let options = &hub.state.options.rest;
    let with_body = *method == Method::GET;
    let form = match media {
        _ if !with_body => Form::Number,
        Media::Array | Media::Object => Form::Json,
        Media::Csv => Form::Texts,
    };
    let total = match prefer.count {
        None => Total::Untold,
        Some(Count::Exact) => Total::Exact,
        Some(Count::Planned | Count::Estimated) => Total::UpTo(ESTIMATE_MAX),
    };
    let bytes_max = options.max_answer_bytes;
    let shape = Shape { rows_max: Some(options.max_rows), form, total, bytes_max };
    let pool = &hub.callers.pool;
    let catalogue = hub.catalogue.get(pool).await?;
    let built = build(&catalogue, name, &query, shape);
    let (sql, names) = match built {
        // A migration may have just brought it.
        Err(error) if matches!(error.code(), "42703" | "PGRST205") => {
            let catalogue = hub.catalogue.renewed(pool).await?;
            build(&catalogue, name, &query, shape)?
        }
        built => built?,
    };

    let about = About { method: method.as_str(), path: uri.path(), headers };
    let mut transaction = caller.begin(&hub.callers, Access::Read, &about).await?;
    let rows = match answer::fetch(&mut transaction, &sql, form, options.max_answer_bytes).await {
        Ok(rows) => rows,
        Err(Failed::TooLarge) => return Err(answer::too_large(options.max_answer_bytes)),
        Err(Failed::Database(error)) => {
            if error.as_database_error().is_some() {
                transaction.rollback().await;
            }
            return Err(caller.refusal(&error));
        }
    };
    transaction.rollback().await; // there is nothing to keep
    rows.answer(media, &names, query.offset, prefer, with_body)
}

/// The statement, and the names of the columns that it gives.
fn build(
    catalogue: &Catalogue,
    name: &str,
    query: &Query,
    shape: Shape,
) -> Result<(Sql, Vec<String>), Error> {
    let columns = catalogue.columns(name).ok_or_else(|| no_table(name))?;
    let sql = Sql::of_table(Source { name, columns }, query, shape)?;
    Ok((sql, query.names(columns)))
}

fn no_table(name: &str) -> Error {
    let message = format!("Could not find the table 'public.{name}' in the schema cache");
    Error::new(404, "PGRST205", message).with_hint(format!("The hub gives {}.", TABLES.join(", ")))
}

fn only_read(name: &str, method: &Method) -> Error {
    let message = format!("{method}: {name} can only be read; the functions bus_* write it");
    Error::new(405, "PGRST117", message)
        .with_hint("Call a function instead, such as POST /rest/v1/rpc/bus_enqueue.")
        .with_header(header::ALLOW, HeaderValue::from_static("GET, HEAD, OPTIONS"))
}
