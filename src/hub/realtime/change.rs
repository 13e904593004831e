//! From events to changes of rows: what a subscriber to the tables would be told of.
//!
//! A claim, an extended lease and the promotion of a due message append no event, so nobody is told of them.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::bus::Head;
use crate::message::Topic;
use crate::realtime::wire::ChangeKind;

/// A table that can be subscribed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Table {
    Messages,
    Events,
    Workers,
}

impl Table {
    pub(crate) const ALL: [Self; 3] = [Self::Messages, Self::Events, Self::Workers];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Messages => "agent_messages",
            Self::Events => "bus_events",
            Self::Workers => "workers",
        }
    }

    pub(crate) fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|table| table.name() == name)
    }
}

/// A row, by its primary key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    Message(Uuid),
    Event { xid: u64, seq: i64, created_at: DateTime<Utc> },
    Worker { tenant: String, id: String },
}

/// A row that was inserted, updated or deleted.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) table: Table,
    pub(crate) kind: ChangeKind,
    pub(crate) key: Key,
    pub(crate) tenant: String,
    /// The topic that decides who may read it; none where only the tenant does.
    pub(crate) topic: Option<Topic>,
    pub(crate) role: String,
    pub(crate) service: String,
    /// Of a row of the log.
    pub(crate) event_type: Option<String>,
    pub(crate) at: DateTime<Utc>,
}

/// What an event says of its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    Scheduled,
    /// It waits again, perhaps to be claimed at once.
    Waiting,
    /// It is finished, and what stood behind it may go on.
    Finished,
    /// It changed in another way.
    Changed,
    Dropped,
    /// The row did not change: another event of the same transaction tells of it, or it is progress.
    Nothing,
}

/// Reads the type of a message's event.
pub(crate) fn what(head: &Head) -> What {
    let kind = head.event_type.as_str();
    let ends = |end: &str| kind.strip_suffix(end).is_some_and(|rest| rest.ends_with('_'));
    if ends("scheduled") {
        // A first attempt is numbered 1, so this is of an intent that is called so.
        let first = !ends("retry_scheduled") || head.attempt == 0;
        return if first { What::Scheduled } else { What::Changed };
    }
    for (end, what) in [
        ("released", What::Waiting),
        ("requeued", What::Waiting),
        ("lease_expired", What::Waiting),
        ("restored", What::Waiting),
        ("succeeded", What::Finished),
        ("dead_lettered", What::Finished),
        ("cancelled", What::Finished),
        ("dropped", What::Dropped),
    ] {
        if ends(end) {
            return what;
        }
    }
    // `_failed` comes with `_retry_scheduled` or `_dead_lettered`.
    What::Nothing
}

/// The changes that an event tells of, in order.
pub(crate) fn of(head: &Head, into: &mut Vec<Change>) {
    let change = |table, kind, key| Change {
        table,
        kind,
        key,
        tenant: head.tenant.clone(),
        topic: None,
        role: head.role.clone(),
        service: head.service.clone(),
        event_type: None,
        at: head.created_at,
    };
    let topic = || head.message_id.and_then(|_| Topic::new(&head.role, &head.service).ok());
    let key =
        Key::Event { xid: head.cursor.xid, seq: head.cursor.seq, created_at: head.created_at };
    into.push(Change {
        topic: topic(),
        event_type: Some(head.event_type.clone()),
        ..change(Table::Events, ChangeKind::Insert, key)
    });
    if let Some(id) = head.message_id {
        let kind = match what(head) {
            What::Scheduled => ChangeKind::Insert,
            What::Waiting | What::Finished | What::Changed => ChangeKind::Update,
            What::Dropped => ChangeKind::Delete,
            What::Nothing => return,
        };
        into.push(Change { topic: topic(), ..change(Table::Messages, kind, Key::Message(id.0)) });
        return;
    }
    if let Some(gone) = &head.purged {
        // Which topics they were of is not known any more; their ids are all that is told.
        let gone = gone.0.iter().map(|id| Key::Message(*id));
        into.extend(gone.map(|key| change(Table::Messages, ChangeKind::Delete, key)));
        return;
    }
    let Some(worker) = &head.worker_id else { return };
    let kind = match head.event_type.as_str() {
        "agent_online" => ChangeKind::Insert,
        "agent_heartbeat" | "agent_offline" => ChangeKind::Update,
        _ => return,
    };
    into.push(change(
        Table::Workers,
        kind,
        Key::Worker { tenant: head.tenant.clone(), id: worker.clone() },
    ));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Cursor;
    use crate::message::MessageId;

    fn head(event_type: &str, attempt: i32) -> Head {
        Head {
            cursor: Cursor { xid: 7, seq: 9 },
            event_type: event_type.to_owned(),
            message_id: Some(MessageId(Uuid::nil())),
            tenant: "acme".to_owned(),
            role: "r".to_owned(),
            service: "s".to_owned(),
            attempt,
            worker_id: None,
            created_at: DateTime::UNIX_EPOCH,
            purged: None,
        }
    }

    fn kinds(head: &Head) -> Vec<(Table, ChangeKind)> {
        let mut changes = Vec::new();
        of(head, &mut changes);
        changes.iter().map(|change| (change.table, change.kind)).collect()
    }

    #[test]
    fn every_event_is_a_row_of_the_log_and_a_transition_one_of_its_message() {
        use ChangeKind::{Delete, Insert, Update};
        for (event, attempt, message) in [
            ("mcp_call_scheduled", 0, Some(Insert)),
            ("mcp_call_retry_scheduled", 1, Some(Update)),
            ("mcp_retry_scheduled", 0, Some(Insert)),
            ("mcp_call_succeeded", 1, Some(Update)),
            ("mcp_call_failed", 1, None),
            ("mcp_call_dead_lettered", 1, Some(Update)),
            ("mcp_call_released", 1, Some(Update)),
            ("mcp_call_requeued", 0, Some(Update)),
            ("mcp_call_lease_expired", 1, Some(Update)),
            ("mcp_call_cancelled", 0, Some(Update)),
            ("mcp_call_restored", 0, Some(Update)),
            ("mcp_call_dropped", 0, Some(Delete)),
            ("mcp_call_progress", 1, None),
        ] {
            let wanted = message.map(|kind| (Table::Messages, kind));
            let wanted: Vec<_> = [(Table::Events, Insert)].into_iter().chain(wanted).collect();
            assert_eq!(kinds(&head(event, attempt)), wanted, "{event}");
        }
    }

    #[test]
    fn workers_and_what_retention_let_go_are_told_of() {
        use ChangeKind::{Delete, Insert, Update};
        for (event, kind) in
            [("agent_online", Insert), ("agent_heartbeat", Update), ("agent_offline", Update)]
        {
            let worker_id = Some("w".to_owned());
            let head = Head { message_id: None, worker_id, ..head(event, 0) };
            assert_eq!(kinds(&head), [(Table::Events, Insert), (Table::Workers, kind)], "{event}");
        }
        let purged = Some(sqlx::types::Json(vec![Uuid::nil(), Uuid::max()]));
        let head = Head { message_id: None, purged, ..head("messages_purged", 0) };
        let gone = (Table::Messages, Delete);
        assert_eq!(kinds(&head), [(Table::Events, Insert), gone, gone]);
    }
}
