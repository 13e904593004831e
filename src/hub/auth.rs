//! Who may write: whoever holds the admin token.

use std::fmt;

use axum::http::{HeaderMap, HeaderValue, Method, header};
use rand::RngExt as _;
use subtle::ConstantTimeEq as _;

use crate::error::Code;
use crate::hub::error::ApiError;

/// The header that carries the token.
pub(crate) const HEADER: &str = "x-admin-token";
/// What answers without a token wherever the hub listens: for load balancers and monitoring, and what the program
/// would tell anybody who has it.
const OPEN: [&str; 5] = ["/healthz", "/readyz", "/metrics", "/api/openapi.json", "/api/docs"];
/// The files of that documentation.
const OPEN_BELOW: &str = "/api/docs/";

/// The secret that every writing call carries. Never printed; compared in constant time.
#[derive(Clone)]
pub struct AdminToken(String);

/// A token that cannot be one; the token itself is not told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the admin token must be 16 to 512 visible ASCII characters without spaces")]
pub struct InvalidToken;

impl AdminToken {
    /// A token that was given.
    ///
    /// # Errors
    /// When it is too short to be a secret, or could not be sent in a header.
    pub fn new(token: impl Into<String>) -> Result<Self, InvalidToken> {
        let token = token.into();
        let fits =
            (16..=512).contains(&token.len()) && token.bytes().all(|byte| byte.is_ascii_graphic());
        if fits { Ok(Self(token)) } else { Err(InvalidToken) }
    }

    /// A new one: 256 random bits in hexadecimal.
    #[must_use]
    pub fn generate() -> Self {
        let bits: [u8; 32] = rand::rng().random();
        Self(bits.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// The token in clear, to be stored or sent; never to be logged.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    pub(crate) fn is(&self, given: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(given).into()
    }

    /// Whether `headers` carry the token, and it alone.
    fn is_in(&self, headers: &HeaderMap) -> bool {
        let given = match (one(headers, HEADER), one(headers, header::AUTHORIZATION.as_str())) {
            (Some(value), _) => Some(value.as_bytes()),
            (None, Some(value)) => bearer(value),
            (None, None) => None,
        };
        given.is_some_and(|given| self.is(given))
    }
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminToken(redacted)")
    }
}

/// The header's value if there is exactly one: two could be read differently by a proxy in between.
pub(crate) fn one<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).into_iter();
    values.next().filter(|_| values.next().is_none())
}

pub(crate) fn bearer(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = value.as_bytes().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
}

/// Lets a request pass, or says how it could. Deny by default: a new route needs the token for whatever
/// is not a read, and for reads as well where reads are not open.
pub(crate) fn check(
    token: &AdminToken,
    open_reads: bool,
    method: &Method,
    path: &str,
    headers: &HeaderMap,
) -> Result<(), ApiError> {
    let reads = method == Method::GET || method == Method::HEAD;
    let is_open = || OPEN.contains(&path) || path.starts_with(OPEN_BELOW);
    if reads && (open_reads || is_open()) || token.is_in(headers) {
        return Ok(());
    }
    let given = headers.contains_key(HEADER) || headers.contains_key(header::AUTHORIZATION);
    let what = if given { "this is not the admin token" } else { "this needs the admin token" };
    let message = format!(
        "{what}: send it in the header `{HEADER}` (or `Authorization: Bearer`); it is what \
         COGO_ADMIN_TOKEN held when the hub started, else in the file that the hub named then"
    );
    Err(ApiError::new(Code::Unauthorized, message)
        .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_str(value).expect("a header value"));
        }
        headers
    }

    #[test]
    fn a_token_is_never_printed_and_must_be_a_secret() {
        let token = AdminToken::generate();
        assert_eq!(format!("{token:?}"), "AdminToken(redacted)");
        assert_eq!(token.expose().len(), 64);
        assert_ne!(token.expose(), AdminToken::generate().expose());
        for bad in ["", "short", "has a space in the middle", "ünïcödé-ünïcödé-ünïcödé"]
        {
            assert_eq!(AdminToken::new(bad).err(), Some(InvalidToken), "{bad}");
        }
    }

    #[test]
    fn the_token_counts_in_one_header_once() {
        let token = AdminToken::new("0123456789abcdef").expect("a token");
        let good = |pairs: &[(&'static str, &str)]| token.is_in(&headers(pairs));
        assert!(good(&[("x-admin-token", "0123456789abcdef")]));
        assert!(good(&[("authorization", "Bearer 0123456789abcdef")]));
        assert!(good(&[("authorization", "bearer 0123456789abcdef")]));
        assert!(!good(&[]));
        assert!(!good(&[("x-admin-token", "")]));
        assert!(!good(&[("x-admin-token", "0123456789abcde")]));
        assert!(!good(&[("x-admin-token", "0123456789abcdef0")]));
        assert!(!good(&[("authorization", "Basic 0123456789abcdef")]));
        assert!(!good(&[("authorization", "Bearer")]));
        assert!(!good(&[("x-admin-token", "0123456789abcdef"), ("x-admin-token", "x")]));
        assert!(!good(&[("x-admin-token", "x"), ("authorization", "Bearer 0123456789abcdef")]));
    }

    #[test]
    fn reads_are_open_only_where_they_are_said_to_be() {
        let token = AdminToken::generate();
        let passes = |open, method: Method, path| {
            check(&token, open, &method, path, &HeaderMap::new()).is_ok()
        };
        assert!(passes(true, Method::GET, "/api/status"));
        assert!(passes(true, Method::HEAD, "/artifacts/a.json"));
        assert!(!passes(false, Method::GET, "/api/status"));
        assert!(!passes(false, Method::GET, "/artifacts/a.json"));
        assert!(!passes(false, Method::GET, "/healthz/../api/status"));
        assert!(passes(false, Method::GET, "/healthz"));
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS, Method::PATCH] {
            assert!(!passes(true, method.clone(), "/api/status"), "{method}");
            assert!(!passes(true, method.clone(), "/healthz"), "{method}");
        }
    }
}
