//! What is offered, how it is defined and what is approved, as the database holds it.

use std::time::Duration;

use cogo::bus::Bus;
use cogo::bus::offer::{NewDefinition, NewPin};
use cogo::error::Code;
use cogo::testing::TestDb;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::caller::Caller;
use crate::fixtures::{count, replay_differences, rows};

fn hash(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn definition(tool: &str, description: &str) -> NewDefinition {
    let definition = format!(r#"{{"description":"{description}","name":"{tool}"}}"#);
    NewDefinition { hash: hash(&definition), definition }
}

fn pin(tool: &str, hash: Option<&str>) -> NewPin {
    NewPin { toolset: "browser".to_owned(), tool: tool.to_owned(), hash: hash.map(str::to_owned) }
}

/// A gateway that offers these tools of `browser`, and has `topics`.
async fn seen(db: &TestDb, id: &str, tenant: &str, topics: &[&str], tools: Value) {
    let worker = json!({"id": id, "tenant": tenant, "role": "mcp-gateway", "topics": topics, "lease_ms": 30000,
        "info": {"toolsets": {"browser": {"tools": tools}}}});
    sqlx::query("select bus_worker_seen($1)").bind(worker).execute(db.pool()).await.expect("seen");
}

const BROWSER: &[&str] = &["mcp-gateway/browser"];

/// The state and the message of a refusal.
fn said(error: &sqlx::Error) -> (String, String) {
    let error = error.as_database_error().expect("the database's own");
    (error.code().expect("a state").into_owned(), error.message().to_owned())
}

async fn refused(db: &TestDb, definitions: Value) -> (String, String) {
    let query = sqlx::query("select * from bus_define($1)").bind(definitions);
    said(&query.execute(db.pool()).await.expect_err("refused"))
}

#[tokio::test]
async fn a_definition_is_taken_once_and_under_its_own_hash_alone() {
    let db = TestDb::new().await;
    db.freeze_time().await;
    let bus = Bus::new(db.pool().clone());
    let (one, two) = (definition("click", "Clicks \u{fc}ber"), definition("type", "Types"));
    let hashes = [one.hash.clone(), two.hash.clone()];
    let unknown: Vec<String> = sqlx::query_scalar("select * from bus_define($1)")
        .bind(json!([{"hash": one.hash}, {"hash": two.hash}, {"hash": one.hash}]))
        .fetch_all(db.pool())
        .await
        .expect("asked");
    let mut sorted = hashes.clone();
    sorted.sort();
    assert_eq!(unknown, sorted, "each once");
    assert_eq!(bus.define("acme", &[one.clone(), two.clone()]).await.expect("defined").len(), 0);
    assert_eq!(bus.define("acme", &[one.clone(), two.clone()]).await.expect("again").len(), 0);
    let known = bus.definitions("acme", &hashes).await.expect("read");
    assert_eq!(known.len(), 2);
    assert!(known.iter().any(|known| known.definition == one.definition), "as it was given");
    assert_eq!(bus.definitions("other", &hashes).await.expect("read").len(), 0);

    for (bad, state, named) in [
        (
            json!([{"hash": two.hash, "definition": one.definition}]),
            "CG400",
            "definitions[0].hash: is not",
        ),
        (json!([{"hash": "abc"}]), "CG400", "definitions[0].hash: must be a SHA-256"),
        (json!([{"hash": one.hash.to_uppercase()}]), "CG400", "definitions[0].hash"),
        (
            json!([{"hash": one.hash}, {"hash": hash("[]"), "definition": "[]"}]),
            "CG400",
            "definitions[1].definition: must be a JSON object",
        ),
        (json!([{"hash": hash("{"), "definition": "{"}]), "CG400", "definitions[0].definition"),
        (
            json!([{"hash": one.hash, "definition": {}}]),
            "CG400",
            "definitions[0].definition: must be the text",
        ),
        (json!([1]), "CG400", "definitions[0]: must be an object"),
        (json!({}), "CG400", "definitions: must be an array"),
        (json!(vec![json!({"hash": one.hash}); 1001]), "CG413", "definitions: at most 1000"),
    ] {
        let (found, message) = refused(&db, bad).await;
        assert!(found == state && message.starts_with(named), "{named}: {found} {message}");
    }
    // What one cannot say keeps no other away.
    let huge = definition("huge", &"x".repeat(65_536));
    let three = definition("three", "Fine");
    let left_out = bus.define("acme", &[huge.clone(), three.clone()]).await.expect("defined");
    assert_eq!(left_out.len(), 1);
    assert!(left_out[0].0 == huge.hash && left_out[0].1.code() == Code::PayloadTooLarge);
    assert_eq!(bus.definitions("acme", &[three.hash]).await.expect("read").len(), 1);
    let odd = definition("odd", "null: \\u0000");
    assert_eq!(bus.define("acme", &[odd]).await.expect("defined").len(), 0, "a text is a text");
}

#[tokio::test]
async fn what_is_offered_is_counted_by_definition_and_stays_for_its_grace() {
    let db = TestDb::new().await;
    db.freeze_time().await;
    let bus = Bus::new(db.pool().clone());
    let (old, new) = (hash("old"), hash("new"));
    seen(&db, "a", "acme", BROWSER, json!({"click": old, "type": old})).await;
    seen(&db, "b", "acme", BROWSER, json!({"click": new})).await;
    seen(&db, "c", "*", BROWSER, json!({"click": new})).await;
    seen(&db, "d", "other", BROWSER, json!({"click": old, "secret": old})).await;
    // It says so of a toolset that it does not serve; and these say nothing that can be understood.
    seen(&db, "e", "acme", &["mcp-gateway/figma"], json!({"click": old})).await;
    seen(&db, "f", "acme", BROWSER, json!(["click"])).await;
    seen(&db, "g", "acme", BROWSER, json!({"click": "nonsense", "type": 1})).await;
    let grace = Duration::from_secs(60);
    let table = async |tenant: &str| -> Vec<(String, String, i32, i32)> {
        let offers = bus.offers(tenant, grace).await.expect("read");
        let row = |offer: &cogo::bus::offer::Offered| {
            let which = if offer.hash == old { "old" } else { "new" };
            (offer.tool.clone(), which.to_owned(), offer.online, offer.away)
        };
        let mut offers: Vec<_> = offers.iter().map(row).collect();
        offers.sort();
        offers
    };
    let row =
        |tool: &str, hash: &str, online, away| (tool.to_owned(), hash.to_owned(), online, away);
    let all = [row("click", "new", 2, 0), row("click", "old", 1, 0), row("type", "old", 1, 0)];
    assert_eq!(table("acme").await, all);
    assert_eq!(table("other").await.len(), 3, "and of those for all tenants");
    assert_eq!(table("nobody").await, [row("click", "new", 1, 0)]);

    assert!(bus.worker_gone("b", "shutdown", "acme").await.expect("gone"));
    db.advance(Duration::from_secs(20)).await;
    seen(&db, "c", "*", BROWSER, json!({"click": new})).await;
    db.advance(Duration::from_secs(20)).await;
    seen(&db, "c", "*", BROWSER, json!({"click": new})).await;
    rows(&db, "select * from bus_reap()").await; // a is lost, 40 s after it was last seen
    assert_eq!(
        table("acme").await,
        [row("click", "new", 1, 1), row("click", "old", 0, 1), row("type", "old", 0, 1)]
    );
    let leaves = bus.offers("acme", grace).await.expect("read");
    assert!(leaves.iter().all(|offer| offer.leaves_in_ms == Some(20_000)), "{leaves:?}");
    db.advance(Duration::from_millis(20_001)).await;
    assert_eq!(table("acme").await, [row("click", "new", 1, 0)]);
    seen(&db, "a", "acme", BROWSER, json!({"click": old})).await;
    assert_eq!(table("acme").await.len(), 2, "it is back");
    assert_eq!(replay_differences(&db).await, Vec::<String>::new());
}

#[tokio::test]
async fn whoever_may_not_serve_a_toolset_offers_none_of_it() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    let worker = Caller::token("acme", "w", &["echo/*", "mcp-gateway/own"], &[]);
    let says = async |role: &str, topic: &str, tools: Value| {
        let said = json!({"id": "w", "role": role, "topics": [topic], "lease_ms": 30000,
            "info": {"toolsets": {"browser": {"tools": tools}, "own": {"tools": tools}}}});
        worker.call(&db, &format!("select bus_worker_seen('{said}')")).await.expect("seen");
        let offers = bus.offers("acme", Duration::from_secs(60)).await.expect("read");
        offers.into_iter().map(|offer| (offer.toolset, offer.tool)).collect::<Vec<_>>()
    };
    let click = json!({"click": hash("click")});
    assert_eq!(says("echo", "echo/browser", click.clone()).await, [], "another role's toolset");
    assert_eq!(says("mcp-gateway", "echo/browser", click.clone()).await, []);
    let own = [("own".to_owned(), "click".to_owned())];
    assert_eq!(says("mcp-gateway", "mcp-gateway/own", click).await, own);
    let mut odd = json!({"click": hash("click"), "": hash("click")});
    for name in ["a\u{1b}[2Jb", "a\nb", "a\u{9b}b", &"x".repeat(256)] {
        odd[name] = json!(hash("click"));
    }
    assert_eq!(says("mcp-gateway", "mcp-gateway/own", odd).await, own, "no gateway would");
}

#[tokio::test]
async fn a_definition_is_approved_replaced_and_revoked_and_the_log_tells() {
    let db = TestDb::new().await;
    let bus = Bus::new(db.pool().clone());
    let (one, two, shared) =
        (definition("click", "1"), definition("click", "2"), definition("go", "3"));
    bus.define("acme", &[one.clone(), two.clone()]).await.expect("defined");
    bus.define("*", std::slice::from_ref(&shared)).await.expect("defined");
    let error =
        bus.pin("acme", &[pin("click", Some(&hash("?")))], None).await.expect_err("unknown");
    assert!(
        error.code() == Code::NotFound && error.to_string().contains("pins[0].hash"),
        "{error}"
    );
    let error =
        bus.pin("other", &[pin("click", Some(&one.hash))], None).await.expect_err("unknown");
    assert_eq!(error.code(), Code::NotFound, "another tenant's");

    let first = [pin("click", Some(&one.hash)), pin("go", Some(&shared.hash))];
    assert_eq!(bus.pin_first("acme", &first, Some("first use")).await.expect("pinned"), 2);
    assert_eq!(bus.pin_first("acme", &[pin("click", Some(&two.hash))], None).await.expect("no"), 0);
    assert_eq!(bus.pin("acme", &[pin("click", Some(&one.hash))], None).await.expect("as it is"), 0);
    assert_eq!(
        bus.pin("acme", &[pin("click", Some(&two.hash))], Some("ann")).await.expect("new"),
        1
    );
    assert_eq!(bus.pin("acme", &[pin("go", None)], Some("ann")).await.expect("revoked"), 1);
    assert_eq!(bus.pin_first("acme", &first, None).await.expect("no"), 0, "revoked is not unknown");
    let pins = bus.pins("acme").await.expect("read");
    let told: Vec<_> = pins
        .iter()
        .map(|pin| (pin.tool.as_str(), pin.hash.as_deref(), pin.pinned_by.as_deref()))
        .collect();
    assert_eq!(told, [("click", Some(two.hash.as_str()), Some("ann")), ("go", None, Some("ann"))]);
    assert_eq!(bus.pins("other").await.expect("read"), []);
    let log = rows(
        &db,
        "select event_type, tenant, service, reason, payload ->> 'tool' as tool from bus_events order by seq",
    )
    .await;
    let told: Vec<_> = log
        .iter()
        .map(|row| format!("{} {} {}", row["event_type"], row["tool"], row["reason"]))
        .collect();
    assert_eq!(
        told,
        [
            r#""tool_pinned" "click" "first use""#,
            r#""tool_pinned" "go" "first use""#,
            r#""tool_pinned" "click" "ann""#,
            r#""tool_unpinned" "go" "ann""#
        ]
    );
    assert_eq!(replay_differences(&db).await, Vec::<String>::new());
    for bad in [
        json!([{"toolset": "browser", "tool": "click"}]),
        json!([{"toolset": "a b", "tool": "click", "hash": null}]),
        json!([{"toolset": "browser", "tool": "", "hash": null}]),
        json!([{"toolset": "browser", "tool": "click", "hash": "x"}]),
        json!([3]),
        json!(3),
    ] {
        let query = sqlx::query("select bus_pin($1)").bind(&bad);
        let (state, message) = said(&query.execute(db.pool()).await.expect_err("refused"));
        assert!(state == "CG400" && message.starts_with("pins"), "{bad}: {state} {message}");
    }
}

#[tokio::test]
async fn definitions_go_when_nobody_offers_them_and_nobody_approved_them() {
    let db = TestDb::new().await;
    db.freeze_time().await;
    let bus = Bus::new(db.pool().clone());
    let day = Duration::from_secs(24 * 3600);
    let (offered, approved, forgotten) =
        (definition("a", "offered"), definition("b", "approved"), definition("c", "forgotten"));
    let all = [offered.clone(), approved.clone(), forgotten.clone()];
    bus.define("default", &all).await.expect("defined");
    bus.pin("default", &[pin("b", Some(&approved.hash))], None).await.expect("pinned");
    seen(&db, "w", "default", BROWSER, json!({"a": offered.hash})).await;
    let there = async || -> Vec<String> {
        let sql = "select definition::json ->> 'name' as name from cogo.definitions order by 1";
        let rows = rows(&db, sql).await;
        rows.iter().map(|row| row["name"].as_str().expect("a name").to_owned()).collect()
    };
    db.advance(day * 29).await;
    rows(&db, "select bus_retain()").await;
    assert_eq!(there().await, ["a", "b", "c"]);
    // Said again, it is young again.
    db.advance(Duration::from_secs(60)).await;
    bus.define("default", &[definition("d", "said"), forgotten.clone()]).await.expect("defined");
    db.advance(day * 2).await;
    rows(&db, "select bus_retain()").await;
    assert_eq!(there().await, ["a", "b", "c", "d"]);
    db.advance(day * 31).await;
    rows(&db, "select bus_retain()").await;
    assert_eq!(there().await, ["a", "b"]);
}

#[tokio::test]
async fn a_tenant_has_so_many_definitions_and_old_ones_make_room() {
    let db = TestDb::new().await;
    db.freeze_time().await;
    let bus = Bus::new(db.pool().clone());
    let kept = definition("kept", "approved");
    bus.define("acme", std::slice::from_ref(&kept)).await.expect("defined");
    bus.pin("acme", &[pin("kept", Some(&kept.hash))], None).await.expect("pinned");
    let many: Vec<_> = (0..4095).map(|n| definition("t", &n.to_string())).collect();
    bus.define("acme", &many).await.expect("as many as it may have");
    let one_more = definition("one", "more");
    let error = bus.define("acme", std::slice::from_ref(&one_more)).await.expect_err("full");
    assert!(
        error.to_string().contains("tenant \"acme\" has as many as it may have, 4096"),
        "{error:?}"
    );
    bus.define("other", std::slice::from_ref(&one_more)).await.expect("which is another's");
    db.advance(Duration::from_secs(3601)).await;
    bus.define("acme", &many[..4000]).await.expect("still offered");
    // A machine that is there needs not say so again; nor does one that has just gone.
    let mut first: Vec<_> = many[4000..].iter().collect();
    first.sort_by_key(|new| &new.hash);
    let (here, away) = (first[0], first[1]);
    for (worker, offered) in [("here", here), ("away", away)] {
        seen(&db, worker, "acme", BROWSER, json!({"t": offered.hash})).await;
    }
    bus.worker_gone("away", "shutdown", "acme").await.expect("gone");
    bus.define("acme", &[one_more.clone(), definition("two", "more")])
        .await
        .expect("room was made");
    assert_eq!(count(&db, "cogo.definitions where tenant = 'acme'").await, 4096);
    let hashes =
        [&kept.hash, &many[0].hash, &one_more.hash, &here.hash, &away.hash].map(Clone::clone);
    assert_eq!(bus.definitions("acme", &hashes).await.expect("read").len(), 5);
}

#[tokio::test]
async fn a_gateway_s_token_defines_and_reads_for_its_tenant_alone() {
    let db = TestDb::new().await;
    let one = definition("click", "1");
    let gateway = Caller::token("acme", "w", BROWSER, &[]);
    let define = format!(
        "select * from bus_define('[{{\"hash\": \"{}\", \"definition\": {}}}]')",
        one.hash,
        json!(one.definition)
    );
    gateway.may(&db, &define).await;
    let read = format!("select * from bus_definitions('{{{}}}')", one.hash);
    assert_eq!(gateway.may(&db, &read).await.len(), 1);
    assert_eq!(Caller::token("other", "w", BROWSER, &[]).may(&db, &read).await.len(), 0);
    let sender = Caller::token("acme", "w", &["echo/default"], BROWSER);
    assert_eq!(sender.may(&db, &read).await.len(), 1, "whoever sends may know what to send");
    let refused = sender.may_not(&db, &define).await;
    assert!(refused.state == "CG403" && refused.message.contains("mcp-gateway"), "{refused:?}");
    for table in ["cogo.definitions", "cogo.pins"] {
        assert_eq!(gateway.may_not(&db, &format!("select * from {table}")).await.state, "42501");
    }
    // A token may say nothing of toolsets that it may not claim: what counts are its topics.
    let lie = format!(
        r#"select bus_worker_seen('{{"id": "w", "role": "mcp-gateway", "topics": ["mcp-gateway/browser"],
            "info": {{"toolsets": {{"figma": {{"tools": {{"x": "{0}"}}}}, "browser": {{"tools": {{"click": "{0}"}}}}}}}}}}')"#,
        one.hash
    );
    gateway.may(&db, &lie).await;
    let offers = gateway.may(&db, "select toolset, tool from bus_offers()").await;
    assert_eq!(offers, [json!({"toolset": "browser", "tool": "click"})]);
}
