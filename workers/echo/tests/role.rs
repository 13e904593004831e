//! The role at work, on a real Postgres.

use cogo::message::{NewMessage, Status, Topic};
use cogo::testing::{RunningRole, TestDb};
use cogo_worker_echo::ROLE;
use serde_json::json;

#[tokio::test]
async fn a_message_is_answered_with_its_own_payload() {
    let db = TestDb::new().await;
    let role = RunningRole::start(&ROLE, &db).await;
    let topic = Topic::new("echo", "default").expect("a good topic");
    let message = NewMessage::new(&topic, "echo", json!({"hello": "world"}));

    let id = role.bus().publish(message).await.expect("published").id;

    let done = role.finished(id).await;
    assert_eq!(done.status, Status::Done);
    assert_eq!(done.result, Some(json!({"hello": "world"})));
    role.stop().await;
}
