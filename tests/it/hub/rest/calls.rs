//! Functions: what they are given and what they give.

use anyhow::{Context as _, Result};
use cogo::bus::Signal;
use serde_json::{Value, json};

use crate::hub::rest::{Sent, published, service, worker_of};
use crate::hub::{DEADLINE, TestHub};

#[tokio::test]
async fn a_message_is_enqueued_claimed_and_completed_with_nothing_but_a_key() -> Result<()> {
    let hub = TestHub::new().await?;
    let key = worker_of("acme");
    let mut woken = hub.bus.waker(Signal::Work);
    let message =
        json!({"role": "hub-test", "service": "here", "intent": "echo.say", "payload": {"a": "ü"}});
    let body = json!({"messages": [message]});
    let answer = Sent::post("/rest/v1/rpc/bus_enqueue", &key, body).to(&hub).await?;
    assert_eq!((answer.status.as_u16(), answer.header("content-range")), (200, "0-0/*"));
    assert_eq!(answer.header("content-type"), "application/json; charset=utf-8");
    tokio::time::timeout(DEADLINE, woken.woken()).await.context("this process is woken")?;

    let claim = json!({"worker": "w", "topics": ["hub-test/here"], "max": 5});
    let answer = Sent::post("/rest/v1/rpc/bus_claim", &key, claim).to(&hub).await?;
    let claimed = answer.json()?;
    assert_eq!(
        (&claimed[0]["tenant"], &claimed[0]["payload"]),
        (&json!("acme"), &json!({"a": "ü"}))
    );

    let done = json!({"claims": [{"id": claimed[0]["id"], "claim_no": claimed[0]["claim_no"], "result": 1}]});
    for repeated in [false, true] {
        let answer = Sent::post("/rest/v1/rpc/bus_complete", &key, &done).to(&hub).await?;
        let outcome = answer.json()?;
        assert_eq!(
            (&outcome[0]["code"], &outcome[0]["repeated"]),
            (&Value::Null, &json!(repeated))
        );
    }
    Ok(())
}

#[tokio::test]
async fn what_a_function_gives_can_be_picked_from() -> Result<()> {
    let hub = TestHub::new().await?;
    published(&hub, 4).await?;
    let key = service();
    let claim = json!({"worker": "w", "topics": ["hub-test/here"], "max": 3, "tenant": "acme"});
    let path = "/rest/v1/rpc/bus_claim?select=priority,n:payload->>n&priority=gt.0&order=priority.desc&limit=2";
    let answer = Sent::post(path, &key, &claim).header("prefer", "count=exact").to(&hub).await?;
    assert_eq!(answer.json()?, json!([{"priority": 3, "n": "3"}, {"priority": 2, "n": "2"}]));
    assert_eq!((answer.status.as_u16(), answer.header("content-range")), (206, "0-1/3"));
    assert_eq!(answer.header("preference-applied"), "count=exact");

    // One is left: as an object; and none, which changes nothing.
    let object = "application/vnd.pgrst.object+json";
    let one =
        Sent::post("/rest/v1/rpc/bus_claim?select=priority", &key, &claim).header("accept", object);
    assert_eq!(one.to(&hub).await?.json()?, json!({"priority": 0}));
    let told = one.to(&hub).await?.refusal(406, "PGRST116")?;
    assert!(told.contains("The result contains 0 rows"), "{told}");
    Ok(())
}

#[tokio::test]
async fn a_claim_that_cannot_be_answered_as_asked_is_undone() -> Result<()> {
    let hub = TestHub::new().await?;
    published(&hub, 2).await?;
    let key = worker_of("acme");
    let claim = json!({"worker": "w", "topics": ["hub-test/here"], "max": 2});
    let object = "application/vnd.pgrst.object+json";
    let two = Sent::post("/rest/v1/rpc/bus_claim", &key, &claim).header("accept", object);
    two.to(&hub).await?.refusal(406, "PGRST116")?;
    let answer = Sent::post("/rest/v1/rpc/bus_claim", &key, &claim).to(&hub).await?;
    assert_eq!(answer.json()?.as_array().map(Vec::len), Some(2), "they were still there");
    Ok(())
}

