//! `/mcp/artifacts/{tenant}/{sha256}`: artifacts, for workers without this machine's disk to put and for everybody of
//! a tenant to get. Who is at the other end chose both bytes and type, so nothing of them is ever shown in a page.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{FromRequest as _, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::artifact::{Digest, Error, OCTETS, Opened};
use crate::error::Code;
use crate::hub::artifacts::disposition;
use crate::hub::conditional::{Validators, Wanted};
use crate::hub::error::ApiError;
use crate::hub::extract::PathParams;
use crate::hub::principal::Principal;
use crate::hub::shares::{Place, Shares};
use crate::hub::{Hub, Routes, arrival};

/// How long an artifact may take to arrive: 32 MiB over a slow line of 1 Mbit/s.
const UPLOAD_WITHIN: Duration = Duration::from_secs(300);
/// How long nothing of it may arrive.
const UPLOAD_CEASED: Duration = Duration::from_secs(10);
/// How many may arrive at once: each is held in memory as a whole. Of one tenant at most three quarters ([`Shares`]), so
/// that a worker whose uploads do not get on keeps nobody else from theirs.
const UPLOADS: u32 = 8;
/// How long one waits for its place before it is to come again.
const PATIENCE: Duration = Duration::from_secs(5);

/// The places of artifacts that arrive.
pub(crate) struct Uploads {
    all: Semaphore,
    shares: Arc<Shares>,
}

impl Default for Uploads {
    fn default() -> Self {
        let all = usize::try_from(UPLOADS).unwrap_or(usize::MAX);
        Self { all: Semaphore::new(all), shares: Arc::new(Shares::new(UPLOADS, PATIENCE)) }
    }
}

impl Uploads {
    /// A place for one of a tenant, once there is one.
    async fn take(&self, tenant: &str) -> Option<(Place, SemaphorePermit<'_>)> {
        let share = self.shares.take(tenant).await?;
        let place = tokio::time::timeout(PATIENCE, self.all.acquire()).await;
        Some((share, place.ok()?.ok()?))
    }
}

pub(crate) fn routes(hub: &Arc<Hub>) -> Routes {
    Routes::new()
        .get("/mcp/artifacts/{tenant}/{sha256}", give)
        .put("/mcp/artifacts/{tenant}/{sha256}", take)
        .with_state(Arc::clone(hub))
}

async fn take(
    State(hub): State<Arc<Hub>>,
    path: PathParams,
    request: Request,
) -> Result<Response, ApiError> {
    let who = hub.state.principals().of(request.headers())?;
    let (tenant, sha256) = named(&who, &path)?;
    if !(who.is_operator() || who.worker().is_some()) {
        let message = "the key is for no worker, and only workers put artifacts; get one from `cogo token mint \
                       --worker <name>`";
        return Err(ApiError::new(Code::Forbidden, message));
    }
    let Some(_place) = hub.uploads.take(&tenant).await else {
        let message = "too many artifacts arrive at once; try again in a moment";
        return Err(ApiError::new(Code::Unavailable, message));
    };
    let mime = request.headers().get(header::CONTENT_TYPE);
    let mime = mime.and_then(|mime| mime.to_str().ok()).unwrap_or(OCTETS).to_owned();
    let most = hub.state.options.mcp.max_artifact_bytes;
    let request = request.map(|body| arrival::unceasing(UPLOAD_CEASED, body));
    let late = || ApiError::new(Code::Timeout, "body: it did not arrive in time");
    let bytes = match tokio::time::timeout(UPLOAD_WITHIN, Bytes::from_request(request, &())).await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(refused)) if refused.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            let message =
                format!("body: at most {most} bytes; see mcp.max_artifact_bytes of hub.json");
            return Err(ApiError::new(Code::PayloadTooLarge, message));
        }
        Ok(Err(refused)) if arrival::gave_up(&refused) => return Err(late()),
        Ok(Err(_)) => return Err(ApiError::invalid("body", "ended before it was complete")),
        Err(_) => return Err(late()),
    };
    let kept = hub.artifacts.put_named(&tenant, sha256, bytes.into(), &mime).await;
    let kept = kept.map_err(|error| refused(&error))?;
    let told = json!({
        "ok": true, "uri": kept.uri(), "tenant": kept.tenant, "sha256": kept.sha256,
        "bytes": kept.bytes, "mime": kept.mime,
    });
    Ok((StatusCode::CREATED, Json(told)).into_response())
}

