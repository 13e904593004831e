//! Tables: which columns, which rows, how many.

use anyhow::Result;
use serde_json::{Value, json};

use crate::hub::TestHub;
use crate::hub::rest::{Sent, published, service};

const MESSAGES: &str = "/rest/v1/agent_messages";

#[tokio::test]
async fn columns_filters_orders_and_limits_are_heeded() -> Result<()> {
    let hub = TestHub::new().await?;
    published(&hub, 5).await?;
    let key = service();
    let priorities = async |query: &str| {
        let path = format!("{MESSAGES}?select=priority&tenant=eq.acme&order=priority&{query}");
        let answer = Sent::get(&path, &key).to(&hub).await?;
        anyhow::ensure!(answer.status == 200, "{query}: {answer:?}");
        let rows: Vec<Value> = serde_json::from_value(answer.json()?)?;
        let number = |row: &Value| row["priority"].as_i64().unwrap_or(-1);
        anyhow::Ok(rows.iter().map(number).collect::<Vec<_>>())
    };
    for (query, wanted) in [
        ("", &[0, 1, 2, 3, 4][..]),
        ("priority=eq.3", &[3]),
        ("priority=neq.3", &[0, 1, 2, 4]),
        ("priority=gt.1&priority=lte.3", &[2, 3]),
        ("priority=gte.3", &[3, 4]),
        ("priority=lt.1", &[0]),
        ("priority=in.(1,3,99)", &[1, 3]),
        ("priority=in.()", &[]),
        ("priority=not.in.(0,1,2)", &[3, 4]),
        ("priority=eq(any).{1,2}", &[1, 2]),
        ("role=like.hub*&limit=2", &[0, 1]),
        ("role=not.like.hub*", &[]),
        ("role=ilike.HUB-%25&limit=1&offset=3", &[3]),
        ("role=like(all).{hub*,*test}&limit=1", &[0]),
        ("role=match.^hub&limit=1", &[0]),
        ("role=imatch.TEST$&limit=1", &[0]),
        ("result=is.null&limit=1", &[0]),
        ("result=not.is.null", &[]),
        ("result=is.not_null", &[]),
        ("claimed_by=isdistinct.w&limit=1", &[0]),
        ("payload->>n=eq.3", &[3]),
        ("payload->n=eq.3", &[3]),
        ("payload->n=gt.2", &[3, 4]),
        ("payload->list->>0=in.(2,3)", &[2, 3]),
        ("payload=cs.{\"n\":4}", &[4]),
        ("payload->list=cs.[1]", &[1]),
        ("payload=cd.{\"n\":0,\"of\":\"acme\",\"list\":[0,\"x\"]}", &[0]),
        ("or=(priority.eq.0,and(priority.gt.2,payload->>n.eq.4))", &[0, 4]),
        ("not.or=(priority.eq.0,priority.gt.1)", &[1]),
        ("and=(priority.gt.1,not.and(priority.eq.2,role.eq.hub-test),priority.in.(2,3))", &[3]),
        ("created_at=lt.2999-01-01T00:00:00Z&limit=1", &[0]),
        ("apikey=whatever&limit=1", &[0]),
    ] {
        assert_eq!(priorities(query).await?, wanted, "{query}");
    }
    let names = "select=id::text,at:created_at,n:payload->n,payload->>of,payload->list->0,\"odd name\":role";
    let path = format!("{MESSAGES}?limit=1&order=tenant.asc,priority.desc.nullslast&{names}");
    let answer = Sent::get(&path, &key).to(&hub).await?;
    let row = &answer.json()?[0];
    let fields: Vec<&String> = row.as_object().map(|row| row.keys().collect()).unwrap_or_default();
    assert_eq!(fields, ["id", "at", "n", "of", "list", "odd name"]);
    assert_eq!((&row["n"], &row["of"], &row["list"]), (&json!(4), &json!("acme"), &json!(4)));
    Ok(())
}

#[tokio::test]
async fn other_tables_and_their_types_can_be_read() -> Result<()> {
    let hub = TestHub::new().await?;
    published(&hub, 2).await?;
    let key = service();
    let worker = json!({"worker": {"id": "w", "tenant": "acme", "role": "hub-test", "topics": ["hub-test/a", "hub-test/b"]}});
    Sent::post("/rest/v1/rpc/bus_worker_seen", &key, worker).to(&hub).await?;
    for (path, rows) in [
        ("workers?topics=cs.{hub-test/a}", 1),
        ("workers?topics=cd.{hub-test/a}", 0),
        ("workers?topics=ov.{hub-test/b,x}&select=id,topics->0", 1),
        ("workers?info=is.null", 0),
        (
            "bus_events?event_type=eq.echo_say_scheduled&xid=gt.1&order=xid,seq&select=seq,xid,tenant",
            4,
        ),
        ("bus_events?event_type=in.(agent_online)&worker_id=eq.w", 1),
        ("bus_events?message_id=not.is.null&limit=3", 3),
    ] {
        let answer = Sent::get(&format!("/rest/v1/{path}"), &key).to(&hub).await?;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        assert_eq!(answer.json()?.as_array().map(Vec::len), Some(rows), "{path}: {answer:?}");
    }
    Ok(())
}

