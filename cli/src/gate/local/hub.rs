//! The hub, asked over HTTP as anybody would.

use std::time::Duration;

use cogo::gate::Failure;
use cogo::message::MessageId;
use serde_json::{Value, json};

/// How long an answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// How long an enqueue is tried again that the user's limits refuse for now.
const PATIENCE: Duration = Duration::from_secs(60);

/// A client of the hub.
#[derive(Debug, Clone)]
pub(super) struct Hub {
    http: reqwest::Client,
    pub(super) url: String,
    token: String,
}

/// What it answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) text: String,
}

impl Answer {
    /// The body as JSON; null where it is none.
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }
}

impl Hub {
    pub(super) fn new(url: String, token: String) -> Result<Self, Failure> {
        // Needed for a client, though no TLS is spoken here.
        let _somebody_was_first = rustls::crypto::ring::default_provider().install_default();
        // It is on this machine, whatever proxy leads out of it.
        let http = reqwest::Client::builder().no_proxy().timeout(ANSWER_WITHIN).build()?;
        Ok(Self { http, url, token })
    }

    /// Asks, with the admin token: a hub may be configured to show nothing without.
    async fn ask(&self, request: reqwest::RequestBuilder) -> Result<Answer, Failure> {
        let answer = request.header("x-admin-token", &self.token).send().await?;
        let status = answer.status().as_u16();
        Ok(Answer { status, text: answer.text().await? })
    }

    /// A GET, whatever the answer.
    pub(super) async fn get(&self, path: &str) -> Result<Answer, Failure> {
        self.ask(self.http.get(format!("{}{path}", self.url))).await
    }

    /// A GET that must be answered with 200.
    pub(super) async fn read(&self, path: &str) -> Result<Answer, Failure> {
        let answer = self.get(path).await?;
        match answer.status {
            200 => Ok(answer),
            status => {
                Err(Failure::new(format!("GET {path} is answered {status}: {}", answer.text)))
            }
        }
    }

    /// Enqueues a call of a tool; its id once it is acknowledged.
    pub(super) async fn enqueue(
        &self,
        toolset: &str,
        tool: &str,
        params: &Value,
    ) -> Result<MessageId, Failure> {
        let body = json!({"toolset": toolset, "tool": tool, "params": params}).to_string();
        let patience = super::wait::Patience::with(format!("{toolset}/{tool} is taken"), PATIENCE);
        loop {
            let request = self
                .http
                .post(format!("{}/api/mcp/enqueue", self.url))
                .header("content-type", "application/json")
                .body(body.clone());
            let answer = self.ask(request).await?;
            let told = answer.json();
            match (answer.status, told["id"].as_str().map(str::parse)) {
                (202, Some(Ok(id))) => return Ok(id),
                (429, _) => patience.again(format!("429: {}", answer.text)).await?,
                (status, _) => {
                    let text =
                        format!("{toolset}/{tool} is not enqueued: {status} {}", answer.text);
                    return Err(Failure::new(text));
                }
            }
        }
    }
}
