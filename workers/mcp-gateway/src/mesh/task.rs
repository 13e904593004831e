//! A call as a task (MCP extension `io.modelcontextprotocol/tasks`, SEP-2663): a task is its message.
//!
//! A tool that needs input ends its message with a question (SEP-2322). What answers it is a *follow-up*, a message
//! with an id that is derived from the one before: there can be only one, whoever makes it, however often. So it is
//! what decides between an answer and a cancellation that come together, and what heals a crash between two steps.
//!
//! Answers that do not come all at once are kept as events (`<intent>_input`) of the message that asks, and the log's
//! order decides which of them count: the first answer to a question stands.

mod follow_up;
mod working;

use chrono::{DateTime, Utc};
use cogo::hub::Principal;
use cogo::message::{Message, MessageId, Status, TraceId};
use serde_json::{Map, Value, json};

use self::follow_up::{Cause, Questions};
use super::outcome::asks_for_input;
use super::{Failed, Mesh, Refusal, Verdict, is_live};

/// How often a tool may ask within one task. A tool that always asks must not make messages for ever.
const ROUNDS: usize = 32;
/// How many events are read for answers, of 64 KiB at most: each has an answer to a question that was open.
const INPUTS_MAX: u32 = 1024;
/// How much one call may answer where it leaves something open: an event holds 64 KiB.
const ANSWER_BYTES: usize = 60 * 1024;

/// A call as a task.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// What it is asked for by: the id of its first message.
    pub id: MessageId,
    /// Its trace.
    pub trace_id: TraceId,
    /// The toolset.
    pub toolset: String,
    /// The tool.
    pub tool: String,
    /// When it was started.
    pub created_at: DateTime<Utc>,
    /// When something last happened to it.
    pub updated_at: DateTime<Utc>,
    /// Where it stands.
    pub state: TaskState,
}

/// Where a task stands.
#[derive(Debug, Clone, PartialEq)]
pub enum TaskState {
    /// It waits or runs; in words.
    Working(String),
    /// The tool asks, and these questions are open.
    InputRequired(Map<String, Value>),
    /// The tool gave a result, which may say that it failed (`isError`).
    Completed(Value),
    /// There is no result of the tool to be had.
    Failed(Failed),
    /// Somebody cancelled it.
    Cancelled,
}

impl TaskState {
    /// Whether nothing more comes.
    #[must_use]
    pub fn is_final(&self) -> bool {
        !matches!(self, Self::Working(_) | Self::InputRequired(_))
    }
}

/// The messages of a task: the first, and the one where it stands.
struct Chain {
    first: Message,
    last: Message,
    /// How many follow-ups there are.
    round: usize,
}

impl Chain {
    /// The questions of the tool, if that is where it stands.
    fn questions(&self) -> Option<Questions> {
        let result = self.last.result.as_ref().filter(|_| self.last.status == Status::Done)?;
        (self.round < ROUNDS && asks_for_input(result))
            .then(|| Questions::of(result, self.round))
            .flatten()
    }
}

impl Mesh {
    /// Where the task whose message is `id` stands. A step that a crash left out is made.
    ///
    /// # Errors
    /// [`Refusal::NoCall`]; [`Refusal::Bus`].
    pub async fn task(&self, who: &Principal, id: MessageId) -> Result<Task, Refusal> {
        let chain = self.chain(who, id).await?;
        let state = self.state(who, &chain).await?;
        let Chain { first, last, .. } = chain;
        Ok(Task {
            id: first.id,
            trace_id: first.trace_id,
            tool: first.payload["tool"].as_str().unwrap_or_default().to_owned(),
            toolset: first.service,
            created_at: first.created_at,
            updated_at: last.updated_at,
            state,
        })
    }

    /// Answers what the tool of a task asks. Answers to what is not asked, or not any more, are of no effect, as are
    /// all where the task has ended; the tool goes on once nothing is left open.
    ///
    /// # Errors
    /// [`Refusal::NoCall`], [`Refusal::Forbidden`], [`Refusal::Full`]; [`Refusal::InvalidArguments`] for answers that
    /// are too large; [`Refusal::Bus`].
    pub async fn answer(
        &self,
        who: &Principal,
        id: MessageId,
        responses: Map<String, Value>,
    ) -> Result<(), Refusal> {
        let chain = self.chain(who, id).await?;
        let Some(questions) = chain.questions() else { return Ok(()) };
        let mut given = kept(who, &chain.last).await?;
        let taken = questions.answered_by(responses, &given);
        if !taken.is_empty() {
            given.extend(taken.clone());
            if !questions.all_in(&given) {
                keep(who, &chain, taken).await?;
                // Somebody else may have given the rest meanwhile; whoever reads last sees all.
                given = kept(who, &chain.last).await?;
            }
        }
        if questions.all_in(&given) {
            go_on(who, &chain, &questions, given).await?;
        }
        Ok(())
    }

    /// Cancels the task whose message is `id`, wherever it stands; that it has ended already is no error. A tool that
    /// runs is told, and may have done its work all the same.
    ///
    /// # Errors
    /// [`Refusal::NoCall`], [`Refusal::Forbidden`]; [`Refusal::Bus`].
    pub async fn cancel(
        &self,
        who: &Principal,
        id: MessageId,
        reason: &str,
    ) -> Result<(), Refusal> {
        let chain = self.chain(who, id).await?;
        if is_live(&chain.last) {
            return self.end(who, chain.last.id, reason).await;
        }
        if chain.questions().is_some() {
            // Nothing runs that could be cancelled: what would have gone on is made, never to run. If an answer was
            // faster, that is what is cancelled.
            let stop = follow_up::message(&chain.last, Cause::Cancelled(reason));
            let receipt = who.publish(stop).await?;
            return self.end(who, receipt.id, reason).await;
        }
        Ok(())
    }

