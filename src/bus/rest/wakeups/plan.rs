//! Which channels tell of what is wanted.

use serde::Deserialize;

use crate::bus::transport::Want;
use crate::bus::wake::Signal;
use crate::message::ALL_TENANTS;
use crate::realtime::wire::{Binding, Change, ChangeKind, Config, JoinPresence};

/// More channels than this on one connection, and hosted Supabase refuses them.
const CHANNELS: usize = 50;

/// A channel.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Line {
    /// The hub's own, of one topic.
    Topic { tenant: String, role: String, service: String },
    /// Changes of messages of a role; `topics` are the tenants and services that are ours.
    Messages { role: String, topics: Vec<(String, String)> },
    /// Everything that happens.
    Log,
    /// What happens to circuit breakers.
    Circuits,
}

/// The channels for work.
pub(super) fn of_work(wants: &[Want], no_hub: bool) -> Vec<Line> {
    let mut topics: Vec<_> = wants
        .iter()
        .filter_map(|want| match want {
            Want::Work { tenant, role, service } => Some((tenant, role, service)),
            Want::Log | Want::Circuit => None,
        })
        .collect();
    topics.sort();
    // The hub's channels are each of one tenant.
    let each_has_one = topics.iter().all(|(tenant, ..)| *tenant != ALL_TENANTS);
    if !no_hub && each_has_one && topics.len() <= CHANNELS {
        let line = |(tenant, role, service): (&String, &String, &String)| Line::Topic {
            tenant: tenant.clone(),
            role: role.clone(),
            service: service.clone(),
        };
        return topics.into_iter().map(line).collect();
    }
    let mut lines: Vec<Line> = Vec::new();
    for (tenant, role, service) in topics {
        let ours = (tenant.clone(), service.clone());
        let of_role = lines.iter_mut().find_map(|line| match line {
            Line::Messages { role: its, topics } if its == role => Some(topics),
            _ => None,
        });
        match of_role {
            Some(topics) => topics.push(ours),
            None => lines.push(Line::Messages { role: role.clone(), topics: vec![ours] }),
        }
    }
    lines
}

impl Line {
    /// What it tells of.
    pub(super) fn signal(&self) -> Signal {
        match self {
            Self::Topic { .. } | Self::Messages { .. } => Signal::Work,
            Self::Log => Signal::Log,
            Self::Circuits => Signal::Circuit,
        }
    }

    /// What a broadcast on it tells of.
    pub(super) fn signal_of(&self, event: &str) -> Signal {
        match event {
            "claims" if self.is_hubs() => Signal::Claims,
            _ => self.signal(),
        }
    }

    /// Its name; those that begin with `cogo:` are the hub's.
    pub(super) fn topic(&self) -> String {
        match self {
            Self::Topic { tenant, role, service } => format!("cogo:work:{tenant}:{role}:{service}"),
            Self::Messages { role, .. } => format!("worker-messages-{role}"),
            Self::Log => "worker-log".to_owned(),
            Self::Circuits => "worker-circuits".to_owned(),
        }
    }

    pub(super) fn is_hubs(&self) -> bool {
        matches!(self, Self::Topic { .. })
    }

    pub(super) fn config(&self) -> Config {
        let events = || Binding::new(ChangeKind::Insert, "bus_events");
        let postgres_changes = match self {
            Self::Topic { .. } => Vec::new(),
            Self::Messages { role, .. } => [ChangeKind::Insert, ChangeKind::Update]
                .map(|kind| {
                    Binding::new(kind, "agent_messages").filtered(format!("role=eq.{role}"))
                })
                .to_vec(),
            Self::Log => vec![events()],
            Self::Circuits => vec![
                events()
                    .filtered("event_type=in.(circuit_opened,circuit_half_opened,circuit_closed)"),
            ],
        };
        Config {
            postgres_changes,
            private: self.is_hubs(),
            presence: JoinPresence::none(),
            ..Config::default()
        }
    }
}

