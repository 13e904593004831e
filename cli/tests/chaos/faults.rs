//! Injects the faults of a plan, each at its time.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use cogo::shutdown::Tasks;
use serde::Serialize;

use crate::fleet::Fleet;
use crate::mcp::Does;
use crate::plan::{Fault, Kind};
use crate::process::Signal;

/// A fault that was injected.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Injected {
    pub(crate) kind: String,
    pub(crate) target: String,
    /// When it began and ended, in milliseconds from the start of the run.
    pub(crate) at_ms: u64,
    pub(crate) until_ms: u64,
    /// What else there is to say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<String>,
}

/// Injects all faults at their times, from now on; ends when the last one is over.
pub(crate) async fn inject(fleet: &Arc<Fleet>, faults: &[Fault]) -> Result<Vec<Injected>> {
    let tasks = Tasks::new();
    let injecting: Vec<_> = faults
        .iter()
        .cloned()
        .map(|fault| {
            let fleet = Arc::clone(fleet);
            tasks.spawn(async move {
                tokio::time::sleep(Duration::from_millis(fault.at_ms)).await;
                let at_ms = fleet.clock.elapsed_ms();
                let (kind, target) = (fault.kind.name(), fault.kind.target());
                let note = carry_out(&fleet, &fault)
                    .await
                    .with_context(|| format!("injecting {kind} into {target}"))?;
                let until_ms = fleet.clock.elapsed_ms();
                anyhow::Ok(Injected { kind, target, at_ms, until_ms, note })
            })
        })
        .collect();
    // All of them to their end, whatever becomes of one: a process that was stopped must go on.
    let ended = futures_util::future::join_all(injecting).await;
    let mut injected = Vec::new();
    for fault in ended {
        injected.push(fault??);
    }
    injected.sort_by_key(|fault| fault.at_ms);
    Ok(injected)
}

async fn carry_out(fleet: &Fleet, fault: &Fault) -> Result<Option<String>> {
    let duration = Duration::from_millis(fault.for_ms);
    match fault.kind {
        Kind::Kill(target) => {
            let process = fleet.process(target).context("there is no such process")?;
            let ran = process.kill().await;
            tokio::time::sleep(duration).await;
            process.revive().await;
            Ok((!ran).then(|| "it was not running".to_owned()))
        }
        Kind::Stop(target) => {
            let process = fleet.process(target).context("there is no such process")?;
            let ran = process.signal(Signal::STOP).await;
            tokio::time::sleep(duration).await;
            let went_on = process.signal(Signal::CONT).await;
            Ok((!ran || !went_on).then(|| "it was not running".to_owned()))
        }
        Kind::KillPostgres => {
            fleet.postgres.kill(duration).await?;
            Ok(None)
        }
        Kind::KillBackend => {
            let pid = fleet.postgres.kill_session(&fleet.database).await?;
            tokio::time::sleep(duration).await;
            Ok(pid.is_none().then(|| "there was no session".to_owned()))
        }
        Kind::Sicken(tool) => {
            fleet.mcp.change(tool, Does::Dies);
            tokio::time::sleep(duration).await;
            fleet.mcp.mend(tool);
            Ok(None)
        }
        Kind::Wire(line, wire) => {
            let proxy = fleet.line(line).context("there is no such line")?;
            proxy.hurt(wire, duration).await;
            Ok(Some(format!("{wire:?}")))
        }
    }
}
