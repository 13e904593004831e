//! What the tools are called, what they take and give, and what a model is told of them.

use std::sync::LazyLock;

use jsonschema::Validator;
use serde_json::{Map, Value, json};

use super::answer::{VALUE_BYTES, VALUE_BYTES_MAX};
use crate::mesh::{Refusal, problem_of};

/// One tool.
pub(super) struct Tool {
    name: &'static str,
    writes: bool,
    definition: Value,
    validator: Validator,
}

impl Tool {
    pub(super) fn definition(&self) -> &Value {
        &self.definition
    }

    /// Whether it is for somebody who operates, or does not.
    pub(super) fn is_for(&self, is_operator: bool) -> bool {
        !self.writes || is_operator
    }

    /// Gives the arguments back if they fit.
    pub(super) fn check(
        &self,
        arguments: Map<String, Value>,
    ) -> Result<Map<String, Value>, Refusal> {
        let arguments = Value::Object(arguments);
        match (problem_of(&self.validator, &self.definition["inputSchema"], &arguments), arguments)
        {
            (None, Value::Object(arguments)) => Ok(arguments),
            (Some((pointer, message)), _) => Err(Refusal::InvalidArguments { pointer, message }),
            (None, _) => unreachable!("they came as an object"),
        }
    }
}

/// The tool of a name.
pub(super) fn of(name: &str) -> Option<&'static Tool> {
    ALL.iter().find(|tool| tool.name == name)
}

/// All tools, by name.
pub(super) static ALL: LazyLock<Vec<Tool>> = LazyLock::new(|| {
    let tools = [
        circuit_status(),
        enqueue(),
        get_message(),
        get_trace(),
        list_dead_letters(),
        list_workers(),
        requeue(),
    ];
    tools
        .into_iter()
        .map(|(name, definition)| {
            let validator = jsonschema::options()
                .offline()
                .build(&definition["inputSchema"])
                .expect("our own schemas are schemas");
            let writes = definition["annotations"]["readOnlyHint"] == false;
            Tool { name, writes, definition, validator }
        })
        .collect()
});

struct Words {
    name: &'static str,
    title: &'static str,
    description: &'static str,
}

fn reads(words: Words, input: Value, output: Value) -> (&'static str, Value) {
    let annotations = json!({
        "title": words.title, "readOnlyHint": true, "destructiveHint": false, "idempotentHint": true,
        "openWorldHint": false,
    });
    tool(words, input, output, annotations)
}

fn tool(words: Words, input: Value, output: Value, annotations: Value) -> (&'static str, Value) {
    let Words { name, title, description } = words;
    let definition = json!({
        "name": name, "title": title, "description": description, "inputSchema": input,
        "outputSchema": output, "annotations": annotations,
    });
    (name, definition)
}

fn object(properties: Value, required: &[&str]) -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object",
        "properties": properties, "required": required, "additionalProperties": false,
    })
}

/// What is given: more may come with later releases.
fn given(properties: Value, required: &[&str]) -> Value {
    json!({"type": "object", "properties": properties, "required": required})
}

fn uuid(description: &str) -> Value {
    json!({
        "type": "string", "description": description,
        "pattern": "^[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}$",
    })
}

fn text(description: &str, most: u32) -> Value {
    json!({"type": "string", "minLength": 1, "maxLength": most, "description": description})
}

fn number(description: &str, (least, most): (u64, u64), default: u64) -> Value {
    json!({
        "type": "integer", "minimum": least, "maximum": most, "default": default,
        "description": description,
    })
}

fn truncated() -> Value {
    json!({"type": "boolean", "description": "Whether there is more than is given."})
}

fn list() -> Value {
    json!({"type": "array", "items": {"type": "object"}})
}

