//! What can go wrong between a client and the bus.

use std::time::Duration;

use crate::error::Code;
use crate::message::{InvalidName, MessageId};

/// When to try again where a refusal does not say: what waits is counted anew each second.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Why a call to the bus failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A name does not fit its rule; nothing was sent.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// A field is over its limit or holds what cannot be stored; nothing was sent.
    #[error("{field}: {rule}")]
    Field {
        /// The field.
        field: &'static str,
        /// What it must be.
        rule: &'static str,
        /// The code that fits.
        code: Code,
    },
    /// The bus refused the call; its message names the field. Nothing was changed.
    #[error("{message}")]
    Refused {
        /// What kind of refusal.
        code: Code,
        /// What the bus said.
        message: String,
    },
    /// More would wait than a limit allows. Nothing was written.
    #[error("{message}")]
    Full {
        /// Which limit, and how much waits.
        message: String,
        /// When it may be tried again.
        retry_after: Duration,
    },
    /// The data holds what Postgres cannot store, such as a number out of its range. Nothing was changed.
    #[error("{call}: the data holds what the database cannot store")]
    Data {
        /// Which call.
        call: &'static str,
        /// What Postgres said; for logs, not for callers from outside.
        #[source]
        source: sqlx::Error,
    },
    /// The claim is not the one in force: its lease ran out, or the message was cancelled.
    #[error("message {id}: claim {claim_no} is no longer in force")]
    StaleClaim {
        /// The message.
        id: MessageId,
        /// The claim that was refused.
        claim_no: i64,
    },
    /// There is no such message.
    #[error("message {0}: not found")]
    NoMessage(MessageId),
    /// The database could not be reached, or gave up on the call; whether it was carried out is unknown.
    #[error("{call}: the database did not answer")]
    Database {
        /// Which call.
        call: &'static str,
        /// Why.
        #[source]
        source: sqlx::Error,
    },
    /// The hub could not be reached over HTTPS, or gave up on the call; whether it was carried out is unknown.
    #[error("{call}: {message}")]
    Unavailable {
        /// Which call.
        call: &'static str,
        /// Why.
        message: String,
        /// When the hub says that it may be tried again.
        retry_after: Option<Duration>,
    },
    /// The hub does not take the key: it is wrong, or has expired. Nothing was changed.
    #[error("the hub does not take this key: {message}. {}", UNAUTHORIZED)]
    Unauthorized {
        /// What the hub said.
        message: String,
    },
    /// The database denies the login, or the key, something that it needs (SQLSTATE 42501). Nothing was changed. Over a
    /// connection to the database this is [`Error::Database`], but for a worker that ends with it.
    #[error("{call}: {message}. {}", DENIED)]
    Denied {
        /// Which call.
        call: &'static str,
        /// What the database said; it names what was denied.
        message: String,
    },
    /// The URL leads to no bus, or to one that lacks the function. Nothing was changed, unless a bus did it and
    /// somebody else answered in its place.
    #[error("{call}: {message}. {}", NOT_THERE)]
    NotThere {
        /// Which call.
        call: &'static str,
        /// What came instead.
        message: String,
    },
    /// What only a connection to the database can do.
    #[error("{what}: a bus over HTTPS cannot do this; use the database's postgres:// URL")]
    NeedsDatabase {
        /// What was asked for.
        what: &'static str,
    },
    /// The bus client is shutting down.
    #[error("the bus client is closed")]
    Closed,
}

/// What to do about [`Error::Unauthorized`].
const UNAUTHORIZED: &str =
    "See what it says with `cogo token inspect`, and get a new one from `cogo token mint`";
/// What to do about [`Error::Denied`].
const DENIED: &str = "Where it should be allowed, have the database's owner run `cogo migrate`, which gives rights anew, and \
                      `grant cogo_bus to` the login of a worker that has one";
/// What to do about [`Error::NotThere`].
const NOT_THERE: &str = "Check the URL (https://host, without a path); where it is right, the schema is older than \
                         this program: run `cogo migrate`";

