//! What admins did: one event `admin_action` in the log for each request that changes something and was let in as
//! the admin's, or as that of a key of a role. It has no body and no query, which may hold secrets.
//!
//! Wrong credentials are not in the log but in `cogo_hub_refused_total`: anybody could fill the log with them.

use axum::extract::Request;
use serde_json::{Value, json};

use crate::bus::Bus;
use crate::error::chain;
use crate::hub::auth::Pass;
use crate::hub::client::Client;
use crate::shutdown::Tasks;

/// The type of the events.
const ACTION: &str = "admin_action";
/// As much of a path as is kept, in bytes.
const PATH_MAX: usize = 1000;

/// One action, from when it was let in. Its event is appended also where the client goes away meanwhile: what it
/// asked for may have been done.
#[derive(Debug)]
pub(crate) struct Action {
    bus: Bus,
    tasks: Tasks,
    payload: Option<Value>,
}

impl Action {
    pub(crate) fn new(
        (bus, tasks): (Bus, Tasks),
        request: &Request,
        route: &str,
        client: &Client,
        pass: Pass,
    ) -> Self {
        let mut path = request.uri().path().to_owned();
        path.truncate(path.floor_char_boundary(PATH_MAX));
        let who = match pass {
            Pass::Role(role) => format!("role:{role}"),
            Pass::Admin | Pass::Anybody => "admin".to_owned(),
        };
        let payload = json!({
            "method": request.method().as_str(), "route": route, "path": path, "status": null,
            "from": client.address, "who": who,
        });
        Self { bus, tasks, payload: Some(payload) }
    }

    /// Appends the event, before the answer goes out: whoever has it finds the event in the log.
    pub(crate) async fn settle(mut self, status: u16) {
        if let Some(mut payload) = self.payload.take() {
            payload["status"] = json!(status);
            // In a task, so that it is appended also where the client does not wait for it.
            let appended = self.tasks.spawn(append(self.bus.clone(), payload));
            let _a_panic_is_logged = appended.await;
        }
    }
}

impl Drop for Action {
    fn drop(&mut self) {
        // A runtime that has ended runs nothing more.
        if let (Some(payload), Ok(_)) = (self.payload.take(), tokio::runtime::Handle::try_current())
        {
            self.tasks.spawn(append(self.bus.clone(), payload));
        }
    }
}

async fn append(bus: Bus, payload: Value) {
    let what = format!("{} {}", payload["method"], payload["route"]).replace('"', "");
    let status = payload["status"].clone();
    let event = json!({"event_type": ACTION, "payload": payload});
    if let Err(error) = bus.append_event(event).await {
        tracing::error!(
            error = %chain(&error), http.route = what, http.status = %status,
            "An admin's {what} is not in the log: its event could not be appended"
        );
    }
}