fn get_message() -> (&'static str, Value) {
    reads(
        Words {
            name: "get_message",
            title: "Look at one message",
            description: "The state of one message of the bus (each tool call is one): its status, payload, result \
                or error, and what happened to it, oldest first. Status: `delayed` (waits for its time), `queued` (waits \
                for a worker), `claimed` (a worker is at it), `done`, `failed` (a dead letter: it will not be tried \
                again by itself; `requeue` brings it back), `cancelled`. `parked_for` says what a queued message waits \
                for: `ordering`, or `circuit:<key>`. What is too large comes as {truncated, bytes, beginning}.",
        },
        object(
            json!({
                "id": uuid("The message's id, such as `enqueue` or a failed call gives it."),
                "events": number("How many events to give; 0 for none.", (0, 200), 20),
                "max_bytes": number(
                    "As much of payload, result and error as is given whole, in bytes each.",
                    (256, VALUE_BYTES_MAX as u64), VALUE_BYTES as u64,
                ),
            }),
            &["id"],
        ),
        given(
            json!({"message": {"type": "object"}, "events": list(), "truncated": truncated()}),
            &["message", "events", "truncated"],
        ),
    )
}

fn get_trace() -> (&'static str, Value) {
    reads(
        Words {
            name: "get_trace",
            title: "Look at all that happened within one trace",
            description: "All events of one piece of work, over all its messages, oldest first: what was scheduled, \
                tried, failed, retried and done, by which worker and when. Use it to find out why something went wrong \
                or how long each step took; a message names its trace in `trace_id`.",
        },
        object(
            json!({
                "trace_id": uuid("The trace's id."),
                "limit": number("How many events to give.", (1, 200), 50),
            }),
            &["trace_id"],
        ),
        given(
            json!({"trace_id": {"type": "string"}, "events": list(), "truncated": truncated()}),
            &["trace_id", "events", "truncated"],
        ),
    )
}

fn list_workers() -> (&'static str, Value) {
    reads(
        Words {
            name: "list_workers",
            title: "List the machines that work",
            description: "The workers (machines that have joined), those online first: what each claims (`topics`, as \
                role/service; for MCP servers mcp-gateway/<toolset>), how much it has in hand, when it was last seen, and \
                in `info` what it says of itself, such as the tools that it offers. Use it to see why a message waits: \
                nobody online may claim its topic.",
        },
        object(
            json!({
                "status": {"type": "string", "enum": ["online", "offline"], "description": "Only these."},
                "topic": text("Only those that claim this topic, as role/service.", 129),
                "limit": number("How many to give.", (1, 200), 50),
            }),
            &[],
        ),
        given(json!({"workers": list(), "truncated": truncated()}), &["workers", "truncated"]),
    )
}

fn list_dead_letters() -> (&'static str, Value) {
    reads(
        Words {
            name: "list_dead_letters",
            title: "List what has failed for good",
            description: "Dead letters, the latest first: messages that failed and will not be tried again by \
                themselves, with the class of the last error (such as `connect`, `timeout`, `ambiguous`, `tool_error`) \
                and the reason why they ended (such as `attempts_exhausted`). `ambiguous` means that nobody knows \
                whether the work was done: find out before you requeue it. `get_message` shows one with its history.",
        },
        object(
            json!({
                "role": text("Only of this worker role, such as mcp-gateway.", 64),
                "service": text("Only of this service; for mcp-gateway the toolset.", 64),
                "intent": text("Only those that ask for this, such as mcp.call.", 100),
                "class": text("Only those whose last error is of this class.", 100),
                "reason": text("Only those that ended for this reason.", 200),
                "trace_id": uuid("Only of this trace."),
                "since": text("Only those that died then or later; RFC 3339, as 2026-01-31T12:00:00Z.", 40),
                "until": text("Only those that died before; RFC 3339.", 40),
                "limit": number("How many to give.", (1, 100), 20),
            }),
            &[],
        ),
        given(
            json!({"dead_letters": list(), "truncated": truncated()}),
            &["dead_letters", "truncated"],
        ),
    )
}

