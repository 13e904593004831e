//! What is answered over HTTP: JSON if it is there soon, and a stream of events if not, or if something is told first.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody as _};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt, stream};
use serde_json::Value;
use tokio::sync::mpsc;

use super::KEEP_ALIVE;
use super::lifecycle::{self, Client};
use super::rpc::{Answer, CANCELLED, TOO_MANY, response};

/// How long an answer is waited for before its stream begins. Longer, and a client may think that nobody is there.
const SOON: Duration = Duration::from_secs(1);

/// How much of an answer is given to the connection at a time.
const PIECE: usize = 64 * 1024;

/// What makes the answer. Dropping it leaves a call as it is.
pub(super) type Work = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// Answers the request `id` with what `work` gives, after what it tells; a stream ends when `expires` is over.
pub(super) async fn reply(
    id: Value,
    client: Client,
    mut work: Work,
    mut told: mpsc::Receiver<String>,
    stream: bool,
    expires: Option<Duration>,
) -> Response {
    if !stream {
        told.close();
        return json(&id, client, &work.await);
    }
    let first = tokio::select! {
        answer = &mut work => match told.try_recv() {
            Err(_) => return json(&id, client, &answer),
            Ok(first) => Some((first, Some(answer))),
        },
        Some(first) = told.recv() => Some((first, None)),
        () = tokio::time::sleep(SOON) => None,
    };
    let (first, answer) = first.map_or((None, None), |(first, answer)| (Some(first), answer));
    let telling = Telling { id, work: Some(work), answer, told };
    let rest = stream::unfold(telling, |telling| telling.next());
    let events = stream::iter(first).chain(rest);
    let events = ends(events, expires).map(|data| Ok::<_, Infallible>(Event::default().data(data)));
    let sse = Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE));
    // Or a proxy in between would keep it until it is complete.
    ([("x-accel-buffering", HeaderValue::from_static("no"))], sse).into_response()
}

/// An answer that is on its way.
struct Telling {
    id: Value,
    work: Option<Work>,
    answer: Option<Answer>,
    told: mpsc::Receiver<String>,
}

impl Telling {
    async fn next(mut self) -> Option<(String, Self)> {
        if self.answer.is_none() {
            let mut work = self.work.take()?;
            tokio::select! {
                biased;
                Some(note) = self.told.recv() => {
                    self.work = Some(work);
                    return Some((note, self));
                }
                answer = &mut work => self.answer = Some(answer),
            }
        }
        self.work = None;
        // What was told before the end goes before it.
        if let Ok(note) = self.told.try_recv() {
            return Some((note, self));
        }
        let answer = self.answer.take()?;
        if is_unwanted(&answer) {
            return None;
        }
        let last = response(&self.id, &answer);
        Some((last, self))
    }
}

/// Whether the client has said that it does not want the answer any more.
fn is_unwanted(answer: &Answer) -> bool {
    answer.as_ref().is_err_and(|error| error.code == CANCELLED)
}

fn json(id: &Value, client: Client, answer: &Answer) -> Response {
    if is_unwanted(answer) {
        let empty = stream::empty::<Result<Event, Infallible>>();
        return Sse::new(empty).into_response();
    }
    let status = match answer {
        Ok(_) => StatusCode::OK,
        Err(error) if error.code == TOO_MANY => StatusCode::TOO_MANY_REQUESTS,
        Err(error) => lifecycle::status(client, error),
    };
    (status, [(header::CONTENT_TYPE, "application/json")], response(id, answer)).into_response()
}

/// The stream, until `expires` is over.
fn ends<S: Stream + Send>(
    stream: S,
    expires: Option<Duration>,
) -> impl Stream<Item = S::Item> + Send {
    stream.take_until(async move {
        match expires {
            Some(left) => tokio::time::sleep(left).await,
            None => std::future::pending().await,
        }
    })
}

/// The response, sent piece by piece; `kept` is kept until the last one is on its way. What a client is slow to take
/// is in memory for as long.
pub(super) fn held(response: Response, kept: impl Send + Sync + 'static) -> Response {
    let (mut parts, body) = response.into_parts();
    if let Some(length) = body.size_hint().exact() {
        parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    let pieces = body.into_data_stream().flat_map(|chunk| {
        let (mut rest, failed) = match chunk {
            Ok(chunk) => (chunk, None),
            Err(error) => (Bytes::new(), Some(Err(error))),
        };
        let next = move || (!rest.is_empty()).then(|| Ok(rest.split_to(rest.len().min(PIECE))));
        stream::iter(std::iter::from_fn(next).chain(failed))
    });
    let pieces = pieces.map(move |piece| {
        let _kept = &kept;
        piece
    });
    Response::from_parts(parts, Body::from_stream(pieces))
}

/// The response, whose body ends when `expires` is over if it is a stream of events; `kept` is kept as long.
pub(super) fn until(
    response: Response,
    expires: Option<Duration>,
    kept: impl Send + Sync + 'static,
) -> Response {
    let is_stream = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
    if !is_stream {
        return response;
    }
    response.map(|body| {
        let data = body.into_data_stream().map(move |chunk| {
            let _kept = &kept;
            chunk
        });
        Body::from_stream(ends(data, expires))
    })
}
