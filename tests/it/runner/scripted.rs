//! A handler that does what its messages say.

use std::sync::Arc;

use cogo::message::Message;
use cogo::worker::{Delivery, Failure, Handler, Output};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::fixtures::SOON;

/// Does what the payload says.
#[derive(Clone)]
pub(super) struct Scripted {
    /// Handlers told to wait take a permit from here.
    pub(super) gate: Arc<Semaphore>,
    /// Each that begins puts a permit here. What is claimed in the database may not have come to its handler yet.
    pub(super) begun: Arc<Semaphore>,
}

impl Scripted {
    pub(super) fn new() -> Self {
        Self { gate: Arc::new(Semaphore::new(0)), begun: Arc::new(Semaphore::new(0)) }
    }

    /// Waits until so many more have begun.
    pub(super) async fn have_begun(&self, many: u32) {
        let permits = tokio::time::timeout(SOON, self.begun.acquire_many(many)).await;
        permits.expect("they begin in time").expect("open").forget();
    }
}

impl Handler for Scripted {
    fn may_repeat(&self, message: &Message) -> bool {
        message.payload.get("once").is_none()
    }

    async fn handle(&self, delivery: Delivery) -> Result<Output, Failure> {
        self.begun.add_permits(1);
        let payload = &delivery.message.payload;
        match payload.get("do").and_then(Value::as_str) {
            Some("panic") => panic!("on purpose"),
            Some("fail") => {
                let class = serde_json::from_value(payload["class"].clone()).expect("a class");
                let failure = Failure::new(class, "on purpose");
                let failure = failure.with_detail(json!({"why": "a test"}));
                Err(Failure { unsent: payload.get("unsent").is_some(), ..failure })
            }
            Some("pass") => {
                self.gate.acquire().await.expect("open").forget();
                Ok(json!("passed").into())
            }
            Some("huge") => Ok(json!("x".repeat(17 << 20)).into()),
            Some("nul") => Ok(json!("a\0b").into()),
            Some("progress") => {
                delivery.progress(json!({"done": 0.5}));
                drop(self.gate.acquire().await);
                Ok(json!("done").into())
            }
            Some("wait") => {
                drop(self.gate.acquire().await);
                if payload.get("then").is_some() {
                    return Err(Failure::new(cogo::retry::ErrorClass::Connect, "on purpose"));
                }
                Ok(json!("waited").into())
            }
            Some("polite") => {
                delivery.cancelled.cancelled().await;
                let class = serde_json::from_value(payload["class"].clone()).expect("a class");
                Err(Failure::new(class, "cut off"))
            }
            Some("forever") => std::future::pending().await,
            _ => Ok(Output { result: payload.clone(), meta: json!({"note": "kept"}) }),
        }
    }
}
