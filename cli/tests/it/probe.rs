//! `cogo status --probe`, the health check of the images, against real processes.

use cogo::testing::TestDb;

use crate::support::{Cogo, Running, temp_dir};

/// Nothing listens there, so no database either.
const NOWHERE: &str = "postgres://cogo@127.0.0.1:1/cogo";

/// Starts something that says where it listens, and gives that address.
fn start(cogo: &Cogo, args: &[&str], up: &str) -> (Running, String) {
    let running = cogo.start(args);
    let said = running.stderr.wait(up);
    let url = said.split_whitespace().find(|word| word.starts_with("http://")).expect("a URL");
    let address = url.trim_start_matches("http://").trim_end_matches(['.']);
    let address = address.split('/').next().expect("an address").to_owned();
    (running, address)
}

#[tokio::test]
async fn a_hub_is_healthy_where_it_was_told_to_listen() {
    let (db, dir) = (TestDb::new().await, temp_dir());
    let cogo = Cogo::on(&db).with("COGO_DATA_DIR", dir.path().display().to_string());
    let args = ["hub", "--minimal", "--listen", "127.0.0.1:0"];
    let (hub, address) = start(&cogo, &args, "Ctrl-C stops it.");

    let container = Cogo::new().with("COGO_LISTEN", &address);
    assert_eq!(container.ok(&["status", "--probe"]).stdout, format!("http://{address}: ok\n"));
    container.ok(&["status", "--probe=alive"]);
    let json = container.json(&["status", "--probe"]);
    assert_eq!(json, serde_json::json!({"url": format!("http://{address}"), "ok": true}));

    hub.stop();
    container.run(&["status", "--probe"]).refused(4, &[&address, "does not answer"]);
}

#[test]
fn a_hub_without_its_database_is_alive_and_not_ready() {
    let dir = temp_dir();
    let cogo = Cogo::new()
        .with("DATABASE_URL", NOWHERE)
        .with("COGO_DATA_DIR", dir.path().display().to_string());
    let args = ["hub", "--minimal", "--listen", "127.0.0.1:0"];
    let (hub, address) = start(&cogo, &args, "Ctrl-C stops it.");

    let container = Cogo::new().with("COGO_LISTEN", &address);
    container.ok(&["status", "--probe=alive"]);
    container.run(&["status", "--probe"]).refused(1, &["not ready (503)", "database"]);
    hub.stop();
}

#[tokio::test]
async fn a_worker_is_asked_before_a_hub() {
    let db = TestDb::new().await;
    let args = ["worker", "echo", "--metrics-listen", "127.0.0.1:0"];
    let (worker, address) = start(&Cogo::on(&db), &args, "/metrics");
    // The image names a port of the hub for every container.
    let container =
        Cogo::new().with("COGO_LISTEN", "0.0.0.0:1").with("COGO_METRICS_LISTEN", &address);
    let ready = crate::support::until(|| container.run(&["status", "--probe"]).code == Some(0));
    assert!(ready, "{:?}", container.run(&["status", "--probe"]));
    worker.stop();
}

#[test]
fn a_probe_of_what_cannot_be_asked_is_refused() {
    let port_0 = Cogo::new().with("COGO_LISTEN", "0.0.0.0:0");
    port_0.run(&["status", "--probe"]).refused(2, &["port 0", "COGO_LISTEN"]);
    let no_address = Cogo::new().with("COGO_LISTEN", "everywhere");
    no_address.run(&["status", "--probe"]).refused(2, &["everywhere", "--listen"]);
    let no_such = Cogo::new().run(&["status", "--probe=well"]);
    no_such.refused(2, &["ready", "alive"]);
}
