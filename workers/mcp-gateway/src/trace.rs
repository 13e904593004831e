//! Spans of a tool call, from the hub to the tool's server, by OpenTelemetry's conventions for MCP and messaging.
//!
//! ```text
//! tools/call <tool>       SERVER     the hub answers a client             server_span
//! └ publish <topic>       PRODUCER   it puts the message onto the bus     publish_span
//!   └ process <topic>     CONSUMER   each attempt of a worker             the library's runner
//!     └ tools/call <tool> CLIENT     the call at the tool's server        upstream_span
//! ```
//!
//! Spans say what was called and how it went; never arguments, results or what a failure says at length. Where no
//! tracer is installed all of this is nothing, and the place that a client gave is passed on as it came.

use std::borrow::Cow;
use std::fmt::Display;

use cogo::message::{MessageId, TraceId};
use cogo::trace::{Attribute, Kind, Origin, Place, Span};
use serde_json::{Map, Value};

use crate::config::Toolset;
use crate::upstream::{CallError, Reply};

/// The method that calls tools.
const TOOLS_CALL: &str = "tools/call";
/// The longest part of a span's name that a client chooses.
const MAX_NAME: usize = 128;
/// The names of the two headers, in `_meta` and in a message's payload too.
pub const TRACEPARENT: &str = "traceparent";
/// See [`TRACEPARENT`].
pub const TRACESTATE: &str = "tracestate";

/// The place that a request's `_meta` names, if it names one.
#[must_use]
pub fn in_meta(meta: &Map<String, Value>) -> Option<Place> {
    let text = |name| meta.get(name).and_then(Value::as_str);
    Place::read(text(TRACEPARENT)?, text(TRACESTATE))
}

/// The place that HTTP headers name, if they name one.
#[cfg(feature = "api")]
#[must_use]
pub fn in_headers(headers: &http::HeaderMap) -> Option<Place> {
    let text = |name| headers.get(name)?.to_str().ok();
    // More than one `traceparent` is none (W3C Trace Context, 3.2); of `tracestate` the first is taken.
    if headers.get_all(TRACEPARENT).iter().count() > 1 {
        return None;
    }
    Place::read(text(TRACEPARENT)?, text(TRACESTATE))
}

/// Has a message's payload carry `place`.
pub fn put_into(payload: &mut Value, place: Option<&Place>) {
    let (Some(place), Some(payload)) = (place, payload.as_object_mut()) else { return };
    payload.insert(TRACEPARENT.to_owned(), place.traceparent().into());
    if let Some(state) = place.tracestate() {
        payload.insert(TRACESTATE.to_owned(), state.into());
    }
}

/// What a client asks for, and from where.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asked<'a> {
    /// The method; `tools/call` for a call by REST.
    pub method: &'a str,
    /// The toolset, where it is known.
    pub toolset: Option<&'a str>,
    /// The tool, for calls of tools.
    pub tool: Option<&'a str>,
    /// The MCP session, where there is one.
    pub session: Option<&'a str>,
    /// The MCP revision that is spoken, for requests by MCP.
    pub protocol: Option<&'a str>,
    /// The trace that the client wants the work to belong to (`trace_id`), over the one of `meta` or `header`.
    pub trace_id: Option<TraceId>,
    /// What [`in_meta`] found: the one that counts.
    pub meta: Option<&'a Place>,
    /// What [`in_headers`] found: it counts where `_meta` says nothing.
    pub header: Option<&'a Place>,
}

/// A request while the hub is busy with it. Dropped without [`CallSpan::end`], it was given up.
#[derive(Debug)]
pub struct CallSpan {
    span: Span,
    came: Option<Place>,
    trace_id: Option<TraceId>,
    ended: bool,
}

/// How a request ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End<'a> {
    /// With a result.
    Done,
    /// With a result that says `isError`: the class of the failure, `tool_error` where the tool said so.
    Failed(&'a str),
    /// With a JSON-RPC error.
    Refused(i32),
    /// It goes on as a task, or is not finished within the time that the client waits.
    Pending,
    /// The client cancelled it.
    Cancelled,
}

