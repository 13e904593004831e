//! `/artifacts/…`: what runs left behind, to read.
//!
//! Tools choose what stands in these files, and other programs may write the folder. So a path is taken
//! apart here before the file system sees it, and what it leads to must lie in the folder once every
//! link is followed. Someone who can replace a file between the two could already write anything there.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use tower::ServiceExt as _;
use tower_http::services::ServeFile;

use crate::artifact::FOLDER;
use crate::error::Code;
use crate::hub::Hub;
use crate::hub::error::ApiError;
use crate::hub::extract::PathParams;

pub(crate) async fn artifact(
    State(hub): State<Arc<Hub>>,
    path: PathParams,
    request: Request,
) -> Result<Response, ApiError> {
    let path = path.text("path").to_owned();
    // One answer whether it is not there or not to be seen.
    let Some(file) = find(&hub.state.artifacts_dir, &path).await else {
        return Err(ApiError::new(Code::NotFound, format!("there is no artifact {path:?}")));
    };
    match ServeFile::new(file).oneshot(request).await {
        Ok(response) => Ok(response.into_response()),
        Err(never) => match never {},
    }
}

/// The file that `path` names inside `dir`, with no link left in it.
async fn find(dir: &Path, path: &str) -> Option<PathBuf> {
    let mut file = dir.to_owned();
    for part in path.split('/') {
        if !is_plain(part) {
            return None;
        }
        file.push(part);
    }
    let dir = tokio::fs::canonicalize(dir).await.ok()?;
    let file = tokio::fs::canonicalize(file).await.ok()?;
    let inside = file.strip_prefix(&dir).ok()?;
    // A link may lead to what could not be named.
    if !inside.iter().all(|part| part.to_str().is_some_and(is_plain)) {
        return None;
    }
    // What is each tenant's own is given below /mcp, to whoever shows a key of that tenant.
    if inside.starts_with(FOLDER) {
        return None;
    }
    // Opening a pipe would wait for its writer.
    tokio::fs::metadata(&file).await.ok()?.is_file().then_some(file)
}

/// Whether a part of a path is a name and nothing else, on every system: not empty, not hidden, no
/// separator, no drive or stream.
fn is_plain(part: &str) -> bool {
    !part.is_empty()
        && !part.starts_with('.')
        && !part.contains(|c: char| matches!(c, '/' | '\\' | ':') || c.is_control())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_plain_files_inside_the_folder_are_found() {
        let root = tempfile::tempdir().expect("a folder");
        let dir = root.path().join("artifacts");
        std::fs::create_dir_all(dir.join("mcp/demo")).expect("folders");
        std::fs::create_dir_all(dir.join("blobs/acme")).expect("folders");
        for file in
            ["artifacts/mcp/demo/a.json", "artifacts/.hidden", "artifacts/blobs/acme/ab", "secret"]
        {
            std::fs::write(root.path().join(file), "{}").expect("a file");
        }
        assert!(find(&dir, "mcp/demo/a.json").await.is_some());
        for bad in [
            "",
            "/",
            "mcp",
            "mcp/demo",
            "mcp/demo/",
            "mcp//demo/a.json",
            "../secret",
            "mcp/../../secret",
            "./mcp/demo/a.json",
            ".hidden",
            "..\\secret",
            "mcp\\demo\\a.json",
            "mcp/demo/a.json\0",
            "%2e%2e/secret",
            "C:secret",
            "/etc/passwd",
            "absent",
            "blobs/acme/ab",
        ] {
            assert!(find(&dir, bad).await.is_none(), "{bad:?}");
        }
        #[cfg(unix)]
        {
            let link = |to: &str, name: &str| {
                std::os::unix::fs::symlink(to, dir.join(name)).expect("a link");
            };
            link("../secret", "out");
            link("/etc", "etc");
            link(".hidden", "shown");
            link("blobs/acme", "theirs");
            assert!(find(&dir, "theirs/ab").await.is_none());
            link("mcp/demo/a.json", "inside");
            assert!(find(&dir, "out").await.is_none());
            assert!(find(&dir, "etc/passwd").await.is_none());
            assert!(find(&dir, "shown").await.is_none());
            assert!(find(&dir, "inside").await.is_some());
        }
    }
}
