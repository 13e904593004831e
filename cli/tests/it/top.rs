//! `cogo top`, in a terminal that is read as a person sees it.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::num::NonZero;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use cogo::bus::{Bus, ClaimRequest, Settle};
use cogo::message::{MessageId, NewMessage, Topic};
use cogo::testing::TestDb;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use serde_json::{Value, json};

use crate::support::{Cogo, until};

/// A terminal with a command in it. Killed when dropped.
struct Terminal {
    child: Child,
    keys: File,
    screen: Arc<Mutex<vt100::Parser>>,
}

impl Terminal {
    fn start(cogo: &Cogo, args: &[&str], columns: u16, rows: u16) -> Self {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&ours).expect("granted");
        unlockpt(&ours).expect("unlocked");
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&ours, size).expect("a size");
        let name = ptsname(&ours, Vec::new()).expect("a name");
        let open = || {
            let path = name.to_str().expect("a path");
            Stdio::from(File::options().read(true).write(true).open(path).expect("its other end"))
        };
        let mut command = cogo.command(args);
        command.env("TERM", "xterm-256color").stdin(open()).stdout(open()).stderr(open());
        let child = command.spawn().expect("cogo starts");
        let keys = File::from(ours);
        let size = |side| NonZero::new(side).expect("a size");
        let screen = vt100::Parser::new(size(rows), size(columns), 0);
        let screen = Arc::new(Mutex::new(screen));
        let (mut from, to) = (keys.try_clone().expect("the terminal"), Arc::clone(&screen));
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            // Ends with an error once nobody has the other end.
            while let Ok(read @ 1..) = from.read(&mut bytes) {
                to.lock().expect("unpoisoned").process(&bytes[..read]);
            }
        });
        Self { child, keys, screen }
    }

    fn text(&self) -> String {
        self.screen.lock().expect("unpoisoned").screen().contents()
    }

    #[track_caller]
    fn shows(&self, words: &str) {
        assert!(until(|| self.text().contains(words)), "{words:?} is not there:\n{}", self.text());
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("somebody reads");
    }

    fn is_taken_over(&self) -> bool {
        self.screen.lock().expect("unpoisoned").screen().alternate_screen()
    }

    #[track_caller]
    fn ended(&mut self) -> Option<i32> {
        let mut code = None;
        let ended = until(|| {
            let status = self.child.try_wait().expect("a child");
            code = status.and_then(|status| status.code());
            status.is_some()
        });
        assert!(ended, "it does not end:\n{}", self.text());
        assert!(until(|| !self.is_taken_over()), "the terminal was not given back");
        code
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _best_effort = self.child.kill();
        let _best_effort = self.child.wait();
    }
}

/// A bus with one message that waits, one that is done and one that is dead.
async fn bus(db: &TestDb) -> (Bus, MessageId) {
    let bus = Bus::new(db.pool().clone());
    let topic = Topic::new("top-test", "svc").expect("a topic");
    let request = ClaimRequest {
        worker: "w-1".to_owned(),
        tenant: "*".to_owned(),
        topics: vec![topic.to_string()],
        max: 1,
        lease: Duration::from_secs(60),
    };
    let mut dead = None;
    for fails in [false, true] {
        bus.publish(NewMessage::new(&topic, "mcp.call", json!({"tool": "x"}))).await.expect("room");
        let claim = bus.claim(&request).await.expect("a claim").remove(0);
        let message = claim.into_message();
        let settle = match fails {
            false => Settle::complete(&message, json!({}), json!({})),
            true => {
                dead = Some(message.id);
                let error = json!({"class": "tool", "message": "the export\nis broken"});
                Settle::fail(&message, error, None, None, json!({}))
            }
        };
        bus.settle(settle).await.expect("settled");
    }
    bus.publish(NewMessage::new(&topic, "mcp.call", json!({"tool": "x"}))).await.expect("room");
    let seen = json!({"id": "w-1", "role": "top-test", "host": "h-1", "version": "9.9.9",
        "topics": ["top-test/svc"], "info": {"toolsets": {"svc": {"tools": {"x": "h"}}}}});
    bus.worker_seen(&seen).await.expect("seen");
    (bus, dead.expect("one died"))
}

