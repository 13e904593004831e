//! `cogo trace`: everything that happened within one piece of work.

use anyhow::Result;
use clap::Args;
use cogo::message::{MessageId, TraceId};
use serde::Serialize;

use crate::connect::Global;
use crate::exit::{Exit, Failed};
use crate::message::{timeline, topic};
use crate::output::{Ink, Output, note};
use crate::text::{millis, moment};

/// Show everything that happened within one trace, as a timeline
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cogo trace 0f2c6c1e-…
  cogo trace \"$(cogo get 019ab1c2-… --json | jq -r .message.trace_id)\"

A trace ties together the messages of one piece of work. A message's id is taken as well.")]
pub(crate) struct Trace {
    /// The trace's id, or the id of one of its messages
    id: TraceId,
    /// The most events that are shown
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
}

/// What `trace --json` prints.
#[derive(Debug, Serialize)]
struct Traced {
    trace_id: TraceId,
    events: Vec<cogo::event::Event>,
}

impl Trace {
    pub(crate) async fn run(self, global: &Global, output: Output) -> Result<Exit> {
        let bus = global.bus().await?;
        let mut trace_id = self.id;
        let mut events = bus.trace_events(trace_id, self.limit).await?;
        if events.is_empty() {
            // The id that a person has at hand is often a message's.
            if let Ok(message) = bus.message(MessageId(self.id.0)).await {
                trace_id = message.trace_id;
                events = bus.trace_events(trace_id, self.limit).await?;
            }
        }
        if events.is_empty() {
            return Err(Failed::new(Exit::NotFound, format!("trace {}: not found", self.id)).into());
        }
        let cut = events.len() == self.limit as usize;
        if output.json {
            output.value(&Traced { trace_id, events })?;
        } else {
            let mut messages: Vec<_> = events.iter().filter_map(|event| event.message_id).collect();
            messages.sort();
            messages.dedup();
            let (first, last) = (events.first(), events.last());
            let span = first
                .zip(last)
                .map_or(0, |(first, last)| (last.created_at - first.created_at).num_milliseconds());
            let began = first.map(|event| moment(event.created_at)).unwrap_or_default();
            output.line(&format!(
                "trace {}  {}",
                output.paint(Ink::Strong, &trace_id.to_string()),
                output.paint(
                    Ink::Faint,
                    &format!(
                        "{}, {}, {}, from {began}",
                        count(messages.len(), "message"),
                        count(events.len(), "event"),
                        millis(span),
                    )
                ),
            ))?;
            if let [message] = messages[..] {
                let whose = events.first().map(topic).unwrap_or_default();
                output.line(&format!("message {message}  {}", output.paint(Ink::Faint, &whose)))?;
            }
            output.line("")?;
            timeline(output, &events, messages.len() > 1)?;
        }
        if cut {
            note(&format!("Only the first {} events are shown; see --limit.", self.limit));
        }
        Ok(Exit::Done)
    }
}

/// `1 event`, `2 events`.
pub(crate) fn count(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}
