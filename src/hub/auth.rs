//! Who may write: whoever holds the admin token.

use std::fmt;

use axum::http::{HeaderMap, HeaderValue, header};
use rand::RngExt as _;
use secrecy::{ExposeSecret as _, SecretString};
use subtle::ConstantTimeEq as _;

use crate::error::Code;
use crate::hub::error::ApiError;
use crate::hub::policies::Who;
use crate::hub::principal::Principals;
use crate::identity::{Keys, Role};

/// The header that carries the token.
pub(crate) const HEADER: &str = "x-admin-token";

/// The secret that every writing call carries. Never printed; compared in constant time; wiped from memory when the
/// last of it is dropped.
#[derive(Clone)]
pub struct AdminToken(SecretString);

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
        let token = SecretString::from(token); // wiped also where it is refused
        if fits { Ok(Self(token)) } else { Err(InvalidToken) }
    }

    /// A new one: 256 random bits in hexadecimal.
    #[must_use]
    pub fn generate() -> Self {
        let bits: [u8; 32] = rand::rng().random();
        Self(bits.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into())
    }

    /// The token in clear, to be stored or sent; never to be logged.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    pub(crate) fn is(&self, given: &[u8]) -> bool {
        self.expose().as_bytes().ct_eq(given).into()
    }

    /// Whether `headers` carry the token, and it alone.
    pub(crate) fn is_in(&self, headers: &HeaderMap) -> bool {
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

/// What a request shows to be let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shown {
    /// Nothing.
    Nothing,
    /// The admin token.
    Admin,
    /// A bearer that has the form of a key; whether it is one is not known.
    Key,
    /// What is neither.
    Wrong,
}

impl Shown {
    pub(crate) fn of(token: &AdminToken, headers: &HeaderMap) -> Self {
        if token.is_in(headers) {
            return Self::Admin;
        }
        let bearer = one(headers, header::AUTHORIZATION.as_str()).and_then(bearer);
        match (headers.contains_key(HEADER), headers.contains_key(header::AUTHORIZATION)) {
            (false, false) => Self::Nothing,
            // A key is signed: there is nothing to guess. But for an admin token that looks like one.
            (false, true)
                if bearer.is_some_and(looks_like_a_key)
                    && !looks_like_a_key(token.expose().as_bytes()) =>
            {
                Self::Key
            }
            _ => Self::Wrong,
        }
    }
}

/// Whether a bearer has the three parts of a JWT.
fn looks_like_a_key(bearer: &[u8]) -> bool {
    let mut parts = bearer.split(|byte| *byte == b'.');
    parts.by_ref().take(3).filter(|part| !part.is_empty()).count() == 3 && parts.next().is_none()
}

/// What decides whether a request may pass, besides itself.
#[derive(Debug)]
pub(crate) struct Gate<'a> {
    pub(crate) keys: &'a Keys,
    pub(crate) principals: &'a Principals,
    pub(crate) open_reads: bool,
}

/// As whom a request was let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pass {
    /// As anybody, or as the holder of a key that its handler holds to its scope.
    Anybody,
    /// As the admin.
    Admin,
    /// As the holder of a key of this role.
    Role(Role),
}

impl Gate<'_> {
    /// Lets a request pass that shows `shown`, or says how it could.
    pub(crate) fn check(
        &self,
        who: Who,
        shown: Shown,
        headers: &HeaderMap,
    ) -> Result<Pass, ApiError> {
        match who {
            _ if shown == Shown::Admin => Ok(Pass::Admin),
            Who::Public => Ok(Pass::Anybody),
            Who::Reader if self.open_reads => Ok(Pass::Anybody),
            Who::Reader | Who::Admin => Err(unauthorized(shown)),
            Who::Token => self.principals.of(headers).map(|_| Pass::Anybody),
            Who::Role(role) => self.role(role, headers),
        }
    }

    fn role(&self, role: Role, headers: &HeaderMap) -> Result<Pass, ApiError> {
        let key = one(headers, header::AUTHORIZATION.as_str()).and_then(bearer);
        let key = key
            .and_then(|key| std::str::from_utf8(key).ok())
            .filter(|_| !headers.contains_key(HEADER));
        let verified = key.map(|key| self.keys.verify(key.trim()));
        let why = match &verified {
            Some(Ok(verified)) if verified.claims.role == role => return Ok(Pass::Role(role)),
            Some(Ok(verified)) => {
                let message = format!(
                    "this needs a key of the role {role} or the admin token, and the key's role is {}",
                    verified.claims.role
                );
                return Err(ApiError::new(Code::Forbidden, message));
            }
            Some(Err(error)) => format!("the key is not taken ({error}): "),
            None => String::new(),
        };
        let message = format!(
            "{why}this needs a key of the role {role} as `Authorization: Bearer` (`cogo token mint` makes one), or \
             the admin token in `{HEADER}`"
        );
        Err(ApiError::new(Code::Unauthorized, message)
            .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")))
    }
}

fn unauthorized(shown: Shown) -> ApiError {
    let what = match shown {
        Shown::Nothing => "this needs the admin token",
        _ => "this is not the admin token",
    };
    let message = format!(
        "{what}: send it in the header `{HEADER}` (or `Authorization: Bearer`); it is what \
         COGO_ADMIN_TOKEN held when the hub started, else in the file that the hub named then"
    );
    ApiError::new(Code::Unauthorized, message)
        .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
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
    fn what_is_shown_is_told_apart() {
        let token = AdminToken::new("0123456789abcdef").expect("a token");
        let shown = |pairs: &[(&'static str, &str)]| Shown::of(&token, &headers(pairs));
        assert_eq!(shown(&[]), Shown::Nothing);
        assert_eq!(shown(&[("x-admin-token", "0123456789abcdef")]), Shown::Admin);
        assert_eq!(shown(&[("authorization", "Bearer 0123456789abcdef")]), Shown::Admin);
        assert_eq!(shown(&[("authorization", "Bearer a.b.c")]), Shown::Key);
        for wrong in [
            &[("x-admin-token", "guess")][..],
            &[("authorization", "Bearer guess")],
            &[("authorization", "Basic a.b.c")],
            &[("authorization", "Bearer a.b")],
            &[("authorization", "Bearer a.b.c.d")],
            &[("authorization", "Bearer .b.c")],
            &[("x-admin-token", "guess"), ("authorization", "Bearer a.b.c")],
            &[("x-admin-token", "guess"), ("authorization", "Bearer 0123456789abcdef")],
        ] {
            assert_eq!(shown(wrong), Shown::Wrong, "{wrong:?}");
        }
    }

    #[test]
    fn a_token_that_looks_like_a_key_is_guessed_no_faster() {
        let token = AdminToken::new("an.admin.token-of-mine").expect("a token");
        let shown = Shown::of(&token, &headers(&[("authorization", "Bearer an.admin.token")]));
        assert_eq!(shown, Shown::Wrong);
    }
}
