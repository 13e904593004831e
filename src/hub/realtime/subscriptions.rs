//! Who is told of changes, by what their tokens may read.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::hub::realtime::binding::Binding;
use crate::hub::realtime::frame;
use crate::hub::realtime::scope::Scope;
use crate::hub::realtime::topics::Line;
use crate::realtime::wire::{System, TOPIC_PREFIX, event};

/// All that are told of changes.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions(Mutex<HashMap<Arc<str>, Group>>);

/// Those that may read the same rows, for whom the rows are read once.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    pub(crate) scope: Arc<Scope>,
    pub(crate) members: Vec<Arc<Subscription>>,
}

/// What one channel is told of.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) join_ref: Option<String>,
    /// With `realtime:`.
    pub(crate) topic: String,
    pub(crate) line: Arc<Line>,
    pub(crate) bindings: Vec<Binding>,
    pub(crate) over: AtomicBool,
}

impl Subscription {
    /// News of the subscription itself.
    pub(crate) fn tell(&self, news: &System) {
        let join_ref = self.join_ref.as_deref();
        let frame = frame::text(self.line.vsn, join_ref, None, &self.topic, event::SYSTEM, news);
        self.line.outbox.push(frame);
    }

    /// The topic without `realtime:`.
    pub(crate) fn name(&self) -> &str {
        self.topic.strip_prefix(TOPIC_PREFIX).unwrap_or(&self.topic)
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }
}

impl Subscriptions {
    pub(crate) fn add(&self, scope: Arc<Scope>, subscription: Arc<Subscription>) {
        let mut groups = self.lock();
        let group = groups.entry(Arc::clone(&scope.json));
        let group = group.or_insert_with(|| Group { scope, members: Vec::new() });
        group.members.push(subscription);
    }

    pub(crate) fn remove(&self, scope: &Scope, subscription: &Arc<Subscription>) {
        subscription.over.store(true, Ordering::Release);
        let mut groups = self.lock();
        if let Some(group) = groups.get_mut(&scope.json) {
            group.members.retain(|member| !Arc::ptr_eq(member, subscription));
            if group.members.is_empty() {
                groups.remove(&scope.json);
            }
        }
    }

    /// Who there is now.
    pub(crate) fn groups(&self) -> Vec<Group> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Group>> {
        // Nothing that can panic happens under the lock, so a poisoned one is still whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A channel's subscription, live or on its way to be; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    subscriptions: Arc<Subscriptions>,
    scope: Arc<Scope>,
    live: Arc<Mutex<Option<Arc<Subscription>>>>,
    given_up: CancellationToken,
}

impl Held {
    pub(crate) fn new(subscriptions: Arc<Subscriptions>, scope: Arc<Scope>) -> Self {
        let (live, given_up) = (Arc::default(), CancellationToken::new());
        Self { subscriptions, scope, live, given_up }
    }

    pub(crate) fn scope(&self) -> &Arc<Scope> {
        &self.scope
    }

    /// What makes it live.
    pub(crate) fn maker(&self) -> Maker {
        Maker {
            subscriptions: Arc::clone(&self.subscriptions),
            scope: Arc::clone(&self.scope),
            live: Arc::clone(&self.live),
            given_up: self.given_up.clone(),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.given_up.cancel();
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(subscription) = live {
            self.subscriptions.remove(&self.scope, &subscription);
        }
    }
}

/// Makes a [`Held`] live, unless it is dropped before.
pub(crate) struct Maker {
    subscriptions: Arc<Subscriptions>,
    scope: Arc<Scope>,
    live: Arc<Mutex<Option<Arc<Subscription>>>>,
    pub(crate) given_up: CancellationToken,
}

impl Maker {
    pub(crate) fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Whether it is live now: what is committed from here on is told.
    pub(crate) fn make(&self, subscription: Arc<Subscription>) -> bool {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        if self.given_up.is_cancelled() {
            return false;
        }
        self.subscriptions.add(Arc::clone(&self.scope), Arc::clone(&subscription));
        *live = Some(subscription);
        true
    }
}
