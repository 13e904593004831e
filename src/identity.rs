//! Who calls: JSON Web Tokens (RFC 7519) signed with HS256, as Supabase's are.
//!
//! A token carries the role that Postgres acts as, and for `authenticated` the tenant and the topics that
//! it is for. SQL decides what that allows, from the token's own JSON in `request.jwt.claims`; what this
//! module says of it ([`Claims::may_claim`] and its like) only makes refusals earlier and clearer.
//!
//! Time: `exp` and `nbf` are compared with the verifier's clock, [`LEEWAY_S`] in the token's favour.
//! PostgREST allows the same, Realtime nothing; clocks of the machines that mint and verify are never quite
//! the same, and a token that lives half a minute longer than it says harms nobody. A client that wants to
//! be heard everywhere takes a new token before `exp`. `iat` must be a number, and is believed about nothing.
//! `aud` is not looked at: Supabase's tokens carry `authenticated` there, and PostgREST ignores it, too.

mod claims;
mod encoded;
#[cfg(feature = "hub")]
mod keys;
mod pattern;
#[cfg(all(test, feature = "hub"))]
mod tests;

pub use claims::{Claims, MAX_WORKER_ID, Role, WORKER_RULE, valid_worker};
#[cfg(feature = "hub")]
pub use keys::{InvalidSecret, Keys, MIN_SECRET_BYTES, Verified, generate_secret};
pub use pattern::{PATTERN_RULE, Pattern};

/// How long after its `exp`, and before its `nbf`, a token is taken all the same, in seconds.
pub const LEEWAY_S: i64 = 30;
/// The longest token that is looked at. Ours have a few hundred bytes, Supabase's a few thousand; servers
/// and proxies take 8 to 64 KiB of headers.
pub const MAX_TOKEN_BYTES: usize = 16 << 10;

/// Why a token is not taken. Never says anything of the token itself but which claim it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is none.
    #[error("no token was given; `cogo token mint` makes one")]
    Missing,
    /// It is not `header.payload.signature`.
    #[error("this is no JSON Web Token: {why}")]
    Malformed {
        /// What is wrong with it.
        why: &'static str,
    },
    /// None of the secrets signed it.
    #[error("the token's signature does not match: it was made with another secret, or changed")]
    BadSignature,
    /// It was good until some time ago.
    #[error("the token expired {seconds} s ago; `cogo token mint` makes a new one")]
    Expired {
        /// How long ago.
        seconds: i64,
    },
    /// It is signed in a way that is not accepted, or not at all.
    #[error("the token says that it is signed with {found}, and only HS256 is accepted")]
    WrongAlgorithm {
        /// The algorithm, if it is a known one.
        found: &'static str,
    },
    /// A claim that it must carry is not there.
    #[error("the token has no claim {0:?}")]
    MissingClaim(&'static str),
    /// A claim is not what it must be.
    #[error("the token's claim {name:?} must be {rule}")]
    BadClaim {
        /// Which.
        name: &'static str,
        /// What it must be.
        rule: &'static str,
    },
    /// It is one of Supabase's newer API keys.
    #[error(
        "`sb_…` keys are no tokens and carry no role: use a JSON Web Token from `cogo token mint`, or \
         the legacy `anon` or `service_role` key of the Supabase project"
    )]
    OpaqueKey,
}

/// What a token says of itself, whoever signed it: for whoever holds a token and wants to know when it
/// expires. Nobody may be let in by it.
///
/// # Errors
/// When it is no token, or one whose claims are not what they must be. An expired one is none.
pub fn peek(token: &str) -> Result<Claims, Error> {
    encoded::Encoded::read(token)?.claims()
}
