//! Who calls with a key, and what the database lets them do.
//!
//! The hub verifies the token and names its role and claims to the database; what a caller may do is decided
//! there, by grants, policies and functions, as it would be behind PostgREST. So each request is a
//! transaction of its own, under the caller's role, and the hub adds no rights.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Query;
use axum::http::{HeaderMap, HeaderValue, Uri, header};
use serde_json::{Map, Value};
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnection, PgPool};
use sqlx::{AssertSqlSafe, Executor as _, Postgres};

use crate::error::chain;
use crate::hub::rest::Error;
use crate::hub::shares::{Place, Shares};
use crate::identity::{self, Claims, Keys, Role, Verified};
use crate::shutdown::Tasks;

/// How much longer than the database itself the hub waits for an answer: one that is silent is left alone then.
const GRACE: Duration = Duration::from_secs(5);
/// For how long a dropped request keeps its place: a little longer than the server takes to see that it was dropped
/// (`client_connection_check_interval`).
const ABANDONED: Duration = Duration::from_secs(2);
/// Headers that the database is told of, for policies that look at them; none that holds a secret.
const TOLD_HEADERS: [&str; 4] = ["accept", "prefer", "user-agent", "x-client-info"];
/// How much is told of each.
const TOLD_MAX: usize = 200;

/// Whoever sent a request, as its verified token says.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// The database role that the request runs as.
    pub(crate) role: Role,
    /// The claims.
    pub(crate) claims: Claims,
    /// The claims as the database is told of them.
    pub(crate) claims_json: Arc<str>,
}

impl Caller {
    /// The caller of a request with these headers and this address.
    ///
    /// # Errors
    /// 401, as PostgREST says it, when there is no token or none that holds.
    pub(crate) fn of_request(keys: &Keys, headers: &HeaderMap, uri: &Uri) -> Result<Self, Error> {
        Self::of_token(keys, &token(headers, uri)?)
    }

    /// The caller that `token` stands for.
    ///
    /// # Errors
    /// As [`Caller::of_request`].
    pub(crate) fn of_token(keys: &Keys, token: &str) -> Result<Self, Error> {
        let Verified { claims, raw_json, .. } =
            keys.verify(token).map_err(|error| refused(&error))?;
        Ok(Self { role: claims.role, claims, claims_json: raw_json })
    }

    /// A transaction as this caller, in one round trip. It ends with [`Transaction::commit`] or
    /// [`Transaction::rollback`]; one that is dropped before is undone with its connection.
    ///
    /// # Errors
    /// When the database does not answer, or the hub may not act for its callers.
    pub(crate) async fn begin(
        &self,
        db: &Database,
        access: Access,
        request: &About<'_>,
    ) -> Result<Transaction, Error> {
        self.begun(db, access, request).await.map_err(|error| {
            if is_forbidden(&error) {
                Error::new(503, "PGRST000", "The hub may not act for its callers").with_hint(REMEDY)
            } else {
                self.refusal(&error)
            }
        })
    }

    /// As [`Caller::begin`], with the database's own error.
    ///
    /// # Errors
    /// As [`Caller::begin`].
    pub(crate) async fn begun(
        &self,
        db: &Database,
        access: Access,
        request: &About<'_>,
    ) -> sqlx::Result<Transaction> {
        let place = match self.role {
            Role::ServiceRole => None,
            Role::Anon | Role::Authenticated => {
                let place = db.shares.take(self.claims.tenant.as_deref().unwrap_or_default()).await;
                Some(place.ok_or(sqlx::Error::PoolTimedOut)?)
            }
        };
        let connection = db.pool.acquire().await?;
        let patience = db.statement_timeout + GRACE;
        let tasks = db.tasks.clone();
        let mut transaction = Transaction { connection, patience, is_open: true, place, tasks };
        let begin = self.begin_sql(db, access, request);
        // Not prepared: several statements, each time others.
        let begun = transaction.connection.execute(AssertSqlSafe(begin));
        match within(patience, begun).await {
            Ok(_) => Ok(transaction),
            Err(error) => {
                if error.as_database_error().is_some() {
                    transaction.rollback().await;
                }
                if is_forbidden(&error) {
                    tracing::error!(error = %chain(&error), "Remote callers cannot be served: {REMEDY}");
                }
                Err(error)
            }
        }
    }

    /// What the database said to this caller, as it is answered.
    pub(crate) fn refusal(&self, error: &sqlx::Error) -> Error {
        let told = Error::of_database(error, self.role);
        let tenant = self.claims.tenant.as_deref().unwrap_or_default();
        tracing::debug!(
            tenant, role = %self.role, code = told.code(), http.status = told.status().as_u16(),
            "Refused a caller of tenant {tenant:?}: {}", told.message()
        );
        told
    }

