//! The store of artifacts, as `hub.json` says that it is kept.

use std::path::Path;

use anyhow::Result;
use cogo::artifact::options::{KEY_ID, KEY_SECRET, Kind};
use cogo::artifact::s3::Keys;
use cogo::artifact::{Error, Store};
use cogo::options::Options;
use cogo::secret::Secret;

use crate::connect::Global;
use crate::exit::Failed;

/// The store; nothing is asked there yet.
pub(crate) fn of(options: &Options, artifacts_dir: &Path, global: &Global) -> Result<Store> {
    let limits = options.artifact_limits();
    match options.artifacts.store {
        Kind::Folder => Ok(Store::folder(artifacts_dir, limits)),
        Kind::S3 => {
            let secret = |name| std::env::var(name).ok().map(Secret::from);
            let store = Keys::new(secret(KEY_ID), secret(KEY_SECRET)).and_then(|keys| {
                Store::bucket(&options.artifacts.s3, &keys, limits, &global.remote.net())
            });
            store.map_err(|error| explain(&error))
        }
    }
}

/// Sees that the store can be asked. One that does not answer now may do so later, and the bus works without it.
pub(crate) async fn check(store: &Store) -> Result<()> {
    match store.check().await {
        Ok(()) => Ok(()),
        Err(error) if error.is_transient() => {
            tracing::warn!("Artifacts cannot be kept now: {error}");
            Ok(())
        }
        Err(error) => Err(explain(&error)),
    }
}

fn explain(error: &Error) -> anyhow::Error {
    Failed::usage(format!("artifacts: {error}"))
        .hint("See the section `artifacts` of hub.json, and docs/artifacts.md.")
        .into()
}
