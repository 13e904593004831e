//! Bringing the containers up, and waiting until each is well.

use std::time::Duration;

use cogo::clock::Stopwatch;
use cogo::gate::Failure;
use serde::Deserialize;

use super::compose::Compose;
use super::last_lines;
use super::plan::Plan;

/// Pulling what is not there, and starting one after the other.
const UP_WITHIN: Duration = Duration::from_secs(420);
/// From then on until all are well: the file's own health checks give up sooner.
const HEALTHY_WITHIN: Duration = Duration::from_secs(120);
/// An engine tells of changes by a stream of events as well; asking is enough, and says the same after a lost one.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How much of a sick container's log is told.
const SAID_LINES: usize = 3;

/// A container, as `docker compose ps --format json` has it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Container {
    service: String,
    state: String,
    #[serde(default)]
    health: String,
    #[serde(default)]
    exit_code: i64,
}

/// What is to be thought of a service.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Well,
    NotYet(String),
    Sick(String),
}

/// Brings everything up, and waits for it; what came up.
pub(super) async fn up(compose: &Compose, plan: &Plan) -> Result<String, Failure> {
    let started = compose.log("up", &["up", "--detach", "--no-build"], UP_WITHIN).await;
    if let Err(failure) = started {
        // What Compose says names a container at best; the container says why.
        return Err(match sick(compose, plan, &look(compose).await?).await {
            Some(sick) => sick.remedy("The whole of what it said is in logs.txt."),
            None => failure,
        });
    }
    let watch = Stopwatch::start();
    loop {
        let containers = look(compose).await?;
        if let Some(sick) = sick(compose, plan, &containers).await {
            return Err(sick.remedy("The whole of what it said is in logs.txt."));
        }
        let waiting: Vec<_> = plan
            .services
            .iter()
            .filter_map(|service| match judge(service, plan, &containers) {
                Verdict::NotYet(why) => Some(format!("{service} {why}")),
                _ => None,
            })
            .collect();
        if waiting.is_empty() {
            return Ok(format!("{} services are well", plan.services.len()));
        }
        if watch.elapsed() > HEALTHY_WITHIN {
            let (waiting, within) = (waiting.join(", "), HEALTHY_WITHIN.as_secs());
            return Err(Failure::new(format!("after {within} s: {waiting}")));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The first service that will not get well by itself, with what it said last.
async fn sick(compose: &Compose, plan: &Plan, containers: &[Container]) -> Option<Failure> {
    for service in &plan.services {
        if let Verdict::Sick(why) = judge(service, plan, containers) {
            let lines = ["logs", "--no-color", "--no-log-prefix", "--tail", "20", service.as_str()];
            let log = compose.ask(&lines).await.unwrap_or_default();
            let said = last_lines(&log, SAID_LINES);
            return Some(Failure::new(format!(
                "the service {service} {why}; it said last: {said}"
            )));
        }
    }
    None
}

fn judge(service: &str, plan: &Plan, containers: &[Container]) -> Verdict {
    let Some(container) = containers.iter().find(|container| container.service == service) else {
        return Verdict::NotYet("has no container".to_owned());
    };
    let Container { state, health, exit_code, .. } = container;
    match (state.as_str(), health.as_str()) {
        ("exited" | "dead", _) if plan.once.contains(service) && *exit_code == 0 => Verdict::Well,
        ("exited" | "dead", _) => Verdict::Sick(format!("ended with {exit_code}")),
        ("running", "unhealthy") => Verdict::Sick("is unhealthy".to_owned()),
        ("running", "healthy" | "") if !plan.once.contains(service) => Verdict::Well,
        (state, "") => Verdict::NotYet(format!("is {state}")),
        (state, health) => Verdict::NotYet(format!("is {state} and {health}")),
    }
}

async fn look(compose: &Compose) -> Result<Vec<Container>, Failure> {
    containers(&compose.ask(&["ps", "--all", "--format", "json"]).await?)
}

/// One array, or since Compose 2.21 an object a line.
fn containers(text: &str) -> Result<Vec<Container>, Failure> {
    let text = text.trim();
    let read = match text.starts_with('[') {
        true => serde_json::from_str(text),
        false => text.lines().map(serde_json::from_str).collect(),
    };
    read.map_err(|error| Failure::new(format!("`compose ps` said what cannot be read: {error}")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn plan() -> Plan {
        let call = json!({"toolset": "t", "tool": "t", "params": {}, "answers": ""});
        let dead =
            json!({"toolset": "t", "tool": "t", "params": {}, "class": "tool_error", "mended": {}});
        let wait = json!({"depends_on": {"once": {"condition": "service_completed_successfully"}}});
        let gate = json!({"hub": {"service": "hub", "port": 1}, "call": call, "dead_letter": dead});
        Plan::of(&json!({"services": {"once": {}, "hub": wait}, "x-gate": gate})).expect("a plan")
    }

    fn verdict(service: &str, state: &str, health: &str, exit_code: i64) -> Verdict {
        let (service_, state, health) = (service.to_owned(), state.to_owned(), health.to_owned());
        judge(service, &plan(), &[Container { service: service_, state, health, exit_code }])
    }

    #[test]
    fn a_service_is_well_when_it_is_healthy_or_has_done_its_work() {
        assert_eq!(verdict("hub", "running", "healthy", 0), Verdict::Well);
        assert_eq!(verdict("hub", "running", "", 0), Verdict::Well);
        assert_eq!(verdict("once", "exited", "", 0), Verdict::Well);
        for waits in
            [("hub", "running", "starting"), ("once", "running", ""), ("hub", "created", "")]
        {
            let verdict = verdict(waits.0, waits.1, waits.2, 0);
            assert!(matches!(verdict, Verdict::NotYet(_)), "{waits:?} is {verdict:?}");
        }
        assert!(matches!(judge("hub", &plan(), &[]), Verdict::NotYet(_)));
    }

    #[test]
    fn what_ended_without_having_done_its_work_is_sick() {
        for sick in [("hub", 0), ("hub", 1), ("once", 1)] {
            let verdict = verdict(sick.0, "exited", "", sick.1);
            assert!(matches!(verdict, Verdict::Sick(_)), "{sick:?} is {verdict:?}");
        }
        assert!(matches!(verdict("hub", "running", "unhealthy", 0), Verdict::Sick(_)));
    }

    #[test]
    fn both_of_composes_ways_to_list_are_read() {
        let one = r#"{"Service":"hub","State":"running","Health":"healthy","ExitCode":0}"#;
        for text in [format!("[{one},{one}]"), format!("{one}\n{one}\n")] {
            assert_eq!(containers(&text).expect("read").len(), 2);
        }
        assert!(containers("").expect("read").is_empty());
        assert!(containers("no such thing").is_err());
    }
}
