//! The calls that clients wait for, and which one a client means when it cancels.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use cogo::message::MessageId;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

/// The longest request id that can be cancelled by; longer ones are served all the same.
const ID_MAX: usize = 128;

/// Where a request's id is of one sort: two clients may number their requests alike.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Scope {
    /// A session of streamable HTTP.
    Session(Arc<str>),
    /// All requests of one principal that have no session.
    Principal([u8; 32]),
    /// A WebSocket, by the number it was given.
    Socket(u64),
}

/// A request, as a client names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    scope: Scope,
    id: String,
}

impl Key {
    /// The session that the request is of, if it is of one.
    pub(super) fn session(&self) -> Option<&str> {
        match &self.scope {
            Scope::Session(session) => Some(session),
            _ => None,
        }
    }

    /// None for an id that nobody can mean.
    pub(super) fn new(scope: Scope, id: &Value) -> Option<Self> {
        let id = match id {
            Value::String(_) | Value::Number(_) => id.to_string(),
            _ => return None,
        };
        (id.len() <= ID_MAX).then_some(Self { scope, id })
    }
}

/// One call that a client waits for.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// Its message, once there is one.
    pub(super) id: OnceLock<MessageId>,
    /// Cancelled when the client has said that it does not want the call any more.
    pub(super) unwanted: CancellationToken,
}

/// All calls that are waited for. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Calls(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    named: HashMap<Key, Named>,
}

/// What has one name.
#[derive(Debug)]
struct Named {
    /// None where two requests have had the name at a time: then nobody can tell which is meant, until all are gone.
    waiting: Option<Arc<Waiting>>,
    count: usize,
}

impl Calls {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the call under the name that its client has for it.
    pub(super) fn enter(&self, key: Option<Key>) -> Entered {
        let waiting = Arc::<Waiting>::default();
        if let Some(key) = &key {
            match self.lock().named.entry(key.clone()) {
                Entry::Vacant(entry) => {
                    entry.insert(Named { waiting: Some(Arc::clone(&waiting)), count: 1 });
                }
                // As long as there are two, neither can be meant. Only a client that breaks JSON-RPC does so within
                // a session; without one, two clients with one key may.
                Entry::Occupied(mut entry) => {
                    let named = entry.get_mut();
                    named.waiting = None;
                    named.count += 1;
                }
            }
        }
        Entered { calls: self.clone(), key, waiting }
    }

    /// The call that a client calls `key`, if it waits for one.
    pub(super) fn find(&self, key: &Key) -> Option<Arc<Waiting>> {
        self.lock().named.get(key)?.waiting.clone()
    }
}

/// That a call can be found by its client's name for it.
#[derive(Debug)]
pub(super) struct Entered {
    calls: Calls,
    key: Option<Key>,
    pub(super) waiting: Arc<Waiting>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let Some(key) = &self.key else { return };
        let mut calls = self.calls.lock();
        if let Some(named) = calls.named.get_mut(key) {
            named.count -= 1;
            if named.count == 0 {
                calls.named.remove(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn key(socket: u64, id: Value) -> Option<Key> {
        Key::new(Scope::Socket(socket), &id)
    }

    #[test]
    fn a_call_is_found_by_its_clients_name_for_it_and_by_nobody_elses() {
        let calls = Calls::default();
        let entered = calls.enter(key(1, json!(7)));
        assert!(calls.find(&key(1, json!(7)).unwrap()).is_some());
        assert!(calls.find(&key(2, json!(7)).unwrap()).is_none());
        assert!(calls.find(&key(1, json!("7")).unwrap()).is_none());
        drop(entered);
        assert!(calls.find(&key(1, json!(7)).unwrap()).is_none());
        assert!(calls.lock().named.is_empty());
    }

    #[test]
    fn of_two_calls_with_one_name_neither_is_found() {
        let calls = Calls::default();
        let one = calls.enter(key(1, json!(7)));
        let other = calls.enter(key(1, json!(7)));
        assert!(calls.find(&key(1, json!(7)).unwrap()).is_none());
        // Nor is the next, while one of them is still there: it is what the older one's client may mean.
        drop(one);
        let third = calls.enter(key(1, json!(7)));
        assert!(calls.find(&key(1, json!(7)).unwrap()).is_none());
        drop((other, third));
        let next = calls.enter(key(1, json!(7)));
        let found = calls.find(&key(1, json!(7)).unwrap()).expect("it is alone");
        assert!(Arc::ptr_eq(&found, &next.waiting));
        drop(next);
        assert!(calls.lock().named.is_empty());
    }
}