    /// Cancels one message; one that has ended meanwhile is left as it is.
    async fn end(&self, who: &Principal, id: MessageId, reason: &str) -> Result<(), Refusal> {
        who.cancel(id, Some(reason)).await?;
        Ok(())
    }

    async fn state(&self, who: &Principal, chain: &Chain) -> Result<TaskState, Refusal> {
        let last = &chain.last;
        if let Some(reason) = follow_up::cancelled(last) {
            if is_live(last) {
                self.end(who, last.id, reason).await?;
            }
            return Ok(TaskState::Cancelled);
        }
        Ok(match Verdict::of(last) {
            Verdict::Result(result) if asks_for_input(&result) => {
                let Some(questions) = chain.questions() else {
                    return Ok(TaskState::Failed(unanswerable(last, chain.round)));
                };
                let given = kept(who, last).await?;
                let open = questions.open(&given);
                if open.is_empty() {
                    go_on(who, chain, &questions, given).await?;
                    return Ok(TaskState::Working("goes on with the answers".to_owned()));
                }
                TaskState::InputRequired(open)
            }
            Verdict::Result(result) => TaskState::Completed(result),
            Verdict::Refused(failed) | Verdict::Dead(failed) => TaskState::Failed(failed),
            Verdict::Cancelled => TaskState::Cancelled,
            Verdict::Pending => {
                let offered = self.catalogue.snapshot(&last.tenant).await?;
                let tool = last.payload["tool"].as_str().unwrap_or_default();
                let workers = offered.get(&last.service, tool).map_or(0, |offer| offer.workers);
                TaskState::Working(working::words(last, workers))
            }
        })
    }

    /// The messages of the task that begins with `id`.
    async fn chain(&self, who: &Principal, id: MessageId) -> Result<Chain, Refusal> {
        let first = self.call(who, id).await?;
        let (mut last, mut round) = (first.clone(), 0);
        while round < ROUNDS
            && last.status == Status::Done
            && last.result.as_ref().is_some_and(asks_for_input)
        {
            match self.call(who, follow_up::id(last.id)).await {
                // An id that somebody guessed is no follow-up.
                Ok(next) if next.parent_id != Some(last.id) || next.topic() != last.topic() => {
                    return Err(Refusal::NoCall(id));
                }
                Ok(next) => last = next,
                Err(Refusal::NoCall(_)) => break,
                Err(refusal) => return Err(refusal),
            }
            round += 1;
        }
        Ok(Chain { first, last, round })
    }
}

/// The answers that were kept for what `asking` asks.
async fn kept(who: &Principal, asking: &Message) -> Result<Map<String, Value>, Refusal> {
    let events = who.inputs(asking.id, INPUTS_MAX).await?;
    let mut given = Map::new();
    for event in events.into_iter().filter(|event| event.event_type == input_event(asking)) {
        let Some(Value::Object(responses)) = event.payload.get("responses").cloned() else {
            continue;
        };
        for (name, answer) in responses {
            given.entry(name).or_insert(answer);
        }
    }
    Ok(given)
}

/// Keeps answers that do not answer everything.
async fn keep(who: &Principal, chain: &Chain, taken: Map<String, Value>) -> Result<(), Refusal> {
    let (task, asking) = (chain.first.id, &chain.last);
    let responses = Value::Object(taken);
    if responses.to_string().len() > ANSWER_BYTES {
        let message = format!(
            "inputResponses: at most {ANSWER_BYTES} bytes at a time, unless all is answered at once"
        );
        return Err(Refusal::InvalidArguments { pointer: String::new(), message });
    }
    let event = json!({
        "event_type": input_event(asking), "message_id": asking.id, "trace_id": asking.trace_id,
        "tenant": asking.tenant, "role": asking.role, "service": asking.service,
        "shard": asking.shard, "payload": {"responses": responses, "task": task},
    });
    Ok(who.append_event(event).await?)
}

/// Has the tool go on with the answers; that somebody did so already is as good.
async fn go_on(
    who: &Principal,
    chain: &Chain,
    questions: &Questions,
    given: Map<String, Value>,
) -> Result<(), Refusal> {
    let responses = questions.of_these(given);
    let state = questions.state().map(str::to_owned);
    let cause = Cause::Answered { responses, state };
    who.publish(follow_up::message(&chain.last, cause)).await?;
    Ok(())
}

fn input_event(asking: &Message) -> String {
    format!("{}_input", asking.intent.replace('.', "_"))
}

fn unanswerable(message: &Message, round: usize) -> Failed {
    let tool = message.payload["tool"].as_str().unwrap_or("the tool");
    let text = match round < ROUNDS {
        true => format!("{tool} asks for input, but names neither a question nor a state"),
        false => format!("{tool} asked for input {ROUNDS} times"),
    };
    Failed {
        code: -32603,
        message: text,
        data: Some(json!({"cogo/class": "protocol", "cogo/message_id": message.id})),
        class: "protocol".to_owned(),
        id: message.id,
    }
}
