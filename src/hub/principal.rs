//! Who calls a route that takes keys as well as the admin token, and the bus as that caller.
//!
//! The admin token and `service_role` keys are operators: they use the hub's own bus, for whichever tenant they name
//! in `X-Cogo-Tenant`. Any other key is for its own tenant and topics, and each of its operations is one
//! transaction under its role and claims, so that the database decides ([`crate::hub::caller`]). Nothing here adds
//! rights; what this module says of a key's rights only makes refusals earlier and clearer.

mod operations;

use std::fmt;
use std::sync::Arc;

use axum::http::{HeaderMap, HeaderValue, header};
use chrono::{DateTime, Utc};
use sha2::{Digest as _, Sha256};

use crate::bus::{self, Bus};
use crate::clock;
use crate::error::Code;
use crate::hub::auth::{self, AdminToken};
use crate::hub::caller::{self, Caller, Database};
use crate::hub::error::ApiError;
use crate::identity::{Claims, Keys, LEEWAY_S, Role, Verified};
use crate::message::{DEFAULT_TENANT, NAME_RULE, Topic, valid_name};

/// The header in which an operator names the tenant that it acts for.
const TENANT: &str = "x-cogo-tenant";

/// Tells who calls, for the routes that take both the admin token and keys (JWTs). Cheap to clone.
#[derive(Clone)]
pub struct Principals(Arc<Inner>);

struct Inner {
    token: AdminToken,
    keys: Keys,
    bus: Bus,
    database: Database,
}

impl fmt::Debug for Principals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Principals").finish_non_exhaustive()
    }
}

impl Principals {
    pub(crate) fn new(token: AdminToken, keys: Keys, bus: Bus, database: Database) -> Self {
        Self(Arc::new(Inner { token, keys, bus, database }))
    }

    /// Who sent a request with these headers: the holder of the admin token (`X-Admin-Token`, or as the bearer), or
    /// of a key (`Authorization: Bearer`).
    ///
    /// # Errors
    /// 401 with `WWW-Authenticate: Bearer` where there is neither, or a key that is not taken, and why; 403 for a key
    /// that may do nothing here, or that names another tenant than its own; 400 for a tenant that is no name.
    pub fn of(&self, headers: &HeaderMap) -> Result<Principal, ApiError> {
        let given = Given::of(headers)?;
        let tenant = tenant(headers)?;
        match given {
            Given::AdminToken(given) if self.0.token.is(given) => Ok(self.admin(tenant)),
            Given::AdminToken(_) => Err(unauthorized("this is not the admin token", INVALID)),
            Given::Bearer(given) if self.0.token.is(given) => Ok(self.admin(tenant)),
            Given::Bearer(given) => {
                let token = std::str::from_utf8(given).unwrap_or_default();
                self.holder(token.trim(), tenant)
            }
        }
    }

    /// Who holds this token, the admin's or a key: for callers that cannot send headers.
    ///
    /// # Errors
    /// As [`Principals::of`].
    pub fn of_token(&self, token: &str) -> Result<Principal, ApiError> {
        if self.0.token.is(token.as_bytes()) {
            return Ok(self.admin(None));
        }
        self.holder(token, None)
    }

    fn admin(&self, tenant: Option<String>) -> Principal {
        self.principal(tenant.unwrap_or_else(|| DEFAULT_TENANT.to_owned()), Kind::Admin)
    }

    fn holder(&self, token: &str, tenant: Option<String>) -> Result<Principal, ApiError> {
        let Verified { claims, raw_json, .. } =
            self.0.keys.verify(token).map_err(|error| refused(&error))?;
        match claims.role {
            Role::Anon => {
                let message = "the key's role is `anon`, which may do nothing here; use a key from `cogo token mint`";
                Err(ApiError::new(Code::Forbidden, message))
            }
            Role::ServiceRole => {
                let tenant = tenant
                    .or_else(|| claims.tenant.clone())
                    .unwrap_or_else(|| DEFAULT_TENANT.to_owned());
                Ok(self.principal(tenant, Kind::Service(Box::new(claims))))
            }
            Role::Authenticated => {
                let Some(own) = claims.tenant.clone() else {
                    let message =
                        "the key names no tenant; mint one with `cogo token mint --tenant <name>`";
                    return Err(ApiError::new(Code::Forbidden, message));
                };
                if tenant.is_some_and(|tenant| tenant != own) {
                    let message =
                        format!("{TENANT}: this key is for tenant {own:?}; leave the header out");
                    return Err(ApiError::new(Code::Forbidden, message));
                }
                let caller = Caller { role: claims.role, claims, claims_json: raw_json };
                Ok(self.principal(own, Kind::Key(Box::new(caller))))
            }
        }
    }

    fn principal(&self, tenant: String, kind: Kind) -> Principal {
        Principal(Arc::new(Who { all: Arc::clone(&self.0), tenant, kind }))
    }
}

/// One caller of the hub. Cheap to clone; its operations are refused once its key has expired.
#[derive(Clone)]
pub struct Principal(Arc<Who>);

struct Who {
    all: Arc<Inner>,
    tenant: String,
    kind: Kind,
}

enum Kind {
    /// The holder of the admin token.
    Admin,
    /// The holder of a `service_role` key.
    Service(Box<Claims>),
    /// The holder of a key for one tenant.
    Key(Box<Caller>),
}

impl fmt::Debug for Principal {
    /// Says nothing of what was shown to be let in.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.0.kind {
            Kind::Admin => "admin",
            Kind::Service(_) => "service_role",
            Kind::Key(_) => "authenticated",
        };
        f.debug_struct("Principal")
            .field("kind", &kind)
            .field("tenant", &self.0.tenant)
            .finish_non_exhaustive()
    }
}

