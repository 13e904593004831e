//! Flags, and help that teaches.

use crate::fixture::Home;

#[test]
fn flags_that_would_do_nothing_are_refused_before_anything_is_made() {
    let home = Home::new("{}");
    for (args, words) in [
        ("unified --stage ping --inject lost-message", &["--inject", "Add --stage local"][..]),
        ("unified --stage ping --migrations configs", &["--migrations", "Add --stage local"]),
        ("unified --stage local --start-servers", &["--start-servers", "Add --stage ping"]),
        ("unified --stage docker --skip-docker", &["--skip-docker", "--stage docker"]),
        ("unified --migrations nowhere", &["--migrations nowhere", "is no directory"]),
        ("unified --stage everything", &["everything", "ping", "local", "docker"]),
        ("unified --inject chaos", &["broken-migration", "breaker-never-closes", "lost-message"]),
        ("unified --stage ping --out configs/mcp.json", &["--out configs/mcp.json"]),
        ("unified extra", &["extra"]),
        ("e2e --url http://127.0.0.1:9", &["--url", "COGO_E2E_URL"]),
        ("", &["unified", "e2e"]),
    ] {
        let done = home.gate(&args.split_whitespace().collect::<Vec<_>>());
        done.refused(2, words);
        assert!(!home.path().join("artifacts").exists(), "{args}");
    }
}

#[test]
fn each_help_has_examples() {
    let home = Home::new("{}");
    for args in [&["--help"][..], &["unified", "--help"], &["e2e", "--help"]] {
        let done = home.gate(args);
        assert_eq!(done.code, Some(0), "{done:?}");
        assert!(
            done.stdout.contains("Examples:\n  cogo gate") || done.stdout.contains("cogo gate e2e"),
            "{done:?}"
        );
    }
    let told = home.gate(&["e2e", "--help"]).stdout;
    for name in ["COGO_E2E_URL", "COGO_E2E_KEY", "COGO_E2E_DATABASE_URL", "--require"] {
        assert!(told.contains(name), "{name}: {told}");
    }
}
