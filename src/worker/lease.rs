//! Keeps the leases of all claims in flight alive, and cancels handlers whose lease is lost.

use std::time::Duration;

use metrics::counter;
use tokio_util::sync::CancellationToken;

use crate::bus::{Bus, Signal};
use crate::clock::Stopwatch;
use crate::error::chain;
use crate::metrics::LEASES_LOST_TOTAL;
use crate::worker::in_flight::InFlight;

#[cfg(all(test, feature = "hub", feature = "remote"))]
pub(super) mod tests;

/// The least time between two looks that somebody asked for; a request over the internet each, perhaps.
const LOOK_PAUSE: Duration = Duration::from_millis(200);

/// Keeps the leases of what is in flight until `stop`.
pub(crate) async fn keep(
    bus: Bus,
    in_flight: InFlight,
    lease: Duration,
    role: String,
    stop: CancellationToken,
) {
    tokio::select! {
        () = extend(&bus, &in_flight, lease, &role) => {}
        () = expire(&in_flight, lease, &role) => {}
        () = stop.cancelled() => {}
    }
}

/// Extends every claim each third of the lease, so that a call may go unanswered before one is lost, and several may fail;
/// and at once when claims may have been taken away, as by a cancel, because that is how a worker learns of it.
async fn extend(bus: &Bus, in_flight: &InFlight, lease: Duration, role: &str) {
    let period = lease / 3;
    let mut taken = bus.waker(Signal::Claims);
    let (mut pause, mut patience) = (period, period / 2);
    loop {
        let looked = Stopwatch::start();
        let is_asked = tokio::select! {
            () = tokio::time::sleep(pause) => false,
            () = taken.woken() => {
                in_flight.taken();
                true
            }
            () = in_flight.late() => true,
        };
        if is_asked {
            // Several cancels make one look.
            tokio::time::sleep(LOOK_PAUSE.saturating_sub(looked.elapsed())).await;
        }
        let claims = in_flight.claims();
        if claims.is_empty() {
            (pause, patience) = (period, period / 2);
            continue;
        }
        let began = Stopwatch::start();
        pause = period / 4;
        match tokio::time::timeout(patience, bus.extend(&claims, lease)).await {
            Ok(Ok(stale)) => {
                in_flight.renewed(&claims, began);
                pause = period;
                // Of one that is slow the next answer is not given up either.
                patience = if began.elapsed() < period / 2 { period / 2 } else { period };
                for (id, claim_no) in stale {
                    if in_flight.lost((id, claim_no)) {
                        counter!(LEASES_LOST_TOTAL, "role" => role.to_owned()).increment(1);
                        tracing::warn!(
                            message.id = %id,
                            "The claim on message {id} is no longer in force; its handler is cancelled"
                        );
                    }
                }
            }
            Ok(Err(error)) => {
                tracing::warn!(error = %chain(&error), "Could not extend {} leases", claims.len());
            }
            // The way may be dead: there is time for one more call, which may take as long as there is.
            Err(_) => {
                bus.unanswered();
                patience = period;
                tracing::warn!("Extending {} leases took too long", claims.len());
            }
        }
    }
}

/// Cancels handlers as soon as their leases have run out, whatever the bus is asked meanwhile: it may accept a call and
/// never answer.
async fn expire(in_flight: &InFlight, lease: Duration, role: &str) {
    loop {
        let left = in_flight.left().unwrap_or(lease);
        // What comes meanwhile may have less left, where its claim took long.
        tokio::time::sleep(left.min(lease / 12)).await;
        let expired = in_flight.expire();
        if expired > 0 {
            counter!(LEASES_LOST_TOTAL, "role" => role.to_owned()).increment(expired as u64);
            tracing::warn!("{expired} leases ran out unextended; their handlers are cancelled");
        }
    }
}
