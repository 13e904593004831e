//! Sets the values of a tenant, seals them anew, and says which cannot be opened.

use serde::Serialize;

use crate::bus::env::{AT_ONCE, Name, Names, Sealed};
use crate::bus::{self, Bus};
use crate::error::Code;
use crate::remote_env::key::Keyring;
use crate::remote_env::seal::{self, NoRandomness, OpenError};
use crate::remote_env::{
    ExposeSecret as _, MAX_VALUE_BYTES, SecretString, check_name, check_value,
};

/// How often somebody else may be faster before we give up: a person or two set values, not a crowd.
const TRIES: u32 = 8;

/// What may go wrong with setting values. Never holds any of them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A name or value breaks a rule; nothing was sent.
    #[error("{name}: {rule}")]
    Invalid {
        /// The name, as it was given.
        name: String,
        /// What is wrong.
        rule: &'static str,
        /// Whether it is the value that is too large.
        too_large: bool,
    },
    /// A value cannot be opened; nothing was changed.
    #[error("{name} {source}")]
    Open {
        /// The name.
        name: String,
        /// Why.
        #[source]
        source: OpenError,
    },
    /// The system has no randomness.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    /// Others change the same tenant's values all the time.
    #[error("others kept changing the RemoteEnv of tenant {0:?} meanwhile; try again")]
    Contended(String),
    /// The bus refused, or did not answer.
    #[error(transparent)]
    Bus(#[from] bus::Error),
}

/// What sealing anew has done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rekeyed {
    /// The names that are sealed with the first key now and were not before.
    pub changed: Vec<String>,
    /// How many were so already.
    pub kept: usize,
}

/// Whether one value can be opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// Its name and version.
    #[serde(flatten)]
    pub name: Name,
    /// Why it cannot, if it cannot.
    pub problem: Option<String>,
}

/// The RemoteEnv of one tenant, for whoever has a key.
#[derive(Debug, Clone)]
pub struct Store {
    bus: Bus,
    tenant: String,
    keys: Keyring,
}

impl Store {
    /// The values of `tenant`, sealed and opened with `keys`.
    #[must_use]
    pub fn new(bus: Bus, tenant: impl Into<String>, keys: Keyring) -> Self {
        Self { bus, tenant: tenant.into(), keys }
    }

    /// Sets one value, in place of what was there, in the name of `who`; gives its version.
    ///
    /// # Errors
    /// Names what is wrong; nothing was changed then, but where the bus did not answer.
    pub async fn set(&self, name: &str, value: &SecretString, who: &str) -> Result<i64, Error> {
        let invalid = |rule, too_large| Error::Invalid { name: name.to_owned(), rule, too_large };
        check_name(name).map_err(|rule| invalid(rule, false))?;
        let large = value.expose_secret().len() > MAX_VALUE_BYTES;
        check_value(value).map_err(|rule| invalid(rule, large))?;
        for _ in 0..TRIES {
            let revision = self.names().await?.revision;
            let sealed = seal::seal(&self.keys, &self.tenant, name, revision + 1, value)?;
            if let Some(version) = self.put(&[sealed], who, None).await? {
                return Ok(version);
            }
        }
        Err(Error::Contended(self.tenant.clone()))
    }

    /// Seals with the first key what is sealed with another. All of it is opened before anything is written.
    ///
    /// # Errors
    /// Names the first value that cannot be opened.
    pub async fn rekey(&self, who: &str) -> Result<Rekeyed, Error> {
        let mut changed = Vec::new();
        for _ in 0..TRIES {
            let Names { revision, names, .. } = self.names().await?;
            let names = names.unwrap_or_default();
            let first = self.keys.first().id();
            let old = names.iter().filter(|name| name.key_id != first);
            let old: Vec<String> = old.map(|name| name.name.clone()).collect();
            if old.is_empty() {
                changed.sort();
                let kept = names.len() - changed.len().min(names.len());
                return Ok(Rekeyed { changed, kept });
            }
            let opened = self.open(&old).await?;
            let mut next = revision + 1;
            for some in opened.chunks(AT_ONCE) {
                let sealed: Result<Vec<_>, _> = some
                    .iter()
                    .map(|(name, value)| seal::seal(&self.keys, &self.tenant, name, next, value))
                    .collect();
                // Written over only if nothing has changed since it was read.
                match self.put(&sealed?, who, Some("rekey")).await? {
                    Some(version) => next = version + 1,
                    None => break,
                }
                changed.extend(some.iter().map(|(name, _)| name.clone()));
            }
        }
        Err(Error::Contended(self.tenant.clone()))
    }

    /// Opens every value and says which cannot be opened, and why.
    ///
    /// # Errors
    /// [`Error::Bus`].
    pub async fn check(&self) -> Result<Vec<Checked>, Error> {
        let names = self.names().await?.names.unwrap_or_default();
        let all: Vec<String> = names.iter().map(|name| name.name.clone()).collect();
        let sealed = self.bus.env_read(&self.tenant, &all).await?;
        let told = |name: Name| {
            let found = sealed.iter().find(|sealed| sealed.name == name.name);
            let problem = match found {
                // One that was taken away meanwhile is no problem.
                None => return None,
                Some(sealed) => seal::open(&self.keys, &self.tenant, sealed).err(),
            };
            Some(Checked { name, problem: problem.map(|problem| problem.to_string()) })
        };
        Ok(names.into_iter().filter_map(told).collect())
    }

    async fn names(&self) -> Result<Names, Error> {
        Ok(self.bus.env_names(&self.tenant, None).await?)
    }

    async fn open(&self, names: &[String]) -> Result<Vec<(String, SecretString)>, Error> {
        let sealed = self.bus.env_read(&self.tenant, names).await?;
        let open = |sealed: &Sealed| match seal::open(&self.keys, &self.tenant, sealed) {
            Ok(value) => Ok((sealed.name.clone(), value)),
            Err(source) => Err(Error::Open { name: sealed.name.clone(), source }),
        };
        sealed.iter().map(open).collect()
    }

    /// The version that they have now; none when somebody was faster, or when it is not known whether they were
    /// written: then they are to be sealed and written again.
    async fn put(
        &self,
        sealed: &[Sealed],
        who: &str,
        why: Option<&str>,
    ) -> Result<Option<i64>, Error> {
        match self.bus.env_set(&self.tenant, sealed, Some(who), why).await {
            Ok(version) => Ok(Some(version)),
            Err(error) if error.code() == Code::Conflict => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}
