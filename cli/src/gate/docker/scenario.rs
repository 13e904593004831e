//! What is done with the bus in the containers.

use std::path::Path;
use std::time::Duration;

use cogo::clock::Stopwatch;
use cogo::gate::{Done, Failure, Steps, Stopped, done};
use serde_json::{Value, json};

use super::compose::Compose;
use super::hub::{Ended, Hub};
use super::keep;
use super::plan::{Call, DeadLetter, Plan};

/// What each attempt leaves, whatever came of it.
const FILES: &[&str] = &["request.json", "response.json", "summary.json"];

/// How long the hub's counters may be behind its answers.
const COUNTED_WITHIN: Duration = Duration::from_secs(30);
/// How often they are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The running bus, and what is wanted of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scenario<'a> {
    pub(super) compose: &'a Compose,
    pub(super) plan: &'a Plan,
    pub(super) hub: &'a Hub,
    pub(super) dir: &'a Path,
}

impl Scenario<'_> {
    pub(super) async fn run(self, steps: &Steps<'_>) -> Result<(), Stopped> {
        let good = steps.step("call", self.call()).await?;
        let dead = steps.step("dead letter", self.dead_letter()).await?;
        // From here on each looks at something of its own, and all are worth knowing.
        let artifacts = steps.step("artifacts", self.artifacts(&[&good, &dead])).await;
        let metrics = steps.step("metrics", self.metrics()).await;
        let lost = steps.step("nothing lost", self.nothing_lost(&[&good, &dead])).await;
        artifacts.and(metrics).and(lost)
    }

    /// A call that must succeed.
    async fn call(&self) -> Result<Done<Ended>, Failure> {
        let call = &self.plan.call;
        let id = self.hub.enqueue(call).await?;
        let ended = self.hub.ended(&id).await?;
        self.keep("call.json", &ended.answer);
        is(&ended, "done", &call.toolset, &call.tool)?;
        let result = ended.answer["message"]["result"].to_string();
        if !result.contains(&call.answers) {
            let answers = &call.answers;
            return Err(Failure::new(format!(
                "the result of {}.{} has no {answers:?} in it: {result}",
                call.toolset, call.tool
            )));
        }
        holds(&ended, &["mcp_call_scheduled", "mcp_call_succeeded"])?;
        let detail = format!("{}.{}: {}", call.toolset, call.tool, ended.events().join(", "));
        Ok(done(ended, detail))
    }

    /// A call that must fail for good, and come back.
    async fn dead_letter(&self) -> Result<Done<Ended>, Failure> {
        let DeadLetter { toolset, tool, params, mended, class } = &self.plan.dead_letter;
        let call = Call {
            toolset: toolset.clone(),
            tool: tool.clone(),
            params: params.clone(),
            answers: String::new(),
        };
        let id = self.hub.enqueue(&call).await?;
        is(&self.hub.ended(&id).await?, "failed", toolset, tool)?;
        let letter = self.hub.json(&format!("/api/dead-letters/{id}")).await?;
        self.keep("dead-letter.json", &letter);
        let died_of = letter["message"]["class"].as_str().unwrap_or("?").to_owned();
        if died_of != *class {
            return Err(Failure::new(format!(
                "message {id} died of {died_of}, and it should of {class}"
            )));
        }
        let body = json!({"ids": [id], "params": mended, "reason": "gate"});
        let answer = self.hub.post("/api/dead-letters/requeue", &body).await?;
        if answer["results"][0]["outcome"] != "requeued" {
            return Err(Failure::new(format!("message {id} was not requeued: {answer}")));
        }
        let ended = self.hub.ended(&id).await?;
        self.keep("requeued.json", &ended.answer);
        is(&ended, "done", toolset, tool)?;
        let events = ["mcp_call_failed", "mcp_call_dead_lettered", "mcp_call_requeued"];
        holds(&ended, &events)?;
        holds(&ended, &["mcp_call_succeeded"])?;
        Ok(done(ended, format!("{toolset}.{tool}: {died_of}, requeued with other params, done")))
    }

    /// What the attempts left, through the hub, which is another container than the one that wrote it.
    async fn artifacts(&self, ended: &[&Ended]) -> Result<Done<()>, Failure> {
        if let Some(none) = ended.iter().find(|ended| ended.artifacts().is_empty()) {
            let id = &none.answer["message"]["id"];
            return Err(Failure::new(format!("message {id} left no artifacts")));
        }
        let mut files = 0;
        for place in ended.iter().flat_map(|ended| ended.artifacts()) {
            for file in FILES {
                let path = format!("/artifacts/{place}/{file}");
                let text = self.hub.text(&path).await?;
                let json: Value = serde_json::from_str(&text)
                    .map_err(|error| Failure::new(format!("{path} is no JSON: {error}")))?;
                self.keep(&path[1..], &json);
                files += 1;
            }
        }
        // The good call's, and the dead letter's two attempts.
        match files / FILES.len() {
            attempts @ 3.. => Ok(done((), format!("{files} files of {attempts} attempts"))),
            attempts => {
                Err(Failure::new(format!("{attempts} attempts left artifacts, and 3 were made")))
            }
        }
    }

    /// The hub counts what it reads of the log, which is after an answer was given.
    async fn metrics(&self) -> Result<Done<()>, Failure> {
        let watch = Stopwatch::start();
        loop {
            match self.counted().await {
                Err(_) if watch.elapsed() < COUNTED_WITHIN => tokio::time::sleep(LOOK_EVERY).await,
                ended => return ended,
            }
        }
    }

    async fn counted(&self) -> Result<Done<()>, Failure> {
        let text = self.hub.text("/metrics").await?;
        keep(self.dir, "metrics.txt", &text);
        let mut seen = Vec::new();
        for (metric, least) in [
            ("cogo_hub_ready", 1.0),
            ("cogo_workers_online{role=\"mcp-gateway\"}", 1.0),
            ("cogo_messages_published_total{role=\"mcp-gateway\"}", 2.0),
            ("cogo_bus_events_total{event_type=\"mcp_call_dead_lettered\"}", 1.0),
            ("cogo_bus_events_total{event_type=\"mcp_call_requeued\"}", 1.0),
            ("cogo_bus_events_total{event_type=\"mcp_call_succeeded\"}", 2.0),
        ] {
            let value = text.lines().find_map(|line| line.strip_prefix(metric)?.strip_prefix(' '));
            match value.and_then(|value| value.parse::<f64>().ok()) {
                Some(value) if value >= least => seen.push(format!("{metric} {value}")),
                Some(value) => {
                    let reason = format!("{metric} is {value}, and at least {least} was expected");
                    return Err(Failure::new(reason));
                }
                None => return Err(Failure::new(format!("/metrics has no {metric}"))),
            }
        }
        Ok(done((), seen.join(", ")))
    }

    /// The log folds to the table, within the container, and what was acknowledged is done.
    async fn nothing_lost(&self, ended: &[&Ended]) -> Result<Done<()>, Failure> {
        let hub = &self.plan.hub.service;
        let args = ["exec", "--no-TTY", hub, "cogo", "replay", "verify", "--json"];
        let said = self.compose.ask(&args).await?;
        let found: Value = serde_json::from_str(said.trim())
            .map_err(|error| Failure::new(format!("`cogo replay verify` said no JSON: {error}")))?;
        self.keep("replay.json", &found);
        folds(&found, ended.len())
    }

    fn keep(&self, name: &str, value: &Value) {
        keep(self.dir, name, format!("{value:#}\n"));
    }
}

