//! The steps in their order, and what is kept of them.

use std::path::Path;

use cogo::bus::Bus;
use cogo::db;
use cogo::gate::{Failure, Steps, Stopped};

use super::background::Background;
use super::database::{self, Postgres};
use super::fleet::Plan;
use super::record::Record;
use super::secrets::Secrets;
use super::tool::Tool;
use super::work::Work;
use super::world::{Acknowledged, Places, World};
use super::{Fault, LocalOptions};
use super::{
    artifacts, breaker, calls, config, killed, log, metrics, nothing_lost, outbound, stop,
};
use crate::connect::Global;
use crate::output::note;

/// How the workers beside the database are called.
const FIRST: &str = "gate-server-1";
const SPARE: &str = "gate-server-2";

/// Goes through all steps.
pub(super) async fn run(
    global: &Global,
    dir: &Path,
    options: &LocalOptions,
    steps: &Steps<'_>,
) -> Result<(), Stopped> {
    let secrets = Secrets::default();
    let record = Record::new(steps, secrets.clone());
    // Processes are started in other directories than this one.
    let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    steps.artifacts(&dir);
    let ended = through(global, &dir, options, &record, secrets).await;
    if let Err(error) = record.write(&dir) {
        note(&format!("{}: {error}", dir.join("summary.json").display()));
    }
    ended
}

async fn through(
    global: &Global,
    dir: &Path,
    options: &LocalOptions,
    record: &Record<'_, '_>,
    secrets: Secrets,
) -> Result<(), Stopped> {
    let prepare = async { config::prepare(global, &dir.join("configs"), options.inject) };
    let configs = record.step("config", prepare).await?;
    let database = async {
        let places = Places::new(dir, Work::new(options.keep)?)?;
        let (postgres, seen) = Postgres::start(&places.work, &secrets).await?;
        Ok(((places, postgres), seen))
    };
    // What is bound last is dropped first: the processes, the database, the directory.
    let (places, postgres) = record.step("database", database).await?;
    let guard = (postgres, places);
    let (postgres, places) = (&guard.0, &guard.1);
    let migrate = async {
        let source = match options.inject {
            Some(Fault::BrokenMigration) => Some(database::broken_migrations(&places.work)?),
            _ => options.migrations.as_deref().map(std::path::absolute).transpose()?,
        };
        let recipe = places.recipe("migrate")?.args(["migrate"]);
        database::migrate(recipe.env("DATABASE_URL", postgres.url()), source.as_deref()).await
    };
    record.step("migrate", migrate).await?;

    let tool_token = format!("Bearer {}", secrets.make("the credentials for the tool"));
    let hub = async {
        let tool = Tool::start(secrets.know("the header for the tool", tool_token.clone())).await?;
        let plan = Plan {
            places,
            postgres,
            configs: &configs,
            secrets: &secrets,
            tool: &tool,
            tool_token: &tool_token,
        };
        let (started, seen) = plan.hub().await?;
        Ok(((tool, started), seen))
    };
    let (tool, started) = record.step("hub", hub).await?;
    let plan = Plan {
        places,
        postgres,
        configs: &configs,
        secrets: &secrets,
        tool: &tool,
        tool_token: &tool_token,
    };
    let bus = Bus::new(db::Options::new(postgres.connect().clone()).pool());
    let workers = async {
        let (server, outbound) = tokio::try_join!(plan.server(FIRST), plan.outbound(&started))?;
        let seen = plan.known(&bus, &started.hub, 2).await?;
        Ok(((server, outbound), seen))
    };
    let (server, outbound) = record.step("workers", workers).await?;
    let (postgres, places) = guard;
    let mut world = World {
        servers: vec![server],
        outbound,
        hub_process: started.process,
        hub: started.hub,
        bus,
        tool,
        configs,
        secrets,
        acknowledged: Acknowledged::default(),
        postgres,
        places,
    };
    let ended = acts(&mut world, record, options.inject, &tool_token).await;
    if ended.is_err() {
        // The best evidence that can be had; what went wrong is told already.
        for kept in [log::write(&world).await.map(drop), keep_metrics(&world).await] {
            if let Err(failure) = kept {
                note(&format!("What was left behind is not complete: {failure}"));
            }
        }
    }
    ended
}

async fn keep_metrics(world: &World) -> Result<(), Failure> {
    let text = world.hub.read("/metrics").await?.text;
    Ok(std::fs::write(world.places.dir.join("metrics.txt"), world.secrets.hide(&text))?)
}

/// What is done once everything runs.
async fn acts(
    world: &mut World,
    record: &Record<'_, '_>,
    inject: Option<Fault>,
    tool_token: &str,
) -> Result<(), Stopped> {
    if inject == Some(Fault::LostMessage) {
        match nothing_lost::lose_one(world).await {
            Ok(id) => note(&format!("Lost message {id}, on purpose")),
            Err(failure) => record.step("inject", async { Err(failure) }).await?,
        }
    }
    let background = Background::start(world);
    record.step("call", calls::call(world, record)).await?;
    record.step("retry", calls::retry(world, record)).await?;
    record.step("breaker", breaker::breaker(world, record)).await?;
    record.step("dead letter", calls::dead_letter(world)).await?;
    record.step("outbound worker", outbound::outbound(world)).await?;
    let killed = async {
        let spare = {
            let World { places, postgres, configs, secrets, tool, .. } = &*world;
            Plan { places, postgres, configs, secrets, tool, tool_token }.server(SPARE).await?
        };
        let seen = killed::killed(world, record, spare).await?;
        background.ended().await?;
        Ok(seen)
    };
    record.step("killed worker", killed).await?;
    record.step("artifacts", artifacts::artifacts(world)).await?;
    let text = record.step("metrics", metrics::metrics(world)).await?;
    record.step("events", log::events(world, record)).await?;
    record.step("nothing lost", nothing_lost::nothing_lost(world, record)).await?;
    let stop = async {
        stop::noticed(inject)?;
        let events = log::write(world).await?;
        record.figure("events", events);
        record.figure("calls", world.tool.journal().len());
        std::fs::write(world.places.dir.join("metrics.txt"), world.secrets.hide(&text))?;
        stop::stop(world).await
    };
    record.step("stop", stop).await
}
