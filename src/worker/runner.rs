//! The loop that runs a role: wake, claim, handle, settle, in one round trip a turn.
//!
//! Handlers run as tasks and hand their settles back; each turn sends what has gathered and claims as
//! many messages as there are free places. While one turn is under way the next one's settles gather, so
//! batches grow with the load by themselves. No connection is held while handlers run.

use std::sync::{Arc, Weak};
use std::time::Duration;

use metrics::{gauge, histogram};
use serde_json::json;
use tokio::sync::{mpsc, watch};

use crate::breaker;
use crate::bus::group;
use crate::bus::take::Take;
use crate::bus::{Bus, Claim, ClaimRequest, Error, Settle, Settled, Signal};
use crate::clock::Stopwatch;
use crate::error::{Code, chain};
use crate::identity::Role;
use crate::live::Live;
use crate::message::Topic;
use crate::metrics::{IN_FLIGHT, SETTLE_LATENCY_MS};
use crate::retry::Policies;
use crate::shutdown::{Shutdown, Tasks};
use crate::worker::circuits::Circuits;
use crate::worker::in_flight::InFlight;
use crate::worker::start::{Places, Ready, Starter};
use crate::worker::topics::Topics;
use crate::worker::upkeep::{self, jittered};
use crate::worker::{Context, Failure, Handler, RoleError, lease};

/// How long handlers' tasks may take when all is settled: a breaker is told how a probe went.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// Pauses after a turn that failed, doubled up to the second.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// After work that was the last for now, the first look that nobody asked for; each further one is twice as far
/// off, until the bus' own pace is reached. A link that has died is as quiet as one over which nothing comes.
const SOON: Duration = Duration::from_millis(500);
/// The same after the key was refused: somebody has to replace it.
const KEY_BACKOFF: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(30));

/// Who runs, what it claims and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// Who this worker is, unique among all workers.
    pub worker_id: String,
    /// Whose work it does; `*` ([`crate::message::ALL_TENANTS`]) for everybody's, in fair shares.
    pub tenant: String,
    /// What it claims; see [`Runner::following`] for topics that come and go.
    pub topics: Vec<Topic>,
    /// How many messages it handles at once.
    pub concurrency: usize,
    /// How long a claim is held without being extended; at least 100 ms.
    pub lease: Duration,
}

/// Runs `handler` on the messages of `topics` until `context` says stop. What a role's `start` calls.
///
/// # Errors
/// When the bus refuses what the worker is (a bad name), which no retry can mend.
pub async fn run<H: Handler>(
    handler: H,
    topics: Vec<Topic>,
    context: &Context,
) -> Result<(), RoleError> {
    Ok(runner(handler, topics, context).run(&context.shutdown, &context.ready).await?)
}

/// As [`run`], for a worker of `role` whose topics come and go. While there are none it shows itself, claims nothing
/// and is not ready. Of a topic that comes later than the start and that the key does not allow, the log tells.
///
/// # Errors
/// As [`run`].
pub async fn follow<H: Handler>(
    handler: H,
    role: &str,
    topics: Live<Vec<Topic>>,
    context: &Context,
) -> Result<(), RoleError> {
    let runner = runner(handler, topics.get().to_vec(), context).following(role, topics);
    Ok(runner.run(&context.shutdown, &context.ready).await?)
}

fn runner<H: Handler>(handler: H, topics: Vec<Topic>, context: &Context) -> Runner<H> {
    let options = Options {
        worker_id: context.worker_id.clone(),
        tenant: context.tenant.clone(),
        topics,
        concurrency: context.concurrency,
        lease: context.lease,
    };
    Runner::new(handler, options, context.bus.clone(), context.retry.clone())
        .with_breakers(context.breaker.clone())
}

/// A worker, ready to run.
#[derive(Debug)]
pub struct Runner<H> {
    handler: Arc<H>,
    options: Options,
    topics: Topics,
    bus: Bus,
    retry: Live<Policies>,
    circuits: Arc<Circuits>,
}

impl<H: Handler> Runner<H> {
    /// A worker that runs `handler` as `options` say. Each delivery goes by the policies as they are when
    /// it begins.
    pub fn new(handler: H, options: Options, bus: Bus, retry: impl Into<Live<Policies>>) -> Self {
        let circuits = circuits(&bus, &options, Live::default());
        let topics = Topics::fixed(options.topics.clone());
        Self { handler: Arc::new(handler), options, topics, bus, retry: retry.into(), circuits }
    }

    /// Claims `topics`, as they are at any moment, in place of the options'. All must be of `role`.
    #[must_use]
    pub fn following(self, role: &str, topics: Live<Vec<Topic>>) -> Self {
        Self { topics: Topics::new(role, topics), ..self }
    }

