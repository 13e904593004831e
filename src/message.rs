//! A message: a unit of work, and the names by which it is addressed.

mod id;
mod name;
mod new;
mod row;
mod stored;
mod topic;

pub use id::{MessageId, TraceId};
pub use name::{
    ALL_TENANTS, DEFAULT_TENANT, INTENT_RULE, InvalidName, NAME_RULE, valid_intent, valid_name,
};
pub(crate) use new::as_millis;
pub use new::{DEADLINE_MS_MAX, NewMessage};
pub use row::{Message, Status};
pub(crate) use stored::{Stored, stored};
pub use topic::Topic;
