//! RPCs, and reads of the three tables with the grammar of the clients.

use serde_json::{Value, json};

use crate::driver::{ALL, Driver};
use crate::hub::Hub;

fn select(driver: &Driver, table: &str, columns: &str, steps: Value) -> Value {
    driver.ask("select", json!({"table": table, "columns": columns, "steps": steps}))
}

fn rpc(driver: &Driver, function: &str, args: Value) -> Value {
    let answer = driver.ask("rpc", json!({"fn": function, "args": args}));
    assert_eq!(answer["error"], Value::Null, "{:?} {function}: {answer}", driver.client);
    answer["data"].clone()
}

#[test]
fn a_message_goes_all_its_way_by_rpc() {
    let hub = Hub::start();
    for client in ALL {
        let (worker, topic) = (client.word(), format!("echo/{}", client.word()));
        let driver = client.connect(&hub.url, &hub.worker_key("acme", &worker, &topic));
        // Without a tenant: it is the token's own.
        let message = json!({"id": id(client.name()), "role": "echo", "service": worker, "intent": "echo",
            "payload": {"n": 1}, "idempotency_key": format!("once-{worker}")});
        let sent = rpc(&driver, "bus_enqueue", json!({"messages": [message]}));
        assert_eq!(sent[0]["duplicate"], false, "{client:?}: {sent}");
        let again = rpc(&driver, "bus_enqueue", json!({"messages": [message]}));
        assert_eq!(again[0]["duplicate"], true, "{client:?}: {again}");
        assert_eq!(again[0]["id"], sent[0]["id"], "{client:?}: {again}");

        let step =
            json!({"settles": [], "worker": worker, "topics": [topic], "max": 1, "tenant": null});
        let claimed = rpc(&driver, "bus_step", step);
        let message = &claimed[0]["message"];
        assert_eq!(
            (&message["id"], &message["tenant"]),
            (&sent[0]["id"], &json!("acme")),
            "{claimed}"
        );
        let claim = json!({"id": message["id"], "claim_no": message["claim_no"]});
        let extended = rpc(&driver, "bus_extend", json!({"claims": [claim], "lease_ms": 60000}));
        assert_eq!(extended[0]["code"], Value::Null, "{client:?}: {extended}");
        let settle = json!({"op": "complete", "id": claim["id"], "claim_no": claim["claim_no"], "result": {"n": 2}});
        let step = json!({"settles": [settle], "worker": worker, "topics": [topic], "max": 1, "tenant": null});
        let settled = rpc(&driver, "bus_step", step);
        assert_eq!(settled[0]["outcome"], "settled", "{client:?}: {settled}");
        // The answer might have been lost.
        let repeated = rpc(&driver, "bus_complete", json!({"claims": [settle_of(&claim)]}));
        assert_eq!(repeated[0]["repeated"], true, "{client:?}: {repeated}");

        let read = select(
            &driver,
            "agent_messages",
            "status,result",
            json!([["eq", "id", claim["id"]], ["single"]]),
        );
        assert_eq!(
            read["data"],
            json!({"status": "done", "result": {"n": 2}}),
            "{client:?}: {read}"
        );
    }
}

fn settle_of(claim: &Value) -> Value {
    json!({"id": claim["id"], "claim_no": claim["claim_no"], "result": {"n": 2}})
}

fn id(name: &str) -> String {
    let n: u32 = name.bytes().fold(0, |n, byte| n.wrapping_mul(31) + u32::from(byte));
    format!("0198f3aa-0000-7000-8000-0000{n:08x}")
}

