//! What becomes of settles that the bus has refused as a batch.
//!
//! One that cannot be stored fails alone, as a dead letter that says why: it is found by halves, in some twenty calls for a
//! thousand. A failure that says nothing of a result, such as a pooler's own, makes no dead letter of it: it is sent again.

use serde_json::json;

use crate::bus::{Bus, ClaimRequest, Error, Settle};
use crate::error::chain;
use crate::retry::ErrorClass;
use crate::worker::Failure;
use crate::worker::in_flight::InFlight;
use crate::worker::start::Gathered;

/// Settles the halves of a batch, and theirs. Gives back those that the database has neither taken nor refused, to be sent again,
/// and what it said instead: a result is not refused because nobody was there to take it. `request` asks for nothing.
pub(super) async fn settle_in_parts(
    bus: &Bus,
    in_flight: &InFlight,
    request: &ClaimRequest,
    mut batch: Gathered,
) -> (Gathered, Option<Error>) {
    let (mut unanswered, mut why) = (Gathered::default(), None);
    let half = batch.take(batch.len().div_ceil(2));
    // The last one is next.
    let mut parts = vec![batch, half];
    while let Some(mut part) = parts.pop() {
        if part.is_empty() {
            continue;
        }
        if why.is_some() {
            unanswered.append(part);
            continue;
        }
        let settled = match &*part.settles {
            [alone] => settle_alone(bus, alone).await,
            many => bus.step_bare(many, request).await.map(drop),
        };
        match settled {
            Err(error) if !error.is_final() && !error.blames_content() => {
                why = Some(error);
                unanswered.append(part);
                continue;
            }
            Err(_) if part.len() > 1 => {
                let half = part.take(part.len().div_ceil(2));
                parts.extend([part, half]);
                continue;
            }
            Err(error) => tracing::error!(
                message.id = %part.settles[0].id, error = %chain(&error),
                "Message {} could not be settled; its lease will run out", part.settles[0].id
            ),
            Ok(()) => {}
        }
        for settle in &part.settles {
            in_flight.remove((settle.id, settle.claim_no));
        }
    }
    (unanswered, why)
}

async fn settle_alone(bus: &Bus, settle: &Settle) -> Result<(), Error> {
    let refusal = match bus.settle(settle.clone()).await {
        Err(error) if error.blames_content() => error,
        answered => return answered.map(drop),
    };
    let failure =
        Failure::new(ErrorClass::Internal, format!("the result could not be stored: {refusal}"));
    let verdict = json!({"class": failure.class, "message": failure.message});
    bus.settle(Settle::refused(settle.id, settle.claim_no, verdict)).await.map(drop)
}
