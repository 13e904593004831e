//! What goes over the wire, written by hand.

use std::net::SocketAddr;

use futures_util::StreamExt as _;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};

use crate::mesh::site::{Site, TOKEN};
use crate::support::PATIENCE;

pub(crate) const MODERN: &str = "2026-07-28";

/// A client that writes its requests by hand.
#[derive(Clone)]
pub(crate) struct Wire {
    pub(crate) url: String,
    pub(crate) token: String,
    pub(crate) http: reqwest::Client,
}

/// An answer: JSON, or the messages of a stream.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) messages: Vec<Value>,
}

impl Answered {
    /// The last message.
    pub(crate) fn last(&self) -> &Value {
        self.messages.last().unwrap_or(&Value::Null)
    }

    /// The result; there must be one.
    pub(crate) fn result(&self) -> &Value {
        let result = &self.last()["result"];
        assert!(result.is_object(), "a result: {self:?}");
        result
    }

    pub(crate) fn code(&self) -> i64 {
        self.last()["error"]["code"].as_i64().unwrap_or_else(|| panic!("an error: {self:?}"))
    }
}

impl Wire {
    pub(crate) fn new(address: SocketAddr) -> Self {
        let http = crate::support::http();
        Self { url: format!("http://{address}/mcp"), token: TOKEN.to_owned(), http }
    }

    pub(crate) async fn of(site: &Site) -> Self {
        Self::new(site.listen().await)
    }

    pub(crate) fn with_token(&self, token: impl Into<String>) -> Self {
        Self { token: token.into(), ..self.clone() }
    }

    pub(crate) fn at(&self, path: &str) -> Self {
        Self { url: format!("{}{path}", self.url), ..self.clone() }
    }

    /// A request as it is; not yet sent.
    pub(crate) fn request(&self, body: &str, headers: &[(&str, &str)]) -> reqwest::RequestBuilder {
        let mut all = HeaderMap::new();
        for (name, value) in [
            ("content-type", "application/json"),
            ("accept", "application/json, text/event-stream"),
        ]
        .iter()
        .chain(headers)
        {
            let name: HeaderName = name.parse().expect("a name");
            all.insert(name, HeaderValue::from_str(value).expect("a value"));
        }
        if !self.token.is_empty() {
            let bearer = format!("Bearer {}", self.token);
            all.insert("authorization", HeaderValue::from_str(&bearer).expect("a value"));
        }
        self.http.post(&self.url).headers(all).body(body.to_owned())
    }

    pub(crate) async fn post(&self, body: &Value, headers: &[(&str, &str)]) -> Answered {
        let response = self.request(&body.to_string(), headers).send().await.expect("an answer");
        read(response).await
    }

    /// A request of 2026-07-28, without a session.
    pub(crate) fn modern(
        &self,
        method: &str,
        params: Value,
        tasks: bool,
    ) -> reqwest::RequestBuilder {
        let (body, headers) = modern(method, params, tasks);
        let headers: Vec<_> = headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        self.request(&body.to_string(), &headers)
    }

    pub(crate) async fn ask(&self, method: &str, params: Value) -> Answered {
        read(self.modern(method, params, false).send().await.expect("an answer")).await
    }

    /// As a client that knows tasks.
    pub(crate) async fn ask_with_tasks(&self, method: &str, params: Value) -> Answered {
        read(self.modern(method, params, true).send().await.expect("an answer")).await
    }

    /// Opens a session of 2025-11-25.
    pub(crate) async fn session(&self) -> String {
        let opened = self.post(&initialize(json!({})), &[]).await;
        assert_eq!(opened.status, 200, "{opened:?}");
        assert_eq!(opened.result()["protocolVersion"], "2025-11-25");
        let id = opened.headers["mcp-session-id"].to_str().expect("text").to_owned();
        let told = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        assert_eq!(self.post(&told, &of_session(&id)).await.status, 202);
        id
    }
}

pub(crate) fn initialize(capabilities: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": capabilities,
        "clientInfo": {"name": "by hand", "version": "1"}}})
}

pub(crate) fn of_session(id: &str) -> [(&str, &str); 2] {
    [("mcp-session-id", id), ("mcp-protocol-version", "2025-11-25")]
}

pub(crate) fn call(id: impl Into<Value>, name: &str, arguments: Value) -> Value {
    let params = json!({"name": name, "arguments": arguments});
    json!({"jsonrpc": "2.0", "id": id.into(), "method": "tools/call", "params": params})
}

/// The body and the headers of a request of 2026-07-28.
pub(crate) fn modern(
    method: &str,
    mut params: Value,
    tasks: bool,
) -> (Value, Vec<(String, String)>) {
    let meta = &mut params["_meta"];
    meta["io.modelcontextprotocol/protocolVersion"] = json!(MODERN);
    meta["io.modelcontextprotocol/clientCapabilities"] = match tasks {
        true => json!({"extensions": {"io.modelcontextprotocol/tasks": {}}}),
        false => json!({}),
    };
    let mut headers = vec![
        ("mcp-protocol-version".to_owned(), MODERN.to_owned()),
        ("mcp-method".to_owned(), method.to_owned()),
    ];
    let name = ["name", "uri", "taskId"].iter().find_map(|field| params[*field].as_str());
    headers.extend(name.map(|name| ("mcp-name".to_owned(), name.to_owned())));
    (json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}), headers)
}

pub(crate) async fn read(response: reqwest::Response) -> Answered {
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let is_stream = headers
        .get("content-type")
        .is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
    // Some are tens of megabytes, which take a busy machine most of a minute where nothing is optimized.
    let text = tokio::time::timeout(PATIENCE * 5, response.text()).await.expect("in time");
    let text = text.expect("a body");
    let messages = match is_stream {
        true => events(&text),
        false => serde_json::from_str(&text).into_iter().collect(),
    };
    Answered { status, headers, messages }
}

fn events(text: &str) -> Vec<Value> {
    let data = text.lines().filter_map(|line| line.strip_prefix("data:"));
    data.filter_map(|data| serde_json::from_str(data.trim()).ok()).collect()
}

/// The messages of a stream that stays open, until one fits.
pub(crate) async fn until(response: reqwest::Response, fits: impl Fn(&Value) -> bool) -> Value {
    let mut chunks = response.bytes_stream();
    let mut text = String::new();
    let wait = async {
        while let Some(chunk) = chunks.next().await {
            text.push_str(&String::from_utf8_lossy(&chunk.expect("it goes on")));
            if let Some(found) = events(&text).into_iter().find(|message| fits(message)) {
                return found;
            }
        }
        panic!("the stream ended: {text}");
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("in time")
}
