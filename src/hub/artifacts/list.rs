//! `GET /api/artifacts` and what all of them come to.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, SecondsFormat, Utc};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::artifact::{self, FOLDER, Listed, Name, Store, files};
use crate::clock::utc_now;
use crate::hub::Hub;
use crate::hub::blobs::refused;
use crate::hub::error::ApiError;
use crate::hub::extract::StrictQuery;
use crate::message::{NAME_RULE, valid_name};

/// How many artifacts are listed: usually, and at most.
const LIMIT: (usize, usize) = (100, 500);
/// How many files and directories one page may look at.
const LOOKS: usize = 10_000;
/// The longest prefix; paths are shorter.
const PREFIX_MAX: usize = 512;
/// How many files and directories, and how many artifacts of the store, a summary looks at.
const SUMMARY_LOOKS: usize = 50_000;
/// How many of the store are asked for at once.
const LIST_AT_ONCE: usize = 1000;
/// How old a summary may be: it costs a look at each file.
const SUMMARY_AGE: Duration = Duration::from_secs(30);

/// What to list.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Query {
    /// Only this tenant's.
    pub tenant: Option<String>,
    /// What names begin with.
    #[serde(default)]
    pub prefix: String,
    /// The `next` of the page before.
    pub after: Option<String>,
    /// How many at most; by default 100.
    pub limit: Option<usize>,
}

/// Where a list goes on: those of the store come first, and then the files that runs left.
#[derive(Debug, PartialEq)]
enum Cursor {
    Store(Option<Name>),
    Files(Option<String>),
}

impl Cursor {
    fn parse(text: &str) -> Option<Self> {
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
        match text.split_at_checked(1)? {
            ("f", "") => Some(Self::Files(None)),
            ("f", path) => Some(Self::Files(Some(path.to_owned()))),
            ("s", name) => {
                let (tenant, digest) = name.split_once('/')?;
                let name = Name::new(tenant, artifact::Digest::parse(digest)?);
                valid_name(tenant).then_some(Self::Store(Some(name)))
            }
            _ => None,
        }
    }

    fn text(&self) -> String {
        let text = match self {
            Self::Store(name) => format!("s{}", name.as_ref().map(Name::path).unwrap_or_default()),
            Self::Files(path) => format!("f{}", path.as_deref().unwrap_or_default()),
        };
        URL_SAFE_NO_PAD.encode(text)
    }
}

/// `GET /api/artifacts`: what is kept by content, and the files that runs left.
pub(crate) async fn list(
    State(hub): State<Arc<Hub>>,
    StrictQuery(query): StrictQuery<Query>,
) -> Result<Json<Value>, ApiError> {
    list_in(&hub.artifacts, &hub.state.artifacts_dir, &query).await.map(Json)
}

/// What `GET /api/artifacts` answers, of a store and a folder of files: for whoever has both at hand.
///
/// # Errors
/// Names the parameter that breaks its rule; or what the store or the disk refused.
pub async fn list_in(store: &Store, dir: &Path, query: &Query) -> Result<Value, ApiError> {
    let limit = query.limit.unwrap_or(LIMIT.0);
    if !(1..=LIMIT.1).contains(&limit) {
        return Err(ApiError::invalid("limit", format_args!("must be from 1 to {}", LIMIT.1)));
    }
    if query.tenant.as_deref().is_some_and(|tenant| !valid_name(tenant)) {
        return Err(ApiError::invalid("tenant", format_args!("must be {NAME_RULE}")));
    }
    if query.prefix.len() > PREFIX_MAX || !files::is_prefix(&query.prefix) {
        let rule = format_args!(
            "must be the beginning of a path such as mcp/demo/: at most {PREFIX_MAX} bytes, names \
             with `/` between them, none of which begins with a dot"
        );
        return Err(ApiError::invalid("prefix", rule));
    }
    let start = match &query.after {
        None => Cursor::Store(None),
        Some(after) => Cursor::parse(after)
            .ok_or_else(|| ApiError::invalid("after", "must be the `next` of a page before"))?,
    };
    let (listed, next) = page(store, dir, query, start, limit).await?;
    let next = next.map(|cursor| cursor.text());
    Ok(json!({"ok": true, "artifacts": listed, "next": next}))
}