fn circuit_status() -> (&'static str, Value) {
    reads(
        Words {
            name: "circuit_status",
            title: "See which circuit breakers are open",
            description: "The circuit breakers that are not closed. One belongs to a policy key, as \
                mcp.call.<toolset>.<tool>.<shard>; while it is `open` its messages are parked instead of tried, and \
                while it is `half_open` one worker probes. `open_for_ms` is how long until a probe may be made; `forced` \
                means that an operator opened it and must close it. A breaker that is not named is closed.",
        },
        object(
            json!({
                "key": text("Only those whose key begins so, as mcp.call.browser.", 300),
                "include_closed": {
                    "type": "boolean", "default": false,
                    "description": "Also those that were open once and are closed now.",
                },
                "limit": number("How many to give.", (1, 200), 50),
            }),
            &[],
        ),
        given(json!({"circuits": list(), "truncated": truncated()}), &["circuits", "truncated"]),
    )
}

fn enqueue() -> (&'static str, Value) {
    tool(
        Words {
            name: "enqueue",
            title: "Put a message on the bus",
            description: "Puts work on the bus, durably, and returns at once with the message's id; `get_message` \
                tells what became of it. To call a tool and have its result, call that tool instead. For a tool call that \
                nobody waits for, or that is to run later: topic mcp-gateway/<toolset>, intent mcp.call, payload \
                {\"toolset\": …, \"tool\": …, \"params\": {…}}. Give an `idempotency_key`, so that enqueuing the same work \
                again makes no second message. Nobody undoes what the work does.",
        },
        object(
            json!({
                "topic": text("Who does it, as role/service, such as mcp-gateway/browser.", 129),
                "intent": text("What is asked for, such as mcp.call.", 100),
                "payload": {"description": "What the worker gets: any JSON, at most 4 MiB."},
                "idempotency_key": text("The same key in the tenant gives the same message.", 255),
                "trace_id": uuid("The piece of work that it belongs to; a new one if left out."),
                "parent_id": uuid("The message that caused it."),
                "priority": {
                    "type": "integer", "minimum": -100, "maximum": 100, "default": 0,
                    "description": "Higher goes first.",
                },
                "max_attempts": {
                    "type": "integer", "minimum": 1, "maximum": 1000,
                    "description": "How often it may be tried; by policy if left out.",
                },
                "deadline_ms": {
                    "type": "integer", "minimum": 1, "maximum": cogo::message::DEADLINE_MS_MAX,
                    "description": "How long all of it may take, in milliseconds.",
                },
                "ordering_key": text("Messages of one topic with the same key are done one after the other.", 255),
                "delay_ms": number(
                    "How long to wait before it is due, in milliseconds.", (0, 365 * 24 * 3_600_000), 0,
                ),
            }),
            &["topic", "intent", "payload"],
        ),
        given(
            json!({
                "id": {"type": "string"}, "trace_id": {"type": "string"},
                "duplicate": {"type": "boolean", "description": "Whether it was there already."},
            }),
            &["id", "trace_id", "duplicate"],
        ),
        json!({
            "title": "Put a message on the bus", "readOnlyHint": false, "destructiveHint": true,
            "idempotentHint": false, "openWorldHint": true,
        }),
    )
}

fn requeue() -> (&'static str, Value) {
    tool(
        Words {
            name: "requeue",
            title: "Bring a dead letter back",
            description: "Has a message that failed, or was cancelled, tried again from the start, with all its attempts \
                before it. Look at it with `get_message` first: if its error says `ambiguous` or `may_have_run`, the work \
                may have been done already, and would be done twice.",
        },
        object(
            json!({
                "id": uuid("The message's id, as `list_dead_letters` gives it."),
                "reason": text("Why, for the log.", 200),
            }),
            &["id"],
        ),
        given(json!({"id": {"type": "string"}, "status": {"type": "string"}}), &["id", "status"]),
        json!({
            "title": "Bring a dead letter back", "readOnlyHint": false, "destructiveHint": true,
            "idempotentHint": true, "openWorldHint": true,
        }),
    )
}
