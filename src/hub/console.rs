//! The console: a page at `/` for people, whose files lie in `src/hub/console` and go into the binary.
//!
//! The page holds no data, so that it is given to everybody; what it shows it asks of the API, with the admin token of
//! whoever signed in. Its policy lets it load and call this hub alone, and run no script but these files.

use std::fmt::Write as _;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use rust_embed::{EmbeddedFile, RustEmbed};

use crate::error::Code;
use crate::hub::error::ApiError;
use crate::hub::extract::PathParams;

/// What the page may do. A script that got in by mistake could call nobody else, and nobody may frame the page to
/// have it clicked. Pictures of a tool's answer are `data:`, those of artifacts `blob:`, since they are fetched with a
/// header.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self' data: blob:; connect-src 'self'; font-src 'self'; base-uri 'none'; \
    form-action 'none'; frame-ancestors 'none'";

/// Asked for each time, answered by 304: the page and the API that it calls come from the same binary.
const CACHING: &str = "no-cache";

/// The files. A debug build reads them from the source instead, so that an edit is seen on reload.
#[derive(RustEmbed)]
#[folder = "src/hub/console"]
struct Files;

/// `GET /`: the page.
pub(crate) async fn page(headers: HeaderMap) -> Result<Response, ApiError> {
    file("index.html", &headers)
}

/// `GET /favicon.ico`, which browsers ask for where no page has said otherwise.
pub(crate) async fn icon(headers: HeaderMap) -> Result<Response, ApiError> {
    file("favicon.svg", &headers)
}

/// `GET /console/{*file}`: what belongs to the page.
pub(crate) async fn part(path: PathParams, headers: HeaderMap) -> Result<Response, ApiError> {
    file(path.text("file"), &headers)
}

fn file(path: &str, headers: &HeaderMap) -> Result<Response, ApiError> {
    let absent = || ApiError::new(Code::NotFound, format!("the console has no file {path:?}"));
    let mime = mime(path).ok_or_else(absent)?;
    let found = Files::get(path).ok_or_else(absent)?;
    let tag = tag(&found);
    let fresh = has(headers, &tag);
    let mut response = match fresh {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => Body::from(found.data.into_owned()).into_response(),
    };
    let told = response.headers_mut();
    told.insert(header::ETAG, HeaderValue::from_str(&tag).expect("a quoted hexadecimal number"));
    told.insert(header::CACHE_CONTROL, HeaderValue::from_static(CACHING));
    told.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    if !fresh {
        told.insert(header::CONTENT_TYPE, HeaderValue::from_static(mime));
    }
    Ok(response)
}

fn mime(path: &str) -> Option<&'static str> {
    match path.rsplit_once('.')?.1 {
        "html" => Some("text/html; charset=utf-8"),
        "css" => Some("text/css; charset=utf-8"),
        "js" => Some("text/javascript; charset=utf-8"),
        "svg" => Some("image/svg+xml"),
        _ => None,
    }
}

/// Names what a file holds.
fn tag(file: &EmbeddedFile) -> String {
    let mut tag = String::from("\"");
    for byte in &file.metadata.sha256_hash()[..16] {
        let _never_fails = write!(tag, "{byte:02x}");
    }
    tag + "\""
}

/// Whether the browser has what `tag` names.
fn has(headers: &HeaderMap, tag: &str) -> bool {
    let given =
        headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    given.flat_map(|value| value.split(',')).any(|one| {
        let one = one.trim();
        one == "*" || one.strip_prefix("W/").unwrap_or(one) == tag
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_the_page_is_made_of_is_served() {
        let files: Vec<_> = Files::iter().collect();
        for wanted in ["index.html", "favicon.svg", "js/main.js", "i18n/en.js", "i18n/ko.js"] {
            assert!(files.iter().any(|file| file == wanted), "{wanted}: {files:?}");
        }
        for path in &files {
            let response = file(path, &HeaderMap::new()).expect("it is there");
            assert_eq!(response.status(), StatusCode::OK, "{path}");
            assert_eq!(response.headers()[header::CONTENT_SECURITY_POLICY], POLICY, "{path}");
            let mut headers = HeaderMap::new();
            headers.insert(header::IF_NONE_MATCH, response.headers()[header::ETAG].clone());
            let again = file(path, &headers).expect("it is there");
            assert_eq!(again.status(), StatusCode::NOT_MODIFIED, "{path}");
        }
    }

    #[test]
    fn nothing_outside_of_it_is_served() {
        for path in
            ["", "../console.rs", "js/../../console.rs", "/etc/passwd", "js", "js/main", "a.js"]
        {
            let error = file(path, &HeaderMap::new()).expect_err(path);
            assert_eq!(error.code(), Code::NotFound, "{path}");
        }
    }

    #[test]
    fn a_file_that_changed_is_sent_whole() {
        let mut headers = HeaderMap::new();
        headers.insert(header::IF_NONE_MATCH, HeaderValue::from_static("\"0\", W/\"1\""));
        let response = file("index.html", &headers).expect("it is there");
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "text/html; charset=utf-8");
    }
}
