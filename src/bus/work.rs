//! What workers do: claim, settle, keep claims alive, and take back what was lost.

use std::time::Duration;

use serde_json::{Value, json};

use crate::bus::core::millis;
use crate::bus::error::Error;
use crate::bus::queries::Reaped;
use crate::bus::{Bus, Claim, ClaimRequest, Settle, Settled, Signal};
use crate::message::{Message, MessageId};

/// What one [`Bus::step`] did.
#[derive(Debug)]
pub struct Step {
    /// What became of each settle, in order.
    pub outcomes: Vec<Settled>,
    /// The messages that were claimed.
    pub claims: Vec<Claim>,
}

impl Bus {
    /// Claims what waits, up to `request.max`.
    ///
    /// # Errors
    /// [`Error::Refused`] names the field; [`Error::Database`].
    pub async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Claim>, Error> {
        Ok(self.step(&[], request).await?.claims)
    }

    /// Settles one claim; concurrent calls share a round trip.
    ///
    /// # Errors
    /// [`Error::Refused`] names the field; [`Error::Database`]. A stale claim is no error here.
    pub async fn settle(&self, settle: Settle) -> Result<Settled, Error> {
        self.settles.call(settle).await
    }

    /// Settles a batch and claims the next in one round trip.
    ///
    /// Not tried again by itself: if the answer is lost, claims may have been made that nobody knows of,
    /// and they come back when their leases run out. The settles are safe to send again.
    ///
    /// # Errors
    /// [`Error::Refused`] names the field; [`Error::Database`].
    pub async fn step(&self, settles: &[Settle], request: &ClaimRequest) -> Result<Step, Error> {
        let (outcomes, messages) = self.step_bare(settles, request).await?;
        let claims =
            messages.into_iter().map(|message| Claim::new(self.clone(), *message)).collect();
        Ok(Step { outcomes, claims })
    }

    /// As [`Bus::step`], for a worker, which settles by itself.
    #[allow(clippy::vec_box)] // as they come out of the rows; a message is some four hundred bytes
    pub(crate) async fn step_bare(
        &self,
        settles: &[Settle],
        request: &ClaimRequest,
    ) -> Result<(Vec<Settled>, Vec<Box<Message>>), Error> {
        self.core.step(settles, request).await
    }

    /// Keeps claims alive: their leases end `lease` from now. Gives those that are no longer in force.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn extend(
        &self,
        claims: &[(MessageId, i64)],
        lease: Duration,
    ) -> Result<Vec<(MessageId, i64)>, Error> {
        let batch: Value =
            claims.iter().map(|(id, claim_no)| json!({"id": id, "claim_no": claim_no})).collect();
        let rows = self
            .core
            .retry("bus_extend", || self.transport().extend(&batch, millis(lease)))
            .await?;
        Ok(rows
            .into_iter()
            .filter(|row| row.code.is_some())
            .map(|row| (row.id, row.claim_no))
            .collect())
    }

    /// Promotes what has become due and takes back what was lost, at most `max` of each.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn reap(&self, max: u32) -> Result<Reaped, Error> {
        let max = i32::try_from(max).unwrap_or(i32::MAX);
        let reaped = self.transport().reap(max).await?;
        if reaped.promoted > 0 || reaped.expired > reaped.dead {
            self.wake(Signal::Work);
        }
        if reaped.expired > 0 {
            self.wake(Signal::Log);
        }
        Ok(reaped)
    }
}
