//! Who may call which route: `configs/route_policies.json`.
//!
//! Deny by default: a route that no entry names answers nobody. Entries name routes by the pattern that the route
//! itself has, so that no spelling of a path reaches a route by another entry than its own.

mod path;
mod table;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::hub::routes::Route;
use crate::identity::Role;
use crate::policy::Invalid;

pub(crate) use table::{Decision, Table};

/// The file as it is shipped, which is also what holds where there is none.
const SHIPPED: &str = include_str!("../../configs/route_policies.json");
/// The file's name.
pub(crate) const FILE: &str = "route_policies.json";

/// Who may call which route. The first entry that names a route and the method counts; a route that none names
/// answers nobody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "RoutePolicies")]
#[serde(deny_unknown_fields)]
pub struct Policies {
    /// Where the file's JSON Schema lies; for editors.
    #[serde(rename = "$schema", default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// One entry for each route, in any order.
    pub routes: Vec<Policy>,
}

/// Who may call one route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "RoutePolicy")]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Which methods; `GET` covers `HEAD`.
    #[schemars(length(min = 1))]
    pub methods: Vec<Verb>,
    /// The route's own pattern, as `/api/messages/{id}`: `{name}` is one part, `{*name}` all that follow.
    #[schemars(regex(pattern = r"^/"))]
    pub path: String,
    /// `public` for anybody; `reader` for whoever may read: anybody where `open_reads` of hub.json holds, else the
    /// holder of the admin token; `token` for the holder of the admin token or of any key; `admin` for the holder of
    /// the admin token alone; `role:<name>` for the holder of a key of that role, or of the admin token.
    #[schemars(with = "String")]
    #[schemars(regex(
        pattern = r"^(public|reader|token|admin|role:(anon|authenticated|service_role))$"
    ))]
    pub who: Who,
}

/// A method of HTTP, or all of them.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verb {
    /// `GET`, and `HEAD` with it.
    Get,
    /// `POST`.
    Post,
    /// `PUT`.
    Put,
    /// `PATCH`.
    Patch,
    /// `DELETE`.
    Delete,
    /// `OPTIONS`.
    Options,
    /// Any.
    #[serde(rename = "*")]
    Any,
}

impl Verb {
    /// As a request says it, or `*`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::Options => "OPTIONS",
            Self::Any => "*",
        }
    }

    /// Whether it covers a method, or what a route has for one.
    #[must_use]
    pub fn covers(self, method: &str) -> bool {
        self == Self::Any || self.as_str() == if method == "HEAD" { "GET" } else { method }
    }
}

/// Who may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Who {
    /// Anybody.
    Public,
    /// Who may read: anybody where reads are open, else the admin.
    Reader,
    /// The admin, and whoever shows a key that verifies; the handler holds it to its scope.
    Token,
    /// The holder of the admin token.
    Admin,
    /// The admin, and whoever shows a key of this role.
    Role(Role),
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Public => f.write_str("public"),
            Self::Reader => f.write_str("reader"),
            Self::Token => f.write_str("token"),
            Self::Admin => f.write_str("admin"),
            Self::Role(role) => write!(f, "role:{role}"),
        }
    }
}

impl From<Who> for String {
    fn from(who: Who) -> Self {
        who.to_string()
    }
}

/// A word for who may that there is not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} must be public, reader, token, admin, or role: and one of anon, authenticated and service_role"
)]
pub struct UnknownWho(String);

impl FromStr for Who {
    type Err = UnknownWho;

    fn from_str(text: &str) -> Result<Self, UnknownWho> {
        let unknown = || UnknownWho(text.to_owned());
        Ok(match text {
            "public" => Self::Public,
            "reader" => Self::Reader,
            "token" => Self::Token,
            "admin" => Self::Admin,
            _ => {
                let role = text.strip_prefix("role:").ok_or_else(unknown)?;
                Self::Role(role.parse().map_err(|_| unknown())?)
            }
        })
    }
}

impl TryFrom<String> for Who {
    type Error = UnknownWho;

    fn try_from(text: String) -> Result<Self, UnknownWho> {
        text.parse()
    }
}

