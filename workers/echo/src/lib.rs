//! The smallest role: answers each message with its own payload. Copy this crate to write your own.

use cogo::message::Topic;
use cogo::worker::{Delivery, Failure, Handler, Output, Role, runner};

/// The role `echo`. It claims the topic `echo/default`.
pub const ROLE: Role = Role {
    name: "echo",
    about: "Answers each message with its own payload",
    start: |context| {
        Box::pin(async move {
            let topics = vec![Topic::new("echo", "default")?];
            runner::run(Echo, topics, &context).await
        })
    },
};

/// Answers with what it got.
#[derive(Debug, Clone, Copy)]
pub struct Echo;

impl Handler for Echo {
    async fn handle(&self, delivery: Delivery) -> Result<Output, Failure> {
        Ok(delivery.message.payload.clone().into())
    }
}
