//! What a tool asks, and the message that answers it.

use std::time::Duration;

use cogo::message::{Message, MessageId, NewMessage};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::upstream::Input;

/// How long to wait where a tool names a state and asks nothing: it wants to be called again, later.
const PAUSE: Duration = Duration::from_secs(1);
/// When the message of a cancelled follow-up would be due, if it were not cancelled at once.
const NEVER: Duration = Duration::from_secs(300 * 24 * 3600);

/// What a tool asks in one round.
pub(super) struct Questions {
    requests: Map<String, Value>,
    state: Option<String>,
    round: usize,
}

impl Questions {
    /// Those of a result. None where it neither asks nor names a state.
    pub(super) fn of(result: &Value, round: usize) -> Option<Self> {
        let requests = result["inputRequests"].as_object().cloned().unwrap_or_default();
        let state = result["requestState"].as_str().map(str::to_owned);
        (!requests.is_empty() || state.is_some()).then_some(Self { requests, state, round })
    }

    /// What the tool wants to have back.
    pub(super) fn state(&self) -> Option<&str> {
        self.state.as_deref()
    }

    /// Those that have no answer, under the names by which they are to be answered.
    pub(super) fn open(&self, given: &Map<String, Value>) -> Map<String, Value> {
        let open = self.requests.iter().filter(|(name, _)| !given.contains_key(*name));
        open.map(|(name, request)| (self.shown(name), request.clone())).collect()
    }

    /// Which of `responses` answer what is open, under the tool's own names.
    pub(super) fn answered_by(
        &self,
        mut responses: Map<String, Value>,
        given: &Map<String, Value>,
    ) -> Map<String, Value> {
        let open = self.requests.keys().filter(|name| !given.contains_key(*name));
        open.filter_map(|name| Some((name.clone(), responses.remove(&self.shown(name))?))).collect()
    }

    /// Whether all is answered.
    pub(super) fn all_in(&self, given: &Map<String, Value>) -> bool {
        self.requests.keys().all(|name| given.contains_key(name))
    }

    /// The answers to these questions, and nothing else.
    pub(super) fn of_these(&self, mut given: Map<String, Value>) -> Map<String, Value> {
        given.retain(|name, _| self.requests.contains_key(name));
        given
    }

    /// A name as a client sees it. It must be unique in the life of a task (SEP-2663), and a tool may ask the same
    /// again in a later round: a late answer to the earlier question must not answer that.
    fn shown(&self, name: &str) -> String {
        match self.round {
            0 => name.to_owned(),
            round => format!("{name}#{}", round + 1),
        }
    }
}

/// Why there is a follow-up.
pub(super) enum Cause<'a> {
    /// The tool goes on.
    Answered {
        /// The answers.
        responses: Map<String, Value>,
        /// What the tool wanted to have back.
        state: Option<String>,
    },
    /// It does not: somebody cancelled the task, and says why.
    Cancelled(&'a str),
}

/// The id of the message that follows `asking`: always the same, near to it in time, and not to be met by chance.
pub(super) fn id(asking: MessageId) -> MessageId {
    let mut hash = Sha256::new();
    hash.update(b"cogo: what follows ");
    hash.update(asking.0.as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.finalize()[..16]);
    // RFC 9562, section 5.7: 48 bits of time, which are those of the message before; then version and variant.
    bytes[..6].copy_from_slice(&asking.0.as_bytes()[..6]);
    bytes[6] = 0x70 | bytes[6] & 0x0f;
    bytes[8] = 0x80 | bytes[8] & 0x3f;
    MessageId(Uuid::from_bytes(bytes))
}

/// The message that follows `asking`: the same call, in the same trace, with as much time.
pub(super) fn message(asking: &Message, cause: Cause<'_>) -> NewMessage {
    let mut payload = asking.payload.clone();
    let mut delay = Duration::ZERO;
    payload["input"] = match cause {
        Cause::Answered { responses, state } => {
            if responses.is_empty() {
                delay = PAUSE;
            }
            json!(Input { responses: responses.into_iter().collect(), state })
        }
        Cause::Cancelled(reason) => {
            delay = NEVER;
            json!({ "cancelled": reason })
        }
    };
    let time = asking.deadline_at.map(|at| (at - asking.created_at).num_milliseconds().max(1));
    let deadline_ms = time.and_then(|ms| u64::try_from(ms).ok()).filter(|_| delay < NEVER);
    NewMessage {
        id: id(asking.id),
        tenant: asking.tenant.clone(),
        role: asking.role.clone(),
        service: asking.service.clone(),
        shard: asking.shard,
        intent: asking.intent.clone(),
        payload,
        trace_id: Some(asking.trace_id),
        parent_id: Some(asking.id),
        idempotency_key: None,
        priority: asking.priority,
        max_attempts: Some(asking.max_attempts),
        deadline_ms,
        ordering_key: None,
        delay,
    }
}

/// Why the task was cancelled, where this message says that it was.
pub(super) fn cancelled(message: &Message) -> Option<&str> {
    message.payload.get("input")?.get("cancelled")?.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_that_follows_is_always_the_same_and_is_a_uuid_of_its_time() {
        let asking = MessageId::new();
        let (one, other) = (id(asking), id(asking));
        assert_eq!(one, other);
        assert_ne!(one, id(MessageId::new()));
        assert_ne!(one, asking);
        assert_eq!(one.0.get_version_num(), 7);
        assert_eq!(one.0.as_bytes()[..6], asking.0.as_bytes()[..6]);
    }

    fn questions(round: usize) -> Questions {
        let result = json!({"inputRequests": {"a": {"method": "x"}, "b": {"method": "y"}},
            "requestState": "s"});
        Questions::of(&result, round).expect("questions")
    }

    fn map(value: Value) -> Map<String, Value> {
        value.as_object().cloned().expect("an object")
    }

    #[test]
    fn answers_count_once_and_only_for_what_is_asked() {
        let asked = questions(0);
        let first = asked.answered_by(map(json!({"a": 1, "nonsense": 2})), &Map::new());
        assert_eq!(first, map(json!({"a": 1})));
        assert!(!asked.all_in(&first));
        assert_eq!(asked.open(&first), map(json!({"b": {"method": "y"}})));
        assert_eq!(asked.answered_by(map(json!({"a": 9, "b": 3})), &first), map(json!({"b": 3})));
        let all = map(json!({"a": 1, "b": 3, "c": 4}));
        assert!(asked.all_in(&all));
        assert_eq!(asked.of_these(all), map(json!({"a": 1, "b": 3})));
    }

    #[test]
    fn a_name_that_comes_again_is_another_one() {
        let later = questions(1);
        assert_eq!(later.open(&Map::new()).keys().collect::<Vec<_>>(), ["a#2", "b#2"]);
        let late = later.answered_by(map(json!({"a": 1})), &Map::new());
        assert!(late.is_empty(), "it answers the first round's question");
        let good = later.answered_by(map(json!({"a#2": 1})), &Map::new());
        assert_eq!(good, map(json!({"a": 1})), "the tool knows its own name");
    }

    #[test]
    fn a_result_that_asks_nothing_is_no_question() {
        assert!(Questions::of(&json!({"inputRequests": {}}), 0).is_none());
        assert!(Questions::of(&json!({"inputRequests": {}, "requestState": "s"}), 0).is_some());
    }
}
