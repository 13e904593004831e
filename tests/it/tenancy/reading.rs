//! What a token can read: through tables, through the log, and of channels.

use cogo::testing::TestDb;
use serde_json::{Value, json};

use super::{prepared, worker};
use crate::caller::Caller;
use crate::fixtures::{eventually, rows};

/// The secrets that stand in what was read.
fn secrets(rows: &[Value]) -> Vec<String> {
    let text = Value::from(rows).to_string();
    let all = ["own", "part", "worker", "topic", "tenant", "waiting", "sent"];
    all.iter()
        .filter(|name| text.contains(&format!("\"secret\":\"{name}\"")))
        .map(|s| (*s).to_owned())
        .collect()
}

/// What a caller reads of the log once there are `count` events of it: it ends below the oldest transaction of the whole
/// server, so other tests hold it up.
async fn read(who: &Caller, db: &TestDb, query: &str, count: usize) -> Vec<Value> {
    eventually("the log is read that far", async || {
        let read = who.may(db, query).await;
        (read.len() >= count).then_some(read)
    })
    .await
}

#[tokio::test]
async fn a_token_reads_its_tenant_s_messages_and_events_of_its_topics_and_no_others() {
    let (db, _held) = prepared().await;
    let seen = ["own", "part", "worker", "waiting", "sent"];
    assert_eq!(secrets(&worker().may(&db, "select * from agent_messages").await), seen);
    assert_eq!(secrets(&worker().may(&db, "select * from bus_events").await), seen);
    let log = worker().may(&db, "select * from bus_events").await.len();
    let all = read(&worker(), &db, "select * from bus_read_events()", log).await;
    assert_eq!((all.len(), secrets(&all)), (log, seen.map(str::to_owned).to_vec()));
    let by_trace = "select e.* from bus_events x, bus_read_events('0.0', 100,
        jsonb_build_object('trace_id', x.trace_id)) e";
    assert_eq!(secrets(&worker().may(&db, by_trace).await), seen);
    let stranger = Caller::token("third", "w", &["*"], &["*"]);
    for table in ["agent_messages", "bus_events", "workers", "circuits", "bus_read_events()"] {
        assert_eq!(
            stranger.may(&db, &format!("select * from {table}")).await,
            Vec::<Value>::new(),
            "{table}"
        );
    }
    let all = Caller::token("acme", "w", &["*"], &[]);
    assert_eq!(secrets(&all.may(&db, "select * from agent_messages").await).len(), 6);
    let role = Caller::token("acme", "w", &[], &["r/*"]);
    assert_eq!(secrets(&role.may(&db, "select * from agent_messages").await).len(), 6);
}

#[tokio::test]
async fn a_page_of_the_log_is_full_although_others_write_to_it() {
    let db = TestDb::new().await;
    for n in 0..20 {
        for tenant in ["acme", "other"] {
            let batch = json!([{"tenant": tenant, "role": "r", "service": "s", "intent": "i", "payload": n}]);
            rows(&db, &format!("select * from bus_enqueue('{batch}')")).await;
        }
    }
    let page = read(&worker(), &db, "select * from bus_read_events('0.0', 15)", 15).await;
    assert_eq!(page.len(), 15);
    let cursor = page[14]["cursor"].as_str().expect("a cursor");
    let rest = format!("select * from bus_read_events('{cursor}', 15)");
    assert_eq!(read(&worker(), &db, &rest, 5).await.len(), 5);
}

