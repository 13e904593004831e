//! How many files a hub may have open: as many as its connections need, or fewer connections.

use std::os::unix::fs::PermissionsExt;

use cogo::testing::TestDb;

use crate::support::{Cogo, temp_dir};

/// Starts a hub under a shell's limit, and gives what it said and how many files it may have open then, and at most.
fn hub_under(db: &TestDb, limit: &str) -> (String, u64, u64) {
    let dir = temp_dir();
    let program = dir.path().join("limited");
    let script = format!("#!/bin/sh\n{limit}\nexec {} \"$@\"\n", env!("CARGO_BIN_EXE_cogo"));
    std::fs::write(&program, script).expect("a file");
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).expect("its mode");
    let cogo = Cogo::on(db).of(program).with("COGO_DATA_DIR", dir.path().display().to_string());
    let running = cogo.start(&["hub", "--minimal", "--listen", "127.0.0.1:0"]);
    let said = running.stderr.wait("Ctrl-C stops it.");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", running.id())).expect("limits");
    let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("a line");
    let numbers: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    running.stop();
    (said, numbers[0], numbers[1])
}

#[tokio::test]
async fn a_hub_may_open_what_its_connections_need_or_holds_fewer_of_them() {
    let db = TestDb::new().await;
    // 2048 over HTTP, 10000 sockets, 1024 of its own.
    let (said, current, most) = hub_under(&db, "ulimit -Sn 256");
    assert_eq!(current, most.min(13_072), "{said}");
    assert_eq!(said.contains("open files"), most < 13_072, "{said}");

    let (said, current, most) = hub_under(&db, "ulimit -n 800");
    assert_eq!((current, most), (800, 800));
    let told = "may have 800 open files, and 13072 are wanted: it holds at most 300 connections and 300 Realtime sockets";
    assert!(said.contains(told), "{said}");
}
