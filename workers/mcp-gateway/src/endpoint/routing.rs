//! The headers that repeat what a request's body says, so that it can be routed without being read (SEP-2243). What
//! is routed by the one and served by the other would be two requests: both must say the same.

use axum::http::HeaderMap;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

use super::rpc::{HEADER_MISMATCH, Incoming, RpcError};

const METHOD: &str = "mcp-method";
const NAME: &str = "mcp-name";
const PARAM_PREFIX: &str = "mcp-param-";
/// What stands around a value that is no header's text.
const ENCODED: (&str, &str) = ("=?base64?", "?=");

/// Checks `Mcp-Method` and `Mcp-Name`.
pub(super) fn check(headers: &HeaderMap, message: &Incoming) -> Result<(), RpcError> {
    let method = &message.method;
    match one(headers, METHOD)? {
        None => return mismatch("missing required Mcp-Method header"),
        Some(value) if value != method => {
            return mismatch(format!(
                "Mcp-Method header `{value}` does not match body method `{method}`"
            ));
        }
        Some(_) => {}
    }
    let field = match method.as_str() {
        "tools/call" | "prompts/get" => "name",
        "resources/read" => "uri",
        "tasks/get" | "tasks/update" | "tasks/cancel" => "taskId",
        _ => return Ok(()),
    };
    // What has no name is refused for that.
    let Some(expected) = message.params.get(field).and_then(Value::as_str) else { return Ok(()) };
    match one(headers, NAME)?.map(decoded) {
        None => mismatch(format!("missing required Mcp-Name header for `{method}`")),
        Some(None) => mismatch("Mcp-Name header is not valid Base64"),
        Some(Some(name)) if name != expected => {
            mismatch(format!("Mcp-Name header `{name}` does not match body value `{expected}`"))
        }
        Some(Some(_)) => Ok(()),
    }
}

/// Checks `Mcp-Param-*`, which a tool's `inputSchema` asks for (`x-mcp-header`).
pub(super) fn check_arguments(
    headers: &HeaderMap,
    schema: &Value,
    arguments: Option<&Value>,
) -> Result<(), RpcError> {
    let mut wanted = Vec::new();
    collect(schema, &mut Vec::new(), &mut wanted);
    for (path, header) in wanted {
        let name = format!("{PARAM_PREFIX}{header}").to_ascii_lowercase();
        let value = path.iter().try_fold(arguments, |value, key| value.map(|value| value.get(key)));
        let expected = value.flatten().and_then(text);
        let path = path.join(".");
        match (one(headers, &name)?.map(decoded), expected) {
            (None, None) => {}
            (Some(_), None) => {
                return mismatch(format!("unexpected {name} header: `{path}` is absent or null"));
            }
            (None, Some(_)) => return mismatch(format!("missing {name} header for `{path}`")),
            (Some(None), _) => return mismatch(format!("{name} header is not valid Base64")),
            (Some(Some(given)), Some(expected)) if given != expected => {
                return mismatch(format!(
                    "{name} header `{given}` does not match body value `{expected}`"
                ));
            }
            (Some(Some(_)), Some(_)) => {}
        }
    }
    Ok(())
}

/// The properties that go into headers: reached from the root through `properties` alone.
fn collect<'a>(
    schema: &'a Value,
    path: &mut Vec<&'a str>,
    wanted: &mut Vec<(Vec<&'a str>, &'a str)>,
) {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return };
    for (name, property) in properties {
        path.push(name);
        match property.get("x-mcp-header").and_then(Value::as_str) {
            Some(header) if !header.is_empty() => wanted.push((path.clone(), header)),
            _ => {}
        }
        collect(property, path, wanted);
        path.pop();
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        _ => None,
    }
}

/// The header, if it is there once, and is text.
fn one<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, RpcError> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return mismatch(format!("duplicate {name} header"));
    }
    match value.to_str() {
        Ok(value) => Ok(Some(value)),
        Err(_) => mismatch(format!("{name} header contains invalid characters")),
    }
}

fn mismatch<T>(message: impl Into<String>) -> Result<T, RpcError> {
    Err(RpcError::new(HEADER_MISMATCH, message))
}

/// A header's value as it was before it was made fit for a header; none for bad Base64.
fn decoded(value: &str) -> Option<String> {
    let inner = value.strip_prefix(ENCODED.0).and_then(|inner| inner.strip_suffix(ENCODED.1));
    match inner {
        None => Some(value.to_owned()),
        Some(inner) => String::from_utf8(BASE64_STANDARD.decode(inner).ok()?).ok(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn call(name: &str) -> Incoming {
        let body =
            json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name}});
        Incoming::read(body.to_string().as_bytes()).unwrap().unwrap()
    }

    #[test]
    fn headers_must_say_what_the_body_says() {
        let good = headers(&[(METHOD, "tools/call"), (NAME, "demo__echo")]);
        check(&good, &call("demo__echo")).unwrap();
        for (bad, why) in [
            (headers(&[(NAME, "demo__echo")]), "missing required Mcp-Method header"),
            (
                headers(&[(METHOD, "tools/list"), (NAME, "demo__echo")]),
                "does not match body method",
            ),
            (headers(&[(METHOD, "tools/call")]), "missing required Mcp-Name header"),
            (headers(&[(METHOD, "tools/call"), (NAME, "other")]), "does not match body value"),
            (headers(&[(METHOD, "tools/call"), (NAME, "=?base64?!?=")]), "not valid Base64"),
        ] {
            let error = check(&bad, &call("demo__echo")).unwrap_err();
            assert_eq!(error.code, HEADER_MISMATCH);
            assert!(error.message.contains(why), "{}", error.message);
        }
    }

    #[test]
    fn a_name_that_is_no_header_is_written_in_base64() {
        let good = headers(&[(METHOD, "tools/call"), (NAME, "=?base64?w6QgYg==?=")]);
        check(&good, &call("ä b")).unwrap();
    }

    #[test]
    fn an_argument_that_goes_into_a_header_stands_there() {
        let schema = json!({"properties": {
            "region": {"type": "string", "x-mcp-header": "Region"},
            "deep": {"properties": {"n": {"type": "integer", "x-mcp-header": "N"}}},
        }});
        let arguments = json!({"region": "eu", "deep": {"n": 7}});
        let (null, none) = (json!({"region": null}), json!({}));
        let check = |pairs, arguments| check_arguments(&headers(pairs), &schema, Some(arguments));
        check(&[("mcp-param-region", "eu"), ("mcp-param-n", "7")], &arguments).unwrap();
        check(&[], &null).unwrap();
        check(&[("mcp-param-region", "us"), ("mcp-param-n", "7")], &arguments).unwrap_err();
        check(&[("mcp-param-region", "eu")], &arguments).unwrap_err();
        check(&[("mcp-param-region", "eu")], &none).unwrap_err();
    }
}
