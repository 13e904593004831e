//! Everything that runs in a run: a hub, workers, proxies between them and what they need, an MCP server.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use cogo::clock::Stopwatch;
use cogo::shutdown::Tasks;
use serde_json::Value;
use sqlx::postgres::PgConnectOptions;
use tempfile::TempDir;

use crate::full_disk::{self, FullDisk};
use crate::http::{self, TOKEN};
use crate::mcp::{Caller, Server};
use crate::plan::{Line, Shape, Target};
use crate::postgres::{self, Postgres};
use crate::process::{Process, Ready, Recipe};
use crate::proxy::{Proxy, To};
use crate::{config, skew};

/// How long a process may take to start, on a machine that is busy.
const START_WITHIN: Duration = Duration::from_secs(30);
/// How long after its death a poisoned worker is started again.
const REVIVED_AFTER: Duration = Duration::from_millis(200);
/// How many messages a worker handles at once: few, so that others have work when it is stopped.
const CONCURRENCY: &str = "8";
/// What a worker says when it works.
const WORKER: Ready = Ready::Says("is ready. Ctrl-C stops it.");

/// What a run is made of; as [`Shape`] says, and these files in each process' configuration directory.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    pub(crate) shape: Shape,
    pub(crate) files: Vec<(String, Value)>,
}

/// A worker for MCP, and its ways out.
#[derive(Debug)]
pub(crate) struct Gateway {
    pub(crate) process: Arc<Process>,
    pub(crate) artifacts: PathBuf,
    database: Proxy,
    good: Proxy,
    sick: Proxy,
    _disk: Option<FullDisk>,
}

/// A process of another kind, and its way to the database.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) process: Arc<Process>,
    database: Proxy,
}

/// All that runs.
#[derive(Debug)]
pub(crate) struct Fleet {
    pub(crate) hub: Member,
    pub(crate) gateways: Vec<Gateway>,
    pub(crate) echo: Option<Member>,
    pub(crate) tail: Option<Member>,
    pub(crate) mcp: Server,
    /// The hub as its clients see it.
    pub(crate) http: Proxy,
    /// The database as the sender of echo messages sees it.
    pub(crate) sender: Proxy,
    pub(crate) postgres: Arc<Postgres>,
    pub(crate) database: String,
    pub(crate) clock: Stopwatch,
    tasks: Tasks,
    dir: TempDir,
}

impl Fleet {
    /// Starts everything on a database of its own, and waits until it is ready.
    pub(crate) async fn start(postgres: Arc<Postgres>, options: &Options) -> Result<Self> {
        let (clock, tasks) = (Stopwatch::start(), Tasks::new());
        let dir = postgres::temp_dir("cogo-chaos-")?;
        let database = format!("chaos_{:016x}", rand::random::<u64>());
        postgres.ready(START_WITHIN).await?;
        postgres.create(&database).await?;
        let (mcp, victims) = Server::new(clock);
        let shape = &options.shape;
        let builder = Builder {
            postgres: &postgres,
            options,
            dir: dir.path(),
            database: &database,
            clock,
            tasks: &tasks,
        };

        let hub = builder.hub(&mcp).await?;
        let mut gateways = Vec::new();
        for number in 0..shape.gateways {
            gateways.push(builder.gateway(&mcp, number).await?);
        }
        let echo = match shape.echo {
            true => Some(builder.member("echo", &["worker", "echo"], WORKER).await?),
            false => None,
        };
        let tail = match shape.tail {
            true => Some(builder.tail().await?),
            false => None,
        };
        let http = Proxy::start(To::Hub(hub_file(dir.path()))).await?;
        let sender = Proxy::start(To::Socket(postgres.socket())).await?;
        let fleet = Self {
            hub,
            gateways,
            echo,
            tail,
            mcp,
            http,
            sender,
            postgres,
            database,
            clock,
            tasks,
            dir,
        };
        fleet.execute(victims);
        fleet.ready().await?;
        for process in fleet.processes() {
            process.measured().await;
        }
        Ok(fleet)
    }

