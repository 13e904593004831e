//! What a run does, drawn from its seed and from nothing else.

use std::collections::HashMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use serde::Serialize;

use crate::mcp::TOOLS;

/// How long messages are sent.
const SENDING_MS: u64 = 2600;
/// When faults begin.
const FAULTS_FROM_MS: u64 = 150;
const FAULTS_UNTIL_MS: u64 = 2300;
/// The pause between two faults of one target, so that each is felt.
const GAP_MS: u64 = 150;

/// A run.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) shape: Shape,
    #[serde(skip)]
    pub(crate) messages: Vec<Planned>,
    pub(crate) faults: Vec<Fault>,
}

/// What the run is made of.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Shape {
    /// How many workers for MCP.
    pub(crate) gateways: usize,
    /// Whether there is a worker for echo.
    pub(crate) echo: bool,
    /// Whether a `cogo tail --follow` runs whose output nobody reads.
    pub(crate) tail: bool,
    /// Whether a client reads the hub's answers byte by byte.
    pub(crate) slow_reader: bool,
    /// The worker whose disk for artifacts is full.
    pub(crate) full_disk: Option<usize>,
    /// How far the clock of each worker is ahead, in seconds.
    pub(crate) skews: Vec<i64>,
}

/// One message.
#[derive(Debug, Clone)]
pub(crate) struct Planned {
    pub(crate) number: usize,
    pub(crate) at: Duration,
    pub(crate) work: Work,
    pub(crate) key: Option<String>,
    /// Sent twice at the same moment, under its key.
    pub(crate) twice: bool,
    pub(crate) priority: i16,
    /// One at a time with the others of its key, and in their order.
    pub(crate) ordering_key: Option<String>,
    /// How long it may take in all.
    pub(crate) deadline_ms: Option<u64>,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// A call of a tool, by HTTP at the hub.
    Tool { toolset: &'static str, tool: &'static str },
    /// A message for the echo worker, straight to the database.
    Echo,
}

/// A process that faults can hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Target {
    Hub,
    Gateway(usize),
    Echo,
}

/// A connection that faults can hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Line {
    /// From a process to the database.
    Database(Target),
    /// From a worker to a toolset.
    Mcp(usize, &'static str),
    /// From the sender to the hub.
    Http,
    /// From the sender of echo messages to the database.
    Sender,
}

/// What a proxy does to its connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Wire {
    /// Closes them all and takes no new one.
    Cut,
    /// Lets each piece wait.
    Delay(u64),
    /// Tells the client that the server has nothing more to say; what the client says still arrives.
    HalfCloseToClient,
    /// Tells the server that the client has nothing more to say.
    HalfCloseToServer,
    /// Passes nothing on, and then all of it.
    Hold,
    /// Passes nothing on, and then closes.
    HoldThenCut,
    /// Passes nothing on, ever, while nobody is told; connections made later work. What a router that lost
    /// its table does.
    Forget,
}

/// A fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Fault {
    pub(crate) at_ms: u64,
    pub(crate) for_ms: u64,
    pub(crate) kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// `kill -9`, and a new start after a while.
    Kill(Target),
    /// SIGSTOP, and SIGCONT when the leases have run out.
    Stop(Target),
    /// `kill -9` of the Postgres server, and a new start after a while.
    KillPostgres,
    /// `kill -9` of one Postgres session: the server ends all others and recovers by itself.
    KillBackend,
    /// A tool that is well hangs up on everybody for a while, as long as it takes for breakers to open.
    Sicken(&'static str),
    /// Something happens to connections.
    Wire(Line, Wire),
}

