//! A token works within its tenant, topics and worker, whichever function it calls and however it lies.

use cogo::testing::TestDb;
use serde_json::{Value, json};

use crate::caller::{Caller, everything};
use crate::fixtures::rows;

mod attacks;
mod operate;
mod reading;

/// What the tests' token may do: claim `r/s`, send to `r/s` and `r/out`, as worker `w` of the tenant `acme`, and operate.
pub(crate) fn worker() -> Caller {
    let claims = json!({"role": "authenticated", "tenant": "acme", "worker": "w", "topics": ["r/s"],
        "send": ["r/s", "r/out"], "operate": true});
    Caller::new("authenticated", Some(&claims.to_string()))
}

/// Claims that are held: by `w` and by another worker on `r/s`, of another tenant, on another topic, and one
/// that nobody holds.
#[derive(Debug)]
struct Held {
    names: Vec<(&'static str, String)>,
}

impl Held {
    async fn make(db: &TestDb) -> Self {
        let mut names = Vec::new();
        for (name, tenant, service, holder) in [
            ("own", "acme", "s", Some("w")),
            ("part", "acme", "s", Some("w.2")),
            ("worker", "acme", "s", Some("v")),
            ("topic", "acme", "hidden", Some("v")),
            ("tenant", "other", "s", Some("w")),
            ("waiting", "acme", "s", None),
            ("sent", "acme", "out", None),
        ] {
            let batch = json!([{"tenant": tenant, "role": "r", "service": service, "intent": "mcp.call",
                "payload": {"secret": name}, "idempotency_key": name}]);
            let id: String = sqlx::query_scalar("select id::text from bus_enqueue($1)")
                .bind(batch)
                .fetch_one(db.pool())
                .await
                .expect("enqueued");
            let claim: Option<i64> = match holder {
                None => None,
                Some(holder) => Some(
                    sqlx::query_scalar(
                        "select claim_no from bus_claim($1, array['r/' || $2], 1, 60000, $3)",
                    )
                    .bind(holder)
                    .bind(service)
                    .bind(tenant)
                    .fetch_one(db.pool())
                    .await
                    .expect("claimed"),
                ),
            };
            let claim = json!({"id": id, "claim_no": claim.unwrap_or(1), "op": "complete", "error": {"class": "x"}});
            names.push((name, claim.to_string()));
        }
        Self { names }
    }

