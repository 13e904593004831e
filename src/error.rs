//! Stable error codes, and how an error chain is printed.
//!
//! Errors that cross a process (SQLSTATE from the `bus_*` functions, `code` in the hub's JSON, the
//! CLI's exit) carry a [`Code`]. A code never changes its meaning; texts may.

use std::error::Error as StdError;
use std::fmt;

/// What went wrong, in a form that programs may match on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Code {
    /// A field is missing, unknown, of the wrong type or out of range. Nothing was changed.
    InvalidArgument,
    /// No credentials, or wrong ones.
    Unauthorized,
    /// The credentials are good, but do not reach this far.
    Forbidden,
    /// What was named does not exist.
    NotFound,
    /// The method is not one that the path answers.
    MethodNotAllowed,
    /// The state does not allow it: a stale claim, an id that is taken, a message already finished.
    Conflict,
    /// A body, payload or result is over its limit.
    PayloadTooLarge,
    /// The body is not of a type that the path takes.
    UnsupportedMediaType,
    /// Too much at once; try again later.
    RateLimited,
    /// A server that is needed does not answer now.
    Unavailable,
    /// The answer did not come in time.
    Timeout,
    /// A defect, or a failure that the caller can do nothing about.
    Internal,
}

impl Code {
    /// All codes.
    pub const ALL: [Self; 12] = [
        Self::InvalidArgument,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::Conflict,
        Self::PayloadTooLarge,
        Self::UnsupportedMediaType,
        Self::RateLimited,
        Self::Unavailable,
        Self::Timeout,
        Self::Internal,
    ];

    /// The slug that JSON answers and logs carry.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidArgument => "invalid_argument",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::Conflict => "conflict",
            Self::PayloadTooLarge => "payload_too_large",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::RateLimited => "rate_limited",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::Internal => "internal",
        }
    }

    /// The HTTP status that goes with the code (RFC 9110, section 15).
    #[must_use]
    pub fn http_status(self) -> u16 {
        match self {
            Self::InvalidArgument => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::Conflict => 409,
            Self::PayloadTooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::RateLimited => 429,
            Self::Unavailable => 503,
            Self::Timeout => 504,
            Self::Internal => 500,
        }
    }

    /// The code behind a SQLSTATE of class `CG`, which the `bus_*` functions raise.
    #[must_use]
    pub fn from_sqlstate(state: &str) -> Option<Self> {
        Some(match state {
            "CG400" => Self::InvalidArgument,
            "CG403" => Self::Forbidden,
            "CG404" => Self::NotFound,
            "CG409" => Self::Conflict,
            "CG413" => Self::PayloadTooLarge,
            "CG429" => Self::RateLimited,
            _ => return None,
        })
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Prints an error and all its sources, joined by `: `, for logs and terminals.
#[must_use]
pub fn chain<'a>(error: &'a (dyn StdError + 'static)) -> Chain<'a> {
    Chain(error)
}

/// See [`chain`].
#[derive(Debug)]
pub struct Chain<'a>(&'a (dyn StdError + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = self.0.to_string();
        f.write_str(&said)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            let text = error.to_string();
            // Some libraries print their source as well; once is enough.
            if !said.ends_with(&text) {
                write!(f, ": {text}")?;
                said = text;
            }
            source = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] std::fmt::Error);

    #[test]
    fn a_chain_names_every_source_once() {
        let printed = chain(&Outer(std::fmt::Error)).to_string();
        assert_eq!(printed, "outer: an error occurred when formatting an argument");
    }

    #[derive(Debug, thiserror::Error)]
    #[error("wrapped: {0}")]
    struct Repeats(#[source] Outer);

    #[test]
    fn a_source_that_was_printed_already_is_not_printed_again() {
        let printed = chain(&Repeats(Outer(std::fmt::Error))).to_string();
        assert_eq!(printed, "wrapped: outer: an error occurred when formatting an argument");
    }

    #[test]
    fn a_sqlstate_of_another_class_has_no_code() {
        assert_eq!(Code::from_sqlstate("CG409"), Some(Code::Conflict));
        assert_eq!(Code::from_sqlstate("40001"), None);
    }
}
