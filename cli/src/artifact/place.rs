//! Where artifacts are: here, or at a hub.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use cogo::artifact::files::{is_prefix, mime_of};
use cogo::artifact::{self, Artifact, ArtifactRef, Digest, Error, Store};
use cogo::bus::Bus;
use cogo::hub::{ApiError, ArtifactQuery, Options, list_artifacts};
use serde_json::Value;

use crate::connect::Global;
use crate::exit::{Exit, Failed};
use crate::{store, token};

/// How long the hub may take over one request.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// What is asked for.
pub(super) enum Named {
    Blob(String, Digest),
    File(String),
}

impl Named {
    pub(super) fn parse(name: &str) -> Result<Self> {
        let uri = match name.strip_prefix("blobs/") {
            Some(rest) => format!("cogo://artifacts/{rest}"),
            None => name.to_owned(),
        };
        if let Some((tenant, sha256)) = artifact::parse_uri(&uri) {
            return Ok(Self::Blob(tenant.to_owned(), sha256));
        }
        if uri.contains("://")
            || name.starts_with("blobs/")
            || name.ends_with('/')
            || !is_prefix(name)
            || name.is_empty()
        {
            return Err(Failed::usage(format!("{name:?}: is no name of an artifact"))
                .hint("Give a name of `cogo artifact list`, or cogo://artifacts/<tenant>/<sha256>.")
                .into());
        }
        Ok(Self::File(name.to_owned()))
    }

    pub(super) fn blob(&self) -> Option<(&str, Digest)> {
        match self {
            Self::Blob(tenant, sha256) => Some((tenant, *sha256)),
            Self::File(_) => None,
        }
    }

    pub(super) fn name(&self) -> String {
        match self {
            Self::Blob(tenant, sha256) => format!("blobs/{tenant}/{sha256}"),
            Self::File(path) => path.clone(),
        }
    }
}

/// Where artifacts are.
pub(super) enum Place {
    Here { store: Store, dir: PathBuf, max_bytes: u64 },
    Hub { store: Store, bus: Bus, url: reqwest::Url, http: reqwest::Client, max_bytes: u64 },
}

impl Place {
    pub(super) async fn of(global: &Global) -> Result<Self> {
        let options: Options = global.config()?.load()?;
        let max_bytes = options.artifact_limits().max_bytes;
        let Some(url) = global.url()? else {
            let dir = global.artifacts_dir()?;
            return Ok(Self::Here { store: store::of(&options, &dir, global)?, dir, max_bytes });
        };
        let bus = global.remote.bus(url).await?;
        let store = bus.artifacts().context("a bus over HTTPS keeps no artifacts")?;
        let http = global.remote.net().http_client()?;
        let url = url.parse().map_err(|_| Failed::usage("--url: is no URL"))?;
        Ok(Self::Hub { store, bus, url, http, max_bytes })
    }

    pub(super) fn max_bytes(&self) -> u64 {
        match self {
            Self::Here { max_bytes, .. } | Self::Hub { max_bytes, .. } => *max_bytes,
        }
    }

    /// The tenant of the key.
    pub(super) fn tenant(&self) -> Option<String> {
        match self {
            Self::Here { .. } => None,
            Self::Hub { bus, .. } => bus.claims().and_then(|claims| claims.tenant),
        }
    }

    pub(super) async fn put(
        &self,
        tenant: &str,
        bytes: Vec<u8>,
        mime: &str,
    ) -> Result<ArtifactRef> {
        let (Self::Here { store, .. } | Self::Hub { store, .. }) = self;
        store.put(tenant, bytes, mime).await.map_err(|error| failed(&error))
    }

    pub(super) async fn list(&self, query: &ArtifactQuery) -> Result<Value> {
        match self {
            Self::Here { store, dir, .. } => {
                list_artifacts(store, dir, query).await.map_err(|error| refused(&error))
            }
            Self::Hub { .. } => {
                let mut pairs = vec![("prefix", query.prefix.clone())];
                let limit = query.limit.map(|limit| limit.to_string());
                let more = [("tenant", &query.tenant), ("after", &query.after), ("limit", &limit)];
                pairs.extend(
                    more.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))),
                );
                let (_, bytes) = self.ask(&["api", "artifacts"], &pairs).await?;
                serde_json::from_slice(&bytes).context("the hub's list is no JSON")
            }
        }
    }

    pub(super) async fn get(&self, named: &Named) -> Result<Artifact> {
        match (self, named) {
            (Self::Here { store, .. } | Self::Hub { store, .. }, Named::Blob(tenant, sha256)) => {
                store.get(tenant, *sha256).await.map_err(|error| failed(&error))
            }
            (Self::Here { dir, .. }, Named::File(path)) => match std::fs::read(dir.join(path)) {
                Ok(bytes) => Ok(Artifact { mime: mime_of(path).to_owned(), bytes }),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    Err(Failed::new(Exit::NotFound, format!("there is no artifact {path:?}"))
                        .into())
                }
                Err(error) => Err(error).with_context(|| format!("reading {path}")),
            },
            (Self::Hub { .. }, Named::File(path)) => {
                let parts: Vec<_> = ["artifacts"].into_iter().chain(path.split('/')).collect();
                let (mime, bytes) = self.ask(&parts, &[]).await?;
                Ok(Artifact { mime, bytes })
            }
        }
    }

    /// `GET` of a hub's path, with the admin token if there is one.
    async fn ask(&self, path: &[&str], query: &[(&str, String)]) -> Result<(String, Vec<u8>)> {
        let Self::Hub { url, http, .. } = self else { return Err(anyhow!("there is no hub")) };
        let mut url = url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let mut request = http.get(url).timeout(ANSWER_WITHIN);
        if let Ok(token) = std::env::var(token::VARIABLE) {
            request = request.header("x-admin-token", token);
        }
        let unreached = |error: reqwest::Error| {
            let error = anyhow::Error::from(error.without_url());
            Failed::unavailable(format!("the hub cannot be asked: {error:#}"))
        };
        let answer = request.send().await.map_err(unreached)?;
        let status = answer.status();
        let mime = answer.headers().get("content-type").and_then(|mime| mime.to_str().ok());
        let mime = mime.unwrap_or_default().to_owned();
        let bytes = answer.bytes().await.map_err(unreached)?.to_vec();
        if status.is_success() {
            return Ok((mime, bytes));
        }
        let said: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let said = said["message"].as_str().unwrap_or("the hub refused");
        let exit = match status.as_u16() {
            400 => Exit::Usage,
            404 => Exit::NotFound,
            _ => Exit::Unavailable,
        };
        let failed = Failed::new(exit, format!("{said} ({status})"));
        Err(match status.as_u16() {
            401 | 403 => failed.hint(format!("Set {} to the hub's admin token.", token::VARIABLE)),
            _ => failed,
        }
        .into())
    }
}

fn failed(error: &Error) -> anyhow::Error {
    Failed::new(Exit::of(error.code()), format!("{:#}", anyhow!(error.to_string()))).into()
}

fn refused(error: &ApiError) -> anyhow::Error {
    Failed::new(Exit::of(error.code()), error.message().to_owned()).into()
}
