//! A change as it is written: once for all who are told the same of it.

use std::collections::BTreeMap;

use chrono::SecondsFormat;
use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};

use crate::hub::realtime::change::{Change, Key};
use crate::hub::realtime::queries::Column;
use crate::realtime::wire::{self, ChangeData, ChangeKind};

/// What is said of a row that is too large to be told whole.
const TOO_LARGE: &str = "Error 413: Payload Too Large";
/// Values up to this many bytes are told of such a row.
const SHORT: usize = 64;

/// The `data` of `postgres_changes`.
pub(crate) fn data(
    change: &Change,
    columns: &[Column],
    select: Option<&[String]>,
    record: Option<&str>,
    max_bytes: usize,
) -> Option<Box<RawValue>> {
    let selected = |name: &str| select.is_none_or(|names| names.iter().any(|one| one == name));
    let too_large = record.is_some_and(|record| record.len() > max_bytes);
    let record = match record {
        None => None,
        Some(record) if select.is_none() && !too_large => {
            Some(RawValue::from_string(record.to_owned()).ok()?)
        }
        Some(record) => {
            let mut fields: BTreeMap<&str, &RawValue> = serde_json::from_str(record).ok()?;
            fields
                .retain(|name, value| selected(name) && (!too_large || value.get().len() <= SHORT));
            Some(to_raw_value(&fields).ok()?)
        }
    };
    let kind = match change.kind {
        ChangeKind::Insert => "INSERT",
        ChangeKind::Update => "UPDATE",
        ChangeKind::Delete => "DELETE",
        ChangeKind::All => return None,
    };
    let old_record = match change.kind {
        ChangeKind::Update | ChangeKind::Delete => Some(to_raw_value(&key(&change.key)).ok()?),
        _ => None,
    };
    let columns = columns.iter().filter(|column| selected(&column.name));
    let data = ChangeData {
        schema: "public".to_owned(),
        table: change.table.name().to_owned(),
        commit_timestamp: change.at.to_rfc3339_opts(SecondsFormat::Millis, true),
        kind: kind.to_owned(),
        columns: columns
            .map(|column| wire::Column { name: column.name.clone(), kind: column.typname.clone() })
            .collect(),
        record,
        old_record,
        errors: too_large.then(|| vec![TOO_LARGE.to_owned()]),
    };
    to_raw_value(&data).ok()
}

/// The primary key, which is all that is known of a row as it was.
fn key(key: &Key) -> serde_json::Value {
    match key {
        Key::Message(id) => json!({"id": id}),
        Key::Event { xid, seq, created_at } => {
            json!({"xid": xid.to_string(), "seq": seq, "created_at": created_at})
        }
        Key::Worker { tenant, id } => json!({"tenant": tenant, "id": id}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::realtime::change::Table;
    use chrono::DateTime;
    use uuid::Uuid;

    fn change(kind: ChangeKind) -> Change {
        Change {
            table: Table::Messages,
            kind,
            key: Key::Message(Uuid::nil()),
            tenant: "acme".to_owned(),
            topic: None,
            role: String::new(),
            service: String::new(),
            event_type: None,
            at: DateTime::from_timestamp(1, 419_999_999).expect("a time"),
        }
    }

    fn read(data: Option<Box<RawValue>>) -> serde_json::Value {
        serde_json::from_str(data.expect("it can be written").get()).expect("JSON")
    }

    #[test]
    fn each_kind_has_the_records_that_realtime_gives_it() {
        let record = r#"{"id":"x","n":9007199254740993.5}"#;
        let told = data(&change(ChangeKind::Insert), &[], None, Some(record), 1000);
        let text = told.as_ref().expect("it can be written").get().to_owned();
        assert!(text.contains("9007199254740993.5"), "{text}");
        let insert = read(told);
        assert_eq!(insert["commit_timestamp"], "1970-01-01T00:00:01.419Z");
        assert!(insert.get("old_record").is_none() && insert["errors"].is_null());
        let update = read(data(&change(ChangeKind::Update), &[], None, Some(record), 1000));
        assert_eq!(update["old_record"], json!({"id": Uuid::nil()}));
        let delete = read(data(&change(ChangeKind::Delete), &[], None, None, 1000));
        assert!(delete.get("record").is_none());
        assert_eq!(delete["old_record"], json!({"id": Uuid::nil()}));
    }

    #[test]
    fn a_row_that_is_too_large_is_told_by_its_short_values() {
        let record = format!(r#"{{"id":"x","payload":"{}","n":1}}"#, "y".repeat(100));
        let told = read(data(&change(ChangeKind::Insert), &[], None, Some(&record), 100));
        assert_eq!(told["record"], json!({"id": "x", "n": 1}));
        assert_eq!(told["errors"], json!(["Error 413: Payload Too Large"]));
        let select = ["n".to_owned()];
        let told = read(data(&change(ChangeKind::Insert), &[], Some(&select), Some(&record), 1000));
        assert_eq!(told["record"], json!({"n": 1}));
    }
}
