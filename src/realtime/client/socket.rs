//! The WebSocket: how it is opened, and why it could not be.

use std::time::Duration;

use reqwest::Url;
use serde_json::Value;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::Error as WsError;
use tokio_tungstenite::tungstenite::http::header::RETRY_AFTER;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use crate::error::chain;
use crate::net::{AsyncReadWrite, Connector, Route};

use super::backoff::Pace;
use super::wire::MAX_FRAME_BYTES;

pub(super) type Socket = WebSocketStream<Box<dyn AsyncReadWrite>>;

/// What a server's own words are cut to.
const MAX_WORDS: usize = 300;

/// The longest pause that a server may ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// Why there is no connection, or none any more.
#[derive(Debug)]
pub(super) struct Loss {
    pub(super) reason: String,
    pub(super) pace: Pace,
    /// The HTTP status that the server refused it with.
    pub(super) status: Option<u16>,
    /// What the server asked to wait at least.
    pub(super) wait: Duration,
}

impl Loss {
    pub(super) fn new(reason: impl Into<String>, pace: Pace) -> Self {
        Self { reason: reason.into(), pace, status: None, wait: Duration::ZERO }
    }
}

pub(super) async fn open(
    connector: Connector,
    url: Url,
    within: Duration,
) -> Result<(Socket, Option<Route>), Loss> {
    let opening = async {
        let (stream, route) = connector.connect_by_route(&url, within).await.map_err(|error| {
            let pace = if error.is_offline() { Pace::Offline } else { Pace::Usual };
            Loss::new(chain(&error).to_string(), pace)
        })?;
        let config = WebSocketConfig::default()
            .max_message_size(Some(MAX_FRAME_BYTES))
            .max_frame_size(Some(MAX_FRAME_BYTES));
        let request = url.as_str().into_client_request().map_err(refusal)?;
        let opened = client_async_with_config(request, stream, Some(config)).await;
        opened.map(|(socket, _)| (socket, route)).map_err(refusal)
    };
    tokio::time::timeout(within, opening).await.unwrap_or_else(|_| {
        Err(Loss::new(format!("the server has not answered within {within:?}"), Pace::Offline))
    })
}

fn refusal(error: WsError) -> Loss {
    let WsError::Http(response) = error else {
        // Of the rest only transport errors say more than their kind, and none shows the URL.
        return Loss::new(format!("the WebSocket cannot be opened: {}", said(&error)), Pace::Usual);
    };
    let status = response.status();
    let body = response.body().as_deref().unwrap_or_default();
    let message = words(body)
        .unwrap_or_else(|| status.canonical_reason().unwrap_or("no reason was given").to_owned());
    let seconds = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let wait = seconds
        .and_then(|seconds| seconds.parse().ok())
        .map_or(Duration::ZERO, |seconds| Duration::from_secs(seconds).min(MAX_RETRY_AFTER));
    let pace = if status.as_u16() == 429 { Pace::Slow } else { Pace::Usual };
    Loss { reason: message, pace, status: Some(status.as_u16()), wait }
}

/// What a WebSocket error says, without anything that a peer or the URL put into it.
pub(super) fn said(error: &WsError) -> String {
    match error {
        WsError::Io(error) => chain(error).to_string(),
        WsError::Protocol(error) => error.to_string(),
        WsError::Capacity(error) => error.to_string(),
        WsError::ConnectionClosed | WsError::AlreadyClosed => "it is closed".to_owned(),
        _ => "the server does not speak WebSocket properly".to_owned(),
    }
}

/// The message of an error's JSON body, whichever key it has.
fn words(body: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(body);
    // The body may still be in chunks.
    let json = text.get(text.find('{')?..=text.rfind('}')?)?;
    let value: Value = serde_json::from_str(json).ok()?;
    let message = ["error", "message", "msg"].into_iter().find_map(|key| value.get(key)?.as_str());
    Some(message?.chars().filter(|c| !c.is_control()).take(MAX_WORDS).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_a_refusal_are_found_and_bounded() {
        assert_eq!(
            words(br#"{"error":"Token has expired"}"#).as_deref(),
            Some("Token has expired")
        );
        let chunked = b"13\r\n{\"message\":\"no\\n\"}\r\n0\r\n\r\n";
        assert_eq!(words(chunked).as_deref(), Some("no"));
        for odd in [&b""[..], b"<html>", b"{}", b"}{", b"\xff{\xff}", b"{\"error\":1}"] {
            assert_eq!(words(odd), None);
        }
        let long = format!(r#"{{"error":"{}"}}"#, "x".repeat(10_000));
        assert_eq!(words(long.as_bytes()).map(|words| words.len()), Some(MAX_WORDS));
    }
}
