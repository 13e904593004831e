//! What is wrong with arguments, for whoever has to correct them.

use jsonschema::error::ValidationErrorKind as Kind;
use jsonschema::{ValidationError, Validator};
use serde_json::Value;

/// How many problems are told.
const MOST: usize = 3;
/// How long one is.
const LONGEST: usize = 300;
/// How many names are listed.
const NAMED: usize = 20;

/// The first problems of `arguments`: the pointer of the first, and all of them in words. Values are never told: they
/// may be secrets, and whoever sent them has them. `all` says whether there is time to look for more than one.
pub(super) fn of(
    validator: &Validator,
    schema: &Value,
    arguments: &Value,
    all: bool,
) -> Option<(String, String)> {
    let first = validator.validate(arguments).err()?;
    if never_mind(&first) {
        return None;
    }
    let (pointer, mut text) = told(&first, schema);
    if all {
        let others = validator.iter_errors(arguments).filter(|error| !never_mind(error));
        let others = others.map(|error| told(&error, schema).1).filter(|other| *other != text);
        let mut others: Vec<_> = others.take(MOST).collect();
        let more = others.len() == MOST;
        others.truncate(MOST - 1);
        for other in others {
            text.push_str("; ");
            text.push_str(&other);
        }
        if more {
            text.push_str("; and more");
        }
    }
    Some((pointer, text))
}

/// Whether it is the pattern that failed, and not the text.
fn never_mind(error: &ValidationError<'_>) -> bool {
    matches!(error.kind(), Kind::BacktrackLimitExceeded { .. } | Kind::RegexEngineFailure { .. })
}

fn told(error: &ValidationError<'_>, schema: &Value) -> (String, String) {
    let at = error.instance_path().as_str();
    let (pointer, text) = match error.kind() {
        Kind::Required { property } => {
            let name = property.as_str().unwrap_or_default();
            (member(at, name), "is missing, and required".to_owned())
        }
        Kind::AdditionalProperties { unexpected } | Kind::UnevaluatedProperties { unexpected } => {
            let name = unexpected.first().map(String::as_str).unwrap_or_default();
            let text = match known_names(error, schema) {
                Some(names) => format!("is not known; there are: {names}"),
                None => "is not known".to_owned(),
            };
            (member(at, name), text)
        }
        Kind::Type { .. } => {
            let text = format!("{} (it is {})", masked(error), kind(error.instance()));
            (at.to_owned(), text)
        }
        Kind::AnyOf { context } | Kind::OneOfNotValid { context } => {
            let why = context.iter().filter_map(|errors| errors.first()).take(2);
            let why: Vec<_> = why.map(|error| told(error, schema).1).collect();
            (at.to_owned(), format!("fits none of the alternatives ({})", why.join("; or ")))
        }
        _ => (at.to_owned(), masked(error)),
    };
    let shown = if pointer.is_empty() { "arguments" } else { &pointer };
    let text = shortened(&format!("{shown}: {text}"));
    (pointer, text)
}

fn masked(error: &ValidationError<'_>) -> String {
    error.masked_with("it").to_string()
}

/// The members that the schema names where `error` found another.
fn known_names(error: &ValidationError<'_>, schema: &Value) -> Option<String> {
    let (around, _keyword) = error.schema_path().as_str().rsplit_once('/')?;
    let properties = schema.pointer(around)?.get("properties")?.as_object()?;
    let names: Vec<_> = properties.keys().take(NAMED).map(String::as_str).collect();
    (!names.is_empty()).then(|| names.join(", "))
}

/// The pointer of a member (RFC 6901).
fn member(at: &str, name: &str) -> String {
    format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// On one line, and bounded.
pub(super) fn shortened(text: &str) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if line.len() <= LONGEST {
        return line;
    }
    format!("{}…", &line[..line.floor_char_boundary(LONGEST)])
}
