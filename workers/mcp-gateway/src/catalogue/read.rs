//! Reading a snapshot from the database.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use cogo::bus::offer::{NewPin, Pin};
use cogo::bus::{self, Bus};
use serde_json::Value;

use super::snapshot::{Known, Snapshot, Sources};
use crate::config::Mesh;

/// Reads the snapshots of one tenant, and each definition once.
#[derive(Debug, Default)]
pub struct Reader {
    definitions: BTreeMap<String, Known>,
}

/// What was read.
#[derive(Debug, Clone, Default)]
pub struct Read {
    /// What the tenant is offered, and what is held.
    pub snapshot: Snapshot,
    /// What is approved.
    pub pins: Vec<Pin>,
    /// What is to be approved because it is seen for the first time, and pinning is `first_use`.
    pub first_seen: Vec<NewPin>,
    /// When something goes that is offered by machines alone that are away.
    pub leaves_in: Option<Duration>,
    /// Something is offered whose definition is not known, or not yet.
    pub is_incomplete: bool,
}

impl Reader {
    /// A definition that was read last.
    #[must_use]
    pub fn definition(&self, hash: &str) -> Option<Arc<Value>> {
        self.definitions.get(hash).map(|known| Arc::clone(&known.definition))
    }

    /// Reads what `tenant` is offered as things stand.
    ///
    /// # Errors
    /// When the bus does not answer, or refuses.
    pub async fn read(&mut self, bus: &Bus, tenant: &str, mesh: &Mesh) -> Result<Read, bus::Error> {
        let offered = bus.offers(tenant, mesh.grace()).await?;
        let pins = bus.pins(tenant).await?;
        let approved = pins.iter().filter_map(|pin| pin.hash.clone());
        let wanted: BTreeSet<String> =
            offered.iter().map(|offered| offered.hash.clone()).chain(approved).collect();
        self.definitions.retain(|hash, _| wanted.contains(hash));
        let unknown: Vec<String> =
            wanted.iter().filter(|hash| !self.definitions.contains_key(*hash)).cloned().collect();
        if !unknown.is_empty() {
            for found in bus.definitions(tenant, &unknown).await? {
                // One that cannot be read, since it is too deep, is known to be of no use.
                let definition = serde_json::from_str(&found.definition).unwrap_or(Value::Null);
                let known =
                    Known { definition: Arc::new(definition), created_at: found.created_at };
                self.definitions.insert(found.hash, known);
            }
        }
        let is_incomplete =
            offered.iter().any(|offered| !self.definitions.contains_key(&offered.hash));
        let leaves_in = offered.iter().filter_map(|offered| offered.leaves_in_ms).min();
        let sources = Sources {
            tenant,
            mesh,
            offered: &offered,
            pins: &pins,
            definitions: &self.definitions,
        };
        let (snapshot, first_seen) = Snapshot::build(&sources);
        let leaves_in = leaves_in.map(|ms| Duration::from_millis(u64::try_from(ms).unwrap_or(0)));
        Ok(Read { snapshot, pins, first_seen, leaves_in, is_incomplete })
    }
}
