//! What `cogo up` and `cogo hub` have in common: a database, a hub, and perhaps the gateway's worker.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use clap::Args;
use cogo::artifact::{self, Store};
use cogo::bus::{Bus, Feed};
use cogo::config::{Reload, Source};
use cogo::db::embedded::{self, Embedded};
use cogo::hub::realtime::Realtime;
use cogo::hub::{self, AdminToken, Readiness};
use cogo::identity::Keys;
use cogo::live::Live;
use cogo::remote_env::{KeyError, Keyring, RemoteEnv};
use cogo::shutdown::{Shutdown, Tasks};
use cogo_worker_mcp_gateway::catalogue::Catalogue;
use cogo_worker_mcp_gateway::demo::Demo;
use cogo_worker_mcp_gateway::endpoint::{self, Endpoint};
use cogo_worker_mcp_gateway::mesh::Mesh;
use cogo_worker_mcp_gateway::{Gateway, ROLE, api, platform};
use sqlx::postgres::{PgConnectOptions, PgPool};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::connect::{self, Global, Rights};
use crate::exit::{Exit, Failed};
use crate::lifecycle::{Signals, supervise};
use crate::migrate::migrate;
use crate::output::{note, printable};
use crate::reload::{self, Policies};
use crate::token::{self, Lies};
use crate::up_file::UpFile;
use crate::worker::{self, Limits};
use crate::{jwt_secret, open_files, recorder, store, version};

/// How long what stands by may take to end after the work has.
pub(crate) const CLOSE_WITHIN: Duration = Duration::from_secs(5);

/// Where the hub listens.
#[derive(Debug, Args)]
pub(crate) struct Listen {
    /// Where the hub listens; port 0 picks a free one
    #[arg(long, env = "COGO_LISTEN", default_value = "127.0.0.1:8787", value_name = "ADDRESS")]
    pub(crate) listen: SocketAddr,
    /// Pick a free port if that one is taken
    #[arg(long)]
    pub(crate) auto_port: bool,
}

/// What to serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct What {
    /// Start a Postgres of our own, unless another database was named.
    pub(crate) embedded: bool,
    /// Run the gateway's worker and the demo server.
    pub(crate) gateway: bool,
}

/// All that can be known to be wrong before anything is started.
struct Plan {
    source: Source,
    worker: cogo::config::Worker,
    policies: Policies,
    reload: Reload,
    hub: hub::Options,
    /// How many connections the hub may hold.
    connections: usize,
    route_policies: hub::Policies,
    bus_limits: Live<cogo::bus::Limits>,
    /// Without a file those that another hub set are left alone.
    sets_limits: bool,
    mcp: Live<cogo_worker_mcp_gateway::config::Config>,
    data_dir: PathBuf,
    artifacts_dir: PathBuf,
    artifacts: Store,
    database: Option<PgConnectOptions>,
}

impl Plan {
    fn new(global: &Global, limits: &Limits, what: What) -> Result<Self> {
        let source = global.watched_config()?;
        let database =
            if what.embedded { global.named_database()? } else { Some(global.database()?) };
        let (policies, mut reload) = Policies::load(&source)?;
        let bus_limits = reload.watch()?;
        let mcp = reload.watch()?;
        let mut hub: hub::Options = source.load()?;
        let connections = open_files::make_room(&mut hub);
        let artifacts_dir = global.artifacts_dir()?;
        Ok(Self {
            artifacts: store::of(&hub, &artifacts_dir, global)?,
            worker: limits.load(&source)?,
            policies,
            reload,
            hub,
            connections,
            route_policies: source.load()?,
            bus_limits,
            sets_limits: source.has::<cogo::bus::Limits>(),
            mcp,
            data_dir: global.data_dir()?,
            artifacts_dir,
            database,
            source,
        })
    }
}