async fn give(
    State(hub): State<Arc<Hub>>,
    path: PathParams,
    request: Request,
) -> Result<Response, ApiError> {
    let who = hub.state.principals().of(request.headers())?;
    let (tenant, sha256) = named(&who, &path)?;
    let method = request.method().clone();
    let mut headers = request.headers().clone();
    let stat = hub.artifacts.stat(&tenant, sha256).await.map_err(|error| refused(&error))?;
    let (bytes, modified) = (stat.bytes, stat.modified);
    let is = Validators { etag: format!("\"{sha256}\""), modified, bytes };
    let wanted = is.judge(&method, &mut headers)?;
    let mut response = match wanted {
        Wanted::NotModified => StatusCode::NOT_MODIFIED.into_response(),
        Wanted::Whole if method == Method::HEAD => StatusCode::OK.into_response(),
        Wanted::Whole | Wanted::Part(_) => {
            let range = if let Wanted::Part(range) = wanted { Some(range) } else { None };
            let opened = hub.artifacts.open(&tenant, sha256, range).await;
            let Opened { body, .. } = opened.map_err(|error| refused(&error))?;
            Body::from_stream(body).into_response()
        }
    };
    let headers = response.headers_mut();
    is.tell(headers);
    guard(headers, &sha256, &stat.mime);
    let length = match wanted {
        Wanted::NotModified => return Ok(response),
        Wanted::Whole => bytes,
        Wanted::Part(range) => {
            let of = format!("bytes {}-{}/{bytes}", range.first, range.last);
            let of = HeaderValue::from_str(&of).expect("digits make a header");
            headers.insert(header::CONTENT_RANGE, of);
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            range.len()
        }
    };
    let mime = HeaderValue::from_str(&stat.mime);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, mime.unwrap_or(HeaderValue::from_static(OCTETS)));
    headers.insert(header::CONTENT_LENGTH, length.into());
    Ok(response)
}

/// A page must not come out of it, whatever type it says it has. What else every answer has forbids it as well.
fn guard(headers: &mut HeaderMap, sha256: &Digest, mime: &str) {
    let fixed = "private, max-age=31536000, immutable";
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(fixed));
    headers.insert(header::CONTENT_DISPOSITION, disposition(mime, &sha256.to_string()));
}

/// What the path names, if it is this caller's. Whether another tenant has something is not said.
fn named(who: &Principal, path: &PathParams) -> Result<(String, Digest), ApiError> {
    let tenant = path.text("tenant");
    if !(who.is_for_all_tenants() || tenant == who.tenant()) {
        let message = format!("tenant: the key is for {}, and reaches no other's", who.tenant());
        return Err(ApiError::new(Code::Forbidden, message));
    }
    let sha256 = Digest::parse(path.text("sha256")).ok_or_else(|| {
        ApiError::invalid("sha256", "must be 64 hexadecimal digits in lower case")
    })?;
    Ok((tenant.to_owned(), sha256))
}

/// What a store refused, as its caller sees it.
pub(crate) fn refused(error: &Error) -> ApiError {
    match error {
        Error::Io(_) | Error::Unsupported(_) => ApiError::internal("keeping an artifact", error),
        Error::Bucket { code: Code::Unavailable | Code::Timeout, message } => {
            tracing::warn!("The bucket of artifacts does not answer: {message}");
            let message = "the store of artifacts does not answer; try again";
            ApiError::new(Code::Unavailable, message)
        }
        // How the hub is set up is nothing that a caller could change.
        Error::Bucket { .. } | Error::Setting { .. } => {
            ApiError::internal("asking the bucket of artifacts", error)
        }
        _ => ApiError::new(error.code(), error.to_string()),
    }
}