    /// Sets when breakers open; else the defaults hold.
    #[must_use]
    pub fn with_breakers(self, policies: impl Into<Live<breaker::Policies>>) -> Self {
        let circuits = circuits(&self.bus, &self.options, policies.into());
        Self { circuits, ..self }
    }

    /// Runs until `shutdown`: when it drains, nothing more is claimed; when it is cancelled, running
    /// handlers are dropped and their messages released. `ready` becomes true with the first claim call
    /// that the bus answered.
    ///
    /// # Errors
    /// When the bus refuses what the worker is, which no retry can mend.
    pub async fn run(self, shutdown: &Shutdown, ready: &watch::Sender<bool>) -> Result<(), Error> {
        self.check_key()?;
        let side = Tasks::new();
        let stop_side = tokio_util::sync::CancellationToken::new();
        let (claimed, topics) = Live::new(self.topics.now());
        side.spawn(self.topics.clone().follow(
            self.bus.clone(),
            self.options.tenant.clone(),
            claimed,
            stop_side.clone(),
        ));
        let in_flight = InFlight::default();
        side.spawn(lease::keep(
            self.bus.clone(),
            in_flight.clone(),
            self.options.lease,
            self.role(),
            stop_side.clone(),
        ));
        side.spawn(upkeep::reap(self.bus.clone(), stop_side.clone()));
        let (circuits, stop) = (Arc::clone(&self.circuits), stop_side.clone());
        side.spawn(async move { circuits.follow(stop).await });
        side.spawn(upkeep::show(
            self.bus.clone(),
            Arc::clone(&self.handler),
            self.options.clone(),
            (self.role(), topics.clone()),
            in_flight.clone(),
            stop_side.clone(),
        ));

        let handlers = Tasks::new();
        let ended = self.turns(shutdown, ready, topics, &in_flight, &handlers).await;

        ready.send_replace(false);
        // All is settled, but a breaker may still be told how a probe went; else none could be made for as long
        // as that one was given.
        handlers.join(LAST_WORDS).await;
        stop_side.cancel();
        side.join(Duration::from_secs(5)).await;
        let Options { worker_id, tenant, .. } = &self.options;
        let reason = if ended.is_ok() { "shutdown" } else { "refused" };
        let gone = self.bus.worker_gone(worker_id, reason, tenant);
        match tokio::time::timeout(Duration::from_secs(2), gone).await {
            Ok(Err(error)) => tracing::debug!(error = %chain(&error), "Could not say goodbye"),
            Err(_) => tracing::debug!("Could not say goodbye in time"),
            Ok(Ok(_)) => {}
        }
        ended
    }

    /// Finds what the key does not allow before anything is asked: the bus would refuse it, without saying how
    /// to get a key that does.
    fn check_key(&self) -> Result<(), Error> {
        let Options { worker_id, tenant, .. } = &self.options;
        let topics = self.topics.now();
        let Some(claims) = self.bus.claims().filter(|claims| claims.role != Role::ServiceRole)
        else {
            return Ok(());
        };
        let refuse = |what: String| Error::Refused { code: Code::Forbidden, message: what };
        let own = claims.tenant.as_deref().unwrap_or("none");
        if own != tenant {
            return Err(refuse(format!("tenant {tenant}: the key is for {own}")));
        }
        if let Some(topic) = topics.iter().find(|topic| !claims.may_claim(tenant, topic)) {
            let list: Vec<_> = topics.iter().map(|topic| format!("--topic {topic}")).collect();
            let worker = claims.worker.as_deref().unwrap_or("<name>");
            return Err(refuse(format!(
                "topic {topic}: the key may not claim it; get one from `cogo token mint --tenant {tenant} \
                 --worker {worker} {}`",
                list.join(" ")
            )));
        }
        if !claims.may_be(worker_id) {
            let whose = match &claims.worker {
                Some(worker) => format!("is for {worker}, and {worker}.<anything>"),
                None => {
                    "is for no worker; get one from `cogo token mint --worker <name>`".to_owned()
                }
            };
            return Err(refuse(format!("worker {worker_id}: the key {whose}")));
        }
        Ok(())
    }