/// Serves until a signal comes or a part fails.
pub(crate) async fn serve(
    global: &Global,
    listen: &Listen,
    limits: &Limits,
    what: What,
) -> Result<Exit> {
    let mut signals = Signals::serving().context("hearing signals")?;
    let plan = Plan::new(global, limits, what)?;
    store::check(&plan.artifacts).await?;
    // Before Postgres, which takes longer to say that it cannot.
    let listener = hub::bind(listen.listen, listen.auto_port)
        .await
        .map_err(|error| Failed::new(Exit::Failed, format!("{:#}", anyhow!(error))))?;
    make_dir(&plan.data_dir)?;
    let (token, token_lies) = token::load(&plan.data_dir)?;
    let (keys, _) = jwt_secret::load(&plan.data_dir)?;
    let env_keys = env_keys()?;
    let secrets = Secrets { token, token_lies, keys, env_keys };

    let (embedded, database) = match plan.database.clone() {
        Some(database) => (None, database),
        None => {
            note(&format!("Starting Postgres in {}", plan.data_dir.display()));
            let starting = Embedded::start(embedded::Options::new(&plan.data_dir));
            let embedded = tokio::select! {
                started = starting => started?,
                _ = signals.next() => return Ok(Exit::Interrupted),
            };
            let database = embedded.connect_options();
            (Some(embedded), database)
        }
    };
    let served = tokio::select! {
        prepared = prepare(&plan, &database, what) => match prepared {
            Ok(parts) => run(plan, parts, listener, secrets, embedded.as_ref(), &mut signals).await,
            Err(error) => Err(error),
        },
        error = died(embedded.as_ref()) => Err(error),
    };
    if let Some(embedded) = embedded {
        let stopped = embedded.stop().await;
        // What went wrong first is what matters.
        served.and(stopped.map_err(Into::into))?;
    } else {
        served?;
    }
    note("Stopped.");
    Ok(Exit::Done)
}

/// What lets people and remote workers in.
struct Secrets {
    token: AdminToken,
    token_lies: Lies,
    keys: Keys,
    /// What RemoteEnv is sealed with, if there is something.
    env_keys: Result<Keyring, KeyError>,
}

/// The keys of RemoteEnv. A hub does without; but one that cannot be read is a mistake, and better told now.
fn env_keys() -> Result<Result<Keyring, KeyError>> {
    match Keyring::from_env() {
        Ok(keys) => Ok(Ok(keys)),
        Err(KeyError::Missing) => Ok(Err(KeyError::Missing)),
        Err(error) => Err(Failed::usage(error.to_string()).into()),
    }
}

/// The ways to the database: the hub's, its remote callers' and the worker's, each with as few rights as it
/// needs.
struct Parts {
    hub_bus: Bus,
    callers: PgPool,
    worker_bus: Option<Bus>,
}

async fn prepare(plan: &Plan, database: &PgConnectOptions, what: What) -> Result<Parts> {
    // A hub beside others does not change their schema; whoever owns the database does.
    if what.embedded {
        migrate(database).await?;
    }
    let max = plan.worker.max_connections;
    let hub_bus = connect::open(database, Rights::Operator, max).await?;
    if plan.sets_limits {
        let limits = plan.bus_limits.get();
        hub::apply_limits(&hub_bus, &limits).await.context("setting the limits of limits.json")?;
    }
    let callers = connect::pool(database, Rights::Operator, plan.hub.rest.max_connections).await?;
    hub::check_callers(&callers).await;
    let worker_bus = match what.gateway {
        true => Some(hub_bus.beside(connect::pool(database, Rights::Bus, max).await?)),
        false => None,
    };
    Ok(Parts { hub_bus, callers, worker_bus })
}

