//! The types of events.

/// A type of event.
pub(super) struct Kind {
    /// `<intent>_…` for those of messages.
    pub(super) name: &'static str,
    pub(super) group: Group,
    /// What happened; up to the first colon in short.
    pub(super) when: &'static str,
    pub(super) by: &'static str,
    /// What `reason` may be, where it says anything.
    pub(super) reasons: &'static str,
    /// The fields of its payload; with `?` those that are not always there.
    pub(super) payload: &'static [(&'static str, &'static str)],
}

/// What an event is about.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Group {
    Message,
    Circuit,
    Worker,
    Operator,
}

impl Group {
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Message => "Messages",
            Self::Circuit => "Circuit breakers",
            Self::Worker => "Workers",
            Self::Operator => "Operators and upkeep",
        }
    }
}

const CLAIM_NO: (&str, &str) =
    ("claim_no", "The number of the claim, which fences it; of a message that waits, the last one");
const DURATION: (&str, &str) = (
    "duration_ms?",
    "How long the handler ran. Like the next two and whatever else the role adds, it is `meta` of the settle",
);
const FALLBACK: (&str, &str) =
    ("fallback?", "The toolset that took the call, the message's own being sick");
const FALLBACK_CIRCUIT: (&str, &str) = ("circuit?", "The breaker because of which it did");
const KEY: (&str, &str) = ("key", "The breaker's key");
const VERSION: (&str, &str) = ("version", "The breaker's version, which only grows");
const FROM: (&str, &str) = ("from", "The state before: `closed`, `open` or `half_open`");
const ACTION: (&str, &str) = ("action?", "`open`, `close` or `reset`, by an operator");
const FORCED: (&str, &str) = ("forced?", "Whether it stays until an operator closes it");

/// What a worker says of itself.
const WORKER: &[(&str, &str)] = &[
    ("host", "Its machine"),
    ("version", "Its program's version"),
    ("topics", "What it claims"),
    ("info", "What its role tells of it, such as the tools that it offers"),
    ("lease_ms", "After how long without a sign of life it is taken for lost"),
    ("in_flight", "How many messages it handles"),
];

