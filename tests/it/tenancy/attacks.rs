//! Ways around the scope that were thought of.

use serde_json::json;
use sqlx::Executor as _;

use super::{POLICY, prepared, worker};
use crate::caller::{Caller, everything};
use crate::fixtures::rows;

#[tokio::test]
async fn a_claim_that_was_never_given_cannot_be_settled_once_it_is() {
    let (db, _held) = prepared().await;
    let sql = "select id, claim_no + 1 as claim_no from agent_messages where payload ->> 'secret' = 'waiting'";
    let waiting = &rows(&db, sql).await[0];
    let guess = json!([{"id": waiting["id"], "claim_no": waiting["claim_no"], "op": "complete"}])
        .to_string();
    // The thief looks first, in a snapshot of its own; then the claim is given; then the thief settles.
    let (tenant, its_claims) =
        (r#"row('acme', 'w', '{r/s}', '{}', null, false)::cogo.scope"#, guess.clone());
    let looked =
        &rows(&db, &format!("select cogo.own_claims({tenant}, '{its_claims}') as c")).await[0]["c"];
    let given =
        &rows(&db, "select claim_no from bus_claim('v', '{r/s}', 1, 60000, 'acme')").await[0];
    assert_eq!(given["claim_no"], waiting["claim_no"], "the guess was right");
    let settled = rows(&db, &format!("select outcome from cogo.settle('{looked}')")).await;
    assert_eq!(settled, [json!({"outcome": "stale"})]);
    // And its own answer names the claim as it was asked for, refused.
    let stale = json!([{"id": "00000000-0000-0000-0000-000000000000", "claim_no": 7}]);
    for function in ["bus_complete", "bus_extend", "bus_release"] {
        let sql = format!("select id, claim_no, code from {function}('{stale}')");
        let answer = worker().may(&db, &sql).await;
        assert_eq!(
            answer,
            [json!({"id": "00000000-0000-0000-0000-000000000000", "claim_no": 7, "code": "CG409"})]
        );
    }
}

#[tokio::test]
async fn a_claim_that_is_no_longer_in_force_is_a_row_and_no_refusal() {
    let (db, held) = prepared().await;
    // Taken away: reaped and given to another worker.
    rows(&db, &held.fill("select bus_release('[{own}]')")).await;
    rows(&db, "select bus_claim('v', '{r/s}', 9, 60000, 'acme')").await;
    let answer = worker().may(&db, &held.fill("select code from bus_complete('[{own}]')")).await;
    assert_eq!(answer, [json!({"code": "CG409"})]);
    let again =
        worker().may(&db, &held.fill("select code, repeated from bus_release('[{own}]')")).await;
    assert_eq!(
        again,
        [json!({"code": "CG409", "repeated": false})],
        "v holds it, so nothing was repeated"
    );
}

#[tokio::test]
async fn a_token_for_no_worker_reads_no_sealed_value_and_anon_nothing() {
    let (db, _held) = prepared().await;
    let sender = json!({"role": "authenticated", "tenant": "acme", "send": ["*"]}).to_string();
    let idle = json!({"role": "authenticated", "tenant": "acme", "worker": "w"}).to_string();
    for (role, claims, state) in [
        ("authenticated", Some(sender.as_str()), "CG403"),
        ("authenticated", Some(idle.as_str()), "CG403"),
        ("authenticated", None, "CG403"),
        ("anon", None, "42501"),
    ] {
        for call in ["select bus_env_names()", "select * from bus_env_read('{A}')"] {
            let refused = Caller::new(role, claims).call(&db, call).await.expect_err("refused");
            assert_eq!(refused.state, state, "{role} {claims:?} {call}: {refused:?}");
        }
    }
}

#[tokio::test]
async fn a_settle_whose_answer_was_lost_is_repeated_for_a_token_too() {
    let (db, held) = prepared().await;
    let settle = held.fill("select code, repeated from bus_complete('[{own}]')");
    assert_eq!(worker().may(&db, &settle).await, [json!({"code": null, "repeated": false})]);
    assert_eq!(worker().may(&db, &settle).await, [json!({"code": null, "repeated": true})]);
}

#[tokio::test]
async fn names_in_temporary_schemas_and_search_paths_lead_nowhere_else() {
    let (db, held) = prepared().await;
    let mut connection = db.pool().acquire().await.expect("a connection");
    connection
        .execute(
            "begin; set local role authenticated;
            set local search_path = pg_temp, public;
            select set_config('request.jwt.claims', '{\"tenant\":\"acme\",\"worker\":\"w\",\"topics\":[\"r/s\"]}', true);
            create temporary table agent_messages (id uuid, tenant text, role text, service text, status text,
                claim_no bigint, claimed_by text);
            create function pg_temp.restricted() returns boolean language sql as 'select false';
            create function pg_temp.pg_has_role(name, name, text) returns boolean language sql as 'select true'",
        )
        .await
        .expect("a token that runs SQL could make these");
    let sql = held.fill("select public.bus_complete('[{worker}]')");
    let error = connection.execute(sqlx::AssertSqlSafe(sql)).await.expect_err("refused");
    assert_eq!(
        error.as_database_error().and_then(|e| e.code()).as_deref(),
        Some("CG403"),
        "{error}"
    );
    connection.execute("rollback").await.expect("undone");
}

#[tokio::test]
async fn neither_a_payload_nor_a_key_can_change_the_claims_or_the_role() {
    let (db, _held) = prepared().await;
    let payload = json!({"tenant": "other", "request.jwt.claims": "{}"});
    let batch = json!([{"role": "r", "service": "out", "intent": "i", "payload": payload,
        "idempotency_key": "'; select set_config('request.jwt.claims', '{}', false); --"}]);
    let batch = batch.to_string().replace('\'', "''");
    worker().may(&db, &format!("select * from bus_enqueue('{batch}')")).await;
    let of_other =
        rows(&db, "select count(*) as n from agent_messages where tenant = 'other'").await;
    assert_eq!(of_other, [json!({"n": 1})], "as before");
    // A field twice: the last one counts, for the check and for the insert.
    let twice = r#"[{"tenant":"acme","role":"r","service":"out","intent":"i","payload":1,"tenant":"other"}]"#;
    assert_eq!(
        worker().may_not(&db, &format!("select * from bus_enqueue('{twice}')")).await.state,
        "CG403"
    );
}

#[tokio::test]
async fn a_worker_s_name_is_compared_byte_by_byte() {
    let (db, _held) = prepared().await;
    let composed = Caller::token("acme", "caf\u{e9}", &["r/s"], &[]);
    composed.may(&db, "select bus_claim('caf\u{e9}.1', '{r/s}', 0)").await;
    for other in ["cafe\u{301}", "CAF\u{c9}", "caf\u{e9}\u{200b}", "caf\u{e9}1", "caf%", "caf_"] {
        let refused =
            composed.may_not(&db, &format!("select bus_claim('{other}', '{{r/s}}')")).await;
        assert_eq!(refused.state, "CG403", "{other}");
    }
    // Nor is a wildcard of `like` one.
    let wild = Caller::token("acme", "%", &["r/s"], &[]);
    assert_eq!(wild.may_not(&db, "select bus_claim('x.1', '{r/s}')").await.state, "CG403");
}

#[tokio::test]
async fn a_thousand_topics_are_checked_and_the_one_outside_is_named() {
    let (db, _held) = prepared().await;
    let topics: Vec<String> =
        (0..1000).map(|n| if n == 700 { "x/y".into() } else { "r/s".into() }).collect();
    let call = format!("select bus_claim('w', '{{{}}}')", topics.join(","));
    let refused = worker().may_not(&db, &call).await;
    assert!(refused.message.starts_with("topics[700]: "), "{refused:?}");
    let long = "select bus_claim('w', array[repeat('x', 1000000)])";
    assert!(worker().may_not(&db, long).await.message.len() < 300);
}

#[tokio::test]
async fn a_role_that_is_like_another_is_still_bound() {
    let (db, _held) = prepared().await;
    // A role of its own that was granted the functions, but is no member of the bus.
    let role = format!("Cogo_BUS {}", db.name());
    let quoted = format!("\"{role}\"");
    for sql in [
        format!("create role {quoted} nologin"),
        format!(
            "grant execute on function bus_claim(text, text[], integer, integer, text) to {quoted}"
        ),
    ] {
        db.pool().execute(sqlx::AssertSqlSafe(sql)).await.expect("granted");
    }
    let refused = Caller::new(&role, None).may_not(&db, "select bus_claim('w', '{r/s}')").await;
    db.pool()
        .execute(sqlx::AssertSqlSafe(format!("drop owned by {quoted}")))
        .await
        .expect("dropped");
    db.pool().execute(sqlx::AssertSqlSafe(format!("drop role {quoted}"))).await.expect("dropped");
    assert_eq!(refused.state, "CG403", "{refused:?}");
}

#[tokio::test]
async fn the_service_role_needs_no_membership() {
    let (db, _held) = prepared().await;
    let mut connection = db.pool().acquire().await.expect("a connection");
    connection
        .execute("begin; revoke cogo_operator from service_role; set local role service_role")
        .await
        .expect("within this transaction");
    for call in ["select bus_claim('x', '{r/s}', 1, 1000, '*')", "select bus_requeue('[]')"] {
        connection.execute(call).await.expect(call);
    }
    connection.execute("rollback").await.expect("undone");
}

#[tokio::test]
async fn a_session_that_was_a_token_s_is_free_again_after_its_transaction() {
    let (db, held) = prepared().await;
    let mut connection = db.pool().acquire().await.expect("a connection");
    connection.execute("begin; set local role authenticated").await.expect("begun");
    let refused =
        connection.execute("select bus_claim('w', '{r/s}')").await.expect_err("no claims");
    assert_eq!(
        refused.as_database_error().and_then(|e| e.code()).as_deref(),
        Some("CG403"),
        "{refused}"
    );
    connection.execute("rollback").await.expect("undone");
    connection.execute("select bus_claim('w', '{r/s}')").await.expect("as itself");
    // Claims that a session was left with bind nobody who is not bound, and nobody else.
    connection
        .execute("select set_config('request.jwt.claims', '{\"tenant\":\"other\"}', false)")
        .await
        .expect("set");
    let sql = held.fill("select bus_extend('[{own}]')");
    connection.execute(sqlx::AssertSqlSafe(sql)).await.expect("as itself");
}

#[tokio::test]
async fn what_runs_as_the_owner_inside_is_not_taken_for_the_caller() {
    let (db, _held) = prepared().await;
    let before = everything(&db).await;
    // The functions in cogo are nobody's, neither by name nor through what public has.
    for call in [
        "select cogo_unscoped.bus_claim('w', '{r/s}', 1, 1000, 'other')",
        "select cogo.settle('[]')",
        "select cogo.token_tenant()",
        "select cogo.grant_rights()",
        "select cogo.join_supabase()",
    ] {
        assert_eq!(worker().may_not(&db, call).await.state, "42501", "{call}");
    }
    assert_eq!(everything(&db).await, before);
}

#[tokio::test]
async fn the_calls_of_the_release_before_are_as_they_were() {
    let (db, held) = prepared().await;
    for call in [
        "select id from bus_claim('w', '{r/s}', 1, 30000, 'default')",
        "select id from bus_claim('w', '{r/s}')",
        "select id from bus_claim('w', '{r/s}', 10, 30000, '*')",
        "select ord, outcome, (message).id from bus_step('[]', 'w', '{r/s}', 1, 1000, 'default')",
        "select id, claim_no, code from bus_extend('[{topic}]', 30000)",
        "select id, claim_no, code, repeated from bus_complete('[{tenant}]')",
        "select id, code from bus_cancel('[{worker}]', null)",
        "select promoted, expired, dead, next_due_ms from bus_reap(100)",
        "select bus_worker_seen('{\"id\": \"x\", \"role\": \"r\", \"host\": \"h\", \"topics\": [\"r/s\"]}')",
        "select bus_worker_gone('x', 'stopped', 'default')",
        "select * from bus_circuits('*')",
        "select granted, (circuit).state from bus_circuit_probe('acme', 'known', 'w', 1000)",
        "select * from bus_circuit_report('acme', 'known', 'w', true, null)",
    ] {
        rows(&db, &held.fill(call)).await;
    }
    rows(&db, &format!("select * from bus_circuit_open('t', 'k', 'w', 'x', 0, {POLICY}, '{{}}')"))
        .await;
    let claimed = rows(
        &db,
        r#"select * from bus_enqueue('[{"role":"r","service":"s","intent":"i","payload":1}]')"#,
    )
    .await;
    assert_eq!(claimed.len(), 1);
    let tenant = rows(&db, "select tenant from bus_claim('w', '{r/s}')").await;
    assert_eq!(
        tenant,
        [json!({"tenant": "default"})],
        "what is left out is 'default' for whoever is not bound"
    );
}
