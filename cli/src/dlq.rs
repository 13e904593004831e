//! `cogo dlq`: the dead-letter queue.

mod show;
mod which;

use anyhow::Result;
use clap::{Args, Subcommand};
use cogo::bus::Bus;
use cogo::bus::dead_letter::{Change, NewPayload, Operated, Swept};
use cogo::message::MessageId;
use serde::Serialize;
use serde_json::Value;

use crate::connect::Global;
use crate::exit::{Exit, Failed};
use crate::message::read_json;
use crate::output::{Cell, Ink, Output, note};
use crate::text::{error_text, moment};
use crate::trace::count;
use show::Show;
use which::Which;

/// Look after the dead-letter queue: what failed for good
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cogo dlq list --role mcp-gateway --class timeout --since 2h
  cogo dlq show 019ab1c2-…
  cogo dlq requeue 019ab1c2-… --params '{\"message\": \"mended\"}'
  cogo dlq requeue --all --service figma --reason 'figma is back'
  cogo dlq drop --all --class invalid_params --yes

A message gets here when no attempt is left, or none would help, or its deadline has passed. Requeued,
it has all its attempts and its whole deadline before it again, in the same trace. Dropped, it is gone
for good; what happened to it stays in the log.")]
pub(crate) struct Dlq {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List dead letters, the latest first
    List(List),
    /// Show one, with all its attempts
    Show(Show),
    /// Bring messages back to their queue, with all attempts before them
    Requeue(Requeue),
    /// Drop messages for good
    Drop(Drop),
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
    /// With --all: the most that are taken, the latest first
    #[arg(long, value_name = "N")]
    max: Option<u32>,
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
    /// New params, a JSON object, in place of the payload's; @FILE reads a file and - reads stdin
    #[arg(long, value_name = "JSON", conflicts_with = "payload")]
    params: Option<String>,
    /// A new payload as JSON; @FILE reads a file and - reads stdin
    #[arg(long, value_name = "JSON")]
    payload: Option<String>,
    /// How many attempts they have, if not as many as before; from 1 to 1000
    #[arg(long, value_name = "N")]
    max_attempts: Option<i32>,
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

/// What is done to dead letters.
#[derive(Debug)]
enum What {
    Requeue(Change),
    Drop,
}

impl Dlq {
    pub(crate) async fn run(self, global: &Global, output: Output) -> Result<Exit> {
        match self.command {
            Command::List(list) => list.run(global, output).await,
            Command::Show(show) => show.run(global, output).await,
            Command::Requeue(requeue) => {
                let change = requeue.change()?;
                requeue.targets.operate(&What::Requeue(change), global, output).await
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
            Command::Drop(drop) => drop.targets.operate(&What::Drop, global, output).await,
        }
    }
}

impl List {
    async fn run(self, global: &Global, output: Output) -> Result<Exit> {
        let filter = self.which.filter()?;
        let letters = global.bus().await?.dead_letters(&filter, self.limit.max(1)).await?;
        if output.json {
            output.value(&letters)?;
            return Ok(Exit::Done);
        }
        if letters.is_empty() {
            note(if filter.is_empty() {
                "The dead-letter queue is empty."
            } else {
                "No dead letter fits."
            });
            return Ok(Exit::Done);
        }
        let rows: Vec<Vec<Cell>> = letters
            .iter()
            .map(|letter| {
                let message = &letter.message;
                let error = message.error.as_ref().map(error_text).unwrap_or_default();
                vec![
                    Cell::plain(message.id.to_string()),
                    Cell::new(message.topic(), Ink::Name),
                    Cell::plain(&message.intent),
                    Cell::number(format!("{}/{}", message.attempts, message.max_attempts)),
                    Cell::new(message.done_at.map(moment).unwrap_or_default(), Ink::Faint),
                    Cell::plain(letter.reason.as_deref().unwrap_or("?")),
                    Cell::new(error, Ink::Bad),
                ]
            })
            .collect();
        let heading = ["MESSAGE", "TOPIC", "INTENT", "TRIED", "DIED", "REASON", "ERROR"];
        output.table(&heading, &rows)?;
        if letters.len() == self.limit as usize {
            note(&format!("Only the latest {} are listed; see --limit.", self.limit));
        }
        Ok(Exit::Done)
    }
}

impl Requeue {
    fn change(&self) -> Result<Change> {
        let payload = match (&self.params, &self.payload) {
            (Some(params), _) => match read_json("--params", params)? {
                Value::Object(params) => Some(NewPayload::Params(params)),
                _ => return Err(Failed::usage("--params: must be a JSON object").into()),
            },
            (None, Some(payload)) => Some(NewPayload::Whole(read_json("--payload", payload)?)),
            (None, None) => None,
        };
        Ok(Change { payload, max_attempts: self.max_attempts })
    }
}

impl Targets {
    async fn operate(self, what: &What, global: &Global, output: Output) -> Result<Exit> {
        let filter = self.which.filter()?;
        if !self.all && (self.max.is_some() || !filter.is_empty()) {
            let text = "filters such as --role, and --max, go with --all only";
            return Err(Failed::usage(text).into());
        }
        let bus = global.bus().await?;
        let reason = self.reason.as_deref();
        let swept = match what {
            What::Requeue(change) if self.all => {
                bus.requeue_fitting(&filter, self.max, change, reason).await?
            }
            What::Drop if self.all => bus.drop_fitting(&filter, self.max, reason).await?,
            _ => Swept { results: some(what, &bus, &self.ids, reason).await?, more: false },
        };
        bus.wake_others().await;
        let exit = tell(&swept.results);
        if output.json {
            let outcome = |operated| match operated {
                Operated::Done => "done",
                Operated::NotFound => "not_found",
                Operated::NotAllowed => "not_allowed",
                Operated::NoPlaceForParams => "no_place_for_params",
            };
            let answers: Vec<Answer> = swept
                .results
                .iter()
                .map(|(id, operated)| Answer { id: *id, outcome: outcome(*operated) })
                .collect();
            output.value(&answers)?;
        } else {
            let verb = match what {
                What::Requeue(_) => "Requeued",
                What::Drop => "Dropped",
            };
            let done = swept.results.iter().filter(|(_, op)| *op == Operated::Done).count();
            note(&format!("{verb} {}.", count(done, "message")));
        }
        if swept.more {
            note("More fit; see --max.");
        }
        Ok(exit)
    }
}

/// Says what could not be done; gives the exit code.
fn tell(results: &[(MessageId, Operated)]) -> Exit {
    let mut exit = Exit::Done;
    for (id, operated) in results {
        let (why, code) = match operated {
            Operated::Done => continue,
            Operated::NotFound => ("not found", Exit::NotFound),
            Operated::NotAllowed => ("is not in the dead-letter queue", Exit::Refused),
            Operated::NoPlaceForParams => {
                ("its payload is no object and has no place for params", Exit::Refused)
            }
        };
        note(&format!("message {id}: {why}"));
        exit = code;
    }
    exit
}

async fn some(
    what: &What,
    bus: &Bus,
    ids: &[MessageId],
    reason: Option<&str>,
) -> Result<Vec<(MessageId, Operated)>> {
    Ok(match what {
        What::Requeue(change) => bus.requeue_with(ids, change, reason).await?,
        What::Drop => bus.drop_dead_letters(ids, reason).await?,
    })
}