#[tokio::test]
async fn of_events_without_a_message_a_token_reads_those_of_its_tenant_s_workers_and_breakers() {
    let (db, _held) = prepared().await;
    for tenant in ["acme", "other"] {
        rows(
            &db,
            &format!(
                r#"select bus_worker_seen('{{"id": "x", "role": "r", "tenant": "{tenant}"}}')"#
            ),
        )
        .await;
        rows(&db, &format!(
            r#"select bus_append_event('[{{"event_type": "something_else", "tenant": "{tenant}"}}]')"#)).await;
    }
    let read = worker()
        .may(&db, "select event_type, tenant from bus_events where message_id is null order by 1")
        .await;
    assert_eq!(
        read,
        [
            json!({"event_type": "agent_online", "tenant": "acme"}),
            json!({"event_type": "circuit_opened", "tenant": "acme"}),
        ]
    );
    for table in ["workers", "circuits"] {
        let tenants = worker().may(&db, &format!("select distinct tenant from {table}")).await;
        assert_eq!(tenants, [json!({"tenant": "acme"})], "{table}");
    }
}

#[tokio::test]
async fn nothing_but_the_four_tables_can_be_read_and_nothing_written() {
    let (db, _held) = prepared().await;
    for role in ["authenticated", "anon", "service_role"] {
        let open = rows(&db, &format!(
            "select c.oid::regclass::text as name, p from pg_class c join pg_namespace n on n.oid = c.relnamespace,
                unnest('{{select,insert,update,delete,truncate,references,trigger}}'::text[]) p
                where n.nspname in ('cogo', 'public') and c.relkind in ('r', 'p', 'v', 'm', 'f')
                    and has_table_privilege('{role}', c.oid, p) order by 1, 2")).await;
        let tables = if role == "anon" {
            &[][..]
        } else {
            &["agent_messages", "bus_events", "circuits", "workers"][..]
        };
        let expected: Vec<_> =
            tables.iter().map(|name| json!({"name": name, "p": "select"})).collect();
        assert_eq!(open, expected, "{role}");
        let schema =
            rows(&db, &format!("select has_schema_privilege('{role}', 'cogo', 'usage') as usage"))
                .await;
        assert_eq!(schema, [json!({"usage": false})], "{role}");
    }
    assert_eq!(rows(&db, "select cogo.exposed()").await, Vec::<Value>::new());
}

#[tokio::test]
async fn a_filter_that_would_leak_is_asked_only_of_rows_that_may_be_read() {
    let (db, _held) = prepared().await;
    // Division by zero would tell of a row that the policy hides, if it were asked first.
    let leak = "select id from agent_messages where 1 / (case when payload ->> 'secret' = 'tenant' then 0 else 1 end) = 1";
    assert_eq!(worker().may(&db, leak).await.len(), 5);
}

#[tokio::test]
async fn channels_are_open_within_the_tenant_and_the_hub_s_own_only_to_hear() {
    let db = TestDb::new().await;
    let service = Caller::new("service_role", None);
    let anyone = Caller::new("authenticated", Some("{}"));
    for (topic, action, expected) in [
        ("acme:room", "join", true),
        ("acme:room", "broadcast", true),
        ("acme:room:of:many", "presence", true),
        ("acme:", "join", true),
        ("acme:room", "listen", false),
        ("acme", "join", false),
        ("acmes:room", "join", false),
        ("other:room", "join", false),
        ("ACME:room", "join", false),
        (":acme:room", "join", false),
        ("", "join", false),
        ("cogo:work:acme:r:s", "join", true),
        ("cogo:work:acme:r:out", "join", true),
        ("cogo:work:acme:r:s", "broadcast", false),
        ("cogo:work:acme:r:s", "presence", false),
        ("cogo:work:acme:r:hidden", "join", false),
        ("cogo:work:acme:r:*", "join", false),
        ("cogo:work:other:r:s", "join", false),
        ("cogo:work:acme:r", "join", false),
        ("cogo:work:acme:r:s:x", "join", false),
        ("cogo:acme:room", "join", false),
        ("cogo:", "join", false),
    ] {
        let ask = format!("select bus_channel_allowed('{topic}', '{action}') as it");
        assert_eq!(worker().may(&db, &ask).await[0]["it"], expected, "{topic} {action}");
        assert_eq!(anyone.may(&db, &ask).await[0]["it"], false, "{topic} {action}");
        assert_eq!(service.may(&db, &ask).await[0]["it"], action != "listen", "{topic} {action}");
    }
    assert_eq!(
        worker().may(&db, "select bus_channel_allowed(null, 'join') as it").await[0]["it"],
        false
    );
    // A tenant of the reserved name has none of the reserved channels.
    let cogo = Caller::token("cogo", "w", &["*"], &["*"]);
    assert_eq!(
        cogo.may(&db, "select bus_channel_allowed('cogo:room', 'join') as it").await[0]["it"],
        false
    );
}

#[tokio::test]
async fn what_only_reads_may_be_called_in_a_transaction_that_only_reads() {
    let (db, _held) = prepared().await;
    let good = r#"{"tenant": "acme", "worker": "w", "topics": ["r/s"]}"#;
    for claims in [good, "{", ""] {
        let mut transaction = db.pool().begin().await.expect("begun");
        sqlx::query("select set_config('request.jwt.claims', $1, true)")
            .bind(claims)
            .execute(&mut *transaction)
            .await
            .expect("set");
        sqlx::raw_sql("set local role authenticated; set transaction read only")
            .execute(&mut *transaction)
            .await
            .expect("as PostgREST does for what is stable");
        for sql in [
            "select count(*) from bus_read_events()",
            "select count(*) from agent_messages",
            "select bus_channel_allowed('acme:x', 'join')",
            "select bus_log_end()",
        ] {
            sqlx::query(sql).fetch_all(&mut *transaction).await.expect(sql);
        }
    }
}
