//! An MCP server of 2026-07-28 whose tools ask for input before they answer (SEP-2322), and which remembers how often
//! it was called.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use cogo::shutdown::Tasks;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Map, Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::{CancellationToken, DropGuard};

#[derive(Debug)]
pub(crate) struct Asks {
    pub(crate) url: String,
    calls: Arc<Mutex<Vec<Value>>>,
    _stop: DropGuard,
}

impl Asks {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let url = format!("ws://{}", listener.local_addr().expect("a bound address"));
        let (stop, tasks) = (CancellationToken::new(), Tasks::new());
        let calls = Arc::<Mutex<Vec<Value>>>::default();
        let (ended, inner, theirs) = (stop.clone(), tasks.clone(), Arc::clone(&calls));
        tasks.spawn(async move {
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    () = ended.cancelled() => return,
                };
                let (socket, _) = accepted.expect("an accepted connection");
                let (calls, ended) = (Arc::clone(&theirs), ended.clone());
                inner.spawn(async move {
                    tokio::select! {
                        () = serve(socket, calls) => {}
                        () = ended.cancelled() => {}
                    }
                });
            }
        });
        Self { url, calls, _stop: stop.drop_guard() }
    }

    /// The params of all calls of `tool`, in order.
    pub(crate) fn calls(&self, tool: &str) -> Vec<Value> {
        let calls = self.calls.lock().expect("no panics");
        calls.iter().filter(|call| call["name"] == tool).cloned().collect()
    }
}

async fn serve(socket: TcpStream, calls: Arc<Mutex<Vec<Value>>>) {
    let Ok(mut socket) = tokio_tungstenite::accept_async(socket).await else { return };
    while let Some(Ok(frame)) = socket.next().await {
        let Message::Text(text) = frame else { continue };
        let message: Value = serde_json::from_str(&text).expect("the gateway sends JSON");
        let Some(id) = message.get("id").filter(|_| message.get("method").is_some()) else {
            continue;
        };
        let answer = match message["method"].as_str().unwrap_or_default() {
            "server/discover" => Ok(json!({"resultType": "complete", "ttlMs": 0,
                "cacheScope": "private", "supportedVersions": ["2026-07-28"],
                "capabilities": {"tools": {}}})),
            "tools/list" => Ok(json!({"resultType": "complete", "tools": tools()})),
            "tools/call" => {
                calls.lock().expect("no panics").push(message["params"].clone());
                call(&message["params"])
            }
            _ => Err(json!({"code": -32601, "message": "Method not found"})),
        };
        let mut reply = json!({"jsonrpc": "2.0", "id": id});
        match answer {
            Ok(result) => reply["result"] = result,
            Err(error) => reply["error"] = error,
        }
        if socket.send(Message::text(reply.to_string())).await.is_err() {
            return;
        }
    }
}

fn tools() -> Vec<Value> {
    ["one", "two", "rounds", "for_ever", "later", "hollow", "meta", "error"]
        .map(|name| json!({"name": name, "inputSchema": {"type": "object"}}))
        .into()
}

fn call(params: &Value) -> Result<Value, Value> {
    let none = Map::new();
    let given = params["inputResponses"].as_object().unwrap_or(&none);
    let state = params["requestState"].as_str();
    let ask = |names: &[&str], state: Option<&str>| {
        let question = json!({"method": "elicitation/create", "params": {"message": "?",
            "requestedSchema": {"type": "object", "properties": {}}}});
        let mut result = json!({"resultType": "input_required"});
        if !names.is_empty() {
            let named = names.iter().map(|name| ((*name).to_owned(), question.clone()));
            result["inputRequests"] = Value::Object(named.collect());
        }
        if let Some(state) = state {
            result["requestState"] = json!(state);
        }
        result
    };
    let said = |value: Value| json!({"resultType": "complete", "content": [{"type": "text", "text": value.to_string()}]});
    Ok(match params["name"].as_str().unwrap_or_default() {
        "one" if given.contains_key("name") => said(json!({"given": given, "state": state})),
        "one" => ask(&["name"], Some("s-1")),
        "two" if given.contains_key("a") && given.contains_key("b") => {
            said(json!({"given": given, "state": state}))
        }
        "two" => ask(&["a", "b"], None),
        "rounds" => match state {
            None => ask(&["again"], Some("1")),
            Some("1") => ask(&["again"], Some("2")),
            _ => said(json!({"given": given, "state": state})),
        },
        "for_ever" => ask(&["again"], None),
        "later" if state == Some("later") => said(json!("now")),
        "later" => ask(&[], Some("later")),
        "hollow" => ask(&[], None),
        "meta" => said(params["_meta"].clone()),
        "error" => {
            return Err(json!({"code": -32050, "message": "no", "data": {"why": [1, 2]}}));
        }
        other => return Err(json!({"code": -32602, "message": format!("unknown: {other}")})),
    })
}
