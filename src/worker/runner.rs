//! A worker, from its first claim to its goodbye. The loop itself is `turns.rs`.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::breaker;
use crate::bus::{Bus, Error};
use crate::error::{Code, chain};
use crate::identity::Role;
use crate::live::Live;
use crate::message::Topic;
use crate::retry::Policies;
use crate::shutdown::{Shutdown, Tasks};
use crate::worker::circuits::Circuits;
use crate::worker::in_flight::InFlight;
use crate::worker::prefetch::Prefetch;
use crate::worker::topics::Topics;
use crate::worker::turns::Turns;
use crate::worker::upkeep;
use crate::worker::{Context, Handler, RoleError, lease};

/// How long handlers' tasks may take when all is settled: a breaker is told how a probe went.
const LAST_WORDS: Duration = Duration::from_secs(5);

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
    /// How many claimed messages may wait here until a handler is free.
    pub prefetch: Prefetch,
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
        prefetch: context.prefetch,
        lease: context.lease,
    };
    Runner::new(handler, options, context.bus.clone(), context.retry.clone())
        .with_breakers(context.breaker.clone())
}

/// A worker, ready to run.
#[derive(Debug)]
pub struct Runner<H> {
    pub(super) handler: Arc<H>,
    pub(super) options: Options,
    topics: Topics,
    pub(super) bus: Bus,
    pub(super) retry: Live<Policies>,
    pub(super) circuits: Arc<Circuits>,
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
        // Also where this future is dropped: else the leases of what nobody handles any more would be extended for ever.
        let _stop_with_us = stop_side.clone().drop_guard();
        let (claimed, topics) = Live::new(self.topics.now());
        side.spawn(self.topics.clone().follow(
            self.bus.clone(),
            self.options.tenant.clone(),
            claimed,
            stop_side.clone(),
        ));
        let in_flight = InFlight::new(self.options.lease);
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
        let ended = Turns::new(&self, shutdown, topics, in_flight, &handlers).run(ready).await;

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

    pub(super) fn role(&self) -> String {
        self.topics.role.clone()
    }
}

fn circuits(bus: &Bus, options: &Options, policies: Live<breaker::Policies>) -> Arc<Circuits> {
    Circuits::new(bus.clone(), &options.worker_id, &options.tenant, policies)
}
