//! The columns of a message: one list, from which comes both what SQL asks for and what reads a row by place.

use sqlx::postgres::PgRow;
use sqlx::{Column as _, Row as _};

use crate::message::{Message, Stored};

/// The columns of a message. What is read whatever is in it goes through [`Stored`].
macro_rules! message_columns {
    // For SQL: those of a row named `m`, or of a composite `(m)`.
    ($row:literal) => {
        message_columns!(message_columns_in_sql $row)
    };
    // The list, given to a macro behind what else that takes.
    ($to:ident $($with:tt)*) => {
        $to!(
            $($with)* id, tenant, role, service, shard, intent, payload as Stored, trace_id, parent_id,
            idempotency_key, priority, status, attempts, max_attempts, claim_no, run_at, claimed_by, claimed_at,
            lease_until, result as Stored, error as Stored, created_at, updated_at, done_at, deadline_at,
            ordering_key, parked_for
        )
    };
}

macro_rules! message_columns_in_sql {
    ($row:literal $first:ident $(, $column:ident $(as $stored:ident)?)*) => {
        concat!($row, ".", stringify!($first) $(, ", ", $row, ".", stringify!($column))*)
    };
}

impl Message {
    /// Reads a message whose columns begin at place `first` of a row, in the order of the list. To look each of them up
    /// by its name takes longer than to read it, and a worker reads thousands.
    pub(super) fn at(row: &PgRow, first: usize) -> sqlx::Result<Self> {
        debug_assert_eq!(row.column(first).name(), "id");
        let mut place = first;
        macro_rules! next {
            () => {{
                place += 1;
                row.try_get(place - 1)?
            }};
            ($stored:ident) => {{
                place += 1;
                row.try_get::<$stored, _>(place - 1)?.into()
            }};
        }
        macro_rules! read_each {
            ($($column:ident $(as $stored:ident)?),*) => {
                Self { $($column: next!($($stored)?)),* }
            };
        }
        Ok(message_columns!(read_each))
    }
}