#[tokio::test(flavor = "multi_thread")]
async fn all_is_seen_and_a_failure_tells_what_to_do() {
    let db = TestDb::new().await;
    let (bus, dead) = bus(&db).await;
    let cogo = Cogo::on(&db);
    let mut top = Terminal::start(&cogo, &["top", "--every", "200ms"], 130, 36);
    for words in
        ["cogo top", "top-test/svc", "w-1", "1 queued", "1 dead", "tool: the export is broken"]
    {
        top.shows(words);
    }
    assert!(top.is_taken_over());
    // Live: what comes now is seen without a key.
    let topic = Topic::new("top-test", "later").expect("a topic");
    bus.publish(NewMessage::new(&topic, "mcp.call", json!({}))).await.expect("room");
    top.shows("top-test/later");
    top.press("4\r");
    top.shows(&format!("cogo dlq requeue {dead}"));
    top.shows("cogo trace ");
    top.press("\x1b");
    assert!(until(|| !top.text().contains("cogo trace ")), "{}", top.text());
    top.press("2\r");
    top.shows("svc: x");
    top.press("\x1b");
    // Escape and a key that come together are another key.
    assert!(until(|| !top.text().contains("svc: x")), "{}", top.text());
    top.press("/later\r");
    assert!(until(|| !top.text().contains("top-test/svc")), "{}", top.text());
    top.press("p");
    top.shows("paused");
    top.press("?");
    top.shows("choose a pane");
    top.press("?q");
    assert_eq!(top.ended(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_terminal_is_given_back_however_it_ends() {
    let db = TestDb::new().await;
    bus(&db).await;
    let cogo = Cogo::on(&db);
    let mut by_key = Terminal::start(&cogo, &["top"], 60, 12);
    by_key.shows("Latest failures");
    by_key.press("\x03");
    assert_eq!(by_key.ended(), Some(0));
    let mut by_signal = Terminal::start(&cogo, &["top"], 30, 6);
    assert!(until(|| by_signal.is_taken_over()));
    let id = rustix::process::Pid::from_raw(by_signal.child.id().cast_signed()).expect("a pid");
    rustix::process::kill_process(id, rustix::process::Signal::TERM).expect("killed");
    assert_eq!(by_signal.ended(), Some(130));
}

#[tokio::test]
async fn where_there_is_no_terminal_it_prints_once() {
    let db = TestDb::new().await;
    bus(&db).await;
    let cogo = Cogo::on(&db);
    let text = cogo.ok(&["top"]).stdout;
    for words in
        ["Queues", "Workers", "top-test/svc", "online", "No breaker has ever opened.", "dead"]
    {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(!text.contains('\x1b'), "{text}");
    let frame = cogo.json(&["top", "--once"]);
    assert_eq!((&frame["queue"]["queued"], &frame["queue"]["failed"]), (&json!(1), &json!(1)));
    assert_eq!(frame["failures"][0]["error"], "tool: the export\nis broken");
    assert_eq!(frame["rates"]["seconds"].as_array().map(Vec::len), Some(60));
    // Of another tenant there is nothing to see.
    let other = cogo.json(&["top", "--once", "--tenant", "acme"]);
    assert_eq!(other["failures"], json!([]));

    let mut stream = cogo.start(&["top", "--json", "--every", "200ms"]);
    assert!(until(|| stream.stdout.text().lines().count() >= 2));
    let last: Value = serde_json::from_str(stream.stdout.text().lines().next().expect("a line"))
        .expect("an object a line");
    assert_eq!(last["queue"]["queued"], 1);
    stream.signal("INT");
    assert_eq!(stream.end(), Some(130));
}

#[tokio::test]
async fn bad_arguments_and_a_missing_bus_are_told() {
    Cogo::new().run(&["top", "--every", "1ms"]).refused(2, &["--every", "200ms to 60s"]);
    Cogo::new().run(&["top", "--every", "soon"]).refused(2, &["--every"]);
    Cogo::new().run(&["top"]).refused(4, &["cogo up"]);
}
