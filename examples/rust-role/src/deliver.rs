//! The work: `{"items": [...]}` becomes a POST for each item.

use std::time::Duration;

use cogo::message::Message;
use cogo::retry::ErrorClass;
use cogo::worker::{Delivery, Failure, Handler, Output};
use serde_json::{Value, json};

/// How long the service may take to answer; under the `timeout_ms` of the retry policy.
const ANSWER: Duration = Duration::from_secs(10);

/// Brings items to a service.
#[derive(Debug)]
pub struct Deliver {
    /// Where they go.
    pub to: String,
    /// Whether the service knows an `Idempotency-Key` when it sees it again.
    pub repeatable: bool,
    /// The way there.
    pub http: reqwest::Client,
}

impl Handler for Deliver {
    async fn handle(&self, delivery: Delivery) -> Result<Output, Failure> {
        let message = &delivery.message;
        let Some(items) = message.payload["items"].as_array() else {
            return Err(Failure::new(ErrorClass::InvalidParams, "payload.items: must be an array"));
        };
        if may_have_run(message) && !self.repeatable {
            let text = "an earlier attempt may have delivered some of it";
            return Err(Failure::new(ErrorClass::Ambiguous, text));
        }
        for (n, item) in items.iter().enumerate() {
            let key = format!("{}/{n}", message.id); // the same at each attempt
            self.deliver(&key, item).await.map_err(|failure| match n {
                0 => failure,
                _ if self.repeatable => failure,
                // Whoever tries again would deliver the first ones twice.
                _ => Failure::new(
                    ErrorClass::Ambiguous,
                    format!("{n} of {} are delivered; then: {failure}", items.len()),
                ),
            })?;
            delivery.progress(json!({"progress": n + 1, "total": items.len()}));
        }
        Ok(json!({"delivered": items.len()}).into())
    }

    /// Whether a handler that was cut off in the middle may simply run again.
    fn may_repeat(&self, _message: &Message) -> bool {
        self.repeatable
    }
}

impl Deliver {
    async fn deliver(&self, key: &str, item: &Value) -> Result<(), Failure> {
        let request = self.http.post(&self.to).header("idempotency-key", key).json(item);
        let status = match request.timeout(ANSWER).send().await {
            Ok(answer) => answer.status(),
            Err(error) if error.is_connect() => {
                let text = format!("{} is not reached", self.to);
                return Err(Failure::new(ErrorClass::Connect, text));
            }
            Err(_) if !self.repeatable => {
                let text = format!("no answer to {key}: it may have been delivered");
                return Err(Failure::new(ErrorClass::Ambiguous, text));
            }
            Err(error) => {
                let class =
                    if error.is_timeout() { ErrorClass::Timeout } else { ErrorClass::Closed };
                return Err(Failure::new(class, format!("no answer to {key}")));
            }
        };
        match status.as_u16() {
            200..=299 => Ok(()),
            500.. => {
                Err(Failure::new(ErrorClass::ToolError, format!("{} answers {status}", self.to)))
            }
            _ => Err(Failure::new(
                ErrorClass::InvalidParams,
                format!("{} refuses {key}: {status}", self.to),
            )),
        }
    }
}

/// Whether the worker of an earlier attempt vanished, and may have done the work or a part of it.
fn may_have_run(message: &Message) -> bool {
    let class = message.error.as_ref().and_then(|error| error["class"].as_str());
    message.attempts > 1 && class == Some(ErrorClass::LeaseExpired.as_str())
}
