//! `cogo dlq`: the dead-letter queue.

use std::collections::HashSet;

use anyhow::Result;
use clap::{Args, Subcommand};
use cogo::bus::Bus;
use cogo::bus::dead_letter::{Filter, Operated};
use cogo::message::MessageId;
use serde::Serialize;

use crate::connect::Global;
use crate::exit::{Exit, Failed};
use crate::output::{Cell, Ink, Output, note};
use crate::text::{error_text, moment};
use crate::trace::count;

/// Messages that one round trip operates on.
const BATCH: u32 = 500;

/// Look after the dead-letter queue: what failed for good
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cogo dlq list --role mcp-gateway --class timeout
  cogo dlq requeue 019ab1c2-…
  cogo dlq requeue --all --service figma --reason 'figma is back'
  cogo dlq drop --all --class invalid_params --yes

A message gets here when no attempt is left, or none would help. Requeued, it has all its attempts
before it again. Dropped, it is gone for good; what happened to it stays in the log.")]
pub(crate) struct Dlq {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List dead letters, the latest first
    List(List),
    /// Bring messages back to their queue, with all attempts before them
    Requeue(Requeue),
    /// Drop messages for good
    Drop(Drop),
}

#[derive(Debug, Args)]
struct Which {
    /// Only of this worker role
    #[arg(long)]
    role: Option<String>,
    /// Only of this service; of the MCP gateway that is the toolset
    #[arg(long)]
    service: Option<String>,
    /// Only those whose last failure is of this class, such as `timeout`
    #[arg(long)]
    class: Option<String>,
}

impl Which {
    fn filter(&self) -> Filter {
        Filter { role: self.role.clone(), service: self.service.clone(), class: self.class.clone() }
    }

    fn is_any(&self) -> bool {
        self.role.is_some() || self.service.is_some() || self.class.is_some()
    }
}

#[derive(Debug, Args)]
struct List {
    #[command(flatten)]
    which: Which,
    /// The most that are listed
    #[arg(short = 'n', long, default_value_t = 50)]
    limit: u32,
}

#[derive(Debug, Args)]
struct Targets {
    /// The messages' ids
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    ids: Vec<MessageId>,
    /// All dead letters, or all that fit the filters
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    which: Which,
    /// Why, for the log
    #[arg(long)]
    reason: Option<String>,
}

#[derive(Debug, Args)]
struct Requeue {
    #[command(flatten)]
    targets: Targets,
}

#[derive(Debug, Args)]
struct Drop {
    #[command(flatten)]
    targets: Targets,
    /// Yes, for good
    #[arg(long)]
    yes: bool,
}

/// What was done to one message, for `--json`.
#[derive(Debug, Serialize)]
struct Answer {
    id: MessageId,
    outcome: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Requeue,
    Drop,
}

impl Dlq {
    pub(crate) async fn run(self, global: &Global, output: Output) -> Result<Exit> {
        match self.command {
            Command::List(list) => list.run(global, output).await,
            Command::Requeue(requeue) => {
                requeue.targets.operate(What::Requeue, global, output).await
            }
            Command::Drop(drop) if !drop.yes => {
                let what = if drop.targets.all {
                    "all dead letters that fit".to_owned()
                } else {
                    count(drop.targets.ids.len(), "message")
                };
                let text = format!("this would drop {what} for good");
                Err(Failed::usage(text).hint("Say --yes to do it.").into())
            }
            Command::Drop(drop) => drop.targets.operate(What::Drop, global, output).await,
        }
    }
}

