use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cogo::clock;
use cogo::identity::{Claims, Keys, Role};

use crate::support::{Cogo, Done, temp_dir, write};

const URL: &str = "https://hub.example";
const LINUX: &str = "/usr/local/bin/cogo";
const WINDOWS: &str = "C:\\Program Files\\cogo\\cogo.exe";

/// Runs `cogo worker install` as ada.
fn install(home: &str, args: &[&str]) -> Done {
    with_key(home, "", args)
}

fn with_key(home: &str, key: &str, args: &[&str]) -> Done {
    let cogo = Cogo::new().with("HOME", home).with("LOCALAPPDATA", home).with("COGO_KEY", key);
    cogo.run(&[&["worker", "install", "--url", URL], args].concat())
}

fn key(worker: Option<&str>, topics: &[&str], exp_in: i64) -> String {
    let mut claims = Claims::new(Role::Authenticated, clock::utc_now().timestamp() + exp_in);
    claims.tenant = Some("acme".to_owned());
    claims.worker = worker.map(str::to_owned);
    claims.topics = topics.iter().map(|topic| topic.parse().expect("a topic")).collect();
    Keys::parse("0123456789abcdef0123456789abcdef").expect("a secret").mint(&claims)
}

fn good() -> String {
    key(Some("laptop-1"), &["mcp-gateway/*"], 30 * 86_400)
}

#[test]
fn the_files_in_the_docs_are_what_the_program_writes() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/services");
    for (file, home, platform, program) in [
        ("cogo-worker-mcp-gateway.service", "/home/ada", "systemd", LINUX),
        ("cogo.worker.mcp-gateway.plist", "/Users/ada", "launchd", LINUX),
        ("cogo-worker-mcp-gateway.ps1", "C:\\Users\\ada\\AppData\\Local", "windows", WINDOWS),
    ] {
        let args =
            ["--print", "--worker-id", "laptop-1", "--platform", platform, "--program", program];
        let done = install(home, &args);
        assert_eq!(done.code, Some(0), "{done:?}");
        if std::env::var_os("COGO_REGENERATE").is_some() {
            write(&docs, file, &done.stdout);
        }
        let kept = fs::read_to_string(docs.join(file)).unwrap_or_default();
        assert_eq!(
            done.stdout, kept,
            "docs/services/{file} is stale: run COGO_REGENERATE=1 cargo test"
        );
    }
}

/// A program of an awkward name that writes down what it is run with.
#[cfg(unix)]
fn awkward(dir: &Path, more: &str) -> PathBuf {
    let dir = dir.join(format!("a b 100% & <w> $HOME {more}"));
    fs::create_dir(&dir).expect("a directory");
    write(&dir, "cogo", "#!/bin/sh\nprintf '%s\\n' \"$COGO_KEY\" \"$@\"\n");
    let program = dir.join("cogo");
    fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("mode");
    program
}

/// What a program printed, if it is on this machine.
#[cfg(unix)]
fn tool(name: &str, args: &[&str]) -> Option<std::process::Output> {
    Command::new(name).args(args).output().ok()
}

#[cfg(unix)]
#[test]
fn systemd_finds_nothing_wrong_with_its_units_whatever_the_names_in_them() {
    let dir = temp_dir();
    let program = awkward(dir.path(), "ü");
    let program = program.to_str().expect("text");
    let id = "--worker-id=Ada's \"50%\" \\ $X";
    for (unit, owner) in [("cogo-user.service", "--user"), ("cogo-system.service", "--system")] {
        let home = dir.path().join("ho me 5%");
        let configs = Path::new(program).parent().and_then(Path::to_str).expect("text");
        let args = [
            "--platform",
            "systemd",
            "--print",
            owner,
            "--program",
            program,
            id,
            "--config-dir",
            configs,
        ];
        let done = install(home.to_str().expect("text"), &args);
        assert_eq!(done.code, Some(0), "{done:?}");
        let escaped = "\"--worker-id=Ada's \\\"50%%\\\" \\\\ $X\"";
        assert!(done.stdout.contains(escaped), "{}", done.stdout);
        assert!(done.stdout.contains("\"COGO_CONFIG_DIR=/"), "{}", done.stdout);
        write(dir.path(), unit, &done.stdout);
        let path = dir.path().join(unit);
        // Where there is a systemd: it looks for the program, by the name that it reads.
        if let Some(found) = tool("systemd-analyze", &["verify", path.to_str().expect("text")]) {
            let said = String::from_utf8_lossy(&found.stderr);
            assert!(found.status.success() && !said.contains("cogo-"), "{said}\n{}", done.stdout);
        }
    }
}

