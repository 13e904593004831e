//! `cogo hub --minimal`: what monitors and scalers ask for, and artifacts, from a few megabytes.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use cogo::bus::{Bus, Feed};
use cogo::db;
use cogo::error::chain;
use cogo::hub::realtime::Realtime;
use cogo::hub::{self, Readiness};
use cogo::remote_env::KeyError;
use cogo::shutdown::{Shutdown, Tasks};
use sqlx::postgres::{PgConnectOptions, PgPool};

use crate::connect::{self, Global, Rights};
use crate::exit::{Exit, Failed};
use crate::lifecycle::{Signals, supervise};
use crate::output::note;
use crate::serve::{CLOSE_WITHIN, Listen, make_dir};
use crate::worker::Limits;
use crate::{jwt_secret, open_files, recorder, store, token, version};

/// Connections to the database: one for what is asked, one for whether it is there.
const CONNECTIONS: u32 = 2;
/// How long it waits for the database before it serves without.
const DATABASE_WITHIN: Duration = Duration::from_secs(3);

/// Serves until a signal comes.
pub(crate) async fn serve(global: &Global, listen: &Listen, limits: &Limits) -> Result<Exit> {
    let mut signals = Signals::serving().context("hearing signals")?;
    let source = global.config()?;
    let mut options: hub::Options = source.load()?;
    let most = open_files::make_room(&mut options);
    let policies: hub::Policies = source.load()?;
    let drain = limits.load(&source)?.drain();
    let database = global.database()?;
    let listener = hub::bind(listen.listen, listen.auto_port)
        .await
        .map_err(|error| Failed::new(Exit::Failed, format!("{:#}", anyhow!(error))))?;
    let (data_dir, artifacts_dir) = (global.data_dir()?, global.artifacts_dir()?);
    let artifacts = store::of(&options, &artifacts_dir, global)?;
    store::check(&artifacts).await?;
    make_dir(&data_dir)?;
    let (token, _) = token::load(&data_dir)?;
    let (keys, _) = jwt_secret::load(&data_dir)?;

    let (shutdown, tasks) = (Shutdown::new(), Tasks::new());
    let metrics = recorder::install(&tasks, &shutdown)?;
    let pool = tokio::select! {
        pool = pool(&database) => pool,
        _ = signals.next() => return Ok(Exit::Interrupted),
    };
    let bus = Bus::new(pool.clone());
    // No route leads to these two: made as they are at the end of a process, they follow nothing.
    let (ended, none) = (Shutdown::new(), Tasks::new());
    ended.cancel();
    let feed = Feed::start(bus.clone(), &none, &ended);
    let (of_keys, of_pool, how) = (keys.clone(), pool.clone(), options.realtime.clone());
    let realtime = Realtime::start(bus.clone(), feed.clone(), of_keys, of_pool, how, &none, &ended);
    let readiness = Readiness::new();
    let serving = readiness.register("hub");
    let listen = listener.local_addr().context("reading the hub's address")?;
    let state = hub::State {
        commit: version::COMMIT,
        bus,
        feed,
        readiness,
        options,
        policies,
        token,
        keys,
        // No route leads to them.
        env_keys: Err(KeyError::Missing),
        callers: pool.clone(),
        realtime,
        metrics,
        listen,
        artifacts,
        artifacts_dir,
    };
    let connections = state.connections().in_all(most);
    let router = hub::minimal_router(state);
    note(&format!("The minimal hub is up at http://{listen}. Ctrl-C stops it."));
    serving.send_replace(true);
    let hub = async {
        hub::serve_within(listener, router, connections, &shutdown).await.context("serving")
    };
    let ended = supervise(&mut signals, &shutdown, drain, hub).await;
    shutdown.cancel();
    if !tasks.join(CLOSE_WITHIN).await {
        tracing::warn!("{} tasks are still running", tasks.len());
    }
    let _too_slow = tokio::time::timeout(CLOSE_WITHIN, pool.close()).await;
    ended?;
    note("Stopped.");
    Ok(Exit::Done)
}

/// Connections with an operator's rights; with the login's own where the database is away, and so does not say
/// whether the login may have fewer.
async fn pool(database: &PgConnectOptions) -> PgPool {
    let opening = connect::pool(database, Rights::Operator, CONNECTIONS);
    let why = match tokio::time::timeout(DATABASE_WITHIN, opening).await {
        Ok(Ok(pool)) => return pool,
        Ok(Err(error)) => chain(error.as_ref()).to_string(),
        Err(_) => format!("no answer within {} s", DATABASE_WITHIN.as_secs()),
    };
    tracing::warn!(error = why, "The database is away; serving without it until it answers");
    let options = db::Options::new(database.clone());
    db::Options { max_connections: CONNECTIONS, ..options }.pool()
}