impl Default for Policies {
    fn default() -> Self {
        let shipped: Self =
            serde_json::from_str(SHIPPED).expect("the shipped file, which a test loads");
        Self { schema: None, ..shipped }
    }
}

impl Policies {
    /// The routes that no entry covers, so that nobody may call them.
    #[must_use]
    pub fn uncovered(&self, routes: &[Route]) -> Vec<Route> {
        let covers = |route: &Route| {
            let mut entries = self.routes.iter().filter(|policy| policy.path == route.path);
            entries.any(|policy| policy.methods.iter().any(|verb| verb.covers(route.method)))
        };
        routes.iter().filter(|route| !covers(route)).copied().collect()
    }

    /// What the entries name that is no route, as `GET /path`.
    #[must_use]
    pub fn unserved(&self, routes: &[Route]) -> Vec<String> {
        let serves = |path: &str, verb: Verb| {
            let mut there = routes.iter().filter(|route| route.path == path);
            there.any(|route| verb.covers(route.method) || route.method == "*")
        };
        let named = self.routes.iter().flat_map(|policy| {
            policy.methods.iter().map(move |verb| (policy.path.as_str(), *verb))
        });
        named
            .filter(|(path, verb)| !serves(path, *verb))
            .map(|(path, verb)| format!("{} {path}", verb.as_str()))
            .collect()
    }

    /// Checks what the types cannot.
    ///
    /// # Errors
    /// Names the first entry that breaks its rule.
    pub fn validate(&self) -> Result<(), Invalid> {
        let mut seen: BTreeMap<(&str, Verb), usize> = BTreeMap::new();
        for (at, policy) in self.routes.iter().enumerate() {
            let invalid = |field: &str, rule: String| {
                Err(Invalid::new(format!("routes[{at}].{field}"), rule))
            };
            if policy.methods.is_empty() {
                return invalid("methods", "must name a method, or be [\"*\"]".to_owned());
            }
            if let Err(rule) = path::check(&policy.path) {
                return invalid("path", format!("{:?} {rule}", policy.path));
            }
            for verb in &policy.methods {
                let path = policy.path.as_str();
                let before = seen.get(&(path, Verb::Any)).or_else(|| seen.get(&(path, *verb)));
                if let Some(before) = before {
                    let verb = verb.as_str();
                    let rule = format!(
                        "{verb} {path} is covered by routes[{before}] already, which would count; keep one of them"
                    );
                    return invalid("methods", rule);
                }
                seen.insert((path, *verb), at);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_file_is_good() {
        assert_eq!(Policies::default().validate(), Ok(()));
    }

    #[test]
    fn a_word_that_there_is_not_is_told_with_those_there_are() {
        for good in ["public", "reader", "token", "admin", "role:service_role", "role:anon"] {
            assert_eq!(good.parse::<Who>().map(|who| who.to_string()), Ok(good.to_owned()));
        }
        for bad in ["", "Admin", "role:", "role:admin", "anyone", "role:service_role "] {
            let error = bad.parse::<Who>().expect_err(bad).to_string();
            assert!(error.contains("must be public, reader, token, admin"), "{error}");
        }
    }

    fn refused(routes: &str) -> String {
        let policies: Policies =
            serde_json::from_str(&format!(r#"{{"routes": {routes}}}"#)).expect("well-formed");
        policies.validate().expect_err(routes).to_string()
    }

    #[test]
    fn what_can_never_count_is_refused() {
        let entry = |methods: &str, path: &str| {
            format!(r#"{{"methods": {methods}, "path": "{path}", "who": "admin"}}"#)
        };
        let two = |a: &str, b: &str| refused(&format!("[{}, {}]", entry(a, "/x"), entry(b, "/x")));
        assert!(
            two(r#"["GET"]"#, r#"["POST", "GET"]"#)
                .starts_with("routes[1].methods: GET /x is covered by routes[0]")
        );
        assert!(
            two(r#"["*"]"#, r#"["POST"]"#).starts_with("routes[1].methods: POST /x is covered")
        );
        assert!(
            refused(&format!("[{}]", entry("[]", "/x")))
                .starts_with("routes[0].methods: must name")
        );
        assert!(
            refused(&format!("[{}]", entry(r#"["GET"]"#, "x"))).starts_with("routes[0].path: ")
        );
    }
}
