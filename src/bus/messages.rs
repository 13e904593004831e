//! Messages as they stand.

use crate::bus::error::Error;
use crate::bus::{Bus, queries};
use crate::message::{Message, MessageId};

impl Bus {
    /// The message as it stands.
    ///
    /// # Errors
    /// [`Error::NoMessage`]; [`Error::Database`].
    pub async fn message(&self, id: MessageId) -> Result<Message, Error> {
        let found = self.core.retry("message", || self.transport().message(id)).await?;
        found.ok_or(Error::NoMessage(id))
    }

    /// The message that an idempotency key of `tenant` stands for, if it stands for one.
    #[cfg(feature = "hub")]
    pub(crate) async fn keyed_message(
        &self,
        tenant: &str,
        key: &str,
    ) -> Result<Option<Message>, Error> {
        let postgres = self.core.postgres("finding a message by its idempotency key")?;
        let find = || async {
            let found = queries::keyed_message(postgres.db(), tenant, key).await;
            found.map_err(|error| Error::from_sqlx("keyed_message", error))
        };
        self.core.retry("keyed_message", find).await
    }

    /// Those of `messages` that are there, as they stand.
    pub(crate) async fn look_at(
        &self,
        messages: &[MessageId],
    ) -> Result<Vec<queries::Looked>, Error> {
        self.core.retry("look_at", || self.transport().look_at(messages)).await
    }

    /// Which of `messages` wait for nothing more: they are finished, or gone.
    pub(crate) async fn settled_of(&self, messages: &[MessageId]) -> Result<Vec<MessageId>, Error> {
        self.transport().settled_of(messages).await
    }
}