#[tokio::test]
async fn counts_and_ranges_are_postgrests() -> Result<()> {
    let hub = TestHub::new().await?;
    published(&hub, 6).await?;
    let key = service();
    for (method, query, headers, status, range) in [
        ("GET", "limit=5&offset=0", &[("prefer", "count=exact")][..], 206, "0-4/12"),
        ("GET", "", &[("prefer", "count=exact")], 200, "0-11/12"),
        ("GET", "tenant=eq.acme", &[("prefer", "count=planned")], 200, "0-5/6"),
        ("GET", "limit=1", &[("prefer", "return=minimal,count=estimated")], 206, "0-0/12"),
        ("HEAD", "", &[("prefer", "count=exact")], 200, "0-11/12"),
        ("HEAD", "limit=2&offset=3", &[], 200, "3-4/*"),
        ("GET", "", &[("range", "0-1"), ("range-unit", "items")], 200, "0-1/*"),
        ("GET", "offset=10&limit=10", &[], 200, "10-11/*"),
        ("GET", "tenant=eq.nobody", &[], 200, "*/*"),
        ("GET", "tenant=eq.nobody", &[("prefer", "count=exact")], 200, "*/0"),
        ("GET", "limit=0", &[], 200, "*/*"),
        ("GET", "offset=100", &[], 200, "*/*"),
    ] {
        let path = format!("{MESSAGES}?select=id&{query}");
        let mut sent = Sent::get(&path, &key).method(method);
        sent.headers = headers.to_vec();
        let answer = sent.to(&hub).await?;
        let seen = (answer.status.as_u16(), answer.header("content-range"));
        assert_eq!(seen, (status, range), "{method} {query} {headers:?}");
        assert_eq!(answer.text.is_empty(), method == "HEAD", "{answer:?}");
    }
    let path = format!("{MESSAGES}?offset=100&limit=5");
    let told = Sent::get(&path, &key).header("prefer", "count=exact").to(&hub).await?;
    let told = told.refusal(416, "PGRST103")?;
    assert!(told.contains("An offset of 100 was requested, but there are only 12 rows."), "{told}");
    Ok(())
}

#[tokio::test]
async fn one_row_and_lines_are_given_where_they_are_asked_for() -> Result<()> {
    let hub = TestHub::new().await?;
    published(&hub, 2).await?;
    let key = service();
    let object = "application/vnd.pgrst.object+json";
    let one = format!("{MESSAGES}?tenant=eq.acme&priority=eq.1&select=priority,tenant");
    let answer = Sent::get(&one, &key).header("accept", object).to(&hub).await?;
    assert_eq!(answer.json()?, json!({"priority": 1, "tenant": "acme"}));
    assert_eq!(answer.header("content-type"), "application/vnd.pgrst.object+json; charset=utf-8");
    for (query, rows) in [("tenant=eq.nobody", 0), ("tenant=eq.acme", 2)] {
        let path = format!("{MESSAGES}?{query}");
        let told = Sent::get(&path, &key).header("accept", object).to(&hub).await?;
        let told = told.refusal(406, "PGRST116")?;
        assert!(told.contains(&format!("The result contains {rows} rows")), "{told}");
    }
    let path = format!("{one},payload->list,done_at");
    let csv = Sent::get(&path, &key).header("accept", "text/csv").to(&hub).await?;
    assert_eq!(csv.text, "priority,tenant,list,done_at\n1,acme,\"[1, \"\"x\"\"]\",\n");
    assert_eq!(csv.header("content-type"), "text/csv; charset=utf-8");
    Ok(())
}

