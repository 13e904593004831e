//! Changes of rows, as each subscriber may read them.

use anyhow::{Context, Result};
use cogo::identity::{Claims, Role};
use serde_json::{Value, json};
use sqlx::Row as _;

use super::{Client, Served, claims, mint, token, token_for};

fn all_of(table: &str) -> Value {
    json!([{"event": "*", "schema": "public", "table": table}])
}

/// The next change; anything else is an error.
async fn change(client: &mut Client) -> Result<Value> {
    let heard = client.hear().await?;
    anyhow::ensure!(heard.event == "postgres_changes", "{heard:?}");
    Ok(heard.payload)
}

#[tokio::test]
async fn a_message_is_told_from_its_enqueue_to_its_end() -> Result<()> {
    let hub = Served::new().await?;
    for vsn in ["1.0.0", "2.0.0"] {
        let mut client = hub.client(vsn, &token("default")).await?;
        let bindings = json!([
            {"event": "INSERT", "schema": "public", "table": "agent_messages", "filter": "role=eq.hub-test"},
            {"event": "*", "schema": "public", "table": "agent_messages"},
        ]);
        let response = client.subscribed("worker-1", bindings.clone()).await?;
        let granted = response["postgres_changes"].as_array().context("a list")?.clone();
        let ids: Vec<Value> = granted.iter().map(|one| one["id"].clone()).collect();
        assert!(ids.iter().all(|id| id.as_u64().is_some_and(|id| id > 0)), "{granted:?}");
        for (asked, granted) in bindings.as_array().context("a list")?.iter().zip(&granted) {
            for field in ["event", "schema", "table", "filter"] {
                assert_eq!(asked.get(field), granted.get(field));
            }
        }

        let id = hub.hub.publish().await?;
        let told = change(&mut client).await?;
        assert_eq!(told["ids"], json!(ids));
        let data = &told["data"];
        assert_eq!((&data["type"], &data["table"]), (&json!("INSERT"), &json!("agent_messages")));
        assert_eq!((&data["schema"], &data["errors"]), (&json!("public"), &Value::Null));
        assert!(data.get("old_record").is_none());
        let at = data["commit_timestamp"].as_str().unwrap_or_default();
        assert!(at.len() == 24 && at.ends_with('Z'), "{at}");
        // Exactly what Postgres says of the row, and its columns as the catalogue has them.
        let db = hub.hub.db.as_ref().context("a database")?;
        let mut connection = db.pool().acquire().await?;
        sqlx::query("set timezone = 'UTC'").execute(&mut *connection).await?;
        let row = sqlx::query("select to_jsonb(m) from agent_messages m where id = $1")
            .bind(id.0)
            .fetch_one(&mut *connection)
            .await?;
        assert_eq!(data["record"], row.get::<Value, _>(0));
        sqlx::query("reset timezone").execute(&mut *connection).await?;
        let columns = data["columns"].as_array().context("a list")?;
        for (name, kind) in
            [("id", "uuid"), ("run_at", "timestamptz"), ("shard", "int4"), ("payload", "jsonb")]
        {
            assert!(columns.contains(&json!({"name": name, "type": kind})), "{columns:?}");
        }

        let claim = hub.hub.claim(1).await?.pop().context("a claim")?;
        claim.complete(json!({"n": 1})).await?;
        let told = change(&mut client).await?;
        assert_eq!(told["ids"], json!([ids[1]]));
        assert_eq!(told["data"]["type"], "UPDATE");
        assert_eq!(told["data"]["record"]["status"], "done");
        assert_eq!(told["data"]["record"]["result"], json!({"n": 1}));
        assert_eq!(told["data"]["old_record"], json!({"id": id}));
        client.hears_nothing().await?;
    }
    Ok(())
}

#[tokio::test]
async fn events_workers_and_what_retention_lets_go_are_told() -> Result<()> {
    let hub = Served::new().await?;
    let mut client = hub.client("2.0.0", &token("default")).await?;
    client.subscribed("all", json!([{"event": "*", "schema": "public"}])).await?;
    let bus = &hub.hub.bus;
    bus.worker_seen(&json!({"id": "w-1", "role": "hub-test", "host": "here"})).await?;
    let mut told = [change(&mut client).await?, change(&mut client).await?];
    told.sort_by_key(|told| told["data"]["table"].to_string());
    assert_eq!(told[0]["data"]["table"], "bus_events");
    assert_eq!(told[0]["data"]["record"]["event_type"], "agent_online");
    assert_eq!(told[1]["data"]["type"], "INSERT");
    assert_eq!(told[1]["data"]["record"]["host"], "here");
    bus.worker_gone("w-1", "bye", "default").await?;
    let mut told = [change(&mut client).await?, change(&mut client).await?];
    told.sort_by_key(|told| told["data"]["table"].to_string());
    assert_eq!(told[1]["data"]["type"], "UPDATE");
    assert_eq!(told[1]["data"]["record"]["status"], "offline");
    assert_eq!(told[1]["data"]["old_record"], json!({"tenant": "default", "id": "w-1"}));

    let id = hub.hub.publish().await?;
    hub.hub.claim(1).await?.pop().context("a claim")?.complete(json!({})).await?;
    bus.retain(std::time::Duration::ZERO, None, 100).await?;
    loop {
        let told = change(&mut client).await?;
        if told["data"]["type"] == "DELETE" {
            assert_eq!(told["data"]["old_record"], json!({"id": id}));
            assert!(told["data"].get("record").is_none());
            return Ok(());
        }
    }
}

