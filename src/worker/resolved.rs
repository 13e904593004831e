//! Policies by their keys, resolved once: a worker asks for the same few again and again.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use crate::live::Live;
use crate::policy::{Policies, Rule};

/// How many keys are remembered. Who enqueues chooses a part of them, so that there may be any number.
const KEYS_MAX: usize = 1000;

/// The policies that hold at any moment.
pub(crate) struct Resolved<R: Rule> {
    policies: Live<Policies<R>>,
    known: Mutex<Known<R>>,
}

/// What was asked for, and of which policies.
struct Known<R: Rule> {
    of: Arc<Policies<R>>,
    policies: HashMap<String, Arc<R::Policy>>,
}

impl<R: Rule> fmt::Debug for Resolved<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolved").finish_non_exhaustive()
    }
}

impl<R: Rule> Resolved<R> {
    pub(crate) fn new(policies: Live<Policies<R>>) -> Self {
        let known = Known { of: policies.get(), policies: HashMap::new() };
        Self { policies, known: Mutex::new(known) }
    }

    /// The policy for `key`, as it is now.
    pub(crate) fn get(&self, key: &str) -> Arc<R::Policy> {
        let now = self.policies.get();
        // Nothing that can panic leaves it half done, so a poisoned one is still whole.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&known.of, &now) {
            *known = Known { of: now, policies: HashMap::new() };
        }
        if let Some(policy) = known.policies.get(key) {
            return Arc::clone(policy);
        }
        if known.policies.len() >= KEYS_MAX {
            known.policies.clear();
        }
        let policy = Arc::new(known.of.resolve(key));
        known.policies.insert(key.to_owned(), Arc::clone(&policy));
        policy
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::retry;

    fn of(attempts: u32) -> retry::Policies {
        let policies = json!({"policies": {"a": {"max_attempts": attempts}}});
        serde_json::from_value(policies).expect("good policies")
    }

    #[test]
    fn a_key_is_resolved_once_and_anew_when_the_policies_are_replaced() {
        let (setter, live) = Live::new(of(3));
        let resolved = Resolved::new(live);
        let first = resolved.get("a.b");
        assert_eq!(first.max_attempts, 3);
        assert!(Arc::ptr_eq(&first, &resolved.get("a.b")));
        setter.set(of(4));
        assert_eq!((resolved.get("a.b").max_attempts, first.max_attempts), (4, 3));
    }

    #[test]
    fn keys_that_somebody_makes_up_do_not_fill_the_memory() {
        let resolved = Resolved::new(Live::from(of(3)));
        for n in 0..3 * KEYS_MAX {
            assert_eq!(resolved.get(&format!("a.{n}")).max_attempts, 3);
        }
        assert!(resolved.known.lock().expect("whole").policies.len() <= KEYS_MAX);
    }
}
