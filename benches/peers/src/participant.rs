//! Who takes part, with which settings, and what each does less than COGO.
//!
//! To add one: an entry here, a driver that takes the arguments of `drive.rs`, and its package in a lock file.

use crate::process::Task;

/// What is measured; the columns of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Measure {
    Enqueue1000,
    Enqueue100,
    Single,
    Drain,
    Claims100,
    Claims1000,
    Latency,
}

impl Measure {
    /// In the order in which a round goes through them.
    pub(crate) const ALL: [Self; 7] = [
        Self::Enqueue1000,
        Self::Enqueue100,
        Self::Single,
        Self::Drain,
        Self::Claims100,
        Self::Claims1000,
        Self::Latency,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Enqueue1000 => "enqueue_b1000",
            Self::Enqueue100 => "enqueue_b100",
            Self::Single => "enqueue_single_p32",
            Self::Drain => "drain",
            Self::Claims100 => "claims_b100_c8",
            Self::Claims1000 => "claims_b1000_c4",
            Self::Latency => "latency",
        }
    }

    /// Whether messages have to wait before it begins.
    pub(crate) fn needs_backlog(self) -> bool {
        matches!(self, Self::Drain | Self::Claims100 | Self::Claims1000)
    }
}

/// What runs a driver.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Runtime {
    /// This program.
    Rust,
    /// Node.js, this file of `drivers/`.
    Node(&'static str),
    /// Python, this file of `drivers/`.
    Python(&'static str),
}

/// One piece of work of a participant.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) measure: Measure,
    /// The row of the report, if not the participant's own.
    pub(crate) row: &'static str,
    pub(crate) task: Task,
    /// How many messages there are, for a participant that is slow, as a divisor.
    pub(crate) fewer: u64,
    /// Counts the messages that wait: all that were written after an enqueue, none after a drain.
    pub(crate) waiting: &'static str,
}

/// One of those who take part.
#[derive(Clone, Debug)]
pub(crate) struct Participant {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) runtime: Runtime,
    /// The package whose version is told, and the lock file that holds it.
    pub(crate) package: Option<(&'static str, Lock)>,
    pub(crate) settings: &'static str,
    pub(crate) less: &'static str,
    pub(crate) cases: Vec<Case>,
}

/// A file that says which version is used.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Lock {
    Cargo,
    Npm,
    Pip,
}

/// How many producers there are at once where messages are enqueued one at a time.
const PRODUCERS: u64 = 32;
/// How many messages a second come where the wake-up is measured.
const RATE: u64 = 10;

/// The cases that every participant with a worker has.
fn cases(title: &'static str, waiting: &'static str, drain: Task, fewer: u64) -> Vec<Case> {
    let mut cases = enqueues(title, waiting, None);
    cases.push(Case {
        measure: Measure::Drain,
        row: title,
        task: Task { work: "drain", ..drain.clone() },
        fewer,
        waiting,
    });
    let task = Task { work: "listen", rate: RATE, ..drain };
    cases.push(Case { measure: Measure::Latency, row: title, task, fewer: 1, waiting });
    cases
}

fn enqueues(row: &'static str, waiting: &'static str, variant: Option<&'static str>) -> Vec<Case> {
    let batch = |measure, batch| Case {
        measure,
        row,
        task: task("enqueue", batch, 1, variant),
        fewer: 1,
        waiting,
    };
    vec![
        batch(Measure::Enqueue1000, 1000),
        batch(Measure::Enqueue100, 100),
        Case {
            measure: Measure::Single,
            row,
            task: task("single", 1, PRODUCERS, variant),
            fewer: 4,
            waiting,
        },
    ]
}

fn claims(row: &'static str, waiting: &'static str, variant: Option<&'static str>) -> [Case; 2] {
    [(Measure::Claims100, 100, 8), (Measure::Claims1000, 1000, 4)].map(
        |(measure, batch, connections)| Case {
            measure,
            row,
            task: task("claims", batch, connections, variant),
            fewer: 1,
            waiting,
        },
    )
}

fn task(work: &'static str, batch: u64, connections: u64, variant: Option<&'static str>) -> Task {
    Task { work, messages: 0, batch, connections, rate: RATE, variant }
}

