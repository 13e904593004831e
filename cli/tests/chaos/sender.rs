//! Sends the messages of a plan, and remembers what was acknowledged.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use cogo::bus::Bus;
use cogo::message::{MessageId, NewMessage, Topic};
use cogo::shutdown::Tasks;
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::postgres::PgConnectOptions;

use crate::fleet::Fleet;
use crate::http;
use crate::plan::{Planned, Work};

/// How long an answer is waited for.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// How often, and after what pause, a message with a key is sent until it is acknowledged.
const TRIES: u32 = 30;
const PAUSE: Duration = Duration::from_millis(150);

/// What became of sending one message.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    pub(crate) work: Work,
    pub(crate) key: Option<String>,
    /// The ids that it was acknowledged under: none if no answer came; one, unless keys are broken.
    pub(crate) acknowledged: Vec<String>,
    /// How often it was sent.
    pub(crate) tries: u32,
    /// Every answer: its status, or why there was none.
    pub(crate) answers: Vec<String>,
}

/// The totals of a run's sending.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Totals {
    pub(crate) planned: usize,
    pub(crate) acknowledged: usize,
    pub(crate) repeated: usize,
    pub(crate) answers: BTreeMap<String, usize>,
}

/// Sends all messages at their times, from now on; ends when each is acknowledged or given up.
pub(crate) async fn send(fleet: &Fleet, messages: &[Planned]) -> Vec<Sent> {
    let tasks = Tasks::new();
    let bus = echo_bus(fleet);
    let sending: Vec<_> = messages
        .iter()
        .cloned()
        .map(|planned| {
            let (bus, hub) = (bus.clone(), fleet.http.address);
            tasks.spawn(async move {
                tokio::time::sleep(planned.at).await;
                match planned.work {
                    Work::Tool { toolset, tool } => by_http(hub, planned, toolset, tool).await,
                    Work::Echo => by_database(&bus, planned).await,
                }
            })
        })
        .collect();
    let mut sent = Vec::new();
    for task in sending {
        sent.push(task.await.expect("sending does not panic"));
    }
    sent
}

fn echo_bus(fleet: &Fleet) -> Bus {
    let connect = PgConnectOptions::new_without_pgpass()
        .host("127.0.0.1")
        .port(fleet.sender.address.port())
        .username(cogo::db::embedded::USER)
        .database(&fleet.database)
        .ssl_mode(sqlx::postgres::PgSslMode::Disable);
    Bus::new(cogo::db::Options::new(connect).pool())
}

async fn by_http(hub: SocketAddr, planned: Planned, toolset: &str, tool: &str) -> Sent {
    let body = call(toolset, tool, &planned).to_string();
    let mut sent = Sent::of(&planned);
    let tries = if planned.key.is_some() { TRIES } else { 1 };
    while sent.acknowledged.is_empty() && sent.tries < tries {
        if sent.tries > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        let post = || http::request(hub, "POST", "/api/mcp/enqueue", &body, ANSWER_WITHIN);
        let answers = if planned.twice {
            let (first, second) = tokio::join!(post(), post());
            vec![first, second]
        } else {
            vec![post().await]
        };
        for answer in answers {
            sent.tries += 1;
            match answer {
                Ok((202, answer)) => {
                    sent.answers.push("202".to_owned());
                    sent.acknowledge(answer["id"].as_str().unwrap_or_default());
                }
                Ok((status @ (503 | 504), _)) => sent.answers.push(status.to_string()),
                Ok((status, answer)) => sent.answers.push(format!("{status}: {answer}")),
                Err(error) => sent.answers.push(format!("none ({})", error.kind())),
            }
        }
    }
    sent
}

async fn by_database(bus: &Bus, planned: Planned) -> Sent {
    let topic = Topic::new("echo", "default").expect("a good name");
    let mut message = NewMessage::new(&topic, "echo", json!({"n": planned.number}));
    message.idempotency_key.clone_from(&planned.key);
    message.ordering_key.clone_from(&planned.ordering_key);
    let mut sent = Sent::of(&planned);
    sent.tries = 1;
    match bus.publish(message).await {
        Ok(receipt) => {
            let MessageId(id) = receipt.id;
            sent.answers.push("published".to_owned());
            sent.acknowledge(&id.to_string());
        }
        Err(error) if error.is_transient() => sent.answers.push("not published".to_owned()),
        Err(error) => sent.answers.push(format!("refused: {error}")),
    }
    sent
}

/// The body of a request that asks for a tool.
fn call(toolset: &str, tool: &str, planned: &Planned) -> Value {
    let mut body = json!({"toolset": toolset, "tool": tool, "params": {"n": planned.number}});
    if let Some(key) = &planned.key {
        body["idempotency_key"] = key.as_str().into();
    }
    if let Some(key) = &planned.ordering_key {
        body["ordering_key"] = key.as_str().into();
    }
    if let Some(ms) = planned.deadline_ms {
        body["deadline_ms"] = ms.into();
    }
    if planned.priority != 0 {
        body["priority"] = planned.priority.into();
    }
    body
}

impl Sent {
    fn of(planned: &Planned) -> Self {
        Self {
            work: planned.work,
            key: planned.key.clone(),
            acknowledged: Vec::new(),
            tries: 0,
            answers: Vec::new(),
        }
    }

    fn acknowledge(&mut self, id: &str) {
        if !self.acknowledged.iter().any(|known| known == id) {
            self.acknowledged.push(id.to_owned());
        }
    }
}

impl Totals {
    pub(crate) fn of(sent: &[Sent]) -> Self {
        let mut totals = Self { planned: sent.len(), ..Self::default() };
        for one in sent {
            totals.acknowledged += usize::from(!one.acknowledged.is_empty());
            totals.repeated += usize::from(one.tries > 1);
            for answer in &one.answers {
                *totals.answers.entry(answer.clone()).or_default() += 1;
            }
        }
        totals
    }
}
