use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::{Cogo, Done, temp_dir, until, write};

/// A place for a run: the configuration, the reports, and a temporary directory that must be empty afterwards.
struct Home {
    dir: tempfile::TempDir,
    cogo: Cogo,
}

impl Home {
    fn new() -> Self {
        let dir = temp_dir();
        for made in ["configs", "tmp"] {
            std::fs::create_dir(dir.path().join(made)).expect("a directory");
        }
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let permissions = std::fs::Permissions::from_mode(0o711);
            std::fs::set_permissions(dir.path().join("tmp"), permissions).expect("permissions");
        }
        let path = |name: &str| dir.path().join(name).display().to_string();
        let cogo = Cogo::new()
            .with("COGO_CONFIG_DIR", path("configs"))
            .with("TMPDIR", path("tmp"))
            // What the user works with elsewhere must not be touched.
            .with("DATABASE_URL", "postgres://nobody@127.0.0.1:1/nothing")
            .with("COGO_WORKER_TENANT", "somebody");
        Self { dir, cogo }
    }

    fn configure(&self, name: &str, text: &str) {
        write(&self.dir.path().join("configs"), name, text);
    }

    fn args<'a>(&'a self, out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        [&["gate", "unified", "--stage", "local", "--out", out][..], more].concat()
    }

    fn out(&self) -> String {
        self.dir.path().join("out").display().to_string()
    }

    fn run(&self, more: &[&str]) -> (Done, Value) {
        let out = self.out();
        let mut command = self.cogo.command(&[&self.args(&out, more)[..], &["--json"]].concat());
        // Not by `Cogo::run`, whose patience is for commands that do one thing.
        let output = command.output().expect("cogo starts");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let (stdout, stderr) = (text(output.stdout), text(output.stderr));
        let done = Done { code: output.status.code(), stdout, stderr };
        let report: Value =
            serde_json::from_str(&done.stdout).unwrap_or_else(|_| panic!("{done:?}"));
        assert_eq!(report["stages"].as_array().map(Vec::len), Some(1), "{report}");
        (done, report["stages"][0].clone())
    }

    /// It must fail at this step, for a reason that names these.
    #[track_caller]
    fn fails(&self, more: &[&str], step: &str, words: &[&str]) -> Value {
        let (done, stage) = self.run(more);
        assert_eq!(done.code, Some(1), "{done:?}");
        let (name, failed) = (&stage["name"], &stage["failed_step"]);
        assert_eq!((name, failed), (&json!("local"), &json!(step)), "{stage}");
        let reason = stage["reason"].as_str().expect("a reason");
        for word in words {
            assert!(reason.contains(word), "{word:?} is missing: {reason}");
        }
        let last = stage["steps"].as_array().and_then(|steps| steps.last()).expect("steps");
        assert_eq!(last["name"], step, "what comes after it was not gone through: {stage}");
        self.nothing_remains();
        stage
    }

    #[track_caller]
    fn nothing_remains(&self) {
        let tmp = self.dir.path().join("tmp");
        let left: Vec<_> = std::fs::read_dir(&tmp).expect("a directory").collect();
        assert!(left.is_empty(), "{left:?}");
        if cfg!(target_os = "linux") {
            assert_eq!(users(&tmp), Vec::<String>::new());
        }
    }

    /// Where the only run has left its files.
    fn scenario(&self) -> PathBuf {
        let dir = self.dir.path().join("out/full-scenario");
        let mut runs = std::fs::read_dir(dir).expect("a directory");
        runs.next().expect("a run").expect("an entry").path()
    }
}

