//! The step `stop`: SIGTERM ends everything in time, and nothing remains.

use std::path::Path;
use std::time::Duration;

use cogo::gate::Failure;

use super::wait::Patience;
use super::world::{World, ensure};

/// How long a process may take to end: the workers have nothing in hand any more.
const ENDS_WITHIN: Duration = Duration::from_secs(15);
/// How long the system may take to forget a process that has ended.
const GONE_WITHIN: Duration = Duration::from_secs(5);

/// Ends the workers, the hub and the database, in this order.
pub(super) async fn stop(world: &mut World) -> Result<((), String), Failure> {
    world.all_run()?;
    let mut told = Vec::new();
    let processes = world.servers.iter_mut();
    for process in processes.chain([&mut world.outbound, &mut world.hub_process]) {
        let took = process.stop(ENDS_WITHIN).await?;
        told.push(format!("{} {} ms", process.name, took.as_millis()));
    }
    if let Some(pool) = world.bus.pool() {
        pool.close().await;
    }
    world.postgres.stop().await?;
    let remains = world.places.work.path().to_owned();
    let patience = Patience::with("all processes of the scenario are gone", GONE_WITHIN);
    loop {
        let left = processes_of(&remains);
        if left.is_empty() {
            break;
        }
        patience.again(format!("left are {}", left.join(", "))).await?;
    }
    let files = world.secrets.are_not_in(&world.places.dir)?;
    world.places.work.remove()?;
    Ok(((), format!("exit 0 of {}; nothing remains, and no secret is in {files} files", told.join(", "))))
}

/// The processes that were told of the working directory, by their arguments or their environment. Where there is no
/// /proc, those that were started here were waited for all the same.
fn processes_of(work: &Path) -> Vec<String> {
    let work = work.to_string_lossy().into_owned();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_ours = name.parse::<u32>().is_ok_and(|pid| pid != std::process::id());
        let holds = |file: &str| {
            let text = std::fs::read(entry.path().join(file)).unwrap_or_default();
            String::from_utf8_lossy(&text).contains(&work)
        };
        if is_ours && (holds("cmdline") || holds("environ")) {
            found.push(name);
        }
    }
    found
}

/// Fails the stage where the fault that was asked for did not come to be: a gate that passes then has shown nothing.
pub(super) fn noticed(fault: Option<super::Fault>) -> Result<(), Failure> {
    ensure(fault.is_none(), || "a fault was injected, and no step noticed it".to_owned())
}
