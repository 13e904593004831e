//! Making a subscription to changes live.

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;

use crate::error::chain;
use crate::hub::realtime::binding::Binding;
use crate::hub::realtime::catalog::Unready;
use crate::hub::realtime::channel::Channel;
use crate::hub::realtime::scope::Scope;
use crate::hub::realtime::subscriptions::{Held, Maker, Subscription};
use crate::hub::realtime::{Inner, changes};
use crate::realtime::wire::{self, System, event};

/// How long until a subscription is tried again whose database does not answer; Realtime takes 5 to 10 s.
const RETRY_S: std::ops::Range<f64> = 5.0..10.0;

/// Begins to subscribe a channel to what it asked for, as its token may read; what it had goes once the new one
/// is live.
pub(crate) fn begin(inner: &Arc<Inner>, channel: &mut Channel) {
    if channel.bindings.is_empty() {
        return;
    }
    let scope = Arc::new(Scope::of(&channel.verified.claims));
    let held = Held::new(Arc::clone(&inner.subscriptions), scope);
    let maker = held.maker();
    let before = channel.changes.replace(held);
    let subscription = Subscription {
        join_ref: channel.join_ref.clone(),
        topic: channel.topic.clone(),
        line: Arc::clone(&channel.line),
        bindings: Vec::new(),
        over: false.into(),
    };
    let (inner, asked) = (Arc::clone(inner), Arc::clone(&channel.bindings));
    let tasks = inner.tasks.clone();
    // It ends with the channel, or with the process.
    tasks.spawn(async move {
        let given_up = maker.given_up.clone();
        tokio::select! {
            () = subscribe(&inner, &maker, subscription, &asked) => drop(before),
            () = given_up.cancelled() => {}
            () = inner.shutdown.draining().cancelled() => {}
        }
    });
}

async fn subscribe(
    inner: &Inner,
    maker: &Maker,
    mut subscription: Subscription,
    asked: &[wire::Binding],
) {
    let wrong =
        |what: &str| format!("Unable to subscribe to changes with given parameters: {what}");
    let fail = |subscription: &Subscription, message: String| {
        let channel = subscription.name();
        subscription.tell(&System::error(event::POSTGRES_CHANGES, message, channel));
    };
    let bindings: Result<Vec<Binding>, String> = asked.iter().map(Binding::read).collect();
    let bindings = match bindings {
        Ok(bindings) => bindings,
        Err(what) => return fail(&subscription, wrong(&what)),
    };
    loop {
        // From here on the log's reader has its place: whatever commits later, it has yet to read.
        inner.feed.begun().await;
        match check(inner, maker.scope(), &bindings).await {
            Ok(()) => break,
            Err(Unready::Refused(what)) => return fail(&subscription, wrong(&what)),
            Err(Unready::Database(error)) => {
                tracing::debug!("Could not subscribe ({error}); trying again");
                fail(&subscription, "The database does not answer; trying again".to_owned());
                let pause = rand::rng().random_range(RETRY_S);
                tokio::time::sleep(Duration::from_secs_f64(pause)).await;
            }
        }
    }
    subscription.bindings = bindings;
    let subscription = Arc::new(subscription);
    if maker.make(Arc::clone(&subscription)) {
        subscription.tell(&System::subscribed(subscription.name()));
    }
}

/// Has the database look at what was asked for, with the subscriber's rights and as long as one of its statements
/// may take.
async fn check(inner: &Inner, scope: &Scope, bindings: &[Binding]) -> Result<(), Unready> {
    let failed = |error: sqlx::Error| Unready::Database(chain(&error).to_string());
    let catalog = inner.catalog().await.map_err(failed)?;
    let mut transaction = changes::begin(inner, scope).await.map_err(Unready::Database)?;
    for binding in bindings {
        catalog.check(&mut transaction, binding).await?;
    }
    transaction.commit().await.map_err(failed)
}