#[tokio::test]
async fn a_query_that_cannot_be_read_says_what_is_wrong_with_it() -> Result<()> {
    let hub = TestHub::new().await?;
    let key = service();
    let list = format!("id=in.({})", "1,".repeat(1001));
    let many = "shard=eq.1&".repeat(101);
    let long = format!("id=eq.{}", "x".repeat(20_000));
    for (query, status, code) in [
        ("select=nope", 400, "42703"),
        ("nope=eq.1", 400, "42703"),
        ("order=nope", 400, "42703"),
        ("id=foo.1", 400, "PGRST100"),
        ("id=eq.abc", 400, "22P02"),
        ("priority=eq.99999999999999999999", 400, "22003"),
        ("priority=eq.1e400000", 400, "22P02"),
        ("created_at=gt.yesterdayish", 400, "22007"),
        ("payload=cs.nonsense", 400, "22P02"),
        ("payload=ov.1", 404, "42883"),
        ("id=like.a*", 404, "42883"),
        ("role=match.(", 400, "2201B"),
        ("status=is.true", 400, "42804"),
        ("tenant=eq.%00", 400, "22021"),
        ("select=id,agents(id)", 400, "PGRST200"),
        ("agents.id=eq.1", 400, "PGRST108"),
        ("payload=wfts(english).a", 400, "PGRST100"),
        ("limit=-1", 400, "PGRST100"),
        ("limit=1&limit=2", 400, "PGRST100"),
        ("select=id::regclass", 400, "PGRST100"),
        ("select=id;select", 400, "PGRST100"),
        ("select=id:role,id:tenant", 200, ""),
        (&list, 400, "PGRST100"),
        (&many, 400, "PGRST100"),
        (&long, 414, "CG414"),
    ] {
        let path = format!("{MESSAGES}?{query}");
        let answer = Sent::get(&path, &key).to(&hub).await?;
        if status == 200 {
            assert_eq!(answer.status, 200, "{answer:?}");
        } else {
            answer.refusal(status, code)?;
        }
    }
    for (path, status, code) in [
        ("/rest/v1/nope", 404, "PGRST205"),
        ("/rest/v1/_sqlx_migrations", 404, "PGRST205"),
        ("/rest/v1/pg_authid", 404, "PGRST205"),
        ("/rest/v1/agent_messages%22", 404, "PGRST205"),
        ("/rest/v1/a/b", 404, "PGRST125"),
        ("/rest/v1/", 404, "PGRST125"),
        ("/rest/v1", 404, "PGRST125"),
    ] {
        Sent::get(path, &key).to(&hub).await?.refusal(status, code)?;
    }
    let plan = "application/vnd.pgrst.plan+text; for=\"application/json\"";
    Sent::get(MESSAGES, &key).header("accept", plan).to(&hub).await?.refusal(406, "PGRST107")?;
    Sent::get(MESSAGES, &key)
        .header("accept-profile", "cogo")
        .to(&hub)
        .await?
        .refusal(406, "PGRST106")?;
    for method in ["POST", "PATCH", "PUT", "DELETE"] {
        let answer = Sent::get(MESSAGES, &key).method(method).to(&hub).await?;
        assert!(answer.refusal(405, "PGRST117")?.contains("bus_enqueue"), "{answer:?}");
        assert_eq!(answer.header("allow"), "GET, HEAD, OPTIONS");
    }
    Ok(())
}

#[tokio::test]
async fn nothing_that_a_client_writes_becomes_sql() -> Result<()> {
    let hub = TestHub::new().await?;
    published(&hub, 2).await?;
    let key = service();
    let evil = [
        "'",
        "''",
        "\"",
        "\\",
        "\\'",
        "$1",
        "$$",
        "--",
        "/*",
        ";",
        "1) or (1=1",
        "') or ('1'='1",
        "\");drop table workers;--",
        "x' union select 1--",
        "E'\\x27'",
        "%",
        "{\"",
        "}",
        "(((",
        "🦀'",
        "1::int",
        "now()",
    ];
    let encoded = |text: &str| text.bytes().map(|b| format!("%{b:02X}")).collect::<String>();
    for text in evil {
        let text = encoded(text);
        for path in [
            format!("{MESSAGES}?tenant=eq.{text}"),
            format!("{MESSAGES}?tenant=in.(%22{text}%22)"),
            format!("{MESSAGES}?tenant=like.{text}"),
            format!("{MESSAGES}?or=(tenant.eq.%22{text}%22,tenant.eq.{text})"),
            format!("{MESSAGES}?payload->>%22{text}%22=eq.1"),
            format!("{MESSAGES}?payload->>{text}=eq.1"),
            format!("{MESSAGES}?{text}=eq.1"),
            format!("{MESSAGES}?select=%22{text}\":id&tenant=eq.nobody"),
            format!("{MESSAGES}?select={text}"),
            format!("{MESSAGES}?select=id::{text}"),
            format!("{MESSAGES}?select=payload->{text}&tenant=eq.nobody"),
            format!("{MESSAGES}?order={text}"),
            format!("{MESSAGES}?order=id.{text}"),
            format!("{MESSAGES}?limit={text}"),
            format!("/rest/v1/{text}"),
            format!("/rest/v1/rpc/{text}"),
        ] {
            for accept in ["application/json", "text/csv"] {
                let answer = Sent::get(&path, &key).header("accept", accept).to(&hub).await?;
                if answer.status == 200 {
                    let rows = if accept == "text/csv" {
                        answer.text.lines().count() - 1
                    } else {
                        answer.json()?.as_array().map_or(0, Vec::len)
                    };
                    // Only a pattern that fits everything may find anything.
                    assert!(rows == 0 || path.contains("like.%25"), "{path}: {answer:?}");
                } else {
                    let code = answer.json()?["code"].as_str().unwrap_or_default().to_owned();
                    assert!(
                        !code.starts_with("426") && code != "42P02" && code != "42P18",
                        "{path}: {answer:?}"
                    );
                    assert!(answer.status.is_client_error(), "{path}: {answer:?}");
                }
            }
        }
        for body in
            [json!({"worker": text, "topics": [text], "tenant": text}), json!({text.clone(): 1})]
        {
            let answer = Sent::post("/rest/v1/rpc/bus_claim", &key, body).to(&hub).await?;
            assert!(answer.status.as_u16() < 500, "{answer:?}");
        }
    }
    assert_eq!(hub.written().await?.0, 4, "everything is still there");
    Ok(())
}
