//! `cogo tail`: the log, as it grows.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use cogo::bus::{Bus, Signal};
use cogo::event::{Cursor, Event};
use cogo::message::{MessageId, TraceId};
use serde_json::{Value, json};

use crate::connect::Global;
use crate::exit::Exit;
use crate::message::topic;
use crate::output::{Cell, Ink, Output, note};
use crate::text::{event_detail, event_ink, time_of_day};

/// How long to wait before asking a bus again that did not answer.
const POLL: Duration = Duration::from_secs(1);
/// Events a round trip.
const BATCH: u32 = 500;
/// How many transactions back the end of the log is first looked for.
const FIRST_LOOK_BACK: u64 = 256;

/// Show the end of the log, and follow it
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cogo tail                                      the last 20 events
  cogo tail --follow                             and all that come
  cogo tail -f --type mcp_call_dead_lettered     only what died
  cogo tail -f --role echo --json                one JSON object a line
  cogo tail --after 0.0 -n 1000000 --json        the whole log

Each event has a `cursor`; `--after CURSOR` reads on from there without a gap, whatever was written
at the same time.")]
pub(crate) struct Tail {
    /// Go on with what comes, until Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// How many events to show; with --follow how many of those before
    #[arg(short = 'n', long = "lines", default_value_t = 20, value_name = "N")]
    limit: usize,
    /// Begin after this place in the log; 0.0 is its beginning
    #[arg(long, value_name = "CURSOR")]
    after: Option<Cursor>,
    /// Only events of this type; may be given several times
    #[arg(long = "type", value_name = "TYPE")]
    types: Vec<String>,
    /// Only events of this trace
    #[arg(long, value_name = "TRACE")]
    trace: Option<TraceId>,
    /// Only events of this message
    #[arg(long, value_name = "ID")]
    message: Option<MessageId>,
    /// Only events of this role
    #[arg(long)]
    role: Option<String>,
    /// Only events of this worker
    #[arg(long, value_name = "ID")]
    worker: Option<String>,
    /// Only events of this tenant
    #[arg(long)]
    tenant: Option<String>,
}

impl Tail {
    pub(crate) async fn run(self, global: &Global, output: Output) -> Result<Exit> {
        let bus = global.bus().await?;
        let mut woken = bus.waker(Signal::Log);
        let mut cursor = match self.after {
            Some(after) => self.forward(&bus, after, output).await?,
            None => self.last(&bus, output).await?,
        };
        if !self.follow {
            return Ok(Exit::Done);
        }
        if output.json {
            tracing::debug!("Following the log");
        } else {
            note("Following the log; Ctrl-C ends it.");
        }
        let mut answered = true;
        loop {
            let events = match bus.read_events(cursor, BATCH, &self.filter()).await {
                Ok(events) => events,
                // A server that is restarted is no end of the log; said once, since it may take a while.
                Err(error) if error.is_transient() => {
                    if std::mem::replace(&mut answered, false) {
                        note("The bus does not answer; going on when it does.");
                    }
                    tokio::time::sleep(POLL).await;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            answered = true;
            for event in &events {
                cursor = event.cursor;
                if self.wants(event) {
                    show(output, event)?;
                }
            }
            if events.len() < BATCH as usize {
                tokio::select! {
                    () = woken.woken() => {}
                    () = tokio::time::sleep(bus.pause()) => {}
                }
            }
        }
    }

    /// What the database filters by.
    fn filter(&self) -> Value {
        let mut filter = serde_json::Map::new();
        let mut add = |name: &str, value: Option<Value>| {
            filter.extend(value.map(|value| (name.to_owned(), value)));
        };
        add("types", Some(json!(self.types)).filter(|_| !self.types.is_empty()));
        add("trace_id", self.trace.map(|id| json!(id)));
        add("message_id", self.message.map(|id| json!(id)));
        add("worker_id", self.worker.as_ref().map(|id| json!(id)));
        add("tenant", self.tenant.as_ref().map(|tenant| json!(tenant)));
        Value::Object(filter)
    }

    /// What is left for us to filter by.
    fn wants(&self, event: &Event) -> bool {
        self.role.as_ref().is_none_or(|role| *role == event.role)
    }

    /// Shows the events after `after`, at most as many as wanted, and gives the place reached.
    async fn forward(&self, bus: &Bus, after: Cursor, output: Output) -> Result<Cursor> {
        let mut cursor = after;
        let mut left = self.limit;
        while left > 0 {
            let events = bus.read_events(cursor, BATCH, &self.filter()).await?;
            for event in events.iter().filter(|event| self.wants(event)).take(left) {
                show(output, event)?;
                left -= 1;
                cursor = event.cursor;
            }
            if events.len() < BATCH as usize {
                break;
            }
            if left > 0 {
                cursor = events.last().map_or(cursor, |event| event.cursor);
            }
        }
        Ok(cursor)
    }

    /// Shows the last events, and gives the place reached. The log reads forwards only: look from ever
    /// further back, until enough are found.
    async fn last(&self, bus: &Bus, output: Output) -> Result<Cursor> {
        let end = bus.log_end().await?;
        let mut look_back = FIRST_LOOK_BACK;
        let (mut last, mut cursor);
        loop {
            let start = Cursor { xid: end.xid.saturating_sub(look_back), seq: 0 };
            (last, cursor) = self.collect(bus, start, end).await?;
            if last.len() >= self.limit || start.xid == 0 {
                break;
            }
            look_back = look_back.saturating_mul(16);
        }
        for event in &last {
            show(output, event)?;
        }
        Ok(cursor)
    }

    /// The last of the events between two places, and the later place.
    async fn collect(
        &self,
        bus: &Bus,
        start: Cursor,
        end: Cursor,
    ) -> Result<(VecDeque<Event>, Cursor)> {
        let (mut last, mut cursor) = (VecDeque::new(), start);
        loop {
            let events = bus.read_events(cursor, BATCH, &self.filter()).await?;
            let more = events.len() == BATCH as usize;
            for event in events {
                if event.cursor > end {
                    return Ok((last, end));
                }
                cursor = event.cursor;
                if self.wants(&event) {
                    last.push_back(event);
                    if last.len() > self.limit {
                        last.pop_front();
                    }
                }
            }
            if !more {
                return Ok((last, end));
            }
        }
    }
}

fn show(output: Output, event: &Event) -> Result<()> {
    if output.json {
        return Ok(output.json_line(event)?);
    }
    let attempt = if event.attempt > 0 { format!("#{}", event.attempt) } else { String::new() };
    let who = match event.message_id {
        Some(id) => id.to_string(),
        None => event.worker_id.clone().unwrap_or_default(),
    };
    let row = [
        Cell::new(time_of_day(event.created_at), Ink::Faint),
        Cell::new(&event.event_type, event_ink(&event.event_type)),
        Cell::plain(topic(event)),
        Cell::plain(who),
        Cell::plain(attempt),
        Cell::plain(event_detail(event)),
    ];
    // Of fixed width, since what comes is not known yet: as wide as the usual entries need.
    Ok(output.line(&output.row(&row, &[12, 24, 18, 36, 2, 0]))?)
}
