//! `/api/openapi.json` and `/api/docs`: what the API takes and gives, for programs and for people.
//!
//! Each area describes its own routes in a *fragment*: a part of an OpenAPI 3.1 document with `paths`, `components`
//! and `tags`. Those of the library lie beside this file; a role hands over its own with [`Routes::describe`]. They are
//! put together when the router is built, and what does not fit together is found then and not by a reader.
//!
//! The document is that of *this* hub: it holds what is mounted here, and reads need credentials in it where they do.
//! What is mounted and not described stands in `x-undescribed`, so that nothing is served unseen; a test holds that to
//! the protocols that have documents of their own.

mod merge;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};

use crate::error::Code;
use crate::hub::error::ApiError;
use crate::hub::extract::PathParams;
use crate::hub::routes::Routes;

pub use merge::{Fragment, document};

/// Those of the library; a test fails where a file beside this one is missing here.
pub const FRAGMENTS: &[Fragment] = &[
    Fragment { name: "components.json", json: include_str!("openapi/components.json") },
    Fragment { name: "bus.json", json: include_str!("openapi/bus.json") },
    Fragment { name: "dead_letters.json", json: include_str!("openapi/dead_letters.json") },
    Fragment { name: "docs.json", json: include_str!("openapi/docs.json") },
    Fragment { name: "artifacts.json", json: include_str!("openapi/artifacts.json") },
    Fragment { name: "console.json", json: include_str!("openapi/console.json") },
    Fragment { name: "metrics.json", json: include_str!("openapi/metrics.json") },
    Fragment { name: "events.json", json: include_str!("openapi/events.json") },
    Fragment { name: "env.json", json: include_str!("openapi/env.json") },
    Fragment { name: "ops.json", json: include_str!("openapi/ops.json") },
    Fragment { name: "session.json", json: include_str!("openapi/session.json") },
];

/// As the console's: nothing from outside, nothing inline, in nobody's frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; \
                      connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const PAGE: &str = include_str!("docs/index.html");
/// What the page loads: name, type and text.
const ASSETS: [(&str, &str, &str); 4] = [
    ("docs.css", "text/css; charset=utf-8", include_str!("docs/docs.css")),
    ("docs.js", "text/javascript; charset=utf-8", include_str!("docs/docs.js")),
    ("operation.js", "text/javascript; charset=utf-8", include_str!("docs/operation.js")),
    ("schema.js", "text/javascript; charset=utf-8", include_str!("docs/schema.js")),
];

/// `routes`, and those that describe them.
///
/// # Panics
/// When the fragments do not fit together; that depends on nothing but the program.
pub(crate) fn described(routes: Routes, open_reads: bool) -> Routes {
    let own = Routes::<Bytes>::new()
        .get("/api/openapi.json", json)
        .get("/api/docs", page)
        .get("/api/docs/{file}", asset);
    let list: Vec<_> = routes.list().iter().chain(own.list()).copied().collect();
    let fragments: Vec<_> = FRAGMENTS.iter().chain(routes.fragments()).copied().collect();
    let document = document(&fragments, &list, open_reads);
    let document = document.unwrap_or_else(|problems| panic!("{}", problems.join("\n")));
    routes.merge(own.with_state(Bytes::from(document.to_string())))
}

async fn json(State(document): State<Bytes>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], document).into_response()
}

async fn page() -> Response {
    shown("text/html; charset=utf-8", PAGE)
}

async fn asset(path: PathParams) -> Result<Response, ApiError> {
    let wanted = path.text("file");
    let found = ASSETS.iter().find(|(name, _, _)| *name == wanted);
    let Some((_, mime, text)) = found else {
        return Err(ApiError::new(Code::NotFound, format!("there is no file {wanted:?}")));
    };
    Ok(shown(mime, text))
}

fn shown(mime: &'static str, text: &'static str) -> Response {
    let mut response = ([(header::CONTENT_TYPE, mime)], text).into_response();
    let policy = HeaderValue::from_static(POLICY);
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    response
}
