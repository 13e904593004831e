//! Traces by OTLP, for commands that serve: off unless the environment names a collector.
//!
//! | file | job |
//! |---|---|
//! | `settings.rs` | the standard variables `OTEL_*`, each checked |
//! | `sampler.rs` | which traces are recorded |
//! | `queue.rs` | from a span's end to the collector, on a thread of its own |
//! | `client.rs` | one request to the collector |

mod client;
mod queue;
mod sampler;
mod settings;

use std::time::Duration;

use anyhow::{Context as _, Result};
use opentelemetry::global::BoxedTracer;
use opentelemetry::trace::{SpanId, TraceId, TracerProvider as _};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{
    IdGenerator, RandomIdGenerator, SdkTracerProvider, SpanExporter as _,
};

use self::queue::{Queue, Trouble};
use self::settings::Settings;

/// How long the end of the process waits for the last spans to leave.
const FLUSH_WITHIN: Duration = Duration::from_secs(2);

/// What makes and exports spans, from [`start`] until it is dropped, which waits for the last ones to leave.
pub(crate) struct Telemetry {
    provider: SdkTracerProvider,
}

/// Starts to export spans if the environment names a collector. `part` is what this process is, such as `hub`.
pub(crate) fn start(part: &str) -> Result<Option<Telemetry>> {
    let Some(settings) = Settings::load(&|name| std::env::var(name).ok())? else { return Ok(None) };
    // Whoever was first in this process, stays.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let trouble = Trouble::default();
    let resource = resource(&settings, part);
    let mut exporter = exporter(&settings, trouble.clone())?;
    exporter.set_resource(&resource);
    let queue = Queue::start(exporter, settings.queue, &settings.shown_endpoint(), trouble)
        .context("starting the thread that exports traces")?;
    let provider = SdkTracerProvider::builder()
        .with_id_generator(Ids(RandomIdGenerator::default()))
        .with_resource(resource)
        .with_sampler(settings.sampler)
        .with_span_processor(queue)
        .build();
    let scope = InstrumentationScope::builder("cogo").with_version(env!("CARGO_PKG_VERSION"));
    let tracer = provider.tracer_with_scope(scope.build());
    cogo::trace::install(BoxedTracer::new(Box::new(tracer)));
    tracing::info!("Exporting traces to {}", settings.shown_endpoint());
    Ok(Some(Telemetry { provider }))
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        // What could not leave is told there.
        let _told = self.provider.shutdown_with_timeout(FLUSH_WITHIN);
    }
}

fn exporter(settings: &Settings, trouble: Trouble) -> Result<SpanExporter> {
    let client = client::Client::new(settings, trouble)?;
    SpanExporter::builder()
        .with_http()
        .with_http_client(client)
        .with_endpoint(&settings.endpoint)
        .with_timeout(settings.timeout)
        .with_headers(settings.headers.clone().into_iter().collect())
        .build()
        .context("setting up the export of traces")
}

fn resource(settings: &Settings, part: &str) -> Resource {
    let mut attributes = vec![
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", crate::worker::new_id(part)),
    ];
    attributes.extend(settings.resource.iter().cloned());
    // Without detectors: what they would read from the environment has been checked and is here.
    Resource::builder_empty()
        .with_attributes([
            KeyValue::new("telemetry.sdk.name", "opentelemetry"),
            KeyValue::new("telemetry.sdk.language", "rust"),
        ])
        .with_attributes(attributes)
        .with_service_name(settings.service.clone())
        .build()
}

/// Random ids, but for traces whose id is a message's.
#[derive(Debug)]
struct Ids(RandomIdGenerator);

impl IdGenerator for Ids {
    fn new_trace_id(&self) -> TraceId {
        cogo::trace::chosen_trace_id().unwrap_or_else(|| self.0.new_trace_id())
    }

    fn new_span_id(&self) -> SpanId {
        self.0.new_span_id()
    }
}