#[tokio::test]
async fn values_rows_and_nothing_have_the_forms_of_postgrest() -> Result<()> {
    let hub = TestHub::new().await?;
    let sql = "create function public.bus_t_void() returns void language sql as '';
        create function public.bus_t_null() returns text language sql stable as 'select null::text';
        create function public.bus_t_text() returns text language sql stable as $$ select 'pong' $$;
        create function public.bus_t_add(a int, b int default 2) returns int language sql immutable as 'select a + b';
        create function public.bus_t_json(p jsonb) returns jsonb language sql immutable as 'select p';
        create function public.bus_t_row(out a int, out b text) language sql stable as $$ select 1, 'x' $$;
        create function public.bus_t_none() returns public.workers language sql stable as 'select * from public.workers';
        create function public.bus_t_set() returns setof int language sql stable as 'select generate_series(1, 3)';
        create function public.bus_t_tags(tags text[]) returns int language sql stable as 'select cardinality(tags)';
        create function public.bus_t_table() returns table (a int) language sql stable as 'select generate_series(1, 2)';
        create function public.bus_t_write() returns int language sql as
            $$ insert into public._sqlx_migrations select 1, '', now(), true, '', 0 returning 1 $$;
        create function public.bus_t_fail() returns int language plpgsql as
            $$ begin raise exception 'lease lost' using errcode = 'PT409', detail = 'd', hint = 'h'; end $$;
        create function public.bus_t_full() returns int language plpgsql as
            $$ begin raise exception 'full' using errcode = 'CG429', detail = 'retry_after_ms=2500'; end $$;
        create function public.bus_t_who() returns json language sql stable as $$ select json_build_object(
            'role', current_setting('role'), 'claims', current_setting('request.jwt.claims')::json ->> 'tenant',
            'method', current_setting('request.method'), 'path', current_setting('request.path'),
            'headers', current_setting('request.headers')::json) $$;
        create function public.t_other() returns int language sql stable as 'select 1'";
    sqlx::raw_sql(sql).execute(hub.bus.pool().expect("a database")).await?;
    let key = service();
    let call = async |name: &str, body: Value| {
        let path = format!("/rest/v1/rpc/bus_t_{name}");
        Sent::post(&path, &key, body).to(&hub).await
    };
    let void = call("void", json!({})).await?;
    assert_eq!((void.status.as_u16(), void.text.as_str()), (204, ""));
    for (name, body, text) in [
        ("null", json!({}), "null"),
        ("text", json!({}), "\"pong\""),
        ("add", json!({"a": 1}), "3"),
        ("add", json!({"a": "1", "b": 4}), "5"),
        ("json", json!({"p": {"z": 1, "a": [1, 2]}}), "{\"a\": [1, 2], \"z\": 1}"),
        ("row", json!({}), "{\"a\":1,\"b\":\"x\"}"),
        ("set", json!({}), "[1,\n2,\n3]"),
        ("tags", json!({"tags": ["a", "b"]}), "2"),
        ("table", json!({}), "[{\"a\":1},\n{\"a\":2}]"),
    ] {
        let answer = call(name, body).await?;
        assert_eq!((answer.status.as_u16(), answer.text.as_str()), (200, text), "{name}");
    }
    let none = call("none", json!({})).await?.json()?;
    assert_eq!(none["id"], Value::Null, "a row of nothing");
    let failed = call("fail", json!({})).await?;
    assert!(failed.refusal(409, "PT409")?.contains("\"lease lost\" \"d\" \"h\""), "{failed:?}");
    let full = call("full", json!({})).await?;
    full.refusal(429, "CG429")?;
    assert_eq!(full.header("retry-after"), "3");

    let get =
        async |path: &str| Sent::get(&format!("/rest/v1/rpc/bus_t_{path}"), &key).to(&hub).await;
    assert_eq!(get("add?a=1&b=2").await?.text, "3");
    assert_eq!(get("tags?tags=%7Ba,b,c%7D").await?.text, "3");
    assert_eq!(get("json?p=%7B%22a%22:1%7D").await?.text, "{\"a\": 1}");
    assert_eq!(get("table?a=eq.2").await?.text, "[{\"a\":2}]");
    get("json?p=nonsense").await?.refusal(400, "22P02")?;
    get("add?a=1&c=2").await?.refusal(404, "PGRST202")?;
    get("write").await?.refusal(405, "25006")?;
    let head =
        Sent::get("/rest/v1/rpc/bus_t_table", &key).method("HEAD").header("prefer", "count=exact");
    let head = head.to(&hub).await?;
    assert_eq!(
        (head.status.as_u16(), head.header("content-range"), head.text.as_str()),
        (200, "0-1/2", "")
    );

    let who = Sent::post("/rest/v1/rpc/bus_t_who", &worker_of("acme"), "{}")
        .header("x-client-info", "supabase-js/2")
        .header("cookie", "secret")
        .to(&hub)
        .await?;
    // Made by the tests' superuser and granted to all; the caller is who the token says.
    assert_eq!(
        who.json()?,
        json!({
            "role": "authenticated", "claims": "acme", "method": "POST", "path": "/rest/v1/rpc/bus_t_who",
            "headers": {"x-client-info": "supabase-js/2"},
        })
    );
    Sent::post("/rest/v1/rpc/t_other", &key, "{}").to(&hub).await?.refusal(404, "PGRST202")?;
    Ok(())
}