    async fn turns(
        &self,
        shutdown: &Shutdown,
        ready: &watch::Sender<bool>,
        mut topics: Live<Vec<Topic>>,
        in_flight: &InFlight,
        handlers: &Tasks,
    ) -> Result<(), Error> {
        // Bounded by the places; a handler's task never waits to hand in its settle.
        let (hand_in, mut handed_in) =
            mpsc::channel::<Option<Ready>>(self.options.concurrency.max(1));
        let mut woken = self.bus.waker(Signal::Work);
        let mut rejoined = self.bus.waker(Signal::Link);
        let mut settles: Vec<Ready> = Vec::new();
        let places = Arc::new(Places::new(self.options.concurrency));
        let starter = Arc::new(Starter {
            handler: Arc::clone(&self.handler),
            options: self.options.clone(),
            topics: topics.clone(),
            bus: self.bus.clone(),
            retry: self.retry.clone(),
            circuits: Arc::clone(&self.circuits),
            handlers: handlers.clone(),
            hand_in,
            in_flight: in_flight.clone(),
            places: Arc::clone(&places),
            draining: shutdown.draining().clone(),
            stop: shutdown.cancelled().clone(),
        });
        let taker: Weak<Starter<H>> = Arc::downgrade(&starter);
        let mut taker: Option<Weak<dyn Take>> = Some(taker);
        let mut look = true;
        let mut soon = Duration::MAX;
        // Since it was last looked for work: what is handed in meanwhile must not put the next look off.
        let mut looked = Stopwatch::start();
        let mut backoff = BACKOFF.0;
        // As many as go into one answer: messages may be large.
        let mut at_once = self.options.concurrency.max(1);
        // Whether the last settles were many.
        let mut many = false;
        // Whether the bus has ever answered, and whether it was told that it does not take our key any more.
        let (mut answered, mut locked_out) = (false, false);
        loop {
            let draining = shutdown.draining().is_cancelled();
            look &= !draining;
            if draining {
                places.close();
            }
            if draining && places.are_all_free() && settles.is_empty() {
                return Ok(());
            }
            if shutdown.cancelled().is_cancelled()
                && settles.is_empty()
                && in_flight.is_empty()
                && !places.are_kept()
            {
                return Ok(());
            }
            let free = places.free();
            if settles.is_empty() && !(look && free > 0) {
                tokio::select! {
                    handed = handed_in.recv() => {
                        places.give_back(1);
                        settles.extend(handed.flatten());
                    }
                    () = places.freed(), if draining || look => {}
                    () = woken.woken(), if !draining => look = true,
                    () = topics.changed(), if !draining => look = true,
                    () = tokio::time::sleep(
                        self.bus.pause().min(soon).saturating_sub(looked.elapsed())
                    ), if !draining => {
                        look = true;
                        looked = Stopwatch::start();
                        soon = soon.saturating_mul(2);
                    }
                    () = shutdown.draining().cancelled(), if !draining => {}
                }
            }
            if many && !settles.is_empty() && in_flight.running() > 0 {
                // More are about to be handed in; a statement costs more than what it does for one of them.
                group::linger().await;
            }
            while let Ok(handed) = handed_in.try_recv() {
                places.give_back(1);
                settles.extend(handed);
            }
            if !settles.is_empty() {
                many = settles.len() >= group::MANY;
            }
            #[allow(clippy::cast_precision_loss)] // a handful
            gauge!(IN_FLIGHT, "role" => self.role()).set(in_flight.running() as f64);
            let draining = shutdown.draining().is_cancelled();
            let claimed = topics.get();
            look |= woken.rang() && !draining;
            look &= !claimed.is_empty();
            // A turn that settles claims as well where something may wait: where the last look found more than there
            // was room for, where a settled message makes way for the next of its key, and over the internet, where
            // a look of its own would cost a request. Else nothing does, and a result need not wait for the look.
            let claims_too = look
                || self.bus.pace().is_far
                || settles.iter().any(|ready| ready.settle.makes_way());
            let takes = claims_too && !draining && !claimed.is_empty();
            if settles.is_empty() && !(look && takes) {
                continue;
            }
            let want = if takes { places.take(at_once) } else { 0 };
            if settles.is_empty() && want == 0 {
                continue;
            }
            let began = Stopwatch::start();
            let stepped = self.step(&settles, &starter.request(&claimed, want)).await;
            places
                .give_back(want - stepped.as_ref().map_or(0, |(_, claims)| claims.len().min(want)));
            match stepped {
                Ok((outcomes, claims)) => {
                    // Now that the bus takes us for who we are.
                    if let Some(taker) = taker.take()
                        && self.bus.join(taker)
                    {
                        places.share();
                    }
                    ready.send_if_modified(|ready| !std::mem::replace(ready, true));
                    (answered, backoff) = (true, BACKOFF.0);
                    if std::mem::take(&mut locked_out) {
                        tracing::info!("The hub takes the key again; going on");
                    }
                    self.settled(&settles, &outcomes, in_flight);
                    settles.clear();
                    // Fewer than there was room for: nothing more waits, until someone says so.
                    if want > 0 {
                        look = claims.len() == want;
                        looked = Stopwatch::start();
                    }
                    if !claims.is_empty() {
                        soon = SOON;
                    }
                    at_once = at_once.saturating_mul(2).min(self.options.concurrency.max(1));
                    for claim in claims {
                        starter.start(claim.into_message(), began);
                    }
                }
                // A key that was never taken is wrong; one that was may be replaced while we run. So is an address
                // where no bus ever was; where one was, somebody may answer in its place for a while.
                Err(error) if error.is_transient() || answered && error.may_pass() => {
                    let limits = if matches!(error, Error::Unauthorized { .. }) {
                        if !std::mem::replace(&mut locked_out, true) {
                            tracing::error!(
                                error = %chain(&error),
                                "Locked out; trying again until the key is replaced"
                            );
                        }
                        KEY_BACKOFF
                    } else {
                        tracing::warn!(error = %chain(&error), "The bus did not answer; trying again");
                        BACKOFF
                    };
                    if shutdown.cancelled().is_cancelled() {
                        // The leases will run out; nobody waits for the bus to come back.
                        return Ok(());
                    }
                    look = true;
                    backoff = backoff.clamp(limits.0, limits.1);
                    tokio::select! {
                        () = tokio::time::sleep(jittered(backoff)) => {}
                        () = rejoined.woken() => {}
                        () = shutdown.cancelled().cancelled() => {}
                    }
                    backoff = (backoff * 2).min(limits.1);
                }
                Err(error)
                    if want > 1
                        && error.code() == Code::PayloadTooLarge
                        && self.bus.pace().is_far =>
                {
                    tracing::debug!(error = %chain(&error), "Claiming fewer than {want} at once");
                    (at_once, look) = (want / 2, true);
                }
                Err(error) if settles.is_empty() => return Err(error),
                Err(error) => {
                    tracing::error!(error = %chain(&error), "The bus refused a batch of settles");
                    settles = self.settle_one_by_one(settles, in_flight).await;
                }
            }
        }
    }

