//! `tasks/*` (SEP-2663): a task is its message.

use chrono::{DateTime, SecondsFormat, Utc};
use cogo::message::MessageId;
use serde_json::{Map, Value, json};

use super::Endpoint;
use super::asked::Asked;
use super::rpc::{Answer, INVALID_PARAMS, RpcError};
use crate::mesh::{Refusal, Started, Task, TaskState};

/// How often a client does well to ask, in milliseconds.
const POLL_MS: u64 = 500;

impl Endpoint {
    /// A call that is a task from now on.
    pub(super) async fn created(&self, asked: &Asked, started: &Started) -> Answer {
        let task = self.0.mesh.task(&asked.who, started.id).await?;
        let mut result = self.flat(&task);
        // What it has come to is asked for; this only says that there is something to ask for.
        result["status"] = json!("working");
        result["resultType"] = json!("task");
        result["_meta"] = meta(&task);
        Ok(result)
    }

    /// Where a task stands.
    pub(super) async fn get_task(&self, asked: &Asked, params: Map<String, Value>) -> Answer {
        asked.client.needs_tasks()?;
        let id = task_id(&params)?;
        let task = self.0.mesh.task(&asked.who, id).await.map_err(unknown)?;
        let mut result = self.flat(&task);
        match task.state {
            TaskState::Working(ref words) => result["statusMessage"] = json!(words),
            TaskState::InputRequired(ref questions) => result["inputRequests"] = json!(questions),
            TaskState::Completed(ref given) => result["result"] = given.clone(),
            TaskState::Failed(ref failed) => {
                result["statusMessage"] = json!(failed.message);
                result["error"] = json!(RpcError::from(failed.clone()));
            }
            TaskState::Cancelled => {}
        }
        result["resultType"] = json!("complete");
        result["_meta"] = meta(&task);
        Ok(result)
    }

    /// Answers to what a task's tool asks.
    pub(super) async fn update_task(&self, asked: &Asked, mut params: Map<String, Value>) -> Answer {
        asked.client.needs_tasks()?;
        let id = task_id(&params)?;
        let Some(Value::Object(responses)) = params.remove("inputResponses") else {
            return Err(RpcError::invalid("inputResponses", "must be an object"));
        };
        self.0.mesh.answer(&asked.who, id, responses).await.map_err(unknown)?;
        Ok(json!({ "resultType": "complete" }))
    }

    /// Cancels a task; that it has ended already is no error.
    pub(super) async fn cancel_task(&self, asked: &Asked, params: Map<String, Value>) -> Answer {
        asked.client.needs_tasks()?;
        let id = task_id(&params)?;
        let cancelled = self.0.mesh.cancel(&asked.who, id, "cancelled by its client").await;
        cancelled.map_err(unknown)?;
        Ok(json!({ "resultType": "complete" }))
    }

    fn flat(&self, task: &Task) -> Value {
        let status = match task.state {
            TaskState::Working(_) => "working",
            TaskState::InputRequired(_) => "input_required",
            TaskState::Completed(_) => "completed",
            TaskState::Failed(_) => "failed",
            TaskState::Cancelled => "cancelled",
        };
        json!({
            "taskId": task.id,
            "status": status,
            "createdAt": iso(task.created_at),
            "lastUpdatedAt": iso(task.updated_at),
            "ttlMs": self.0.limits.task_ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)),
            "pollIntervalMs": POLL_MS,
        })
    }
}

fn meta(task: &Task) -> Value {
    json!({ "cogo/message_id": task.id, "cogo/trace_id": task.trace_id })
}

fn task_id(params: &Map<String, Value>) -> Result<MessageId, RpcError> {
    let Some(Value::String(id)) = params.get("taskId") else {
        return Err(RpcError::invalid("taskId", "must be a string"));
    };
    id.parse().map_err(|_| no_task(id))
}

fn unknown(refusal: Refusal) -> RpcError {
    match refusal {
        Refusal::NoCall(id) => no_task(&id.to_string()),
        refusal => refusal.into(),
    }
}

fn no_task(id: &str) -> RpcError {
    let id: String = id.chars().filter(|c| !c.is_control()).take(64).collect();
    RpcError::new(INVALID_PARAMS, format!("taskId: there is no task {id:?}"))
}

fn iso(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}
