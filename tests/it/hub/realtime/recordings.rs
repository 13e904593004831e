//! What the real clients sent, sent to the hub: the answers are those that they accept.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::{Served, token};

/// The first join, heartbeat and so on of each client, as they were recorded; tokens are the test's.
const RECORDED: [(&str, &[&str]); 4] = [
    (
        "supabase-js 2.109.0",
        &[
            r#"["6","6","realtime:f","phx_join",{"config":{"broadcast":{"ack":false,"self":false},"presence":{"key":"","enabled":false},"postgres_changes":[{"event":"INSERT","schema":"public","table":"agent_messages","filter":"status=in.(queued,retry)"},{"event":"UPDATE","schema":"public","table":"agent_messages","filter":"shard=gt.10,shard=lt.20"},{"event":"*","schema":"public"},{"event":"*","schema":"public","table":"agent_messages","select":["id","status"]}],"private":false}}]"#,
            r#"["6","7","realtime:f","access_token",{"access_token":"TOKEN"}]"#,
            r#"[null,"8","phoenix","heartbeat",{}]"#,
            r#"["6","9","realtime:f","phx_leave",{}]"#,
        ],
    ),
    (
        "supabase-js 2.49.4",
        &[
            r#"{"topic":"realtime:agents","event":"phx_join","payload":{"config":{"broadcast":{"ack":false,"self":false},"presence":{"key":"worker-1"},"postgres_changes":[],"private":false},"access_token":"TOKEN"},"ref":"1","join_ref":"1"}"#,
            r#"{"topic":"realtime:agents","event":"presence","payload":{"type":"presence","event":"track","payload":{"name":"worker-1","caps":["llm"]}},"ref":"2","join_ref":"1"}"#,
            r#"{"topic":"realtime:agents","event":"access_token","payload":{"access_token":"TOKEN"},"ref":"3","join_ref":"1"}"#,
            r#"{"topic":"realtime:agents","event":"presence","payload":{"type":"presence","event":"untrack"},"ref":"4","join_ref":"1"}"#,
        ],
    ),
    (
        "supabase-py 2.34.1",
        &[
            r#"{"event":"phx_join","payload":{"config":{"broadcast":{"ack":false,"self":false},"presence":{"key":"worker-1","enabled":true},"private":false,"postgres_changes":[]},"access_token":"TOKEN"},"topic":"realtime:agents","ref":"1","join_ref":"1"}"#,
            r#"{"event":"heartbeat","payload":{},"topic":"phoenix","ref":null,"join_ref":null}"#,
            r#"{"event":"presence","payload":{"event":"track","payload":{"name":"worker-1"}},"topic":"realtime:agents","ref":"2","join_ref":"1"}"#,
            r#"{"event":"presence","payload":{"event":"untrack","payload":{}},"topic":"realtime:agents","ref":"3","join_ref":"1"}"#,
        ],
    ),
    (
        "supabase-py 2.15.0",
        &[
            r#"{"event":"phx_join","payload":{"config":{"broadcast":null,"presence":null,"private":false,"postgres_changes":[{"event":"INSERT","schema":"public","table":"agent_messages","filter":null}]},"access_token":"TOKEN"},"topic":"realtime:w","ref":"1","join_ref":null}"#,
            r#"{"event":"broadcast","payload":{"type":"broadcast","event":"x","payload":{"a":1}},"topic":"realtime:w","ref":"2","join_ref":null}"#,
            r#"{"event":"phx_leave","payload":{},"topic":"realtime:w","ref":"3","join_ref":null}"#,
        ],
    ),
];

#[tokio::test]
async fn the_frames_of_the_real_clients_are_answered_as_they_accept() -> Result<()> {
    let hub = Served::new().await?;
    let token = token("acme");
    for (client, frames) in RECORDED {
        let v2 = frames[0].starts_with('[');
        let vsn = if v2 { "2.0.0" } else { "1.0.0" };
        let mut socket = hub.client(vsn, &token).await?;
        for frame in frames {
            let frame = frame.replace("TOKEN", &token);
            let sent: Value = serde_json::from_str(&frame)?;
            let part =
                |at: usize, name: &str| if v2 { sent[at].clone() } else { sent[name].clone() };
            let (reference, event) = (part(1, "ref"), part(3, "event"));
            socket.raw(Message::text(frame.clone())).await?;
            if ["access_token", "broadcast"].contains(&event.as_str().unwrap_or_default()) {
                continue; // not answered
            }
            let answer = loop {
                let heard = socket.hear().await.with_context(|| format!("{client}: {frame}"))?;
                if heard.event == "phx_reply" {
                    break heard;
                }
            };
            assert_eq!(answer.reference, reference, "{client}: {frame}");
            assert_eq!(answer.payload["status"], "ok", "{client}: {frame}");
            if event == "phx_join" {
                let asked = part(4, "payload")["config"]["postgres_changes"].clone();
                let granted = answer.payload["response"]["postgres_changes"].clone();
                let asked = asked.as_array().context("a list")?;
                let granted = granted.as_array().context("a list")?;
                assert_eq!(asked.len(), granted.len(), "{client}");
                for (asked, granted) in asked.iter().zip(granted) {
                    // As both clients compare them.
                    for field in ["event", "schema", "table", "filter"] {
                        assert_eq!(asked.get(field), granted.get(field), "{client}: {field}");
                    }
                    assert!(granted["id"].as_u64().is_some_and(|id| id > 0), "{client}");
                }
            } else {
                assert_eq!(answer.payload["response"], json!({}), "{client}: {frame}");
            }
        }
    }
    Ok(())
}
