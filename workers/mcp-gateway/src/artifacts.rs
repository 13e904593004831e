//! What results lead to, for whoever may read it: `cogo://artifacts/<tenant>/<sha256>`.

use cogo::artifact::{self, Artifact, Store};
use cogo::error::Code;
use cogo::hub::Principal;

/// Why an artifact is not given.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The URI names none: it is another's, or of another form, or the artifact is gone. Which of these is not said.
    #[error(
        "there is no artifact {uri}; artifacts go when hub.json's retention.artifact_days are over"
    )]
    Missing {
        /// What was asked for.
        uri: String,
    },
    /// The store refused.
    #[error("the artifact cannot be read")]
    Store(#[from] artifact::Error),
}

impl Error {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Missing { .. } => Code::NotFound,
            Self::Store(error) => error.code(),
        }
    }
}

/// Reads what `uri` names, if it is of a tenant that `who` may read: its type, and its bytes.
///
/// # Errors
/// [`Error::Missing`] for what is not there or not theirs; else what the store says.
pub async fn read(store: &Store, who: &Principal, uri: &str) -> Result<(String, Vec<u8>), Error> {
    let missing = || Error::Missing { uri: uri.chars().take(200).collect() };
    let (tenant, sha256) = artifact::parse_uri(uri).ok_or_else(missing)?;
    if !(who.is_for_all_tenants() || tenant == who.tenant()) {
        return Err(missing());
    }
    match store.get(tenant, sha256).await {
        Ok(Artifact { mime, bytes }) => Ok((mime, bytes)),
        Err(artifact::Error::Missing { .. }) => Err(missing()),
        Err(error) => Err(error.into()),
    }
}
