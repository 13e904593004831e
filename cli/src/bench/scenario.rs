//! What can be measured.

mod churn;
mod depth;
mod drain;
mod enqueue;
mod fanout;
mod far;
mod held;
mod memory;
mod notify;
mod steady;
mod tail;

use anyhow::Result;
use clap::ValueEnum;
use futures_util::future::BoxFuture;
use serde::Serialize;

use crate::bench::Run;
use crate::bench::measure::Record;
use crate::exit::Exit;
use crate::output::{Cell, Ink, Output, note};

/// A scenario, by the name that the command line takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    Enqueue,
    Drain,
    Steady,
    Wakeup,
    Far,
    Depth,
    Held,
    Churn,
    Tail,
    Fanout,
    Memory,
    Notify,
}

/// What the command line takes in the place of scenarios.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Named {
    /// All scenarios.
    All,
    /// None: tell of them.
    List,
    One(Scenario),
}

impl Named {
    pub(super) fn scenarios(self) -> Vec<Scenario> {
        match self {
            Self::All => Scenario::value_variants().to_vec(),
            Self::One(scenario) => vec![scenario],
            Self::List => Vec::new(),
        }
    }
}

impl ValueEnum for Named {
    fn value_variants<'a>() -> &'a [Self] {
        use Scenario::*;
        &[
            Self::All,
            Self::List,
            Self::One(Enqueue),
            Self::One(Drain),
            Self::One(Steady),
            Self::One(Wakeup),
            Self::One(Far),
            Self::One(Depth),
            Self::One(Held),
            Self::One(Churn),
            Self::One(Tail),
            Self::One(Fanout),
            Self::One(Memory),
            Self::One(Notify),
        ]
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        Some(match self {
            Self::All => clap::builder::PossibleValue::new("all"),
            Self::List => clap::builder::PossibleValue::new("list"),
            Self::One(scenario) => scenario.to_possible_value()?,
        })
    }
}

impl Scenario {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Enqueue => "enqueue",
            Self::Drain => "drain",
            Self::Steady => "steady",
            Self::Wakeup => "wakeup",
            Self::Far => "far",
            Self::Depth => "depth",
            Self::Held => "held",
            Self::Churn => "churn",
            Self::Tail => "tail",
            Self::Fanout => "fanout",
            Self::Memory => "memory",
            Self::Notify => "notify",
        }
    }

    /// What it does, in a line or two.
    pub(super) fn about(self) -> &'static str {
        match self {
            Self::Enqueue => enqueue::ABOUT,
            Self::Drain => drain::ABOUT,
            Self::Steady => steady::ABOUT,
            Self::Wakeup => steady::ABOUT_WAKEUP,
            Self::Far => far::ABOUT,
            Self::Depth => depth::ABOUT,
            Self::Held => held::ABOUT,
            Self::Churn => churn::ABOUT,
            Self::Tail => tail::ABOUT,
            Self::Fanout => fanout::ABOUT,
            Self::Memory => memory::ABOUT,
            Self::Notify => notify::ABOUT,
        }
    }

    /// Measures; what is measured by then is in `record` also where this is dropped.
    pub(super) fn run<'a>(self, run: &'a Run, record: &'a Record) -> BoxFuture<'a, Result<()>> {
        match self {
            Self::Enqueue => Box::pin(enqueue::measure(run, record)),
            Self::Drain => Box::pin(drain::measure(run, record)),
            Self::Steady => Box::pin(steady::measure(run, record, steady::Pace::Asked)),
            Self::Wakeup => Box::pin(steady::measure(run, record, steady::Pace::Low)),
            Self::Far => Box::pin(far::measure(run, record)),
            Self::Depth => Box::pin(depth::measure(run, record)),
            Self::Held => Box::pin(held::measure(run, record)),
            Self::Churn => Box::pin(churn::measure(run, record)),
            Self::Tail => Box::pin(tail::measure(run, record)),
            Self::Fanout => Box::pin(fanout::measure(run, record)),
            Self::Memory => Box::pin(memory::measure(run, record)),
            Self::Notify => Box::pin(notify::measure(run, record)),
        }
    }
}

#[derive(Debug, Serialize)]
struct Listed {
    name: &'static str,
    about: &'static str,
}

/// Tells what there is.
pub(super) fn list(output: Output) -> Result<Exit> {
    let all = Scenario::value_variants();
    if output.json {
        let listed: Vec<Listed> = all
            .iter()
            .map(|scenario| Listed { name: scenario.name(), about: scenario.about() })
            .collect();
        output.value(&listed)?;
    } else {
        let rows: Vec<_> = all
            .iter()
            .map(|scenario| {
                vec![Cell::new(scenario.name(), Ink::Name), Cell::plain(scenario.about())]
            })
            .collect();
        output.table(&["SCENARIO", "WHAT IT MEASURES"], &rows)?;
        note("Run some with `cogo bench <scenario>...`, or all with `cogo bench all`.");
    }
    Ok(Exit::Done)
}