#[tokio::test]
async fn a_subscriber_is_told_what_it_could_select_and_nothing_else() -> Result<()> {
    let hub = Served::new().await?;
    let mut nobody = claims(Role::Authenticated, 3600);
    nobody.tenant = None;
    let service = mint(claims(Role::ServiceRole, 3600));
    let mut clients = Vec::new();
    for (token, wanted) in [
        (token("acme"), vec!["acme r/s", "acme r/t"]),
        (token_for("acme", &["r/s"]), vec!["acme r/s"]),
        (token_for("acme", &[]), vec![]),
        (token("globex"), vec!["globex r/s"]),
        (service, vec!["acme r/s", "acme r/t", "globex r/s"]),
        (mint(claims(Role::Anon, 3600)), vec![]),
        (mint(nobody), vec![]),
    ] {
        let mut client = hub.client("2.0.0", &token).await?;
        client.subscribed("changes", all_of("agent_messages")).await?;
        clients.push((client, wanted));
    }
    for (tenant, topic) in [("acme", "r/s"), ("acme", "r/t"), ("globex", "r/s")] {
        hub.publish_to(tenant, topic).await?;
    }
    for (client, wanted) in &mut clients {
        let mut told = Vec::new();
        for _ in 0..wanted.len() {
            let record = change(client).await?["data"]["record"].clone();
            let text = |field: &str| record[field].as_str().unwrap_or_default().to_owned();
            told.push(format!("{} {}/{}", text("tenant"), text("role"), text("service")));
        }
        told.sort();
        assert_eq!(&told, wanted);
    }
    // What is read of the log later is told later: once this has come, nobody is still to be told of the others.
    hub.publish_to("acme", "r/s").await?;
    hub.publish_to("last", "r/s").await?;
    for (client, wanted) in &mut clients {
        if wanted.contains(&"acme r/s") {
            assert_eq!(change(client).await?["data"]["record"]["tenant"], "acme");
        }
        if wanted.len() == 3 {
            assert_eq!(change(client).await?["data"]["record"]["tenant"], "last");
        }
    }
    for (client, wanted) in &mut clients {
        client.hears_nothing().await.with_context(|| format!("{wanted:?}"))?;
    }
    Ok(())
}

#[tokio::test]
async fn a_new_token_changes_what_is_told() -> Result<()> {
    let hub = Served::new().await?;
    let mut client = hub.client("2.0.0", &token("acme")).await?;
    client.subscribed("changes", all_of("agent_messages")).await?;
    client.send("changes", "access_token", json!({"access_token": token("globex")})).await?;
    let system = client.hear_of("system").await?;
    assert_eq!(system["message"], "Subscribed to PostgreSQL");
    hub.publish_to("acme", "r/s").await?;
    hub.publish_to("globex", "r/s").await?;
    assert_eq!(change(&mut client).await?["data"]["record"]["tenant"], "globex");
    client.hears_nothing().await
}

#[tokio::test]
async fn filters_are_evaluated_by_the_columns_type() -> Result<()> {
    let hub = Served::new().await?;
    let cases = [
        ("service=eq.a", true),
        ("service=neq.a", false),
        ("service=not.eq.b", true),
        ("shard=lt.1", true),
        ("shard=lte.0", true),
        ("max_attempts=gt.1000", false),
        ("priority=gte.0", true),
        ("service=in.(a,b)", true),
        ("service=not.in.(a,b)", false),
        ("service=in.(\"a\",\"b,c\")", true),
        ("shard=in.(0,7)", true),
        ("role=like.f%", true),
        ("role=ilike.F%", true),
        ("role=like.F%", false),
        ("role=match.^f.*s$", true),
        ("role=imatch.^F", true),
        ("role=not.match.^f", false),
        ("claimed_by=is.null", true),
        ("claimed_by=not.is.null", false),
        ("claimed_by=isdistinct.x", true),
        ("claimed_by=eq.x", false),
        ("claimed_by=neq.x", false),
        ("created_at=gt.2020-01-01T00:00:00Z", true),
        ("created_at=lt.2020-01-01", false),
        ("payload=eq.{\"text\": \"hello\"}", true),
        ("service=eq.a,shard=eq.0", true),
        ("service=eq.a,shard=eq.1", false),
    ];
    let bindings: Vec<Value> = cases
        .iter()
        .map(|(filter, _)| {
            json!({"event": "INSERT", "schema": "public", "table": "agent_messages", "filter": filter})
        })
        .collect();
    let mut client = hub.client("2.0.0", &token("acme")).await?;
    let response = client.subscribed("filters", json!(bindings)).await?;
    hub.publish_to("acme", "filters/a").await?;
    let told = change(&mut client).await?;
    for (at, (filter, matches)) in cases.iter().enumerate() {
        let id = &response["postgres_changes"][at]["id"];
        let is_told = told["ids"].as_array().is_some_and(|ids| ids.contains(id));
        assert_eq!(is_told, *matches, "{filter}");
    }
    client.hears_nothing().await
}