impl Error {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Name(_) | Self::Data { .. } | Self::NeedsDatabase { .. } => Code::InvalidArgument,
            Self::Field { code, .. } | Self::Refused { code, .. } => *code,
            Self::Denied { .. } => Code::Forbidden,
            Self::StaleClaim { .. } => Code::Conflict,
            Self::NoMessage(_) | Self::NotThere { .. } => Code::NotFound,
            Self::Full { .. } => Code::RateLimited,
            Self::Database { source, .. } if is_transient(source) => Code::Unavailable,
            Self::Database { .. } => Code::Internal,
            Self::Closed | Self::Unavailable { .. } => Code::Unavailable,
            Self::Unauthorized { .. } => Code::Unauthorized,
        }
    }

    /// Whether the same call may succeed a moment later, whatever was in it. A limit that is reached
    /// ([`Error::Full`]) is none of these: it holds for some messages and not for others, and waiting for it
    /// is the sender's business. Every call of the bus is safe to repeat: ids are chosen
    /// by the sender, and settles are fenced.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Database { source, .. } => is_transient(source),
            Self::Unavailable { .. } => true,
            _ => false,
        }
    }

    /// Whether the call was undone because of another transaction (class 40): it changed nothing, for certain.
    pub(crate) fn lost_to_another(&self) -> bool {
        let Self::Database { source: sqlx::Error::Database(error), .. } = self else {
            return false;
        };
        error.code().is_some_and(|state| state.starts_with("40") && state != "40003")
    }

    /// Whether the same call may succeed later, without anybody's doing or after somebody's: beside what is
    /// transient, a key that is not taken may be replaced while the process runs, and where a bus was there may be
    /// one again: while a hub is replaced, what stands before it may answer whatever it likes.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        self.is_transient() || matches!(self, Self::Unauthorized { .. } | Self::NotThere { .. })
    }

    /// Whether the bus says of what was sent that it cannot be taken, however often it is sent. Only then may a dead letter stand
    /// for a result. A pooler's failure, a right that is missing or a statement of an older schema say nothing of it.
    pub(crate) fn blames_content(&self) -> bool {
        match self {
            Self::Name(_) | Self::Field { .. } | Self::Data { .. } => true,
            Self::Refused { code, .. } => {
                matches!(code, Code::InvalidArgument | Code::PayloadTooLarge)
            }
            Self::Database { source, .. } => sqlstate(source).is_some_and(|state| blames(&state)),
            _ => false,
        }
    }

    /// Whether it says that what was asked is wrong, or that there is nobody left to ask. Whatever else may pass: a pooler's own
    /// failures, rights that are being restored, rows that are not yet, or not any more, of the schema that we know.
    pub(crate) fn is_final(&self) -> bool {
        match self {
            Self::Refused { code, .. } => *code != Code::Internal,
            Self::Name(_) | Self::Field { .. } | Self::Closed => true,
            Self::Database { source, .. } => matches!(source, sqlx::Error::PoolClosed),
            _ => false,
        }
    }

    /// Whether a right is missing.
    pub(crate) fn is_denied(&self) -> bool {
        match self {
            Self::Denied { .. } => true,
            Self::Database { source, .. } => sqlstate(source).is_some_and(|state| state == DENIAL),
            _ => false,
        }
    }

    /// The same, told as what to do about it where a right is missing.
    pub(crate) fn with_remedy(self) -> Self {
        match self {
            Self::Database { call, source: sqlx::Error::Database(error) }
                if error.code().is_some_and(|state| state == DENIAL) =>
            {
                Self::Denied { call, message: error.message().to_owned() }
            }
            other => other,
        }
    }

    /// The same failure for another caller of the same round trip, if nobody's data is to blame for it.
    pub(crate) fn shared(&self) -> Option<Self> {
        match self {
            Self::Unavailable { call, message, retry_after } => Some(Self::Unavailable {
                call,
                message: message.clone(),
                retry_after: *retry_after,
            }),
            Self::Unauthorized { message } => Some(Self::Unauthorized { message: message.clone() }),
            Self::NotThere { call, message } => {
                Some(Self::NotThere { call, message: message.clone() })
            }
            Self::Denied { call, message } => Some(Self::Denied { call, message: message.clone() }),
            Self::Database { call, source } if is_transient(source) => {
                // `sqlx::Error` cannot be cloned; its words suffice, and this stays transient.
                let source =
                    sqlx::Error::Io(std::io::Error::other(crate::error::chain(source).to_string()));
                Some(Self::Database { call, source })
            }
            _ => None,
        }
    }

    pub(crate) fn from_sqlx(call: &'static str, source: sqlx::Error) -> Self {
        if let sqlx::Error::Database(error) = &source {
            let state = error.code();
            let state = state.as_deref().unwrap_or_default();
            if let Some(code) = Code::from_sqlstate(state) {
                if code == Code::RateLimited {
                    let retry_after = retry_after(error.as_ref());
                    return Self::Full { message: error.message().to_owned(), retry_after };
                }
                return Self::Refused { code, message: error.message().to_owned() };
            }
            // Class 22: data that Postgres cannot take, such as a number out of range. Class 54: data that is
            // over a limit of Postgres' own, such as a document of 256 MB.
            if state.starts_with("22") || state.starts_with("54") {
                return Self::Data { call, source };
            }
        }
        Self::Database { call, source }
    }
}