    /// What opens the transaction. Whatever came from outside stands in it as hexadecimal digits.
    fn begin_sql(&self, db: &Database, access: Access, request: &About<'_>) -> String {
        let timeout = db.statement_timeout.as_millis();
        let mut sql = format!(
            "{}; select \
             pg_catalog.set_config('search_path', 'public', true), \
             pg_catalog.set_config('statement_timeout', '{timeout}', true), \
             pg_catalog.set_config('idle_in_transaction_session_timeout', '{timeout}', true)",
            access.begin()
        );
        let headers = told(request.headers);
        for (setting, value) in [
            ("request.jwt.claims", &*self.claims_json),
            ("request.method", request.method),
            ("request.path", request.path),
            ("request.headers", &headers),
        ] {
            let _infallible =
                write!(sql, ", pg_catalog.set_config('{setting}', {}, true)", text(value));
        }
        // One of three words, which stand in the program.
        let _infallible = write!(sql, "; set local role {}", self.role.as_str());
        sql
    }
}

/// What a transaction may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Read.
    Read,
    /// Read and write.
    Write,
}

impl Access {
    fn begin(self) -> &'static str {
        match self {
            Self::Read => "begin read only",
            Self::Write => "begin",
        }
    }
}

/// What the database is told of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct About<'a> {
    /// Its method.
    pub(crate) method: &'a str,
    /// Its path.
    pub(crate) path: &'a str,
    /// Its headers, of which only harmless ones are told.
    pub(crate) headers: &'a HeaderMap,
}

/// The database, for callers.
#[derive(Debug, Clone)]
pub(crate) struct Database {
    /// Connections apart from the hub's own, so that callers cannot use those up.
    pub(crate) pool: PgPool,
    /// How much of them one tenant may use; one for all that use the pool.
    pub(crate) shares: Arc<Shares>,
    /// Where what a dropped request leaves is seen to its end.
    pub(crate) tasks: Tasks,
    /// How long one statement may take.
    pub(crate) statement_timeout: Duration,
}

/// A transaction of one caller.
#[derive(Debug)]
pub(crate) struct Transaction {
    connection: PoolConnection<Postgres>,
    patience: Duration,
    is_open: bool,
    place: Option<Place>,
    tasks: Tasks,
}

impl Transaction {
    /// How long to wait for an answer, with [`within`]: a little longer than the database itself does.
    pub(crate) fn patience(&self) -> Duration {
        self.patience
    }

    /// Makes it so.
    ///
    /// # Errors
    /// When the database refuses or does not answer; then whether it was done is unknown.
    pub(crate) async fn commit(mut self) -> sqlx::Result<()> {
        within(self.patience, self.connection.execute("commit")).await?;
        self.is_open = false;
        Ok(())
    }

    /// Undoes it, and keeps the connection. Errors are of no interest: what was not committed is undone.
    pub(crate) async fn rollback(mut self) {
        let undone = within(self.patience, self.connection.execute("rollback")).await;
        self.is_open = undone.is_err();
    }
}

impl Deref for Transaction {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.connection
    }
}

impl DerefMut for Transaction {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}

impl Drop for Transaction {
    /// Nobody waits for the answer any more, or it did not come: the pool would wait for it in turn.
    fn drop(&mut self) {
        if !self.is_open {
            return;
        }
        self.connection.close_on_drop();
        // The server works on until it looks whether its client is still there. Whoever sends and goes, over and
        // over, must not make it work on more than there are connections.
        if let Some(place) = self.place.take()
            && tokio::runtime::Handle::try_current().is_ok()
        {
            self.tasks.spawn(async move {
                tokio::time::sleep(ABANDONED).await;
                drop(place);
            });
        }
    }
}

/// Waits for an answer, but not for ever.
///
/// # Errors
/// The answer's own; [`io::ErrorKind::TimedOut`].
pub(crate) async fn within<T>(
    limit: Duration,
    answer: impl Future<Output = sqlx::Result<T>>,
) -> sqlx::Result<T> {
    let answer = tokio::time::timeout(limit, answer).await;
    answer.unwrap_or_else(|_| Err(sqlx::Error::Io(io::ErrorKind::TimedOut.into())))
}

/// Whether a transaction could not begin because the hub's login may not take on its caller's role.
fn is_forbidden(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .and_then(|refusal| refusal.code())
        .is_some_and(|code| matches!(&*code, "42501" | "22023"))
}

/// What a hub says that may not act for its callers.
const REMEDY: &str = "Run `cogo migrate`, and `grant cogo_hub to` the login of the hub.";