    async fn step(
        &self,
        settles: &[Ready],
        request: &ClaimRequest,
    ) -> Result<(Vec<Settled>, Vec<Claim>), Error> {
        let batch: Vec<Settle> = settles.iter().map(|ready| ready.settle.clone()).collect();
        let step = self.bus.step(&batch, request).await?;
        Ok((step.outcomes, step.claims))
    }

    fn settled(&self, settles: &[Ready], outcomes: &[Settled], in_flight: &InFlight) {
        for (ready, outcome) in settles.iter().zip(outcomes) {
            let id = ready.settle.id;
            in_flight.remove((id, ready.settle.claim_no));
            #[allow(clippy::cast_precision_loss)] // milliseconds
            histogram!(SETTLE_LATENCY_MS, "role" => self.role())
                .record(ready.since.elapsed_ms() as f64);
            if *outcome == Settled::Stale {
                tracing::warn!(
                    message.id = %id,
                    "Message {id} was settled too late: claim {} is no longer in force",
                    ready.settle.claim_no
                );
            }
        }
    }

    /// After a refused batch: each settle alone, so that one which cannot be stored fails alone, as a
    /// dead letter that says why. Gives back those that the database did not answer, to be sent again: a
    /// result is not refused because nobody was there to take it.
    async fn settle_one_by_one(&self, settles: Vec<Ready>, in_flight: &InFlight) -> Vec<Ready> {
        let mut unanswered = Vec::new();
        for ready in settles {
            if !unanswered.is_empty() {
                unanswered.push(ready);
                continue;
            }
            let (id, claim_no) = (ready.settle.id, ready.settle.claim_no);
            match self.settle_alone(&ready.settle).await {
                Ok(()) => in_flight.remove((id, claim_no)),
                Err(error) if error.may_pass() => {
                    tracing::warn!(error = %chain(&error), "The bus did not answer; trying again");
                    unanswered.push(ready);
                }
                Err(error) => {
                    tracing::error!(
                        message.id = %id, error = %chain(&error),
                        "Message {id} could not be settled; its lease will run out"
                    );
                    in_flight.remove((id, claim_no));
                }
            }
        }
        unanswered
    }

    async fn settle_alone(&self, settle: &Settle) -> Result<(), Error> {
        let refusal = match self.bus.settle(settle.clone()).await {
            Err(error) if !error.may_pass() => error,
            answered => return answered.map(drop),
        };
        let failure = Failure::new(
            crate::retry::ErrorClass::Internal,
            format!("the result could not be stored: {refusal}"),
        );
        let verdict = json!({"class": failure.class, "message": failure.message});
        let refused = Settle::refused(settle.id, settle.claim_no, verdict);
        self.bus.settle(refused).await.map(drop)
    }

    fn role(&self) -> String {
        self.topics.role.clone()
    }
}

fn circuits(bus: &Bus, options: &Options, policies: Live<breaker::Policies>) -> Arc<Circuits> {
    Circuits::new(bus.clone(), &options.worker_id, &options.tenant, policies)
}