    /// Waits until every process has started.
    pub(crate) async fn ready(&self) -> Result<()> {
        for process in self.processes() {
            process.ready(START_WITHIN).await?;
        }
        Ok(())
    }

    /// Kills the workers that a tool wants killed, and starts them again.
    fn execute(&self, mut victims: tokio::sync::mpsc::UnboundedReceiver<Caller>) {
        let workers: Vec<_> = self.gateways.iter().map(|g| Arc::clone(&g.process)).collect();
        let tasks = self.tasks.clone();
        self.tasks.spawn(async move {
            while let Some(victim) = victims.recv().await {
                let Caller::Gateway(number) = victim else { continue };
                let worker = Arc::clone(&workers[number]);
                tasks.spawn(async move {
                    worker.kill().await;
                    tokio::time::sleep(REVIVED_AFTER).await;
                    worker.revive().await;
                });
            }
        });
    }

    /// All processes of the product.
    pub(crate) fn processes(&self) -> Vec<Arc<Process>> {
        let members = [Some(&self.hub), self.echo.as_ref(), self.tail.as_ref()];
        let members = members.into_iter().flatten().map(|member| &member.process);
        members.chain(self.gateways.iter().map(|gateway| &gateway.process)).cloned().collect()
    }

    /// The process of a target, if there is one.
    pub(crate) fn process(&self, target: Target) -> Option<&Arc<Process>> {
        match target {
            Target::Hub => Some(&self.hub.process),
            Target::Gateway(number) => self.gateways.get(number).map(|gateway| &gateway.process),
            Target::Echo => self.echo.as_ref().map(|echo| &echo.process),
        }
    }

    /// The proxy of a line, if there is one.
    pub(crate) fn line(&self, line: Line) -> Option<&Proxy> {
        match line {
            Line::Database(Target::Hub) => Some(&self.hub.database),
            Line::Database(Target::Gateway(number)) => Some(&self.gateways.get(number)?.database),
            Line::Database(Target::Echo) => self.echo.as_ref().map(|echo| &echo.database),
            Line::Mcp(number, "good") => Some(&self.gateways.get(number)?.good),
            Line::Mcp(number, _) => Some(&self.gateways.get(number)?.sick),
            Line::Http => Some(&self.http),
            Line::Sender => Some(&self.sender),
        }
    }

    /// The database, by no proxy, as the owner of the tables.
    pub(crate) fn owner(&self) -> PgConnectOptions {
        self.postgres.database(&self.database)
    }

    /// The hub, by no proxy.
    pub(crate) fn hub_address(&self) -> Result<SocketAddr> {
        http::hub_address(&hub_file(self.dir.path())).context("the hub has no address")
    }

    /// Asks every process to end; what was not clean about that. Then drops the database.
    pub(crate) async fn end(&self) -> Vec<String> {
        let ending: Vec<_> = self
            .processes()
            .into_iter()
            .map(|process| self.tasks.spawn(async move { process.end().await }))
            .collect();
        let mut problems = Vec::new();
        for ended in ending {
            match ended.await {
                Ok(ended) => problems.extend(ended.err()),
                Err(error) => problems.push(error.to_string()),
            }
        }
        self.mcp.stop();
        if let Err(error) = self.postgres.remove(&self.database).await {
            problems.push(format!("the database cannot be dropped: {error:#}"));
        }
        problems
    }
}

fn hub_file(dir: &Path) -> PathBuf {
    dir.join("hub/data/up.json")
}

/// A toolset that one worker alone serves: what is sent there shows whether that worker works.
pub(crate) fn own_toolset(number: usize) -> String {
    format!("own{number}")
}

/// What each process is made from.
struct Builder<'a> {
    postgres: &'a Arc<Postgres>,
    options: &'a Options,
    dir: &'a Path,
    database: &'a str,
    clock: Stopwatch,
    tasks: &'a Tasks,
}

