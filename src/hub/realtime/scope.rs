//! What a token may read, and which topics it shares with whom.

use std::sync::Arc;

use serde_json::json;

use crate::identity::{Claims, Role};
use crate::message::Topic;

/// Where wake-ups for workers come from: `cogo:work:<tenant>:<role>:<service>`. All of `cogo:` is the hub's.
pub(crate) const RESERVED: &str = "cogo:";
pub(crate) const WORK: &str = "cogo:work:";

/// What of a token decides which rows it may read. Tokens that may read the same rows share one query, so
/// neither the worker nor the subject is in it.
#[derive(Debug)]
pub(crate) struct Scope {
    claims: Claims,
    /// The claims as SQL gets them; also what makes two scopes one.
    pub(crate) json: Arc<str>,
}

impl Scope {
    pub(crate) fn of(claims: &Claims) -> Self {
        let mut own = Claims::new(claims.role, claims.exp);
        own.tenant.clone_from(&claims.tenant);
        own.topics.clone_from(&claims.topics);
        own.send.clone_from(&claims.send);
        own.topics.sort();
        own.send.sort();
        let json = json!({
            "role": own.role, "tenant": own.tenant, "topics": own.topics, "send": own.send,
        });
        Self { claims: own, json: json.to_string().into() }
    }

    pub(crate) fn role(&self) -> Role {
        self.claims.role
    }

    pub(crate) fn claims(&self) -> &Claims {
        &self.claims
    }

    /// Whether rows of a tenant and, if it has one, a topic can be among those that it may read. Row-level
    /// security decides; this only spares questions whose answer is known.
    pub(crate) fn may_read(&self, tenant: &str, topic: Option<&Topic>) -> bool {
        match (self.claims.role, topic) {
            (Role::Anon, _) => false,
            (Role::ServiceRole, _) => true,
            (Role::Authenticated, Some(topic)) => self.claims.may_read(tenant, topic),
            (Role::Authenticated, None) => self.claims.tenant.as_deref() == Some(tenant),
        }
    }

    /// Whether any messages can be among them.
    pub(crate) fn has_topics(&self) -> bool {
        self.claims.role == Role::ServiceRole
            || !(self.claims.topics.is_empty() && self.claims.send.is_empty())
    }
}

/// Those who can hear each other: a tenant; or, of tokens without one, those of the same role.
pub(crate) fn space(claims: &Claims, private: bool, topic: &str) -> Arc<str> {
    // A policy has been asked about private topics that name their tenant, so whoever is let in shares it.
    let named = topic.strip_prefix(WORK).and_then(|rest| rest.split(':').next());
    let named = named.or_else(|| match (private, claims.role, &claims.tenant) {
        (true, Role::ServiceRole, None) => topic.split_once(':').map(|(tenant, _)| tenant),
        _ => None,
    });
    match named.or(claims.tenant.as_deref()) {
        Some(tenant) => of_tenant(tenant),
        None => format!("role {}", claims.role).into(),
    }
}

/// The space of a tenant.
pub(crate) fn of_tenant(tenant: &str) -> Arc<str> {
    // No tenant has a space in its name.
    tenant.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(role: Role, tenant: Option<&str>) -> Claims {
        Claims { tenant: tenant.map(str::to_owned), ..Claims::new(role, 1) }
    }

    #[test]
    fn tenants_do_not_share_topics_and_neither_do_roles_without_one() {
        let acme = claims(Role::Authenticated, Some("acme"));
        let globex = claims(Role::Authenticated, Some("globex"));
        assert_ne!(space(&acme, false, "room"), space(&globex, false, "room"));
        assert_ne!(space(&acme, true, "globex:room"), space(&globex, true, "globex:room"));
        let (service, anon) = (claims(Role::ServiceRole, None), claims(Role::Anon, None));
        assert_ne!(space(&service, false, "room"), space(&anon, false, "room"));
        assert_ne!(space(&service, false, "acme:room"), space(&acme, false, "acme:room"));
        assert_eq!(space(&service, true, "acme:room"), space(&acme, true, "acme:room"));
        let work = "cogo:work:acme:r:s";
        assert_eq!(space(&service, true, work), space(&acme, true, work));
    }

    #[test]
    fn a_scope_is_what_may_be_read_and_not_who_reads() {
        let mut a = claims(Role::Authenticated, Some("acme"));
        a.topics = vec!["r/s".parse().expect("a pattern"), "a/*".parse().expect("a pattern")];
        let mut b = Claims { worker: Some("w".to_owned()), exp: 9, ..a.clone() };
        b.topics.reverse();
        assert_eq!(Scope::of(&a).json, Scope::of(&b).json);
        let topic = |text: &str| text.parse::<Topic>().expect("a topic");
        assert!(Scope::of(&a).may_read("acme", Some(&topic("r/s"))));
        assert!(Scope::of(&a).may_read("acme", None));
        assert!(!Scope::of(&a).may_read("globex", None));
        assert!(!Scope::of(&a).may_read("acme", Some(&topic("r/t"))));
        assert!(!Scope::of(&claims(Role::Authenticated, Some("acme"))).has_topics());
    }
}
