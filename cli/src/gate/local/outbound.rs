//! The step `outbound worker`: one that has a URL and a key alone, no database, and no port.

use std::path::Path;

use cogo::gate::Failure;
use serde_json::json;

use super::config::OUTBOUND;
use super::fleet::is_outbound;
use super::tool::{Called, ECHO, OPEN};
use super::world::{DONE_WITHIN, World, ensure, gave, happened};

/// What it serves is done by it, from outside.
pub(super) async fn outbound(world: &World) -> Result<((), String), Failure> {
    let params = json!({"n": 7});
    let id = world.enqueue(OUTBOUND, ECHO, &params).await?;
    let (message, events) = world.finished(id, DONE_WITHIN).await?;
    gave(&message, &params.to_string())?;
    happened(id, &events, "scheduled, succeeded")?;
    let worker = events.last().and_then(|event| event.worker_id.clone()).unwrap_or_default();
    ensure(is_outbound(&worker), || {
        format!("message {id} is only for the outbound worker, and {worker:?} did it")
    })?;
    let calls = world.tool.calls_of(&id.to_string());
    ensure(matches!(&calls[..], [Called { via, .. }] if via == OPEN), || {
        format!(
            "message {id}: expected one call by the outbound worker's own configuration, and the journal has {calls:?}"
        )
    })?;
    let pid = world.outbound.pid().ok_or_else(|| Failure::new("the outbound worker has ended"))?;
    let looked = look(&Path::new("/proc").join(pid.to_string()))?;
    Ok(((), format!("done by {worker}; {looked}")))
}

/// What the system knows of the process.
#[cfg(target_os = "linux")]
fn look(proc: &Path) -> Result<String, Failure> {
    let ports = listening(proc)?;
    ensure(ports.is_empty(), || format!("the outbound worker listens on {}", ports.join(", ")))?;
    for file in ["environ", "cmdline"] {
        let text = String::from_utf8_lossy(&std::fs::read(proc.join(file))?).into_owned();
        for word in ["DATABASE_URL", "postgres:", "postgresql:", "PGHOST", "PGPASSWORD"] {
            ensure(!text.contains(word), || {
                format!("the outbound worker was given {word} (in its {file})")
            })?;
        }
    }
    Ok("it listens on nothing, and was given no database".to_owned())
}

#[cfg(not(target_os = "linux"))]
fn look(_proc: &Path) -> Result<String, Failure> {
    Ok("whether it listens was not looked at: that takes Linux' /proc".to_owned())
}

/// The addresses that a process listens on, by the kernel's tables of its network and its own files.
#[cfg(target_os = "linux")]
fn listening(proc: &Path) -> Result<Vec<String>, Failure> {
    let mut sockets = Vec::new();
    for entry in std::fs::read_dir(proc.join("fd"))? {
        // One that was closed meanwhile.
        let Ok(target) = std::fs::read_link(entry?.path()) else { continue };
        let target = target.to_string_lossy().into_owned();
        let inode = target.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']'));
        sockets.extend(inode.map(str::to_owned));
    }
    let mut found = Vec::new();
    for table in ["tcp", "tcp6"] {
        // A kernel without IPv6 has no such table.
        let text = std::fs::read_to_string(proc.join("net").join(table)).unwrap_or_default();
        found.extend(listeners(&text, &sockets).into_iter().map(|at| format!("{table} {at}")));
    }
    Ok(found)
}

/// The rows in state LISTEN (`0A`, see proc(5)) of these sockets.
#[cfg(target_os = "linux")]
fn listeners(table: &str, sockets: &[String]) -> Vec<String> {
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (at, state, inode) = (*fields.get(1)?, *fields.get(3)?, *fields.get(9)?);
            (state == "0A" && sockets.iter().any(|socket| socket == inode)).then(|| at.to_owned())
        })
        .collect()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_listens_is_seen_to() {
        let us = Path::new("/proc/self");
        let before = listening(us).expect("looked");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let ours = |found: &[String]| found.iter().any(|at| at.ends_with(&format!(":{port:04X}")));
        assert!(!ours(&before));
        assert!(ours(&listening(us).expect("looked")));
    }
}
