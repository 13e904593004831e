//! Fragments into one document.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::hub::routes::Route;

/// The methods that a path may describe (OpenAPI 3.1, "Path Item Object").
const METHODS: [&str; 8] = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];

/// What may come of any request, whatever it is for. An operation that says more of one of them says it itself.
const ALWAYS: [(&str, &str); 7] = [
    ("400", "BadRequest"),
    ("403", "Forbidden"),
    ("429", "RateLimited"),
    ("431", "HeadersTooLarge"),
    ("500", "Internal"),
    ("503", "Unavailable"),
    ("504", "Timeout"),
];
/// What may come of one with a body.
const OF_BODIES: [(&str, &str); 2] = [("413", "PayloadTooLarge"), ("415", "UnsupportedMediaType")];

/// A part of the document: the routes of one area.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fragment {
    /// What messages call it by: the file that it stands in.
    pub name: &'static str,
    /// An object with `paths`, `components` and `tags`, each as OpenAPI 3.1 has it.
    ///
    /// An operation without `security` is for readers if it is a `GET`, and else for the holder of the admin token.
    /// The answers that any request may get (400, 401, 403, 413, 415, 429, 431, 5xx) are added to those it has.
    pub json: &'static str,
}

/// The document of a hub that serves `routes`. Operations that it does not serve are left out, and those of its routes
/// that nobody describes stand in `x-undescribed`. With `open_reads` reading needs no credentials.
///
/// # Errors
/// All that is wrong with the fragments: no JSON, two of one operation or component, a `$ref` that leads nowhere.
pub fn document(
    fragments: &[Fragment],
    routes: &[Route],
    open_reads: bool,
) -> Result<Value, Vec<String>> {
    let mut parts = Parts::default();
    for fragment in fragments {
        parts.add(fragment);
    }
    let served: BTreeSet<(String, String)> =
        routes.iter().map(|route| (path(route.path), route.method.to_lowercase())).collect();
    let mut undescribed = served.clone();
    for (path, item) in &mut parts.paths {
        item.retain(|method, _| {
            let is_operation = METHODS.contains(&method.as_str());
            let key = (path.clone(), method.clone());
            undescribed.remove(&key);
            !is_operation || served.contains(&key)
        });
        for (method, operation) in item.iter_mut() {
            if METHODS.contains(&method.as_str()) {
                complete(method, operation, open_reads);
            }
        }
    }
    parts.paths.retain(|_, item| METHODS.iter().any(|method| item.contains_key(*method)));
    let document = json!({
        "openapi": "3.1.0",
        "info": info(),
        "servers": [{ "url": "/", "description": "This hub." }],
        "security": [{ "adminToken": [] }, { "bearer": [] }],
        "tags": parts.tags,
        "paths": parts.paths,
        "components": parts.components,
        "x-undescribed": undescribed
            .into_iter()
            .map(|(path, method)| format!("{} {path}", method.to_uppercase()))
            .collect::<Vec<_>>(),
    });
    let mut problems = parts.problems;
    unresolved(&document, &document, &mut problems);
    if problems.is_empty() { Ok(document) } else { Err(problems) }
}

fn info() -> Value {
    json!({
        "title": "COGO",
        "version": env!("CARGO_PKG_VERSION"),
        "summary": env!("CARGO_PKG_DESCRIPTION"),
        "description": include_str!("description.md"),
        "license": { "name": "Apache License 2.0", "identifier": env!("CARGO_PKG_LICENSE") },
    })
}

/// A route's path as OpenAPI writes it, which knows no parameter that takes the rest.
fn path(path: &str) -> String {
    path.replace("{*", "{")
}

