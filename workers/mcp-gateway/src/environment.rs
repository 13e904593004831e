//! Where the names are looked up that `mcp.json` refers to: first in the environment of this process, then in RemoteEnv.
//!
//! In this order, so that whoever runs a machine has the last word on it, and a value there needs no bus.

use std::sync::Arc;

use cogo::remote_env::{Found, RemoteEnv};

use crate::config::{Config, Toolset};
use crate::secret::Secret;

/// What there is of one name.
#[derive(Debug)]
pub(crate) enum Looked {
    Found(Secret),
    /// RemoteEnv was not asked yet.
    NotYet,
    /// It is not in the environment; what else was looked at, in words.
    Missing(String),
}

/// The environment of this process, and what is below it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Environment {
    remote: Option<RemoteEnv>,
}

impl Environment {
    pub(crate) fn over(remote: RemoteEnv) -> Self {
        Self { remote: Some(remote) }
    }

    pub(crate) fn remote(&self) -> Option<&RemoteEnv> {
        self.remote.as_ref()
    }

    /// What there is of `name`.
    pub(crate) fn look(&self, name: &str) -> Looked {
        if let Ok(value) = std::env::var(name) {
            return Looked::Found(Secret::from(value));
        }
        let Some(remote) = &self.remote else { return Looked::Missing(String::new()) };
        let tenant = remote.tenant();
        match remote.get(name) {
            Found::Value(value) => Looked::Found(Secret::from(Arc::clone(&value))),
            Found::NotYet => Looked::NotYet,
            Found::None(None) => {
                Looked::Missing(format!(", nor in the RemoteEnv of tenant {tenant}"))
            }
            Found::None(Some(why)) => Looked::Missing(format!(
                ", and the RemoteEnv of tenant {tenant} does not have it: {why}"
            )),
        }
    }

    /// Has RemoteEnv look for what the enabled toolsets of `config` refer to and this process does not have.
    pub(crate) fn want(&self, config: &Config) {
        let Some(remote) = &self.remote else { return };
        let enabled = config.toolsets.values().filter(|toolset| toolset.enabled);
        let names = enabled.flat_map(Toolset::references);
        let unset = names.filter(|name| std::env::var(name).is_err());
        remote.want(unset.map(str::to_owned));
    }
}
