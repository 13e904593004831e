//! errors.md: every code that leaves the program, from the types and from what the sources say.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use cogo::error::Code;

use super::sources::{documented, migrations, read, rust_files};
use super::{page, prose, table};
use crate::exit::Exit;

const HEAD: &str = "\
Errors that leave a process carry a stable code; the text beside it is for people, names the field, and may change.

- The hub's JSON has it in `code`: [the codes below](#codes-of-the-api). `trace_id` finds the error in the hub's log.
- The `bus_*` functions raise an SQLSTATE of class [`CG`](#sqlstates), which `/rest/v1` hands on as `code`.
- Whatever else `/rest/v1` and `/realtime/v1` refuse has one of [PostgREST's codes](#postgrests-codes).
- `/mcp` answers in [JSON-RPC](#json-rpc-codes), with the API's code in `data.code`.
- Why an attempt of a message failed is its class: [What a failure leads to](../failures.md).

`Retry-After`, and `retry_after_ms` in JSON, say when to try again where that helps.";

/// What to do about each code of the API.
const ADVICE: [(Code, &str); 12] = [
    (
        Code::InvalidArgument,
        "Mend the field that the message names; sending the same again fails again.",
    ),
    (
        Code::Unauthorized,
        "Send `x-admin-token`, or `Authorization: Bearer <key>`. `cogo token inspect` says whether a key is good, and until when.",
    ),
    (
        Code::Forbidden,
        "Use a key whose claims reach that far: `cogo token inspect` shows them, `cogo token mint` makes another. From a page, its origin must be among `allowed_origins` of `hub.json`.",
    ),
    (
        Code::NotFound,
        "Look at the id, the name or the path. What retention has taken is found in the log alone, while that lasts.",
    ),
    (Code::MethodNotAllowed, "Use a method of the answer's header `Allow`."),
    (
        Code::Conflict,
        "Read the state anew and decide again. A worker drops what it holds: the message is another's, or finished.",
    ),
    (
        Code::PayloadTooLarge,
        "Send less at once; put what is large into an [artifact](../artifacts.md), and its URI into the message.",
    ),
    (Code::UnsupportedMediaType, "Send JSON, with `Content-Type: application/json`."),
    (
        Code::RateLimited,
        "Wait as long as `Retry-After` says. `cogo limits` shows what is full; `limits.json` and `rate_limit` of `hub.json` hold the limits.",
    ),
    (
        Code::Unavailable,
        "Try again with growing pauses; with an idempotency key or an id of your own nothing is done twice. `cogo status` says what does not answer.",
    ),
    (Code::Timeout, "Ask again: the work goes on, and its outcome stays to be read."),
    (Code::Internal, "Look for the `trace_id` in the hub's log, and report it with what was sent."),
];

/// When each SQLSTATE is raised by the functions, or given for an item of a batch.
const STATES: [(&str, &str); 6] = [
    (
        "CG400",
        "An argument or a field of a batch is missing, unknown or out of range; the message names it, counted from 0. Nothing of the batch was done. For one message of `bus_requeue`: its payload has no `params` to replace.",
    ),
    (
        "CG403",
        "The token's claims do not reach that far, or only transitions or hubs may write that event. The hint names the claim.",
    ),
    ("CG404", "What is named is not there, or is another tenant's."),
    (
        "CG409",
        "The claim is not the one in force, the id belongs to another message, or the message is not in a state for it. As an error it undoes the batch; as the `code` of one item it is that item's alone.",
    ),
    ("CG413", "The batch, or one item of it, is over its limit. Nothing of it was done."),
    (
        "CG429",
        "A limit is reached: what may wait of a topic or tenant, or what may be kept. Nothing was enqueued. The detail says `retry_after_ms=<ms>` where waiting helps.",
    ),
];

/// SQLSTATEs of Postgres' own that the functions raise.
const OF_POSTGRES: [(&str, &str, &str); 1] = [(
    "40001",
    "A row was removed, by retention mostly, between two statements of the call.",
    "Send the same again at once.",
)];

/// PostgREST's codes: the status, when, and what to do.
const POSTGREST: &[(&str, &str, &str, &str)] = &[
    (
        "PGRST000",
        "503",
        "The hub's login may not act for its callers.",
        "Run `cogo migrate`, and `grant cogo_hub to` the login of the hub.",
    ),
    (
        "PGRST001",
        "503",
        "The database does not answer.",
        "Try again; `/readyz` says whether the hub is ready.",
    ),
    (
        "PGRST002",
        "503",
        "The hub could not read from the database which functions there are.",
        "Try again.",
    ),
    (
        "PGRST003",
        "504",
        "No connection was free in time, or the answer did not come.",
        "Try again; if it stays so, give the hub more connections, or run another.",
    ),
    (
        "PGRST100",
        "400",
        "The query cannot be read: a filter, an order, a list of columns.",
        "The details say where.",
    ),
    (
        "PGRST101",
        "405",
        "A function is called by another method than GET or POST.",
        "POST, with the arguments as a JSON object.",
    ),
    (
        "PGRST102",
        "400, 415",
        "The body is no JSON object, or of another type.",
        "Send a JSON object as `application/json`.",
    ),
    (
        "PGRST103",
        "416",
        "The range begins behind the end.",
        "Ask for rows that there are: `Prefer: count=exact` says how many.",
    ),
    (
        "PGRST106",
        "406",
        "Another schema is asked for.",
        "Leave `Accept-Profile` away: `public` is all that is exposed.",
    ),
    ("PGRST107", "406", "No type that is asked for can be given.", "Accept `application/json`."),
    ("PGRST108", "400", "A filter names an embedded table.", "Ask for one table at a time."),
    (
        "PGRST116",
        "406",
        "One object is asked for, and there is not exactly one row.",
        "Ask for a list, or narrow the filter.",
    ),
    (
        "PGRST117",
        "405",
        "A table is to be written.",
        "Call a function instead, such as `POST /rest/v1/rpc/bus_enqueue`.",
    ),
    (
        "PGRST122",
        "400",
        "`Prefer: handling=strict`, and another preference that is not known.",
        "Leave it away.",
    ),
    (
        "PGRST125",
        "404",
        "There is no such path.",
        "Look at [Realtime and PostgREST](../realtime.md).",
    ),
    ("PGRST200", "400", "Another table is to be embedded.", "Ask for the other by itself."),
    (
        "PGRST202",
        "404",
        "There is no function of that name with these arguments.",
        "The hint names the closest; [SQL functions](sql.md) has all.",
    ),
    ("PGRST203", "300", "Several functions fit.", "Name more arguments."),
    ("PGRST205", "404", "There is no such table.", "The hint names those that there are."),
    (
        "PGRST301",
        "401",
        "The key cannot be read, or is signed by another secret.",
        "Use one of this hub: `cogo token inspect` says what is wrong.",
    ),
    ("PGRST302", "401", "There is no key.", "Send `Authorization: Bearer <key>`, or `apikey`."),
    (
        "PGRST303",
        "401",
        "The key has expired, or is not valid yet.",
        "Mint another; look at the clocks.",
    ),
];

#[test]
fn the_page_of_errors_has_every_code() {
    let mut text = format!("{HEAD}\n\n");
    text.push_str(&of_the_api());
    text.push_str(&of_sql());
    text.push_str(&of_postgrest());
    text.push_str(&of_json_rpc());
    page("errors.md", "Errors", &text);
}

fn of_the_api() -> String {
    let source = read("src/error.rs");
    let of_enum = source.split("pub enum Code {").nth(1).and_then(|rest| rest.split("\n}").next());
    let variants = documented(of_enum.expect("the codes"));
    assert_eq!(variants.len(), Code::ALL.len(), "Code::ALL has not all variants");
    let states = states_of(&source);
    let mut text = "## Codes of the API\n\n".to_owned();
    let rows =
        Code::ALL.map(|code| [format!("[`{code}`](#{code})"), code.http_status().to_string()]);
    text.push_str(&table(["code", "HTTP"], rows));
    for code in Code::ALL {
        let line = format!("{code:?},");
        let (_, meaning) =
            variants.iter().find(|(variant, _)| *variant == line).expect("a comment");
        let (_, advice) = ADVICE.iter().find(|(of, _)| *of == code).expect("advice for each code");
        let state = states.iter().find(|state| Code::from_sqlstate(state) == Some(code));
        let state =
            state.map(|state| format!(" · SQLSTATE [`{state}`](#{})", state.to_lowercase()));
        let _infallible = write!(
            text,
            "### {code}\n\nHTTP {}{} · exit code {}\n\n{}\n\n**What to do:** {advice}\n\n",
            code.http_status(),
            state.unwrap_or_default(),
            Exit::of(code) as u8,
            prose(meaning),
        );
    }
    text
}

fn of_sql() -> String {
    let listed: BTreeSet<String> = STATES.iter().map(|(state, _)| (*state).to_owned()).collect();
    let raised = states_of(&migrations());
    assert_eq!(raised, listed, "the SQLSTATEs of the migrations are not those of the page");
    assert_eq!(states_of(&read("src/error.rs")), listed, "src/error.rs knows others");
    let mut text = "## SQLSTATEs\n\n\
        `/rest/v1` answers `CGnnn` with the HTTP status `nnn`, and gives what the hub itself refuses there such a code too, \
        `CG415` for 415.\n\n"
        .to_owned();
    for (state, when) in STATES {
        let code = Code::from_sqlstate(state).expect("a code");
        let _infallible = write!(
            text,
            "### {state}\n\nHTTP {} · [`{code}`](#{code})\n\n{when}\n\n",
            code.http_status()
        );
    }
    let foreign = of_postgres();
    assert_eq!(foreign, OF_POSTGRES.map(|(state, ..)| state.to_owned()).into(), "of Postgres' own");
    for (state, when, then) in OF_POSTGRES {
        let _infallible = write!(text, "### {state}\n\n{when}\n\n**What to do:** {then}\n\n");
    }
    text
}

/// The states of class CG that a text names.
fn states_of(text: &str) -> BTreeSet<String> {
    let places =
        text.match_indices("CG").map(|(at, _)| text[at..].chars().take(5).collect::<String>());
    places
        .filter(|state| state.len() == 5 && state[2..].chars().all(|c| c.is_ascii_digit()))
        .collect()
}

/// The states of other classes that the migrations raise.
fn of_postgres() -> BTreeSet<String> {
    let migrations = migrations();
    let raised = migrations.split("errcode = '").skip(1).map(|rest| rest[..5].to_owned());
    raised.filter(|state| !state.starts_with("CG")).collect()
}

fn of_postgrest() -> String {
    let sources = rust_files();
    let hub: Vec<_> = sources
        .iter()
        .filter(|(path, _)| path.components().any(|part| part.as_os_str() == "hub"))
        .collect();
    // Each code that the hub names, with the statuses that stand before it.
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (_, text) in hub {
        for (at, _) in text.match_indices("\"PGRST") {
            let code = text[at + 1..].chars().take(8).collect::<String>();
            let status =
                text[..at].trim_end().strip_suffix(',').map(|before| &before[before.len() - 3..]);
            let status = status.filter(|status| status.chars().all(|c| c.is_ascii_digit()));
            found.entry(code).or_default().extend(status.map(str::to_owned));
        }
    }
    let known: BTreeSet<_> = POSTGREST.iter().map(|(code, ..)| (*code).to_owned()).collect();
    assert_eq!(
        found.keys().cloned().collect::<BTreeSet<_>>(),
        known,
        "PostgREST's codes of the hub"
    );
    let mut text = "## PostgREST's codes\n\nWith PostgREST's meanings, as far as the hub has need of them.\n\n".to_owned();
    for (code, status, when, then) in POSTGREST {
        for said in &found[*code] {
            assert!(
                status.split(", ").any(|known| known == said),
                "{code}: is also answered with {said}"
            );
        }
        let _infallible =
            write!(text, "### {code}\n\nHTTP {status}\n\n{when}\n\n**What to do:** {then}\n\n");
    }
    text
}

fn of_json_rpc() -> String {
    let comments = documented(&read("workers/mcp-gateway/src/endpoint/rpc.rs"));
    let rows: Vec<_> = comments
        .into_iter()
        .filter_map(|(line, comment)| {
            let code = line.split(": i32 = ").nth(1)?.trim_end_matches(';').to_owned();
            Some([format!("`{code}`"), prose(&comment)])
        })
        .collect();
    assert!(rows.len() > 10, "the constants of endpoint/rpc.rs are not read");
    format!("## JSON-RPC codes\n\n{}", table(["code", "meaning"], rows))
}