async fn run(
    plan: Plan,
    parts: Parts,
    listener: TcpListener,
    secrets: Secrets,
    embedded: Option<&Embedded>,
    signals: &mut Signals,
) -> Result<()> {
    make_dir(&plan.artifacts_dir)?;
    let (shutdown, tasks) = (Shutdown::new(), Tasks::new());
    let metrics = recorder::install(&tasks, &shutdown)?;
    reload::start(plan.reload, signals.hung_up(), &tasks, &shutdown);
    hub::follow_limits(parts.hub_bus.clone(), plan.bus_limits.clone(), &tasks, &shutdown);
    let address = listener.local_addr().context("reading the hub's address")?;
    let url = format!("http://{address}");
    // It ends after its callers: a call that is to be put back must not be answered with its end.
    let demo_shutdown = Shutdown::new();
    let demo = match parts.worker_bus {
        Some(_) => {
            Some(Demo::start(demo_shutdown.clone()).await.context("starting the demo server")?)
        }
        None => None,
    };
    let demo_url = demo.as_ref().map(|demo| demo.url.clone());
    let (bus, stop) = (parts.worker_bus.as_ref().unwrap_or(&parts.hub_bus), shutdown.cancelled());
    let remote_env = RemoteEnv::start(
        bus.clone(),
        &plan.worker.tenant,
        secrets.env_keys.clone(),
        &tasks,
        stop.clone(),
    );
    let mut gateway = Gateway::start_with(plan.mcp.clone(), demo_url, &shutdown, remote_env);
    if let Some(dir) = plan.source.dir() {
        gateway = gateway.with_config_dir(dir);
    }
    let artifacts = plan.artifacts.clone();
    let readiness = Readiness::new();
    let serving = readiness.register("hub");
    let worker = parts.worker_bus.map(|bus| {
        let id = worker::new_id(ROLE.name);
        let own = worker::Own {
            bus,
            worker_id: id,
            artifacts_dir: plan.artifacts_dir.clone(),
            artifacts: artifacts.clone(),
            reread: signals.hung_up(),
        };
        let policies = plan.policies.clone();
        let mut context = worker::context(own, &plan.worker, policies, &plan.source, &shutdown);
        context.ready = readiness.register(ROLE.name);
        context
    });
    let pools: Vec<PgPool> = worker
        .iter()
        .map(|context| &context.bus)
        .chain([&parts.hub_bus])
        .filter_map(|bus| bus.pool())
        .chain([&parts.callers])
        .cloned()
        .collect();
    let feed = Feed::start(parts.hub_bus.clone(), &tasks, &shutdown);
    artifact::sweep(
        Some(artifacts.clone()),
        plan.artifacts_dir.clone(),
        plan.hub.retention.artifacts_for(),
        &tasks,
        &shutdown,
    );
    hub::maintenance::start(parts.hub_bus.clone(), plan.hub.retention.clone(), &tasks, &shutdown);
    let realtime = Realtime::start(
        parts.hub_bus.clone(),
        feed.clone(),
        secrets.keys.clone(),
        parts.callers.clone(),
        plan.hub.realtime.clone(),
        &tasks,
        &shutdown,
    );
    let state = hub::State {
        commit: version::COMMIT,
        bus: parts.hub_bus.clone(),
        feed,
        readiness,
        options: plan.hub.clone(),
        policies: plan.route_policies.clone(),
        token: secrets.token,
        keys: secrets.keys,
        env_keys: secrets.env_keys,
        callers: parts.callers,
        realtime,
        metrics,
        listen: address,
        artifacts_dir: plan.artifacts_dir.clone(),
        artifacts: artifacts.clone(),
    };
    let retry = plan.policies.retry.clone();
    // The tools of all machines, wherever their gateways run.
    let (bus, feed) = (state.bus.clone(), state.feed.clone());
    let catalogue = Catalogue::start(bus, feed.clone(), gateway.mesh(), &tasks, &shutdown);
    let mesh = Mesh::new(catalogue.clone(), feed, retry.clone(), gateway.mesh());
    let limits = endpoint::Limits::new(&plan.hub);
    let endpoint = Endpoint::new(
        mesh.clone(),
        platform::Deps { policies: retry.clone() },
        artifacts.clone(),
        state.principals(),
        limits,
        &tasks,
        &shutdown,
    );
    let calls = api::call_routes(mesh, state.principals(), &plan.hub);
    let routes = gateway
        .routes(parts.hub_bus, retry, Some(catalogue.clone()))
        .merge(calls)
        .merge(api::catalogue_routes(catalogue, state.principals()));
    let connections = state.connections().in_all(plan.connections);
    let router = hub::router(state, routes, endpoint.routes());
    let up_file = UpFile { pid: std::process::id(), url: url.clone() }.write(&plan.data_dir)?;

    let ready = worker.as_ref().map(|context| context.ready.subscribe());
    let greeting = greet(&url, &secrets.token_lies, &plan.artifacts_dir, &gateway, ready);
    let hub = async {
        serving.send_replace(true);
        hub::serve_within(listener, router, connections, &shutdown).await.context("serving")
    };
    let working = async {
        match &worker {
            Some(context) => gateway
                .work(context)
                .await
                .map_err(|error| anyhow!(error).context(format!("worker {}", context.worker_id))),
            None => Ok(()),
        }
    };
    let parts = async {
        // The first part that fails takes the others down with it.
        let together = async { tokio::try_join!(hub, working) };
        let (_, ended) = tokio::join!(
            async {
                tokio::select! {
                    () = greeting => {}
                    () = shutdown.draining().cancelled() => {}
                }
            },
            async {
                tokio::select! {
                    ended = together => ended.map(drop),
                    error = died(embedded) => Err(error),
                }
            },
        );
        if !shutdown.draining().is_cancelled() {
            ended?;
            bail!("the hub or its worker ended without having been asked to");
        }
        ended
    };
    let ended = supervise(signals, &shutdown, plan.worker.drain(), parts).await;
    shutdown.cancel();
    drop(up_file);
    gateway.shutdown().await;
    if let Some(demo) = demo {
        demo_shutdown.cancel();
        demo.stopped().await;
    }
    drop(worker);
    if !tasks.join(CLOSE_WITHIN).await {
        tracing::warn!("{} tasks are still running", tasks.len());
    }
    for pool in pools {
        // Before Postgres goes: connections that it cuts off would be complained about.
        let _too_slow = tokio::time::timeout(CLOSE_WITHIN, pool.close()).await;
    }
    ended
}