#[test]
fn tables_are_read_with_filters_order_limits_and_counts() {
    let hub = Hub::start();
    let payloads: Vec<_> = (0..12).map(|n| json!({"n": n, "even": n % 2 == 0})).collect();
    let ids = hub.enqueue_all("acme", "echo/read", &payloads);
    let mut sorted = ids.clone();
    sorted.sort();
    hub.enqueue_all("other", "echo/read", &payloads);
    for client in ALL {
        let driver = client.connect(&hub.url, &hub.worker_key("acme", &client.word(), "echo/*"));
        let data = |columns: &str, steps: Value| {
            let answer = select(&driver, "agent_messages", columns, steps);
            assert_eq!(answer["error"], Value::Null, "{client:?}: {answer}");
            answer["data"].clone()
        };
        let everything = data("*", json!([]));
        assert_eq!(everything.as_array().map(Vec::len), Some(12), "{client:?}: {everything}");
        let newest =
            data("id, status", json!([["order", "id", {"ascending": false}], ["limit", 3]]));
        let last = json!({"id": sorted[11], "status": "queued"});
        assert_eq!((newest.as_array().map(Vec::len), &newest[0]), (Some(3), &last), "{client:?}");
        let page = data("id", json!([["order", "id"], ["range", 4, 5]]));
        assert_eq!(page, json!([{"id": sorted[4]}, {"id": sorted[5]}]), "{client:?}");
        let some = data(
            "id",
            json!([
                ["in", "id", [sorted[1], sorted[2]]],
                ["eq", "status", "queued"],
                ["order", "id"]
            ]),
        );
        assert_eq!(some, json!([{"id": sorted[1]}, {"id": sorted[2]}]), "{client:?}");
        let part = data("which:id,n:payload->>n", json!([["eq", "payload->>n", "7"]]));
        assert_eq!(part, json!([{"which": ids[7], "n": "7"}]), "{client:?}");
        let within =
            data("id", json!([["contains", "payload", {"even": true}], ["neq", "status", "done"]]));
        assert_eq!(within.as_array().map(Vec::len), Some(6), "{client:?}: {within}");
        let unclaimed = data(
            "id",
            json!([
                ["is", "claimed_by", null_of(client.is_js())],
                ["gte", "attempts", 0],
                ["limit", 1]
            ]),
        );
        assert_eq!(unclaimed.as_array().map(Vec::len), Some(1), "{client:?}: {unclaimed}");

        let one = data("id", json!([["eq", "id", ids[3]], ["single"]]));
        assert_eq!(one, json!({"id": ids[3]}), "{client:?}");
        let perhaps = data("id", json!([["eq", "id", id("nobody")], ["maybeSingle"]]));
        assert_eq!(perhaps, Value::Null, "{client:?}");
        let many = select(&driver, "agent_messages", "id", json!([["single"]]));
        assert_eq!(many["error"]["code"], "PGRST116", "{client:?}: {many}");

        let args = json!({"table": "agent_messages", "columns": "id", "options": {"count": "exact"}, "steps": [["limit", 2]]});
        let counted = driver.ask("select", args);
        assert_eq!(
            (&counted["count"], counted["data"].as_array().map(Vec::len)),
            (&json!(12), Some(2)),
            "{client:?}: {counted}"
        );
        let args = json!({"table": "agent_messages", "columns": "id", "options": {"count": "exact", "head": true}});
        assert_eq!(driver.ask("select", args)["count"], 12, "{client:?}");

        let events = select(
            &driver,
            "bus_events",
            "event_type,message_id",
            json!([["eq", "message_id", ids[0]]]),
        );
        assert_eq!(
            events["data"],
            json!([{"event_type": "echo_scheduled", "message_id": ids[0]}]),
            "{client:?}"
        );
        let seen = json!({"worker": {"id": client.word(), "role": "echo", "tenant": "acme", "topics": ["echo/read"]}});
        rpc(&driver, "bus_worker_seen", seen);
        let workers =
            select(&driver, "workers", "id,status,tenant", json!([["eq", "id", client.word()]]));
        let online = json!([{"id": client.word(), "status": "online", "tenant": "acme"}]);
        assert_eq!(workers["data"], online, "{client:?}: {workers}");
        if !client.is_js() {
            let args = json!({"table": "agent_messages", "columns": "id", "sync": true, "steps": [["eq", "id", ids[3]]]});
            assert_eq!(
                driver.ask("select", args)["data"],
                json!([{"id": ids[3]}]),
                "{client:?}, without asyncio"
            );
        }
    }
}

fn null_of(js: bool) -> Value {
    if js { Value::Null } else { json!("null") }
}