/// Starts the hub's span of a request.
#[must_use]
pub fn server_span(asked: &Asked<'_>) -> CallSpan {
    let parent = asked.meta.or(asked.header);
    let origin = match (asked.trace_id, parent) {
        (Some(trace), parent) => Origin::within(trace.0, parent),
        (None, Some(parent)) => Origin::Under(parent),
        (None, None) => Origin::New,
    };
    let link = match origin {
        // The client's span is of another trace than the one that it wants.
        Origin::Trace(_) => parent,
        // What carried the request is no part of what it asks for.
        _ => asked.header.filter(|header| asked.meta.is_some_and(|meta| meta != *header)),
    };
    let span =
        Span::start_linked(Kind::Server, origin, link, || {
            let mut attributes = rpc(asked.method, asked.toolset, asked.tool);
            let optional =
                [("mcp.session.id", asked.session), ("mcp.protocol.version", asked.protocol)];
            attributes.extend(optional.into_iter().filter_map(|(key, value)| {
                Some(Attribute::new(key, shortened(value?).into_owned()))
            }));
            (name(asked.method, asked.tool), attributes)
        });
    let trace_id =
        asked.trace_id.or_else(|| span.place().or(parent.cloned()).map(|p| TraceId(p.trace_id())));
    let came =
        parent.filter(|parent| trace_id.is_some_and(|id| id.0 == parent.trace_id())).cloned();
    CallSpan { span, came, trace_id, ended: false }
}

impl CallSpan {
    /// Its place; where no spans are made the one that the client gave, if it gave one. It belongs to the trace
    /// [`CallSpan::trace_id`].
    #[must_use]
    pub fn place(&self) -> Option<Place> {
        self.span.place().or_else(|| self.came.clone())
    }

    /// `traceparent` of [`CallSpan::place`].
    #[must_use]
    pub fn traceparent(&self) -> Option<String> {
        self.place().map(|place| place.traceparent())
    }

    /// The trace of the message that this request becomes; without one the bus chooses.
    #[must_use]
    pub fn trace_id(&self) -> Option<TraceId> {
        self.trace_id
    }

    /// Says which message it has become.
    pub fn message(&mut self, id: MessageId, duplicate: bool) {
        if self.span.is_recording() {
            self.span.set("messaging.message.id", id.to_string());
            self.span.set("cogo.duplicate", duplicate);
        }
    }

    /// Ends it.
    pub fn end(mut self, end: End<'_>) {
        self.ended = true;
        let outcome = match &end {
            End::Done => "done",
            End::Failed(class) => {
                self.span.fail((*class).to_owned());
                "failed"
            }
            End::Refused(code) => {
                let code = code.to_string();
                self.span.set("rpc.response.status_code", code.clone());
                self.span.fail(code);
                "refused"
            }
            End::Pending => "pending",
            End::Cancelled => {
                self.span.fail("cancelled");
                "cancelled"
            }
        };
        self.span.set("cogo.outcome", outcome);
    }
}

impl Drop for CallSpan {
    fn drop(&mut self) {
        if !self.ended {
            self.span.fail("abandoned");
            self.span.set("cogo.outcome", "abandoned");
        }
    }
}

/// The publishing of a message, from before it until the bus has it. Dropped without [`PublishSpan::end`], the
/// bus refused.
#[derive(Debug)]
pub struct PublishSpan {
    span: Span,
    above: Option<Place>,
    ended: bool,
}

/// Starts the span of a publish to `topic`, within the request at `above`.
#[must_use]
pub fn publish_span(above: Option<&Place>, topic: impl Display) -> PublishSpan {
    let origin = above.map_or(Origin::New, Origin::Under);
    let span = Span::start(Kind::Producer, origin, || {
        let topic = topic.to_string();
        let name = format!("publish {topic}");
        (
            name,
            vec![
                Attribute::new("messaging.system", "cogo"),
                Attribute::new("messaging.operation.name", "publish"),
                Attribute::new("messaging.operation.type", "send"),
                Attribute::new("messaging.destination.name", topic),
            ],
        )
    });
    PublishSpan { span, above: above.cloned(), ended: false }
}

impl PublishSpan {
    /// What the message is to carry: [`TRACEPARENT`] and [`TRACESTATE`] of its payload. Where no spans are made,
    /// that is what the client gave.
    #[must_use]
    pub fn place(&self) -> Option<Place> {
        self.span.place().or_else(|| self.above.clone())
    }

