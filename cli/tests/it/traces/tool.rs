//! An MCP server with one tool, which says what it was told of the trace.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::server::{Answer, Request, serve};

/// The tool's server.
pub(super) struct Tool {
    pub(super) url: String,
    /// The `_meta` of each call.
    pub(super) metas: Arc<Mutex<Vec<Value>>>,
}

impl Tool {
    /// A server whose first `failures` calls fail.
    pub(super) fn start(failures: usize) -> Self {
        let metas: Arc<Mutex<Vec<Value>>> = Arc::default();
        let kept = Arc::clone(&metas);
        let url = serve(move |request| answer(&request, &kept, failures));
        Self { url: format!("{url}/mcp"), metas }
    }

    pub(super) fn metas(&self) -> Vec<Value> {
        self.metas.lock().expect("unpoisoned").clone()
    }
}

fn answer(request: &Request, metas: &Mutex<Vec<Value>>, failures: usize) -> Answer {
    const JSON: &str = "application/json";
    if request.method != "POST" {
        return (405, JSON, Vec::new());
    }
    let asked: Value = serde_json::from_slice(&request.body).expect("JSON");
    let Some(id) = asked.get("id") else { return (202, JSON, Vec::new()) };
    let result = match asked["method"].as_str() {
        Some("initialize") => json!({
            "protocolVersion": "2025-11-25", "capabilities": {"tools": {}},
            "serverInfo": {"name": "mirror", "version": "1.2.3"},
        }),
        Some("tools/list") => json!({"tools": [{
            "name": "look", "inputSchema": {"type": "object"},
            "annotations": {"readOnlyHint": true},
        }]}),
        Some("tools/call") => {
            let mut metas = metas.lock().expect("unpoisoned");
            metas.push(asked["params"]["_meta"].clone());
            if metas.len() <= failures {
                let error = json!({"code": -32603, "message": "hunter2 said no"});
                let body = json!({"jsonrpc": "2.0", "id": id, "error": error});
                return (200, JSON, body.to_string().into_bytes());
            }
            json!({"content": [{"type": "text", "text": "hunter2"}]})
        }
        Some("ping") => json!({}),
        _ => {
            let error = json!({"code": -32601, "message": "unknown method"});
            let body = json!({"jsonrpc": "2.0", "id": id, "error": error});
            return (200, JSON, body.to_string().into_bytes());
        }
    };
    let body = json!({"jsonrpc": "2.0", "id": id, "result": result});
    (200, JSON, body.to_string().into_bytes())
}
