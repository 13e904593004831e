use cogo::testing::TestDb;
use serde_json::json;

use crate::support::Cogo;

const KEY: &str = "mcp.call.demo.echo.0";

#[tokio::test]
async fn a_breaker_is_opened_listed_and_closed_by_hand() {
    let db = TestDb::new().await;
    let cogo = Cogo::on(&db);
    assert!(cogo.ok(&["circuit", "list"]).stderr.contains("No breaker has ever opened."));
    let opened = cogo.json(&["circuit", "open", KEY, "--reason", "figma is down"]);
    assert_eq!((&opened["state"], &opened["forced"]), (&json!("open"), &json!(true)));
    let listed = cogo.ok(&["circuit", "list", "--open"]).stdout;
    for words in [KEY, "open, by hand", "until it is closed", "figma is down"] {
        assert!(listed.contains(words), "{words}: {listed}");
    }
    assert!(cogo.ok(&["circuit", "close", KEY]).stderr.contains("is closed"));
    assert_eq!(cogo.json(&["circuit", "list", "--open"]), json!([]));
    let again = cogo.json(&["circuit", "open", KEY, "--for", "10m"]);
    assert!(again["open_for_ms"].as_i64().is_some_and(|ms| ms > 590_000), "{again}");
    assert!(cogo.ok(&["circuit", "list"]).stdout.contains("a probe in 9 m"));
    assert_eq!(cogo.json(&["circuit", "reset", KEY])["reason"], "reset");
}

#[tokio::test]
async fn a_breaker_that_never_opened_and_a_bad_argument_are_refused() {
    let db = TestDb::new().await;
    let cogo = Cogo::on(&db);
    cogo.run(&["circuit", "close", "no.such"]).refused(3, &["no.such", "has ever opened"]);
    cogo.run(&["circuit", "open", KEY, "--for", "0s"]).refused(2, &["--for"]);
    cogo.run(&["circuit", "open", KEY, "--tenant", "a b"]).refused(2, &["--tenant"]);
    cogo.run(&["circuit", "list", "--tenant", "a/b"]).refused(2, &["--tenant"]);
}