    /// The bus has it.
    pub fn end(mut self, id: MessageId, duplicate: bool) {
        self.ended = true;
        if self.span.is_recording() {
            self.span.set("messaging.message.id", id.to_string());
            self.span.set("cogo.duplicate", duplicate);
        }
    }
}

impl Drop for PublishSpan {
    fn drop(&mut self) {
        if !self.ended {
            self.span.fail("refused");
        }
    }
}

/// The call at a tool's server, for as long as it is waited for.
#[derive(Debug)]
pub struct UpstreamSpan {
    span: Span,
    above: Option<Place>,
}

/// Starts the span of a call of `tool` at the server of `toolset`, within the attempt at `above`.
pub(crate) fn upstream_span(
    above: Option<&Place>,
    name_of_toolset: &str,
    toolset: &Toolset,
    tool: &str,
) -> UpstreamSpan {
    let span = match above {
        None => Span::default(),
        Some(above) => Span::start(Kind::Client, Origin::Under(above), || {
            let mut attributes = rpc(TOOLS_CALL, Some(name_of_toolset), Some(tool));
            attributes.extend(network(toolset));
            (name(TOOLS_CALL, Some(tool)), attributes)
        }),
    };
    UpstreamSpan { span, above: above.cloned() }
}

impl UpstreamSpan {
    /// What the tool's server is told; where no spans are made, what the message carried.
    pub(crate) fn place(&self) -> Option<Place> {
        self.span.place().or_else(|| self.above.clone())
    }

    /// Ends it.
    pub(crate) fn end(mut self, outcome: Result<&Reply, &CallError>) {
        if !self.span.is_recording() {
            return;
        }
        match outcome {
            Ok(reply) => {
                self.span.set("mcp.protocol.version", reply.server.protocol.clone());
                self.span.set("cogo.server.name", shortened(&reply.server.name).into_owned());
                self.span.set("cogo.server.version", shortened(&reply.server.version).into_owned());
            }
            Err(error) => {
                self.span.set("cogo.sent", error.sent);
                let code = error.detail.as_ref().and_then(|detail| detail.get("code")?.as_i64());
                if let Some(code) = code {
                    self.span.set("rpc.response.status_code", code.to_string());
                }
                self.span.fail(error.class.as_str());
            }
        }
    }
}

fn rpc(method: &str, toolset: Option<&str>, tool: Option<&str>) -> Vec<Attribute> {
    let mut attributes = vec![Attribute::new("mcp.method.name", shortened(method).into_owned())];
    if let Some(tool) = tool {
        attributes.push(Attribute::new("gen_ai.operation.name", "execute_tool"));
        attributes.push(Attribute::new("gen_ai.tool.name", shortened(tool).into_owned()));
    }
    if let Some(toolset) = toolset {
        attributes.push(Attribute::new("cogo.toolset", shortened(toolset).into_owned()));
    }
    attributes
}

/// How the server is reached. Of its address the host and the port alone: keys may stand in the rest.
fn network(toolset: &Toolset) -> Vec<Attribute> {
    let Some(url) = &toolset.url else {
        return vec![Attribute::new("network.transport", "pipe")];
    };
    let mut attributes = vec![Attribute::new("network.transport", "tcp")];
    if let Ok(url) = reqwest::Url::parse(url) {
        let protocol = if url.scheme().starts_with("ws") { "websocket" } else { "http" };
        attributes.push(Attribute::new("network.protocol.name", protocol));
        if let Some(host) = url.host_str() {
            attributes.push(Attribute::new("server.address", host.to_owned()));
        }
        if let Some(port) = url.port_or_known_default() {
            attributes.push(Attribute::new("server.port", i64::from(port)));
        }
    }
    attributes
}

fn name(method: &str, tool: Option<&str>) -> String {
    match tool {
        Some(tool) => format!("{} {}", shortened(method), shortened(tool)),
        None => shortened(method).into_owned(),
    }
}

/// At most [`MAX_NAME`] characters, none of which a terminal obeys.
fn shortened(text: &str) -> Cow<'_, str> {
    if text.len() <= MAX_NAME && !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    text.chars().filter(|c| !c.is_control()).take(MAX_NAME).collect()
}
