//! Keeps the leases of all claims in flight alive, and cancels handlers whose lease is lost.

use std::time::Duration;

use metrics::counter;
use tokio_util::sync::CancellationToken;

use crate::bus::{Bus, Signal};
use crate::clock::Stopwatch;
use crate::error::chain;
use crate::metrics::LEASES_LOST_TOTAL;
use crate::worker::in_flight::InFlight;

/// The least time between two looks that somebody asked for; a request over the internet each, perhaps.
const LOOK_PAUSE: Duration = Duration::from_millis(200);

/// Extends every claim each third of the lease, so that two calls may fail before one is lost; and at once when claims
/// may have been taken away, as by a cancel, because that is how a worker learns of it.
pub(crate) async fn keep(
    bus: Bus,
    in_flight: InFlight,
    lease: Duration,
    role: String,
    stop: CancellationToken,
) {
    let period = lease / 3;
    let mut taken = bus.waker(Signal::Claims);
    let mut pause = period;
    loop {
        let looked = Stopwatch::start();
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = taken.woken() => {
                // Several cancels make one look.
                tokio::select! {
                    () = tokio::time::sleep(LOOK_PAUSE.saturating_sub(looked.elapsed())) => {}
                    () = stop.cancelled() => return,
                }
            }
            () = stop.cancelled() => return,
        }
        pause = period;
        let claims = in_flight.claims();
        if claims.is_empty() {
            continue;
        }
        let began = Stopwatch::start();
        // Bounded, because a database that accepts the call and never answers must not keep us from
        // seeing that the leases have run out.
        match tokio::time::timeout(period, bus.extend(&claims, lease)).await {
            Ok(Ok(stale)) => {
                in_flight.renewed(&claims, began);
                for (id, claim_no) in stale {
                    if in_flight.lost((id, claim_no)) {
                        counter!(LEASES_LOST_TOTAL, "role" => role.clone()).increment(1);
                        tracing::warn!(
                            message.id = %id,
                            "The claim on message {id} is no longer in force; its handler is cancelled"
                        );
                    }
                }
            }
            Ok(Err(error)) => {
                tracing::warn!(error = %chain(&error), "Could not extend {} leases", claims.len());
                pause = period / 4;
            }
            Err(_) => tracing::warn!("Extending {} leases took too long", claims.len()),
        }
        let expired = in_flight.expire();
        if expired > 0 {
            counter!(LEASES_LOST_TOTAL, "role" => role.clone()).increment(expired as u64);
            tracing::warn!("{expired} leases ran out unextended; their handlers are cancelled");
        }
    }
}
