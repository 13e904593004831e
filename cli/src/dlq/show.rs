//! `cogo dlq show`: one dead letter, and how it came to be one.

use anyhow::Result;
use clap::Args;
use cogo::bus::dead_letter::{Examined, Step};
use cogo::message::MessageId;
use serde_json::Value;

use crate::connect::Global;
use crate::exit::Exit;
use crate::output::{Cell, Ink, Output, note};
use crate::text::{error_text, millis, moment};
use crate::trace::count;

/// The message's payload is shown up to here; `--json` has it all.
const PAYLOAD_SHOWN: usize = 500;

#[derive(Debug, Args)]
pub(crate) struct Show {
    /// The message's id
    id: MessageId,
}

impl Show {
    pub(crate) async fn run(self, global: &Global, output: Output) -> Result<Exit> {
        let examined = global.bus().await?.dead_letter(self.id).await?;
        if output.json {
            output.value(&examined)?;
        } else {
            show(output, &examined)?;
        }
        if examined.truncated {
            note("There were more attempts than are shown; `cogo tail --message` has them all.");
        }
        Ok(Exit::Done)
    }
}

fn show(output: Output, examined: &Examined) -> Result<()> {
    let letter = &examined.letter;
    let message = &letter.message;
    let line = |name: &str, value: Cell| {
        output.line(&output.row(&[Cell::new(name, Ink::Faint), value], &[8, 0]))
    };
    line("message", Cell::plain(message.id.to_string()))?;
    line("topic", Cell::new(format!("{}  {}", message.topic(), message.intent), Ink::Name))?;
    line("tenant", Cell::plain(&message.tenant))?;
    line("trace", Cell::plain(message.trace_id.to_string()))?;
    line("died", Cell::plain(message.done_at.map(moment).unwrap_or_default()))?;
    line("reason", Cell::plain(letter.reason.as_deref().unwrap_or("no longer in the log")))?;
    line("error", Cell::new(message.error.as_ref().map(error_text).unwrap_or_default(), Ink::Bad))?;
    let payload = message.payload.to_string();
    let cut = payload.floor_char_boundary(PAYLOAD_SHOWN);
    let dots = if cut < payload.len() { "…" } else { "" };
    line("payload", Cell::plain(format!("{}{dots}", &payload[..cut])))?;
    output.line("")?;
    let rows: Vec<Vec<Cell>> = examined.history.iter().map(row).collect();
    output.table(&["AT", "WHAT", "WORKER", "TOOK", "ARTIFACTS", "WHY"], &rows)?;
    Ok(())
}

fn row(step: &Step) -> Vec<Cell> {
    let said = |class: &Option<String>, message: &Option<String>| {
        let parts: Vec<&str> = [class, message].into_iter().flatten().map(String::as_str).collect();
        parts.join(": ")
    };
    let plain = |at, what: Cell, why: String| {
        let nothing = || Cell::plain("");
        let at = Cell::new(moment(at), Ink::Faint);
        vec![at, what, nothing(), nothing(), nothing(), Cell::plain(why)]
    };
    match step {
        Step::Attempt(attempt) => vec![
            Cell::new(moment(attempt.at), Ink::Faint),
            Cell::plain(format!("attempt {}", attempt.attempt)),
            Cell::plain(attempt.worker_id.as_deref().unwrap_or_default()),
            Cell::number(attempt.duration_ms.map(millis).unwrap_or_default()),
            Cell::plain(attempt.artifacts.as_deref().unwrap_or_default()),
            Cell::new(said(&attempt.class, &attempt.message), Ink::Bad),
        ],
        Step::DeadLettered(end) => {
            let why = end.reason.clone().unwrap_or_else(|| said(&end.class, &end.message));
            plain(end.at, Cell::new("dead-lettered", Ink::Bad), why)
        }
        Step::Cancelled(end) => {
            plain(end.at, Cell::plain("cancelled"), end.reason.clone().unwrap_or_default())
        }
        Step::Requeued(requeued) => {
            let tried = requeued.previous.as_ref().and_then(|p| p.get("attempts"));
            let tried = tried.and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
            let tried = tried.map(|n| format!("after {}", count(n, "attempt")));
            let changed = requeued.changed.then(|| "with another payload".to_owned());
            let why: Vec<String> =
                [requeued.reason.clone(), tried, changed].into_iter().flatten().collect();
            plain(requeued.at, Cell::new("— requeued —", Ink::Warn), why.join(" · "))
        }
        _ => Vec::new(),
    }
}
