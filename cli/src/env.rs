//! `cogo env`: RemoteEnv, the secrets and settings that toolsets refer to by name.

mod value;

use anyhow::Result;
use clap::{Args, Subcommand};
use cogo::bus::Bus;
use cogo::message::{ALL_TENANTS, DEFAULT_TENANT, NAME_RULE, valid_name};
use cogo::remote_env::{self, ExposeSecret as _, Keyring, Rekeyed, Store};
use serde_json::json;

use crate::connect::Global;
use crate::exit::{Exit, Failed};
use crate::output::{Cell, Ink, Output, note, printable};
use crate::text::moment;

/// Who acts, for the log.
const ACTOR: &str = "cli";

/// Look after RemoteEnv: secrets that toolsets refer to by name
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cogo env keygen                               make a key; put it into COGO_ENV_KEY, here and at the workers
  cogo env set FIGMA_TOKEN                      asks for the value, and does not show it
  pass figma | cogo env set FIGMA_TOKEN --tenant acme
  cogo env list --json | jq '.names[].name'
  cogo env check
  cogo env unset FIGMA_TOKEN

What mcp.json refers to ({\"from_env\": \"FIGMA_TOKEN\"}) is looked for in the environment of the gateway's process, and
then here, in the RemoteEnv of its tenant. A change is taken up while it runs. Values are encrypted before they leave
this process, with the first key of COGO_ENV_KEY; the database never sees one, and nothing shows one again.")]
pub(crate) struct Env {
    #[command(subcommand)]
    command: Command,
    /// Whose; `*` for workers of all tenants. By default the key's tenant, or `default`
    #[arg(long, global = true)]
    tenant: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Set a value, in place of what was there
    #[command(after_help = "\
Examples:
  cogo env set FIGMA_TOKEN                      asks for the value, and does not show it
  cogo env set FIGMA_TOKEN < token.txt          one line break at the end does not count
  cogo env set FIGMA_TOKEN --from-env OLD_NAME  the value of a variable of this process

A value is never an argument: other users of the machine see those, and the shell keeps them.")]
    Set {
        /// The name: capital letters, digits and _
        name: String,
        /// Take the value of this variable of the environment
        #[arg(long, value_name = "VARIABLE")]
        from_env: Option<String>,
    },
    /// List the names, with versions, times and keys; never values
    #[command(after_help = "\
Examples:
  cogo env list
  cogo env list --tenant acme --json | jq '.names[] | {name, version, updated_at}'")]
    List,
    /// Take values away
    #[command(after_help = "\
Examples:
  cogo env unset FIGMA_TOKEN
  cogo env unset FIGMA_TOKEN BROWSER_KEY --tenant acme --json")]
    Unset {
        /// The names
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Make a key for COGO_ENV_KEY
    #[command(after_help = "\
Examples:
  export COGO_ENV_KEY=$(cogo env keygen)
  export COGO_ENV_KEY=$(cogo env keygen),$COGO_ENV_KEY    a new one before the old one; then `cogo env rekey`
  cogo env keygen --json | jq -r .key_id

Keep it where secrets are kept: without it no value can be read again.")]
    Keygen,
    /// Encrypt all values with the first key of COGO_ENV_KEY
    #[command(after_help = "\
Examples:
  COGO_ENV_KEY=$new,$old cogo env rekey
  cogo env rekey --tenant acme --json

First let every worker and hub have both keys, then run this, then take the old key away everywhere.")]
    Rekey,
    /// Decrypt all values, and say which cannot be
    #[command(after_help = "\
Examples:
  cogo env check
  cogo env check --tenant acme --json | jq '.[] | select(.problem)'

Exits with 1 if any value cannot be decrypted.")]
    Check,
}

impl Env {
    pub(crate) async fn run(self, global: &Global, output: Output) -> Result<Exit> {
        if let Command::Keygen = self.command {
            return keygen(output);
        }
        if let Some(tenant) = self.tenant.as_deref().filter(|tenant| !good_tenant(tenant)) {
            return Err(
                Failed::usage(format!("--tenant {tenant:?}: must be * or {NAME_RULE}")).into()
            );
        }
        match self.command {
            Command::Set { name, from_env } => {
                set(&name, from_env.as_deref(), self.tenant, global, output).await
            }
            Command::List => list(self.tenant, global, output).await,
            Command::Unset { names } => unset(&names, self.tenant, global, output).await,
            Command::Rekey => rekey(self.tenant, global, output).await,
            Command::Check => check(self.tenant, global, output).await,
            Command::Keygen => keygen(output),
        }
    }
}

fn good_tenant(tenant: &str) -> bool {
    tenant == ALL_TENANTS || valid_name(tenant)
}

fn whose(tenant: Option<String>, bus: &Bus) -> String {
    let own = || bus.claims().and_then(|claims| claims.tenant);
    tenant.or_else(own).unwrap_or_else(|| DEFAULT_TENANT.to_owned())
}

fn keys() -> Result<Keyring> {
    Keyring::from_env().map_err(|error| {
        let hint = "All who set or read the same values need the same key, in their environment.";
        Failed::usage(error.to_string()).hint(hint).into()
    })
}

async fn open(tenant: Option<String>, global: &Global) -> Result<(Bus, String, Store)> {
    // Before the bus is asked anything.
    let keys = keys()?;
    let bus = global.bus().await?;
    let tenant = whose(tenant, &bus);
    let store = Store::new(bus.clone(), &*tenant, keys);
    Ok((bus, tenant, store))
}

fn refused(error: remote_env::Error) -> anyhow::Error {
    match error {
        remote_env::Error::Bus(error) => error.into(),
        remote_env::Error::Invalid { .. } => Failed::usage(error.to_string()).into(),
        remote_env::Error::Contended(_) => Failed::new(Exit::Refused, error.to_string()).into(),
        error => Failed::new(Exit::Failed, error.to_string()).into(),
    }
}

async fn set(
    name: &str,
    from_env: Option<&str>,
    tenant: Option<String>,
    global: &Global,
    output: Output,
) -> Result<Exit> {
    remote_env::check_name(name)
        .map_err(|rule| Failed::usage(format!("{}: {rule}", printable(name))))?;
    let (bus, tenant, store) = open(tenant, global).await?;
    let value = value::read_value(name, from_env)?;
    let version = store.set(name, &value, ACTOR).await.map_err(refused)?;
    bus.wake_others().await;
    if output.json {
        output.value(&json!({"tenant": tenant, "name": name, "version": version}))?;
    } else {
        note(&format!("{name} of tenant {tenant} is set, as version {version}."));
    }
    Ok(Exit::Done)
}

async fn list(tenant: Option<String>, global: &Global, output: Output) -> Result<Exit> {
    let bus = global.bus().await?;
    let found = bus.env_names(&whose(tenant, &bus), None).await?;
    if output.json {
        output.value(&found)?;
        return Ok(Exit::Done);
    }
    let names = found.names.unwrap_or_default();
    if names.is_empty() {
        note(&format!("Tenant {} has none. `cogo env set NAME` sets one.", found.tenant));
        return Ok(Exit::Done);
    }
    let rows: Vec<_> = names
        .iter()
        .map(|name| {
            vec![
                Cell::new(&name.name, Ink::Name),
                Cell::number(name.version.to_string()),
                Cell::new(&name.key_id, Ink::Faint),
                Cell::new(moment(name.updated_at), Ink::Faint),
                Cell::plain(printable(name.updated_by.as_deref().unwrap_or_default())),
            ]
        })
        .collect();
    output.table(&["NAME", "VERSION", "KEY", "SINCE", "BY"], &rows)?;
    Ok(Exit::Done)
}

async fn unset(
    names: &[String],
    tenant: Option<String>,
    global: &Global,
    output: Output,
) -> Result<Exit> {
    let bus = global.bus().await?;
    let tenant = whose(tenant, &bus);
    let gone = bus.env_unset(&tenant, names, Some(ACTOR)).await?;
    bus.wake_others().await;
    if gone == 0 {
        let text = format!("tenant {tenant} has none of these names");
        return Err(Failed::new(Exit::NotFound, text).into());
    }
    if output.json {
        output.value(&json!({"tenant": tenant, "unset": gone}))?;
    } else {
        note(&format!("Tenant {tenant}: {gone} unset."));
    }
    Ok(Exit::Done)
}

fn keygen(output: Output) -> Result<Exit> {
    let key = remote_env::generate()
        .ok_or_else(|| Failed::new(Exit::Failed, "the system gives no random bytes"))?;
    if output.json {
        let ring = Keyring::parse(&key)?;
        let id = ring.ids().first().map(|id| (*id).to_owned());
        output.value(&json!({"key": key.expose_secret(), "key_id": id}))?;
    } else {
        output.line(key.expose_secret())?;
    }
    Ok(Exit::Done)
}

async fn rekey(tenant: Option<String>, global: &Global, output: Output) -> Result<Exit> {
    let (bus, tenant, store) = open(tenant, global).await?;
    let done = store.rekey(ACTOR).await.map_err(refused)?;
    bus.wake_others().await;
    let Rekeyed { changed, kept } = &done;
    if output.json {
        output.value(&json!({"tenant": tenant, "changed": changed, "kept": kept}))?;
    } else {
        let changed = crate::trace::count(changed.len(), "value");
        note(&format!("Tenant {tenant}: {changed} encrypted anew; {kept} had the first key."));
    }
    Ok(Exit::Done)
}

async fn check(tenant: Option<String>, global: &Global, output: Output) -> Result<Exit> {
    let (_, tenant, store) = open(tenant, global).await?;
    let checked = store.check().await.map_err(refused)?;
    let bad = checked.iter().filter(|one| one.problem.is_some()).count();
    if output.json {
        output.value(&checked)?;
    } else if checked.is_empty() {
        note(&format!("Tenant {tenant} has none."));
    } else {
        let row = |one: &remote_env::Checked| {
            let (state, ink) = match &one.problem {
                None => ("can be read".to_owned(), Ink::Good),
                Some(problem) => (problem.clone(), Ink::Bad),
            };
            vec![
                Cell::new(&one.name.name, Ink::Name),
                Cell::number(one.name.version.to_string()),
                Cell::new(&one.name.key_id, Ink::Faint),
                Cell::new(state, ink),
            ]
        };
        let rows: Vec<_> = checked.iter().map(row).collect();
        output.table(&["NAME", "VERSION", "KEY", "STATE"], &rows)?;
    }
    Ok(if bad == 0 { Exit::Done } else { Exit::Failed })
}
