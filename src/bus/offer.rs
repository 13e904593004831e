//! What workers offer, how it is defined, and which definitions are approved.
//!
//! Workers name what they offer in `workers.info`, by the hash of each definition; the definitions themselves are
//! uploaded once. The bus knows no more of a definition than that it is a JSON object.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::bus::error::Error;
use crate::bus::{Bus, Signal};

/// How many definitions are asked for at once.
const ASK: usize = 200;
/// How many hashes are told at once; as many as `bus_define` takes.
const TELL: usize = 1000;
/// How many bytes of definitions go well into one request; a single one may be a quarter of it.
const UPLOAD_BYTES: usize = 256 * 1024;

/// A definition on its way to the database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NewDefinition {
    /// The SHA-256 of the text in UTF-8, in hexadecimal.
    pub hash: String,
    /// A JSON object; at most 64 KiB.
    pub definition: String,
}

/// A definition that the database knows.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, sqlx::FromRow)]
pub struct Definition {
    /// What names it.
    pub hash: String,
    /// The text that was hashed.
    pub definition: String,
    /// When it was first told of.
    pub created_at: DateTime<Utc>,
}

/// What some of a tenant's workers offer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, sqlx::FromRow)]
pub struct Offered {
    /// The group that it belongs to; the service of its messages.
    pub toolset: String,
    /// Its name within the group.
    pub tool: String,
    /// Its definition.
    pub hash: String,
    /// How many workers that are online offer it.
    pub online: i32,
    /// How many more do that are away, but were seen within the grace.
    pub away: i32,
    /// The first few of these workers.
    pub workers: Vec<String>,
    /// When the last of them came online.
    pub newest: DateTime<Utc>,
    /// How long the first of those that are away still counts, in milliseconds.
    pub leaves_in_ms: Option<i64>,
}

/// What is approved of one tool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, sqlx::FromRow)]
pub struct Pin {
    /// The group that it belongs to.
    pub toolset: String,
    /// Its name within the group.
    pub tool: String,
    /// The definition that is approved; none once that was revoked.
    pub hash: Option<String>,
    /// Since when.
    pub pinned_at: DateTime<Utc>,
    /// Who said so, if they said who they are.
    pub pinned_by: Option<String>,
}

/// What is to be approved of one tool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NewPin {
    /// The group that it belongs to.
    pub toolset: String,
    /// Its name within the group.
    pub tool: String,
    /// The definition; none to revoke what was approved.
    pub hash: Option<String>,
}

impl Bus {
    /// Makes definitions known to `tenant` that it does not know yet; those that it knows are not sent. Gives the
    /// hashes of those that the bus refuses, and why; the others are known then.
    ///
    /// # Errors
    /// [`Error::Refused`] where the key may define nothing; [`Error::Full`] where the tenant has too many;
    /// [`Error::Database`].
    pub async fn define(
        &self,
        tenant: &str,
        definitions: &[NewDefinition],
    ) -> Result<Vec<(String, Error)>, Error> {
        let mut unknown = Vec::new();
        for some in definitions.chunks(TELL) {
            let hashes = some.iter().map(|new| json!({"hash": new.hash})).collect();
            unknown.extend(self.define_once(tenant, hashes).await?);
        }
        let wanted = definitions.iter().filter(|new| unknown.contains(&new.hash));
        let mut refused = Vec::new();
        let (mut batch, mut bytes) = (Vec::new(), 0);
        for new in wanted {
            if bytes > 0 && bytes + new.definition.len() > UPLOAD_BYTES {
                self.upload(tenant, &std::mem::take(&mut batch), &mut refused).await?;
                bytes = 0;
            }
            bytes += new.definition.len();
            batch.push(new);
        }
        self.upload(tenant, &batch, &mut refused).await?;
        Ok(refused)
    }

    async fn upload(
        &self,
        tenant: &str,
        batch: &[&NewDefinition],
        refused: &mut Vec<(String, Error)>,
    ) -> Result<(), Error> {
        if batch.is_empty() {
            return Ok(());
        }
        let is_bad = |error: &Error| {
            use crate::error::Code::{InvalidArgument, PayloadTooLarge};
            matches!(error.code(), InvalidArgument | PayloadTooLarge)
        };
        match self.define_once(tenant, json!(batch)).await {
            Err(error) if is_bad(&error) => {}
            answered => return answered.map(drop),
        }
        // One that cannot be stored must not keep the others away.
        for new in batch {
            match self.define_once(tenant, json!([new])).await {
                Err(error) if is_bad(&error) => refused.push((new.hash.clone(), error)),
                answered => drop(answered?),
            }
        }
        Ok(())
    }

    async fn define_once(
        &self,
        tenant: &str,
        definitions: serde_json::Value,
    ) -> Result<Vec<String>, Error> {
        let call = || self.transport().define(&definitions, tenant);
        self.core.retry("bus_define", call).await
    }

    /// The definitions of `hashes` that `tenant` knows.
    ///
    /// # Errors
    /// [`Error::Refused`] where the key is for another tenant; [`Error::Database`].
    pub async fn definitions(
        &self,
        tenant: &str,
        hashes: &[String],
    ) -> Result<Vec<Definition>, Error> {
        let mut found = Vec::new();
        for some in hashes.chunks(ASK) {
            let call = || self.transport().definitions(some, tenant);
            found.extend(self.core.retry("bus_definitions", call).await?);
        }
        Ok(found)
    }

    /// What the workers of `tenant`, and those for all tenants, offer that are online or were seen within `grace`.
    ///
    /// # Errors
    /// [`Error::Refused`] where the key is for another tenant; [`Error::Database`].
    pub async fn offers(&self, tenant: &str, grace: Duration) -> Result<Vec<Offered>, Error> {
        let grace_ms = i64::try_from(grace.as_millis()).unwrap_or(i64::MAX);
        self.core.retry("bus_offers", || self.transport().offers(grace_ms, tenant)).await
    }

    /// What is approved of the tools of `tenant`.
    ///
    /// # Errors
    /// [`Error::Refused`] where the key is for another tenant; [`Error::Database`].
    pub async fn pins(&self, tenant: &str) -> Result<Vec<Pin>, Error> {
        self.core.retry("bus_pins", || self.transport().pins(tenant)).await
    }

    /// Approves definitions, each in place of what was approved of that tool before, in the name of `who`. How many
    /// tools have changed.
    ///
    /// # Errors
    /// [`Error::Refused`] for a definition that nobody knows, and where the role may not; [`Error::Database`].
    pub async fn pin(
        &self,
        tenant: &str,
        pins: &[NewPin],
        who: Option<&str>,
    ) -> Result<u32, Error> {
        self.pin_all(tenant, pins, who, false).await
    }

    /// As [`Bus::pin`], but only tools of which nothing ever was approved.
    ///
    /// # Errors
    /// As [`Bus::pin`].
    pub async fn pin_first(
        &self,
        tenant: &str,
        pins: &[NewPin],
        who: Option<&str>,
    ) -> Result<u32, Error> {
        self.pin_all(tenant, pins, who, true).await
    }

    async fn pin_all(
        &self,
        tenant: &str,
        pins: &[NewPin],
        who: Option<&str>,
        first: bool,
    ) -> Result<u32, Error> {
        let mut changed = 0;
        for some in pins.chunks(TELL) {
            let pins = json!(some);
            let call = || self.transport().pin(&pins, who, first, tenant);
            changed += u32::try_from(self.core.retry("bus_pin", call).await?).unwrap_or(0);
        }
        if changed > 0 {
            self.wake(Signal::Log);
        }
        Ok(changed)
    }
}
