//! WebSocket.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::wire::{call, initialize, modern};
use crate::mesh::site::{Machine, Site, TOKEN};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn connect(site: &Site, token: &str) -> Result<Socket, u16> {
    let url = format!("ws://{}/mcp/ws", site.listen().await);
    let mut request = url.into_client_request().expect("a request");
    request.headers_mut().insert("sec-websocket-protocol", "mcp".parse().expect("a value"));
    if !token.is_empty() {
        let bearer = format!("Bearer {token}").parse().expect("a value");
        request.headers_mut().insert("authorization", bearer);
    }
    match connect_async(request).await {
        Ok((socket, response)) => {
            assert_eq!(response.headers()["sec-websocket-protocol"], "mcp");
            Ok(socket)
        }
        Err(tokio_tungstenite::tungstenite::Error::Http(refused)) => Err(refused.status().as_u16()),
        Err(error) => panic!("{error}"),
    }
}

async fn send(socket: &mut Socket, message: &Value) {
    socket.send(Message::text(message.to_string())).await.expect("it is sent");
}

async fn next(socket: &mut Socket) -> Value {
    let wait = async {
        loop {
            match socket.next().await.expect("a frame").expect("a frame") {
                Message::Text(text) => return serde_json::from_str(&text).expect("JSON"),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("{other:?}"),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.expect("in time")
}

#[tokio::test]
async fn a_socket_serves_a_session() {
    let site = Site::new().await;
    let machine = site.demo().await;
    let mut socket = connect(&site, TOKEN).await.expect("it is let in");
    send(&mut socket, &call(9, "demo__echo", json!({"message": "hi"}))).await;
    assert_eq!(next(&mut socket).await["error"]["code"], -32600);
    send(&mut socket, &initialize(json!({}))).await;
    assert_eq!(next(&mut socket).await["result"]["serverInfo"]["name"], "cogo");
    send(&mut socket, &json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await;
    send(&mut socket, &call(1, "demo__echo", json!({"message": "hi"}))).await;
    let answer = next(&mut socket).await;
    assert_eq!((&answer["id"], &answer["result"]["content"][0]["text"]), (&json!(1), &json!("hi")));
    send(&mut socket, &json!({"jsonrpc": "2.0", "id": 2, "method": "ping"})).await;
    assert_eq!(next(&mut socket).await["id"], 2);
    // Progress, and a call that is cancelled while another goes on.
    let mut slow = call(3, "demo__sleep", json!({"ms": 60_000}));
    slow["params"]["_meta"] = json!({"progressToken": 5});
    send(&mut socket, &slow).await;
    assert_eq!(next(&mut socket).await["params"]["progressToken"], 5);
    let cancelled =
        json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 3}});
    send(&mut socket, &cancelled).await;
    send(&mut socket, &call(4, "demo__echo", json!({"message": "on"}))).await;
    let answer = loop {
        let message = next(&mut socket).await;
        if message.get("method").is_none() {
            break message;
        }
    };
    assert_eq!((&answer["id"], &answer["result"]["content"][0]["text"]), (&json!(4), &json!("on")));
    drop(machine);
}

#[tokio::test]
async fn a_socket_serves_requests_of_today_and_tells_of_changes() {
    let site = Site::new().await;
    let mut socket = connect(&site, TOKEN).await.expect("it is let in");
    let (body, _) = modern("tools/list", json!({}), false);
    send(&mut socket, &body).await;
    assert_eq!(next(&mut socket).await["result"]["resultType"], "complete");
    let (body, _) =
        modern("subscriptions/listen", json!({"notifications": {"toolsListChanged": true}}), false);
    send(&mut socket, &body).await;
    assert_eq!(next(&mut socket).await["method"], "notifications/subscriptions/acknowledged");
    let _machine = Machine::start(&site.db, &[]).await;
    assert_eq!(next(&mut socket).await["method"], "notifications/tools/list_changed");
}

#[tokio::test]
async fn who_may_not_gets_no_socket_and_nonsense_is_answered() {
    let site = Site::new().await;
    assert_eq!(connect(&site, "").await.err(), Some(401));
    assert_eq!(connect(&site, "wrong").await.err(), Some(401));
    let mut socket = connect(&site, TOKEN).await.expect("it is let in");
    socket.send(Message::text("{")).await.expect("it is sent");
    assert_eq!(next(&mut socket).await["error"]["code"], -32700);
}

#[tokio::test]
async fn a_socket_hears_of_changes_by_so_many_streams_and_no_more() {
    let mut options = cogo::hub::Options::default();
    options.mcp.max_calls_per_key = 2;
    let site = Site::with_options(cogo_worker_mcp_gateway::config::Mesh::default(), options).await;
    let mut socket = connect(&site, TOKEN).await.expect("it is let in");
    let (mut listen, _) =
        modern("subscriptions/listen", json!({"notifications": {"toolsListChanged": true}}), false);
    for id in 0..2 {
        listen["id"] = json!(id);
        send(&mut socket, &listen).await;
        assert_eq!(next(&mut socket).await["method"], "notifications/subscriptions/acknowledged");
    }
    listen["id"] = json!(2);
    send(&mut socket, &listen).await;
    assert_eq!(next(&mut socket).await["error"]["code"], -32005);
    drop(socket);
    // They end with the socket.
    let wire = super::wire::Wire::of(&site).await;
    let again = async {
        while wire.ask("tools/list", json!({})).await.status != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), again).await.expect("there is room");
}

#[tokio::test]
async fn what_cancels_a_call_may_come_right_behind_it() {
    let site = Site::new().await;
    let _machine = site.demo().await;
    let mut socket = connect(&site, TOKEN).await.expect("it is let in");
    for id in 0..20 {
        let (mut slow, _) = modern(
            "tools/call",
            json!({"name": "demo__sleep", "arguments": {"ms": 60_000}}),
            false,
        );
        slow["id"] = json!(id);
        let cancelled = json!({"jsonrpc": "2.0", "method": "notifications/cancelled",
            "params": {"requestId": id}});
        for message in [slow, cancelled] {
            socket.feed(Message::text(message.to_string())).await.expect("it is taken");
        }
        socket.flush().await.expect("both are sent");
    }
    // What is answered now was begun after all of them were read.
    let (mut echo, _) =
        modern("tools/call", json!({"name": "demo__echo", "arguments": {"message": "x"}}), false);
    echo["id"] = json!(20);
    send(&mut socket, &echo).await;
    let answer = next(&mut socket).await;
    assert_eq!(answer["id"], 20, "nothing else is answered: {answer}");
    let unwanted = async {
        while site.messages().await > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), unwanted).await.expect("all are cancelled");
}