#[tokio::test]
async fn wrong_arguments_are_answered_with_the_right_ones() -> Result<()> {
    let hub = TestHub::new().await?;
    let key = service();
    for (name, body, part) in [
        (
            "bus_claim",
            json!({"worker": "w", "topics": [], "limit": 1}),
            "public.bus_claim(worker text, topics text[]",
        ),
        ("bus_claim", json!({}), "public.bus_claim(worker text, topics text[]"),
        ("bus_clam", json!({}), "public.bus_claim"),
        (
            "claim_messages",
            json!({"p_worker": "w"}),
            "Could not find the function public.claim_messages(p_worker)",
        ),
        ("pg_sleep", json!({"seconds": 100}), "Could not find the function"),
        ("bus_claim\"();drop", json!({}), "Could not find the function"),
    ] {
        let path = format!("/rest/v1/rpc/{name}");
        let told = Sent::post(&path, &key, body).to(&hub).await?.refusal(404, "PGRST202")?;
        assert!(told.contains(part), "{name}: {told}");
    }
    let post = async |body: &str| Sent::post("/rest/v1/rpc/bus_extend", &key, body).to(&hub).await;
    for bad in [
        "{",
        "[]",
        "null",
        "1",
        "\"x\"",
        "{\"claims\":[],\"claims\":[]}",
        "{} {}",
        "\u{feff}{}",
        "{\"claims\": 1e}",
    ] {
        post(bad).await?.refusal(400, "PGRST102")?;
    }
    post(&format!("{{\"claims\": {}{}}}", "[".repeat(100_000), "]".repeat(100_000)))
        .await?
        .refusal(500, "54001")?;
    post("{\"claims\": 1e999999}").await?.refusal(400, "22003")?;
    post("{\"claims\": [], \"lease_ms\": 99999999999}").await?.refusal(400, "22003")?;
    post("{\"claims\": [], \"lease_ms\": \"x\"}").await?.refusal(400, "22P02")?;
    post("{\"claims\": [{\"id\": \"\\u0000\"}]}").await?.refusal(400, "22P05")?;
    post("{\"claims\": {}}").await?.refusal(400, "CG400")?;
    post("").await?.refusal(404, "PGRST202")?;
    let text = Sent {
        headers: vec![("content-type", "text/plain")],
        ..Sent::get("/rest/v1/rpc/bus_reap", &key)
    };
    text.method("POST").to(&hub).await?.refusal(415, "PGRST102")?;
    for method in ["PUT", "PATCH", "DELETE"] {
        Sent::get("/rest/v1/rpc/bus_reap", &key)
            .method(method)
            .to(&hub)
            .await?
            .refusal(405, "PGRST101")?;
    }
    let plain = "/rest/v1/rpc/bus_log_end?select=a";
    Sent::post(plain, &key, "{}").to(&hub).await?.refusal(400, "PGRST100")?;
    Sent::post("/rest/v1/rpc/bus_stats?nope=eq.1", &key, "{}")
        .to(&hub)
        .await?
        .refusal(400, "42703")?;
    Ok(())
}

#[tokio::test]
async fn a_function_that_a_migration_brings_is_found() -> Result<()> {
    let hub = TestHub::new().await?;
    let key = service();
    Sent::post("/rest/v1/rpc/bus_stats", &key, "{}").to(&hub).await?;
    let sql = "create function public.bus_t_new() returns int language sql as 'select 7'";
    sqlx::raw_sql(sql).execute(hub.bus.pool().expect("a database")).await?;
    let found = async {
        loop {
            let answer = Sent::post("/rest/v1/rpc/bus_t_new", &key, "{}").to(&hub).await?;
            if answer.status == 200 {
                return anyhow::Ok(answer);
            }
            // At most once a second is it looked for.
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    assert_eq!(tokio::time::timeout(DEADLINE, found).await??.text, "7");
    Ok(())
}
