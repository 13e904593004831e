//! What a token says.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::identity::{Error, LEEWAY_S, Pattern};
use crate::message::{NAME_RULE, Topic, valid_name};

/// The longest id of a worker, in characters; the SQL functions check the same.
pub const MAX_WORKER_ID: usize = 255;
/// The rule that workers' ids follow, in words.
pub const WORKER_RULE: &str = "1 to 255 characters, none of them a control character";

/// The most topics that a claim may list; the SQL functions take no more.
const MAX_PATTERNS: usize = 1000;

/// Whether `id` can name a worker.
#[must_use]
pub fn valid_worker(id: &str) -> bool {
    (1..=MAX_WORKER_ID).contains(&id.chars().count()) && !id.chars().any(char::is_control)
}

/// The Postgres role that a token acts as; Supabase's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// May connect, and nothing else.
    Anon,
    /// May do what its tenant and topics say.
    Authenticated,
    /// May do everything.
    ServiceRole,
}

impl Role {
    /// The word that tokens and SQL use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Anon => "anon",
            Self::Authenticated => "authenticated",
            Self::ServiceRole => "service_role",
        }
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Role {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        const RULE: &str = "`anon`, `authenticated` or `service_role`";
        [Self::Anon, Self::Authenticated, Self::ServiceRole]
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or(Error::BadClaim { name: "role", rule: RULE })
    }
}

/// The claims of a token. Those that are not ours are kept as they are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Map<String, Value>", into = "Map<String, Value>")]
pub struct Claims {
    /// As whom it acts.
    pub role: Role,
    /// When it stops being good, in seconds since 1970.
    pub exp: i64,
    /// When it was made.
    pub iat: Option<i64>,
    /// When it begins to be good.
    pub nbf: Option<i64>,
    /// Who made it.
    pub iss: Option<String>,
    /// Whom it was made for.
    pub sub: Option<String>,
    /// Whose work it is about. An `authenticated` token without one may do nothing.
    pub tenant: Option<String>,
    /// The worker that it is for, which may also call itself by names that go on after a dot. Without one it
    /// may not work, only send and read.
    pub worker: Option<String>,
    /// What it may claim, extend, settle and read.
    pub topics: Vec<Pattern>,
    /// What it may enqueue and read.
    pub send: Vec<Pattern>,
    /// Whether it may operate on messages of its tenant, `topics` and `send`, such as to requeue dead letters.
    pub operate: bool,
    /// All other claims.
    pub rest: Map<String, Value>,
}

impl Claims {
    /// Claims with a role and an end, and nothing else.
    #[must_use]
    pub fn new(role: Role, exp: i64) -> Self {
        Self {
            role,
            exp,
            iat: None,
            nbf: None,
            iss: None,
            sub: None,
            tenant: None,
            worker: None,
            topics: Vec::new(),
            send: Vec::new(),
            operate: false,
            rest: Map::new(),
        }
    }

    /// Whether the token is good at `now`, give or take [`LEEWAY_S`].
    ///
    /// # Errors
    /// When it has expired, or is not good yet.
    pub fn check_time(&self, now: DateTime<Utc>) -> Result<(), Error> {
        let now = now.timestamp();
        // RFC 7519, section 4.1.4: on or after its `exp` a token must not be accepted.
        if now.saturating_sub(LEEWAY_S) >= self.exp {
            return Err(Error::Expired { seconds: now.saturating_sub(self.exp) });
        }
        if self.nbf.is_some_and(|nbf| now.saturating_add(LEEWAY_S) < nbf) {
            return Err(Error::BadClaim {
                name: "nbf",
                rule: "in the past: the token is not good yet",
            });
        }
        Ok(())
    }

    /// Whether it may claim and settle messages of a topic in a tenant.
    #[must_use]
    pub fn may_claim(&self, tenant: &str, topic: &Topic) -> bool {
        self.may(tenant, |own| any(&own.topics, topic))
    }

    /// Whether it may enqueue messages to a topic in a tenant.
    #[must_use]
    pub fn may_send(&self, tenant: &str, topic: &Topic) -> bool {
        self.may(tenant, |own| any(&own.send, topic))
    }

    /// Whether it may read messages and events of a topic in a tenant.
    #[must_use]
    pub fn may_read(&self, tenant: &str, topic: &Topic) -> bool {
        self.may(tenant, |own| any(&own.topics, topic) || any(&own.send, topic))
    }

    /// Whether it may work under this name.
    #[must_use]
    pub fn may_be(&self, worker: &str) -> bool {
        let fits = |own: &str| match worker.strip_prefix(own) {
            Some(more) => more.is_empty() || more.starts_with('.'),
            None => false,
        };
        match self.role {
            Role::Anon => false,
            Role::Authenticated => self.worker.as_deref().is_some_and(fits),
            Role::ServiceRole => true,
        }
    }

