//! A turn, and what follows from its answer.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::FutureExt as _;
use tokio::sync::watch;

use crate::bus::json::weight;
use crate::bus::{Error, Settle, Settled, Signal};
use crate::clock::Stopwatch;
use crate::error::{Code, chain};
use crate::message::Message;
use crate::worker::places::Asked;
use crate::worker::start::{Gathered, Starter, stale};
use crate::worker::turns::Turns;
use crate::worker::upkeep::jittered;
use crate::worker::{Handler, refused};

/// Pauses after a turn that failed, doubled up to the second.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// The same after the key was refused: somebody has to replace it.
const KEY_BACKOFF: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(30));
/// For so long a worker whose rights are gone goes on asking: a migration or a restore may be giving them anew.
pub(super) const DENIED_FOR: Duration = Duration::from_secs(60);
/// From so many claims on, the bus stops at a weight as well.
pub(super) const WEIGHED_FROM: usize = 64;
/// From so many bytes of payloads on, it may have stopped there: at 64 MiB, of which what is compressed counts eight times.
pub(super) const HEAVY: usize = 8 * 1024 * 1024;
/// After work that was the last for now, the first look that nobody asked for; each further one is twice as far
/// off, until the bus' own pace is reached. A link that has died is as quiet as one over which nothing comes.
const SOON: Duration = Duration::from_millis(500);

/// What was under way, and has ended.
pub(super) enum Ended {
    Turn(Box<Turn>),
    /// A refused batch was settled in smaller ones; of these nothing was taken or refused, and this was said instead.
    Refused(Gathered, Option<Error>),
}

/// What came of a turn.
#[allow(clippy::vec_box)] // as they come out of the rows
pub(super) struct Turn {
    pub(super) batch: Gathered,
    pub(super) asked: Asked,
    /// How many wake-ups had come when it began.
    pub(super) heard: u64,
    pub(super) began: Stopwatch,
    pub(super) answer: Result<(Vec<Settled>, Vec<Box<Message>>), Error>,
}

