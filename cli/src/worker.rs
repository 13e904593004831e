//! `cogo worker <role>`: the table of roles, and how one is run.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process;

use anyhow::{Context as _, Result, anyhow};
use clap::{Args, Subcommand};
use cogo::artifact::{self, Store};
use cogo::bus::Bus;
use cogo::config::{File as _, Source};
use cogo::live::Live;
use cogo::shutdown::{Shutdown, Tasks};
use cogo::worker::{Context, Prefetch, Role};
use rand::RngExt as _;
use serde::Serialize;
use tokio::sync::watch;

use crate::connect::{Global, Rights, open};
use crate::exit::{Exit, Failed};
use crate::install::Install;
use crate::lifecycle::{Signals, supervise};
use crate::output::{Cell, Ink, Output, note};
use crate::probe::Probe;
use crate::reload::{self, Policies};
use crate::remote;
use crate::store;

/// The roles that this binary has.
const ROLES: &[Role] = &[cogo_worker_echo::ROLE, cogo_worker_mcp_gateway::ROLE];

/// Run a worker, until Ctrl-C
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  cogo worker                                   list the roles
  cogo worker echo
  cogo worker mcp-gateway --concurrency 4 --metrics-listen 127.0.0.1:9464
  cogo worker mcp-gateway --url https://hub.example.com --key-file laptop.key
  cogo worker mine --anything                   runs `cogo-worker-mine` from PATH
  cogo worker install --help                    have this machine always run one

A worker needs outbound connections only; with --url it needs no database either. The first Ctrl-C
(or SIGTERM) lets it finish what it has in hand, a second one ends it at once; what it held comes
back when its leases run out.

A role that is not built in is a program `cogo-worker-<role>` on PATH. It gets all further
arguments, and DATABASE_URL (or COGO_URL with COGO_KEY or COGO_KEY_FILE), COGO_CONFIG_DIR and
COGO_ARTIFACTS_DIR in its environment."
)]
pub(crate) struct Worker {
    #[command(subcommand)]
    command: Option<Command>,
    /// Which role; without one, the roles are listed
    role: Option<String>,
    /// Who this worker is, unique among all; by default <role>-<host>-<random>
    #[arg(long, value_name = "ID")]
    worker_id: Option<String>,
    /// Serve /metrics, /healthz and /readyz here; by default a worker opens no port
    #[arg(long, env = "COGO_METRICS_LISTEN", value_name = "ADDRESS")]
    metrics_listen: Option<SocketAddr>,
    #[command(flatten)]
    pub(crate) limits: Limits,
    /// For a role that is a program of its own
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    args: Vec<String>,
}

/// What goes before the roles: no role can be called that.
#[derive(Debug, Subcommand)]
enum Command {
    Install(Install),
}

/// Flags that go over `worker.json`.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Limits {
    /// How many messages to handle at once
    #[arg(long, value_name = "N")]
    pub(crate) concurrency: Option<usize>,
    /// How many claimed messages may wait here until a handler is free: `auto`, or a number
    #[arg(long, value_name = "AUTO|N")]
    pub(crate) prefetch: Option<Prefetch>,
    /// How long handlers may take to finish when stopping, in milliseconds
    #[arg(long, value_name = "MS")]
    pub(crate) drain_ms: Option<u64>,
}

impl Limits {
    /// `worker.json`, the environment over it, and the flags over both.
    pub(crate) fn load(&self, source: &Source) -> Result<cogo::config::Worker> {
        let mut worker: cogo::config::Worker = source.load()?;
        worker.concurrency = self.concurrency.unwrap_or(worker.concurrency);
        worker.prefetch = self.prefetch.unwrap_or(worker.prefetch);
        worker.drain_ms = self.drain_ms.unwrap_or(worker.drain_ms);
        worker.validate().map_err(|invalid| {
            let flag = invalid.field.replace('_', "-");
            Failed::usage(format!("--{flag}: {}", invalid.rule))
        })?;
        Ok(worker)
    }
}

/// The bus, and who a worker is on it.
struct Joined {
    bus: Bus,
    id: String,
    tenant: String,
}

#[derive(Debug, Serialize)]
struct Listed {
    name: &'static str,
    about: &'static str,
}

impl Worker {
    /// Whether it runs until it is told to stop.
    pub(crate) fn serves(&self) -> bool {
        self.command.is_none()
    }

