//! `cogo worker install`: a worker that the machine keeps running.

mod key;
mod launchd;
mod service;
mod systemd;
mod windows;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Args;
use cogo::identity::{WORKER_RULE, valid_worker};
use cogo::message::{NAME_RULE, valid_name};
use serde_json::json;

use crate::connect::Global;
use crate::exit::{Exit, Failed};
use crate::output::{Output, note};
use crate::private_file;
use crate::worker::Limits;
use key::Key;
use service::{Owner, Platform, Service};

/// What a service may take to stop beyond its drain, in seconds: to give back claims and close connections.
const STOP_SLACK_S: u64 = 15;

/// Have this machine run a worker from now on: writes the service file
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cogo worker install mcp-gateway --url https://hub.example --key-file laptop-1.key
  sudo cogo worker install --system --url https://hub.example --key-file laptop-1.key
  cogo worker install --url https://hub.example --print                 look at it first
  cogo worker install --url https://hub.example --platform launchd --print

Writes a systemd unit, a launchd agent or, on Windows, a script that registers a scheduled task, and
beside it a file with the key that only its owner may read; the key is on no command line. What
starts the service is printed on stdout. For a new key run it again with that key.")]
pub(crate) struct Install {
    /// Which role
    #[arg(default_value = "mcp-gateway", value_parser = role)]
    role: String,
    /// The hub, or the Supabase project, as https://…
    #[arg(long, env = "COGO_URL", value_parser = url)]
    url: String,
    /// A file with the key; without it the key is taken from COGO_KEY
    #[arg(long, env = "COGO_KEY_FILE", value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Run as you, while you are logged in (the default; `loginctl enable-linger` makes it always)
    #[arg(long, conflicts_with = "system")]
    user: bool,
    /// Run from the start of the machine on, as nobody in particular; needs administrator's rights
    #[arg(long)]
    system: bool,
    /// With --system: run as this user of the machine
    #[arg(long, value_name = "USER", requires = "system", value_parser = account)]
    run_as: Option<String>,
    /// Which manager of services; by default that of this machine
    #[arg(long, value_enum)]
    platform: Option<Platform>,
    /// Where `cogo` is on the machine; by default this program
    #[arg(long, value_name = "PATH")]
    program: Option<String>,
    /// Who the worker is; by default a new name at each start, within what the key allows
    #[arg(long, value_name = "ID", value_parser = worker_id)]
    worker_id: Option<String>,
    /// Print the service file, and write nothing
    #[arg(long)]
    print: bool,
    /// Say what would be written, and write nothing
    #[arg(long, conflicts_with = "print")]
    dry_run: bool,
    /// Write over a service file that was changed
    #[arg(long)]
    force: bool,
}

fn role(text: &str) -> Result<String, String> {
    if valid_name(text) { Ok(text.to_owned()) } else { Err(format!("must be {NAME_RULE}")) }
}

fn worker_id(text: &str) -> Result<String, String> {
    if valid_worker(text) { Ok(text.to_owned()) } else { Err(format!("must be {WORKER_RULE}")) }
}

/// What useradd takes; nothing that a service file could read as something else.
fn account(text: &str) -> Result<String, String> {
    let fits = valid_name(text) || text.strip_prefix('_').is_some_and(valid_name);
    if fits && text != "root" {
        return Ok(text.to_owned());
    }
    Err("must be a user of this machine, and not root".to_owned())
}

fn url(text: &str) -> Result<String, String> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let host = rest.map(|rest| rest.split(['/', '?', '#']).next().unwrap_or_default());
    let plain = text.len() <= 2048 && text.bytes().all(|b| b.is_ascii_graphic());
    match host {
        Some(host) if host.contains('@') => {
            Err("must hold no user and password: the key says who you are".to_owned())
        }
        Some(host) if plain && !host.is_empty() && !text.contains(['"', '\'', '\\', '`']) => {
            Ok(text.to_owned())
        }
        _ => Err("must be like https://hub.example".to_owned()),
    }
}

impl Install {
    pub(crate) fn run(self, global: &Global, output: Output) -> Result<Exit> {
        let platform = self.platform.unwrap_or(Platform::HERE);
        if platform != Platform::HERE && !self.print && !self.dry_run {
            let text = format!("--platform {platform}: this machine has {}", Platform::HERE);
            return Err(Failed::usage(text).hint("Use --print, and carry the file over.").into());
        }
        let owner = if self.system { Owner::System } else { Owner::User };
        let key = Key::find(self.key_file.as_deref())?;
        if let Some(key) = &key {
            key.check(self.worker_id.as_deref())?;
        }
        let source = global.config()?;
        let limits = Limits::default().load(&source)?;
        let config_dir = match source.dir() {
            Some(dir) => Some(text_of(&std::path::absolute(dir)?)?),
            None => None,
        };
        let service = Service {
            platform,
            owner,
            home: service::home(platform, owner)?,
            program: self.program()?,
            role: self.role.clone(),
            url: self.url.clone(),
            worker_id: self.worker_id.clone(),
            run_as: self.run_as.clone(),
            config_dir,
            stop_s: limits.drain().as_secs() + STOP_SLACK_S,
        };
        service.check()?;
        let text = service.text();
        if self.print {
            output.line(text.trim_end())?;
            return Ok(Exit::Done);
        }
        self.install(&service, &text, key.as_ref(), output)
    }

