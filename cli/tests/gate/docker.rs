//! The stage `docker`, with a program that plays Docker: it brings up a real hub in place of containers.
//!
//! What it cannot show, that images build and containers come up, is for a machine with an engine.

mod world;

use std::process::Command;
use std::time::Duration;

use serde_json::json;

use self::world::World;

#[test]
fn without_an_engine_what_was_asked_for_by_name_fails_and_says_which_command_said_what() {
    let world = World::new();
    world.knows("no-engine", "");
    let (code, stage) = world.gate();
    assert_eq!((code, &stage["failed_step"]), (1, &json!("engine")));
    let reason = stage["reason"].as_str().expect("a reason");
    for said in ["`docker info --format {{.ServerVersion}}` said: Cannot connect", "`podman"] {
        assert!(reason.contains(said), "no {said} in {reason}");
    }
    assert!(!world.calls().iter().any(|call| call.contains("--project-name")));
}

#[test]
fn a_checkout_without_the_file_is_told_so() {
    let world = World::new();
    std::fs::remove_file(world.dir().join("docker-compose.ci.yml")).expect("it was there");
    let (code, stage) = world.gate();
    assert_eq!((code, &stage["failed_step"]), (1, &json!("engine")));
    assert!(
        stage["reason"].as_str().is_some_and(|reason| reason.contains("docker-compose.ci.yml"))
    );
    assert!(stage["remedy"].as_str().is_some_and(|remedy| remedy.contains("--skip-docker")));
}

#[test]
fn the_whole_scenario_goes_through_the_published_port_and_leaves_nothing() {
    let world = World::new();
    let (code, stage) = world.gate();
    assert_eq!((code, &stage["outcome"]), (0, &json!("passed")), "{stage:#}");
    let steps: Vec<_> =
        stage["steps"].as_array().expect("steps").iter().map(|step| &step["name"]).collect();
    let expected = [
        "engine",
        "build",
        "up",
        "call",
        "dead letter",
        "artifacts",
        "metrics",
        "nothing lost",
        "down",
    ];
    assert_eq!(steps, expected.map(serde_json::Value::from).iter().collect::<Vec<_>>());

    let told = world.told();
    assert_eq!(told, ["config", "build", "up", "ps", "port", "exec", "ps", "logs", "down"]);
    let project = stage["facts"]["project"].as_str().expect("a project");
    let of_another = world.calls().into_iter().find(|call| {
        call.contains("--file") && !call.contains(&format!("--project-name {project} "))
    });
    assert_eq!(of_another, None);
    let down = world.calls().into_iter().find(|call| call.contains(" down ")).expect("down");
    assert!(down.contains("--volumes") && down.contains("--remove-orphans"), "{down}");
    assert!(!world.hub_runs() && !world.has("containers"));

    let left = world.dir().join(stage["artifacts"].as_str().expect("artifacts"));
    for file in [
        "build.log",
        "logs.txt",
        "ps.txt",
        "metrics.txt",
        "call.json",
        "requeued.json",
        "replay.json",
    ] {
        assert!(left.join(file).is_file(), "{file} is not in {}", left.display());
    }
    assert!(left.join("artifacts/mcp/demo").is_dir());
}

#[test]
fn a_build_that_fails_is_told_and_taken_down() {
    let world = World::new();
    world.knows("build-fails", "");
    let (code, stage) = world.gate();
    assert_eq!((code, &stage["failed_step"]), (1, &json!("build")), "{stage:#}");
    let reason = stage["reason"].as_str().expect("a reason");
    assert!(reason.contains("no space left on device") && reason.contains("17"), "{reason}");
    assert_eq!(world.told(), ["config", "build", "ps", "logs", "down"]);
}

#[test]
fn a_service_that_is_unhealthy_is_named_with_what_it_said() {
    let world = World::new();
    world.knows("unhealthy", "");
    world.knows(
        "ps.json",
        r#"{"Service":"hub","State":"running","Health":"unhealthy","ExitCode":0}"#,
    );
    world.knows("said", "Starting\nerror: the schema is of 3, and 21 is needed\n");
    let (code, stage) = world.gate();
    assert_eq!((code, &stage["failed_step"]), (1, &json!("up")), "{stage:#}");
    let reason = stage["reason"].as_str().expect("a reason");
    assert!(reason.contains("the service hub is unhealthy"), "{reason}");
    assert!(reason.contains("the schema is of 3"), "{reason}");
    assert_eq!(world.told().last().map(String::as_str), Some("down"));
}

#[test]
fn a_service_that_fails_after_it_was_started_is_named() {
    let world = World::new();
    world.knows("no-hub", "");
    world.knows("ps.json", r#"[{"Service":"hub","State":"exited","Health":"","ExitCode":2}]"#);
    let (_, stage) = world.gate();
    assert_eq!(stage["failed_step"], "up", "{stage:#}");
    assert!(stage["reason"].as_str().is_some_and(|reason| reason.contains("hub ended with 2")));
    assert_eq!(world.told(), ["config", "build", "up", "ps", "logs", "ps", "logs", "down"]);
}

#[test]
fn a_log_that_does_not_fold_to_the_messages_fails_nothing_lost_and_can_be_kept() {
    let world = World::new();
    world.knows("replay.json", r#"{"exact":false,"messages":2,"events":7,"missing":1}"#);
    let (code, stage) = world.gate_with(&["--keep"]);
    assert_eq!((code, &stage["failed_step"]), (1, &json!("nothing lost")), "{stage:#}");
    let steps = stage["steps"].as_array().expect("steps");
    let down = steps.iter().find(|step| step["name"] == "down").expect("down");
    assert_eq!(down["outcome"], "skipped");
    assert!(!world.told().contains(&"down".to_owned()) && world.hub_runs());
}

#[test]
fn containers_that_stay_fail_the_last_step() {
    let world = World::new();
    world.knows("build-fails", "");
    world.knows("containers", "0123456789ab");
    world.knows("leaves-one", "");
    let (_, stage) = world.gate();
    let steps = stage["steps"].as_array().expect("steps");
    let down = steps.iter().find(|step| step["name"] == "down").expect("down");
    assert_eq!(down["outcome"], "failed", "{down:#}");
    // And it tried again, as often as it does.
    assert_eq!(world.told().iter().filter(|told| *told == "down").count(), 4);
}

#[test]
fn an_interrupted_run_is_taken_down() {
    let world = World::new();
    world.knows("build-hangs", "");
    let mut gate = world.command().spawn().expect("the gate");
    world.wait_for("building", Duration::from_secs(60));
    let interrupt = Command::new("kill").args(["-INT", &gate.id().to_string()]).status();
    assert!(interrupt.expect("kill").success());
    assert_eq!(gate.wait().expect("it ends").code(), Some(130));
    assert_eq!(world.told(), ["config", "build", "down"]);
}
