use cogo::testing::TestDb;
use serde_json::{Value, json};

use crate::support::Cogo;

async fn seen(db: &TestDb, worker: Value) {
    sqlx::query("select bus_worker_seen($1)").bind(worker).execute(db.pool()).await.expect("seen");
}

#[tokio::test]
async fn workers_are_listed_with_what_they_say_of_themselves() {
    let db = TestDb::new().await;
    let cogo = Cogo::on(&db);
    assert!(cogo.ok(&["workers"]).stderr.contains("No worker was ever here."));
    assert_eq!(cogo.json(&["workers"]), json!([]));
    let laptop = json!({
        "id": "laptop-1", "role": "mcp-gateway", "host": "desk", "version": "0.1.0",
        "topics": ["mcp-gateway/figma"], "info": {"tools": {"figma": ["export"]}},
        "in_flight": 3, "lease_ms": 45000
    });
    seen(&db, laptop).await;
    seen(&db, json!({"id": "e\u{1b}[2J", "tenant": "acme", "role": "echo"})).await;
    let listed = cogo.ok(&["workers"]).stdout;
    let heading = listed.lines().next().expect("a heading");
    let names =
        ["ID", "TENANT", "ROLE", "HOST", "VERSION", "STATUS", "SEEN", "IN FLIGHT", "TOPICS"];
    let mut rest = heading;
    for name in names {
        rest = rest.split_once(name).unwrap_or_else(|| panic!("{name}: {heading}")).1;
    }
    let line = listed.lines().find(|line| line.starts_with("laptop-1")).expect("the laptop");
    for words in ["default", "mcp-gateway", "desk", "0.1.0", "online", " 3 ", "mcp-gateway/figma"] {
        assert!(line.contains(words), "{words}: {line}");
    }
    assert!(!listed.contains('\u{1b}'), "a name steers the terminal: {listed:?}");

    let told = cogo.json(&["workers", "--role", "mcp-gateway"]);
    assert_eq!(told.as_array().map(Vec::len), Some(1), "{told}");
    assert_eq!(told[0]["info"]["tools"]["figma"][0], "export");
    assert_eq!((&told[0]["in_flight"], &told[0]["lease_ms"]), (&json!(3), &json!(45_000)));
    assert_eq!(cogo.json(&["workers", "--tenant", "acme"])[0]["role"], "echo");
    assert!(cogo.ok(&["workers", "--tenant", "none"]).stderr.contains("No such worker"));
}

#[tokio::test]
async fn one_that_went_away_long_ago_is_listed_only_when_all_are() {
    let db = TestDb::new().await;
    let cogo = Cogo::on(&db);
    for id in ["here", "gone", "killed"] {
        seen(&db, json!({"id": id, "role": "echo"})).await;
    }
    sqlx::query("select bus_worker_gone('gone', 'shutdown')")
        .execute(db.pool())
        .await
        .expect("gone");
    sqlx::query(
        "update workers set last_seen_at = last_seen_at - interval '25 hours' where id <> 'here'",
    )
    .execute(db.pool())
    .await
    .expect("an update");
    let listed = cogo.ok(&["workers"]);
    assert!(
        !listed.stdout.contains("gone") && listed.stderr.contains("1 that went away"),
        "{listed:?}"
    );
    let line = |id| listed.stdout.lines().find(|line| line.starts_with(id)).unwrap_or_default();
    assert!(line("here").contains("online") && line("killed").contains("silent"), "{listed:?}");
    assert_eq!(cogo.json(&["workers"]).as_array().map(Vec::len), Some(2));
    let all = cogo.ok(&["workers", "--all"]).stdout;
    assert!(all.lines().any(|line| line.starts_with("gone") && line.contains("offline")), "{all}");
    let few = cogo.ok(&["workers", "--limit", "1"]);
    assert!(few.stderr.contains("--limit") && few.stdout.lines().count() == 2, "{few:?}");
}

#[test]
fn workers_of_no_possible_name_and_no_database_are_refused() {
    let cogo = Cogo::new();
    cogo.run(&["workers", "--role", "a b"]).refused(2, &["--role", "letters, digits"]);
    cogo.run(&["workers", "--tenant", "a/b"]).refused(2, &["--tenant"]);
    cogo.run(&["workers", "--limit", "0"]).refused(2, &["--limit"]);
    cogo.run(&["workers"]).refused(4, &["no database", "--database-url"]);
}
