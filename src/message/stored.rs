//! JSON that the database holds, read whatever is in it.

use serde::{Deserialize as _, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgTypeInfo, PgValueRef, Postgres};
use sqlx::types::Json;

/// A `jsonb` column that is read whatever is in it. Postgres stores what serde_json refuses to read, such as
/// 1e400 or a few hundred arrays within each other; one such value must not keep the rest of the row, nor the
/// other rows of an answer, from whoever asked. It becomes `{"unreadable": <why>}`.
#[derive(Debug)]
pub(crate) struct Stored(Option<Value>);

impl sqlx::Type<Postgres> for Stored {
    fn type_info() -> PgTypeInfo {
        <Value as sqlx::Type<Postgres>>::type_info()
    }

    fn compatible(ty: &PgTypeInfo) -> bool {
        <Value as sqlx::Type<Postgres>>::compatible(ty)
    }
}

impl<'r> sqlx::Decode<'r, Postgres> for Stored {
    fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
        let text = Option::<Json<Box<RawValue>>>::decode(value)?;
        Ok(Self::read(text.as_ref().map(|text| text.get())))
    }
}

impl Stored {
    fn read(text: Option<&str>) -> Self {
        Self(text.map(|text| {
            serde_json::from_str(text).unwrap_or_else(|why| json!({"unreadable": why.to_string()}))
        }))
    }
}

impl From<Stored> for Option<Value> {
    fn from(stored: Stored) -> Self {
        stored.0
    }
}

impl From<Stored> for Value {
    fn from(stored: Stored) -> Self {
        stored.0.unwrap_or_default()
    }
}

/// Text that is read whatever is in it, as [`Stored`] does it.
fn read_stored<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Stored, D::Error> {
    let text = Option::<Box<RawValue>>::deserialize(deserializer)?;
    Ok(Stored::read(text.as_deref().map(RawValue::get)))
}

pub(crate) fn stored<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
    read_stored(deserializer).map(Value::from)
}

pub(super) fn stored_if_any<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Value>, D::Error> {
    read_stored(deserializer).map(Option::from)
}
