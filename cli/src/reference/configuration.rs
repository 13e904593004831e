//! configuration.md: every field of every file, from the schemas of the types that read them.

use std::collections::VecDeque;
use std::fmt::Write as _;

use cogo::config::{self, File};
use cogo_worker_mcp_gateway::config::Config;
use serde_json::{Map, Value};

use super::{page, prose, table};

const HEAD: &str = "\
Defaults, then the file, then the variable, then the flag: the later goes over the earlier. A file that is not there means
defaults; one with an unknown field or a bad value is refused, with line, field and rule, and changes nothing.
`cogo config check` reads them all, and `cogo config check --key <key>` shows what holds for a key. Editors know the
fields by `$schema`. Secrets have no place here: they come from the [environment](cli.md#environment-variables).

A variable for a field that has fields itself takes JSON: `COGO_HUB_RETENTION='{\"done_hours\": 48}'`.";

/// The keywords of schemas that are told here; one more must be told too.
const KEYWORDS: [&str; 18] = [
    "$ref",
    "additionalProperties",
    "anyOf",
    "const",
    "default",
    "description",
    "exclusiveMinimum",
    "format",
    "items",
    "maximum",
    "minItems",
    "minimum",
    "oneOf",
    "pattern",
    "properties",
    "required",
    "title",
    "type",
];

/// The files, and what each is for.
const FILES: [(&str, &str); 7] = [
    ("circuit_breaker.json", "When a sick target is left alone"),
    ("hub.json", "How the hub answers, what it keeps and for how long"),
    ("limits.json", "How much may wait, and the tenants' shares"),
    ("mcp.json", "The MCP servers, and the mesh of their tools"),
    ("retry_policy.json", "What is tried again, when and how often"),
    ("route_policies.json", "Who may call which route of the hub"),
    ("worker.json", "How workers run"),
];

#[test]
fn the_page_of_configuration_is_what_the_types_read() {
    let mut text = format!("{HEAD}\n\n");
    let mut files: Vec<(&str, Value, Variables)> = Vec::new();
    let mut add = |name: &'static str, variables| {
        let wanted = config::schema_file(name);
        let schema = config::schemas().into_iter().find(|(file, _)| *file == wanted);
        files.push((name, schema.expect("the schema of a file").1.to_value(), variables));
    };
    add(cogo::hub::Options::NAME, Variables::of::<cogo::hub::Options>());
    add(config::Worker::NAME, Variables::of::<config::Worker>());
    add(cogo::bus::Limits::NAME, Variables::of::<cogo::bus::Limits>());
    add(cogo::retry::Policies::NAME, Variables::of::<cogo::retry::Policies>());
    add(cogo::breaker::Policies::NAME, Variables::of::<cogo::breaker::Policies>());
    add(cogo::hub::Policies::NAME, Variables::of::<cogo::hub::Policies>());
    assert_eq!(files.len(), config::schemas().len(), "a file of cogo::config is not on the page");
    let none = Variables { prefix: None, others: &[] };
    files.push(("mcp.json", schemars::schema_for!(Config).to_value(), none));
    files.sort_by_key(|(name, ..)| *name);
    let names: Vec<_> = files.iter().map(|(name, ..)| *name).collect();
    assert_eq!(names, FILES.map(|(name, _)| name), "what each file is for");
    let links = FILES
        .map(|(name, what)| [format!("[`{name}`](#{})", name.replace('.', "")), what.to_owned()]);
    text.push_str(&table(["file", "what it is for"], links));
    for (name, schema, variables) in &files {
        text.push_str(&of_file(name, schema, variables));
    }
    page("configuration.md", "Configuration", &text);
}

/// The variables that set a file's fields.
struct Variables {
    prefix: Option<&'static str>,
    others: &'static [(&'static str, &'static str)],
}

impl Variables {
    fn of<T: File>() -> Self {
        Self { prefix: T::VARIABLES, others: T::OTHER_VARIABLES }
    }