async fn page(
    store: &Store,
    dir: &Path,
    query: &Query,
    start: Cursor,
    limit: usize,
) -> Result<(Vec<Value>, Option<Cursor>), ApiError> {
    let mut listed = Vec::new();
    let after = match start {
        Cursor::Files(after) => after,
        Cursor::Store(after) => {
            let next = kept(store, query, after.as_ref(), limit, &mut listed).await?;
            if next.is_some() {
                return Ok((listed, Some(Cursor::Store(next))));
            }
            if listed.len() >= limit {
                return Ok((listed, Some(Cursor::Files(None))));
            }
            None
        }
    };
    let wanted = files::Query {
        prefix: query.prefix.clone(),
        after,
        tenant: query.tenant.clone(),
        limit: limit - listed.len(),
        looks: LOOKS,
    };
    let dir = dir.to_owned();
    let (found, next) = looked(move || files::list(&dir, &wanted)).await?;
    listed.extend(found.iter().map(file));
    Ok((listed, next.map(|path| Cursor::Files(Some(path)))))
}

/// Those of the store that are wanted; gives where to go on.
async fn kept(
    store: &Store,
    query: &Query,
    after: Option<&Name>,
    limit: usize,
    listed: &mut Vec<Value>,
) -> Result<Option<Name>, ApiError> {
    let Some(prefix) = below_store(&query.prefix, query.tenant.as_deref()) else {
        return Ok(None);
    };
    let found = store.list(&prefix, after, limit).await;
    let (found, next) = found.map_err(|error| refused(&error))?;
    listed.extend(found.iter().map(|(artifact, mime)| blob(artifact, mime)));
    Ok(next)
}

/// What `<tenant>/<sha256>` must begin with for `blobs/<tenant>/<sha256>` to begin with `prefix`, and to be the tenant's.
fn below_store(prefix: &str, tenant: Option<&str>) -> Option<String> {
    let root = format!("{FOLDER}/");
    let prefix = match prefix.strip_prefix(&root) {
        Some(below) => below,
        None if root.starts_with(prefix) => "",
        None => return None,
    };
    let Some(tenant) = tenant else { return Some(prefix.to_owned()) };
    let all = format!("{tenant}/");
    if prefix.starts_with(&all) {
        return Some(prefix.to_owned());
    }
    all.starts_with(prefix).then_some(all)
}

fn blob(Listed { name, bytes, modified }: &Listed, mime: &str) -> Value {
    let Name { tenant, sha256 } = name;
    json!({
        "name": format!("{FOLDER}/{tenant}/{sha256}"), "href": format!("/mcp/artifacts/{tenant}/{sha256}"),
        "tenant": tenant, "sha256": sha256, "bytes": bytes, "mime": mime, "modified_at": time(*modified),
    })
}

fn file(files::Listed { name, tenant, bytes, modified }: &files::Listed) -> Value {
    json!({
        "name": name, "href": format!("/artifacts/{}", encoded(name)), "tenant": tenant, "sha256": null,
        "bytes": bytes, "mime": files::mime_of(name), "modified_at": time(*modified),
    })
}

fn time(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// A path as it stands in a URL (RFC 3986, 3.3).
pub(super) fn encoded(path: &str) -> String {
    path.bytes().fold(String::with_capacity(path.len()), |mut url, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                url.push(byte.into());
            }
            _ => url.push_str(&format!("%{byte:02X}")),
        }
        url
    })
}