#[cfg(unix)]
#[test]
fn launchds_list_reads_back_and_its_command_hands_over_the_key() {
    let dir = temp_dir();
    let program = awkward(dir.path(), "\"x\" 'y' \\z");
    let home = dir.path().join("h & <m> 'e'");
    let home = home.to_str().expect("text");
    let args = [
        "--platform",
        "launchd",
        "--print",
        "--program",
        program.to_str().expect("text"),
        "--worker-id",
        "a&b<c> \"d\" $HOME `e`",
    ];
    let done = install(home, &args);
    assert_eq!(done.code, Some(0), "{done:?}");
    write(dir.path(), "x.plist", &done.stdout);
    let script =
        "import json,plistlib,sys; print(json.dumps(plistlib.load(open(sys.argv[1],'rb'))))";
    let path = dir.path().join("x.plist");
    let Some(read) = tool("python3", &["-c", script, path.to_str().expect("text")]) else { return };
    let list: serde_json::Value = serde_json::from_slice(&read.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&read.stderr)));
    assert_eq!((&list["KeepAlive"], &list["RunAtLoad"]), (&true.into(), &true.into()));
    assert_eq!(list["Umask"], 0o077);
    let words: Vec<&str> = list["ProgramArguments"]
        .as_array()
        .expect("words")
        .iter()
        .map(|word| word.as_str().expect("text"))
        .collect();
    let key_file = PathBuf::from(words[4]);
    assert!(key_file.starts_with(home), "{words:?}");
    fs::create_dir_all(key_file.parent().expect("a directory")).expect("a directory");
    fs::write(&key_file, "the-key\n").expect("a file");
    let ran = tool(words[0], &words[1..]).expect("it runs");
    let said = String::from_utf8_lossy(&ran.stdout);
    let told: Vec<&str> = said.lines().collect();
    let id = "--worker-id=a&b<c> \"d\" $HOME `e`";
    assert_eq!(told, ["the-key", "worker", "mcp-gateway", "--url", URL, id], "{ran:?}");
    // Without the key the worker is not started.
    fs::remove_file(&key_file).expect("gone");
    let ran = tool(words[0], &words[1..]).expect("it runs");
    assert!(ran.stdout.is_empty() && ran.status.code() == Some(1), "{ran:?}");
}

#[test]
fn windows_script_quotes_what_powershell_would_read() {
    let args = [
        "--platform",
        "windows",
        "--print",
        "--program",
        "C:\\O'Neil\u{2019}s\\cogo.exe",
        "--worker-id",
        "$env:X §KEY§ `n",
    ];
    let done = install("C:\\Users\\ada", &args);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.stdout.starts_with('\u{feff}'), "no mark: {}", done.stdout);
    for words in [
        "& 'C:\\O''Neil\u{2019}\u{2019}s\\cogo.exe' 'worker' 'mcp-gateway' '--url' 'https://hub.example'",
        "'--worker-id=$env:X §KEY§ `n'",
        "$key = 'C:\\Users\\ada\\cogo\\worker-mcp-gateway.key'",
        "-AtLogOn",
        "-ExecutionTimeLimit ([TimeSpan]::Zero)",
    ] {
        assert!(done.stdout.contains(words), "{words}: {}", done.stdout);
    }
    let system = ["--platform", "windows", "--print", "--program", WINDOWS, "--system"];
    let system = install("", &system).stdout;
    assert!(system.contains("-AtStartup") && system.contains("icacls $key"), "{system}");
    let quote = ["--platform", "windows", "--print", "--program", WINDOWS, "--worker-id", "a\"b"];
    install("C:\\x", &quote).refused(2, &["--worker-id", "cannot hold"]);
}

#[cfg(target_os = "linux")]
#[test]
fn an_installation_writes_the_unit_and_apart_from_it_the_key() {
    use std::os::unix::fs::PermissionsExt as _;

    let (dir, good) = (temp_dir(), good());
    let home = dir.path().to_str().expect("text");
    let unit = dir.path().join(".config/systemd/user/cogo-worker-mcp-gateway.service");
    let kept = dir.path().join(".config/cogo/worker-mcp-gateway.env");
    install(home, &[]).refused(2, &["--key-file", "COGO_KEY", "cogo token mint"]);
    let dry = with_key(home, &good, &["--dry-run"]);
    assert!(dry.code == Some(0) && dry.stderr.contains("Would write"), "{dry:?}");
    assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 0, "a dry run wrote");

    write(dir.path(), "key", &format!("{good}\n"));
    let file = dir.path().join("key");
    let done = install(home, &["--key-file", file.to_str().expect("text")]);
    assert_eq!(done.code, Some(0), "{done:?}");
    let commands: Vec<&str> = done.stdout.lines().collect();
    assert_eq!(commands[0], "systemctl --user daemon-reload");
    assert!(
        commands.iter().any(|command| command.starts_with("loginctl enable-linger")),
        "{done:?}"
    );
    let text = fs::read_to_string(&unit).expect("a unit");
    assert!(text.contains("--worker-id=laptop-1.mcp-gateway"), "{text}");
    assert_eq!(fs::read_to_string(&kept).expect("the key"), format!("COGO_KEY={good}\n"));
    let mode = |path: &Path| fs::metadata(path).expect("a file").permissions().mode() & 0o777;
    assert_eq!((mode(&unit), mode(&kept)), (0o644, 0o600));
    for said in [&text, &done.stdout, &done.stderr] {
        assert!(
            !said.contains(good.split('.').nth(2).expect("a part")),
            "the key is shown: {said}"
        );
    }

    // Again, without a key, and with a new one.
    let again = install(home, &["--worker-id", "laptop-1.mcp-gateway"]);
    assert!(
        again.stderr.contains("is as it should be") && again.stderr.contains("stays"),
        "{again:?}"
    );
    let new = key(Some("laptop-1"), &["*"], 40 * 86_400);
    assert_eq!(with_key(home, &new, &[]).code, Some(0));
    assert_eq!(fs::read_to_string(&kept).expect("the key"), format!("COGO_KEY={new}\n"));

    // One that was changed by hand stays, with the key as it was.
    fs::write(&unit, "mine").expect("a file");
    with_key(home, &good, &[]).refused(5, &["is not what would be written", "--force"]);
    assert_eq!(fs::read_to_string(&unit).expect("a unit"), "mine");
    assert_eq!(fs::read_to_string(&kept).expect("the key"), format!("COGO_KEY={new}\n"));
    let json = with_key(home, &good, &["--force", "--json"]);
    let told: serde_json::Value = serde_json::from_str(&json.stdout).expect("JSON");
    assert_eq!((&told["platform"], &told["written"]), (&"systemd".into(), &true.into()), "{told}");
    assert_eq!(fs::read_to_string(&unit).expect("a unit"), text);
}