#[tokio::test]
async fn what_cannot_be_subscribed_to_is_said_and_the_channel_stays() -> Result<()> {
    let hub = Served::new().await?;
    let mut client = hub.client("2.0.0", &token("acme")).await?;
    for (at, (table, filter, says)) in [
        ("users", "", "table: \"users\""),
        ("agent_messages", "nope=eq.1", "no column \"nope\""),
        ("agent_messages", "shard=eq.x", "invalid input syntax for type integer"),
        ("agent_messages", "id=in.(1,2)", "invalid input syntax for type uuid"),
        ("agent_messages", "shard=like.1%", "patterns are for columns of text"),
        ("agent_messages", "role=match.(", "regular expression"),
        ("agent_messages", "role=xx.1", "no operator"),
        ("agent_messages", "role", "column=operator.value"),
        ("agent_messages", "shard=is.true", "columns of booleans"),
    ]
    .into_iter()
    .enumerate()
    {
        let topic = format!("bad-{at}");
        let mut binding = json!({"event": "*", "schema": "public", "table": table});
        if !filter.is_empty() {
            binding["filter"] = json!(filter);
        }
        let config = json!({"postgres_changes": [binding], "presence": {"enabled": false}, "broadcast": {"self": true}});
        client.joined(&topic, config).await?;
        let system = client.hear_of("system").await?;
        assert_eq!(system["status"], "error", "{filter}");
        assert_eq!(system["extension"], "postgres_changes");
        let message = system["message"].as_str().unwrap_or_default();
        assert!(message.contains(says), "{filter}: {message}");
        client.send(&topic, "broadcast", json!({"event": "x"})).await?;
        assert_eq!(client.hear().await?.event, "broadcast", "the channel is open");
    }
    Ok(())
}

#[tokio::test]
async fn columns_may_be_chosen() -> Result<()> {
    let hub = Served::new().await?;
    let mut client = hub.client("1.0.0", &token("acme")).await?;
    let bindings = json!([
        {"event": "*", "schema": "public", "table": "agent_messages", "select": ["id", "status"]},
    ]);
    client.subscribed("some", bindings).await?;
    let id = hub.publish_to("acme", "r/s").await?;
    let data = change(&mut client).await?["data"].clone();
    assert_eq!(data["record"], json!({"id": id, "status": "queued"}));
    let columns = json!([{"name": "id", "type": "uuid"}, {"name": "status", "type": "text"}]);
    assert_eq!(data["columns"], columns);
    Ok(())
}

#[tokio::test]
async fn a_row_that_is_too_large_is_told_in_part() -> Result<()> {
    let realtime = cogo::hub::realtime::Options { max_record_bytes: 2048, ..Default::default() };
    let hub = Served::with(cogo::hub::Options { realtime, ..Default::default() }).await?;
    let mut client = hub.client("1.0.0", &token("acme")).await?;
    client.subscribed("large", all_of("agent_messages")).await?;
    let topic = "r/s".parse()?;
    let payload = json!({"text": "x".repeat(5000)});
    let mut message = cogo::message::NewMessage::new(&topic, "echo.say", payload);
    message.tenant = "acme".to_owned();
    hub.hub.bus.publish(message).await?;
    let data = change(&mut client).await?["data"].clone();
    assert_eq!(data["errors"], json!(["Error 413: Payload Too Large"]));
    assert!(data["record"].get("payload").is_none(), "{data}");
    assert_eq!(data["record"]["role"], "r");
    Ok(())
}

