//! `cogo replay`: the log against the table, and a trace once more.

use anyhow::Result;
use clap::{Args, Subcommand};
use cogo::bus::Bus;
use cogo::bus::replay::{Difference, Options, Rebuilt, Report, Verdict};
use cogo::message::TraceId;
use serde::Serialize;

use crate::connect::Global;
use crate::exit::{Exit, Failed};
use crate::output::{Cell, Ink, Output, note};
use crate::progress::Bar;
use crate::trace::count;

/// Check the messages against the log, restore them from it, or do a trace's work again
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cogo replay verify
  cogo replay rebuild --dry-run
  cogo replay trace 0f2c6c1e-…

The log holds everything that happened, so it tells how every message must stand now.")]
pub(crate) struct Replay {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Verify(Verify),
    Rebuild(Rebuild),
    Trace(Trace),
}

/// Fold the log and compare it with the messages
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cogo replay verify
  cogo replay verify --json | jq .exact

It may run while work goes on, and is exact all the same. Ends with exit code 1 where a message is
not as the log says. Messages whose beginning has left the log with its old partitions are not
judged, and are counted.")]
struct Verify {
    #[command(flatten)]
    how: How,
}

/// Restore messages that are lost or damaged from the log
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cogo replay rebuild --dry-run
  cogo replay rebuild --yes

Writers wait until it is done, readers do not; it happens as a whole or not at all. A message that is
under way and has to be restored waits again: whoever works on it finds that its claim is lost. What
the log cannot judge is left alone.")]
struct Rebuild {
    #[command(flatten)]
    how: How,
    /// Only tell what would be done
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
    /// Yes, write
    #[arg(long)]
    yes: bool,
}

/// Do a finished trace's work again, as a new trace
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cogo replay trace 0f2c6c1e-…
  cogo trace \"$(cogo replay trace 0f2c6c1e-…)\"

Enqueues the messages that began the trace anew; what they caused, they will cause again. The new
messages name the old ones as their parents, and have no idempotency keys. It is read from the log,
so the old messages may be gone.")]
struct Trace {
    /// The trace's id
    id: TraceId,
    /// Every message of the trace, and not only those that began it
    #[arg(long)]
    all: bool,
}

#[derive(Debug, Args)]
struct How {
    /// The most messages that are shown in detail
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    show: u32,
    /// About how many events are compared at once
    #[arg(
        long, default_value_t = 5000, hide_short_help = true,
        value_parser = clap::value_parser!(u32).range(1..=100_000)
    )]
    range: u32,
}

impl How {
    fn options(&self) -> Options {
        Options { range: self.range, show: self.show }
    }

    async fn compare(&self, bus: &Bus) -> Result<Report> {
        let mut bar = Bar::new("Comparing");
        Ok(bus.replay_verify(&self.options(), |at| bar.show(at.events, at.about)).await?)
    }
}

/// What `replay verify --json` prints.
#[derive(Debug, Serialize)]
struct Verified {
    exact: bool,
    #[serde(flatten)]
    report: Report,
}

/// What `replay rebuild --json` prints.
#[derive(Debug, Serialize)]
struct Restored {
    dry_run: bool,
    #[serde(flatten)]
    rebuilt: Rebuilt,
}

impl Replay {
    pub(crate) async fn run(self, global: &Global, output: Output) -> Result<Exit> {
        match self.command {
            Command::Verify(verify) => verify.run(global, output).await,
            Command::Rebuild(rebuild) => rebuild.run(global, output).await,
            Command::Trace(trace) => trace.run(global, output).await,
        }
    }
}

impl Verify {
    async fn run(self, global: &Global, output: Output) -> Result<Exit> {
        let bus = global.bus().await?;
        let report = self.how.compare(&bus).await?;
        let exact = report.is_exact();
        if output.json {
            output.value(&Verified { exact, report })?;
        } else {
            show(output, &report)?;
            not_judged(report.unjudged);
            let (messages, events) =
                (total(report.messages, "message"), total(report.events, "event"));
            output.line(&if exact {
                format!("{}: {messages}, {events}", output.paint(Ink::Good, "exact"))
            } else {
                let wrong = total(report.wrong(), "message");
                let kinds = [
                    (report.differing, "differ"),
                    (report.missing, "missing in the table"),
                    (report.extra, "gone in the log"),
                    (report.unknown, "not in the log"),
                ];
                let kinds: Vec<String> = kinds
                    .into_iter()
                    .filter(|(n, _)| *n > 0)
                    .map(|(n, kind)| format!("{n} {kind}"))
                    .collect();
                let word = output.paint(Ink::Bad, "not exact");
                format!(
                    "{word}: {wrong} ({}); {messages} as the log says, {events}",
                    kinds.join(", ")
                )
            })?;
        }
        Ok(if exact { Exit::Done } else { Exit::Failed })
    }
}