#[test]
fn what_no_service_could_run_with_is_refused() {
    let dir = temp_dir();
    let home = dir.path().to_str().expect("text");
    let print = |args: &[&str]| install(home, &[&["--print"], args].concat());
    let cogo = Cogo::new().with("HOME", home);
    cogo.run(&["worker", "install", "--print"]).refused(2, &["--url"]);
    for bad in
        ["hub.example", "ftp://x", "https://", "https://a:geheim@x", "https://x y", "https://x'y"]
    {
        let done = cogo.run(&["worker", "install", "--print", "--url", bad]);
        done.refused(2, &["--url"]);
    }
    print(&["a b"]).refused(2, &["ROLE", "letters, digits"]);
    print(&["--program", "bin/cogo"]).refused(2, &["--program", "absolute"]);
    print(&["--platform", "systemd", "--program", "/a \"b\""])
        .refused(2, &["--program", "systemd takes no quotes"]);
    print(&["--program", "/a\nb"]).refused(2, &["--program", "cannot hold"]);
    print(&["--worker-id", ""]).refused(2, &["--worker-id"]);
    print(&["--user", "--system"]).refused(2, &["--user", "--system"]);
    print(&["--run-as", "ada"]).refused(2, &["--system"]);
    print(&["--system", "--run-as", "root"]).refused(2, &["--run-as", "not root"]);
    print(&["--system", "--run-as", "a%b"]).refused(2, &["--run-as"]);
    print(&["--platform", "upstart"]).refused(2, &["--platform", "systemd"]);
    print(&["--platform", "launchd", "--system"]).refused(2, &["--run-as", "root"]);
    let windows = ["--platform", "windows", "--program", WINDOWS, "--system", "--run-as", "ada"];
    print(&windows).refused(2, &["--run-as", "LOCAL SERVICE"]);
    let elsewhere = if cfg!(target_os = "macos") { "systemd" } else { "launchd" };
    with_key(home, &good(), &["--platform", elsewhere]).refused(2, &["--platform", "--print"]);

    for (key, args, words) in [
        ("hunter2", &[][..], &["COGO_KEY", "no JSON Web Token"][..]),
        (&key(Some("w"), &["*"], -60), &[], &["COGO_KEY", "expired"]),
        (&key(Some("w"), &[], 60), &[], &["may work on nothing", "--topic"]),
        (&key(None, &["*"], 60), &[], &["may work on nothing", "--worker"]),
        (&key(Some("w"), &["*"], 60), &["--worker-id", "wx"], &["--worker-id", "for worker \"w\""]),
        ("sb_secret_x\nCOGO_URL=x", &[], &["COGO_KEY", "is no key"]),
        ("", &["--key-file", "/nonexistent/key"], &["--key-file", "/nonexistent/key"]),
    ] {
        let done = with_key(home, key, &[&["--print"], args].concat());
        done.refused(2, words);
        assert!(!done.stderr.contains("hunter2"), "{done:?}");
    }
    let soon = with_key(home, &key(Some("w"), &["*"], 7200), &["--print"]);
    assert!(soon.code == Some(0) && soon.stderr.contains("expires in"), "{soon:?}");
    assert_eq!(with_key(home, "sb_publishable_x", &["--print"]).code, Some(0));
    assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 0, "something was written");
}

#[test]
fn install_is_no_role_and_has_help_of_its_own() {
    let help = Cogo::new().ok(&["worker", "install", "--help"]).stdout;
    assert!(help.contains("Examples:") && help.contains("--key-file"), "{help}");
    assert!(Cogo::new().ok(&["worker", "--help"]).stdout.contains("worker install"));
    // After a role it is one of the role's arguments.
    Cogo::new()
        .run(&["worker", "echo", "install"])
        .refused(2, &["unexpected argument \"install\""]);
}
