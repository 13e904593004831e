//! sql.md: the functions of a migrated database, with the texts of functions.txt beside this file.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use cogo::testing::TestDb;
use serde::Deserialize;

use super::{page, table};

/// Words for each function and each of its arguments. A comment in the database would need a migration for each mend.
const TEXTS: &str = include_str!("functions.txt");

const HEAD: &str = "\
All that changes the bus goes through these functions, from any language: by a database connection, or as
`POST /rest/v1/rpc/<name>` with the arguments as a JSON object. Each takes a batch, and is one round trip and one
transaction. What they refuse has one of the [SQLSTATEs](errors.md#sqlstates), and then nothing of the call was done.

Who may call them are roles of the database: `cogo_bus` for workers, `cogo_operator` for hubs and operators, and Supabase's
`anon`, `authenticated` and `service_role` for keys, of which the first two are bound to the claims of their token
([Security](../security.md)). Whoever owns the schema may call all.";

#[derive(Deserialize)]
struct Function {
    name: String,
    args: Vec<Argument>,
    result: String,
    roles: Vec<String>,
    columns: Vec<Column>,
}

#[derive(Deserialize)]
struct Argument {
    name: String,
    kind: String,
    default: Option<String>,
}

#[derive(Deserialize)]
struct Column {
    name: String,
    kind: String,
}

const FUNCTIONS: &str = "
    select coalesce(jsonb_agg(jsonb_build_object(
        'name', p.proname, 'result', pg_get_function_result(p.oid),
        'args', (select coalesce(jsonb_agg(jsonb_build_object('name', p.proargnames[i], 'kind', format_type(t, null),
                'default', pg_get_function_arg_default(p.oid, i::integer)) order by i), '[]')
            from unnest(p.proargtypes::oid[]) with ordinality as a (t, i)),
        'columns', (select coalesce(jsonb_agg(jsonb_build_object('name', p.proargnames[i], 'kind', format_type(t, null))
                order by i), '[]')
            from unnest(p.proallargtypes) with ordinality as a (t, i) where p.proargmodes[i] in ('t', 'o')),
'roles', (select coalesce(jsonb_agg(r.rolname order by r.rolname), '[]') from pg_roles r
            where r.rolname in ('anon', 'authenticated', 'service_role', 'cogo_bus', 'cogo_operator')
                and has_function_privilege(r.oid, p.oid, 'execute'))) order by p.proname), '[]')
    from pg_proc p where p.pronamespace = 'public'::regnamespace and p.proname like 'bus\\_%'";

/// The bodies of all our functions, by schema and name.
pub(super) const BODIES: &str = "
    select n.nspname || '.' || p.proname, string_agg(p.prosrc, E'\\n')
    from pg_proc p join pg_namespace n on n.oid = p.pronamespace
    where n.nspname in ('cogo', 'cogo_unscoped') or n.nspname = 'public' and p.proname like 'bus\\_%' group by 1";

/// The columns of what functions give rows of.
const ROWS: &str = "
    select coalesce(jsonb_agg(jsonb_build_object('name', a.attname, 'kind', format_type(a.atttypid, null)) order by a.attnum), '[]')
    from pg_attribute a where a.attrelid = to_regclass('public.' || $1) and a.attnum > 0 and not a.attisdropped";

#[tokio::test]
async fn the_page_of_functions_is_the_databases_catalogue() {
    let db = TestDb::new().await;
    let functions: serde_json::Value =
        sqlx::query_scalar(FUNCTIONS).fetch_one(db.pool()).await.expect("the catalogue");
    let functions: Vec<Function> = serde_json::from_value(functions).expect("functions");
    let bodies: Vec<(String, String)> =
        sqlx::query_as(BODIES).fetch_all(db.pool()).await.expect("bodies");
    let bodies: BTreeMap<_, _> = bodies.into_iter().collect();
    let texts = texts();
    for function in &functions {
        let told = texts.iter().any(|text| text.name == function.name);
        assert!(told, "{}: has no text in cli/src/reference/functions.txt", function.name);
    }
    let overview = texts.iter().map(|text| {
        let first = text.about.split(". ").next().and_then(|first| first.split(": ").next());
        let first = first.unwrap_or_default().trim_end_matches('.');
        [format!("[`{0}`](#{0})", text.name), first.to_owned()]
    });
    let mut page_text = format!("{HEAD}\n\n{}", table(["function", "what it does"], overview));
    let mut group = "";
    for text in &texts {
        if text.group != group {
            group = &text.group;
            let _infallible = write!(page_text, "## {group}\n\n");
        }
        let found: Vec<_> =
            functions.iter().filter(|function| function.name == text.name).collect();
        let [function] = found[..] else {
            panic!("{}: {} functions of that name in the database", text.name, found.len());
        };
        page_text.push_str(&section(function, text, &errors(&function.name, &bodies)));
    }
    page_text.push_str("## Rows\n\n");
    for (name, about) in [
        ("agent_messages", "A message, as it is now."),
        (
            "circuit_state",
            "A breaker. `open_for_ms` is how long until a probe may be asked for, or until the prober's time is over; null where it is closed, or an operator's to say.",
        ),
    ] {
        let columns: serde_json::Value =
            sqlx::query_scalar(ROWS).bind(name).fetch_one(db.pool()).await.expect("columns");
        let columns: Vec<Column> = serde_json::from_value(columns).expect("columns");
        assert!(!columns.is_empty(), "public.{name} has no columns");
        let _infallible = write!(page_text, "### {name}\n\n{about}\n\n{}", of_columns(&columns));
    }
    page("sql.md", "SQL functions", &page_text);
}

/// What functions.txt says of a function.
struct Text {
    group: String,
    name: String,
    about: String,
    args: BTreeMap<String, String>,
}

fn texts() -> Vec<Text> {
    let (mut texts, mut group): (Vec<Text>, _) = (Vec::new(), "");
    for line in TEXTS.lines().filter(|line| !line.is_empty()) {
        if let Some(name) = line.strip_prefix("# ") {
            group = name;
        } else if let Some(name) = line.strip_prefix("## ") {
            let (group, name) = (group.to_owned(), name.to_owned());
            texts.push(Text { group, name, about: String::new(), args: BTreeMap::new() });
        } else {
            let text = texts.last_mut().expect("functions.txt begins with a heading");
            match line.strip_prefix("- `").and_then(|rest| rest.split_once("`: ")) {
                Some((arg, what)) => drop(text.args.insert(arg.to_owned(), what.to_owned())),
                None => text.about = format!("{} {line}", text.about).trim().to_owned(),
            }
        }
    }
    texts
}

fn section(function: &Function, text: &Text, errors: &BTreeSet<String>) -> String {
    let name = &function.name;
    let args: BTreeSet<_> = function.args.iter().map(|arg| &arg.name).collect();
    assert_eq!(
        args,
        text.args.keys().collect(),
        "the arguments of {name} in cli/src/reference/functions.txt"
    );
    let rows = function.args.iter().map(|arg| {
        let default = arg
            .default
            .as_ref()
            .map(|default| format!("`{}`", default.split("::").next().unwrap_or_default()));
        let what = text.args[&arg.name].clone();
        [
            format!("`{}`", arg.name),
            format!("`{}`", arg.kind),
            default.unwrap_or_else(|| "required".to_owned()),
            what,
        ]
    });
    let mut out = format!("### {name}\n\n{}\n\n", text.about);
    out.push_str(&table(["argument", "type", "default", "what it is"], rows));
    let one = if function.result.contains("SETOF") || function.result.starts_with("TABLE") {
        "rows"
    } else {
        "one"
    };
    let kind = function.result.trim_start_matches("SETOF ").trim_start_matches("public.");
    let gives = match (function.columns.is_empty(), kind) {
        (true, "agent_messages" | "circuit_state") => format!("rows of [`{kind}`](#{kind})"),
        (true, "void") => "nothing".to_owned(),
        (true, kind) if one == "rows" => format!("rows of `{kind}`"),
        (true, kind) => format!("`{kind}`"),
        (false, _) if one == "rows" => format!("rows of {}", in_line(&function.columns)),
        (false, _) => format!("one row of {}", in_line(&function.columns)),
    };
    let roles: Vec<_> = function.roles.iter().map(|role| format!("`{role}`")).collect();
    let roles = if roles.is_empty() { "the owner alone".to_owned() } else { roles.join(", ") };
    let errors: Vec<_> = errors
        .iter()
        .map(|state| format!("[`{state}`](errors.md#{})", state.to_lowercase()))
        .collect();
    let errors = if errors.is_empty() { "none of its own".to_owned() } else { errors.join(", ") };
    let _infallible = write!(
        out,
        "- **Gives:** {gives}\n- **May be called by:** {roles}\n- **Errors:** {errors}\n\n"
    );
    out
}

fn in_line(columns: &[Column]) -> String {
    let each = columns.iter().map(|column| match column.kind.as_str() {
        kind @ ("agent_messages" | "circuit_state") => {
            format!("`{}` [`{kind}`](#{kind})", column.name)
        }
        kind => format!("`{} {kind}`", column.name),
    });
    each.collect::<Vec<_>>().join(", ")
}

fn of_columns(columns: &[Column]) -> String {
    let rows =
        columns.iter().map(|column| [format!("`{}`", column.name), format!("`{}`", column.kind)]);
    table(["column", "type"], rows)
}

/// The SQLSTATEs that a function names, and those that the functions name which it calls.
fn errors(name: &str, bodies: &BTreeMap<String, String>) -> BTreeSet<String> {
    let (mut states, mut seen) = (BTreeSet::new(), BTreeSet::new());
    let mut waiting = vec![format!("public.{name}")];
    while let Some(name) = waiting.pop() {
        if !seen.insert(name.clone()) {
            continue;
        }
        let Some(body) = bodies.get(&name) else { continue };
        let code: String = body
            .lines()
            .map(|line| line.split("--").next().unwrap_or_default())
            .collect::<Vec<_>>()
            .join("\n");
        for quoted in code.split('\'').skip(1).step_by(2) {
            if quoted.len() == 5 && (quoted.starts_with("CG") || quoted == "40001") {
                states.insert(quoted.to_owned());
            }
        }
        let called = bodies.keys().filter(|other| {
            code.match_indices(other.as_str())
                .any(|(at, _)| code[at + other.len()..].starts_with('('))
        });
        waiting.extend(called.cloned());
    }
    states
}
