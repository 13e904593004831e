//! How large a request may be, by what it asks for.

use crate::hub::guard;
use crate::options::Options;

/// The largest request bodies, by path.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BodyLimits {
    pub(crate) own: usize,
    pub(crate) remote: usize,
    pub(crate) open: usize,
    pub(crate) artifact: usize,
}

impl BodyLimits {
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            own: options.max_body_bytes,
            remote: options.rest.max_body_bytes,
            open: options.mcp.max_body_bytes,
            artifact: options.mcp.max_artifact_bytes,
        }
    }

    /// The one of a path.
    pub(crate) fn of(self, path: &str) -> usize {
        if guard::is_remote(path) {
            self.remote
        } else if guard::is_blob(path) {
            self.artifact
        } else if guard::is_open(path) {
            self.open
        } else {
            self.own
        }
    }
}