/// The processes that were told of a directory.
fn users(dir: &Path) -> Vec<String> {
    let dir = dir.display().to_string();
    let all = std::fs::read_dir("/proc").expect("a directory").flatten();
    let told = all.filter_map(|entry| {
        let of = |file| std::fs::read(entry.path().join(file)).unwrap_or_default();
        let text = [of("cmdline"), of("environ")].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        let pid = entry.file_name().to_string_lossy().parse::<u32>().ok()?;
        (pid != std::process::id() && text.contains(&dir)).then_some(text)
    });
    told.collect()
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).expect("a directory").flatten().map(|entry| entry.path());
    let mut found = Vec::new();
    for path in entries {
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

const STEPS: [&str; 16] = [
    "config",
    "database",
    "migrate",
    "hub",
    "workers",
    "call",
    "retry",
    "breaker",
    "dead letter",
    "outbound worker",
    "killed worker",
    "artifacts",
    "metrics",
    "events",
    "nothing lost",
    "stop",
];

#[test]
fn all_steps_pass_whatever_the_user_configured_and_their_files_are_there() {
    let home = Home::new();
    // What would be in the scenario's way, were it not for its own rules.
    home.configure("hub.json", "{\"artifacts\": {\"store\": \"s3\", \"s3\": {\"bucket\": \"bucket\", \"endpoint\": \"http://127.0.0.1:9\"}}}");
    home.configure(
        "worker.json",
        "{\"tenant\": \"acme\", \"concurrency\": 1, \"lease_ms\": 60000}",
    );
    let breaker =
        "{\"policies\": {\"default\": {\"enabled\": false}, \"mcp.call\": {\"slow_call_ms\": 1}}}";
    home.configure("circuit_breaker.json", breaker);
    let retry = "{\"policies\": {\"default\": {\"max_attempts\": 1, \"retry_on\": []}}}";
    home.configure("retry_policy.json", retry);
    let (done, stage) = home.run(&[]);
    assert_eq!(done.code, Some(0), "{stage}");
    let steps = stage["steps"].as_array().expect("steps");
    let names: Vec<&str> = steps.iter().filter_map(|step| step["name"].as_str()).collect();
    assert_eq!(names, STEPS);
    home.nothing_remains();

    let dir = home.scenario();
    let read = |name: &str| std::fs::read_to_string(dir.join(name)).expect(name);
    let summary: Value = serde_json::from_str(&read("summary.json")).expect("JSON");
    assert_eq!(
        (&summary["schema"], &summary["verdict"]),
        (&json!("cogo.gate.scenario/1"), &json!("passed"))
    );
    assert_eq!(summary["steps"].as_array().map(Vec::len), Some(STEPS.len()), "{summary}");
    let figures = &summary["figures"];
    let sent =
        ["acknowledged_over_http", "acknowledged_over_postgres"].map(|name| figures[name].as_u64());
    assert!(sent[0] >= Some(100) && sent[1] >= Some(100), "a few hundred are sent: {figures}");
    assert_eq!(figures["retry_delays_ms"], json!([300, 300]), "{figures}");
    assert_eq!(stage["facts"], *figures);

    let events: Vec<Value> = read("events.jsonl")
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(Some(events.len() as u64), figures["events"].as_u64());
    let count = |what: &str| events.iter().filter(|event| event["event_type"] == what).count();
    assert_eq!(count("mcp_call_dead_lettered"), 1);
    assert!(count("mcp_call_lease_expired") > 0 && count("circuit_closed") > 0);
    // Of the two servers the one that was not killed, whichever that was.
    assert!(read("metrics.txt").contains("# gate-server-"), "{}", read("metrics.txt"));
    let logs = [
        "hub",
        "gate-server-1",
        "gate-server-2",
        "outbound",
        "migrate",
        "token-mint",
        "dlq-requeue",
        "replay-verify",
    ];
    for log in logs {
        assert!(dir.join("logs").join(format!("{log}.log")).is_file(), "{log}");
    }
    let mcp: Value = serde_json::from_str(&read("configs/mcp.json")).expect("JSON");
    assert_eq!(mcp["toolsets"].as_object().map(serde_json::Map::len), Some(1), "{mcp}");
    let all = files(&dir);
    assert!(
        all.iter()
            .any(|file| file.starts_with(dir.join("artifacts")) && file.ends_with("error.json"))
    );
    for file in all {
        let text = String::from_utf8_lossy(&std::fs::read(&file).expect("a file")).into_owned();
        // A JSON Web Token, a header that grants something, a URL with a login.
        for secret in ["eyJ", "Bearer ", "postgres://"] {
            assert!(!text.contains(secret), "{secret:?} in {}", file.display());
        }
    }
}

#[test]
fn a_broken_migration_is_told_with_its_file_and_place() {
    let home = Home::new();
    let words = ["_broken.sql:2:", "syntax error at or near"];
    home.fails(&["--inject", "broken-migration"], "migrate", &words);
}

#[test]
fn a_breaker_that_never_closes_is_told_with_who_holds_it_and_for_how_long() {
    let home = Home::new();
    let words = [
        "mcp.call.gate.sick.0",
        "has been open since 20",
        "gate-server-1 brought it there",
        "keeps it open for 3600000 ms",
    ];
    home.fails(&["--inject", "breaker-never-closes"], "breaker", &words);
    // The evidence is there all the same.
    let log = std::fs::read_to_string(home.scenario().join("events.jsonl")).expect("a log");
    assert!(log.contains("\"circuit_opened\"") && !log.contains("\"circuit_closed\""));
}

#[test]
fn a_lost_message_is_told_with_its_id_and_what_the_log_knows() {
    let home = Home::new();
    let words = [
        "is lost",
        "agent_messages does not have it",
        "the log has mcp_call_scheduled (the last at 20",
    ];
    let stage = home.fails(&["--inject", "lost-message"], "nothing lost", &words);
    let reason = stage["reason"].as_str().expect("a reason");
    let id = reason.split([' ', ',']).nth(1).expect("an id");
    let log = std::fs::read_to_string(home.scenario().join("events.jsonl")).expect("a log");
    let of_it: Vec<&str> = log.lines().filter(|line| line.contains(id)).collect();
    assert!(matches!(of_it[..], [only] if only.contains("mcp_call_scheduled")), "{of_it:?}");
}

#[test]
fn a_wrong_file_of_the_users_is_told_with_its_line_and_field() {
    for (name, text, field) in [
        (
            "circuit_breaker.json",
            "{\"policies\": {\"mcp\": {\"open_ms\": 0}}}",
            "policies.mcp.open_ms",
        ),
        (
            "retry_policy.json",
            "{\"policies\":\n {\"default\": {\"max_atempts\": 3}}}",
            "max_atempts",
        ),
        ("hub.json", "{\n\"wait_max_s\": \"long\"}", "wait_max_s"),
        ("hubs.json", "{}", "no configuration file"),
    ] {
        let home = Home::new();
        home.configure(name, text);
        let stage = home.fails(&[], "config", &[name, field]);
        if name.starts_with("retry") || name == "hub.json" {
            let reason = stage["reason"].as_str().expect("a reason");
            assert!(reason.contains("line 2") || reason.contains(".json:2"), "{reason}");
        }
        // Nothing was started for it.
        assert_eq!(stage["steps"].as_array().map(Vec::len), Some(1));
    }
}

#[test]
fn ctrl_c_leaves_no_process_and_no_directory_whenever_it_comes() {
    let logs = |home: &Home, log: &str, words: &str| {
        let runs = std::fs::read_dir(home.dir.path().join("out/full-scenario"));
        runs.into_iter().flatten().flatten().any(|run| {
            let said = std::fs::read_to_string(run.path().join("logs").join(log));
            said.is_ok_and(|said| said.contains(words))
        })
    };
    let database = |home: &Home| {
        let made = std::fs::read_dir(home.dir.path().join("tmp"));
        made.into_iter().flatten().flatten().any(|dir| dir.path().join("postgres/data").exists())
    };
    let calls = |home: &Home| logs(home, "gate-server-1.log", "failed (timeout)");
    for reached in [&database as &dyn Fn(&Home) -> bool, &calls] {
        let home = Home::new();
        let out = home.out();
        let mut running = home.cogo.start(&home.args(&out, &[]));
        let reached = || reached(&home);
        assert!(until(reached) || until(reached), "{}", running.stderr.text());
        running.signal("INT");
        assert_eq!(running.end(), Some(130), "{}", running.stderr.text());
        home.nothing_remains();
    }
}
