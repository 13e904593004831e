use std::sync::Arc;

use cogo::clock::Stopwatch;
use serde_json::json;

use super::*;

fn offer(schema: &Value) -> Offer {
    let definition = json!({"name": "t", "inputSchema": schema});
    let hash = crate::catalogue::canonical::hash(&definition.to_string());
    Offer::new("set", "t", hash, Arc::new(definition))
}

async fn problem(schema: Value, arguments: Value) -> Option<(String, String)> {
    let Value::Object(arguments) = arguments else { panic!("an object") };
    let sent = arguments.clone();
    match Validators::default().check(&offer(&schema), arguments).await {
        Ok(same) => {
            assert_eq!(same, sent);
            None
        }
        Err(Refusal::InvalidArguments { pointer, message }) => Some((pointer, message)),
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test]
async fn what_is_wrong_is_named_with_its_pointer_and_what_is_expected() {
    let schema = json!({
        "type": "object", "required": ["url"], "additionalProperties": false,
        "properties": {
            "url": {"type": "string", "minLength": 1, "pattern": "^https?://"},
            "size": {"type": "object", "properties": {"w/h": {"type": "integer", "maximum": 10}}},
            "mode": {"enum": ["fast", "slow"]},
        },
    });
    for (arguments, pointer, words) in [
        (json!({}), "/url", "/url: is missing, and required"),
        (json!({"url": 7}), "/url", r#"/url: it is not of type "string" (it is a number)"#),
        (json!({"url": "http://x", "ulr": 1}), "/ulr", "there are: url, size, mode"),
        (json!({"url": "http://x", "size": {"w/h": 11}}), "/size/w~1h", "maximum of 10"),
        (json!({"url": "http://x", "mode": "hunter2"}), "/mode", r#""fast" or "slow""#),
        (json!({"url": "secret-token"}), "/url", "^https?://"),
    ] {
        let (at, message) = problem(schema.clone(), arguments.clone()).await.expect("a problem");
        assert_eq!(at, pointer, "{message}");
        assert!(message.contains(words), "{message}");
        assert!(!message.contains("hunter2") && !message.contains("secret-token"), "{message}");
    }
    let (_, message) = problem(schema.clone(), json!({"mode": 1, "size": 2})).await.expect("three");
    assert_eq!(message.matches("; ").count(), 2, "{message}");
    let four = json!({"a": 1, "b": 1, "c": 1, "d": 1});
    let numbers = json!({"additionalProperties": {"type": "string"}});
    let (_, message) = problem(numbers, four).await.expect("four");
    assert!(message.matches("; ").count() == 3 && message.ends_with("; and more"), "{message}");
    assert_eq!(problem(schema, json!({"url": "http://x", "size": {"w/h": 10}})).await, None);
}

#[tokio::test]
async fn a_message_is_bounded_whatever_the_schema_and_the_arguments_say() {
    let long = "n".repeat(5000);
    let choices: Vec<_> = (0..500).map(|n| format!("choice-{n}")).collect();
    let schema = json!({"additionalProperties": false, "properties": {"a": {"enum": choices}}});
    for arguments in [json!({"a": long}), json!({long.clone(): 1, "b\n": 1, "c": 1, "d": 1})] {
        let (_, message) = problem(schema.clone(), arguments).await.expect("a problem");
        assert!(message.len() < 1200 && !message.contains('\n'), "{} {message}", message.len());
    }
}

#[tokio::test]
async fn the_draft_is_that_of_the_schema_and_2020_12_if_it_does_not_say() {
    // `prefixItems` is new in 2020-12; in draft-07 an array of `items` means the same.
    let value = json!({"p": ["x"]});
    let new = json!({"properties": {"p": {"prefixItems": [{"type": "integer"}]}}});
    assert!(problem(new.clone(), value.clone()).await.is_some());
    let mut old = new;
    old["$schema"] = json!("http://json-schema.org/draft-07/schema#");
    assert_eq!(problem(old.clone(), value.clone()).await, None);
    old["properties"]["p"] = json!({"items": [{"type": "integer"}]});
    assert!(problem(old, value).await.is_some());
}

#[tokio::test]
async fn a_schema_that_cannot_be_used_lets_the_call_pass() {
    for schema in [
        json!({"type": "no such type"}),
        json!({"$ref": "https://example.com/schema.json"}),
        json!({"$ref": "file:///etc/passwd"}),
        json!({"$schema": "https://example.com/dialect", "type": "array"}),
        json!({"properties": {"a": {"pattern": "("}}}),
        json!({"properties": {"a": {"pattern": "(((a{1,100}){1,100}){1,100}){1,100}"}}}),
        json!({"enum": vec![1; SCHEMA_NODES]}),
        json!({"description": "x".repeat(SCHEMA_BYTES)}),
        Value::Null,
        json!("text"),
    ] {
        assert_eq!(problem(schema.clone(), json!({"a": 1})).await, None, "{schema:.100}");
    }
}

#[tokio::test]
async fn a_schema_that_goes_in_circles_harms_nobody() {
    for schema in [
        json!({"$ref": "#"}),
        json!({"allOf": [{"$ref": "#"}]}),
        json!({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}),
        json!({"$dynamicAnchor": "n", "anyOf": [{"$dynamicRef": "#n"}, {"type": "array"}]}),
        json!({"not": {"$ref": "#"}}),
    ] {
        let _whatever_it_says = problem(schema, json!({"a": {"a": {}}})).await;
    }
    // One that is right, and goes into itself.
    let tree = json!({"properties": {"kids": {"type": "array", "items": {"$ref": "#"}}},
        "required": ["name"]});
    let good = json!({"name": "a", "kids": [{"name": "b", "kids": []}]});
    assert_eq!(problem(tree.clone(), good).await, None);
    let bad = json!({"name": "a", "kids": [{"name": "b", "kids": [{}]}]});
    assert_eq!(problem(tree, bad).await.expect("a problem").0, "/kids/0/kids/0/name");
}

#[tokio::test]
async fn what_would_take_for_ever_takes_a_second_and_is_not_tried_again() {
    // Each level is looked at twice by the level above.
    let schema = json!({"$defs": {"n": {"anyOf": [
        {"properties": {"x": {"$ref": "#/$defs/n"}}, "required": ["x", "y"]},
        {"properties": {"x": {"$ref": "#/$defs/n"}}, "required": ["x", "z"]},
    ]}}, "$ref": "#/$defs/n"});
    let mut deep = json!({});
    for _ in 0..DEPTH - 2 {
        deep = json!({ "x": deep });
    }
    let Value::Object(deep) = deep else { unreachable!() };
    let validators = Validators { patience: Duration::from_millis(200), ..Validators::default() };
    let (offer, clock) = (offer(&schema), Stopwatch::start());
    assert!(validators.check(&offer, deep.clone()).await.is_ok());
    assert!(clock.elapsed() < Duration::from_secs(3));
    assert_eq!(validators.threads.available_permits(), THREADS - 1, "one is still at it");
    let clock = Stopwatch::start();
    assert!(validators.check(&offer, deep).await.is_ok());
    assert!(clock.elapsed() < Duration::from_millis(100));
}

#[tokio::test]
async fn a_pattern_that_goes_back_and_forth_is_given_up() {
    let schema = json!({"properties": {"a": {"pattern": "(x+x+)+\\1y"}}});
    let clock = Stopwatch::start();
    assert_eq!(
        problem(schema, json!({"a": "x".repeat(60)})).await,
        None,
        "nobody knows whether it fits"
    );
    assert!(clock.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn arguments_that_are_too_deep_are_refused() {
    let mut deep = json!(1);
    for _ in 0..DEPTH {
        deep = json!([deep]);
    }
    let (_, message) = problem(json!({}), json!({"a": deep})).await.expect("a problem");
    assert!(message.contains("nested more than 64 deep"), "{message}");
}

#[tokio::test]
async fn definitions_are_kept_and_the_oldest_let_go() {
    let validators = Validators::default();
    for n in 0..KEPT + 5 {
        let hash = n.to_string();
        if n == KEPT {
            assert!(validators.known("0").is_some(), "used now, so not the oldest");
        }
        validators.keep(&hash, Entry::Passes);
    }
    assert_eq!(validators.lock().by_hash.len(), KEPT);
    assert!(validators.known("0").is_some() && validators.known("1").is_none());
}
