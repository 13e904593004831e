//! The step `artifacts`: what attempts left behind is served by the hub, and holds no secret.

use cogo::gate::Failure;
use serde_json::{Value, json};

use super::config::TOOLSET;
use super::secrets::files;
use super::tool::REVEAL;
use super::world::{DONE_WITHIN, World, ensure, gave, happened};

/// What stands where a secret stood.
const MARK: &str = "[redacted]";

/// Sends a secret, has another one given back, and looks for both.
pub(super) async fn artifacts(world: &World) -> Result<((), String), Failure> {
    let password = world.secrets.make("the password in a call's params");
    let params = json!({"password": password, "plain": "to be read"});
    let id = world.enqueue(TOOLSET, REVEAL, &params).await?;
    let (message, events) = world.finished(id, DONE_WITHIN).await?;
    // The tool gave back the header that it was called with.
    gave(&message, MARK)?;
    happened(id, &events, "scheduled, succeeded")?;
    let path = events.last().and_then(|event| event.payload["artifacts"].as_str());
    let path = path.ok_or_else(|| {
        Failure::new(format!("message {id}: its success names no artifacts in the log"))
    })?;
    let request = file(world, path, "request.json").await?;
    ensure(request["params"] == json!({"password": MARK, "plain": "to be read"}), || {
        format!(
            "{path}/request.json: expected the params without the password, and it is {request}"
        )
    })?;
    let response = file(world, path, "response.json").await?;
    ensure(response["content"][0]["text"] == MARK, || {
        format!(
            "{path}/response.json: expected the result without the credentials, and it is {response}"
        )
    })?;
    let summary = file(world, path, "summary.json").await?;
    ensure(summary["message_id"] == id.to_string() && summary["ok"] == true, || {
        format!("{path}/summary.json is not of message {id}: {summary}")
    })?;

    // Each attempt at `fails_twice` and at `strict` has its own files, and those that failed say why.
    let (mut attempts, mut failures) = (0, 0);
    for event in super::log::all(world).await? {
        let is_ours = event.service == TOOLSET && event.event_type == "mcp_call_failed";
        let Some(path) = event.payload["artifacts"].as_str().filter(|_| is_ours) else { continue };
        let error = file(world, path, "error.json").await?;
        ensure(error["class"] == event.payload["class"], || {
            format!("{path}/error.json has another class than the log: {error}")
        })?;
        failures += 1;
    }
    for path in files(&world.places.artifacts)? {
        attempts += usize::from(path.ends_with("summary.json"));
    }
    ensure(failures > 0, || "no failed attempt names its artifacts in the log".to_owned())?;
    world.secrets.are_not_in(&world.places.artifacts)?;
    // Those of the worker from far away lie where it runs.
    let afar = world.places.work.path().join("outbound/data/artifacts");
    let looked = world.secrets.are_not_in(&afar)?;
    ensure(looked > 0, || format!("the outbound worker left nothing in {}", afar.display()))?;
    let detail = format!(
        "{attempts} attempts have files, {failures} of them failed and say why; no secret in them"
    );
    Ok(((), detail))
}

/// A file of an attempt, as the hub serves it.
async fn file(world: &World, path: &str, name: &str) -> Result<Value, Failure> {
    Ok(world.hub.read(&format!("/artifacts/{path}/{name}")).await?.json())
}