    /// The role, where this binary has it and is to run it.
    pub(crate) fn built_in(&self) -> Option<&'static str> {
        let name = self.role.as_deref().filter(|_| self.serves())?;
        ROLES.iter().map(|role| role.name).find(|role| *role == name)
    }

    pub(crate) async fn run(self, global: &Global, output: Output) -> Result<Exit> {
        if let Some(Command::Install(install)) = self.command {
            return install.run(global, output);
        }
        let Some(name) = &self.role else { return list(output) };
        match ROLES.iter().find(|role| role.name == name) {
            Some(_) if !self.args.is_empty() => {
                let text = format!("unexpected argument {:?}", self.args[0]);
                Err(Failed::usage(text).hint("See `cogo worker --help`.").into())
            }
            Some(role) => self.start(role, global).await,
            None => self.external(name, global),
        }
    }

    async fn start(&self, role: &Role, global: &Global) -> Result<Exit> {
        let mut signals = Signals::serving().context("hearing signals")?;
        let source = global.watched_config()?;
        let options = self.limits.load(&source)?;
        let (policies, reload) = Policies::load(&source)?;
        let probe = match self.metrics_listen {
            Some(address) => Some(Probe::bind(address).await?),
            None => None,
        };
        let Joined { bus, id, tenant } = tokio::select! {
            joined = self.join(role, global, &options) => joined?,
            _ = signals.next() => return Ok(Exit::Interrupted),
        };
        let options = cogo::config::Worker { tenant, ..options };
        let (shutdown, tasks) = (Shutdown::new(), Tasks::new());
        let artifacts_dir = global.artifacts_dir()?;
        let hub_options = source.load::<cogo::options::Options>()?;
        // A hub lets go of what is in the store; the files of attempts lie on this machine.
        let dir = artifacts_dir.clone();
        let keep = hub_options.retention.artifacts_for();
        artifact::sweep(None, dir, keep, &tasks, &shutdown);
        let artifacts = match bus.artifacts() {
            Some(store) => store,
            None => {
                let store = store::of(&hub_options, &artifacts_dir, global)?;
                store::check(&store).await?;
                store
            }
        };
        let reread = signals.hung_up();
        let own = Own { bus, worker_id: id, artifacts_dir, artifacts, reread };
        let context = context(own, &options, policies, &source, &shutdown);
        let mut ready = context.ready.subscribe();
        if let Some(probe) = probe {
            probe.start(ready.clone(), &tasks, &shutdown)?;
        }
        reload::start(reload, signals.hung_up(), &tasks, &shutdown);
        let ended = (role.start)(context.clone());
        let name = role.name;
        let work = async {
            tokio::pin!(ended);
            let ready = tokio::select! {
                ended = &mut ended => return over(name, ended),
                ready = ready.wait_for(|ready| *ready) => ready.is_ok(),
            };
            if ready {
                note(&format!("Worker {} is ready. Ctrl-C stops it.", context.worker_id));
            }
            over(name, ended.await)
        };
        supervise(&mut signals, &shutdown, options.drain(), work).await?;
        note("Stopped.");
        Ok(Exit::Done)
    }

    /// The bus, and who this worker is on it.
    async fn join(
        &self,
        role: &Role,
        global: &Global,
        options: &cogo::config::Worker,
    ) -> Result<Joined> {
        let Some(url) = global.url()? else {
            let database = global.database()?;
            let bus = open(&database, Rights::Bus, options.max_connections).await?;
            let id = self.worker_id.clone().unwrap_or_else(|| new_id(role.name));
            return Ok(Joined { bus, id, tenant: options.tenant.clone() });
        };
        let bus = global.remote.bus_when_there(url).await?;
        let tenant = remote::tenant(&bus, &options.tenant)?;
        let id = match &self.worker_id {
            Some(id) => id.clone(),
            None => remote::worker_id(&bus, role.name, || new_id(role.name)),
        };
        remote::greet(&bus, url, &id, &tenant);
        Ok(Joined { bus, id, tenant })
    }

    /// A role of somebody else's: an executable on `PATH`, as `cargo` and `git` do it.
    fn external(&self, role: &str, global: &Global) -> Result<Exit> {
        if !cogo::message::valid_name(role) {
            let rule = cogo::message::NAME_RULE;
            return Err(Failed::usage(format!("role: {role:?} is not {rule}")).into());
        }
        let program = format!("cogo-worker-{role}");
        let mut command = process::Command::new(&program);
        command.args(&self.args);
        if global.url()?.is_some() {
            // The program must not find both and wonder.
            command.env_remove("DATABASE_URL").envs(global.remote.environment());
        } else if let Some(url) = &global.database_url {
            command.env_remove("COGO_URL").env("DATABASE_URL", url);
        }
        if let Some(dir) = global.config_dir()? {
            command.env("COGO_CONFIG_DIR", dir);
        }
        command.env("COGO_ARTIFACTS_DIR", global.artifacts_dir()?);
        let missing = |error: std::io::Error| {
            if error.kind() == std::io::ErrorKind::NotFound {
                let known = ROLES.iter().map(|role| role.name).collect::<Vec<_>>().join(", ");
                Failed::new(Exit::NotFound, format!("there is no role {role:?}"))
                    .hint(format!(
                        "Built in: {known}. Others are programs on PATH: no `{program}`."
                    ))
                    .into()
            } else {
                anyhow::Error::from(error).context(format!("starting {program}"))
            }
        };
        run_instead(command).map_err(missing)
    }
}

