//! The step `nothing lost`: what was acknowledged is finished, and the log tells the table. And the fault that must be
//! found by it.

use std::time::Duration;

use cogo::gate::Failure;
use cogo::message::{MessageId, Status};
use serde_json::Value;

use super::background::trivial;
use super::record::Record;
use super::wait::Patience;
use super::world::{World, ensure, told};

/// How long what was sent last may take.
const ALL_WITHIN: Duration = Duration::from_secs(120);
/// How long the message waits that is to be lost: long enough to be lost before anybody claims it.
const WAITS: Duration = Duration::from_secs(30);

/// Looks for each id that a sender was given.
pub(super) async fn nothing_lost(
    world: &mut World,
    record: &Record<'_, '_>,
) -> Result<((), String), Failure> {
    let acknowledged = world.acknowledged.all();
    let patience = Patience::with("all that was acknowledged is done", ALL_WITHIN);
    let mut left = acknowledged.clone();
    while !left.is_empty() {
        world.all_run()?;
        let mut unfinished = Vec::new();
        for (id, way) in &left {
            match world.find(*id).await? {
                Some(message) if message.status == Status::Done => {}
                Some(message) => unfinished.push(((*id, *way), told(&message))),
                None => return Err(lost(world, *id, way).await?),
            }
        }
        if let Some(((id, way), seen)) = unfinished.first() {
            let count = unfinished.len();
            patience.again(format!("{count} are not; message {id}, sent {way}: {seen}")).await?;
        }
        left = unfinished.into_iter().map(|(id, _)| id).collect();
    }
    let recipe = world.command("replay-verify")?.args(["replay", "verify", "--json"]);
    let printed = recipe.run().await?.ok()?;
    let verified: Value = serde_json::from_str(&printed)?;
    ensure(verified["exact"] == true, || format!("`cogo replay verify`: {printed}"))?;
    let over = |way: &str| acknowledged.iter().filter(|(_, other)| *other == way).count();
    let (http, postgres) = (over("over HTTP"), over("over Postgres"));
    record.figure("acknowledged_over_http", http);
    record.figure("acknowledged_over_postgres", postgres);
    record.figure("replay", verified.clone());
    let (messages, events) = (&verified["messages"], &verified["events"]);
    let detail = format!(
        "all {} acknowledged messages are done ({http} sent over HTTP, {postgres} over Postgres); `replay verify`: exact, {messages} messages, {events} events",
        acknowledged.len()
    );
    Ok(((), detail))
}

/// That a message is not there, and what the log knows of it.
async fn lost(world: &World, id: MessageId, way: &str) -> Result<Failure, Failure> {
    let events = world.events(id).await?;
    let log = match events.last() {
        None => "the log knows nothing of it".to_owned(),
        Some(last) => {
            let types: Vec<&str> = events.iter().map(|event| event.event_type.as_str()).collect();
            let (types, at) = (types.join(", "), last.created_at.to_rfc3339());
            format!("the log has {types} (the last at {at})")
        }
    };
    Ok(Failure::new(format!(
        "message {id}, acknowledged when it was sent {way}, is lost: agent_messages does not have it, and {log}"
    ))
    .remedy(
        "Find who changes agent_messages beside the bus_* functions. `cogo replay rebuild --yes` brings back what the log holds.",
    ))
}

/// The fault `lost-message`: takes a message that waits out of the table, as only the database's owner can.
pub(super) async fn lose_one(world: &World) -> Result<MessageId, Failure> {
    let receipt = world.bus.publish(trivial(0, WAITS)).await?;
    world.acknowledged.add(receipt.id, "over Postgres");
    let Some(pool) = world.bus.pool() else { return Err(Failure::new("there is no database")) };
    let gone =
        sqlx::query("delete from public.agent_messages where id = $1 and status = 'delayed'")
            .bind(receipt.id.0)
            .execute(pool)
            .await?;
    ensure(gone.rows_affected() == 1, || format!("message {} could not be lost", receipt.id))?;
    Ok(receipt.id)
}
