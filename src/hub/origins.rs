//! Which pages on the web may call `/rest/v1`, `/realtime/v1` and `/mcp`.
//!
//! A browser says of which page it calls, in the header `Origin`; nobody else sends one. A page of a stranger
//! is refused even where it has a key: its user may not know that it calls. A page that the hub's own address
//! serves may always.
//!
//! `/api` and all the rest is for pages of `api_origins` alone. There no request is refused for its origin, since
//! none of a page's own accord has the admin token; a browser just keeps the answer from the page, and asks before it
//! sends a header or method of its own.

use axum::extract::Request;
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, HOST, ORIGIN, VARY,
};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::error::Code;
use crate::hub::auth::one;
use crate::hub::error::ApiError;
use crate::hub::rest::Error;

/// What clients may read of an answer besides its body.
const EXPOSED: &str = "Content-Encoding, Content-Location, Content-Range, Content-Type, Date, \
    Location, Preference-Applied, Range-Unit, Retry-After, Server, Transfer-Encoding, WWW-Authenticate";
/// What Supabase's clients send, where a preflight does not say.
const HEADERS: &str = "authorization, apikey, x-client-info, content-type, accept, accept-profile, \
    content-profile, prefer, range, range-unit, x-api-key, x-retry-count, x-supabase-api-version";
/// What is answered on these paths.
const METHODS: &str = "GET, HEAD, POST, OPTIONS";
/// The same for the role's own routes that take keys, of which MCP's clients read these headers.
const OPEN_EXPOSED: &str = "Mcp-Session-Id, Mcp-Protocol-Version, Content-Type, Location, Retry-After, \
    WWW-Authenticate, Idempotency-Key, X-Trace-Id, Traceparent";
/// And send these.
const OPEN_HEADERS: &str = "authorization, content-type, accept, last-event-id, mcp-session-id, \
    mcp-protocol-version, mcp-method, mcp-name, x-admin-token, x-cogo-tenant, idempotency-key, \
    x-trace-id, traceparent, tracestate";
const OPEN_METHODS: &str = "GET, HEAD, POST, DELETE, OPTIONS";

/// The pages that may.
#[derive(Debug, Clone)]
pub(crate) struct Origins {
    all: bool,
    named: Vec<String>,
}

impl Origins {
    pub(crate) fn new(allowed: &[String]) -> Self {
        Self {
            all: allowed.iter().any(|origin| origin == "*"),
            named: allowed.iter().map(|origin| canonical(origin)).collect(),
        }
    }

    /// Lets a request pass, and gives the origin that its answer must name, if it has one.
    ///
    /// # Errors
    /// 403 to a page that may not.
    pub(crate) fn check(&self, headers: &HeaderMap) -> Result<Option<HeaderValue>, Error> {
        let mut values = headers.get_all(ORIGIN).into_iter();
        let origin = match (values.next(), values.next()) {
            (None, _) => return Ok(None),
            (Some(origin), None) => origin,
            _ => return Err(Error::new(400, "CG400", "Origin: must stand in the request once")),
        };
        let text = origin.to_str().unwrap_or_default();
        if self.all || self.named.contains(&canonical(text)) || is_own(text, headers) {
            return Ok(Some(origin.clone()));
        }
        let message = format!("Origin: pages of {text:?} may not call this hub");
        let hint = "Add the origin to `allowed_origins` of hub.json.";
        Err(Error::new(403, "CG403", message).with_hint(hint))
    }
}

/// Whether the page came from where the request goes to. The scheme is not looked at: the hub does not know
/// whether a proxy in front of it speaks TLS.
fn is_own(origin: &str, headers: &HeaderMap) -> bool {
    let Some((scheme, page)) = origin.split_once("://") else { return false };
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let default = match scheme {
        "http" => 80,
        "https" => 443,
        _ => return false,
    };
    let place = |text: &str| {
        let authority: Authority = text.parse().ok()?;
        Some((authority.host().to_ascii_lowercase(), authority.port_u16().unwrap_or(default)))
    };
    place(page).is_some_and(|page| Some(page) == place(host))
}

fn canonical(origin: &str) -> String {
    origin.to_ascii_lowercase()
}

/// What is told to pages of the routes below one root.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Told {
    exposed: &'static str,
    headers: &'static str,
    methods: &'static str,
    refuse: fn(Error) -> Response,
}

impl Told {
    /// Lets the page of `origin`, which may call, read the answer; also one that was refused before its route was asked.
    pub(crate) fn tell(self, origin: Option<HeaderValue>, response: &mut Response) {
        let headers = response.headers_mut();
        if let Some(origin) = origin {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(self.exposed));
        }
        headers.append(VARY, HeaderValue::from_static("Origin"));
    }
}

/// Of `/rest/v1` and `/realtime/v1`, which answer as PostgREST does.
pub(crate) const REMOTE: Told = Told {
    exposed: EXPOSED,
    headers: HEADERS,
    methods: METHODS,
    refuse: |error| error.into_response(),
};
/// Of the role's routes that take keys, which answer as the hub does.
pub(crate) const OPEN: Told = Told {
    exposed: OPEN_EXPOSED,
    headers: OPEN_HEADERS,
    methods: OPEN_METHODS,
    refuse: |error| {
        let code = match error.status() {
            StatusCode::FORBIDDEN => Code::Forbidden,
            _ => Code::InvalidArgument,
        };
        ApiError::new(code, format!("{}; see `allowed_origins` of hub.json", error.message()))
            .into_response()
    },
};