/// Everyone, COGO first.
pub(crate) fn all() -> Vec<Participant> {
    let mut all = vec![cogo()];
    all.extend(crates());
    all.extend(npm());
    all.extend(pypi());
    all.push(pgmq());
    all.push(floor());
    all
}

pub(crate) const COGO: &str = "COGO";
pub(crate) const PGMQ_ARCHIVE: &str = "pgmq, read + archive";
pub(crate) const FLOOR_ROWS: &str = "floor: INSERT, one row a message";
pub(crate) const FLOOR_SAME: &str = "floor: INSERT of the rows of COGO";

fn cogo() -> Participant {
    const WAITING: &str =
        "select count(*) from agent_messages where status in ('queued', 'claimed', 'delayed')";
    let mut all = cases(COGO, WAITING, task("", 0, 0, None), 1);
    all.extend(claims(COGO, WAITING, None));
    Participant {
        name: "cogo",
        title: COGO,
        runtime: Runtime::Rust,
        package: None,
        settings: "the library's defaults: `publish_all`; `publish` (calls at once share a round trip); \
            `worker::Runner` with 500 places; claims alone: `Bus::step`",
        less: "–",
        cases: all,
    }
}

fn crates() -> [Participant; 2] {
    const GRAPHILE: &str = "graphile_worker (crate)";
    const APALIS: &str = "apalis-postgres (crate)";
    [
        Participant {
            name: "graphile-rs",
            title: GRAPHILE,
            runtime: Runtime::Rust,
            package: Some(("graphile_worker", Lock::Cargo)),
            settings: "`add_raw_jobs`; local queue 500, concurrency 500, completions gathered for 5 ms; 10 connections",
            less: "no history: a finished job is deleted. No lease: a dead worker's jobs wait four hours, or for an opt-in \
                sweeper. No fence: a completion deletes by the job's id alone",
            cases: cases(
                GRAPHILE,
                "select count(*) from graphile_worker._private_jobs",
                task("", 500, 10, None),
                1,
            ),
        },
        Participant {
            name: "apalis",
            title: APALIS,
            runtime: Runtime::Rust,
            package: Some(("apalis-postgres", Lock::Cargo)),
            settings: "`push_bulk`; batch 1000, NOTIFY and a poll each 50 ms; 10 connections",
            less: "no history: the row keeps its last state and result. No lease of a message: a worker that gives no sign \
                of life for long loses all of its own. No fence: `lock_by` names the worker, not the attempt",
            cases: cases(
                APALIS,
                "select count(*) from apalis.jobs where status <> 'Done'",
                task("", 1000, 10, None),
                1,
            ),
        },
    ]
}

fn npm() -> [Participant; 2] {
    const GRAPHILE: &str = "graphile-worker (npm)";
    const BOSS: &str = "pg-boss (npm)";
    [
        Participant {
            name: "graphile-js",
            title: GRAPHILE,
            runtime: Runtime::Node("graphile.mjs"),
            package: Some(("graphile-worker", Lock::Npm)),
            settings: "`addJobs`; local queue 500, 24 concurrent jobs, completions and failures gathered (delay 0); \
                25 connections",
            less: "no history: a finished job is deleted. No lease: a dead worker's jobs wait four hours; recovery is a \
                paid plugin. No fence: a completion deletes by the job's id alone",
            cases: cases(
                GRAPHILE,
                "select count(*) from graphile_worker._private_jobs",
                task("", 500, 25, None),
                1,
            ),
        },
        Participant {
            name: "pg-boss",
            title: BOSS,
            runtime: Runtime::Node("pg-boss.mjs"),
            package: Some(("pg-boss", Lock::Npm)),
            settings: "`insert`; batches of 1000 settled as one, 2 local workers, burst while batches are full, NOTIFY on; \
                10 connections",
            less: "no history: the row keeps its last state. Here a handler is given a whole batch, which fails as one. A fixed \
                expiry in place of a lease that is renewed, unless heartbeats are set. It has a fence, the count of retries",
            cases: cases(
                BOSS,
                "select count(*) from pgboss.job where state in ('created', 'retry', 'active') and name = 'bench'",
                task("", 1000, 10, None),
                1,
            ),
        },
    ]
}

