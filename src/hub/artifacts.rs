//! `/artifacts/…`: what runs left behind, to read.
//!
//! Tools choose what stands in these files, and other programs may write the folder. So a path is taken
//! apart here before the file system sees it, and what it leads to must lie in the folder once every
//! link is followed. Someone who can replace a file between the two could already write anything there.

mod list;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use tower::ServiceExt as _;
use tower_http::services::ServeFile;

use crate::artifact::FOLDER;
use crate::artifact::files::{is_plain, mime_of};
use crate::error::Code;
use crate::hub::Hub;
use crate::hub::conditional::{Validators, Wanted};
use crate::hub::error::ApiError;
use crate::hub::extract::PathParams;

pub use list::{Query, list_in};
pub(crate) use list::{list, summary};

pub(crate) async fn artifact(
    State(hub): State<Arc<Hub>>,
    path: PathParams,
    mut request: Request,
) -> Result<Response, ApiError> {
    let path = path.text("path").to_owned();
    // One answer whether it is not there or not to be seen.
    let absent = || ApiError::new(Code::NotFound, format!("there is no artifact {path:?}"));
    let file = find(&hub.state.artifacts_dir, &path).await.ok_or_else(absent)?;
    let is = validators(&file).await.ok_or_else(absent)?;
    let method = request.method().clone();
    let mut response = match is.judge(&method, request.headers_mut())? {
        Wanted::NotModified => StatusCode::NOT_MODIFIED.into_response(),
        wanted => {
            if let Wanted::Part(range) = wanted {
                let range = format!("bytes={}-{}", range.first, range.last);
                let range = HeaderValue::from_str(&range).expect("digits make a header");
                request.headers_mut().insert(header::RANGE, range);
            }
            match ServeFile::new(&file).oneshot(request).await {
                Ok(response) => response.into_response(),
                Err(never) => match never {},
            }
        }
    };
    if response.status().is_success() {
        let mime = HeaderValue::from_static(mime_of(&path));
        response.headers_mut().insert(header::CONTENT_TYPE, mime);
    }
    let headers = response.headers_mut();
    is.tell(headers);
    let name = path.rsplit('/').next().unwrap_or_default();
    headers.insert(header::CONTENT_DISPOSITION, disposition(mime_of(&path), name));
    Ok(response)
}

/// What tells one state of a file from another: files of attempts are written once, under their names as a whole.
async fn validators(file: &Path) -> Option<Validators> {
    let found = tokio::fs::metadata(file).await.ok()?;
    let (bytes, modified) = (found.len(), DateTime::<Utc>::from(found.modified().ok()?));
    let nanos = modified.timestamp_nanos_opt().unwrap_or_default();
    Some(Validators { etag: format!("\"{bytes:x}-{nanos:x}\""), modified, bytes })
}

/// JSON is shown and pictures are displayed, but for those that can act; everything else is to be saved.
pub(crate) fn disposition(mime: &str, name: &str) -> HeaderValue {
    const SHOWN: [&str; 6] =
        ["application/json", "image/png", "image/jpeg", "image/gif", "image/webp", "image/avif"];
    let kind = mime.split(';').next().unwrap_or_default().trim();
    let shown = SHOWN.iter().any(|shown| kind.eq_ignore_ascii_case(shown));
    let how = if shown { "inline" } else { "attachment" };
    // RFC 8187: what is no plain letter is encoded.
    let text = format!("{how}; filename*=UTF-8''{}", list::encoded(name));
    HeaderValue::from_str(&text).expect("what is encoded makes a header")
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
