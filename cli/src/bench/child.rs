//! Processes of this very program: a hub or a worker on a database of the run.

use std::fs::File;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use cogo::bus::Bus;
use cogo::bus::rest::{self, Key};
use cogo::clock::Stopwatch;
use cogo::identity::{Claims, Keys, generate_secret};
use cogo::net;
use cogo::secret::Secret;
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use crate::bench::Run;
use crate::bench::database::Database;
use crate::bench::load::topic;
use crate::open_files;
use crate::up_file::UpFile;

/// What a process gets of our environment: what it needs to run at all. Nothing that configures it.
const PASSED_ON: [&str; 8] =
    ["HOME", "LANG", "LLVM_PROFILE_FILE", "PATH", "SYSTEMROOT", "TMPDIR", "TEMP", "TMP"];
/// How long it may take to be ready, and to end when it is asked to.
const READY_WITHIN: Duration = Duration::from_secs(60);
const END_WITHIN: Duration = Duration::from_secs(20);
/// How often it is looked whether it is.
const LOOK: Duration = Duration::from_millis(20);

/// A process that runs. Dropped, it is killed.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    log: PathBuf,
    dir: PathBuf,
}

impl Process {
    fn start(
        run: &Run,
        database: &Database,
        name: &str,
        options: &Value,
        args: &[&str],
        env: &[(&str, &str)],
    ) -> Result<Self> {
        let dir = run.place.dir(name)?;
        let configs = dir.join("configs");
        std::fs::create_dir_all(&configs)?;
        std::fs::write(configs.join("hub.json"), options.to_string())?;
        let mut command = Command::new(std::env::current_exe()?);
        command.env_clear().args(args).envs(env.iter().copied());
        command.envs(PASSED_ON.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        command.env("DATABASE_URL", database.url()).env("COGO_DATA_DIR", dir.join("data"));
        command.env("COGO_CONFIG_DIR", &configs);
        let log = dir.join("log");
        let file = File::create(&log).with_context(|| log.display().to_string())?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).current_dir(&dir);
        command.kill_on_drop(true);
        // A Ctrl-C at the terminal is for us; we end it in order.
        #[cfg(unix)]
        command.process_group(0);
        let child = command.spawn().with_context(|| format!("starting cogo {}", args.join(" ")))?;
        Ok(Self { child, log, dir })
    }

    /// A worker of the role `echo`, ready.
    pub(super) async fn worker(run: &Run, database: &Database) -> Result<Self> {
        let mut worker =
            Self::start(run, database, "worker", &json!({}), &["worker", "echo"], &[])?;
        worker.until("is ready", |worker| worker.said().contains("is ready")).await?;
        Ok(worker)
    }

    pub(super) fn pid(&self) -> Result<u32> {
        self.child.id().context("a process that has ended")
    }

    fn said(&self) -> String {
        std::fs::read(&self.log)
            .map_or_else(|_| String::new(), |text| String::from_utf8_lossy(&text).into_owned())
    }

    async fn until(&mut self, what: &str, condition: impl Fn(&Self) -> bool) -> Result<()> {
        let watch = Stopwatch::start();
        while !condition(self) {
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended ({status}) before it {what}: {}", self.said().trim());
            }
            if watch.elapsed() > READY_WITHIN {
                bail!("not within {} s it {what}: {}", READY_WITHIN.as_secs(), self.said().trim());
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Ends it as Ctrl-C does.
    pub(super) async fn stop(mut self) -> Result<()> {
        #[cfg(unix)]
        if let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok())
            && let Some(pid) = rustix::process::Pid::from_raw(pid)
        {
            let _gone_already = rustix::process::kill_process(pid, rustix::process::Signal::INT);
        }
        #[cfg(not(unix))]
        self.child.start_kill()?;
        let ended = tokio::time::timeout(END_WITHIN, self.child.wait()).await;
        ended.with_context(|| format!("it did not end: {}", self.said().trim()))??;
        Ok(())
    }
}

/// A hub, and keys to it.
#[derive(Debug)]
pub(super) struct Hub {
    pub(super) process: Process,
    pub(super) url: String,
    keys: Keys,
}

impl Hub {
    /// One as it comes, but that it takes so many sockets and joins.
    pub(super) async fn start(run: &Run, database: &Database, sockets: usize) -> Result<Self> {
        let most = (sockets + 100).max(2000);
        let options = json!({"realtime": {
            "max_connections": most.max(10_000), "max_connections_per_key": most,
            "joins_per_second": 10_000}});
        let secret = generate_secret();
        let token = generate_secret();
        let args = ["hub", "--listen", "127.0.0.1:0"];
        let env = [("COGO_JWT_SECRET", secret.as_str()), ("COGO_ADMIN_TOKEN", token.as_str())];
        let mut process = Process::start(run, database, "hub", &options, &args, &env)?;
        let data = process.dir.join("data");
        process.until("listens", |_| UpFile::read(&data).is_some()).await?;
        let url = UpFile::read(&data).context("where the hub is")?.url;
        let keys = Keys::new(&[&secret])?;
        let hub = Self { process, url, keys };
        let up = UpFile::read(&data).context("where the hub is")?;
        let watch = Stopwatch::start();
        while let Err(error) = up.ready().await {
            if watch.elapsed() > READY_WITHIN {
                return Err(error.context("the hub did not become ready"));
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(hub)
    }

    /// The key of who may do all, or of a worker that may claim what is measured.
    pub(super) fn key(&self, worker: bool) -> Result<Secret> {
        // An hour is longer than any scenario; four, for who measures a very long one.
        let exp = cogo::clock::utc_now().timestamp() + 4 * 3600;
        let claims = match worker {
            false => json!({"role": "service_role", "exp": exp}),
            true => json!({"role": "authenticated", "exp": exp, "tenant": "default",
                "worker": "bench-0", "topics": [topic().to_string()]}),
        };
        let claims: Claims = serde_json::from_value(claims)?;
        Ok(Secret::from(self.keys.mint(&claims)))
    }

    /// The bus through this hub, as a process on another machine has it.
    pub(super) fn bus(&self, worker: bool) -> Result<Bus> {
        let _somebody_was_first = rustls::crypto::ring::default_provider().install_default();
        let key = Key::Text(self.key(worker)?);
        let net = net::Options::default();
        Ok(Bus::remote(rest::Options { url: self.url.clone(), key, api_key: None, net })?)
    }

    pub(super) async fn stop(self) -> Result<()> {
        self.process.stop().await
    }
}

/// What a process has in memory, in kB.
#[derive(Debug, Clone, Copy)]
pub(super) struct Memory {
    pub(super) resident: f64,
    /// Shared pages counted by their share.
    pub(super) proportional: f64,
    /// What no file is behind: what it has allocated.
    pub(super) anonymous: f64,
}

impl Memory {
    /// Of a process of this machine; an error where there is no /proc to ask.
    pub(super) fn of(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/smaps_rollup");
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("{path}: only Linux tells what a process has in memory"))?;
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            let kb = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
            kb.with_context(|| format!("{path} has no {name}"))
        };
        Ok(Self {
            resident: field("Rss:")?,
            proportional: field("Pss:")?,
            anonymous: field("Anonymous:")?,
        })
    }
}

/// Lets this process and its children have so many files open, sockets among them.
pub(super) fn allow_open_files(count: u64) -> Result<()> {
    if open_files::raise(count).is_some_and(|allowed| allowed < count) {
        bail!(
            "{count} open files are needed, and this process may not have as many: raise the limit (ulimit -Hn), \
             or ask for fewer by --subscribers"
        );
    }
    Ok(())
}