/// Of everything else, to the pages of `api_origins`.
const API: Told = Told {
    exposed: "Content-Range, Content-Type, ETag, Location, Retry-After, WWW-Authenticate, Idempotency-Key, X-Trace-Id",
    headers: "authorization, content-type, x-admin-token, x-cogo-tenant, idempotency-key, last-event-id, range",
    methods: "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS",
    refuse: OPEN.refuse,
};

/// The pages that may call `/api`.
#[derive(Debug)]
pub(crate) struct ApiOrigins(Origins);

impl ApiOrigins {
    pub(crate) fn new(allowed: &[String]) -> Self {
        Self(Origins::new(allowed))
    }

    /// The origin of the request, where its answer is to name it.
    pub(crate) fn named(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let origin = one(headers, ORIGIN.as_str())?;
        let text = origin.to_str().unwrap_or_default();
        self.0.named.contains(&canonical(text)).then(|| origin.clone())
    }

    /// Answers a browser that asks whether a page may send what it is about to.
    pub(crate) fn preflight(&self, headers: &HeaderMap) -> Response {
        if self.named(headers).is_some() {
            return preflight(API, headers);
        }
        let message = "Origin: pages from there may not call this; see `api_origins` of hub.json";
        ApiError::new(Code::Forbidden, message).into_response()
    }

    /// Lets the page read the answer.
    pub(crate) fn tell(&self, origin: Option<HeaderValue>, response: &mut Response) {
        let headers = response.headers_mut();
        if let Some(origin) = origin {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(API.exposed));
        }
        if !self.0.named.is_empty() {
            headers.append(VARY, HeaderValue::from_static("Origin"));
        }
    }
}

/// Stands before them: refuses pages that may not call, and answers preflights. That the others may read their answers
/// is told by [`Told::tell`], since some are given before it comes to this.
pub(crate) async fn admit(origins: Origins, told: Told, request: Request, next: Next) -> Response {
    if let Err(error) = origins.check(request.headers()) {
        return (told.refuse)(error);
    }
    let asks = request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    if request.method() == Method::OPTIONS && asks {
        return preflight(told, request.headers());
    }
    next.run(request).await
}

/// Whether a header says which pages may read an answer. Whatever becomes of the answer, it stays.
pub(crate) fn is_for_pages(name: &HeaderName) -> bool {
    name == VARY || name.as_str().starts_with("access-control-")
}

/// A browser asks whether a page may send what it is about to send. Its headers are named back to it: none of
/// them gives rights by itself, the key is not the browser's to add.
fn preflight(told: Told, headers: &HeaderMap) -> Response {
    let asked = headers.get(ACCESS_CONTROL_REQUEST_HEADERS).cloned();
    let mut response = StatusCode::NO_CONTENT.into_response();
    let answer = response.headers_mut();
    answer.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(told.methods));
    answer.insert(
        ACCESS_CONTROL_ALLOW_HEADERS,
        asked.unwrap_or(HeaderValue::from_static(told.headers)),
    );
    answer.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(allowed: &[&str], host: &str, origins: &[&str]) -> Result<bool, u16> {
        let allowed: Vec<String> = allowed.iter().map(|origin| (*origin).to_owned()).collect();
        let mut headers = HeaderMap::new();
        headers.insert(HOST, host.parse().expect("a header value"));
        for origin in origins {
            headers.append(ORIGIN, origin.parse().expect("a header value"));
        }
        let checked = Origins::new(&allowed).check(&headers);
        checked.map(|origin| origin.is_some()).map_err(|error| error.status().as_u16())
    }

    #[test]
    fn a_page_must_be_named_or_be_the_hubs_own() {
        let app = &["https://app.example.com"][..];
        assert_eq!(check(&[], "localhost:8787", &[]), Ok(false));
        assert_eq!(check(&[], "localhost:8787", &["http://localhost:8787"]), Ok(true));
        assert_eq!(check(&[], "bus.example.com", &["https://bus.example.com"]), Ok(true));
        assert_eq!(check(&[], "bus.example.com:443", &["https://BUS.example.com"]), Ok(true));
        assert_eq!(check(app, "localhost:8787", &["https://app.example.com"]), Ok(true));
        assert_eq!(check(&["*"], "localhost:8787", &["null"]), Ok(true));
        for stranger in [
            "http://localhost:3000",
            "https://app.example.com:8443",
            "http://app.example.com",
            "https://app.example.com.evil.example",
            "https://evil.example/https://app.example.com",
            "null",
            "",
            "file://",
            "chrome-extension://localhost:8787",
        ] {
            assert_eq!(check(app, "localhost:8787", &[stranger]), Err(403), "{stranger}");
        }
        assert_eq!(check(app, "h", &["https://app.example.com", "null"]), Err(400));
    }
}
