//! A body that does not arrive in time is given up, where no other limit of time holds.

use std::io;
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

/// `body`, which ends in an error unless it has been read within `limit`.
pub(crate) fn within(limit: Duration, body: Body) -> Body {
    if body.is_end_stream() {
        return body;
    }
    Body::new(Arriving { body, late: Box::pin(tokio::time::sleep(limit)) })
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
        Poll::Ready(Some(Err(axum::Error::new(io::Error::from(io::ErrorKind::TimedOut)))))
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
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stops_coming_is_given_up() {
        let never = futures_util::stream::pending::<io::Result<Bytes>>();
        let late = within(Duration::from_secs(5), Body::from_stream(never));
        assert!(axum::body::to_bytes(late, 10).await.is_err());
        let whole = within(Duration::from_secs(5), Body::from("whole"));
        assert_eq!(axum::body::to_bytes(whole, 10).await.expect("a body"), "whole");
    }
}