/// Adds what every operation has.
fn complete(method: &str, operation: &mut Value, open_reads: bool) {
    let is_public = operation["security"].as_array().is_some_and(Vec::is_empty);
    if method == "get" && open_reads && operation.get("security").is_none() {
        operation["security"] = json!([{}, { "adminToken": [] }, { "bearer": [] }]);
    }
    let has_body = operation.get("requestBody").is_some();
    let Some(responses) = operation["responses"].as_object_mut() else { return };
    let credentials = (!is_public).then_some(("401", "Unauthorized"));
    let bodies = OF_BODIES.into_iter().filter(|_| has_body);
    for (status, name) in ALWAYS.into_iter().chain(credentials).chain(bodies) {
        let reference = || json!({ "$ref": format!("#/components/responses/{name}") });
        responses.entry(status).or_insert_with(reference);
    }
    responses.sort_keys();
}

#[derive(Debug, Default)]
struct Parts {
    paths: BTreeMap<String, Map<String, Value>>,
    /// By section and name.
    components: BTreeMap<String, BTreeMap<String, Value>>,
    tags: Vec<Value>,
    /// Which fragment has an operation of this id.
    ids: BTreeMap<String, String>,
    problems: Vec<String>,
}

impl Parts {
    fn add(&mut self, Fragment { name, json }: &Fragment) {
        let fragment: Map<String, Value> = match serde_json::from_str(json) {
            Ok(fragment) => fragment,
            Err(error) => return self.problems.push(format!("{name}: {error}")),
        };
        for (section, value) in fragment {
            match (section.as_str(), value) {
                ("paths", Value::Object(paths)) => self.add_paths(name, paths),
                ("components", Value::Object(sections)) => self.add_components(name, sections),
                ("tags", Value::Array(tags)) => self.tags.extend(tags),
                _ => self.problems.push(format!("{name}: {section}: is no part of a fragment")),
            }
        }
    }

    fn add_paths(&mut self, name: &str, paths: Map<String, Value>) {
        for (path, item) in paths {
            let Value::Object(item) = item else {
                self.problems.push(format!("{name}: {path}: must be an object"));
                continue;
            };
            for (method, value) in item {
                if METHODS.contains(&method.as_str()) {
                    self.check_operation(name, &format!("{method} {path}"), &value);
                }
                let item = self.paths.entry(path.clone()).or_default();
                if item.insert(method.clone(), value).is_some() {
                    self.problems.push(format!("{name}: {method} {path}: is described twice"));
                }
            }
        }
    }

    fn check_operation(&mut self, name: &str, what: &str, operation: &Value) {
        for field in ["operationId", "summary", "tags", "responses"] {
            if operation.get(field).is_none() {
                self.problems.push(format!("{name}: {what}: has no {field}"));
            }
        }
        let Some(id) = operation["operationId"].as_str() else { return };
        if let Some(other) = self.ids.insert(id.to_owned(), what.to_owned()) {
            self.problems.push(format!("{name}: {what}: operationId {id} is that of {other}"));
        }
    }

    fn add_components(&mut self, name: &str, sections: Map<String, Value>) {
        for (section, components) in sections {
            let Value::Object(components) = components else {
                self.problems.push(format!("{name}: components.{section}: must be an object"));
                continue;
            };
            for (component, value) in components {
                let known = self.components.entry(section.clone()).or_default();
                if known.insert(component.clone(), value).is_some() {
                    let which = format!("components.{section}.{component}");
                    self.problems.push(format!("{name}: {which}: is described twice"));
                }
            }
        }
    }
}

/// Notes every `$ref` below `value` that leads nowhere in `document`.
fn unresolved(document: &Value, value: &Value, problems: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                match (name.as_str(), member) {
                    ("$ref", Value::String(reference)) => {
                        let pointer = reference.strip_prefix('#');
                        if pointer.and_then(|pointer| document.pointer(pointer)).is_none() {
                            problems.push(format!("$ref {reference}: leads nowhere"));
                        }
                    }
                    // What stands there is data, and none of ours.
                    ("example" | "examples" | "default" | "const" | "enum", _) => {}
                    _ => unresolved(document, member, problems),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| unresolved(document, item, problems)),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