    fn install(
        &self,
        service: &Service,
        text: &str,
        key: Option<&Key>,
        output: Output,
    ) -> Result<Exit> {
        let (file, key_file) = (PathBuf::from(service.file()), PathBuf::from(service.key_file()));
        if key.is_none() && !key_file.exists() {
            return Err(Failed::usage("--key-file: there is no key")
                .hint("Name a file that holds it, or set COGO_KEY. `cogo token mint` makes one.")
                .into());
        }
        let known = std::fs::read_to_string(&file).ok();
        let changed = known.as_deref().is_some_and(|known| known != text);
        if changed && !self.force {
            let text = format!("{}: is there, and is not what would be written", file.display());
            return Err(Failed::new(Exit::Refused, text)
                .hint("Look at it with --print; --force writes over it.")
                .into());
        }
        let next = service.next();
        let verb = if self.dry_run { "Would write" } else { "Wrote" };
        if !self.dry_run {
            if let Some(key) = key {
                write_private(&key_file, &format!("{}\n", key.secret()))?;
            }
            if known.as_deref() != Some(text) {
                write_public(&file, text)?;
            }
        }
        if output.json {
            output.value(&json!({
                "platform": service.platform.to_string(), "file": file, "key_file": key_file,
                "written": !self.dry_run, "next": next,
            }))?;
            return Ok(Exit::Done);
        }
        match (known.is_some(), changed) {
            (true, false) => note(&format!("{} is as it should be.", file.display())),
            _ => note(&format!("{verb} {}.", file.display())),
        }
        match key {
            Some(_) => note(&format!("{verb} the key to {}.", key_file.display())),
            None => note(&format!("The key stays as it is in {}.", key_file.display())),
        }
        if self.url.starts_with("http://") {
            note("Warning: --url: over http:// the key can be read on its way. Use https://.");
        }
        for name in ["HTTPS_PROXY", "https_proxy", "COGO_CA_FILE", "COGO_API_KEY", "COGO_ENV_KEY"] {
            if std::env::var_os(name).is_some_and(|value| !value.is_empty()) {
                note(&format!(
                    "{name} is set here, and a service does not see it: {}.",
                    service.how_to_set()
                ));
            }
        }
        note("Now:");
        for command in &next {
            output.line(command)?;
        }
        Ok(Exit::Done)
    }

    fn program(&self) -> Result<String> {
        match &self.program {
            Some(program) => Ok(program.clone()),
            None => text_of(&std::env::current_exe().context("finding this program")?),
        }
    }
}

fn text_of(path: &Path) -> Result<String> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| {
        Failed::usage(format!("{}: is no text that a service file can hold", path.display())).into()
    })
}

fn make_dir(file: &Path) -> Result<()> {
    let Some(dir) = file.parent().filter(|dir| !dir.exists()) else { return Ok(()) };
    std::fs::create_dir_all(dir).map_err(|error| denied(dir, &error))
}

fn write_private(file: &Path, text: &str) -> Result<()> {
    make_dir(file)?;
    private_file::replace(file, text).map_err(|error| unwritten(file, error))
}

fn write_public(file: &Path, text: &str) -> Result<()> {
    make_dir(file)?;
    private_file::replace(file, text).map_err(|error| unwritten(file, error))?;
    // It holds no secret, and systemd warns of a unit that others cannot read.
    #[cfg(unix)]
    std::fs::set_permissions(file, std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .with_context(|| format!("writing {}", file.display()))?;
    Ok(())
}

fn unwritten(file: &Path, error: anyhow::Error) -> anyhow::Error {
    match error.root_cause().downcast_ref::<std::io::Error>() {
        Some(why) => denied(file, why),
        None => error,
    }
}

fn denied(path: &Path, error: &std::io::Error) -> anyhow::Error {
    let failed = Failed::new(Exit::Failed, format!("writing {}: {error}", path.display()));
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => {
            failed.hint("--system needs administrator's rights; without it the service is yours.")
        }
        _ => failed,
    }
    .into()
}