#[tokio::test]
async fn nothing_that_commits_after_subscribed_is_missed() -> Result<()> {
    let hub = Served::new().await?;
    let topic: cogo::message::Topic = "r/s".parse()?;
    // A busy log, and a transaction that stays open across the subscription.
    for round in 0..10 {
        let noise = async {
            for _ in 0..20 {
                hub.publish_to("noise", "r/s").await?;
            }
            anyhow::Ok(())
        };
        let subscriber = async {
            let mut client = hub.client("2.0.0", &token("acme")).await?;
            let mut open = hub.hub.bus.pool().expect("a database").begin().await?;
            let message = json!([{"tenant": "acme", "role": topic.role(), "service": topic.service(),
                "intent": "echo.say", "payload": {"n": round}}]);
            sqlx::query("select * from bus_enqueue($1)").bind(&message).execute(&mut *open).await?;
            client.subscribed("live", all_of("agent_messages")).await?;
            // Begun before, committed after: it is told.
            open.commit().await?;
            hub.publish_to("acme", "r/s").await?;
            let told = [change(&mut client).await?, change(&mut client).await?];
            let of_open =
                told.iter().filter(|told| told["data"]["record"]["payload"]["n"] == round);
            anyhow::ensure!(of_open.count() == 1, "{told:?}");
            client.hears_nothing().await
        };
        let (noisy, subscribed) = tokio::join!(noise, subscriber);
        noisy?;
        subscribed.with_context(|| format!("round {round}"))?;
    }
    Ok(())
}

#[tokio::test]
async fn a_database_that_stalls_ends_no_subscription() -> Result<()> {
    let hub = Served::new().await?;
    let db = hub.hub.db.as_ref().context("a database")?;
    // Whoever reads messages as a subscriber waits as long as a lock is held.
    sqlx::raw_sql(
        "create function public.waits() returns boolean language plpgsql as $$
        begin
            perform pg_catalog.pg_advisory_xact_lock_shared(4711);
            return true;
        end $$;
        grant execute on function public.waits() to authenticated;
        create policy waits on public.agent_messages as restrictive for select to authenticated
            using (public.waits());",
    )
    .execute(db.pool())
    .await?;
    let mut plain = hub.client("2.0.0", &token("acme")).await?;
    plain.subscribed("plain", all_of("agent_messages")).await?;
    // It may read something else, so that its rows are read apart.
    let mut filtered = hub.client("2.0.0", &token_for("acme", &["r/s"])).await?;
    let bindings = json!([
        {"event": "*", "schema": "public", "table": "agent_messages", "filter": "status=neq.done"},
    ]);
    filtered.subscribed("filtered", bindings).await?;

    // Of no transaction, which the log's readers of all other tests would wait for.
    let mut stall = db.pool().acquire().await?;
    sqlx::query("select pg_advisory_lock(4711)").execute(&mut *stall).await?;
    hub.publish_to("acme", "r/s").await?;
    // The stall lasts until all tries were in vain: some sixteen seconds.
    let system = plain.hear_of("system").await?;
    assert_eq!(system["status"], "error", "{system}");
    assert_eq!(system["message"], "The database did not answer: changes were missed");
    assert_eq!(plain.hear_of("system").await?["message"], "Subscribed to PostgreSQL");
    sqlx::query("select pg_advisory_unlock(4711)").execute(&mut *stall).await?;
    let last = hub.publish_to("acme", "r/s").await?;
    for client in [&mut plain, &mut filtered] {
        loop {
            let heard = client.hear().await?;
            let said = heard.payload["message"].as_str().unwrap_or_default();
            assert!(!said.contains("given parameters"), "{heard:?}");
            if heard.payload["data"]["record"]["id"] == last {
                break;
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_burst_is_told_whole() -> Result<()> {
    const MESSAGES: usize = 3000;
    // The client may be slower than the hub, and is not to be dropped for it here.
    let realtime = cogo::hub::realtime::Options { queue_frames: MESSAGES, ..Default::default() };
    let hub = Served::with(cogo::hub::Options { realtime, ..Default::default() }).await?;
    let mut client = hub
        .client(
            "2.0.0",
            &mint(Claims {
                tenant: Some("acme".to_owned()),
                topics: vec!["r/s".parse()?],
                ..claims(Role::Authenticated, 3600)
            }),
        )
        .await?;
    client.subscribed("burst", json!([
        {"event": "INSERT", "schema": "public", "table": "agent_messages", "select": ["id"]},
    ])).await?;
    let topic: cogo::message::Topic = "r/s".parse()?;
    let messages: Vec<_> = (0..MESSAGES)
        .map(|_| {
            let mut message = cogo::message::NewMessage::new(&topic, "echo.say", json!({}));
            message.tenant = "acme".to_owned();
            message
        })
        .collect();
    let publish = hub.hub.bus.publish_all(&messages);
    let hear = async {
        let mut told = std::collections::HashSet::new();
        for _ in 0..MESSAGES {
            told.insert(change(&mut client).await?["data"]["record"]["id"].to_string());
        }
        anyhow::Ok(told.len())
    };
    let (published, told) = tokio::join!(publish, hear);
    published?;
    assert_eq!(told?, MESSAGES);
    client.hears_nothing().await
}
