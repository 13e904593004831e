//! What a task that has not ended is about, in words.

use cogo::message::{Message, Status};

/// Where `message` stands; `workers` is how many machines that are online offer its tool.
pub(super) fn words(message: &Message, workers: usize) -> String {
    let class = message.error.as_ref().and_then(|error| error["class"].as_str());
    match (message.status, message.parked_for.as_deref()) {
        (Status::Claimed, _) => match message.attempts {
            0 | 1 => "runs".to_owned(),
            attempt => format!("runs, attempt {attempt} of {}", message.max_attempts),
        },
        (_, Some("ordering")) => "waits for earlier calls of its ordering key".to_owned(),
        (_, Some(_)) => {
            format!("waits: the circuit breaker of {} is open", message.service)
        }
        (Status::Delayed, _) if let Some(class) = class => {
            let attempt = message.attempts;
            format!(
                "attempt {attempt} of {} failed ({class}); the next is due at {}",
                message.max_attempts,
                message.run_at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
            )
        }
        (Status::Delayed, _) => "is not due yet".to_owned(),
        _ if workers == 0 => {
            format!("waits for a machine that offers {} to come back", message.service)
        }
        _ => "is queued".to_owned(),
    }
}