/// Looks, at the start, whether the hub may act for its callers; if not, says what to do.
pub async fn check(pool: &PgPool) {
    let sql = "select session_user::text, \
        (select count(*) = 3 and bool_and(pg_has_role(session_user, oid, 'member')) \
         from pg_roles where rolname in ('anon', 'authenticated', 'service_role'))";
    match within(GRACE, sqlx::query_as::<_, (String, bool)>(sql).fetch_one(pool)).await {
        Ok((_, true)) => {}
        Ok((login, false)) => tracing::warn!(
            "Remote workers and clients cannot be served: {login:?} may not act for them. \
             Run `cogo migrate`, and `grant cogo_hub to {login:?}`"
        ),
        Err(error) => {
            tracing::debug!(error = %chain(&error), "Could not see whether callers can be served");
        }
    }
}

/// The token of a request: the bearer's, unless that is a key that says nothing or is not there.
pub(crate) fn token(headers: &HeaderMap, uri: &Uri) -> Result<String, Error> {
    let bearer = one(headers, header::AUTHORIZATION.as_str())?.and_then(|value| {
        let (scheme, token) = value.split_at_checked(7)?;
        scheme.eq_ignore_ascii_case("bearer ").then(|| token.trim())
    });
    if let Some(token) = bearer.filter(|token| !token.is_empty() && !is_opaque(token)) {
        return Ok(token.to_owned());
    }
    let key = match one(headers, "apikey")?.or(one(headers, "x-api-key")?) {
        Some(key) => Some(Cow::Borrowed(key)),
        None => apikey_of(uri)?.map(Cow::Owned),
    };
    match key
        .filter(|key| !key.is_empty())
        .or(bearer.filter(|key| !key.is_empty()).map(Cow::Borrowed))
    {
        Some(key) => Ok(key.into_owned()),
        None => Err(anonymous()),
    }
}

/// A key of hosted Supabase that is no JWT, and names no claims.
fn is_opaque(token: &str) -> bool {
    token.starts_with("sb_")
}

/// The header's value; two could be read differently by a proxy in between.
fn one<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Error> {
    let mut values = headers.get_all(name).into_iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => match value.to_str() {
            Ok(value) => Ok(Some(value.trim())),
            Err(_) => Err(unauthorized("PGRST301", format!("{name}: must be visible ASCII"))),
        },
        _ => Err(unauthorized("PGRST301", format!("{name}: must stand in the request once"))),
    }
}

fn apikey_of(uri: &Uri) -> Result<Option<String>, Error> {
    let Ok(Query(pairs)) = Query::<Vec<(String, String)>>::try_from_uri(uri) else {
        return Ok(None);
    };
    let mut keys = pairs.into_iter().filter(|(name, _)| name == "apikey").map(|(_, key)| key);
    match (keys.next(), keys.next()) {
        (key, None) => Ok(key),
        _ => Err(unauthorized("PGRST301", "apikey: must stand in the address once")),
    }
}

/// What a token is refused with.
pub(crate) fn refused(error: &identity::Error) -> Error {
    use identity::Error::{BadClaim, Expired, MissingClaim};
    match error {
        identity::Error::Missing => anonymous(),
        Expired { .. } | MissingClaim(_) | BadClaim { .. } => {
            unauthorized("PGRST303", error.to_string())
        }
        _ => unauthorized("PGRST301", error.to_string()),
    }
}

/// The answer to a request without a key.
fn anonymous() -> Error {
    let hint = "Send a key in the header `apikey` or as `Authorization: Bearer`; `cogo token mint` makes one.";
    Error::new(401, "PGRST302", "Anonymous access is disabled: there is no key")
        .with_hint(hint)
        .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
}

fn unauthorized(code: &'static str, message: impl Into<String>) -> Error {
    let message = message.into();
    // What stands between quotes must not end them.
    let plain = |c: char| {
        if c.is_ascii() && !c.is_ascii_control() && !matches!(c, '"' | '\\') { c } else { '\'' }
    };
    let description: String = message.chars().take(200).map(plain).collect();
    let challenge = format!("Bearer error=\"invalid_token\", error_description=\"{description}\"");
    let challenge = HeaderValue::from_str(&challenge).unwrap_or(HeaderValue::from_static("Bearer"));
    Error::new(401, code, message).with_header(header::WWW_AUTHENTICATE, challenge)
}

/// The harmless headers, as a JSON object.
fn told(headers: &HeaderMap) -> String {
    let told: Map<String, Value> = TOLD_HEADERS
        .into_iter()
        .filter_map(|name| {
            let value = headers.get(name)?.to_str().ok()?;
            Some((name.to_owned(), Value::from(value.get(..TOLD_MAX).unwrap_or(value))))
        })
        .collect();
    Value::Object(told).to_string()
}

/// A text as SQL, whatever is in it and however the server reads string literals.
fn text(value: &str) -> String {
    let mut sql = String::with_capacity(value.len() * 2 + 64);
    sql.push_str("pg_catalog.convert_from(pg_catalog.decode('");
    for byte in value.bytes() {
        let _infallible = write!(sql, "{byte:02x}");
    }
    sql.push_str("', 'hex'), 'UTF8')");
    sql
}