/// All types.
pub(super) const KINDS: &[Kind] = &[
    Kind {
        name: "<intent>_scheduled",
        group: Group::Message,
        when: "A message was enqueued: the event holds all of it",
        by: "`bus_enqueue`, `bus_enqueue_many`, `bus_enqueue_and_claim`, `bus_replay_trace`",
        reasons: "",
        payload: &[
            ("intent", "What is wanted, such as `mcp.call`"),
            ("payload", "The message's payload"),
            ("priority", "From -100 to 100"),
            ("max_attempts", "How often it may be tried"),
            ("run_at", "When it is due"),
            ("parent_id?", "The message that it came of"),
            ("idempotency_key?", "By which it is known within its tenant"),
            ("deadline_ms?", "How long it may take in all"),
            ("ordering_key?", "Whose messages go one after another"),
            ("ordering_no?", "Its place among those"),
        ],
    },
    Kind {
        name: "<intent>_succeeded",
        group: Group::Message,
        when: "A worker finished it",
        by: "`bus_complete`, `bus_step`",
        reasons: "what the worker says, if anything",
        payload: &[("result", "What came out"), CLAIM_NO, DURATION, FALLBACK, FALLBACK_CIRCUIT],
    },
    Kind {
        name: "<intent>_failed",
        group: Group::Message,
        when: "An attempt failed: the next event says what follows",
        by: "`bus_fail`, `bus_step`",
        reasons: "the failure's [class](../failures.md)",
        payload: &[
            ("error", "What went wrong: `class`, `message`, and more of the role's own"),
            ("class", "The failure's class"),
            ("attempt", "Which attempt it was"),
            ("delay_ms?", "After how long it is tried again"),
            ("next_at?", "When that is"),
            CLAIM_NO,
            DURATION,
            FALLBACK,
            FALLBACK_CIRCUIT,
        ],
    },
    Kind {
        name: "<intent>_retry_scheduled",
        group: Group::Message,
        when: "It will be tried again",
        by: "`bus_fail`, `bus_step`, with `<intent>_failed`",
        reasons: "the failure's class",
        payload: &[
            ("class", "The failure's class"),
            ("attempt", "Which attempt it was"),
            ("next_attempt", "Which comes next"),
            ("max_attempts", "How many there may be"),
            ("delay_ms", "After how long"),
            ("run_at", "When that is"),
            CLAIM_NO,
        ],
    },
    Kind {
        name: "<intent>_dead_lettered",
        group: Group::Message,
        when: "It went to the dead-letter queue",
        by: "`bus_fail` and `bus_step`, with `<intent>_failed`; `bus_reap`",
        reasons: "`attempts_exhausted`, `deadline_exceeded`, `not_retried`, or what the worker says",
        payload: &[
            ("class", "The last failure's class"),
            ("attempts", "How often it was tried"),
            (
                "error?",
                "What is wrong, where no attempt has just failed: its deadline passed while it waited",
            ),
            CLAIM_NO,
        ],
    },
    Kind {
        name: "<intent>_released",
        group: Group::Message,
        when: "A worker put it back without having tried it: the attempt is given back",
        by: "`bus_release`, `bus_step`",
        reasons: "what the worker says, such as `shutdown` or `circuit_open`",
        payload: &[
            ("run_at", "When it is due again"),
            ("circuit?", "The breaker that it is parked for"),
            CLAIM_NO,
            DURATION,
        ],
    },
    Kind {
        name: "<intent>_lease_expired",
        group: Group::Message,
        when: "The worker that held it vanished: the attempt is burnt",
        by: "`bus_reap`",
        reasons: "`lease_expired`",
        payload: &[
            ("error", "`class` and `message`"),
            ("run_at", "When it is due again"),
            CLAIM_NO,
        ],
    },
    Kind {
        name: "<intent>_requeued",
        group: Group::Message,
        when: "It came back from the dead-letter queue, or from cancelled",
        by: "`bus_requeue`",
        reasons: "what the caller gives",
        payload: &[
            ("from", "The status before: `failed` or `cancelled`"),
            ("run_at", "When it is due"),
            ("max_attempts", "How often it may be tried from now on"),
            (
                "previous",
                "What went before: `attempts`, `max_attempts`, `error`, `event` (the id of the one that ended it) and `events` (how many there were)",
            ),
            ("payload?", "Its payload, where that was changed"),
            CLAIM_NO,
        ],
    },
    Kind {
        name: "<intent>_cancelled",
        group: Group::Message,
        when: "It was withdrawn",
        by: "`bus_cancel`",
        reasons: "what the caller gives",
        payload: &[("attempts", "How often it had been tried"), CLAIM_NO],
    },
    Kind {
        name: "<intent>_dropped",
        group: Group::Message,
        when: "It was dropped from the dead-letter queue for good",
        by: "`bus_drop`",
        reasons: "what the caller gives",
        payload: &[],
    },
    Kind {
        name: "<intent>_restored",
        group: Group::Message,
        when: "It waits again, restored from the log",
        by: "`bus_replay_rebuild`",
        reasons: "",
        payload: &[("run_at", "When it is due"), CLAIM_NO],
    },
    Kind {
        name: "<intent>_progress",
        group: Group::Message,
        when: "Its handler says how far it is: some reports may be in one event, and those too many are dropped",
        by: "the worker, by `bus_append_event`",
        reasons: "",
        payload: &[
            ("progress", "The last report"),
            ("reports?", "All of them, where there are several"),
            ("dropped?", "How many went before them unwritten"),
        ],
    },
    Kind {
        name: "<intent>_input",
        group: Group::Message,
        when: "Its sender answers what a running call asks",
        by: "the hub's MCP endpoint, by `bus_append_event`",
        reasons: "",
        payload: &[
            ("responses", "The answers, by the name of what was asked"),
            ("task", "The task that asks"),
        ],
    },
    Kind {
        name: "circuit_opened",
        group: Group::Circuit,
        when: "A breaker opened: what it guards is left alone",
        by: "`bus_circuit_open` (a worker's evidence), `bus_circuit_report` (a probe failed), `bus_circuit_set` (an operator)",
        reasons: "`failure_rate`, `slow_rate`, `probe_failed`, `operator`, or what the operator gives",
        payload: &[
            KEY,
            VERSION,
            FROM,
            ("open_ms?", "For how long"),
            ("open_until?", "Until when"),
            (
                "calls?",
                "How many calls the evidence is about. What is in `evidence` stands beside the other fields",
            ),
            ("failure_rate?", "How many of them failed, from 0 to 1"),
            ("slow_rate?", "How many of them were slow, from 0 to 1"),
            ("detail?", "What the prober says"),
            ACTION,
            FORCED,
        ],
    },
    Kind {
        name: "circuit_half_opened",
        group: Group::Circuit,
        when: "A worker tests the water",
        by: "`bus_circuit_probe`",
        reasons: "`open_ms_over`, or `prober_lost`",
        payload: &[KEY, VERSION, FROM],
    },
    Kind {
        name: "circuit_closed",
        group: Group::Circuit,
        when: "A breaker closed: what was parked goes on",
        by: "`bus_circuit_report`, `bus_circuit_set`",
        reasons: "`probe_succeeded`, `operator`, `reset`, or what the operator gives",
        payload: &[
            KEY,
            VERSION,
            FROM,
            ("successes?", "How many probes were well"),
            ("was_open_ms?", "For how long it was not closed"),
            ACTION,
            FORCED,
        ],
    },
    Kind {
        name: "agent_online",
        group: Group::Worker,
        when: "A worker came",
        by: "`bus_worker_seen`",
        reasons: "",
        payload: WORKER,
    },
    Kind {
        name: "agent_heartbeat",
        group: Group::Worker,
        when: "A worker changed, or has not been told of for five minutes",
        by: "`bus_worker_seen`",
        reasons: "",
        payload: WORKER,
    },
    Kind {
        name: "agent_offline",
        group: Group::Worker,
        when: "A worker went, or was lost",
        by: "`bus_worker_gone`, `bus_reap`",
        reasons: "what the worker gives, or `lost`",
        payload: &[
            ("last_seen_at?", "When one that was lost gave its last sign of life"),
            ("lease_ms?", "After how long it is taken for lost"),
            ("in_flight?", "How many messages it handled then"),
        ],
    },
    Kind {
        name: "tool_pinned",
        group: Group::Operator,
        when: "A tool was approved as it is now",
        by: "`bus_pin`",
        reasons: "who approved it",
        payload: &[
            ("tool", "Its name; its toolset is the event's `service`"),
            ("hash", "The SHA-256 of what is approved"),
            ("was", "That of what was approved before, or null"),
        ],
    },
    Kind {
        name: "tool_unpinned",
        group: Group::Operator,
        when: "A tool's approval was revoked",
        by: "`bus_pin`",
        reasons: "who revoked it",
        payload: &[
            ("tool", "Its name; its toolset is the event's `service`"),
            ("hash", "Null"),
            ("was", "The SHA-256 of what was approved before"),
        ],
    },
    Kind {
        name: "env_set",
        group: Group::Operator,
        when: "A secret of RemoteEnv was set: never its value",
        by: "`bus_env_set`",
        reasons: "who set it",
        payload: &[
            ("name", "Its name"),
            ("version", "The tenant's revision that it came with"),
            ("key_id", "Which key it is sealed with"),
            ("why?", "What the operator gives"),
        ],
    },
    Kind {
        name: "env_unset",
        group: Group::Operator,
        when: "A secret of RemoteEnv was taken away",
        by: "`bus_env_unset`",
        reasons: "who took it away",
        payload: &[
            ("name", "Its name"),
            ("version", "The tenant's revision that it went with"),
            ("was", "The revision that it had come with"),
        ],
    },
    Kind {
        name: "admin_action",
        group: Group::Operator,
        when: "An admin's request that changes something was answered: the hub's audit log",
        by: "the hub, by `bus_append_event`, which takes it of nobody else",
        reasons: "",
        payload: &[
            ("method", "Of the request"),
            ("route", "Its route's pattern"),
            ("path", "Its path, without the query"),
            ("status", "The answer's HTTP status, or null where the client went away"),
            ("from", "The client's address"),
            ("who", "`admin`, or `role:<name>` of a key"),
        ],
    },
    Kind {
        name: "messages_purged",
        group: Group::Operator,
        when: "Retention let finished messages of a tenant go",
        by: "`bus_retain`",
        reasons: "",
        payload: &[("ids", "Their ids")],
    },
];