impl Builder<'_> {
    async fn hub(&self, mcp: &Server) -> Result<Member> {
        let direct = mcp.listen(Caller::Hub).await?;
        let own = (0..self.options.shape.gateways).map(own_toolset);
        let toolsets: Vec<_> = ["good", "sick"]
            .map(str::to_owned)
            .into_iter()
            .chain(own)
            .map(|name| (name, direct))
            .collect();
        config::write(&self.dir.join("hub/configs"), &toolsets, &self.options.files)?;
        let ready = Ready::Hub(hub_file(self.dir));
        self.member("hub", &["hub", "--listen", "127.0.0.1:0"], ready).await
    }

    async fn gateway(&self, mcp: &Server, number: usize) -> Result<Gateway> {
        let direct = mcp.listen(Caller::Gateway(number)).await?;
        let (good, sick) =
            (Proxy::start(To::Address(direct)).await?, Proxy::start(To::Address(direct)).await?);
        let database = Proxy::start(To::Socket(self.postgres.socket())).await?;
        let name = format!("gateway{number}");
        let toolsets = [
            ("good".to_owned(), good.address),
            ("sick".to_owned(), sick.address),
            (own_toolset(number), direct),
        ];
        config::write(&self.dir.join(&name).join("configs"), &toolsets, &self.options.files)?;
        let args = ["worker", "mcp-gateway", "--worker-id", &name, "--concurrency", CONCURRENCY];
        let mut recipe = self.recipe(&name, &args, WORKER, &database)?;
        let shape = &self.options.shape;
        let ahead = shape.skews.get(number).copied().unwrap_or_default();
        recipe.env.extend(skew::environment(ahead));
        let artifacts = self.dir.join(&name).join("data/artifacts");
        let mut disk = None;
        if shape.full_disk == Some(number) {
            if full_disk::mounts() {
                std::fs::create_dir_all(&artifacts)?;
                disk = FullDisk::mount(&artifacts);
            } else {
                (recipe.program, recipe.args) = full_disk::limited(&recipe.program, &recipe.args);
            }
        }
        let process = Process::start(&name, recipe, self.clock, self.tasks);
        Ok(Gateway { process, artifacts, database, good, sick, _disk: disk })
    }

    async fn member(&self, name: &str, args: &[&str], ready: Ready) -> Result<Member> {
        let database = Proxy::start(To::Socket(self.postgres.socket())).await?;
        let recipe = self.recipe(name, args, ready, &database)?;
        let process = Process::start(name, recipe, self.clock, self.tasks);
        Ok(Member { process, database })
    }

    /// A follower of the log whose output nobody reads.
    async fn tail(&self) -> Result<Member> {
        let database = Proxy::start(To::Socket(self.postgres.socket())).await?;
        let args = ["tail", "--follow", "--json", "-n", "1000"];
        let mut recipe = self.recipe("tail", &args, Ready::AtOnce, &database)?;
        recipe.read_stdout = false;
        // Interrupted, which is how a command that follows ends.
        recipe.clean = 130;
        let process = Process::start("tail", recipe, self.clock, self.tasks);
        Ok(Member { process, database })
    }

    fn recipe(&self, name: &str, args: &[&str], ready: Ready, database: &Proxy) -> Result<Recipe> {
        let dir = self.dir.join(name);
        let (configs, data) = (dir.join("configs"), dir.join("data"));
        std::fs::create_dir_all(&configs)?;
        let (user, at) = (cogo::db::embedded::USER, database.address);
        let url = format!("postgres://{user}@{at}/{}?sslmode=disable", self.database);
        let mut env = vec![
            ("DATABASE_URL".to_owned(), url),
            ("COGO_CONFIG_DIR".to_owned(), configs.display().to_string()),
            ("COGO_DATA_DIR".to_owned(), data.display().to_string()),
            ("COGO_ADMIN_TOKEN".to_owned(), TOKEN.to_owned()),
            ("COGO_WORKER_LEASE_MS".to_owned(), config::LEASE_MS.to_string()),
            ("COGO_WORKER_DRAIN_MS".to_owned(), "5000".to_owned()),
        ];
        if let Ok(filter) = std::env::var("COGO_CHAOS_LOG") {
            env.push(("RUST_LOG".to_owned(), filter));
        }
        Ok(Recipe {
            program: PathBuf::from(env!("CARGO_BIN_EXE_cogo")),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            env,
            ready,
            read_stdout: true,
            clean: 0,
        })
    }
}
