//! What a channel subscribed to, read and made ready.

use std::sync::Arc;

use crate::hub::realtime::change::{Change, Table};
use crate::hub::realtime::filter::{self, Condition, Op};
use crate::realtime::wire::{self, ChangeKind};

/// The most subscriptions of one channel.
pub(crate) const BINDINGS_MAX: usize = 100;
/// The most that all subscriptions of one socket may have, as they were sent: they are kept as long as it is there.
pub(crate) const SOCKET_BYTES_MAX: usize = 256 * 1024;

/// How much there is to keep of subscriptions.
pub(crate) fn weight(asked: &[wire::Binding]) -> usize {
    asked.iter().map(|one| serde_json::to_string(one).map_or(0, |text| text.len())).sum()
}

/// One subscription of a channel.
#[derive(Debug)]
pub(crate) struct Binding {
    /// As the join was answered.
    pub(crate) id: u32,
    kind: ChangeKind,
    table: Option<Table>,
    pub(crate) filter: Option<Arc<Filter>>,
    /// The columns that are told; all if none.
    pub(crate) select: Option<Arc<[String]>>,
}

/// A filter, by its text: those of the same text are evaluated once.
#[derive(Debug)]
pub(crate) struct Filter {
    pub(crate) text: String,
    pub(crate) conditions: Vec<Condition>,
}

/// The id of a subscription: the same for the same subscription, as Realtime's are, so that frames can be
/// shared. Never 0, which clients take for none.
pub(crate) fn id(binding: &wire::Binding) -> u32 {
    let text = serde_json::to_string(binding).unwrap_or_default();
    // FNV-1a, in the 27 bits that Realtime's ids have.
    let hash = text
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    (hash ^ (hash >> 27)) & 0x07ff_ffff | 1
}

impl Binding {
    /// Reads a subscription, or says what is wrong with it.
    pub(crate) fn read(asked: &wire::Binding) -> Result<Self, String> {
        let kind = asked.kind().ok_or("event: must be *, INSERT, UPDATE or DELETE")?;
        if !matches!(asked.schema.as_str(), "public" | "*") {
            return Err(format!("schema: {:?} is not served; there is `public`", asked.schema));
        }
        let table = match &asked.table {
            None => None,
            Some(name) => Some(Table::of_name(name).ok_or_else(|| {
                format!("table: {name:?} is not served; there are agent_messages, bus_events and workers")
            })?),
        };
        let filter = match &asked.filter {
            None => None,
            Some(text) => {
                let conditions = filter::parse(text)?;
                Some(Arc::new(Filter { text: text.clone(), conditions }))
            }
        };
        let select = asked.select.clone().filter(|columns| !columns.is_empty());
        Ok(Self { id: id(asked), kind, table, filter, select: select.map(Into::into) })
    }

    /// The tables that it is about.
    pub(crate) fn tables(&self) -> impl Iterator<Item = Table> {
        let table = self.table;
        Table::ALL.into_iter().filter(move |other| table.is_none_or(|table| table == *other))
    }

    /// Whether it is about a change, as far as can be told without the row.
    pub(crate) fn may_match(&self, change: &Change) -> bool {
        self.table.is_none_or(|table| table == change.table)
            && (self.kind == ChangeKind::All || self.kind == change.kind)
            && self.filter.as_ref().is_none_or(|filter| filter.may_match(change))
    }
}

impl Filter {
    fn may_match(&self, change: &Change) -> bool {
        self.conditions.iter().all(|condition| {
            let known = match condition.column.as_str() {
                "tenant" => &change.tenant,
                // Of purged messages neither is known.
                "role" if change.topic.is_some() || change.event_type.is_some() => &change.role,
                "service" if change.topic.is_some() || change.event_type.is_some() => {
                    &change.service
                }
                "event_type" => match &change.event_type {
                    Some(event_type) => event_type,
                    None => return true,
                },
                _ => return true,
            };
            match &condition.op {
                Op::Compare("=", value) => (value == known) != condition.negated,
                Op::In(values) => values.contains(known) != condition.negated,
                _ => true,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_subscription_has_the_same_id_and_it_is_never_0() {
        let messages = wire::Binding::new(ChangeKind::Insert, "agent_messages");
        assert_eq!(id(&messages), id(&messages.clone()));
        assert_ne!(id(&messages), id(&messages.clone().filtered("role=eq.a")));
        for n in 0..10_000 {
            assert_ne!(id(&messages.clone().filtered(format!("role=eq.{n}"))), 0);
        }
    }

    #[test]
    fn what_is_not_served_is_refused_by_name() {
        let messages = || wire::Binding::new(ChangeKind::All, "agent_messages");
        let error = |binding: wire::Binding| Binding::read(&binding).expect_err("refused");
        assert!(
            error(wire::Binding::new(ChangeKind::All, "users")).starts_with("table: \"users\"")
        );
        assert!(error(messages().filtered("nope")).starts_with("filter: "));
        let mut elsewhere = messages();
        elsewhere.schema = "auth".to_owned();
        assert!(error(elsewhere).starts_with("schema: "));
        let mut odd = messages();
        odd.event = "TRUNCATE".to_owned();
        assert!(error(odd).starts_with("event: "));
        assert!(Binding::read(&messages()).is_ok());
    }
}