impl Kind {
    /// The word for reports.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Kill(Target::Hub) => "kill_hub".to_owned(),
            Self::Kill(_) => "kill_worker".to_owned(),
            Self::Stop(_) => "stop_worker".to_owned(),
            Self::KillPostgres => "kill_postgres".to_owned(),
            Self::KillBackend => "kill_postgres_session".to_owned(),
            Self::Sicken(_) => "sick_tool".to_owned(),
            Self::Wire(line, wire) => {
                let line = match line {
                    Line::Database(_) | Line::Sender => "database",
                    Line::Mcp(..) => "mcp",
                    Line::Http => "http",
                };
                let wire = match wire {
                    Wire::Cut => "cut",
                    Wire::Delay(_) => "delay",
                    Wire::HalfCloseToClient | Wire::HalfCloseToServer => "half_close",
                    Wire::Hold | Wire::HoldThenCut => "blackhole",
                    Wire::Forget => "forget",
                };
                format!("{line}_{wire}")
            }
        }
    }

    /// Whom or what it hits.
    pub(crate) fn target(&self) -> String {
        let process = |target: &Target| match target {
            Target::Hub => "hub".to_owned(),
            Target::Gateway(n) => format!("gateway{n}"),
            Target::Echo => "echo".to_owned(),
        };
        match self {
            Self::Kill(target) | Self::Stop(target) => process(target),
            Self::KillPostgres | Self::KillBackend => "postgres".to_owned(),
            Self::Sicken(tool) => format!("tool-{tool}"),
            Self::Wire(Line::Database(target), _) => format!("{}-database", process(target)),
            Self::Wire(Line::Mcp(n, toolset), _) => format!("gateway{n}-{toolset}"),
            Self::Wire(Line::Http, _) => "sender-hub".to_owned(),
            Self::Wire(Line::Sender, _) => "sender-database".to_owned(),
        }
    }
}

impl Plan {
    /// Draws the run of a seed.
    pub(crate) fn draw(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let shape = shape(&mut rng);
        let messages = messages(&mut rng, &shape);
        let faults = faults(&mut rng, &shape);
        Self { seed, shape, messages, faults }
    }
}

fn shape(rng: &mut StdRng) -> Shape {
    let gateways = rng.random_range(2..=3);
    let skew = |rng: &mut StdRng| match rng.random_range(0..4) {
        0 => rng.random_range(60..90_000),
        1 => -rng.random_range(60..90_000),
        _ => 0,
    };
    Shape {
        gateways,
        echo: rng.random_bool(0.6),
        tail: rng.random_bool(0.4),
        slow_reader: rng.random_bool(0.5),
        full_disk: rng.random_bool(0.4).then(|| rng.random_range(0..gateways)),
        skews: (0..gateways).map(|_| skew(rng)).collect(),
    }
}

fn messages(rng: &mut StdRng, shape: &Shape) -> Vec<Planned> {
    let count = rng.random_range(60..=150);
    let (total, poison) = (TOOLS.iter().map(|tool| tool.weight).sum(), rng.random_bool(0.3));
    let mut planned: Vec<_> = (0..count)
        .map(|number| {
            let work = match rng.random_bool(0.1) && shape.echo {
                true => Work::Echo,
                false => tool(rng.random_range(0..total)),
            };
            let key = rng.random_bool(0.5).then(|| format!("key-{number}"));
            let ordered = rng.random_bool(0.2).then(|| rng.random_range(0..4));
            let deadline_ms = rng.random_bool(0.1).then(|| rng.random_range(300..4000));
            Planned {
                number,
                at: Duration::from_millis(rng.random_range(0..SENDING_MS)),
                work,
                twice: key.is_some() && rng.random_bool(0.15),
                key,
                priority: *[0, 0, 0, 5, -5].choose(rng).expect("not empty"),
                ordering_key: ordered.map(|number| format!("order-{number}")),
                deadline_ms,
            }
        })
        .collect();
    if poison {
        // Early, since it takes as many leases as it has attempts.
        planned[0].at = Duration::from_millis(rng.random_range(0..800));
        planned[0].work = Work::Tool { toolset: "sick", tool: "poison" };
        (planned[0].ordering_key, planned[0].deadline_ms) = (None, None);
    }
    planned
}

