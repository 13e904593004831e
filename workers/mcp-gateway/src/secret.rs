//! Secrets, from the environment or RemoteEnv into requests and child processes, and nowhere else.

use std::fmt;
use std::sync::Arc;

use cogo::remote_env::{ExposeSecret as _, SecretString};

use crate::config::{EnvValue, Error, FromEnv, Toolset};
use crate::environment::Looked;

/// A value that is never printed, and is overwritten when nobody has it any more.
#[derive(Clone)]
pub struct Secret(Arc<SecretString>);

impl Secret {
    /// The value, for the one place that sends it.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

impl Eq for Secret {}

impl From<String> for Secret {
    fn from(value: String) -> Self {
        Self(Arc::new(value.into()))
    }
}

impl From<Arc<SecretString>> for Secret {
    fn from(value: Arc<SecretString>) -> Self {
        Self(value)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// What a toolset's references stand for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Resolved {
    /// Headers for a server at a URL.
    pub headers: Vec<(String, Secret)>,
    /// The environment of a child process; also what is no secret.
    pub env: Vec<(String, Secret)>,
    /// The values that were loaded as secrets.
    pub secrets: Vec<Secret>,
}

/// Reads what `toolset`, called `name`, refers to, by `lookup`.
///
/// # Errors
/// Names the first variable that is not set.
pub(crate) fn resolve(
    name: &str,
    toolset: &Toolset,
    lookup: &dyn Fn(&str) -> Looked,
) -> Result<Resolved, Error> {
    let mut resolved = Resolved::default();
    let load = |field: String, reference: &FromEnv| {
        let (field, variable) = (format!("toolsets.{name}.{field}"), reference.from_env.clone());
        match lookup(&reference.from_env) {
            Looked::Found(secret) => Ok(secret),
            Looked::NotYet => Err(Error::SecretNotYet { field, variable }),
            Looked::Missing(where_else) => {
                Err(Error::MissingSecret { field, variable, where_else })
            }
        }
    };
    for (header, reference) in &toolset.headers {
        let secret = load(format!("headers.{header}"), reference)?;
        resolved.secrets.push(secret.clone());
        resolved.headers.push((header.clone(), secret));
    }
    for (variable, value) in &toolset.env {
        let secret = match value {
            EnvValue::Plain(value) => Secret::from(value.clone()),
            EnvValue::FromEnv(reference) => {
                let secret = load(format!("env.{variable}"), reference)?;
                resolved.secrets.push(secret.clone());
                secret
            }
        };
        resolved.env.push((variable.clone(), secret));
    }
    Ok(resolved)
}