/// Becomes the program, so that signals and the exit code are its own.
#[cfg(unix)]
fn run_instead(mut command: process::Command) -> std::io::Result<Exit> {
    use std::os::unix::process::CommandExt as _;
    Err(command.exec())
}

#[cfg(not(unix))]
fn run_instead(mut command: process::Command) -> std::io::Result<Exit> {
    let status = command.status()?;
    process::exit(status.code().unwrap_or(Exit::Failed as i32))
}

fn list(output: Output) -> Result<Exit> {
    if output.json {
        let listed: Vec<_> =
            ROLES.iter().map(|role| Listed { name: role.name, about: role.about }).collect();
        output.value(&listed)?;
    } else {
        let rows: Vec<_> = ROLES
            .iter()
            .map(|role| vec![Cell::new(role.name, Ink::Name), Cell::plain(role.about)])
            .collect();
        output.table(&["ROLE", "ABOUT"], &rows)?;
        note("Run one with `cogo worker <role>`.");
    }
    Ok(Exit::Done)
}

/// What is a worker's own; the rest of its context is from the configuration.
pub(crate) struct Own {
    pub(crate) bus: Bus,
    pub(crate) worker_id: String,
    pub(crate) artifacts_dir: PathBuf,
    pub(crate) artifacts: Store,
    pub(crate) reread: Live<()>,
}

/// What a role is given to run with.
pub(crate) fn context(
    own: Own,
    options: &cogo::config::Worker,
    policies: Policies,
    source: &Source,
    shutdown: &Shutdown,
) -> Context {
    let Own { bus, worker_id, artifacts_dir, artifacts, reread } = own;
    Context {
        bus,
        worker_id,
        tenant: options.tenant.clone(),
        concurrency: options.concurrency,
        prefetch: options.prefetch,
        lease: options.lease(),
        drain: options.drain(),
        retry: policies.retry,
        breaker: policies.breaker,
        config_dir: source.dir().map_or_else(|| PathBuf::from("configs"), PathBuf::from),
        artifacts_dir,
        artifacts,
        reread,
        shutdown: shutdown.clone(),
        ready: watch::Sender::new(false),
    }
}

fn over(role: &str, ended: Result<(), cogo::worker::RoleError>) -> Result<()> {
    ended.map_err(|error| {
        // What the bus refused keeps its exit code.
        let error = match error.downcast::<cogo::bus::Error>() {
            Ok(refused) => anyhow::Error::from(*refused),
            Err(other) => anyhow!(other),
        };
        error.context(format!("worker {role}"))
    })
}

/// `<role>-<host>-<random>`: readable, and unique also for two workers of a host.
pub(crate) fn new_id(role: &str) -> String {
    let host: String = host_name()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '-' })
        .take(63)
        .collect();
    let random: u32 = rand::rng().random();
    format!("{role}-{host}-{random:08x}")
}

fn host_name() -> String {
    let variable = |name| std::env::var(name).ok();
    let file = || std::fs::read_to_string("/etc/hostname").ok();
    let name = variable("HOSTNAME").or_else(|| variable("COMPUTERNAME")).or_else(file);
    let name = name.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
    name.unwrap_or_else(|| "host".to_owned())
}
