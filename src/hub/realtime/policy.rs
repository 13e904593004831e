//! Private topics: the database says who may join them and send to them.

use std::sync::Arc;

use crate::hub::caller::{About, Access, Caller, within};
use crate::hub::realtime::Inner;
use crate::hub::realtime::queries;
use crate::hub::realtime::scope::RESERVED;
use crate::identity::Verified;

/// What is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Join,
    Broadcast,
    Presence,
}

impl Action {
    fn as_str(self) -> &'static str {
        match self {
            Self::Join => "join",
            Self::Broadcast => "broadcast",
            Self::Presence => "presence",
        }
    }
}

/// Whether the holder of a token may do something in a private topic. An error means that the database did not
/// say.
pub(crate) async fn allows(
    inner: &Inner,
    token: &Verified,
    topic: &str,
    action: Action,
) -> Result<bool, String> {
    // There only the hub sends, whatever the policy says.
    if topic.starts_with(RESERVED) && action != Action::Join {
        return Ok(false);
    }
    let headers = axum::http::HeaderMap::new();
    let about = About { method: "GET", path: "/realtime/v1/websocket", headers: &headers };
    let caller = Caller {
        role: token.claims.role,
        claims: token.claims.clone(),
        claims_json: Arc::clone(&token.raw_json),
    };
    let mut transaction = caller
        .begin(&inner.callers, Access::Read, &about)
        .await
        .map_err(|error| error.message().to_owned())?;
    let patience = transaction.patience();
    let asked = queries::channel_allowed(&mut *transaction, topic, action.as_str());
    let answer = within(patience, asked).await;
    transaction.rollback().await;
    match answer {
        Ok(allowed) => Ok(allowed),
        // A role that may not even ask; a topic that no text of Postgres can be.
        Err(sqlx::Error::Database(refusal))
            if matches!(refusal.code().as_deref(), Some("42501" | "22021")) =>
        {
            Ok(false)
        }
        Err(error) => Err(crate::error::chain(&error).to_string()),
    }
}
