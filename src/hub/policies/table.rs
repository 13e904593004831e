//! The policies, as they are looked up: by the routes there are.

use std::collections::HashMap;

use axum::http::Method;

use crate::hub::policies::{FILE, Policies, Policy, Who};
use crate::hub::routes::Route;

/// What the policies say of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Who may.
    Who(Who),
    /// Nobody: there is a route, and no policy for it.
    NoPolicy,
    /// There is no such route.
    NoRoute,
}

/// Who may call which of the routes of one hub.
#[derive(Debug)]
pub(crate) struct Table {
    policies: Policies,
    /// By a route's own pattern.
    paths: HashMap<&'static str, Path>,
}

#[derive(Debug, Default)]
struct Path {
    /// The methods of its routes.
    served: Vec<&'static str>,
    /// The entries that name it, in their order.
    entries: Vec<usize>,
}

impl Table {
    /// Says in the log what the policies leave out, and what they name that there is not: neither stops a hub, since
    /// another release may have other routes.
    pub(crate) fn new(policies: Policies, routes: &[Route]) -> Self {
        let mut paths: HashMap<&'static str, Path> = HashMap::new();
        for route in routes {
            paths.entry(route.path).or_default().served.push(route.method);
        }
        let shipped = Policies::default();
        for (at, policy) in policies.routes.iter().enumerate() {
            match paths.get_mut(policy.path.as_str()) {
                Some(path) => path.entries.push(at),
                None if shipped.routes.contains(policy) => {} // of a role that is not here
                None => {
                    tracing::warn!("{FILE}: routes[{at}]: this hub has no route {}", policy.path)
                }
            }
        }
        let table = Self { policies, paths };
        for route in routes {
            if table.find(route.path, route.method).is_none() {
                tracing::warn!("{route} is refused to everybody: {FILE} has no entry for it");
            }
        }
        table
    }

    /// What holds for a request whose path `matched` the pattern of a route.
    pub(crate) fn decide(&self, matched: Option<&str>, method: &Method) -> Decision {
        let method = if method == Method::HEAD { "GET" } else { method.as_str() };
        let Some((pattern, path)) = matched.and_then(|matched| self.paths.get_key_value(matched))
        else {
            return Decision::NoRoute;
        };
        if !path.served.iter().any(|served| *served == method || *served == "*") {
            return Decision::NoRoute;
        }
        self.find(pattern, method).map_or(Decision::NoPolicy, |policy| Decision::Who(policy.who))
    }

    /// The entry that counts.
    fn find(&self, path: &str, method: &str) -> Option<&Policy> {
        let entries = self.paths.get(path)?.entries.iter().map(|at| &self.policies.routes[*at]);
        entries.into_iter().find(|policy| policy.methods.iter().any(|verb| verb.covers(method)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTES: [Route; 4] = [
        Route { path: "/a", method: "GET" },
        Route { path: "/a", method: "POST" },
        Route { path: "/b/{id}", method: "*" },
        Route { path: "/c", method: "GET" },
    ];

    fn table(json: &str) -> Table {
        Table::new(serde_json::from_str(json).expect("policies"), &ROUTES)
    }

    #[test]
    fn the_first_entry_counts_and_what_none_names_is_nobodys() {
        let table = table(
            r#"{"routes": [
                {"methods": ["GET"], "path": "/a", "who": "public"},
                {"methods": ["*"], "path": "/a", "who": "admin"},
                {"methods": ["POST"], "path": "/b/{id}", "who": "token"},
                {"methods": ["GET"], "path": "/b/{other}", "who": "public"}]}"#,
        );
        let decide = |method: Method, path| table.decide(Some(path), &method);
        assert_eq!(decide(Method::GET, "/a"), Decision::Who(Who::Public));
        assert_eq!(decide(Method::HEAD, "/a"), Decision::Who(Who::Public));
        assert_eq!(decide(Method::POST, "/a"), Decision::Who(Who::Admin));
        assert_eq!(decide(Method::PUT, "/a"), Decision::NoRoute);
        assert_eq!(decide(Method::POST, "/b/{id}"), Decision::Who(Who::Token));
        assert_eq!(
            decide(Method::GET, "/b/{id}"),
            Decision::NoPolicy,
            "by the route's own pattern"
        );
        assert_eq!(decide(Method::GET, "/c"), Decision::NoPolicy);
        assert_eq!(decide(Method::GET, "/d"), Decision::NoRoute);
        assert_eq!(table.decide(None, &Method::GET), Decision::NoRoute);
    }
}
