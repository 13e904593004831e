//! Traces: spans of the OpenTelemetry API, in the trace that a message names.
//!
//! A message's `trace_id` is the W3C trace id of its spans, so that `cogo trace <id>` and a tracing back end tell
//! of the same piece of work under the same id. This module only makes spans. Whoever wants them collected gives
//! a tracer to [`install`]; until then a [`Span`] is nothing and costs nothing.

use std::borrow::Cow;
use std::cell::Cell;
use std::sync::OnceLock;

use opentelemetry::global::{BoxedSpan, BoxedTracer};
use opentelemetry::trace::{
    Link, Span as _, SpanContext, SpanId, Status, TraceContextExt as _, TraceFlags, TraceId,
    TraceState, Tracer as _,
};
use opentelemetry::{Context, KeyValue};
use uuid::Uuid;

pub use opentelemetry::trace::SpanKind as Kind;
pub use opentelemetry::{KeyValue as Attribute, Value};

/// The longest `tracestate` that is passed on (W3C Trace Context, 3.3.1.5: at least 512 characters).
const MAX_STATE: usize = 512;
/// How long a `traceparent` of version 00 is.
const PARENT_LENGTH: usize = 55;

static TRACER: OnceLock<BoxedTracer> = OnceLock::new();

thread_local! {
    static CHOSEN: Cell<Option<Uuid>> = const { Cell::new(None) };
}

/// Has all spans of this process made by `tracer`, from now on; false if there is one already.
///
/// For roots the id generator behind it must ask [`chosen_trace_id`] first: a generator that does not gives
/// traces that do not bear the ids of their messages.
pub fn install(tracer: BoxedTracer) -> bool {
    TRACER.set(tracer).is_ok()
}

/// Whether spans are made at all.
#[must_use]
pub fn installed() -> bool {
    TRACER.get().is_some()
}

/// The id of the trace whose root span is being started on this thread, if it was chosen: an id generator must
/// give this one.
#[must_use]
pub fn chosen_trace_id() -> Option<TraceId> {
    CHOSEN.get().map(|id| TraceId::from_bytes(id.into_bytes()))
}

/// A span's place: what goes from one process to another (W3C Trace Context).
#[derive(Debug, Clone, PartialEq)]
pub struct Place(SpanContext);

impl Place {
    /// Reads the headers of these names. A `traceparent` that breaks the rules counts as none, as the
    /// specification wants it, and so does a `tracestate`.
    #[must_use]
    pub fn read(traceparent: &str, tracestate: Option<&str>) -> Option<Self> {
        let text = traceparent.trim();
        let (known, rest) = (text.get(..PARENT_LENGTH)?, &text[PARENT_LENGTH..]);
        let mut parts = known.split('-');
        let mut part = |length| parts.next().filter(|part| lower_hex(part, length));
        let (version, trace, span, flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
        // A later version may have more behind a further dash.
        let ends = if version == "00" {
            rest.is_empty()
        } else {
            matches!(rest.as_bytes(), [] | [b'-', ..])
        };
        if version == "ff" || !ends {
            return None;
        }
        let sampled = u8::from_str_radix(flags, 16).ok()? & 1 == 1;
        let state = tracestate.filter(|state| state.len() <= MAX_STATE);
        let context = SpanContext::new(
            TraceId::from_hex(trace).ok()?,
            SpanId::from_hex(span).ok()?,
            TraceFlags::default().with_sampled(sampled),
            true,
            state.and_then(|state| state.parse::<TraceState>().ok()).unwrap_or_default(),
        );
        context.is_valid().then_some(Self(context))
    }

    /// The trace, as messages name it.
    #[must_use]
    pub fn trace_id(&self) -> Uuid {
        Uuid::from_bytes(self.0.trace_id().to_bytes())
    }

    /// Whether the trace is recorded.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.0.is_sampled()
    }

    /// The header `traceparent`.
    #[must_use]
    pub fn traceparent(&self) -> String {
        let flags = self.0.trace_flags().to_u8() & 1;
        format!("00-{}-{}-{flags:02x}", self.0.trace_id(), self.0.span_id())
    }

    /// The header `tracestate`, if there is one.
    #[must_use]
    pub fn tracestate(&self) -> Option<String> {
        Some(self.0.trace_state().header()).filter(|state| !state.is_empty())
    }
}

fn lower_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Where a new span goes.
#[derive(Debug, Clone, Copy)]
pub enum Origin<'a> {
    /// It begins a trace of its own.
    New,
    /// It begins the trace of this id.
    Trace(Uuid),
    /// It is a part of what this one does.
    Under(&'a Place),
}

impl<'a> Origin<'a> {
    /// Under `parent` where that is of the trace `trace`, else the beginning of that trace.
    #[must_use]
    pub fn within(trace: Uuid, parent: Option<&'a Place>) -> Self {
        match parent {
            Some(parent) if parent.trace_id() == trace => Self::Under(parent),
            _ => Self::Trace(trace),
        }
    }
}

/// A span while it lasts; it ends when it is dropped. Nothing where no tracer is [`install`]ed.
#[derive(Debug, Default)]
pub struct Span(Option<BoxedSpan>);

