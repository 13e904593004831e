//! The toolset `cogo`: what it offers to whom, and that it tells nobody of another's work.

use cogo::breaker::Id;
use cogo::bus::circuit::CircuitAction;
use cogo::bus::{Claim, ClaimRequest};
use cogo::hub::Principal;
use cogo::message::{MessageId, NewMessage, Status, Topic};
use cogo_worker_mcp_gateway::mesh::Refusal;
use cogo_worker_mcp_gateway::platform::{self, Deps};
use serde_json::{Value, json};

use crate::mesh::site::Site;
use crate::support::{PATIENCE, object, text};

async fn call(who: &Principal, tool: &str, arguments: Value) -> Result<Value, Refusal> {
    platform::call(who, &Deps::default(), tool, Some(object(arguments))).await
}

/// What a call gives that goes well: it fits what the tool says that it gives, and stands there as text, too.
async fn given(who: &Principal, tool: &str, arguments: Value) -> Value {
    let result = call(who, tool, arguments.clone()).await.expect("an answer");
    assert_eq!(result["isError"], false, "{tool} {arguments}: {result}");
    let given = result["structuredContent"].clone();
    let definition = platform::tool(tool).expect("the tool");
    let schema = jsonschema::validator_for(&definition["outputSchema"]).expect("a schema");
    assert!(schema.is_valid(&given), "{tool}: {given}");
    assert_eq!(serde_json::from_str::<Value>(text(&result)).expect("JSON"), given);
    given
}

/// What a call says that is refused in a way that a model can do something about.
async fn refused(who: &Principal, tool: &str, arguments: Value) -> String {
    let result = call(who, tool, arguments.clone()).await.expect("an answer");
    assert_eq!(result["isError"], true, "{tool} {arguments}: {result}");
    text(&result).to_owned()
}

fn operator(site: &Site, tenant: &str) -> Principal {
    site.holder(
        json!({"role": "authenticated", "tenant": tenant, "send": ["echo/*"], "operate": true}),
    )
}

fn reader(site: &Site, tenant: &str) -> Principal {
    site.holder(json!({"role": "authenticated", "tenant": tenant, "topics": ["echo/*"]}))
}

fn message(payload: Value) -> NewMessage {
    NewMessage::new(&Topic::new("echo", "default").expect("a topic"), "echo.say", payload)
}

async fn claim(site: &Site, tenant: &str) -> Claim {
    let request = ClaimRequest {
        worker: "v".to_owned(),
        tenant: tenant.to_owned(),
        topics: vec!["echo/default".to_owned()],
        max: 1,
        lease: PATIENCE,
    };
    site.bus.claim(&request).await.expect("claimed").pop().expect("a claim")
}

