//! `/rest/v1`: what PostgREST's clients send, and what they may.

mod calls;
mod reads;
mod recorded;
mod refusals;
mod scope;

use anyhow::{Context as _, Result};
use axum::body::Body;
use cogo::identity::{Claims, Keys, Role};
use serde_json::{Value, json};

use crate::hub::{Answer, SECRET, TestHub, request};

/// A key with these claims, good for an hour.
fn key(claims: Value) -> String {
    signed_by(SECRET, claims)
}

fn signed_by(secret: &str, claims: Value) -> String {
    let exp = cogo::clock::utc_now().timestamp() + 3600;
    let mut all = json!({"exp": exp});
    if let (Value::Object(all), Value::Object(claims)) = (&mut all, claims) {
        all.extend(claims);
    }
    let claims: Claims = serde_json::from_value(all).expect("claims");
    Keys::new(&[secret]).expect("a secret").mint(&claims)
}

fn service() -> String {
    key(json!({"role": "service_role"}))
}

/// A worker's key, for the topics `hub-test/*` of a tenant.
fn worker_of(tenant: &str) -> String {
    key(json!({
        "role": "authenticated", "tenant": tenant, "worker": "w",
        "topics": ["hub-test/*"], "send": ["hub-test/*"],
    }))
}

/// One request with a key, as the clients send it.
#[derive(Debug, Clone)]
struct Sent<'a> {
    method: &'a str,
    path: &'a str,
    key: &'a str,
    headers: Vec<(&'a str, &'a str)>,
    body: Option<String>,
}

impl<'a> Sent<'a> {
    fn get(path: &'a str, key: &'a str) -> Self {
        Self { method: "GET", path, key, headers: Vec::new(), body: None }
    }

    fn post(path: &'a str, key: &'a str, body: impl ToString) -> Self {
        Self { method: "POST", path, key, headers: Vec::new(), body: Some(body.to_string()) }
    }

    fn method(mut self, method: &'a str) -> Self {
        self.method = method;
        self
    }

    fn header(mut self, name: &'a str, value: &'a str) -> Self {
        self.headers.push((name, value));
        self
    }

    async fn to(&self, hub: &TestHub) -> Result<Answer> {
        // What clients write as it is, and the crate `http` does not take.
        let encoded = |c: char| match c {
            '"' | '<' | '>' | '\\' | '^' | '`' | '{' | '|' | '}' | ' ' => {
                format!("%{:02X}", c as u32)
            }
            c => c.to_string(),
        };
        let path: String = self.path.chars().map(encoded).collect();
        let mut builder = request(self.method, &path);
        if !self.key.is_empty() {
            builder = builder.header("apikey", self.key);
            builder = builder.header("authorization", format!("Bearer {}", self.key));
        }
        if self.body.is_some() {
            builder = builder.header("content-type", "application/json");
        }
        for (name, value) in &self.headers {
            builder = builder.header(*name, *value);
        }
        let body = self.body.clone().map_or_else(Body::empty, Body::from);
        hub.send(builder.body(body)?).await
    }
}

impl Answer {
    /// Checks that this is an error as PostgREST gives it, and gives its message, details and hint.
    fn refusal(&self, status: u16, code: &str) -> Result<String> {
        anyhow::ensure!(self.status == status, "{status} {code} was expected: {self:?}");
        let json = self.json()?;
        let fields: Vec<&String> = json.as_object().context("an object")?.keys().collect();
        anyhow::ensure!(fields == ["code", "details", "hint", "message"], "{self:?}");
        anyhow::ensure!(json["code"] == code, "{status} {code} was expected: {self:?}");
        anyhow::ensure!(!json["message"].as_str().unwrap_or_default().is_empty(), "{self:?}");
        anyhow::ensure!(self.header("x-content-type-options") == "nosniff", "{self:?}");
        anyhow::ensure!(
            (status == 401) != self.header("www-authenticate").is_empty(),
            "a challenge goes with 401 alone: {self:?}"
        );
        Ok(format!("{} {} {}", json["message"], json["details"], json["hint"]))
    }
}

/// Messages of two tenants, published through the hub itself: `n` each, with priorities from 0.
async fn published(hub: &TestHub, n: usize) -> Result<()> {
    for tenant in ["acme", "globex"] {
        let messages: Vec<Value> = (0..n)
            .map(|at| {
                json!({
                    "tenant": tenant, "role": "hub-test", "service": "here", "intent": "echo.say",
                    "priority": at, "payload": {"n": at, "of": tenant, "list": [at, "x"]},
                })
            })
            .collect();
        let key = service();
        let sent = Sent::post("/rest/v1/rpc/bus_enqueue", &key, json!({"messages": messages}));
        let answer = sent.to(hub).await?;
        anyhow::ensure!(answer.status == 200, "{answer:?}");
        anyhow::ensure!(answer.json()?.as_array().map(Vec::len) == Some(n), "{answer:?}");
    }
    Ok(())
}

/// That the words of a role are those that the hub accepts.
#[test]
fn the_roles_are_supabases() {
    let names = [Role::Anon, Role::Authenticated, Role::ServiceRole].map(Role::as_str);
    assert_eq!(names, ["anon", "authenticated", "service_role"]);
}
