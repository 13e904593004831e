//! What a worker does beside its messages: it shows itself, and looks after what time changes.

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::bus::{Bus, Signal};
use crate::error::chain;
use crate::live::Live;
use crate::message::Topic;
use crate::worker::Handler;
use crate::worker::in_flight::InFlight;
use crate::worker::runner::Options;

/// The shortest pause between two signs of life.
const SHOW_MIN: Duration = Duration::from_secs(1);
/// How many messages one look at what is due takes.
const REAP_MAX: u32 = 1000;

/// Promotes what is due and takes back what was lost. Every worker does; it is cheap, and then no worker depends
/// on another being there.
pub(crate) async fn reap(bus: Bus, stop: CancellationToken) {
    // A breaker that closes lets go what is parked, and one that opens is to be looked at when it is over.
    let mut woken = bus.waker(Signal::Circuit);
    // What is put off after a look is not foreseen by it.
    let mut put_off = bus.waker(Signal::Due);
    let mut expected = false;
    loop {
        let reaped = bus.reap(REAP_MAX).await;
        let pace = bus.pace();
        if pace.is_far && std::mem::take(&mut expected) {
            // Somebody else may have been first, whose promotions nobody tells of.
            bus.wake(Signal::Work);
        }
        let due = match &reaped {
            Ok(reaped) => reaped.next_due_ms.and_then(|ms| u64::try_from(ms).ok()),
            Err(error) => {
                tracing::debug!(error = %chain(error), "Could not reap; trying again");
                None
            }
        };
        let pause = match reaped {
            Ok(_) => pace.reap_pause(due.map(Duration::from_millis)),
            Err(_) => pace.pause_untold(),
        };
        // Not at once: many workers may have heard of it.
        let soonest = tokio::time::sleep(pace.pause_untold());
        let sooner = async {
            soonest.await;
            put_off.woken().await;
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => expected = due.is_some() && !pace.is_reaped,
            () = sooner, if pace.is_far && !pace.is_reaped => expected = true,
            () = woken.woken(), if !pace.is_reaped => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Shows the worker in `workers`, three times a lease, so that two calls may fail before it is taken for lost;
/// as soon as the bus is heard of again, since it may have been by then; and when its topics or what it says of itself
/// have changed.
pub(crate) async fn show<H: Handler>(
    bus: Bus,
    handler: Arc<H>,
    options: Options,
    (role, mut topics): (String, Live<Vec<Topic>>),
    in_flight: InFlight,
    stop: CancellationToken,
) {
    let mut rejoined = bus.waker(Signal::Link);
    let lease = options.lease.max(SHOW_MIN * 3);
    let mut told = None;
    loop {
        let mut info = handler.info();
        if let Some(fields) = info.as_object_mut() {
            // How much a fleet can take is known to nobody else.
            fields.entry("capacity").or_insert_with(|| json!(options.concurrency));
        }
        let says = (topics.get(), info);
        let worker = json!({
            "id": options.worker_id,
            "tenant": options.tenant,
            "role": role,
            "host": host_name(),
            "version": env!("CARGO_PKG_VERSION"),
            "topics": says.0.iter().map(Topic::to_string).collect::<Vec<_>>(),
            "lease_ms": u64::try_from(lease.as_millis()).unwrap_or(u64::MAX),
            "in_flight": in_flight.running(),
            "info": says.1,
        });
        // One that is not answered is not waited for either: carried out after the goodbye, it would take that back.
        let seen = tokio::select! {
            seen = bus.worker_seen(&worker) => seen,
            () = stop.cancelled() => return,
        };
        match seen {
            // Whoever follows the log is to know of it at once, and not when it next looks.
            Ok(_) if told.as_ref() != Some(&says) => {
                bus.wake(Signal::Log);
                told = Some(says);
            }
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(error = %chain(&error), "Could not show this worker");
            }
        }
        // Not sooner, however often the link comes and goes.
        let soonest = tokio::time::sleep(jittered(SHOW_MIN));
        let next = tokio::time::sleep(jittered(lease / 3));
        let due = async {
            soonest.await;
            tokio::select! {
                () = next => {}
                () = rejoined.woken() => {}
                () = topics.changed() => {}
                () = handler.info_changed() => {}
            }
        };
        tokio::select! {
            () = due => {}
            () = stop.cancelled() => return,
        }
    }
}

/// The name of the machine, if it has one that can be read.
fn host_name() -> String {
    let variable = |name| std::env::var(name).ok();
    variable("HOSTNAME")
        .or_else(|| variable("COMPUTERNAME"))
        .or_else(|| std::fs::read_to_string("/etc/hostname").ok())
        .map(|name| name.trim().to_owned())
        .unwrap_or_default()
}

/// Between three quarters of the duration and all of it, so that workers do not move in step.
pub(crate) fn jittered(duration: Duration) -> Duration {
    duration.mul_f64(rand::rng().random_range(0.75..1.0))
}

#[cfg(all(test, feature = "hub", feature = "remote"))]
mod tests {
    use super::*;
    use crate::shutdown::Tasks;
    use crate::worker::lease::tests::Hub;
    use crate::worker::{Delivery, Failure, Output, Prefetch};

    struct Idle;

    impl Handler for Idle {
        async fn handle(&self, _: Delivery) -> Result<Output, Failure> {
            Ok(json!({}).into())
        }
    }

    #[tokio::test]
    async fn a_worker_that_stops_waits_for_no_sign_of_life() {
        let (hub, bus) = Hub::start(usize::MAX).await;
        let lease = Duration::from_secs(30);
        let options = Options {
            worker_id: "w1".to_owned(),
            tenant: "default".to_owned(),
            topics: Vec::new(),
            concurrency: 1,
            prefetch: Prefetch::AtMost(0),
            lease,
        };
        let shown = ("echo".to_owned(), Vec::new().into());
        let (in_flight, stop) = (InFlight::new(lease), CancellationToken::new());
        let showing = show(bus, Arc::new(Idle), options, shown, in_flight, stop.clone());
        let showing = Tasks::new().spawn(showing);
        hub.asked("bus_worker_seen", 1).await;
        stop.cancel();
        let ended = tokio::time::timeout(Duration::from_secs(2), showing).await;
        ended.expect("at once").expect("no panic");
    }
}
