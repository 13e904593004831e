//! `/api/session`: what the sender's credentials allow, for the console to know before it asks.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::{Extension, Json};
use serde_json::{Value, json};

use crate::hub::Hub;
use crate::hub::auth::{self, Shown};
use crate::hub::client::Client;
use crate::hub::extract::StrictQuery;
use crate::hub::messages::NoQuery;

/// `GET /api/session`. Wrong tokens are counted before this is reached, as everywhere.
pub(crate) async fn session(
    State(hub): State<Arc<Hub>>,
    Extension(client): Extension<Client>,
    StrictQuery(NoQuery {}): StrictQuery<NoQuery>,
    headers: HeaderMap,
) -> Json<Value> {
    let shown = Shown::of(&hub.state.token, &headers);
    let (admin, open_reads) = (shown == Shown::Admin, hub.opens_reads_to(&client));
    let wrong = match shown {
        Shown::Nothing | Shown::Admin => false,
        Shown::Wrong => true,
        Shown::Key => {
            let bearer = auth::one(&headers, header::AUTHORIZATION.as_str()).and_then(auth::bearer);
            let key = bearer.and_then(|key| std::str::from_utf8(key).ok()).unwrap_or_default();
            hub.state.keys.verify(key.trim()).is_err()
        }
    };
    let mut told = json!({
        "ok": true,
        "admin": admin,
        "reads": admin || open_reads,
        "open_reads": open_reads,
        "version": env!("CARGO_PKG_VERSION"),
    });
    if wrong {
        told["token"] = json!("wrong");
    }
    Json(told)
}