/// A dead letter of a tenant.
async fn dead(site: &Site, tenant: &str) -> MessageId {
    let id =
        site.bus.publish(NewMessage { tenant: tenant.to_owned(), ..message(json!(tenant)) }).await;
    let id = id.expect("published").id;
    let error = json!({"class": "connect", "message": "nobody there"});
    let dead = claim(site, tenant).await;
    assert_eq!(dead.message().id, id);
    dead.fail(error, None).await.expect("settled");
    id
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changes_something_is_offered_to_operators_alone() {
    let site = Site::new().await;
    let names = |who: &Principal| -> Vec<String> {
        platform::tools(who)
            .iter()
            .map(|tool| tool["name"].as_str().expect("a name").to_owned())
            .collect()
    };
    let reading =
        ["circuit_status", "get_message", "get_trace", "list_dead_letters", "list_workers"];
    let all = [
        "circuit_status",
        "enqueue",
        "get_message",
        "get_trace",
        "list_dead_letters",
        "list_workers",
        "requeue",
    ];
    assert_eq!(names(&reader(&site, "acme")), reading);
    assert_eq!(names(&operator(&site, "acme")), all);
    assert_eq!(names(&site.admin()), all);
    for tool in platform::tools(&site.admin()) {
        let name = tool["name"].as_str().expect("a name");
        for field in ["title", "description"] {
            assert!(tool[field].as_str().is_some_and(|text| !text.is_empty()), "{tool}");
        }
        assert_eq!(tool["annotations"]["readOnlyHint"], !["enqueue", "requeue"].contains(&name));
        assert!(tool["annotations"]["destructiveHint"].is_boolean(), "{tool}");
        for schema in ["inputSchema", "outputSchema"] {
            assert_eq!(tool[schema]["type"], "object", "{name}");
            assert!(jsonschema::draft202012::meta::is_valid(&tool[schema]), "{name} {schema}");
        }
        assert_eq!(tool["inputSchema"]["additionalProperties"], false);
        // As rmcp and its clients read it.
        serde_json::from_value::<rmcp::model::Tool>(tool).expect("a tool");
    }
    let sender = site.sender(&["echo/*"]);
    let id = MessageId::new();
    for (tool, arguments) in [
        ("requeue", json!({"id": id})),
        ("enqueue", json!({"topic": "echo/default", "intent": "echo.say", "payload": 1})),
    ] {
        let why = refused(&sender, tool, arguments).await;
        assert!(why.contains("`operate`"), "{why}");
    }
    assert_eq!(site.messages().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn arguments_that_do_not_fit_are_refused_with_their_place() {
    let site = Site::new().await;
    let who = operator(&site, "acme");
    let id = MessageId::new();
    for (tool, arguments, wanted) in [
        ("get_message", json!({}), "/id"),
        ("get_message", json!({"id": 1}), "/id"),
        ("get_message", json!({"id": "x"}), "/id"),
        ("get_message", json!({"id": id, "events": 201}), "/events"),
        ("get_message", json!({"id": id, "events": -1}), "/events"),
        ("get_message", json!({"id": id, "max_bytes": 1e9}), "/max_bytes"),
        ("get_message", json!({"id": id, "evnts": 1}), "/evnts"),
        ("get_trace", json!({"trace_id": id, "limit": 0}), "/limit"),
        ("list_workers", json!({"status": "gone"}), "/status"),
        ("list_workers", json!({"tenant": "globex"}), "/tenant"),
        ("list_dead_letters", json!({"since": "yesterday"}), "/since"),
        ("list_dead_letters", json!({"role": "x".repeat(65)}), "/role"),
        ("circuit_status", json!({"limit": 201}), "/limit"),
        ("requeue", json!({"id": id, "payload": {}}), "/payload"),
        ("requeue", json!({"id": id, "reason": "x".repeat(201)}), "/reason"),
        ("enqueue", json!({"topic": "echo/default", "intent": "a"}), "/payload"),
        (
            "enqueue",
            json!({"topic": "echo/default", "intent": "a", "payload": 1, "delay": 1}),
            "/delay",
        ),
        (
            "enqueue",
            json!({"topic": "echo/default", "intent": "a", "payload": 1, "priority": 101}),
            "/priority",
        ),
    ] {
        match call(&who, tool, arguments.clone()).await {
            Err(Refusal::InvalidArguments { pointer, message }) => {
                assert_eq!(pointer, wanted, "{tool} {arguments}: {message}");
                assert!(message.contains(wanted), "{tool} {arguments}: {message}");
            }
            other => panic!("{tool} {arguments}: {other:?}"),
        }
    }
    let unknown = call(&who, "drop", json!({})).await;
    assert!(matches!(unknown, Err(Refusal::UnknownTool { .. })), "{unknown:?}");
    let none =
        platform::call(&who, &Deps::default(), "list_workers", None).await.expect("an answer");
    assert_eq!(none["structuredContent"]["workers"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_is_enqueued_looked_at_and_traced_by_its_own_tenant() {
    let site = Site::new().await;
    let (acme, globex) = (operator(&site, "acme"), operator(&site, "globex"));
    let work = json!({"topic": "echo/default", "intent": "echo.say", "payload": {"text": "x".repeat(5000)},
        "idempotency_key": "once", "max_attempts": 2});
    let first = given(&acme, "enqueue", work.clone()).await;
    let again = given(&acme, "enqueue", work).await;
    assert_eq!((&first["duplicate"], &again["duplicate"]), (&json!(false), &json!(true)));
    assert_eq!(first["id"], again["id"]);

    let seen = given(&acme, "get_message", json!({"id": first["id"]})).await;
    assert_eq!((&seen["message"]["status"], &seen["truncated"]), (&json!("queued"), &json!(false)));
    assert_eq!(seen["message"]["payload"]["text"].as_str().expect("text").len(), 5000);
    assert_eq!(
        (&seen["message"]["topic"], &seen["message"]["max_attempts"]),
        (&json!("echo/default"), &json!(2))
    );
    assert_eq!(seen["events"][0]["type"], "echo_say_scheduled");
    assert_eq!(seen["events"][0]["payload"]["truncated"], true, "an event's payload is short");
    let short =
        given(&acme, "get_message", json!({"id": first["id"], "max_bytes": 256, "events": 0}))
            .await;
    assert_eq!(
        (&short["message"]["payload"]["truncated"], &short["truncated"]),
        (&json!(true), &json!(true))
    );
    assert!(short.to_string().len() < 2000, "{short}");

    let done = claim(&site, "acme").await;
    done.complete(json!({"n": 1})).await.expect("settled");
    let seen = given(&acme, "get_message", json!({"id": first["id"]})).await;
    assert_eq!(
        (&seen["message"]["status"], &seen["message"]["result"]),
        (&json!("done"), &json!({"n": 1}))
    );
    let trace = given(&acme, "get_trace", json!({"trace_id": first["trace_id"]})).await;
    assert_eq!(trace["events"].as_array().map(Vec::len), Some(2));
    let part = given(&acme, "get_trace", json!({"trace_id": first["trace_id"], "limit": 1})).await;
    assert_eq!(
        (part["events"].as_array().map(Vec::len), &part["truncated"]),
        (Some(1), &json!(true))
    );

    // Another tenant's is as what is not there.
    for (tool, arguments) in
        [("get_message", json!({"id": first["id"]})), ("requeue", json!({"id": first["id"]}))]
    {
        let foreign = refused(&globex, tool, arguments).await;
        assert!(foreign.contains("there is no such message"), "{foreign}");
        let id = MessageId::new();
        let nobodys = refused(&globex, tool, json!({"id": id})).await;
        assert_eq!(nobodys, foreign.replace(first["id"].as_str().expect("an id"), &id.to_string()));
    }
    let foreign = refused(&globex, "get_trace", json!({"trace_id": first["trace_id"]})).await;
    assert!(foreign.contains("there is no such trace"), "{foreign}");
    // What its key does not name.
    let beyond = json!({"topic": "mcp-gateway/demo", "intent": "mcp.call", "payload": {}});
    let why = refused(&acme, "enqueue", beyond).await;
    assert!(why.contains("mcp-gateway/demo"), "{why}");
    let unsound = json!({"topic": "echo", "intent": "echo.say", "payload": 1});
    assert!(refused(&acme, "enqueue", unsound).await.contains("topic"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_are_listed_and_brought_back() {
    let site = Site::new().await;
    let (mut own, other) = (Vec::new(), dead(&site, "globex").await);
    for _ in 0..3 {
        own.push(dead(&site, "acme").await);
    }
    let (acme, looks) = (operator(&site, "acme"), reader(&site, "acme"));
    let listed = given(&looks, "list_dead_letters", json!({})).await;
    let ids: Vec<_> =
        listed["dead_letters"].as_array().expect("letters").iter().map(|it| &it["id"]).collect();
    assert_eq!(ids, [&json!(own[2]), &json!(own[1]), &json!(own[0])]);
    let letter = &listed["dead_letters"][0];
    assert_eq!(
        (&letter["class"], &letter["error"]["message"]),
        (&json!("connect"), &json!("nobody there"))
    );
    let two = given(
        &looks,
        "list_dead_letters",
        json!({"limit": 2, "class": "connect", "since": "2020-01-01T00:00:00Z"}),
    )
    .await;
    assert_eq!(
        (two["dead_letters"].as_array().map(Vec::len), &two["truncated"]),
        (Some(2), &json!(true))
    );
    let none = given(&looks, "list_dead_letters", json!({"class": "timeout"})).await;
    assert_eq!(none, json!({"dead_letters": [], "truncated": false}));

    assert!(refused(&looks, "requeue", json!({"id": own[0]})).await.contains("`operate`"));
    let back = given(&acme, "requeue", json!({"id": own[0], "reason": "it is there again"})).await;
    assert_eq!(back["status"], "queued");
    assert_eq!(site.bus.message(own[0]).await.expect("found").status, Status::Queued);
    let again = refused(&acme, "requeue", json!({"id": own[0]})).await;
    assert!(again.contains("is queued"), "{again}");
    assert!(refused(&acme, "requeue", json!({"id": other})).await.contains("no such message"));
    assert_eq!(site.bus.message(other).await.expect("found").status, Status::Failed);
    given(&site.admin(), "requeue", json!({"id": other})).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn machines_and_breakers_are_listed_within_their_tenant() {
    let site = Site::new().await;
    for (id, tenant, topic) in [
        ("a", "acme", "echo/default"),
        ("b", "acme", "echo/other"),
        ("c", "globex", "echo/default"),
    ] {
        let info = json!({"toolsets": {"demo": {"tools": vec!["x".repeat(100); 100]}}});
        let worker =
            json!({"id": id, "tenant": tenant, "role": "echo", "topics": [topic], "info": info});
        site.bus.worker_seen(&worker).await.expect("seen");
        let key = Id::new(tenant, format!("echo.say.{id}"));
        let open = site.bus.circuit_set(&key, CircuitAction::Open(None), Some(id), Some("why"));
        open.await.expect("opened");
    }
    site.bus.worker_gone("b", "enough", "acme").await.expect("gone");
    let who = reader(&site, "acme");
    let names = |given: &Value, list: &str, field: &str| -> Vec<String> {
        let all = given[list].as_array().expect("a list").iter();
        all.map(|it| it[field].as_str().expect("text").to_owned()).collect()
    };
    let all = given(&who, "list_workers", json!({})).await;
    assert_eq!(names(&all, "workers", "id"), ["a", "b"], "those online first");
    assert_eq!(all["workers"][0]["info"]["truncated"], true);
    let online = given(&who, "list_workers", json!({"status": "online"})).await;
    assert_eq!(names(&online, "workers", "id"), ["a"]);
    let other = given(&who, "list_workers", json!({"topic": "echo/other"})).await;
    assert_eq!(names(&other, "workers", "id"), ["b"]);
    let one = given(&who, "list_workers", json!({"limit": 1})).await;
    assert_eq!((names(&one, "workers", "id").len(), &one["truncated"]), (1, &json!(true)));
    assert_eq!(
        given(&site.admin(), "list_workers", json!({})).await["workers"],
        json!([]),
        "of the tenant that is meant"
    );

    let open = given(&who, "circuit_status", json!({})).await;
    let mut keys = names(&open, "circuits", "key");
    keys.sort();
    assert_eq!(keys, ["echo.say.a", "echo.say.b"]);
    assert_eq!(open["circuits"][0]["state"], "open");
    let one = given(&who, "circuit_status", json!({"key": "echo.say.b"})).await;
    assert_eq!(names(&one, "circuits", "key"), ["echo.say.b"]);
}

#[tokio::test]
async fn of_large_events_a_key_reads_the_beginning_alone() {
    let site = Site::new().await;
    let large =
        site.bus.publish(message(json!({"text": "x".repeat(100_000)}))).await.expect("published");
    let small = site.bus.publish(message(json!({"text": "hi"}))).await.expect("published");
    let who = reader(&site, "default");
    for events in [
        who.trace_events(large.trace_id, 10).await.expect("read"),
        who.message_events(large.id, 10).await.expect("read"),
    ] {
        let payload = &events[0].payload;
        assert_eq!((&payload["truncated"], events.len()), (&json!(true), 1));
        assert!(payload["bytes"].as_u64().is_some_and(|bytes| bytes > 100_000));
        assert!(payload["beginning"].as_str().is_some_and(|text| text.len() <= 1200), "{payload}");
    }
    let events = who.message_events(small.id, 10).await.expect("read");
    assert_eq!(events[0].payload["payload"]["text"], "hi", "{events:?}");
}
