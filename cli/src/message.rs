//! `cogo enqueue` and `cogo get`.

use std::io::Read as _;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use cogo::bus::Bus;
use cogo::event::Event;
use cogo::message::{Message, MessageId, NewMessage, Status, Topic, TraceId};
use cogo::retry::{Policies, Policy};
use serde::Serialize;
use serde_json::Value;

use crate::connect::Global;
use crate::exit::{Exit, Failed};
use crate::output::{Cell, Ink, Output, note};
use crate::text::{
    error_text, event_detail, event_ink, millis, moment, parse_duration, status_ink,
};
use crate::wait;

/// Put a message on the bus
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cogo enqueue echo/default echo '{\"hello\": \"world\"}'
  cogo enqueue echo/default echo @payload.json --delay 5m --priority 10
  jq '.job' work.json | cogo enqueue echo/default echo - --idempotency-key job-42
  cogo get \"$(cogo enqueue echo/default echo)\" --wait

The message is committed when its id is printed. The same --idempotency-key gives the same message
again, so that a script may be run twice. For a tool of an MCP server see `cogo mcp call`.")]
pub(crate) struct Enqueue {
    /// Who shall do it: a worker role, and a service within it, as <role>/<service>
    topic: Topic,
    /// What is asked for, such as `echo` or `mcp.call`
    intent: String,
    /// What the worker gets, as JSON; @FILE reads a file and - reads stdin
    #[arg(default_value = "{}", hide_default_value = true)]
    payload: String,
    /// Choose the message's id (a UUID), so that sending it again is safe
    #[arg(long)]
    id: Option<MessageId>,
    /// The same key in a tenant gives the same message
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Higher goes first; from -100 to 100
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    priority: i16,
    /// Due only after a while, such as 30s or 5m
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    delay: Option<Duration>,
    /// How many claims may be tried in all; by default what the retry policy says
    #[arg(long, value_name = "N")]
    max_attempts: Option<i32>,
    /// Give up when it is not done after this long, such as 10m; by default what the retry policy says
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    deadline: Option<Duration>,
    /// Handle messages of this topic with the same key one at a time, in order
    #[arg(long, value_name = "KEY")]
    ordering_key: Option<String>,
    /// Put it into an existing trace
    #[arg(long, value_name = "TRACE")]
    trace: Option<TraceId>,
    /// The message that caused this one
    #[arg(long, value_name = "ID")]
    parent: Option<MessageId>,
    /// Which of several equal instances of the service
    #[arg(long, default_value_t = 0)]
    shard: i32,
    /// Whose work it is; by default what the key is for, or else `default`
    #[arg(long)]
    tenant: Option<String>,
}

impl Enqueue {
    pub(crate) async fn run(self, global: &Global, output: Output) -> Result<Exit> {
        let payload = read_json("payload", &self.payload)?;
        let policies: Policies = global.config()?.load()?;
        let key = format!("{}.{}", self.intent, self.topic.service());
        let message = NewMessage::new(&self.topic, self.intent, payload)
            .with_priority(self.priority)
            .with_delay(self.delay.unwrap_or_default());
        let mut message = by_policy(message, &policies.resolve(&key), self.deadline);
        message.max_attempts = self.max_attempts.or(message.max_attempts);
        message.ordering_key = self.ordering_key;
        message.shard = self.shard;
        message.trace_id = self.trace;
        message.parent_id = self.parent;
        message.idempotency_key = self.idempotency_key;
        if let Some(id) = self.id {
            message.id = id;
        }
        let bus = global.bus().await?;
        let of_key = || bus.claims().and_then(|claims| claims.tenant);
        if let Some(tenant) = self.tenant.or_else(of_key) {
            message.tenant = tenant;
        }
        let receipt = bus.publish(message).await?;
        bus.wake_others().await;
        if output.json {
            output.value(&receipt)?;
        } else {
            if receipt.duplicate {
                note("This message was there already; nothing was enqueued.");
            }
            output.line(&receipt.id.to_string())?;
        }
        Ok(Exit::Done)
    }
}

/// A message with the attempts that its policy gives it, and with this deadline or else the policy's.
pub(crate) fn by_policy(
    message: NewMessage,
    policy: &Policy,
    deadline: Option<Duration>,
) -> NewMessage {
    let attempts = i32::try_from(policy.max_attempts).unwrap_or(i32::MAX);
    let message = message.with_max_attempts(attempts);
    match deadline.or(policy.deadline_ms.map(Duration::from_millis)) {
        Some(deadline) => message.with_deadline(deadline),
        None => message,
    }
}

/// JSON from the command line, a file (`@FILE`) or stdin (`-`).
pub(crate) fn read_json(field: &str, text: &str) -> Result<Value> {
    let read = match text.strip_prefix('@') {
        _ if text == "-" => {
            let mut read = String::new();
            std::io::stdin().read_to_string(&mut read).context("reading stdin")?;
            read
        }
        Some(file) => std::fs::read_to_string(file)
            .map_err(|error| Failed::usage(format!("{field}: {file}: {error}")))?,
        None => text.to_owned(),
    };
    serde_json::from_str(&read)
        .map_err(|error| Failed::usage(format!("{field}: is no JSON: {error}")).into())
}

/// Show a message and what happened to it
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cogo get 019ab1c2-…
  cogo get 019ab1c2-… --wait 2m
  cogo get 019ab1c2-… --json | jq .message.result

With --wait the exit code tells the outcome: 0 done, 1 failed or cancelled, 6 not finished in time.")]
pub(crate) struct Get {
    /// The message's id
    id: MessageId,
    /// Wait until it is finished, at most this long
    #[arg(
        long, value_parser = parse_duration, value_name = "DURATION", num_args = 0..=1,
        default_missing_value = "30s"
    )]
    wait: Option<Duration>,
}