fn tool(mut drawn: u32) -> Work {
    for tool in TOOLS {
        if drawn < tool.weight {
            return Work::Tool { toolset: tool.toolset, tool: tool.name };
        }
        drawn -= tool.weight;
    }
    unreachable!("drawn below the sum of the weights")
}

fn faults(rng: &mut StdRng, shape: &Shape) -> Vec<Fault> {
    let wanted = rng.random_range(4..=8);
    let mut faults: Vec<Fault> = Vec::new();
    let mut free_at: HashMap<String, u64> = HashMap::new();
    // Some draws collide with what is there; a run has a few faults less then.
    for _ in 0..wanted * 2 {
        if faults.len() == wanted {
            break;
        }
        let kind = kind(rng, shape);
        let for_ms = match kind {
            Kind::Kill(_) => rng.random_range(50..700),
            Kind::Stop(_) => rng.random_range(1300..2200),
            Kind::KillPostgres => rng.random_range(50..900),
            Kind::KillBackend => 300,
            Kind::Sicken(_) => rng.random_range(500..1500),
            Kind::Wire(_, Wire::HalfCloseToClient | Wire::HalfCloseToServer) => 50,
            Kind::Wire(..) => rng.random_range(200..1500),
        };
        // The later a fault begins, the longer everybody waits for its end.
        let last = FAULTS_UNTIL_MS - for_ms / 3;
        let at_ms = rng.random_range(FAULTS_FROM_MS..last);
        let free = free_at.entry(kind.target()).or_default();
        if at_ms < *free {
            continue;
        }
        *free = at_ms + for_ms + GAP_MS;
        faults.push(Fault { at_ms, for_ms, kind });
    }
    faults.sort_by_key(|fault| fault.at_ms);
    faults
}

fn kind(rng: &mut StdRng, shape: &Shape) -> Kind {
    let gateway = rng.random_range(0..shape.gateways);
    match rng.random_range(0..100) {
        0..18 => Kind::Kill(Target::Gateway(gateway)),
        18..21 if shape.echo => Kind::Kill(Target::Echo),
        18..28 => Kind::Kill(Target::Hub),
        28..36 => Kind::KillPostgres,
        36..40 => Kind::KillBackend,
        40..55 => Kind::Stop(Target::Gateway(gateway)),
        55..63 => Kind::Sicken(["put", "pay"].choose(rng).expect("not empty")),
        63..82 => {
            let line = match rng.random_range(0..10) {
                0..6 => Line::Database(Target::Gateway(gateway)),
                6..8 => Line::Database(Target::Hub),
                8 if shape.echo => Line::Database(Target::Echo),
                9 if shape.echo => Line::Sender,
                _ => Line::Http,
            };
            Kind::Wire(line, wire(rng))
        }
        82..86 => Kind::Wire(Line::Http, wire(rng)),
        _ => {
            let toolset = *["good", "sick"].choose(rng).expect("not empty");
            Kind::Wire(Line::Mcp(gateway, toolset), wire(rng))
        }
    }
}

fn wire(rng: &mut StdRng) -> Wire {
    match rng.random_range(0..8) {
        0..2 => Wire::Cut,
        2 => Wire::Delay(rng.random_range(20..300)),
        3 => Wire::HalfCloseToClient,
        4 => Wire::HalfCloseToServer,
        5 => Wire::Hold,
        6 => Wire::HoldThenCut,
        _ => Wire::Forget,
    }
}

#[test]
fn a_seed_gives_the_same_run_again_and_a_hundred_seeds_have_every_fault() {
    let text = |seed| format!("{:?}", Plan::draw(seed));
    assert_eq!(text(7), text(7));
    assert_ne!(text(7), text(8));
    let mut kinds: Vec<_> =
        (0..100).flat_map(|seed| Plan::draw(seed).faults).map(|fault| fault.kind.name()).collect();
    kinds.sort();
    kinds.dedup();
    assert_eq!(kinds.len(), 6 + 3 * 5, "{kinds:?}");
}
