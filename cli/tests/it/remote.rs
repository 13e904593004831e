//! Commands over HTTPS, with a key and without a database.

use crate::support::Cogo;
use crate::up::Home;

const SECRET: &str = "a secret of this test alone and long enough";

#[test]
fn a_worker_joins_by_a_url_and_a_key_alone_and_is_refused_what_the_key_does_not_allow() {
    let home = Home::new(Cogo::new().with("COGO_JWT_SECRET", SECRET));
    let up = home.up();
    let mint = ["token", "mint", "--tenant", "acme", "--worker", "pc", "--topic", "echo/*"];
    let key = home.cogo.ok(&[&mint[..], &["--send", "echo/*"]].concat()).line().to_owned();
    // Nothing but the URL and the key.
    let cogo = Cogo::new().with("COGO_URL", &up.url).with("COGO_KEY", &key);
    let worker = cogo.start(&["worker", "echo"]);
    let said = worker.stderr.wait("is ready");
    assert!(said.contains("as pc.echo-") && said.contains("for tenant acme"), "{said}");
    assert!(said.contains("may claim echo/* and send to echo/*, until 20"), "{said}");
    let id = cogo.ok(&["enqueue", "echo/default", "echo", "{\"a\": 1}"]).line().to_owned();
    let found = cogo.json(&["get", &id, "--wait"]);
    assert_eq!(found["message"]["status"], "done", "{found}");
    assert_eq!(found["message"]["tenant"], "acme");
    assert!(cogo.ok(&["trace", &id]).stdout.contains("echo_succeeded"));
    assert!(cogo.ok(&["tail", "-n", "50"]).stdout.contains("echo_succeeded"));
    assert!(cogo.ok(&["workers"]).stdout.contains("pc.echo-"));
    cogo.ok(&["circuit", "list"]);
    worker.stop();

    let worker = cogo.start(&["worker", "echo", "--log", "trace"]);
    let told = worker.stderr.wait("Client handshake done");
    assert!(told.contains("TRACE") && !told.contains(&key), "a key in the log");
    worker.stop();
    cogo.run(&["dlq", "list"]).refused(2, &["the dead-letter queue", "postgres://"]);
    cogo.run(&["status", "--url", &up.url]).refused(2, &["--url", "needs a database"]);
    let other = [&mint[..5], &["pc", "--topic", "mcp-gateway/figma"]].concat();
    let other = home.cogo.ok(&other).line().to_owned();
    cogo.run(&["worker", "echo", "--key", &other])
        .refused(4, &["topic echo/default", "cogo token mint --tenant acme --worker pc"]);
    cogo.run(&["worker", "echo", "--worker-id", "me"]).refused(4, &["worker me", "is for pc"]);
    let forged = format!("{}.{}", key.rsplit_once('.').expect("parts").0, "A".repeat(43));
    for args in [&["worker", "echo"][..], &["workers"], &["get", &id]] {
        let done = cogo.clone().with("COGO_KEY", &forged).run(args);
        done.refused(4, &["does not take this key", "cogo token"]);
        assert!(!done.stderr.contains(&forged), "{done:?}");
    }
}

#[test]
fn what_cannot_be_joined_is_refused_with_the_remedy() {
    let cogo = Cogo::new().with("COGO_URL", "http://127.0.0.1:9");
    cogo.run(&["workers"]).refused(2, &["needs a key", "COGO_KEY"]);
    let cogo = cogo.with("COGO_KEY", "hunter2");
    let done = cogo.run(&["workers"]);
    done.refused(2, &["key: this is no JSON Web Token"]);
    assert!(!done.stderr.contains("hunter2"), "{done:?}");
    let key = "eyJhbGciOiJIUzI1NiJ9.eyJyb2xlIjoic2VydmljZV9yb2xlIiwiZXhwIjoxfQ.c2ln";
    let cogo = cogo.with("COGO_KEY", key);
    cogo.run(&["workers"]).refused(4, &["http://127.0.0.1:9", "cannot be reached"]);
    cogo.run(&["workers", "--url", "ftp://x"]).refused(2, &["url: must begin with https://"]);
    let both = cogo.clone().with("DATABASE_URL", "postgres://x@127.0.0.1:9/x");
    both.run(&["workers"]).refused(2, &["COGO_URL and DATABASE_URL are both set"]);
    both.run(&["workers", "--url", "http://127.0.0.1:9"]).refused(4, &["http://127.0.0.1:9"]);
    let flags = ["workers", "--url", "http://127.0.0.1:9", "--database-url", "postgres://x@h/x"];
    both.run(&flags).refused(2, &["only one of them"]);
    cogo.run(&["workers", "--ca-file", "/nowhere.pem"]).refused(2, &["/nowhere.pem"]);
}