/// What a change is to be looked for, if anything. Each claim and each settle is a change as well, and looking after
/// every one of them would have all workers of a role ask for each other's work; what cannot be read wakes.
pub(super) fn wakes(line: &Line, change: &Change) -> Option<Signal> {
    #[derive(Deserialize)]
    struct Data {
        record: Record,
    }
    #[derive(Deserialize)]
    struct Record {
        status: String,
        tenant: String,
        service: String,
    }
    let Line::Messages { topics, .. } = line else { return Some(line.signal()) };
    let Ok(Data { record }) = serde_json::from_str(change.data.get()) else {
        return Some(line.signal());
    };
    let ours = |(tenant, service): &(String, String)| {
        *service == record.service && (tenant == ALL_TENANTS || *tenant == record.tenant)
    };
    let signal = match record.status.as_str() {
        "queued" => Signal::Work,
        // Where there is no hub the workers look after what becomes due, and nobody tells them when that is.
        "delayed" => Signal::Due,
        // Somebody may have held it.
        "cancelled" => Signal::Claims,
        _ => return None,
    };
    topics.iter().any(ours).then_some(signal)
}

/// Whether a channel is not ours to join, however often we ask.
pub(super) fn is_refused(reason: &str) -> bool {
    reason.contains("Unauthorized") || reason.contains("PrivateOnly")
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;

    fn work(tenant: &str, role: &str, service: &str) -> Want {
        let (tenant, role, service) = (tenant.to_owned(), role.to_owned(), service.to_owned());
        Want::Work { tenant, role, service }
    }

    #[test]
    fn a_hub_tells_of_each_topic_and_another_server_of_each_role() {
        let wants = [work("acme", "mcp", "b"), work("acme", "mcp", "a"), Want::Log];
        let topics: Vec<_> = of_work(&wants, false).iter().map(Line::topic).collect();
        assert_eq!(topics, ["cogo:work:acme:mcp:a", "cogo:work:acme:mcp:b"]);
        let lines = of_work(&wants, true);
        assert_eq!(lines.len(), 1);
        let config = lines[0].config();
        assert!(!config.private);
        let filters: Vec<_> = config.postgres_changes.iter().map(|b| b.filter.clone()).collect();
        assert_eq!(filters, [Some("role=eq.mcp".to_owned()), Some("role=eq.mcp".to_owned())]);
        for wants in [
            vec![work("*", "mcp", "a")],
            (0..60).map(|n| work("acme", "mcp", &n.to_string())).collect(),
        ] {
            let lines = of_work(&wants, false);
            assert!(matches!(&lines[..], [Line::Messages { .. }]), "{lines:?}");
        }
    }

    #[test]
    fn only_what_may_be_claimed_wakes_and_whatever_cannot_be_read() {
        let line = &of_work(&[work("acme", "mcp", "a")], true)[0];
        let (work, due, claims) = (Some(Signal::Work), Some(Signal::Due), Some(Signal::Claims));
        for (data, woken) in [
            (r#"{"record":{"status":"queued","tenant":"acme","service":"a"}}"#, work),
            (r#"{"record":{"status":"delayed","tenant":"acme","service":"a"}}"#, due),
            (r#"{"record":{"status":"claimed","tenant":"acme","service":"a"}}"#, None),
            (r#"{"record":{"status":"cancelled","tenant":"acme","service":"a"}}"#, claims),
            (r#"{"record":{"status":"cancelled","tenant":"acme","service":"b"}}"#, None),
            (r#"{"record":{"status":"queued","tenant":"other","service":"a"}}"#, None),
            (r#"{"record":{"status":"delayed","tenant":"acme","service":"b"}}"#, None),
            (r#"{"record":{},"errors":["Error 413: Payload Too Large"]}"#, work),
            ("{}", work),
        ] {
            let data = RawValue::from_string(data.to_owned()).expect("JSON");
            let change = Change { ids: vec![1], data };
            assert_eq!(wakes(line, &change), woken, "{}", change.data);
        }
    }
}
