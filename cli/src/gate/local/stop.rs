//! The step `stop`: SIGTERM ends everything in time, and nothing remains.

use std::time::Duration;

use cogo::gate::Failure;

use super::wait::Patience;
use super::work::users;
use super::world::{World, ensure};

/// How long a process may take to end: the workers have nothing in hand any more.
const ENDS_WITHIN: Duration = Duration::from_secs(30);
/// How long the system may take to forget a process that has ended.
const GONE_WITHIN: Duration = Duration::from_secs(15);

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
        let left = users(&remains);
        if left.is_empty() {
            break;
        }
        patience.again(format!("left are {left:?}")).await?;
    }
    let files = world.secrets.are_not_in(&world.places.dir)?;
    world.places.work.remove()?;
    Ok((
        (),
        format!(
            "exit 0 of {}; nothing remains, and no secret is in {files} files",
            told.join(", ")
        ),
    ))
}

/// Fails the stage where the fault that was asked for did not come to be: a gate that passes then has shown nothing.
pub(super) fn noticed(fault: Option<super::Fault>) -> Result<(), Failure> {
    ensure(fault.is_none(), || "a fault was injected, and no step noticed it".to_owned())
}