/// Resolves when the embedded Postgres dies under us; without one never.
async fn died(embedded: Option<&Embedded>) -> anyhow::Error {
    match embedded {
        Some(embedded) => anyhow!(embedded.exited().await).context("Postgres died"),
        None => std::future::pending().await,
    }
}

/// Says, once, where everything is and which toolsets answer.
async fn greet(
    url: &str,
    token: &Lies,
    artifacts_dir: &Path,
    gateway: &Gateway,
    ready: Option<watch::Receiver<bool>>,
) {
    if let Some(mut ready) = ready {
        let _the_end_is_told_elsewhere = ready.wait_for(|ready| *ready).await;
    }
    let token = match token {
        Lies::InEnvironment => format!("in {}", token::VARIABLE),
        Lies::InFile(path) => format!("in {}", path.display()),
    };
    let mut lines = vec![
        "COGO is up.".to_owned(),
        format!("  hub          {url}"),
        format!("  MCP          {url}/mcp"),
        format!("  admin token  {token}"),
        format!("  artifacts    {}", artifacts_dir.display()),
    ];
    for (name, report) in gateway.toolsets().ping_all().await {
        lines.push(match report {
            Ok(report) => {
                let tools = crate::trace::count(report.tools.len(), "tool");
                format!("  toolset      {name} answers: {tools}")
            }
            Err(error) => {
                // The message says at length what the log has said already.
                let endpoint = gateway.toolsets().get(&name).map(|up| up.toolset().endpoint());
                let why = error.message.rsplit(": ").next().unwrap_or_default();
                let endpoint = endpoint.unwrap_or_default();
                format!("  toolset      {name} does not answer at {endpoint}: {}", printable(why))
            }
        });
    }
    // With this data directory, so that the key is signed by the secret that the hub found there.
    let mint = "cogo token mint --tenant default --worker NAME --topic 'ROLE/*'";
    lines.push(format!("  join it      {mint}; then: cogo worker ROLE --url {url} --key KEY"));
    lines.push("Ctrl-C stops it.".to_owned());
    note(&lines.join("\n"));
}

pub(crate) fn make_dir(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))
}
