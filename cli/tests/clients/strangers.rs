//! `cogo worker` with a key that is none, or none for this: a clear refusal, and nothing is read.

use serde_json::{Value, json};

use crate::hub::Hub;
use crate::support::Cogo;

/// A worker of another machine: it knows a URL and a key.
fn stranger(hub: &Hub, key: &str) -> Cogo {
    Cogo::new().with("COGO_URL", hub.url.clone()).with("COGO_KEY", key)
}

#[test]
fn a_worker_with_a_bad_key_is_told_what_is_wrong_and_reads_nothing() {
    let hub = Hub::start();
    let id = hub.enqueue("acme", "echo/default", json!({"secret": 1}));
    let worker = ["worker", "echo", "--worker-id", "laptop"];
    let mint = |tenant: &str, worker: &str, topic: &str| {
        hub.mint(&["--tenant", tenant, "--worker", worker, "--topic", topic])
    };
    let good = mint("acme", "laptop", "echo/default");
    let cases = [
        ("no token", "hello".to_owned(), 2, ["key", "JSON Web Token"]),
        ("a changed token", format!("{good}x"), 4, ["signature", "cogo token"]),
        ("somebody else's secret", hub.forged(), 4, ["signature", "cogo token"]),
        ("an expired token", hub.token_for("acme", -3600), 4, ["expired", "cogo token mint"]),
        ("a token that may nothing", hub.mint(&["--role", "anon"]), 4, ["key", "cogo token"]),
        (
            "another worker's token",
            mint("acme", "desktop", "echo/default"),
            4,
            ["laptop", "desktop"],
        ),
        (
            "a token for another topic",
            mint("acme", "laptop", "echo/other"),
            4,
            ["echo/default", "mint"],
        ),
    ];
    for (what, key, code, words) in cases {
        let done = stranger(&hub, &key).run(&worker);
        assert_eq!(done.code, Some(code), "{what}: {done:?}");
        for word in words {
            assert!(done.stderr.contains(word), "{what}: {word:?} is missing: {done:?}");
        }
        assert!(!done.stderr.contains(&key) || key == "hello", "{what}: the key was printed");
        assert_eq!(done.stdout, "", "{what}: {done:?}");
    }
    let found =
        hub.get(&format!("/rest/v1/agent_messages?id=eq.{id}&select=status,attempts,claimed_by"));
    assert_eq!(found, json!([{"status": "queued", "attempts": 0, "claimed_by": Value::Null}]));
}

#[test]
fn a_worker_with_another_tenants_key_works_for_that_tenant_alone() {
    let hub = Hub::start();
    let theirs = hub.enqueue("acme", "echo/default", json!({"secret": 1}));
    let key = hub.mint(&["--tenant", "other", "--worker", "laptop", "--topic", "*"]);
    let worker = stranger(&hub, &key).start(&["worker", "echo", "--worker-id", "laptop"]);
    let own = hub.enqueue("other", "echo/default", json!({"mine": 1}));
    hub.wait_until(&own, "done");
    let found = hub.get(&format!("/rest/v1/agent_messages?id=eq.{theirs}&select=status,attempts"));
    assert_eq!(found, json!([{"status": "queued", "attempts": 0}]));
    // And it cannot say that it is theirs.
    let claimed = stranger(&hub, &key).with("COGO_WORKER_TENANT", "acme");
    let done = claimed.run(&["worker", "echo", "--worker-id", "laptop.2"]);
    done.refused(4, &["acme", "other"]);
    worker.stop();
}