impl Rebuild {
    async fn run(self, global: &Global, output: Output) -> Result<Exit> {
        let bus = global.bus().await?;
        if self.yes {
            let mut bar = Bar::new("Restoring");
            let tell = |at: cogo::bus::replay::Progress| bar.show(at.events, at.about);
            let rebuilt = bus.replay_rebuild(&self.how.options(), tell).await?;
            drop(bar);
            bus.wake_others().await;
            return tell_restored(output, &rebuilt, false);
        }
        let report = self.how.compare(&bus).await?;
        let would = Rebuilt {
            messages: report.messages,
            events: report.events,
            inserted: report.missing,
            replaced: report.differing,
            removed: report.extra,
            unjudged: report.unjudged,
            unknown: report.unknown,
        };
        if self.dry_run {
            if !output.json {
                show(output, &report)?;
            }
            return tell_restored(output, &would, true);
        }
        if would.inserted + would.replaced + would.removed == 0 {
            return tell_restored(output, &would, false);
        }
        let text = format!("this would {}", work(&would, ["insert", "replace", "remove"]));
        let hint = "Say --yes to do it, or --dry-run to see more. Writers wait meanwhile.";
        Err(Failed::usage(text).hint(hint).into())
    }
}

impl Trace {
    async fn run(self, global: &Global, output: Output) -> Result<Exit> {
        let bus = global.bus().await?;
        let anew = TraceId::new();
        let replayed = match bus.replay_trace(self.id, anew, self.all).await {
            Err(error) if error.is_transient() => {
                let text = format!("trace {}: {error}", self.id);
                let hint = format!("It may have been done; `cogo trace {anew}` tells.");
                return Err(Failed::unavailable(text).hint(hint).into());
            }
            other => other?,
        };
        bus.wake_others().await;
        if output.json {
            output.value(&replayed)?;
        } else {
            output.line(&replayed.trace_id.to_string())?;
            let messages = count(replayed.messages.len(), "message");
            note(&format!(
                "Enqueued {messages} anew; `cogo trace {anew}` shows what becomes of it."
            ));
        }
        Ok(Exit::Done)
    }
}

/// The messages that are wrong, a line for each field.
fn show(output: Output, report: &Report) -> Result<()> {
    if report.differences.is_empty() {
        return Ok(());
    }
    let rows: Vec<Vec<Cell>> = report.differences.iter().flat_map(rows).collect();
    output.table(&["MESSAGE", "FIELD", "TABLE SAYS", "LOG SAYS"], &rows)?;
    let shown = report.differences.len() as u64;
    if shown < report.wrong() {
        note(&format!("Only the first {shown} of {} are shown; see --show.", report.wrong()));
    }
    Ok(())
}

fn rows(difference: &Difference) -> Vec<Vec<Cell>> {
    let row = |field: &str, in_table: &str, in_log: &str| {
        vec![
            Cell::plain(difference.id.to_string()),
            Cell::new(field, Ink::Name),
            Cell::plain(in_table),
            Cell::plain(in_log),
        ]
    };
    match difference.verdict {
        Verdict::Missing => vec![row("", "missing", "there")],
        Verdict::Extra => vec![row("", "there", "dropped or purged")],
        Verdict::Unknown => vec![row("", "there", "never enqueued")],
        Verdict::Differs => difference
            .fields
            .iter()
            .map(|field| {
                let say = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
                row(&field.field, &say(&field.in_table), &say(&field.in_log))
            })
            .collect(),
    }
}

fn tell_restored(output: Output, rebuilt: &Rebuilt, dry_run: bool) -> Result<Exit> {
    if output.json {
        output.value(&Restored { dry_run, rebuilt: *rebuilt })?;
        return Ok(Exit::Done);
    }
    not_judged(rebuilt.unjudged);
    if rebuilt.unknown > 0 {
        let unknown = total(rebuilt.unknown, "message");
        note(&format!("Left alone: {unknown} that the log should know and does not."));
    }
    let messages = total(rebuilt.messages, "message");
    output.line(&if rebuilt.inserted + rebuilt.replaced + rebuilt.removed == 0 {
        format!("nothing to restore: {messages} as the log says")
    } else if dry_run {
        format!(
            "would {}; {messages} as the log says",
            work(rebuilt, ["insert", "replace", "remove"])
        )
    } else {
        let done = work(rebuilt, ["inserted", "replaced", "removed"]);
        format!("{done}; {messages} were as the log says")
    })?;
    Ok(Exit::Done)
}

/// `insert 3, replace 1, remove 0 messages`.
fn work(rebuilt: &Rebuilt, [insert, replace, remove]: [&str; 3]) -> String {
    let Rebuilt { inserted, replaced, removed, .. } = rebuilt;
    format!("{insert} {inserted}, {replace} {replaced}, {remove} {removed} messages")
}

fn not_judged(unjudged: u64) {
    if unjudged > 0 {
        let messages = total(unjudged, "message");
        note(&format!(
            "Not judged: {messages} whose beginning has left the log with its old partitions."
        ));
    }
}

fn total(n: u64, noun: &str) -> String {
    count(usize::try_from(n).unwrap_or(usize::MAX), noun)
}
