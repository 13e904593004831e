use crate::support::Cogo;

#[test]
fn every_command_has_help_with_examples() {
    let help = Cogo::new().ok(&["--help"]).stdout;
    for command in [
        "up", "hub", "worker", "workers", "enqueue", "get", "tail", "trace", "dlq", "circuit",
        "artifact", "limits", "replay", "mcp", "env", "token", "status", "config", "gate",
        "migrate",
    ] {
        assert!(help.contains(&format!("  {command} ")), "{command} is not listed");
        let help = Cogo::new().ok(&[command, "--help"]).stdout;
        assert!(help.contains("Examples:"), "{command} has no examples");
    }
}

#[test]
fn help_tells_the_exit_codes_and_no_secret_of_the_environment() {
    let cogo = Cogo::new().with("DATABASE_URL", "postgres://me:geheim@localhost/db");
    let help = cogo.ok(&["enqueue", "--help"]).stdout;
    assert!(help.contains("DATABASE_URL") && !help.contains("geheim"), "{help}");
    assert!(cogo.ok(&["-h"]).stdout.contains("Exit codes:"));
}

#[test]
fn a_pipe_has_no_colours() {
    let done = Cogo::new().ok(&["worker"]);
    assert!(done.stdout.contains("echo") && !done.stdout.contains('\u{1b}'), "{done:?}");
}
