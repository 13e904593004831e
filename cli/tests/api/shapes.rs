//! Answers about something that is there, beside the schemas of their operations: schemathesis mostly asks for what is
//! not there.

use serde_json::{Value, json};

use crate::hub::Hub;

#[test]
fn what_is_told_of_things_that_are_there_is_as_described() {
    let hub = Hub::start();
    hub.seed();
    let document = hub.description();
    let dead = hub.get("/api/dead-letters")["messages"][0].clone();
    let (id, trace) =
        (dead["id"].as_str().expect("an id"), dead["trace_id"].as_str().expect("one"));
    for (path, described, holds) in [
        ("/api/status".to_owned(), "/api/status", "/workers/0"),
        ("/api/dead-letters".to_owned(), "/api/dead-letters", "/messages/0/artifacts/0"),
        (format!("/api/dead-letters/{id}"), "/api/dead-letters/{id}", "/message/history/1"),
        (format!("/api/messages/{id}"), "/api/messages/{id}", "/events/0"),
        (format!("/api/traces/{trace}"), "/api/traces/{trace_id}", "/events/0"),
        ("/api/circuits".to_owned(), "/api/circuits", "/circuits/0"),
        ("/api/mcp/tools".to_owned(), "/api/mcp/tools", "/tools/0"),
        ("/api/mcp/pins".to_owned(), "/api/mcp/pins", "/pins/0"),
        ("/api/mcp/config".to_owned(), "/api/mcp/config", "/toolsets/demo"),
        ("/api/mcp/health".to_owned(), "/api/mcp/health", "/toolsets/demo/server"),
        ("/api/mcp/ping/demo/echo".to_owned(), "/api/mcp/ping/{toolset}/{tool}", "/tool/hash"),
    ] {
        let answer = hub.get(&path);
        assert!(answer.pointer(holds).is_some(), "{path}: {holds} is missing: {answer}");
        let problems = problems(&document, described, &answer);
        assert!(problems.is_empty(), "{path}: {}\n{answer}", problems.join("\n"));
        // A field that nobody described is one too many.
        let mut more = answer.clone();
        more["more"] = json!(1);
        assert!(!self::problems(&document, described, &more).is_empty(), "{path}: takes anything");
    }
}

/// What is wrong with `answer` by the schema of the operation's 200.
fn problems(document: &Value, path: &str, answer: &Value) -> Vec<String> {
    let response = &document["paths"][path]["get"]["responses"]["200"];
    let schema = response["content"]["application/json"]["schema"].clone();
    assert!(schema.is_object(), "{path}: has no schema");
    // With the components beside it, so that `$ref`s lead there.
    let whole = json!({"allOf": [schema], "components": document["components"]});
    let validator = jsonschema::options().offline().build(&whole).expect("a schema");
    let wrong = validator.iter_errors(answer);
    wrong.map(|error| format!("{}: {error}", error.instance_path())).collect()
}
