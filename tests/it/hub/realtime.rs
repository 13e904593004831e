//! Realtime, as raw WebSockets see it.

mod changes;
mod channels;
mod handshake;
mod limits;
mod own_client;
mod recordings;
mod topics;
mod wakeups;

use std::net::SocketAddr;

use anyhow::{Context, Result};
use cogo::clock;
use cogo::hub::{Options, bind, serve};
use cogo::identity::{Claims, Keys, Role};
use cogo::message::{NewMessage, Topic};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::hub::{DEADLINE, SECRET, Setup, TestHub};

/// A hub that can be reached.
struct Served {
    hub: TestHub,
    address: SocketAddr,
}

impl Served {
    async fn new() -> Result<Self> {
        Self::with(Options::default()).await
    }

    async fn with(options: Options) -> Result<Self> {
        Self::over(TestHub::with(Setup { options, ..Setup::default() }).await?).await
    }

    async fn over(hub: TestHub) -> Result<Self> {
        let listener = bind(([127, 0, 0, 1], 0).into(), false).await?;
        let address = listener.local_addr()?;
        let (router, shutdown) = (hub.router.clone(), hub.shutdown.clone());
        hub.tasks.spawn(async move { serve(listener, router, &shutdown).await });
        Ok(Self { hub, address })
    }

    async fn client(&self, vsn: &str, token: &str) -> Result<Client> {
        let path = format!("?apikey={token}&vsn={vsn}");
        Ok(self.connect(&path, None).await?)
    }

    /// Opens a socket, or gives the refusal.
    async fn connect(&self, query: &str, origin: Option<&str>) -> Result<Client, Error> {
        let url = format!("ws://{}/realtime/v1/websocket{query}", self.address);
        let mut request = url.into_client_request()?;
        if let Some(origin) = origin {
            let origin = origin.parse().expect("a header value");
            request.headers_mut().insert("origin", origin);
        }
        let stream = TcpStream::connect(self.address).await?;
        let (socket, _) = tokio_tungstenite::client_async(request, stream).await?;
        let v2 = query.contains("vsn=2.0.0");
        Ok(Client { socket, v2, next: 0 })
    }

    /// Publishes a message to a topic of a tenant; its id.
    async fn publish_to(&self, tenant: &str, topic: &str) -> Result<String> {
        let topic: Topic = topic.parse()?;
        let mut message = NewMessage::new(&topic, "echo.say", json!({"text": "hello"}));
        message.tenant = tenant.to_owned();
        Ok(self.hub.bus.publish(message).await?.id.to_string())
    }
}

/// A token of a tenant that may claim and enqueue everything in it.
fn token(tenant: &str) -> String {
    token_for(tenant, &["*"])
}

fn token_for(tenant: &str, topics: &[&str]) -> String {
    let topics = topics.iter().map(|topic| topic.parse().expect("a pattern")).collect();
    let tenant = Some(tenant.to_owned());
    mint(Claims { tenant, topics, ..claims(Role::Authenticated, 3600) })
}

/// Claims that end in so many seconds.
fn claims(role: Role, seconds: i64) -> Claims {
    Claims::new(role, clock::utc_now().timestamp() + seconds)
}

fn mint(claims: Claims) -> String {
    Keys::new(&[SECRET]).expect("a secret").mint(&claims)
}

/// A client that speaks either version.
struct Client {
    socket: WebSocketStream<TcpStream>,
    v2: bool,
    next: u32,
}

/// What a client heard, in either version.
#[derive(Debug, Clone, PartialEq)]
struct Heard {
    reference: Value,
    topic: String,
    event: String,
    payload: Value,
}

impl Client {
    /// Sends a frame; its reference.
    async fn send(&mut self, topic: &str, event: &str, payload: Value) -> Result<String> {
        self.next += 1;
        let reference = self.next.to_string();
        let topic = format!("realtime:{topic}");
        let frame = match self.v2 {
            true => json!(["1", reference, topic, event, payload]),
            false => {
                json!({"topic": topic, "event": event, "payload": payload, "ref": reference, "join_ref": "1"})
            }
        };
        self.raw(Message::text(frame.to_string())).await?;
        Ok(reference)
    }