impl Span {
    /// Starts a span. What it is called and what is known of it is asked only where spans are made.
    #[must_use]
    pub fn start<N: Into<Cow<'static, str>>>(
        kind: Kind,
        origin: Origin<'_>,
        describe: impl FnOnce() -> (N, Vec<KeyValue>),
    ) -> Self {
        Self::start_linked(kind, origin, None, describe)
    }

    /// As [`Span::start`], and says that `link` has to do with it without being above it.
    #[must_use]
    pub fn start_linked<N: Into<Cow<'static, str>>>(
        kind: Kind,
        origin: Origin<'_>,
        link: Option<&Place>,
        describe: impl FnOnce() -> (N, Vec<KeyValue>),
    ) -> Self {
        let Some(tracer) = TRACER.get() else { return Self(None) };
        let (name, attributes) = describe();
        let mut builder = tracer.span_builder(name).with_kind(kind).with_attributes(attributes);
        if let Some(link) = link {
            builder = builder.with_links(vec![Link::with_context(link.0.clone())]);
        }
        let (chosen, context) = match origin {
            Origin::New => (None, Context::new()),
            Origin::Trace(id) => (Some(id).filter(|id| !id.is_nil()), Context::new()),
            Origin::Under(place) => {
                (None, Context::new().with_remote_span_context(place.0.clone()))
            }
        };
        CHOSEN.set(chosen);
        let span = tracer.build_with_context(builder, &context);
        CHOSEN.set(None);
        Self(Some(span))
    }

    /// Its place, for what it causes elsewhere; none where no spans are made.
    #[must_use]
    pub fn place(&self) -> Option<Place> {
        let context = self.0.as_ref()?.span_context();
        context.is_valid().then(|| Place(context.clone()))
    }

    /// Whether what is said of it goes anywhere.
    #[must_use]
    pub fn is_recording(&self) -> bool {
        self.0.as_ref().is_some_and(|span| span.is_recording())
    }

    /// Says something of it.
    pub fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        if let Some(span) = self.0.as_mut().filter(|span| span.is_recording()) {
            span.set_attribute(KeyValue::new(key, value));
        }
    }

    /// Says that something happened within it.
    pub fn event(&mut self, name: &'static str, attributes: Vec<KeyValue>) {
        if let Some(span) = &mut self.0 {
            span.add_event(name, attributes);
        }
    }

    /// Says that it failed, and how: a class, such as `timeout`. What a failure says at length stays out of
    /// traces, since it may repeat what was sent.
    pub fn fail(&mut self, class: impl Into<Cow<'static, str>>) {
        if let Some(span) = self.0.as_mut().filter(|span| span.is_recording()) {
            let class = class.into();
            span.set_attribute(KeyValue::new("error.type", class.clone()));
            span.set_status(Status::error(class));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    fn parent(flags: &str) -> String {
        format!("00-{TRACE}-00f067aa0ba902b7-{flags}")
    }

    #[test]
    fn a_place_is_written_as_it_was_read() {
        for (flags, sampled) in [("00", false), ("01", true)] {
            let place = Place::read(&parent(flags), Some("rojo=1,congo=2")).expect("a good one");
            assert_eq!(place.traceparent(), parent(flags));
            assert_eq!(place.tracestate().as_deref(), Some("rojo=1,congo=2"));
            assert_eq!(place.trace_id().simple().to_string(), TRACE);
            assert_eq!(place.is_sampled(), sampled);
        }
    }

    #[test]
    fn a_later_version_may_say_more() {
        let text = format!("{}-what-comes", parent("03").replacen("00", "01", 1));
        let place = Place::read(&text, None).expect("a good one");
        assert_eq!(place.traceparent(), parent("01"));
    }

    #[test]
    fn what_breaks_the_rules_counts_as_none() {
        let good = parent("01");
        let zeros = "0".repeat(32);
        for bad in [
            String::new(),
            good.replacen("00", "ff", 1),
            good.to_uppercase(),
            format!("{good}-more"),
            format!("{good}0"),
            good[..54].to_owned(),
            good.replace(TRACE, &zeros),
            good.replace("00f067aa0ba902b7", &zeros[..16]),
            good.replace("4bf9", "4bg9"),
            "ü".repeat(28),
            good.replace('-', "_"),
        ] {
            assert_eq!(Place::read(&bad, None), None, "{bad}");
        }
        let endless = format!("a={}", "x".repeat(600));
        for bad in ["no pair", &endless] {
            assert_eq!(Place::read(&good, Some(bad)).expect("a place").tracestate(), None, "{bad}");
        }
    }

    #[test]
    fn a_parent_of_another_trace_is_none() {
        let place = Place::read(&parent("01"), None).expect("a good one");
        assert!(matches!(Origin::within(place.trace_id(), Some(&place)), Origin::Under(_)));
        let other = Uuid::from_u128(7);
        assert!(matches!(Origin::within(other, Some(&place)), Origin::Trace(id) if id == other));
        assert!(matches!(Origin::within(other, None), Origin::Trace(id) if id == other));
    }
}
