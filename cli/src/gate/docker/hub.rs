//! The hub as its callers see it: through the port that its container publishes.

use std::time::Duration;

use cogo::clock::Stopwatch;
use cogo::gate::Failure;
use cogo::net::{Options, Proxy};
use serde_json::{Value, json};

use super::plan::Call;

/// How long one answer may take; the hub holds a long poll for less.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// What the hub is asked to wait for a message's end before it answers.
const POLL: &str = "20s";
/// How long a call may take: the first one starts a browser.
const ENDED_WITHIN: Duration = Duration::from_secs(120);

/// A client of the hub.
#[derive(Debug)]
pub(super) struct Hub {
    http: reqwest::Client,
    url: String,
    token: String,
}

/// A message that has ended, with its events.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) status: String,
    pub(super) answer: Value,
}

impl Ended {
    /// The types of its events, in their order.
    pub(super) fn events(&self) -> Vec<&str> {
        let events = self.answer["events"].as_array().map(Vec::as_slice).unwrap_or_default();
        events.iter().filter_map(|event| event["event_type"].as_str()).collect()
    }

    /// Where each attempt left its artifacts.
    pub(super) fn artifacts(&self) -> Vec<&str> {
        let events = self.answer["events"].as_array().map(Vec::as_slice).unwrap_or_default();
        events.iter().filter_map(|event| event["payload"]["artifacts"].as_str()).collect()
    }
}

impl Hub {
    pub(super) fn new(url: String, token: &str) -> Result<Self, Failure> {
        // On this machine: no proxy has anything to do with it.
        let http = Options { proxy: Proxy::None, ..Options::default() }.http_client()?;
        Ok(Self { http, url, token: token.to_owned() })
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Puts a call on the bus; the message's id.
    pub(super) async fn enqueue(&self, call: &Call) -> Result<String, Failure> {
        let Call { toolset, tool, params, .. } = call;
        let body = json!({"toolset": toolset, "tool": tool, "params": params});
        let answer = self.post("/api/mcp/enqueue", &body).await?;
        let id = answer["id"].as_str().ok_or_else(|| Failure::new("enqueue answered no id"))?;
        Ok(id.to_owned())
    }

    /// The message once it has ended.
    pub(super) async fn ended(&self, id: &str) -> Result<Ended, Failure> {
        let watch = Stopwatch::start();
        loop {
            let answer = self.json(&format!("/api/messages/{id}?wait={POLL}")).await?;
            let status = answer["message"]["status"].as_str().unwrap_or_default().to_owned();
            if matches!(status.as_str(), "done" | "failed" | "cancelled") {
                return Ok(Ended { status, answer });
            }
            if watch.elapsed() > ENDED_WITHIN {
                let within = ENDED_WITHIN.as_secs();
                return Err(Failure::new(format!("message {id} is {status} after {within} s")));
            }
        }
    }

    /// What it says, as JSON.
    pub(super) async fn json(&self, path: &str) -> Result<Value, Failure> {
        let text = self.text(path).await?;
        serde_json::from_str(&text)
            .map_err(|error| Failure::new(format!("GET {path} answered no JSON: {error}")))
    }

    /// What it says.
    pub(super) async fn text(&self, path: &str) -> Result<String, Failure> {
        let request = self.http.get(format!("{}{path}", self.url));
        self.send(&format!("GET {path}"), request).await
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        let request = self
            .http
            .post(format!("{}{path}", self.url))
            .header("content-type", "application/json")
            .body(body.to_string());
        let text = self.send(&format!("POST {path}"), request).await?;
        Ok(serde_json::from_str(&text)?)
    }

    async fn send(&self, what: &str, request: reqwest::RequestBuilder) -> Result<String, Failure> {
        let sent = request.header("x-admin-token", &self.token).timeout(ANSWER_WITHIN).send();
        let unanswered = |error: reqwest::Error| {
            let error = error.without_url();
            Failure::new(format!("{what} at {}: {}", self.url, cogo::error::chain(&error)))
        };
        let answer = sent.await.map_err(unanswered)?;
        let status = answer.status();
        let text = answer.text().await.map_err(unanswered)?;
        match status.is_success() {
            true => Ok(text),
            false => Err(Failure::new(format!("{what} answered {status}: {}", text.trim()))),
        }
    }
}