impl Principal {
    /// Whose work it is about: the key's tenant, or the one that an operator named.
    #[must_use]
    pub fn tenant(&self) -> &str {
        &self.0.tenant
    }

    /// Whether it may change what others sent: the admin, `service_role`, and within its tenant and topics a key
    /// with the claim `operate`. The database decides; this is for what is offered.
    #[must_use]
    pub fn is_operator(&self) -> bool {
        match &self.0.kind {
            Kind::Admin | Kind::Service(_) => true,
            Kind::Key(caller) => caller.claims.operate,
        }
    }

    /// Whether it may act for every tenant: the admin and `service_role`.
    #[must_use]
    pub fn is_for_all_tenants(&self) -> bool {
        self.caller().is_none()
    }

    /// The worker that its key is for.
    #[must_use]
    pub fn worker(&self) -> Option<&str> {
        self.caller()?.claims.worker.as_deref()
    }

    /// Whether it may send messages to a topic of its tenant. The database decides; this is for what is offered.
    #[must_use]
    pub fn may_send(&self, topic: &Topic) -> bool {
        self.caller().is_none_or(|caller| caller.claims.may_send(&self.0.tenant, topic))
    }

    /// Tells two principals apart, and is the same for a key and the one that is minted in its place: what it is for
    /// counts, and not until when. Not the token, and nothing that leads to one.
    #[must_use]
    pub fn id(&self) -> [u8; 32] {
        let claims = match &self.0.kind {
            Kind::Admin => None,
            Kind::Service(claims) => Some(&**claims),
            Kind::Key(caller) => Some(&caller.claims),
        };
        let who = claims.map(|claims| {
            let sorted = |patterns: &[crate::identity::Pattern]| {
                let mut sorted: Vec<String> = patterns.iter().map(ToString::to_string).collect();
                sorted.sort();
                sorted
            };
            serde_json::json!([
                claims.role,
                claims.iss,
                claims.sub,
                claims.worker,
                sorted(&claims.topics),
                sorted(&claims.send),
                claims.operate,
            ])
        });
        let text = serde_json::json!([self.0.tenant, who]).to_string();
        Sha256::digest(text).into()
    }

    /// From when on its key is not taken any more; whatever it keeps open should end then.
    #[must_use]
    pub fn expires(&self) -> Option<DateTime<Utc>> {
        let exp = match &self.0.kind {
            Kind::Admin => return None,
            Kind::Service(claims) => claims.exp,
            Kind::Key(caller) => caller.claims.exp,
        };
        // A time that is out of range is further off than anything here lasts.
        DateTime::from_timestamp(exp.saturating_add(LEEWAY_S), 0)
    }

    fn caller(&self) -> Option<&Caller> {
        match &self.0.kind {
            Kind::Admin | Kind::Service(_) => None,
            Kind::Key(caller) => Some(caller),
        }
    }

    /// Checks that the key is still good: what it opened may have been open for long.
    fn check(&self) -> Result<(), bus::Error> {
        let claims = match &self.0.kind {
            Kind::Admin => return Ok(()),
            Kind::Service(claims) => claims,
            Kind::Key(caller) => &caller.claims,
        };
        claims.check_time(clock::utc_now()).map_err(|error| bus::Error::Refused {
            code: Code::Unauthorized,
            message: error.to_string(),
        })
    }
}

/// What a request shows to be let in.
enum Given<'a> {
    AdminToken(&'a [u8]),
    Bearer(&'a [u8]),
}

impl<'a> Given<'a> {
    fn of(headers: &'a HeaderMap) -> Result<Self, ApiError> {
        for name in [auth::HEADER, header::AUTHORIZATION.as_str()] {
            // Two could be read differently by a proxy in between.
            if headers.get_all(name).iter().count() > 1 {
                return Err(unauthorized(
                    &format!("{name}: must stand in the request once"),
                    INVALID,
                ));
            }
        }
        if let Some(token) = auth::one(headers, auth::HEADER) {
            return Ok(Self::AdminToken(token.as_bytes()));
        }
        match auth::one(headers, header::AUTHORIZATION.as_str()).map(auth::bearer) {
            Some(Some(token)) if !token.trim_ascii().is_empty() => Ok(Self::Bearer(token)),
            Some(_) => Err(unauthorized("authorization: must be `Bearer <key>`", INVALID)),
            None => {
                let message = "this needs a key: send one as `Authorization: Bearer`; `cogo token mint` makes one";
                Err(unauthorized(message, "Bearer"))
            }
        }
    }
}

/// The challenge to whoever showed something that is not taken (RFC 6750, section 3.1).
const INVALID: &str = "Bearer error=\"invalid_token\"";

fn unauthorized(message: &str, challenge: &'static str) -> ApiError {
    ApiError::new(Code::Unauthorized, message)
        .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
}

/// Why a key is not taken, in the words that the REST side has for it.
fn refused(error: &crate::identity::Error) -> ApiError {
    let told = caller::refused(error);
    let refusal = ApiError::new(Code::Unauthorized, told.message());
    told.headers()
        .iter()
        .fold(refusal, |refusal, (name, value)| refusal.with_header(name.clone(), value.clone()))
}

/// The tenant that the request names, if it does.
fn tenant(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    if !headers.contains_key(TENANT) {
        return Ok(None);
    }
    let named = auth::one(headers, TENANT).and_then(|value| value.to_str().ok());
    match named.filter(|tenant| valid_name(tenant)) {
        Some(tenant) => Ok(Some(tenant.to_owned())),
        None => Err(ApiError::invalid(
            TENANT,
            format_args!("must stand in the request once, and be {NAME_RULE}"),
        )),
    }
}
