//! Calls as tasks (SEP-2663).

use std::time::Duration;

use serde_json::{Value, json};

use super::wire::Wire;
use crate::mesh::site::Site;
use crate::support::PATIENCE;

async fn site(task_after_ms: u64) -> Site {
    let config = cogo_worker_mcp_gateway::config::Mesh { task_after_ms, ..Default::default() };
    Site::with(config).await
}

async fn ended(wire: &Wire, id: &str) -> Value {
    let wait = async {
        loop {
            let task = wire.ask_with_tasks("tasks/get", json!({"taskId": id})).await;
            let task = task.result().clone();
            if task["status"] != "working" {
                return task;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("it ends")
}

#[tokio::test]
async fn a_call_that_takes_its_time_becomes_a_task() {
    let site = site(500).await;
    let _machine = site.demo().await;
    let wire = Wire::of(&site).await;
    let slow = json!({"name": "demo__sleep", "arguments": {"ms": 5000}});
    let created = wire.ask_with_tasks("tools/call", slow.clone()).await;
    let task = created.result();
    assert_eq!((&task["resultType"], &task["status"]), (&json!("task"), &json!("working")));
    for time in ["createdAt", "lastUpdatedAt"] {
        let time = task[time].as_str().expect("a time");
        assert!(chrono::DateTime::parse_from_rfc3339(time).is_ok(), "{time}");
    }
    assert!(task["ttlMs"].is_number() && task["pollIntervalMs"].is_number(), "{task}");
    let id = task["taskId"].as_str().expect("an id");
    let task = ended(&wire, id).await;
    assert_eq!(task["status"], "completed");
    assert_eq!(task["result"]["content"][0]["text"], "slept 5000 ms");
    // A client that knows no tasks gets none.
    let waited = wire.ask("tools/call", slow).await;
    assert_eq!(waited.result()["content"][0]["text"], "slept 5000 ms");
}

#[tokio::test]
async fn a_call_that_ends_in_time_is_no_task() {
    // More than a call takes on any machine.
    let site = site(60_000).await;
    let _machine = site.demo().await;
    let wire = Wire::of(&site).await;
    let quick = json!({"name": "demo__echo", "arguments": {"message": "hi"}});
    let answered = wire.ask_with_tasks("tools/call", quick).await;
    assert_eq!(answered.result()["content"][0]["text"], "hi");
}

#[tokio::test]
async fn a_tools_failure_completes_a_task() {
    let site = site(0).await;
    let _machine = site.demo().await;
    let wire = Wire::of(&site).await;
    let fails = json!({"name": "demo__fail", "arguments": {"message": "no"}});
    let created = wire.ask_with_tasks("tools/call", fails).await;
    let task = ended(&wire, created.result()["taskId"].as_str().expect("a task")).await;
    assert_eq!((&task["status"], &task["result"]["isError"]), (&json!("completed"), &json!(true)));
}

#[tokio::test]
async fn a_task_is_cancelled() {
    let site = site(0).await;
    let _machine = site.demo().await;
    let wire = Wire::of(&site).await;
    let slow = json!({"name": "demo__sleep", "arguments": {"ms": 60_000}});
    let created = wire.ask_with_tasks("tools/call", slow).await;
    let id = created.result()["taskId"].as_str().expect("a task").to_owned();
    assert!(wire.ask_with_tasks("tasks/cancel", json!({"taskId": id})).await.result().is_object());
    assert_eq!(ended(&wire, &id).await["status"], "cancelled");
    assert!(wire.ask_with_tasks("tasks/cancel", json!({"taskId": id})).await.result().is_object());
}

#[tokio::test]
async fn tasks_are_for_who_knows_them_and_for_whose_they_are() {
    let site = site(0).await;
    let _machine = site.demo().await;
    let wire = Wire::of(&site).await;
    let quick = json!({"name": "demo__echo", "arguments": {"message": "hi"}});
    let created = wire.ask_with_tasks("tools/call", quick).await;
    let id = created.result()["taskId"].as_str().expect("a task").to_owned();
    let undeclared = wire.ask("tasks/get", json!({"taskId": id})).await;
    assert_eq!((undeclared.status, undeclared.code()), (400, -32021));
    let needed = &undeclared.last()["error"]["data"]["requiredCapabilities"]["extensions"];
    assert!(needed["io.modelcontextprotocol/tasks"].is_object());
    for unknown in ["00000000-0000-7000-8000-000000000000", "no id"] {
        let answered = wire.ask_with_tasks("tasks/get", json!({"taskId": unknown})).await;
        assert_eq!(answered.code(), -32602);
    }
    let other = wire.with_token(site.key(&["mcp-gateway/other"], 60));
    assert_eq!(other.ask_with_tasks("tasks/get", json!({"taskId": id})).await.code(), -32602);
    for gone in ["tasks/result", "tasks/list"] {
        assert_eq!(wire.ask_with_tasks(gone, json!({"taskId": id})).await.code(), -32601);
    }
}
