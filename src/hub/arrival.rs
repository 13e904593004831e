//! A body that does not arrive in time, or stops arriving, is given up, where no other limit of time holds.

use std::error::Error as StdError;
use std::io;
use std::iter::successors;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::time::Sleep;

struct Arriving {
    body: Body,
    late: Pin<Box<Sleep>>,
}

struct Unceasing {
    body: Body,
    limit: Duration,
    /// Runs while a part is waited for.
    ceased: Option<Pin<Box<Sleep>>>,
}

/// `body`, which ends in an error unless it has been read within `limit`.
pub(crate) fn within(limit: Duration, body: Body) -> Body {
    if body.is_end_stream() {
        return body;
    }
    Body::new(Arriving { body, late: Box::pin(tokio::time::sleep(limit)) })
}

/// `body`, which ends in an error when nothing of it arrives for `limit`.
pub(crate) fn unceasing(limit: Duration, body: Body) -> Body {
    if body.is_end_stream() {
        return body;
    }
    Body::new(Unceasing { body, limit, ceased: None })
}

/// Whether this is why a body could not be read: it was given up.
pub(crate) fn gave_up(error: &(dyn StdError + 'static)) -> bool {
    let timed_out = |error: &io::Error| error.kind() == io::ErrorKind::TimedOut;
    successors(Some(error), |&error| error.source())
        .any(|error| error.downcast_ref::<io::Error>().is_some_and(timed_out))
}

fn late() -> axum::Error {
    axum::Error::new(io::Error::from(io::ErrorKind::TimedOut))
}

impl HttpBody for Arriving {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            return Poll::Ready(frame);
        }
        ready!(self.late.as_mut().poll(context));
        Poll::Ready(Some(Err(late())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl HttpBody for Unceasing {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            self.ceased = None;
            return Poll::Ready(frame);
        }
        let limit = self.limit;
        let ceased = self.ceased.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        ready!(ceased.as_mut().poll(context));
        Poll::Ready(Some(Err(late())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{StreamExt as _, stream};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stops_coming_is_given_up() {
        let never = futures_util::stream::pending::<io::Result<Bytes>>();
        let late = within(Duration::from_secs(5), Body::from_stream(never));
        assert!(axum::body::to_bytes(late, 10).await.is_err());
        let whole = within(Duration::from_secs(5), Body::from("whole"));
        assert_eq!(axum::body::to_bytes(whole, 10).await.expect("a body"), "whole");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_comes_slowly_is_read_and_one_that_ceases_is_not() {
        let part = |wait: u64| async move {
            tokio::time::sleep(Duration::from_secs(wait)).await;
            io::Result::Ok(Bytes::from_static(b"x"))
        };
        let parts = |waits: [u64; 3]| Body::from_stream(stream::iter(waits).then(part));
        let slow = unceasing(Duration::from_secs(10), parts([9, 9, 9]));
        assert_eq!(axum::body::to_bytes(slow, 10).await.expect("a body"), "xxx");
        let ceases = unceasing(Duration::from_secs(10), parts([9, 11, 9]));
        let error = axum::body::to_bytes(ceases, 10).await.expect_err("nothing came");
        assert!(gave_up(&error), "{error:?}");
        let cut = stream::iter([Err::<Bytes, _>(io::Error::from(io::ErrorKind::BrokenPipe))]);
        let cut = unceasing(Duration::from_secs(10), Body::from_stream(cut));
        let error = axum::body::to_bytes(cut, 10).await.expect_err("it broke");
        assert!(!gave_up(&error), "{error:?}");
    }
}