    /// What sets a field, as a sentence.
    fn of_field(&self, field: &str) -> String {
        let own = self.prefix.map(|prefix| format!("`{prefix}{}`", field.to_uppercase()));
        let others = self
            .others
            .iter()
            .filter(|(_, its)| *its == field)
            .map(|(name, _)| format!("`{name}`"));
        let names: Vec<_> = own.into_iter().chain(others).collect();
        if names.is_empty() {
            String::new()
        } else {
            format!(" Environment: {}.", names.join(", "))
        }
    }
}

fn of_file(name: &str, schema: &Value, variables: &Variables) -> String {
    let definitions = schema.get("$defs").and_then(Value::as_object).cloned().unwrap_or_default();
    let about = prose(&told_of(schema));
    let file = format!("[configs/{name}](../../configs/{name})");
    let link = format!(
        "The repository's: {file}; its schema: [{0}](../../configs/schema/{0}).",
        config::schema_file(name)
    );
    let about = if about.is_empty() { about } else { format!("{about}\n\n") };
    let mut text = format!("## {name}\n\n{about}{link}\n\n");
    // From object to object, breadth first, each under the path at which it stands.
    let mut waiting = VecDeque::from([(String::new(), schema.clone())]);
    while let Some((path, object)) = waiting.pop_front() {
        let rows = fields(&path, &object, &definitions, &mut waiting);
        let rows = rows.into_iter().map(|mut row: [String; 4]| {
            if path.is_empty() {
                let of_field = variables.of_field(row[0].trim_matches('`'));
                row[3].push_str(&of_field);
            }
            row
        });
        let table = table(["field", "type", "default", "what it does"], rows);
        if path.is_empty() {
            text.push_str(&table);
            text.push_str(&built_in(name));
        } else {
            let about = prose(&told_of(&object));
            let path = path.replace('<', "\\<");
            let _infallible = write!(text, "### {name}: {path}\n\n{about}\n\n{table}");
        }
    }
    text
}

/// What holds of a policy where the file says nothing: that is in no schema.
fn built_in(name: &str) -> String {
    let policy = match name {
        "retry_policy.json" => serde_json::to_string_pretty(&cogo::retry::Policy::default()),
        "circuit_breaker.json" => serde_json::to_string_pretty(&cogo::breaker::Policy::default()),
        _ => return String::new(),
    };
    let policy = policy.expect("a policy is JSON");
    format!("What no key says is as it is built in:\n\n```json\n{policy}\n```\n\n")
}

