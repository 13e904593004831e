//! Logs, on stderr: lines for people, or one JSON object a line.
//!
//! In JSON each line has `timestamp`, `level`, `target` and `message`; then the event's own fields, and `trace_id`
//! where the line belongs to a message: to the attempt that it was said in, or to the one that it names.

use std::fmt::{self, Write as _};

use anyhow::Result;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber, span};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, fmt as lines};

use cogo::clock;

use crate::connect::{Global, LogFormat};
use crate::exit::Failed;
use crate::output;

/// Sets them up: what `--log` says, or else what is usual.
pub(crate) fn start(global: &Global, usual: &str) -> Result<()> {
    let wanted = global.log.as_deref().filter(|filter| !filter.is_empty()).unwrap_or(usual);
    let filter = EnvFilter::try_new(wanted)
        .map_err(|error| Failed::usage(format!("--log {wanted:?}: {error}")))?;
    // Both hold for all layers: a filter of one layer forgets an event after sqlx has asked whether it would be
    // logged, and not logged it.
    let registry = tracing_subscriber::registry().with(filter).with(filter_fn(tells_no_secret));
    match global.log_format {
        LogFormat::Text => {
            let logs = lines::layer().with_target(false).with_ansi(output::colour_on_stderr());
            registry.with(logs.with_writer(std::io::stderr).compact()).init();
        }
        LogFormat::Json => {
            output::say_in_json();
            let logs = lines::layer().with_ansi(false).with_writer(std::io::stderr);
            registry.with(Remember).with(logs.event_format(Json)).init();
        }
    }
    Ok(())
}

/// Whether it may be logged, whatever was asked for.
fn tells_no_secret(about: &Metadata<'_>) -> bool {
    !tells_secrets(about.target(), *about.level())
}

/// The WebSocket library traces requests and frames whole, and with them keys and tokens. The MCP library says of a server
/// that it cannot reach by which URL, query and all, at each attempt; the gateway says so itself, once and without.
fn tells_secrets(target: &str, level: Level) -> bool {
    let names_urls =
        ["rmcp::transport::worker", "rmcp::transport::streamable_http_client"].contains(&target);
    names_urls || level == Level::TRACE && target.starts_with("tungstenite")
}

/// Keeps the fields of spans, for the lines that are said within them.
struct Remember;

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Remember {
    fn on_new_span(
        &self,
        attributes: &span::Attributes<'_>,
        id: &span::Id,
        context: Context<'_, S>,
    ) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        span.extensions_mut().insert(fields);
    }
}

/// One JSON object a line.
struct Json;

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        // A library that logs by the crate `log` has its own name in a field.
        let target = fields.0.remove("log.target");
        let target = target.unwrap_or_else(|| event.metadata().target().into());
        fields.0.retain(|name, _| !name.starts_with("log."));
        let message = fields.0.remove("message").unwrap_or_else(|| "".into());
        let mut line = line(event.metadata().level().as_str(), target, message);
        // The line's own words before those of what it was said in, the innermost first.
        let own = fields.0.remove("trace.id");
        line.extend(own.map(|id| ("trace_id".to_owned(), id)));
        // What stands above is not to be written over by a field of that name.
        for (name, value) in fields.0 {
            line.entry(name).or_insert(value);
        }
        for span in context.event_scope().into_iter().flatten() {
            if let Some(fields) = span.extensions().get::<Fields>() {
                for (name, value) in &fields.0 {
                    line.entry(name.clone()).or_insert_with(|| value.clone());
                }
            }
        }
        let line = serde_json::to_string(&line).map_err(|_| fmt::Error)?;
        writer.write_str(&line)?;
        writer.write_char('\n')
    }
}

/// What each line begins with.
fn line(level: &str, target: Value, message: Value) -> Map<String, Value> {
    let now = clock::utc_now().to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
    [("timestamp", now.into()), ("level", level.into()), ("target", target), ("message", message)]
        .map(|(name, value)| (name.to_owned(), value))
        .into_iter()
        .collect()
}

/// What is said to a person, as a line of the log: whoever reads that as JSON can read nothing else.
pub(crate) fn said(level: &str, text: &str) -> String {
    Value::Object(line(level, "cogo".into(), text.into())).to_string()
}

/// Fields by name.
#[derive(Debug, Default)]
struct Fields(Map<String, Value>);

impl Fields {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = String::new();
        if write!(text, "{value:?}").is_ok() {
            self.put(field, text);
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_keys_is_not_logged() {
        for (target, level) in [
            ("tungstenite::handshake::client", Level::TRACE),
            ("rmcp::transport::worker", Level::ERROR),
            ("rmcp::transport::streamable_http_client", Level::ERROR),
        ] {
            assert!(tells_secrets(target, level), "{target} {level}");
        }
        for (target, level) in [
            ("tungstenite::protocol", Level::DEBUG),
            ("rmcp::service", Level::WARN),
            ("rmcp::transport::streamable_http_server::session", Level::ERROR),
            ("cogo_worker_mcp_gateway::upstream::supervisor", Level::TRACE),
        ] {
            assert!(!tells_secrets(target, level), "{target} {level}");
        }
    }
}