/// The time that a refusal for a limit names in its detail.
fn retry_after(error: &dyn sqlx::error::DatabaseError) -> Duration {
    error
        .try_downcast_ref::<sqlx::postgres::PgDatabaseError>()
        .and_then(|error| retry_after_of(error.detail()?))
        .unwrap_or(RETRY_AFTER)
}

/// The time in a detail of the form `retry_after_ms=<n>`.
pub(crate) fn retry_after_of(detail: &str) -> Option<Duration> {
    detail.strip_prefix("retry_after_ms=")?.parse().ok().map(Duration::from_millis)
}

/// A right is missing (insufficient_privilege).
pub(crate) const DENIAL: &str = "42501";

/// The database's own code of a failure.
fn sqlstate(error: &sqlx::Error) -> Option<std::borrow::Cow<'_, str>> {
    error.as_database_error()?.code()
}

/// Whether a failure with this SQLSTATE is about the data that was sent: what Postgres cannot take (class 22), what breaks a
/// constraint (23) or is over a limit of Postgres' own (54), and what somebody's trigger raises about a row (P0001).
pub(crate) fn blames(state: &str) -> bool {
    ["22", "23", "54"].iter().any(|class| state.starts_with(class)) || state == "P0001"
}

/// Whether a failure with this SQLSTATE passes by itself; see [`is_transient`].
pub(crate) fn passes(state: &str) -> bool {
    ["08", "40", "53", "57", "58"].iter().any(|class| state.starts_with(class))
        || matches!(state, "25006" | "55P03")
}

/// Whether a failure of the database passes by itself: lost connections (class 08), transactions that lost
/// to others (class 40, 55P03), a server that lacks memory, disk or connections (class 53), an operator or a
/// limit that cancels calls, stops or starts the server (class 57), a standby that is not yet the primary
/// (25006), and what goes wrong outside of Postgres (class 58).
pub(crate) fn is_transient(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::Protocol(_) => true,
        sqlx::Error::Database(error) => error.code().is_some_and(|state| passes(&state)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_speaks_of_the_data_blames_it() {
        for state in ["22003", "22P02", "23502", "23514", "54000", "P0001"] {
            assert!(blames(state) && !passes(state), "{state}");
        }
        for state in [
            "XX000", "XX001", "08006", "40001", "53100", "57014", "58030", "25006", "42501",
            "42703", "0A000", "26000", "28P01", "P0002",
        ] {
            assert!(!blames(state), "{state}");
        }
        let refused = |code| Error::Refused { code, message: String::new() };
        for (code, blames, is_final) in [
            (Code::InvalidArgument, true, true),
            (Code::PayloadTooLarge, true, true),
            (Code::Forbidden, false, true),
            (Code::Internal, false, false),
        ] {
            let error = refused(code);
            assert_eq!((error.blames_content(), error.is_final()), (blames, is_final), "{code}");
        }
        let denied = Error::Denied { call: "bus_step", message: "no".to_owned() };
        assert!(denied.is_denied() && !denied.blames_content() && !denied.is_final());
        assert!(!denied.is_transient() && denied.shared().is_some_and(|error| error.is_denied()));
    }
}
