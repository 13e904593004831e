//! The secrets that sign and verify tokens: given, or made once and kept.

use std::path::Path;

use anyhow::{Context as _, Result};
use cogo::identity::{self, Keys};

use crate::exit::Failed;
use crate::private_file;
use crate::token::Lies;

/// The variable that may hold them: one, or several with commas between them. The first signs, all verify.
pub(crate) const VARIABLE: &str = "COGO_JWT_SECRET";
/// The file within the data directory that holds them otherwise, one a line.
pub(crate) const FILE: &str = "jwt-secret";

/// The secrets of the environment, else of the data directory, where one is made if there is none: for hubs,
/// which need one.
#[allow(dead_code)] // until hubs verify tokens
pub(crate) fn load(data_dir: &Path) -> Result<(Keys, Lies)> {
    if let Some(found) = find(data_dir)? {
        return Ok(found);
    }
    let line = format!("{}\n", identity::generate_secret());
    // Whoever was first, made it: what counts is what lies there now.
    private_file::create(&data_dir.join(FILE), &line)?;
    find(data_dir)?.context("the file with the secret of tokens went away")
}

/// The secrets of the environment, else of the data directory, if there are any: for whoever must not make
/// one, since no hub would know it.
pub(crate) fn find(data_dir: &Path) -> Result<Option<(Keys, Lies)>> {
    if let Some(list) = std::env::var_os(VARIABLE).filter(|list| !list.is_empty()) {
        let keys = Keys::parse(&list.into_string().unwrap_or_default())
            .map_err(|error| Failed::usage(format!("{VARIABLE}: {error}")))?;
        return Ok(Some((keys, Lies::InEnvironment)));
    }
    let path = data_dir.join(FILE);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(error)
                .with_context(|| format!("reading the secret of tokens from {}", path.display()));
        }
    };
    let keys = Keys::parse(&text).map_err(|error| {
        Failed::usage(format!("{}: {error}", path.display()))
            .hint("Delete the file to have a new one made; tokens of the old one end with it.")
    })?;
    Ok(Some((keys, Lies::InFile(path))))
}
