//! `cogo status --probe`: the health check of a container that has no shell and no curl.
//!
//! `COGO_METRICS_LISTEN` and `COGO_LISTEN`: the same variables that tell the worker or the hub of this container where to
//! listen, so that nothing has to be said twice.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Result, anyhow};
use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::exit::{Exit, Failed};
use crate::output::Output;
use crate::up_file;

/// Whom to ask, and for what.
#[derive(Debug, Args)]
#[command(next_help_heading = "Probe")]
pub(super) struct Probe {
    /// Only ask the hub or worker that listens on this machine whether it is `ready` (the default) or at
    /// least `alive`, and exit with 0 if so
    #[arg(long, value_name = "WHAT", num_args = 0..=1, require_equals = true, default_missing_value = "ready")]
    probe: Option<Wanted>,
    /// Where the hub listens
    #[arg(long, env = "COGO_LISTEN", default_value = "127.0.0.1:8787", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Where the worker listens; goes before the hub
    #[arg(long, env = "COGO_METRICS_LISTEN", value_name = "ADDRESS")]
    metrics_listen: Option<SocketAddr>,
}

/// What a probe asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Wanted {
    /// It and all that it needs, such as the database, is there.
    Ready,
    /// The process answers.
    Alive,
}

impl Wanted {
    fn path(self) -> &'static str {
        match self {
            Self::Ready => "/readyz",
            Self::Alive => "/healthz",
        }
    }
}

/// What `status --probe --json` prints.
#[derive(Debug, Serialize)]
struct Answered {
    url: String,
    ok: bool,
}

impl Probe {
    /// What is asked for, if this is a probe at all.
    pub(super) fn wanted(&self) -> Option<Wanted> {
        self.probe
    }

    /// Asks. Nothing is written anywhere, and no configuration is read.
    pub(super) async fn run(&self, wanted: Wanted, output: Output) -> Result<Exit> {
        let address = near(self.metrics_listen.unwrap_or(self.listen));
        if address.port() == 0 {
            return Err(Failed::usage("--probe: port 0 is none that could be asked")
                .hint("Give what is to be probed a port, by COGO_LISTEN or COGO_METRICS_LISTEN.")
                .into());
        }
        let url = format!("http://{address}");
        match up_file::says_yes(&url, wanted.path()).await {
            Ok(()) if output.json => output.value(&Answered { url, ok: true })?,
            Ok(()) => output.line(&format!("{url}: ok"))?,
            Err(error) if error.is::<Failed>() => return Err(error.context(url)),
            Err(error) => return Err(anyhow!(Failed::unavailable(format!("{url}: {error:#}")))),
        }
        Ok(Exit::Done)
    }
}

/// Where something that listens at every address can be asked.
fn near(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_listens_everywhere_is_asked_at_the_loopback() {
        let asked = |listen: &str| near(listen.parse().expect("an address")).to_string();
        assert_eq!(asked("0.0.0.0:8787"), "127.0.0.1:8787");
        assert_eq!(asked("[::]:8787"), "[::1]:8787");
        assert_eq!(asked("10.1.2.3:9464"), "10.1.2.3:9464");
    }
}