    async fn raw(&mut self, message: Message) -> Result<()> {
        Ok(self.socket.send(message).await?)
    }

    /// The next message, but for pings.
    async fn message(&mut self) -> Result<Message> {
        loop {
            let next = tokio::time::timeout(DEADLINE, self.socket.next());
            let message =
                next.await.context("nothing was heard")?.context("the socket ended")??;
            if !matches!(message, Message::Ping(_) | Message::Pong(_)) {
                return Ok(message);
            }
        }
    }

    /// The next text frame.
    async fn hear(&mut self) -> Result<Heard> {
        let message = self.message().await?;
        let text = message.to_text().with_context(|| format!("{message:?}"))?;
        let json: Value = serde_json::from_str(text).with_context(|| format!("{message:?}"))?;
        let part = |at: usize, name: &str| {
            if self.v2 { json[at].clone() } else { json[name].clone() }
        };
        if !self.v2 {
            // pydantic in supabase-py drops what has not exactly these.
            let keys: Vec<&str> =
                json.as_object().context("an object")?.keys().map(|k| &**k).collect();
            anyhow::ensure!(keys.len() == 4 && keys.contains(&"ref"), "{text}");
        }
        let text = |value: Value| value.as_str().unwrap_or_default().to_owned();
        Ok(Heard {
            reference: part(1, "ref"),
            topic: text(part(2, "topic")),
            event: text(part(3, "event")),
            payload: part(4, "payload"),
        })
    }

    /// The next frame of an event; what comes before is passed over.
    async fn hear_of(&mut self, event: &str) -> Result<Value> {
        loop {
            let heard = self.hear().await?;
            if heard.event == event {
                return Ok(heard.payload);
            }
        }
    }

    /// The answer to a frame; what comes before is passed over.
    async fn answer(&mut self, reference: &str) -> Result<Value> {
        loop {
            let heard = self.hear().await?;
            if heard.event == "phx_reply" && heard.reference == reference {
                return Ok(heard.payload);
            }
        }
    }

    /// Joins, and gives the answer.
    async fn join(&mut self, topic: &str, config: Value) -> Result<Value> {
        let reference = self.send(topic, "phx_join", json!({"config": config})).await?;
        self.answer(&reference).await
    }

    /// Joins, which must be granted.
    async fn joined(&mut self, topic: &str, config: Value) -> Result<Value> {
        let answer = self.join(topic, config).await?;
        anyhow::ensure!(answer["status"] == "ok", "{answer}");
        Ok(answer["response"].clone())
    }

    /// Joins and subscribes to changes, and waits until that is live.
    async fn subscribed(&mut self, topic: &str, bindings: Value) -> Result<Value> {
        let config = json!({"postgres_changes": bindings, "presence": {"enabled": false}});
        let response = self.joined(topic, config).await?;
        let system = self.hear_of("system").await?;
        anyhow::ensure!(system["status"] == "ok", "{system}");
        anyhow::ensure!(system["message"] == "Subscribed to PostgreSQL", "{system}");
        Ok(response)
    }

    /// Makes sure that nothing was said that was not heard: the answer to a heartbeat comes next.
    async fn hears_nothing(&mut self) -> Result<()> {
        let beat = match self.v2 {
            true => json!([null, "beat", "phoenix", "heartbeat", {}]),
            false => {
                json!({"topic": "phoenix", "event": "heartbeat", "payload": {}, "ref": "beat"})
            }
        };
        self.raw(Message::text(beat.to_string())).await?;
        let heard = self.hear().await?;
        anyhow::ensure!(heard.topic == "phoenix" && heard.reference == "beat", "{heard:?}");
        Ok(())
    }

    /// The code with which the hub closes the socket; what comes before is passed over.
    async fn closed(&mut self) -> Result<u16> {
        loop {
            let next = tokio::time::timeout(DEADLINE, self.socket.next());
            match next.await.context("the socket was not closed")? {
                Some(Ok(Message::Close(Some(close)))) => return Ok(close.code.into()),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Ok(1006),
            }
        }
    }
}
