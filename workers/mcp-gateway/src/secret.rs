//! Secrets, from the environment into requests and child processes, and nowhere else.

use std::fmt;

use crate::config::{EnvValue, Error, FromEnv, Toolset};

/// A value that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The value, for the one place that sends it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(value: String) -> Self {
        Self(value)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// What a toolset's references stand for.
#[derive(Debug, Clone, Default)]
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
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<Resolved, Error> {
    let mut resolved = Resolved::default();
    let load = |field: String, reference: &FromEnv| {
        let variable = reference.from_env.clone();
        let missing = Error::MissingSecret { field: format!("toolsets.{name}.{field}"), variable };
        lookup(&reference.from_env).map(Secret).ok_or(missing)
    };
    for (header, reference) in &toolset.headers {
        let secret = load(format!("headers.{header}"), reference)?;
        resolved.secrets.push(secret.clone());
        resolved.headers.push((header.clone(), secret));
    }
    for (variable, value) in &toolset.env {
        let secret = match value {
            EnvValue::Plain(value) => Secret(value.clone()),
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
