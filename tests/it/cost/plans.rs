//! Which plans read whole tables: what `auto_explain` tells a session of the statements within its functions.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use sqlx::Executor as _;
use sqlx::postgres::PgConnection;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::{DefaultGuard, set_default};
use tracing::{Event, Metadata, Subscriber};

/// Hears what the server tells sessions of this thread, until it is dropped.
pub(crate) struct Plans {
    heard: Arc<Mutex<Vec<String>>>,
    _subscribed: DefaultGuard,
}

impl Plans {
    /// Has the server tell `session` all its plans; `None` where it cannot.
    pub(crate) async fn of(session: &mut PgConnection) -> Option<Self> {
        session.execute("load 'auto_explain'").await.ok()?;
        let settings = "set auto_explain.log_min_duration = 0; set auto_explain.log_nested_statements = on;
            set auto_explain.log_analyze = on; set auto_explain.log_timing = off; set auto_explain.log_format = json;
            set auto_explain.log_level = notice; set client_min_messages = notice";
        session.execute(sqlx::raw_sql(settings)).await.expect("plans are told");
        let heard = Arc::new(Mutex::new(Vec::new()));
        let subscribed = set_default(Notices { heard: Arc::clone(&heard) });
        Some(Self { heard, _subscribed: subscribed })
    }

    /// The statements that read a whole table of messages or events, and how many plans there were.
    pub(crate) fn whole_reads(&self) -> (BTreeSet<String>, usize) {
        let heard = self.heard.lock().expect("not poisoned");
        let plans = heard.iter().filter_map(|notice| notice.split_once("plan:"));
        let plans: Vec<Value> =
            plans.filter_map(|(_, plan)| serde_json::from_str(plan).ok()).collect();
        let mut found = BTreeSet::new();
        for plan in &plans {
            let mut tables = BTreeSet::new();
            look(&plan["Plan"], &mut tables);
            let text = plan["Query Text"].as_str().unwrap_or_default();
            let text: Vec<_> = text.split_whitespace().collect();
            let text: String = text.join(" ").chars().take(160).collect();
            found.extend(tables.into_iter().map(|table| format!("{table} by `{text}`")));
        }
        (found, plans.len())
    }
}

/// The tables that were read as a whole, below this node.
fn look<'a>(node: &'a Value, found: &mut BTreeSet<&'a str>) {
    let table = node["Relation Name"].as_str().unwrap_or_default();
    let executed = node["Actual Loops"].as_f64().is_none_or(|loops| loops > 0.0);
    let ours = table == "agent_messages" || table.starts_with("bus_events");
    if node["Node Type"] == "Seq Scan" && executed && ours {
        found.insert(table);
    }
    for child in node["Plans"].as_array().into_iter().flatten() {
        look(child, found);
    }
}

/// Hears the client library say what the server said.
struct Notices {
    heard: Arc<Mutex<Vec<String>>>,
}

impl Subscriber for Notices {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "sqlx::postgres::notice"
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = Text(String::new());
        event.record(&mut text);
        self.heard.lock().expect("not poisoned").push(text.0);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// The text of an event.
struct Text(String);

impl Visit for Text {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.0);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}