impl List {
    async fn run(self, global: &Global, output: Output) -> Result<Exit> {
        let letters =
            global.bus().await?.dead_letters(&self.which.filter(), self.limit.max(1)).await?;
        if output.json {
            output.value(&letters)?;
            return Ok(Exit::Done);
        }
        if letters.is_empty() {
            note(if self.which.is_any() {
                "No dead letter fits."
            } else {
                "The dead-letter queue is empty."
            });
            return Ok(Exit::Done);
        }
        let rows: Vec<Vec<Cell>> = letters
            .iter()
            .map(|message| {
                let error = message.error.as_ref().map(error_text).unwrap_or_default();
                vec![
                    Cell::plain(message.id.to_string()),
                    Cell::new(message.topic(), Ink::Name),
                    Cell::plain(&message.intent),
                    Cell::number(format!("{}/{}", message.attempts, message.max_attempts)),
                    Cell::new(message.done_at.map(moment).unwrap_or_default(), Ink::Faint),
                    Cell::new(error, Ink::Bad),
                ]
            })
            .collect();
        output.table(&["MESSAGE", "TOPIC", "INTENT", "TRIED", "DIED", "ERROR"], &rows)?;
        if letters.len() == self.limit as usize {
            note(&format!("Only the latest {} are listed; see --limit.", self.limit));
        }
        Ok(Exit::Done)
    }
}

impl Targets {
    async fn operate(self, what: What, global: &Global, output: Output) -> Result<Exit> {
        if !self.all && self.which.is_any() {
            return Err(Failed::usage("--role, --service and --class go with --all only").into());
        }
        let bus = global.bus().await?;
        let answers = if self.all {
            self.all(what, &bus).await?
        } else {
            let mut answers = Vec::new();
            for ids in self.ids.chunks(BATCH as usize) {
                answers.extend(self.some(what, &bus, ids).await?);
            }
            answers
        };
        bus.wake_others().await;
        let verb = match what {
            What::Requeue => "Requeued",
            What::Drop => "Dropped",
        };
        let done = answers.iter().filter(|(_, operated)| *operated == Operated::Done).count();
        let mut exit = Exit::Done;
        for (id, operated) in &answers {
            match operated {
                Operated::Done => {}
                Operated::NotFound => {
                    note(&format!("message {id}: not found"));
                    exit = Exit::NotFound;
                }
                Operated::NotAllowed => {
                    note(&format!("message {id}: is not in the dead-letter queue"));
                    exit = Exit::Refused;
                }
            }
        }
        if output.json {
            let outcome = |operated| match operated {
                Operated::Done => "done",
                Operated::NotFound => "not_found",
                Operated::NotAllowed => "not_allowed",
            };
            let answers: Vec<Answer> =
                answers.into_iter().map(|(id, op)| Answer { id, outcome: outcome(op) }).collect();
            output.value(&answers)?;
        } else {
            note(&format!("{verb} {}.", count(done, "message")));
        }
        Ok(exit)
    }

    async fn some(
        &self,
        what: What,
        bus: &Bus,
        ids: &[MessageId],
    ) -> Result<Vec<(MessageId, Operated)>> {
        let reason = self.reason.as_deref();
        Ok(match what {
            What::Requeue => bus.requeue(ids, reason).await?,
            What::Drop => bus.drop_dead_letters(ids, reason).await?,
        })
    }

    /// Everything that fits, each once: a message that is requeued and dies again meanwhile is not taken
    /// a second time, or this might never end.
    async fn all(&self, what: What, bus: &Bus) -> Result<Vec<(MessageId, Operated)>> {
        let (mut answers, mut seen) = (Vec::new(), HashSet::new());
        let mut limit = BATCH;
        loop {
            let letters = bus.dead_letters(&self.which.filter(), limit).await?;
            let full = letters.len() == limit as usize;
            let ids: Vec<_> =
                letters.iter().map(|letter| letter.id).filter(|id| seen.insert(*id)).collect();
            if ids.is_empty() {
                if !full {
                    return Ok(answers);
                }
                limit = limit.saturating_mul(2); // look past those that came back
            }
            for ids in ids.chunks(BATCH as usize) {
                let some = self.some(what, bus, ids).await?;
                // Somebody else was faster; that is no failure of ours.
                answers.extend(some.into_iter().filter(|(_, op)| *op == Operated::Done));
            }
        }
    }
}