fn pypi() -> [Participant; 2] {
    const PGQUEUER: &str = "pgqueuer (PyPI)";
    const PROCRASTINATE: &str = "procrastinate (PyPI)";
    [
        Participant {
            name: "pgqueuer",
            title: PGQUEUER,
            runtime: Runtime::Python("pgqueuer_.py"),
            package: Some(("pgqueuer", Lock::Pip)),
            settings: "`enqueue` of lists; batch 100; asyncpg and uvloop; one connection for the worker, as its documents \
                have it; 32 for single enqueues",
            less: "a log of statuses, without payload, result, trace or order across jobs, folded into statistics. \
                Heartbeats for a lease. No fence: a completion goes by the job's id alone",
            cases: cases(PGQUEUER, "select count(*) from pgqueuer", task("", 100, 1, None), 1),
        },
        Participant {
            name: "procrastinate",
            title: PROCRASTINATE,
            runtime: Runtime::Python("procrastinate_.py"),
            package: Some(("procrastinate", Lock::Pip)),
            settings: "`batch_defer_async`; 20 concurrent jobs, LISTEN/NOTIFY; a pool of 10. A tenth of the messages for \
                the drain, since it fetches one at a time",
            less: "events by row triggers, without payload or result. Stalled jobs are retried by a task of one's own. \
                No fence: a job is finished by its id alone. No fetch of several",
            cases: cases(
                PROCRASTINATE,
                "select count(*) from procrastinate_jobs where status in ('todo', 'doing')",
                task("", 20, 10, None),
                10,
            ),
        },
    ]
}

fn pgmq() -> Participant {
    const PGMQ: &str = "pgmq (SQL)";
    const WAITING: &str = "select count(*) from pgmq.q_bench";
    let mut all = enqueues(PGMQ, WAITING, None);
    all.extend(claims(PGMQ_ARCHIVE, WAITING, Some("archive")));
    all.extend(claims("pgmq, read + delete", WAITING, Some("delete")));
    let task = task("listen", 100, 2, None);
    all.push(Case { measure: Measure::Latency, row: PGMQ, task, fewer: 1, waiting: WAITING });
    Participant {
        name: "pgmq",
        title: PGMQ,
        runtime: Runtime::Rust,
        package: Some(("pgmq", Lock::Cargo)),
        settings: "`send_batch`; `read` and `archive` or `delete` of arrays, prepared statements; for the wake-up \
            `enable_notify_insert` without throttle",
        less: "no worker, no handler, no retries, no back-off, no most attempts, no dead letters, no priorities, no unique \
            keys. The archive keeps the message, not what happened to it. No fence: a late reader archives what another one holds",
        cases: all,
    }
}

fn floor() -> Participant {
    const WAITING: &str = "select count(*) from floor.message";
    const SAME: &str = "select count(*) from same.agent_messages";
    let mut all = enqueues(FLOOR_ROWS, WAITING, Some("rows"));
    // Single inserts of COGO's rows would need a session's worth of other code; groups are what COGO writes them in.
    all.extend(
        enqueues(FLOOR_SAME, SAME, Some("same"))
            .into_iter()
            .filter(|case| case.measure != Measure::Single),
    );
    all.extend(
        enqueues("floor: COPY, one row a message", WAITING, Some("copy"))
            .into_iter()
            .filter(|case| case.measure != Measure::Single),
    );
    all.extend(claims("floor: claim by DELETE", WAITING, Some("take")));
    all.extend(claims("floor: claim by UPDATE, settle by DELETE", WAITING, Some("lease")));
    all.extend(claims("floor: the same with an event", WAITING, Some("lease-event")));
    Participant {
        name: "floor",
        title: "floor (SQL by hand)",
        runtime: Runtime::Rust,
        package: None,
        settings: "`unnest` of arrays, `copy from stdin`, `for update skip locked`; prepared statements; one index, the key",
        less: "no queue: no topics, retries, limits, checks, wake-ups or history",
        cases: all,
    }
}
