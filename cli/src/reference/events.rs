//! events.md: every type of event. The table of `KINDS` is held to the database's functions, to the program's sources, and
//! to what is written when everything happens once (events.sql).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use cogo::testing::TestDb;
use sqlx::{AssertSqlSafe, Executor as _};

use super::functions::BODIES;
use super::sources::rust_files;
use super::{page, table};

mod kinds;

use kinds::{Group, KINDS};

const HEAD: &str = "\
A row of `bus_events` is something that happened, and is never changed. What happens to a message and the change of the
message commit together, so folding the log gives the messages: `cogo replay verify` proves it. Read the log by
[`bus_read_events`](sql.md#bus_read_events), `GET /api/events`, `cogo tail --follow` or [Realtime](../realtime.md).

Types of a message's events are `<intent>_<what>`, with `_` for the intent's dots: `mcp.call` makes `mcp_call_succeeded`.

Every event has `seq` and `xid` (where it stands), `id`, `event_type`, `trace_id`, `tenant` and `created_at`, by the
database's clock. Of a message it has `message_id`, `role`, `service`, `shard` and `attempt`; `worker_id` where a worker did
it, and `reason`, in a word, where there is one to give. The rest is in `payload`, as told below; fields with a `?` are
there where they apply.";

/// How types of a message's events begin on the page and in [`KINDS`].
const INTENT: &str = "<intent>_";

#[tokio::test]
async fn the_page_of_events_is_what_is_written() {
    let db = TestDb::new().await;
    let known: BTreeSet<String> = KINDS.iter().map(|kind| kind.name.to_owned()).collect();
    assert_eq!(known.len(), KINDS.len(), "a type is told twice");

    let bodies: Vec<(String, String)> =
        sqlx::query_as(BODIES).fetch_all(db.pool()).await.expect("bodies");
    let mut written: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (function, body) in &bodies {
        for name in written_by(function, body) {
            written.entry(name).or_default().insert(function.clone());
        }
    }
    let by_program = written_by_program();
    let all: BTreeSet<String> = written.keys().cloned().chain(by_program).collect();
    assert_eq!(
        all, known,
        "what functions and program write is not what cli/src/reference/events/kinds.rs lists"
    );

    held_to_the_log(&db).await;
    page("events.md", "Events", &text());
}

/// The types that a function of the database appends.
fn written_by(function: &str, body: &str) -> BTreeSet<String> {
    let code: String = body
        .lines()
        .map(|line| line.split("--").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join(" ");
    let code = code.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut found = BTreeSet::new();
    for insert in code.split("insert into public.bus_events").skip(1) {
        let rest = insert.split_once(')').expect("the columns").1.trim_start();
        let value = rest.trim_start_matches("select ").trim_start_matches("values (");
        let told = if let Some(call) = value.strip_prefix("cogo.event_type(") {
            let what = call.split_once(", ").expect("an intent and what").1;
            match what.strip_prefix('\'') {
                Some(what) => vec![format!("{INTENT}{}", until_quote(what))],
                // Which step it is stands further down, as the second column: select 1 as nth, 'succeeded' as what, …
                None => {
                    assert!(
                        what.starts_with("step.what)"),
                        "{function}: cannot tell which type {what:.40} is"
                    );
                    let steps = ["select 1 as nth, '", "select 1, '", "select 2, '"];
                    let each = steps.iter().flat_map(|step| code.split(step).skip(1));
                    each.map(|what| format!("{INTENT}{}", until_quote(what))).collect()
                }
            }
        } else if value.starts_with("event_type,") {
            // Once for all messages that have the intent, in cogo.message_heads.
            assert_eq!(function, "cogo.enqueue", "cannot tell which type its event_type is");
            vec![format!("{INTENT}scheduled")]
        } else if let Some(name) = value.strip_prefix('\'') {
            match until_quote(name) {
                // cogo.log_circuit; its callers say what.
                "circuit_" => Vec::new(),
                name => vec![name.to_owned()],
            }
        } else if value.starts_with("case ") || value.starts_with("told,") {
            let chosen = if value.starts_with("case ") {
                value
            } else {
                code.split("told := case").nth(1).expect("a choice")
            };
            let chosen = chosen.split(" end").next().unwrap_or_default();
            let each =
                chosen.split("then '").chain(chosen.split("else '").skip(1)).map(until_quote);
            each.filter(|name| name.starts_with("agent_") || name.starts_with("tool_"))
                .map(str::to_owned)
                .collect()
        } else {
            // What a caller names.
            assert!(
                function.ends_with("bus_append_event"),
                "{function}: cannot tell which type {value:.40} is"
            );
            Vec::new()
        };
        found.extend(told);
    }
    for call in code.split("cogo.log_circuit(").skip(1) {
        let what = call.split(", its").next().unwrap_or_default();
        let names = what.split('\'').skip(1).step_by(2).filter(|name| name.ends_with("ed"));
        found.extend(names.map(|name| format!("circuit_{name}")));
    }
    found
}

fn until_quote(text: &str) -> &str {
    text.split('\'').next().unwrap_or_default()
}

/// The types that the program appends itself, by `bus_append_event`.
fn written_by_program() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (path, text) in rust_files() {
        for line in text.lines().filter(|line| line.contains("\"event_type\": ")) {
            let name = match line.split("\"event_type\": ").nth(1).unwrap_or_default() {
                value if value.starts_with("ACTION,") => "admin_action",
                value if value.starts_with("format!(\"{}_progress\"") => "<intent>_progress",
                value if value.starts_with("input_event(") => "<intent>_input",
                value => panic!("{}: cannot tell which type of event {value} is", path.display()),
            };
            found.insert(name.to_owned());
        }
    }
    found
}

/// Has everything happen, and holds what is written to [`KINDS`]: every type, and each field of its payload.
async fn held_to_the_log(db: &TestDb) {
    let mut statement = String::new();
    for line in include_str!("events.sql").lines().chain(["-- then"]) {
        let (then, later) = (line.starts_with("-- then"), line.starts_with("-- later"));
        if !then && !later {
            statement.push_str(line);
            statement.push('\n');
            continue;
        }
        let done = db.pool().execute(AssertSqlSafe(std::mem::take(&mut statement))).await;
        done.expect("a statement of events.sql");
        if later {
            db.advance(Duration::from_secs(60)).await;
        }
    }
    let rows: Vec<(String, Vec<String>)> = sqlx::query_as(
        "select replace(event_type, 'x_y_', '<intent>_'),
            array(select distinct k from unnest(array_agg(array(select jsonb_object_keys(payload))::text)) f,
                unnest(f::text[]) k order by k)
        from bus_events group by 1",
    )
    .fetch_all(db.pool())
    .await
    .expect("the log");
    let seen: BTreeMap<String, BTreeSet<String>> =
        rows.into_iter().map(|(name, fields)| (name, fields.into_iter().collect())).collect();
    for kind in KINDS {
        let fields = seen
            .get(kind.name)
            .unwrap_or_else(|| panic!("{}: events.sql has none happen", kind.name));
        let told: BTreeSet<_> =
            kind.payload.iter().map(|(field, _)| field.trim_end_matches('?').to_owned()).collect();
        assert_eq!(*fields, told, "the payload of {}, and what kinds.rs tells of it", kind.name);
    }
}

fn text() -> String {
    let rows = KINDS.iter().map(|kind| {
        let anchor = kind.name.replace(['<', '>'], "");
        [
            format!("[`{}`](#{anchor})", kind.name),
            kind.when.split_once(':').map_or(kind.when, |(first, _)| first).to_owned(),
        ]
    });
    let mut text = format!("{HEAD}\n\n{}", table(["type", "what happened"], rows));
    let mut group: Option<Group> = None;
    for kind in KINDS {
        if group != Some(kind.group) {
            group = Some(kind.group);
            let _infallible = write!(text, "## {}\n\n", kind.group.title());
        }
        // The heading's anchor leaves out what is no letter; `<` would begin a tag.
        let heading = kind.name.replace('<', "\\<");
        let _infallible =
            write!(text, "### {heading}\n\n{}.\n\n- **Written by:** {}\n", kind.when, kind.by);
        if !kind.reasons.is_empty() {
            let _infallible = writeln!(text, "- **`reason`:** {}", kind.reasons);
        }
        let rows =
            kind.payload.iter().map(|(field, what)| [format!("`{field}`"), (*what).to_owned()]);
        let fields = table(["payload", "what it is"], rows);
        let _infallible = write!(
            text,
            "\n{}",
            if fields.is_empty() { "Its payload is empty.\n\n".to_owned() } else { fields }
        );
    }
    text
}
