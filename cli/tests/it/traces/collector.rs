//! A collector that takes OTLP over HTTP.

use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message as _;

use super::server::{Answer, Request, serve};
use crate::support::until;

/// What has been collected.
#[derive(Clone, Default)]
pub(super) struct Collector {
    pub(super) requests: Arc<Mutex<Vec<Request>>>,
    pub(super) url: String,
}

/// One span, and the process that it is of.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) span: Span,
    pub(super) resource: Vec<(String, String)>,
}

impl Collector {
    pub(super) fn start() -> Self {
        let mut collector = Self::default();
        collector.url = serve(collector.answer());
        collector
    }

    /// What answers requests by keeping them.
    pub(super) fn answer(&self) -> impl Fn(Request) -> Answer + Send + Sync + 'static {
        let kept = Arc::clone(&self.requests);
        move |request| {
            kept.lock().expect("unpoisoned").push(request);
            (200, "application/x-protobuf", Vec::new())
        }
    }

    /// All spans so far.
    pub(super) fn spans(&self) -> Vec<Seen> {
        let requests = self.requests.lock().expect("unpoisoned");
        requests.iter().flat_map(|request| decoded(&request.body)).collect()
    }

    /// Waits until there are `count` spans of the trace.
    #[track_caller]
    pub(super) fn wait(&self, trace: &str, count: usize) -> Vec<Seen> {
        let of = || {
            let all = self.spans().into_iter();
            all.filter(|seen| hex(&seen.span.trace_id) == trace.replace('-', ""))
                .collect::<Vec<_>>()
        };
        assert!(until(|| of().len() >= count), "{trace}: {:#?}", self.spans());
        of()
    }

    /// Everything that came, headers too.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let requests = self.requests.lock().expect("unpoisoned");
        requests.iter().flat_map(|request| request.body.clone()).collect()
    }
}

fn decoded(body: &[u8]) -> Vec<Seen> {
    let request = ExportTraceServiceRequest::decode(body).expect("OTLP");
    let mut found = Vec::new();
    for of_resource in request.resource_spans {
        let resource = of_resource.resource.unwrap_or_default();
        let resource: Vec<_> = resource
            .attributes
            .into_iter()
            .map(|pair| (pair.key.clone(), text(pair.value.and_then(|value| value.value))))
            .collect();
        for scope in of_resource.scope_spans {
            let seen = |span| Seen { span, resource: resource.clone() };
            found.extend(scope.spans.into_iter().map(seen));
        }
    }
    found
}

fn text(value: Option<Value>) -> String {
    match value {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::BoolValue(yes)) => yes.to_string(),
        other => format!("{other:?}"),
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Seen {
    pub(super) fn id(&self) -> String {
        hex(&self.span.span_id)
    }

    pub(super) fn parent(&self) -> String {
        hex(&self.span.parent_span_id)
    }

    pub(super) fn kind(&self) -> SpanKind {
        self.span.kind()
    }

    /// What it says under `key`; empty if nothing.
    pub(super) fn says(&self, key: &str) -> String {
        let found = self.span.attributes.iter().find(|pair| pair.key == key).cloned();
        found.map(|pair| text(pair.value.and_then(|value| value.value))).unwrap_or_default()
    }

    pub(super) fn of(&self, key: &str) -> String {
        let found = self.resource.iter().find(|(name, _)| name == key);
        found.map(|(_, value)| value.clone()).unwrap_or_default()
    }

    /// Whether it says that it failed.
    pub(super) fn failed(&self) -> bool {
        self.span.status.as_ref().is_some_and(|status| status.code == 2)
    }

    pub(super) fn events(&self) -> Vec<&str> {
        self.span.events.iter().map(|event| event.name.as_str()).collect()
    }
}

/// The only span of this name.
#[track_caller]
pub(super) fn one<'a>(spans: &'a [Seen], kind: SpanKind, name: &str) -> &'a Seen {
    let mut found = spans.iter().filter(|seen| seen.kind() == kind && seen.span.name == name);
    match (found.next(), found.next()) {
        (Some(seen), None) => seen,
        (seen, more) => panic!("{name}: {seen:?} {more:?}\n{spans:#?}"),
    }
}