/// What `get --json` prints; the same as the hub's answer.
#[derive(Debug, Serialize)]
struct Found {
    ok: bool,
    message: Message,
    events: Vec<Event>,
}

/// The most events that are shown of one message.
const EVENTS: u32 = 1000;

impl Get {
    pub(crate) async fn run(self, global: &Global, output: Output) -> Result<Exit> {
        let bus = global.bus().await?;
        let message = match self.wait {
            Some(deadline) => wait::wait(&bus, self.id, deadline, |_| {}).await?,
            None => bus.message(self.id).await?,
        };
        let events = bus.message_events(self.id, EVENTS).await?;
        let status = message.status;
        if output.json {
            output.value(&Found { ok: true, message, events })?;
        } else {
            show(output, &message, &events)?;
        }
        Ok(match status {
            _ if self.wait.is_none() => Exit::Done,
            Status::Done => Exit::Done,
            Status::Failed | Status::Cancelled => Exit::Failed,
            _ => {
                note("Not finished yet; the work goes on.");
                Exit::Unfinished
            }
        })
    }
}

/// A message that its sender waits for.
pub(crate) async fn wait_for(bus: &Bus, id: MessageId, deadline: Duration) -> Result<Message> {
    wait::wait(bus, id, deadline, wait::tell).await
}

fn show(output: Output, message: &Message, events: &[Event]) -> Result<()> {
    let attempts = format!("{} of {}", message.attempts, message.max_attempts);
    let mut fields = vec![
        ("message", message.id.to_string(), Ink::Strong),
        ("status", message.status.to_string(), status_ink(message.status)),
        ("topic", message.topic(), Ink::Plain),
        ("intent", message.intent.clone(), Ink::Plain),
        ("attempts", attempts, Ink::Plain),
        ("trace", message.trace_id.to_string(), Ink::Plain),
    ];
    let mut add = |name, value: Option<String>| {
        if let Some(value) = value {
            fields.push((name, value, Ink::Plain));
        }
    };
    add("parent", message.parent_id.map(|id| id.to_string()));
    add("key", message.idempotency_key.clone());
    add("tenant", Some(message.tenant.clone()).filter(|tenant| tenant != "default"));
    add("priority", Some(message.priority).filter(|p| *p != 0).map(|p| p.to_string()));
    add("created", Some(moment(message.created_at)));
    add(
        "due",
        Some(message.status).filter(|s| *s == Status::Delayed).map(|_| moment(message.run_at)),
    );
    add("deadline", message.deadline_at.map(moment));
    add("in line of", message.ordering_key.clone());
    add("parked for", message.parked_for.clone());
    add("claimed by", message.claimed_by.clone());
    add("lease until", message.lease_until.map(moment));
    add("finished", message.done_at.map(moment));
    for (name, value, ink) in fields {
        let row = [Cell::new(name, Ink::Faint), Cell::new(value, ink)];
        output.line(&output.row(&row, &[11, 0]))?;
    }
    block(output, "payload", &message.payload)?;
    if let Some(result) = &message.result {
        block(output, "result", result)?;
    }
    if let Some(error) = &message.error {
        let row = [Cell::new("error", Ink::Faint), Cell::new(error_text(error), Ink::Bad)];
        output.line("")?;
        output.line(&output.row(&row, &[11, 0]))?;
    }
    if !events.is_empty() {
        output.line("")?;
        timeline(output, events, false)?;
    }
    Ok(())
}

fn block(output: Output, name: &str, value: &Value) -> Result<()> {
    output.line("")?;
    output.line(&output.paint(Ink::Faint, name))?;
    let text = serde_json::to_string_pretty(value)?;
    for line in text.lines() {
        output.line(&format!("  {line}"))?;
    }
    Ok(())
}

/// Events as a timeline, relative to the first; with the message's id where there are several.
pub(crate) fn timeline(output: Output, events: &[Event], with_message: bool) -> Result<()> {
    let Some(first) = events.iter().map(|event| event.created_at).min() else { return Ok(()) };
    let rows: Vec<Vec<Cell>> = events
        .iter()
        .map(|event| {
            let since = (event.created_at - first).num_milliseconds();
            let mut row = vec![
                Cell::new(format!("+{}", millis(since)), Ink::Faint).right(),
                Cell::new(&event.event_type, event_ink(&event.event_type)),
            ];
            if with_message {
                let of = event.message_id.map(crate::text::short).unwrap_or_default();
                row.push(Cell::plain(of));
                row.push(Cell::plain(topic(event)));
            }
            row.push(Cell::plain(if event.attempt > 0 {
                format!("attempt {}", event.attempt)
            } else {
                String::new()
            }));
            row.push(Cell::new(event.worker_id.as_deref().unwrap_or(""), Ink::Faint));
            row.push(Cell::plain(event_detail(event)));
            row
        })
        .collect();
    let columns = rows.first().map_or(0, Vec::len);
    let widths: Vec<usize> =
        (0..columns).map(|at| rows.iter().map(|row| row[at].width()).max().unwrap_or(0)).collect();
    for row in &rows {
        output.line(&output.row(row, &widths))?;
    }
    Ok(())
}

/// `role/service` of an event, or what there is of it.
pub(crate) fn topic(event: &Event) -> String {
    match (event.role.as_str(), event.service.as_str()) {
        (role, "") => role.to_owned(),
        (role, service) => format!("{role}/{service}"),
    }
}