/// What takes its time on the disk.
async fn looked<T: Send + 'static>(
    look: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, ApiError> {
    let looked = tokio::task::spawn_blocking(look).await;
    looked
        .map_err(std::io::Error::other)
        .and_then(|looked| looked)
        .map_err(|error| ApiError::internal("looking at artifacts", &error))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NoQuery {}

/// `GET /api/metrics/mcp/artifacts/summary`: how many there are and of whom, as of at most half a minute ago.
pub(crate) async fn summary(
    State(hub): State<Arc<Hub>>,
    StrictQuery(NoQuery {}): StrictQuery<NoQuery>,
) -> Result<Json<Value>, ApiError> {
    hub.artifacts_summary.get(SUMMARY_AGE, summarised(&hub)).await.map(Json)
}

async fn summarised(hub: &Hub) -> Result<Value, ApiError> {
    let dir = hub.state.artifacts_dir.clone();
    let mut summary = looked(move || files::summarise(&dir, SUMMARY_LOOKS)).await?;
    let (mut after, mut looks) = (None, SUMMARY_LOOKS);
    loop {
        let page = hub.artifacts.names("", after.as_ref(), looks.min(LIST_AT_ONCE)).await;
        let page = page.map_err(|error| refused(&error))?;
        for Listed { name, bytes, modified } in &page.artifacts {
            summary.count(Some(&name.tenant), *bytes, *modified);
        }
        looks = looks.saturating_sub(page.artifacts.len().max(1));
        let Some(last) = page.artifacts.last().filter(|_| page.more) else { break };
        if looks == 0 {
            summary.truncated = true;
            break;
        }
        after = Some(last.name.clone());
    }
    let tenants = summary.tenants.iter();
    let tenants = tenants.map(|(tenant, artifact::Usage { count, bytes })| {
        json!({"tenant": tenant, "count": count, "bytes": bytes})
    });
    let toolsets = summary.toolsets.iter();
    let toolsets = toolsets.map(|(toolset, files::Toolset { attempts, bytes })| {
        json!({"toolset": toolset, "attempts": attempts, "bytes": bytes})
    });
    Ok(json!({
        "ok": true, "at": time(utc_now()), "files": summary.files, "bytes": summary.bytes,
        "tenants": tenants.collect::<Vec<_>>(), "toolsets": toolsets.collect::<Vec<_>>(),
        "oldest": summary.oldest.map(time), "newest": summary.newest.map(time),
        "truncated": summary.truncated,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::Digest;

    #[test]
    fn a_cursor_is_read_as_it_is_written_and_nothing_else_is_one() {
        let name = Name::new("acme", Digest::of(b"x"));
        for cursor in [
            Cursor::Store(Some(name)),
            Cursor::Files(None),
            Cursor::Files(Some("mcp/demo/a b/\u{10ffff}".to_owned())),
        ] {
            assert_eq!(Cursor::parse(&cursor.text()), Some(cursor));
        }
        for bad in ["", "s", "sacme", "s../x", "x", "\u{e9}"] {
            assert_eq!(Cursor::parse(&URL_SAFE_NO_PAD.encode(bad)), None, "{bad}");
        }
        assert_eq!(Cursor::parse("mcp/demo"), None);
    }

    #[test]
    fn a_prefix_and_a_tenant_say_what_of_the_store_is_wanted() {
        let of = |prefix, tenant| below_store(prefix, tenant);
        assert_eq!(of("", None).as_deref(), Some(""));
        assert_eq!(of("blo", Some("acme")).as_deref(), Some("acme/"));
        assert_eq!(of("blobs/acme/ab", Some("acme")).as_deref(), Some("acme/ab"));
        assert_eq!(of("blobs/ac", Some("acme")).as_deref(), Some("acme/"));
        for (prefix, tenant) in [("mcp", None), ("blobs/other", Some("acme")), ("blobsx", None)] {
            assert_eq!(of(prefix, tenant), None, "{prefix}");
        }
    }
}
