//! The ways to a bus that are configured.

use std::ffi::OsString;
use std::str::FromStr as _;

use anyhow::Result;
use cogo::bus::Bus;
use sqlx::postgres::PgConnectOptions;

use crate::connect::{self, Global, Rights};
use crate::exit::Failed;
use crate::remote::Remote;

/// Connections of ours; the worker has its own.
const CONNECTIONS: u32 = 2;

/// A way to a bus.
#[derive(Debug, Clone)]
pub(super) enum Access {
    /// Over HTTPS, with a key.
    Https { url: String, remote: Box<Remote> },
    /// By its database.
    Postgres { url: String, options: Box<PgConnectOptions> },
}

/// A variable that is set, and not to nothing, as CI sets those of which it has no secret.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.trim().is_empty())
}

/// A URL as a report may show it, since CI keeps it among its secrets: whose it is, and nothing else of it.
fn shown(url: &str) -> String {
    let authority = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = authority.split(['/', '?', '#']).next().unwrap_or_default();
    authority.rsplit('@').next().unwrap_or_default().to_owned()
}

impl Access {
    /// By `COGO_E2E_URL` and `COGO_E2E_KEY`; else what is missing.
    pub(super) fn https(global: &Global) -> Result<Result<Self, String>> {
        match (variable("COGO_E2E_URL"), variable("COGO_E2E_KEY")) {
            (Some(url), Some(key)) => {
                let remote = Box::new(global.remote.at(&url, key));
                Ok(Ok(Self::Https { url, remote }))
            }
            // Half of it is a secret that was lost or misspelt, and no wish to do without.
            (Some(_), None) => {
                Err(Failed::usage("COGO_E2E_KEY: is not set, and COGO_E2E_URL is").into())
            }
            (None, Some(_)) => {
                Err(Failed::usage("COGO_E2E_URL: is not set, and COGO_E2E_KEY is").into())
            }
            (None, None) => Ok(Err("COGO_E2E_URL and COGO_E2E_KEY are not set".to_owned())),
        }
    }

    /// By `COGO_E2E_DATABASE_URL`; else what is missing.
    pub(super) fn postgres() -> Result<Result<Self, String>> {
        const NAME: &str = "COGO_E2E_DATABASE_URL";
        let Some(url) = variable(NAME) else { return Ok(Err(format!("{NAME} is not set"))) };
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            // Not repeated, since it may hold a password.
            return Err(Failed::usage(format!("{NAME}: must begin with postgres://")).into());
        }
        let options = PgConnectOptions::from_str(&url)
            .map_err(|error| Failed::usage(format!("{NAME}: is no Postgres URL: {error}")))?;
        Ok(Ok(Self::Postgres { url, options: Box::new(options) }))
    }

    /// The bus, looked at, and where it is, as it may be shown.
    pub(super) async fn bus(&self) -> Result<(Bus, String)> {
        match self {
            Self::Https { url, remote } => Ok((remote.bus(url).await?, shown(url))),
            Self::Postgres { options, .. } => {
                let bus = connect::open(options, Rights::Login, CONNECTIONS).await?;
                Ok((bus, connect::name(options)))
            }
        }
    }

    /// What a worker gets in its environment to join the same bus.
    pub(super) fn environment(&self) -> Vec<(&'static str, OsString)> {
        match self {
            Self::Https { remote, .. } => remote.environment(),
            Self::Postgres { url, .. } => vec![("DATABASE_URL", url.into())],
        }
    }
}