    /// The query with the claims in it: `{own}` is a claim as JSON.
    fn fill(&self, sql: &str) -> String {
        let fill = |sql: String, (name, claim): &(&str, String)| {
            sql.replace(&format!("{{{name}}}"), claim)
        };
        self.names.iter().fold(sql.to_owned(), fill)
    }
}

const POLICY: &str = r#"'{"open_ms": 1, "half_open_max_calls": 1, "successes_to_close": 1}'"#;

/// Calls that the token may make.
fn own_calls() -> Vec<String> {
    let enqueue = |fields: &str| {
        format!(
            r#"select * from bus_enqueue('[{{"role":"r","service":"out","intent":"i","payload":1{fields}}}]')"#
        )
    };
    [
        &enqueue(""),
        &enqueue(r#","tenant":"acme""#),
        &enqueue(r#","tenant":null"#),
        "select * from bus_claim('w', '{r/s}')",
        "select * from bus_claim('w.3', '{r/s}', 1, 30000, 'acme')",
        "select * from bus_claim('w', '{r/s}', tenant => null)",
        "select * from bus_extend('[{own}, {part}]')",
        "select * from bus_step('[{own}]', 'w', '{r/s}')",
        "select * from bus_step('[]', 'w', '{r/s}', 0, 1000, 'acme')",
        "select * from bus_complete('[{own}]')",
        "select * from bus_fail('[{own}]')",
        "select * from bus_release('[{own}]')",
        "select * from bus_cancel('[{own}, {sent}, {worker}]')",
        "select * from bus_requeue('[]')",
        "select * from bus_reap(1000)",
        "select * from bus_read_events()",
        "select bus_log_end()",
        r#"select bus_append_event(jsonb_build_array('{own}'::jsonb - 'id'
            || jsonb_build_object('event_type', 'mcp_call_progress', 'message_id', '{own}'::jsonb -> 'id')))"#,
        r#"select bus_worker_seen('{"id": "w", "role": "r", "topics": ["r/s"]}')"#,
        r#"select bus_worker_seen('{"id": "w.1", "role": "r", "tenant": "acme"}')"#,
        "select bus_worker_gone('w')",
        "select bus_worker_gone('w', 'bye', 'acme')",
        "select * from bus_circuits()",
        "select * from bus_circuits('acme')",
        &format!("select * from bus_circuit_open('acme', 'k', 'w', 'x', 0, {POLICY})"),
        &format!("select * from bus_circuit_open(null, 'k', 'w', 'x', 0, {POLICY})"),
        "select * from bus_circuit_probe('acme', 'known', 'w')",
        "select * from bus_circuit_report('acme', 'known', 'w', true)",
        "select bus_schema_version()",
        "select bus_channel_allowed('acme:room', 'join')",
        "select * from bus_define('[]')",
        "select * from bus_define('[]', 'acme')",
        "select * from bus_definitions('{}')",
        "select * from bus_definitions('{}', 'acme')",
        "select * from bus_offers()",
        "select * from bus_offers(1000, 'acme')",
        "select * from bus_pins()",
        "select * from bus_pins('acme')",
        "select bus_env_names()",
        "select bus_env_names('acme', 7)",
        "select * from bus_env_read('{A}')",
        "select * from bus_env_read('{A}', 'acme')",
    ]
    .map(str::to_owned)
    .to_vec()
}

/// Calls beyond the token's scope, and what their refusals name.
fn foreign_calls() -> Vec<(String, &'static str)> {
    let enqueue = |service: &str, fields: &str| {
        format!(
            r#"select * from bus_enqueue('[{{"role":"r","service":"{service}","intent":"i","payload":1{fields}}}]')"#
        )
    };
    let progress = |claim: &str, fields: &str| {
        format!(
            r#"select bus_append_event(jsonb_build_array('{{{claim}}}'::jsonb - 'id' || '{fields}'
                || jsonb_build_object('message_id', '{{{claim}}}'::jsonb -> 'id')))"#
        )
    };
    let mut calls = vec![
        (enqueue("out", r#","tenant":"other""#), "messages[0].tenant"),
        (enqueue("out", r#","tenant":"*""#), "messages[0].tenant"),
        (enqueue("hidden", ""), "messages[0]"),
        (enqueue("s", r#","idempotency_key":"topic""#), "idempotency_key"),
        (r#"select * from bus_enqueue(jsonb_build_array('{"role":"r","service":"s","intent":"i","payload":1}'::jsonb
            || jsonb_build_object('id', '{topic}'::jsonb -> 'id')))"#.to_owned(), "an id"),
        (progress("tenant", r#"{"event_type": "mcp_call_progress"}"#), "events[0].message_id"),
        (progress("topic", r#"{"event_type": "mcp_call_progress"}"#), "events[0].message_id"),
        (progress("own", r#"{"event_type": "agent_online"}"#), "events[0].event_type"),
        (progress("own", r#"{"event_type": "mcp_call_progress", "tenant": "other"}"#), "events[0].tenant"),
        (progress("own", r#"{"event_type": "mcp_call_progress", "worker_id": "v"}"#), "events[0].worker_id"),
        (r#"select bus_append_event('[{"event_type": "mcp_call_progress"}]')"#.to_owned(), "events[0].message_id"),
    ];
    for claimed in ["bus_claim(", "bus_step('[]', "] {
        for (arguments, named) in [
            ("'w', '{r/s}', 1, 30000, 'other')", "tenant"),
            ("'w', '{r/s}', 1, 30000, '*')", "tenant"),
            ("'w', '{r/s,r/hidden}')", "topics[1]"),
            ("'w', '{r/out}')", "topics[0]"),
            ("'w', '{*}')", "topics[0]"),
            ("'w', '{r/*}')", "topics[0]"),
            ("'w', '{r/s,NULL}')", "topics[1]"),
            ("'w', '{r/S}')", "topics[0]"),
            ("'v', '{r/s}')", "worker"),
            ("'w2', '{r/s}')", "worker"),
            ("'W', '{r/s}')", "worker"),
            ("'', '{r/s}')", "worker"),
            ("null, '{r/s}')", "worker"),
        ] {
            calls.push((format!("select * from {claimed}{arguments}"), named));
        }
    }
    for settle in ["extend", "complete", "fail", "release"] {
        for claim in ["tenant", "topic", "worker"] {
            calls.push((
                format!("select * from bus_{settle}('[{{own}}, {{{claim}}}]')"),
                "claims[1]: message ",
            ));
        }
    }
    for claim in ["tenant", "topic", "worker"] {
        calls.push((
            format!("select * from bus_step('[{{own}}, {{{claim}}}]', 'w', '{{r/s}}')"),
            "claims[1]: message ",
        ));
    }
    for cancelled in ["tenant", "topic"] {
        calls.push((
            format!("select * from bus_cancel('[{{own}}, {{{cancelled}}}]')"),
            "messages[1]: message ",
        ));
    }
    for (call, named) in [
        (r#"bus_worker_seen('{"id": "v", "role": "r"}')"#, "worker.id"),
        (r#"bus_worker_seen('{"id": "w", "role": "r", "tenant": "other"}')"#, "worker.tenant"),
        (
            r#"bus_worker_seen('{"id": "w", "role": "r", "topics": ["r/hidden"]}')"#,
            "worker.topics[0]",
        ),
        (r#"bus_worker_seen('[]')"#, "worker.id"),
        ("bus_worker_gone('v')", "worker"),
        ("bus_worker_gone('w', null, 'other')", "tenant"),
        ("bus_circuits('other')", "tenant"),
        ("bus_circuits('*')", "tenant"),
        ("bus_circuit_probe('other', 'known', 'w')", "tenant"),
        ("bus_circuit_probe('acme', 'known', 'v')", "worker"),
        ("bus_circuit_report('other', 'known', 'w', true)", "tenant"),
        ("bus_circuit_report('acme', 'known', 'v', true)", "worker"),
        ("bus_define('[]', 'other')", "tenant"),
        ("bus_define('[]', '*')", "tenant"),
        ("bus_define('[{}]')", "definitions"),
        ("bus_definitions('{}', 'other')", "tenant"),
        ("bus_definitions('{}', '*')", "tenant"),
        ("bus_offers(1000, 'other')", "tenant"),
        ("bus_offers(1000, '*')", "tenant"),
        ("bus_pins('other')", "tenant"),
        ("bus_env_names('other')", "tenant"),
        ("bus_env_names('*')", "tenant"),
        ("bus_env_read('{A}', 'other')", "tenant"),
    ] {
        calls.push((format!("select {call}"), named));
    }
    for arguments in ["'other', 'k', 'w'", "'acme', 'k', 'v'"] {
        let named = if arguments.contains("other") { "tenant" } else { "worker" };
        calls.push((format!("select bus_circuit_open({arguments}, 'x', 0, {POLICY})"), named));
    }
    calls
}

/// Calls that are no token's, whatever it says.
const FOR_OPERATORS: [&str; 19] = [
    "select bus_now()",
    "select bus_enqueue_and_claim('[]', 'w', '{r/s}')",
    "select bus_enqueue_many('{}', '{}', '{}', '[]')",
    "select bus_pin('[]')",
    "select bus_env_set('[]')",
    "select bus_env_unset('{}')",
    "select bus_stats()",
    "select bus_limits()",
    "select bus_parked()",
    "select bus_drop('[]')",
    "select bus_retain()",
    "select bus_partition()",
    "select bus_circuit_set('acme', 'known', 'open')",
    "select bus_set_limits('{}')",
    "select bus_replay_purged()",
    "select bus_replay_check(gen_random_uuid(), '{}', '{}', true)",
    "select bus_replay_lock()",
    "select bus_replay_rebuild(gen_random_uuid(), '{}', '{}', true)",
    "select bus_replay_trace(gen_random_uuid(), gen_random_uuid())",
];

async fn prepared() -> (TestDb, Held) {
    let db = TestDb::new().await;
    let held = Held::make(&db).await;
    for tenant in ["acme", "other"] {
        let known = format!("select bus_circuit_open('{tenant}', 'known', 'x', 'x', 0, {POLICY})");
        rows(&db, &known).await;
    }
    (db, held)
}

#[tokio::test]
async fn a_token_may_what_is_within_its_scope() {
    for call in own_calls() {
        let (db, held) = prepared().await;
        let answer = worker().may(&db, &held.fill(&call)).await;
        let stale = answer.iter().any(|row| row["code"] == "CG409" || row["outcome"] == "stale");
        assert!(!stale, "{call}: {answer:?}");
        let tenants = answer.iter().filter_map(|row| row["tenant"].as_str());
        assert_eq!(tenants.filter(|tenant| *tenant != "acme").count(), 0, "{call}: {answer:?}");
    }
}

#[tokio::test]
async fn what_is_beyond_its_scope_is_refused_by_name_and_changes_nothing() {
    let (db, held) = prepared().await;
    let before = everything(&db).await;
    for (call, named) in foreign_calls() {
        let refused = worker().may_not(&db, &held.fill(&call)).await;
        assert_eq!(refused.state, "CG403", "{call}: {refused:?}");
        assert!(
            refused.message.starts_with(named) || refused.message.contains(named),
            "{call}: {refused:?}"
        );
        assert!(!refused.message.contains("\"other\""), "{call} tells too much: {refused:?}");
    }
    for call in FOR_OPERATORS {
        assert_eq!(worker().may_not(&db, call).await.state, "42501", "{call}");
    }
    assert_eq!(everything(&db).await, before);
}

#[tokio::test]
async fn without_good_claims_nothing_is_allowed() {
    let (db, held) = prepared().await;
    let before = everything(&db).await;
    let good = json!({"tenant": "acme", "worker": "w", "topics": ["r/s"], "send": ["r/s", "r/out"], "operate": true});
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        Some(claims.to_string())
    };
    let long: Vec<String> = (0..1001).map(|n| format!("r/s{n}")).collect();
    let mut bad = vec![
        None,
        Some(String::new()),
        Some(" ".to_owned()),
        Some("{".to_owned()),
        Some("null".to_owned()),
        Some("[]".to_owned()),
        Some("\"acme\"".to_owned()),
        Some("{}".to_owned()),
        Some("[".repeat(100_000)),
        Some(r#"{"tenant": "acme\u0000"}"#.to_owned()),
        with("topics", json!(long)),
    ];
    for tenant in [
        json!(null),
        json!(1),
        json!(["acme"]),
        json!("*"),
        json!(""),
        json!("acme "),
        json!("ácme"),
    ] {
        bad.push(with("tenant", tenant));
    }
    for worker in [json!(1), json!(""), json!(["w"]), json!({"w": 1}), json!("w".repeat(256))] {
        bad.push(with("worker", worker));
    }
    for operate in [json!("true"), json!(1), json!([true])] {
        bad.push(with("operate", operate));
    }
    for topics in [
        json!("r/s"),
        json!({"r/s": 1}),
        json!(["r/s", null]),
        json!([["r/s"]]),
        json!(["r/s/t"]),
        json!(["*/s"]),
        json!(["r/"]),
        json!(["r/s\n"]),
        json!(["r/s", 1]),
    ] {
        bad.push(with("topics", topics.clone()));
        bad.push(with("send", topics));
    }
    for claims in &bad {
        let nobody = Caller::new("authenticated", claims.as_deref());
        for call in own_calls() {
            let call = held.fill(&call);
            match nobody.call(&db, &call).await {
                Err(refused) => {
                    assert_eq!(refused.state, "CG403", "{claims:?} {call}: {refused:?}")
                }
                // These tell of nobody.
                Ok(rows) => assert!(
                    call.contains("bus_log_end")
                        || call.contains("bus_schema_version")
                        || rows.is_empty()
                        || rows == [json!({"bus_channel_allowed": false})],
                    "{claims:?} may {call}: {rows:?}"
                ),
            }
        }
    }
    assert_eq!(everything(&db).await, before);
}

#[tokio::test]
async fn a_token_without_a_worker_sends_and_reads_but_neither_claims_nor_settles() {
    let (db, held) = prepared().await;
    let claims = json!({"tenant": "acme", "topics": ["r/s"], "send": ["r/out"]});
    let sender = Caller::new("authenticated", Some(&claims.to_string()));
    sender.may(&db, r#"select * from bus_enqueue('[{"role":"r","service":"out","intent":"i","payload":1}]')"#).await;
    for call in [
        "select bus_claim('w', '{r/s}')",
        "select bus_complete('[{own}]')",
        "select bus_worker_gone('w')",
    ] {
        assert_eq!(sender.may_not(&db, &held.fill(call)).await.state, "CG403", "{call}");
    }
}

#[tokio::test]
async fn anon_may_nothing_and_the_service_role_everything() {
    let (db, held) = prepared().await;
    let before = everything(&db).await;
    let good = json!({"tenant": "acme", "worker": "w", "topics": ["*"], "send": ["*"]}).to_string();
    let tables = ["agent_messages", "bus_events", "workers", "circuits"]
        .map(|table| format!("select * from {table}"));
    let operators = FOR_OPERATORS.map(str::to_owned);
    for call in own_calls().iter().chain(&tables).chain(&operators) {
        let refused = Caller::new("anon", Some(&good)).may_not(&db, &held.fill(call)).await;
        assert_eq!(refused.state, "42501", "{call}: {refused:?}");
    }
    assert_eq!(everything(&db).await, before);
    let service = Caller::new("service_role", Some(r#"{"role": "service_role"}"#));
    for call in own_calls().iter().chain(&tables) {
        // A breaker has no tenant that could be left out, and a message is cancelled once.
        if !call.contains("bus_circuit_open(null") {
            service.may(&db, &held.fill(call)).await;
        }
    }
    for call in FOR_OPERATORS {
        if let Err(refused) = service.call(&db, call).await {
            assert_eq!(refused.state, "CG404", "{call}: {refused:?}");
        }
    }
    let all = service.may(&db, "select distinct tenant from agent_messages").await;
    assert_eq!(all.len(), 3, "acme, other, and default of what was enqueued here: {all:?}");
}

#[tokio::test]
async fn every_function_of_the_bus_is_somebody_s_by_decision() {
    let db = TestDb::new().await;
    let of = |role: &str| {
        format!(
            "select p.proname from pg_proc p join pg_namespace n on n.oid = p.pronamespace
                where n.nspname = 'public' and p.proname like 'bus\\_%'
                    and has_function_privilege('{role}', p.oid, 'execute') order by 1"
        )
    };
    let names = |rows: Vec<Value>| -> Vec<String> {
        rows.iter().map(|row| row["proname"].as_str().expect("a name").to_owned()).collect()
    };
    let called = |calls: &mut dyn Iterator<Item = String>| {
        let mut names: Vec<_> = calls
            .map(|call| {
                let from = call.find("bus_").expect("a function");
                let name = &call[from..];
                name[..name.find('(').expect("a call")].to_owned()
            })
            .collect();
        names.sort();
        names.dedup();
        names
    };
    // A new function belongs into own_calls and foreign_calls, or into FOR_OPERATORS.
    let tokens = called(&mut own_calls().into_iter());
    let all = called(&mut own_calls().into_iter().chain(FOR_OPERATORS.map(str::to_owned)));
    assert_eq!(names(rows(&db, &of("authenticated")).await), tokens);
    assert_eq!(names(rows(&db, &of("service_role")).await), all);
    assert_eq!(names(rows(&db, &of("cogo_operator")).await), all);
    assert_eq!(names(rows(&db, &of("cogo_hub")).await), all);
    assert_eq!(names(rows(&db, &of("anon")).await), Vec::<String>::new());
    let there =
        "select distinct p.proname from pg_proc p join pg_namespace n on n.oid = p.pronamespace
        where n.nspname = 'public' and p.proname like 'bus\\_%' order by 1";
    assert_eq!(names(rows(&db, there).await), all);
    let foreign = called(&mut foreign_calls().into_iter().map(|(call, _)| call));
    let harmless = [
        "bus_channel_allowed",
        "bus_log_end",
        "bus_read_events",
        "bus_reap",
        "bus_requeue", // tenancy/operate.rs
        "bus_schema_version",
    ];
    let missing: Vec<_> = tokens
        .iter()
        .filter(|name| !foreign.contains(name) && !harmless.contains(&name.as_str()))
        .collect();
    assert_eq!(missing, Vec::<&String>::new());
}