    fn may(&self, tenant: &str, within: impl Fn(&Self) -> bool) -> bool {
        match self.role {
            Role::Anon => false,
            Role::Authenticated => self.tenant.as_deref() == Some(tenant) && within(self),
            Role::ServiceRole => true,
        }
    }
}

fn any(patterns: &[Pattern], topic: &Topic) -> bool {
    patterns.iter().any(|pattern| pattern.matches(topic))
}

impl TryFrom<Map<String, Value>> for Claims {
    type Error = Error;

    fn try_from(mut map: Map<String, Value>) -> Result<Self, Error> {
        let role = match text(&mut map, "role")? {
            Some(role) => role.parse()?,
            None => return Err(Error::MissingClaim("role")),
        };
        let exp = date(&mut map, "exp")?.ok_or(Error::MissingClaim("exp"))?;
        let claims = Self {
            role,
            exp,
            iat: date(&mut map, "iat")?,
            nbf: date(&mut map, "nbf")?,
            iss: text(&mut map, "iss")?,
            sub: text(&mut map, "sub")?,
            tenant: text(&mut map, "tenant")?,
            worker: text(&mut map, "worker")?,
            topics: patterns(&mut map, "topics")?,
            send: patterns(&mut map, "send")?,
            operate: flag(&mut map, "operate")?,
            rest: map,
        };
        if claims.tenant.as_deref().is_some_and(|tenant| !valid_name(tenant)) {
            return Err(Error::BadClaim { name: "tenant", rule: NAME_RULE });
        }
        if claims.worker.as_deref().is_some_and(|worker| !valid_worker(worker)) {
            return Err(Error::BadClaim { name: "worker", rule: WORKER_RULE });
        }
        Ok(claims)
    }
}

impl From<Claims> for Map<String, Value> {
    fn from(claims: Claims) -> Self {
        let mut map = Self::new();
        let mut put = |name: &str, value: Value| {
            if !value.is_null() {
                map.insert(name.to_owned(), value);
            }
        };
        let patterns = |patterns: &[Pattern]| match patterns {
            [] => Value::Null,
            some => some.iter().map(ToString::to_string).collect(),
        };
        put("role", claims.role.as_str().into());
        put("exp", claims.exp.into());
        put("iat", claims.iat.into());
        put("nbf", claims.nbf.into());
        put("iss", claims.iss.into());
        put("sub", claims.sub.into());
        put("tenant", claims.tenant.into());
        put("worker", claims.worker.into());
        put("topics", patterns(&claims.topics));
        put("send", patterns(&claims.send));
        put("operate", if claims.operate { true.into() } else { Value::Null });
        map.extend(claims.rest);
        map
    }
}

/// A claim that is there; `null` counts as absent, as it does for SQL's `->>`.
fn take(map: &mut Map<String, Value>, name: &str) -> Option<Value> {
    map.shift_remove(name).filter(|value| !value.is_null())
}

fn text(map: &mut Map<String, Value>, name: &'static str) -> Result<Option<String>, Error> {
    match take(map, name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Error::BadClaim { name, rule: "a string" }),
    }
}

fn flag(map: &mut Map<String, Value>, name: &'static str) -> Result<bool, Error> {
    match take(map, name) {
        None => Ok(false),
        Some(Value::Bool(is_so)) => Ok(is_so),
        Some(_) => Err(Error::BadClaim { name, rule: "true or false" }),
    }
}

/// A NumericDate (RFC 7519, section 2), which may have a fraction.
fn date(map: &mut Map<String, Value>, name: &'static str) -> Result<Option<i64>, Error> {
    let Some(value) = take(map, name) else { return Ok(None) };
    #[allow(clippy::cast_possible_truncation)] // what does not fit becomes the end of time
    let seconds = value.as_i64().or_else(|| value.as_f64().map(|seconds| seconds.floor() as i64));
    seconds.map(Some).ok_or(Error::BadClaim { name, rule: "a number of seconds since 1970" })
}

fn patterns(map: &mut Map<String, Value>, name: &'static str) -> Result<Vec<Pattern>, Error> {
    const RULE: &str = "an array of at most 1000 of `role/service`, `role/*` or `*`";
    let bad = Error::BadClaim { name, rule: RULE };
    match take(map, name) {
        None => Ok(Vec::new()),
        Some(Value::Array(values)) if values.len() <= MAX_PATTERNS => values
            .iter()
            .map(|value| value.as_str().and_then(|text| text.parse().ok()).ok_or(bad))
            .collect(),
        Some(_) => Err(bad),
    }
}
