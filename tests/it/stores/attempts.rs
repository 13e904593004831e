//! Retention of the files that attempts leave.

use std::path::Path;
use std::time::Duration;

use cogo::artifact::files::{Query, Swept, list, sweep};
use cogo::clock::utc_now;

const DAY: Duration = Duration::from_secs(24 * 3600);

fn attempt(root: &Path, toolset: &str, days: u32, number: u32) -> String {
    let time = (utc_now() - DAY * days).format("%Y%m%dT%H%M%S%.3fZ");
    let path = format!("mcp/{toolset}/{time}-{number}");
    let dir = root.join(&path);
    std::fs::create_dir_all(&dir).expect("a directory");
    std::fs::write(dir.join("summary.json"), "{}").expect("written");
    path
}

fn left(root: &Path) -> Vec<String> {
    let query = Query { limit: 1000, looks: 1000, ..Query::default() };
    let (files, next) = list(root, &query).expect("a list");
    assert_eq!(next, None);
    files.into_iter().map(|file| file.name).collect()
}

#[test]
fn old_attempts_go_by_their_names_some_at_a_time_and_nothing_else_does() {
    let dir = tempfile::tempdir().expect("a directory");
    let root = dir.path();
    assert_eq!(sweep(root, DAY, 10).expect("nothing is there"), Swept::default());
    for number in 0..5 {
        attempt(root, "demo", 3, number);
    }
    let young = attempt(root, "figma", 0, 1);
    // As new as it gets by its directory, and no attempt's name.
    std::fs::create_dir_all(root.join("mcp/demo/notes")).expect("a directory");
    std::fs::write(root.join("mcp/demo/notes/a.txt"), "mine").expect("written");
    std::fs::create_dir_all(root.join("chaos/20200101T000000.000Z-1")).expect("a directory");
    std::fs::write(root.join("chaos/20200101T000000.000Z-1/a.md"), "mine").expect("written");
    let outside = tempfile::tempdir().expect("a directory");
    std::fs::write(outside.path().join("summary.json"), "mine").expect("written");
    #[cfg(unix)]
    std::os::unix::fs::symlink(outside.path(), root.join("mcp/demo/20200101T000000.000Z-1"))
        .expect("a link");
    assert_eq!(sweep(root, DAY, 2).expect("swept"), Swept { attempts: 2, more: true });
    assert_eq!(sweep(root, DAY, 2).expect("swept"), Swept { attempts: 2, more: true });
    assert_eq!(sweep(root, DAY, 2).expect("swept"), Swept { attempts: 1, more: false });
    let young = format!("{young}/summary.json");
    let stays = ["chaos/20200101T000000.000Z-1/a.md", "mcp/demo/notes/a.txt", &young];
    assert_eq!(left(root), stays);
    assert!(outside.path().join("summary.json").exists(), "a link is followed nowhere");
    // What was never finished goes by its directory, after an hour.
    let hidden = root.join("mcp/demo/.tmp-20200101T000000.000Z-9");
    std::fs::create_dir_all(&hidden).expect("a directory");
    sweep(root, DAY, 10).expect("swept");
    assert!(hidden.exists(), "somebody may be writing it");
    let then = utc_now() - Duration::from_secs(7200);
    std::fs::File::open(&hidden).expect("open").set_modified(then.into()).expect("set");
    sweep(root, DAY, 10).expect("swept");
    assert!(!hidden.exists());
}

#[test]
fn a_walk_looks_at_so_much_and_goes_on_where_it_ended() {
    let dir = tempfile::tempdir().expect("a directory");
    let root = dir.path();
    for number in 0..40 {
        attempt(root, ["a", "a-b", "ab"][number as usize % 3], 0, number);
    }
    let whole = left(root);
    assert_eq!(whole.len(), 40);
    for looks in [6, 7, 10, 50] {
        let (mut found, mut after, mut turns) = (Vec::new(), None, 0);
        loop {
            let query = Query { limit: 1000, looks, after, ..Query::default() };
            let (files, next) = list(root, &query).expect("a list");
            assert!(files.len() <= looks);
            found.extend(files.into_iter().map(|file| file.name));
            turns += 1;
            assert!(turns < 200, "{looks} looks lead nowhere");
            match next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        assert_eq!(found, whole, "{looks} looks");
    }
}

/// A tool that may write there must not stop who looks there.
#[test]
#[cfg(unix)]
fn what_says_whose_an_attempt_is_is_read_from_a_file_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    let root = dir.path().to_owned();
    let path = attempt(&root, "demo", 0, 1);
    let summary = root.join(&path).join("summary.json");
    std::fs::remove_file(&summary).expect("removed");
    let made = std::process::Command::new("mkfifo").arg(&summary).status().expect("mkfifo");
    assert!(made.success());
    std::fs::write(root.join(&path).join("result.json"), "{}").expect("written");
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || tell.send(left(&root)));
    let left = told.recv_timeout(Duration::from_secs(20)).expect("nobody writes into the pipe");
    assert_eq!(left, [format!("{path}/result.json")]);
}
