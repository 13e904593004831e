//! `/healthz` and `/readyz`.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::bus::Bus;
use crate::db::MIGRATOR;
use crate::error::{Code, chain};
use crate::hub::Hub;
use crate::hub::error::ApiError;

/// How long the database may take to show that it lives.
const DATABASE_TIMEOUT: Duration = Duration::from_secs(2);
/// How old that sign of life may be; probes must not load the database.
const DATABASE_AGE: Duration = Duration::from_secs(1);

/// What must be ready before the hub says that it is. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    components: Arc<Mutex<Vec<Component>>>,
}

#[derive(Debug)]
struct Component {
    name: String,
    ready: watch::Receiver<bool>,
}

impl Readiness {
    /// Nothing to wait for yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a component that is not ready yet. It sends what it is; when the last sender is dropped, the
    /// component is gone and not ready.
    #[must_use]
    pub fn register(&self, name: impl Into<String>) -> watch::Sender<bool> {
        let (sender, receiver) = watch::channel(false);
        let mut components = self.components.lock().unwrap_or_else(PoisonError::into_inner);
        components.push(Component { name: name.into(), ready: receiver });
        sender
    }

    /// Every component and why it is not ready, if it is not.
    fn look(&self) -> Vec<(String, Option<&'static str>)> {
        let components = self.components.lock().unwrap_or_else(PoisonError::into_inner);
        let look = |Component { name, ready }: &Component| {
            let why = match (ready.has_changed().is_ok(), *ready.borrow()) {
                (true, true) => None,
                (true, false) => Some("not ready yet"),
                (false, _) => Some("it has ended"),
            };
            (name.clone(), why)
        };
        components.iter().map(look).collect()
    }
}

/// The process is up.
pub(crate) async fn alive() -> Json<Value> {
    Json(json!({"ok": true}))
}

/// Everything that is needed is up.
pub(crate) async fn ready(State(hub): State<Arc<Hub>>) -> Result<Json<Value>, ApiError> {
    let missing = missing(&hub).await;
    if missing.is_empty() {
        let components = hub.state.readiness.look().into_iter().map(|(name, _)| name);
        let names: Vec<String> = std::iter::once("database".to_owned()).chain(components).collect();
        return Ok(Json(json!({"ok": true, "ready": names})));
    }
    let names: Vec<&str> = missing.iter().map(|(name, _)| name.as_str()).collect();
    let message = format!("not ready: {}", names.join(", "));
    let missing: Vec<Value> =
        missing.iter().map(|(name, why)| json!({"name": name, "why": why})).collect();
    Err(ApiError::new(Code::Unavailable, message).with_detail("not_ready", missing))
}

/// What is needed and not up, and why.
pub(crate) async fn missing(hub: &Hub) -> Vec<(String, String)> {
    let database = hub.schema.get(DATABASE_AGE, schema(&hub.state.bus)).await.err();
    let components = hub.state.readiness.look();
    let components = components.into_iter().map(|(name, why)| (name, why.map(str::to_owned)));
    std::iter::once(("database".to_owned(), database))
        .chain(components)
        .filter_map(|(name, why)| Some((name, why?)))
        .collect()
}

/// Whether the database answers, and has at least the schema that this program was built with. A newer
/// one is good: migrations only add until no running program needs the old.
async fn schema(bus: &Bus) -> Result<(), String> {
    let wanted = MIGRATOR.iter().map(|migration| migration.version).max();
    match tokio::time::timeout(DATABASE_TIMEOUT, bus.schema_version()).await {
        Ok(Ok(found)) if found >= wanted => Ok(()),
        Ok(Ok(found)) => {
            let of = |version: Option<i64>| version.map_or("none".to_owned(), |v| v.to_string());
            Err(format!("its schema is at {}, and {} is needed", of(found), of(wanted)))
        }
        Ok(Err(error)) => {
            tracing::warn!(error = %chain(&error), "Not ready: the database does not answer");
            Err("it does not answer, or has no schema".to_owned())
        }
        Err(_) => Err(format!("no answer within {} s", DATABASE_TIMEOUT.as_secs())),
    }
}