/// The rows of an object's fields; the objects within it go to those that wait.
fn fields(
    path: &str,
    object: &Value,
    definitions: &Map<String, Value>,
    waiting: &mut VecDeque<(String, Value)>,
) -> Vec<[String; 4]> {
    let required: Vec<_> =
        object["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let properties = object["properties"].as_object().into_iter().flatten();
    properties
        .filter(|(field, _)| *field != "$schema")
        .map(|(field, schema)| {
            let place = if path.is_empty() { field.clone() } else { format!("{path}.{field}") };
            let (kind, within) = kind(schema, definitions, &place);
            let known = waiting.iter().any(|(at, _)| within.iter().any(|(place, _)| place == at));
            assert!(!known, "{place} is told twice");
            let default = match (schema.get("default"), required.contains(&field.as_str())) {
                (_, true) => "required".to_owned(),
                // Its own fields say theirs.
                (Some(Value::Object(_)), _) if !within.is_empty() => String::new(),
                (Some(default), _) => format!("`{default}`"),
                (None, _) => String::new(),
            };
            let mut what = prose(&text_of(schema, "description"));
            what.push_str(&values(schema, definitions));
            waiting.extend(within);
            [format!("`{field}`"), kind, default, what]
        })
        .collect()
}

/// A definition, where a schema refers to one.
fn resolved<'a>(schema: &'a Value, definitions: &'a Map<String, Value>) -> &'a Value {
    let name = schema["$ref"].as_str().and_then(|reference| reference.strip_prefix("#/$defs/"));
    name.map_or(schema, |name| &definitions[name])
}

/// What a schema takes, in words, and the objects within it by their paths.
fn kind(
    schema: &Value,
    definitions: &Map<String, Value>,
    place: &str,
) -> (String, Vec<(String, Value)>) {
    let known = schema.as_object().into_iter().flatten().map(|(keyword, _)| keyword.as_str());
    let unknown: Vec<_> = known.filter(|keyword| !KEYWORDS.contains(keyword)).collect();
    assert!(
        unknown.is_empty(),
        "{place}: its schema says {unknown:?}, of which the page knows nothing"
    );
    let target = resolved(schema, definitions);
    if let Some(any) = target["anyOf"].as_array() {
        let (kinds, within): (Vec<_>, Vec<_>) =
            any.iter().map(|one| kind(one, definitions, place)).unzip();
        return (kinds.join(" or "), within.concat());
    }
    if let Some(value) = target.get("const") {
        return (format!("`{value}`"), Vec::new());
    }
    if let Some(choices) = target["oneOf"].as_array() {
        // Each a word, or an object that a word within it tells from the others.
        let of_choice = |one: &Value| match one["properties"].as_object().and_then(tag) {
            Some((field, word)) => {
                kind(one, definitions, &format!("{place} where {field} is {word}"))
            }
            None => kind(one, definitions, place),
        };
        let (mut kinds, within): (Vec<_>, Vec<_>) = choices.iter().map(of_choice).unzip();
        kinds.dedup();
        return (kinds.join(", "), within.concat());
    }
    let names: Vec<_> = match &target["type"] {
        Value::String(name) => vec![name.as_str()],
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
        other => panic!("{place}: a schema of type {other}"),
    };
    let mut within = Vec::new();
    let kinds: Vec<_> = names
        .iter()
        .map(|name| match *name {
            "object" if target.get("properties").is_some() => {
                within.push((place.to_owned(), target.clone()));
                "object".to_owned()
            }
            "object" if target["additionalProperties"].is_object() => {
                let (of, inside) =
                    kind(&target["additionalProperties"], definitions, &format!("{place}.<name>"));
                within.extend(inside);
                format!("object of {of} by name")
            }
            "array" => {
                let (of, inside) = kind(&target["items"], definitions, &format!("{place}[]"));
                within.extend(inside);
                let least = target.get("minItems").map(|least| format!(", at least {least}"));
                format!("array of {of}{}", least.unwrap_or_default())
            }
            "integer" | "number" => format!("{name}{}", bounds(target)),
            "string" if target["pattern"].is_string() => {
                format!("string like `{}`", text_of(target, "pattern"))
            }
            name => name.to_owned(),
        })
        .collect();
    (kinds.join(" or "), within)
}

fn bounds(schema: &Value) -> String {
    if let Some(below) = schema.get("exclusiveMinimum") {
        let most = schema.get("maximum").map(|most| format!(", at most {most}"));
        return format!(" above {below}{}", most.unwrap_or_default());
    }
    match (schema.get("minimum"), schema.get("maximum")) {
        (Some(least), Some(most)) => format!(" from {least} to {most}"),
        // That of every count; its rule is told with the field.
        (Some(least), None) if least == 0 => String::new(),
        (Some(least), None) => format!(" from {least}"),
        (None, Some(most)) => format!(" to {most}"),
        (None, None) => String::new(),
    }
}

/// The field that has one value alone, and that value.
fn tag(properties: &Map<String, Value>) -> Option<(&str, &str)> {
    properties.iter().find_map(|(field, schema)| Some((field.as_str(), schema["const"].as_str()?)))
}

/// What the values of a choice mean, as sentences.
fn values(schema: &Value, definitions: &Map<String, Value>) -> String {
    let mut text = String::new();
    for one in resolved(schema, definitions)["oneOf"].as_array().into_iter().flatten() {
        let what = prose(&text_of(one, "description"));
        if let Some(value) = one.get("const").filter(|_| !what.is_empty()) {
            let _infallible = write!(text, " `{value}`: {what}");
        }
    }
    text
}

/// What a schema says of itself, without what sends readers of the code elsewhere.
fn told_of(schema: &Value) -> String {
    let about = text_of(schema, "description");
    match about.split_once("; the table in [`crate::") {
        Some((about, _)) => format!("{about}."),
        None => about,
    }
}

/// A text of a schema, or none.
fn text_of(schema: &Value, field: &str) -> String {
    schema[field].as_str().unwrap_or_default().to_owned()
}