/// Whether the message ended so.
fn is(ended: &Ended, status: &str, toolset: &str, tool: &str) -> Result<(), Failure> {
    if ended.status == status {
        return Ok(());
    }
    let (was, error) = (&ended.status, &ended.answer["message"]["error"]["message"]);
    Err(Failure::new(format!("{toolset}.{tool} is {was}, and {status} was expected: {error}")))
}

/// Whether these events are among the message's, in this order.
fn holds(ended: &Ended, wanted: &[&str]) -> Result<(), Failure> {
    let events = ended.events();
    let mut rest = events.iter();
    match wanted.iter().find(|wanted| !rest.any(|event| event == *wanted)) {
        None => Ok(()),
        Some(missing) => Err(Failure::new(format!("no event {missing} in {}", events.join(", ")))),
    }
}

/// Whether the log folds to the messages, and to as many as were acknowledged.
fn folds(found: &Value, acknowledged: usize) -> Result<Done<()>, Failure> {
    let (messages, events) = (&found["messages"], &found["events"]);
    if found["exact"] != true {
        return Err(Failure::new(format!("the log does not fold to the messages: {found}")));
    }
    if messages.as_u64() != u64::try_from(acknowledged).ok() {
        return Err(Failure::new(format!(
            "{acknowledged} messages were acknowledged, and the database has {messages}"
        )));
    }
    Ok(done((), format!("exact: {messages} messages, {events} events")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_is_not_there_or_not_as_the_log_says_is_lost() {
        let good = json!({"exact": true, "messages": 2, "events": 7});
        assert!(folds(&good, 2).is_ok());
        let lost = folds(&good, 3).expect_err("one is lost");
        assert!(lost.reason().contains("3 messages were acknowledged, and the database has 2"));
        for bad in [json!({"exact": false, "messages": 2}), json!({})] {
            assert!(folds(&bad, 2).expect_err("refused").reason().contains("does not fold"));
        }
    }

    #[test]
    fn events_are_looked_for_in_their_order() {
        let event = |kind: &str| json!({"event_type": kind});
        let answer = json!({"events": [event("a"), event("b"), event("c")]});
        let ended = Ended { status: "done".to_owned(), answer };
        assert!(holds(&ended, &["a", "c"]).is_ok());
        for bad in [["c", "a"], ["a", "d"]] {
            assert!(holds(&ended, &bad).is_err(), "{bad:?}");
        }
    }
}
