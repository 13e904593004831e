//! Why an artifact cannot be kept or given.

use crate::artifact::{Digest, Name};
use crate::error::Code;

/// Why an artifact cannot be kept or given.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The tenant is no name.
    #[error("tenant: {0:?} is no name")]
    Tenant(String),
    /// There is none of that name.
    #[error("tenant {tenant} has no artifact {sha256}")]
    Missing {
        /// Whose it would be.
        tenant: String,
        /// Which.
        sha256: Digest,
    },
    /// It is larger than any may be.
    #[error(
        "{bytes} bytes are too many for an artifact, of which max_artifact_bytes allows {most}"
    )]
    TooLarge {
        /// How large it is.
        bytes: u64,
        /// How large it may be.
        most: u64,
    },
    /// The tenant has no room left.
    #[error("tenant {tenant} has no room for another artifact: artifact_tenant_bytes is {most}")]
    Full {
        /// Whose room it is.
        tenant: String,
        /// How much it is.
        most: u64,
    },
    /// The bytes are not what they are called.
    #[error("the bytes are {found}, and not {named}")]
    Mismatch {
        /// What they were said to be.
        named: Digest,
        /// What they are.
        found: Digest,
    },
    /// The disk refused.
    #[error("the store's disk failed")]
    Io(#[from] std::io::Error),
    /// The bucket refused, or did not answer.
    #[error("{message}")]
    Bucket {
        /// What kind of refusal.
        code: Code,
        /// What it said, beginning with the setting that decides it.
        message: String,
    },
    /// How artifacts are kept is not set up.
    #[error("{field}: {rule}")]
    Setting {
        /// The field of `hub.json`, or the variable.
        field: &'static str,
        /// What it must be.
        rule: String,
    },
    /// This way leads to artifacts by their names alone.
    #[error("artifacts at a hub cannot be {0} by this way; ask the hub's own API")]
    Unsupported(&'static str),
    /// A hub that keeps it refused, or did not answer.
    #[error("the hub's store: {message}")]
    Hub {
        /// What kind of refusal.
        code: Code,
        /// What it said.
        message: String,
    },
}

impl Error {
    pub(crate) fn missing(name: &Name) -> Self {
        Self::Missing { tenant: name.tenant.clone(), sha256: name.sha256 }
    }

    /// The stable code.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Tenant(_) | Self::Mismatch { .. } | Self::Setting { .. } => Code::InvalidArgument,
            Self::Missing { .. } => Code::NotFound,
            Self::TooLarge { .. } => Code::PayloadTooLarge,
            Self::Full { .. } => Code::RateLimited,
            Self::Io(_) | Self::Unsupported(_) => Code::Internal,
            Self::Bucket { code, .. } | Self::Hub { code, .. } => *code,
        }
    }

    /// Whether the same may go well in a moment.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Bucket { code, .. } | Self::Hub { code, .. } => {
                matches!(code, Code::Unavailable | Code::Timeout)
            }
            _ => false,
        }
    }
}