impl<H: Handler> Turns<'_, H> {
    /// Carries out what follows from a turn. Whether the worker is to stop, since nobody can wait for the bus.
    pub(super) fn end(&mut self, turn: Turn, ready: &watch::Sender<bool>) -> Result<bool, Error> {
        let Turn { batch, asked, heard, began, answer } = turn;
        let error = match answer {
            Ok((outcomes, messages)) => {
                ready.send_if_modified(|ready| !std::mem::replace(ready, true));
                self.found(asked.all(), messages.len(), heard);
                self.amounts.answered(asked.all(), messages.len(), batch.len());
                if may_have_left_some(asked.all(), &messages) {
                    // It may have locked what it left, and who looked just then has passed over that.
                    self.bus.wake(Signal::Work);
                }
                if asked.all() == 0 && batch.settles.iter().any(Settle::makes_way) {
                    // What it made way for was not looked for.
                    self.hear();
                }
                if messages.iter().any(|message| is_survivor(message)) {
                    self.careful = Some(Stopwatch::start());
                }
                self.settled(&batch, &outcomes);
                self.starter.hold(&messages, began);
                let messages = self.starter.in_turn(messages);
                let put = self.starter.places.answered(asked, messages, Stopwatch::start());
                self.starter.start(put);
                return Ok(false);
            }
            Err(error) => error,
        };
        let none = self.starter.places.answered(asked, Vec::new(), began);
        self.starter.start(none);
        if self.is_asked_again(&error, batch.is_empty()) {
            self.amounts.unanswered(asked.all(), batch.len());
            self.put_back(batch, asked.all() > 0);
            self.back_off(&error);
            // When it is cancelled the leases run out; nobody waits for the bus to come back.
            return Ok(self.shutdown.cancelled().is_cancelled());
        }
        if error.is_denied() {
            return Err(error.with_remedy());
        }
        let want = asked.all();
        if want > 1 && error.code() == Code::PayloadTooLarge && self.bus.pace().is_far {
            tracing::debug!(error = %chain(&error), "Claiming fewer than {want} at once");
            self.amounts.unanswered(want, 0);
            self.look = true;
            self.put_before(batch);
            return Ok(false);
        }
        if batch.is_empty() {
            return Err(error);
        }
        tracing::error!(error = %chain(&error), "The bus refused a batch of settles");
        let starter = Arc::clone(&self.starter);
        let request = starter.request(&self.topics.get(), 0);
        let settled = async move {
            let Starter { bus, in_flight, .. } = &*starter;
            let (unanswered, why) = refused::settle_in_parts(bus, in_flight, &request, batch).await;
            Ended::Refused(unanswered, why)
        };
        self.under_way.push(settled.boxed());
        Ok(false)
    }

    /// A refused batch was settled in parts, but for what is `unanswered`.
    pub(super) fn end_parts(&mut self, unanswered: Gathered, why: Option<Error>) {
        let Some(error) = why else { return };
        self.amounts.unanswered(0, unanswered.len());
        self.put_back(unanswered, false);
        self.back_off(&error);
    }

    /// Whether what brought `error` is sent again: whatever does not refuse what was asked. A key that was never taken is wrong;
    /// one that was may be replaced while we run. So is an address where no bus ever was; where one was, somebody may answer in
    /// its place for a while. What it says to a mere look may pass as well, unless it is the look that is wrong; and of a result
    /// only what speaks of that is a refusal.
    fn is_asked_again(&mut self, error: &Error, is_look: bool) -> bool {
        if error.is_transient() {
            return true;
        }
        if !self.answered {
            return false;
        }
        if error.is_denied() {
            let since = self.denied.get_or_insert_with(Stopwatch::start);
            return since.elapsed() < self.denied_for;
        }
        !error.is_final() && (is_look || !error.blames_content())
    }

    /// The bus has answered: of `want` messages there were `found`.
    fn found(&mut self, want: usize, found: usize, heard: u64) {
        // Now that the bus takes us for who we are.
        if let Some(taker) = self.taker.take()
            && self.bus.join(taker)
        {
            self.starter.places.share();
        }
        (self.answered, self.backoff, self.denied) = (true, Duration::ZERO, None);
        if std::mem::take(&mut self.locked_out) {
            tracing::info!("The hub takes the key again; going on");
        }
        if want > 0 {
            // Fewer than there was room for: nothing more waits, until someone says so, or has said so meanwhile. Another turn may
            // have looked since then, but not past what this one had locked.
            self.look = found == want || heard != self.heard;
            self.looked = Stopwatch::start();
        }
        if found > 0 {
            self.soon = SOON;
        }
    }

    fn settled(&mut self, batch: &Gathered, outcomes: &[Settled]) {
        let starter = &self.starter;
        for ((settle, since), outcome) in batch.settles.iter().zip(&batch.since).zip(outcomes) {
            let claim = (settle.id, settle.claim_no);
            starter.in_flight.remove(claim);
            self.stuck.remove(&claim);
            starter.meters.settled(*since);
            if *outcome == Settled::Stale {
                stale(claim);
            }
        }
    }

    /// Puts settles that were not answered before those that have gathered since.
    pub(super) fn put_before(&mut self, mut batch: Gathered) {
        batch.append(std::mem::take(&mut self.settles));
        self.settles = batch;
        self.keep_newest();
    }

    /// The same after a failure, in a turn that `claimed` as well or not. A settle that failed alone goes behind the others, and
    /// the next turn without it: it may be that one which the database fails at. If so, it is given up when it has failed for as
    /// long as a lease while its own was extended: then the bus is there, and nobody else could have the message.
    fn put_back(&mut self, batch: Gathered, claimed: bool) {
        let [alone] = &*batch.settles else { return self.put_before(batch) };
        let claim = (alone.id, alone.claim_no);
        let in_flight = &self.starter.in_flight;
        self.stuck.retain(|claim, _| in_flight.is_kept(*claim));
        if !claimed && in_flight.is_kept(claim) {
            let stuck = *self.stuck.entry(claim).or_insert_with(Stopwatch::start);
            if stuck.elapsed() >= self.starter.options.lease {
                tracing::error!(
                    message.id = %alone.id,
                    "Message {} could not be settled for as long as its lease, which will run out", alone.id
                );
                in_flight.remove(claim);
                return;
            }
            self.aside = true;
        }
        self.settles.append(batch);
        self.keep_newest();
    }

    fn back_off(&mut self, error: &Error) {
        let limits = if matches!(error, Error::Unauthorized { .. }) {
            if !std::mem::replace(&mut self.locked_out, true) {
                tracing::error!(
                    error = %chain(error),
                    "Locked out; trying again until the key is replaced"
                );
            }
            KEY_BACKOFF
        } else if !error.may_pass() && self.odd.insert(kind(error)) {
            tracing::error!(
                error = %chain(error),
                "The bus fails in a way that may not pass by itself; trying again"
            );
            BACKOFF
        } else {
            tracing::warn!(error = %chain(error), "The bus did not answer; trying again");
            BACKOFF
        };
        self.look = true;
        let backoff = self.backoff.clamp(limits.0, limits.1);
        self.pause = Some((Stopwatch::start(), jittered(backoff)));
        self.backoff = (backoff * 2).min(limits.1);
    }
}

/// Whether a claim of so many may have left messages that it could have brought, because of what they weigh together.
#[allow(clippy::vec_box)] // as they come out of the rows
fn may_have_left_some(want: usize, messages: &[Box<Message>]) -> bool {
    want >= WEIGHED_FROM
        && messages.len() < want
        && messages.iter().map(|message| weight(&message.payload)).sum::<usize>() >= HEAVY
}

/// What failures are told apart by; there are not many.
fn kind(error: &Error) -> String {
    match error {
        Error::Database { source: sqlx::Error::Database(source), .. } => {
            source.code().unwrap_or_default().into_owned()
        }
        error => error.to_string(),
    }
}

/// Whether a worker died, or lost its way to the bus, while it had this.
fn is_survivor(message: &Message) -> bool {
    message.error.as_ref().is_some_and(|error| error["class"] == "lease_expired")
}
