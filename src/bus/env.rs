//! RemoteEnv as the bus has it: names, versions, and values that are sealed. What seals and opens them is
//! `remote_env.rs`, above; nothing here has a key.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::bus::error::Error;
use crate::bus::{Bus, Signal};

/// How many values are read or set at once: with the largest ones that is a request of 9 MB.
pub(crate) const AT_ONCE: usize = 100;

/// The names of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    /// Whose.
    pub tenant: String,
    /// Grows with each change, and never goes back.
    pub revision: i64,
    /// None where the revision is the one that was told of already.
    pub names: Option<Vec<Name>>,
}

/// One name, without its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Name {
    /// The name.
    pub name: String,
    /// The tenant's revision with which it was set.
    pub version: i64,
    /// What names the key that its value is sealed with.
    pub key_id: String,
    /// When it was first set.
    pub created_at: DateTime<Utc>,
    /// When it was last set.
    pub updated_at: DateTime<Utc>,
    /// By whom, if they said who they are.
    pub updated_by: Option<String>,
}

/// A value that is sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, sqlx::FromRow)]
pub struct Sealed {
    /// Its name.
    pub name: String,
    /// The tenant's revision with which it was set.
    pub version: i64,
    /// Nonce, encrypted value and tag, in base64.
    pub ciphertext: String,
    /// What names the key.
    pub key_id: String,
}

impl Bus {
    /// The names of `tenant`'s RemoteEnv; only the revision, where that is still `after`.
    ///
    /// # Errors
    /// [`Error::Refused`] where the key may not read them; [`Error::Database`].
    pub async fn env_names(&self, tenant: &str, after: Option<i64>) -> Result<Names, Error> {
        self.core.retry("bus_env_names", || self.transport().env_names(tenant, after)).await
    }

    /// The sealed values of those of `names` that are there.
    ///
    /// # Errors
    /// [`Error::Refused`] where the key may not read them; [`Error::Database`].
    pub async fn env_read(&self, tenant: &str, names: &[String]) -> Result<Vec<Sealed>, Error> {
        let mut found = Vec::new();
        for some in names.chunks(AT_ONCE) {
            let call = || self.transport().env_read(some, tenant);
            found.extend(self.core.retry("bus_env_read", call).await?);
        }
        Ok(found)
    }

    /// Sets at most 100 values, all sealed for the revision after the present one; gives the new revision. Made once: what
    /// was carried out and whose answer was lost would be refused.
    ///
    /// # Errors
    /// [`Error::Refused`] names the field, or with [`crate::error::Code::Conflict`] says that somebody was faster;
    /// [`Error::Full`]; [`Error::Database`].
    pub async fn env_set(
        &self,
        tenant: &str,
        entries: &[Sealed],
        who: Option<&str>,
        why: Option<&str>,
    ) -> Result<i64, Error> {
        let revision = self.transport().env_set(&json!(entries), tenant, who, why).await?;
        self.wake(Signal::Env);
        self.wake(Signal::Log);
        Ok(revision)
    }

    /// Takes values away; how many were there.
    ///
    /// # Errors
    /// [`Error::Refused`] where the role may not; [`Error::Database`].
    pub async fn env_unset(
        &self,
        tenant: &str,
        names: &[String],
        who: Option<&str>,
    ) -> Result<u32, Error> {
        let call = || self.transport().env_unset(names, tenant, who);
        let gone = self.core.retry("bus_env_unset", call).await?;
        self.wake(Signal::Env);
        self.wake(Signal::Log);
        Ok(u32::try_from(gone).unwrap_or(0))
    }
}
