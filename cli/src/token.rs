//! The admin token: given, or made once and kept.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use cogo::hub::AdminToken;

use crate::exit::Failed;
use crate::private_file;

/// The variable that may hold the token.
pub(crate) const VARIABLE: &str = "COGO_ADMIN_TOKEN";
/// The file within the data directory that holds it otherwise.
const FILE: &str = "admin-token";

/// Where the token lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Lies {
    InEnvironment,
    InFile(PathBuf),
}

/// The token of the environment, else of the data directory, where one is made if there is none.
pub(crate) fn load(data_dir: &Path) -> Result<(AdminToken, Lies)> {
    if let Some(token) = std::env::var_os(VARIABLE).filter(|token| !token.is_empty()) {
        let token = token.into_string().unwrap_or_default();
        let token = AdminToken::new(token)
            .map_err(|error| Failed::usage(format!("{VARIABLE}: {error}")))?;
        return Ok((token, Lies::InEnvironment));
    }
    let path = data_dir.join(FILE);
    if !path.exists() {
        let line = format!("{}\n", AdminToken::generate().expose());
        // Whoever was first, made it: what counts is what lies there now.
        private_file::create(&path, &line)?;
    }
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("reading the admin token from {}", path.display()))?;
    let token = AdminToken::new(text.trim()).map_err(|error| {
        Failed::usage(format!("{}: {error}", path.display()))
            .hint("Delete the file to have a new one made.")
    })?;
    Ok((token, Lies::InFile(path)))
}
