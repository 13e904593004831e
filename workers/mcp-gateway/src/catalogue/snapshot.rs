//! All that a tenant is offered at one moment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use cogo::bus::offer::{NewPin, Offered, Pin};
use serde_json::Value;

use super::offer::Offer;
use crate::config::{Mesh, PLATFORM, Pinning, SEPARATOR};

/// What a tenant is offered, and what is held until somebody approves it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    offers: BTreeMap<String, BTreeMap<String, Arc<Offer>>>,
    held: Vec<Held>,
}

/// A tool that some machine has, and that is not offered like this because nobody has approved it.
#[derive(Debug, Clone, PartialEq)]
pub struct Held {
    /// The tool, as it would be offered.
    pub offer: Offer,
    /// The first few of the workers that have it like this.
    pub machines: Vec<String>,
    /// What was approved of it, if anything ever was.
    pub approved: Option<Approved>,
}

/// What somebody said of a tool.
#[derive(Debug, Clone, PartialEq)]
pub struct Approved {
    /// The hash of the definition that is approved; none once that was revoked.
    pub hash: Option<String>,
    /// That definition.
    pub definition: Option<Arc<Value>>,
    /// When.
    pub at: DateTime<Utc>,
    /// Who, if they said who they are.
    pub by: Option<String>,
}

/// A definition that was read.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) definition: Arc<Value>,
    pub(super) created_at: DateTime<Utc>,
}

/// One definition of a tool, who has it, and since when it is known.
type Candidate<'s> = (Offer, &'s Offered, DateTime<Utc>);

/// What a snapshot is made of.
#[derive(Debug)]
pub(super) struct Sources<'s> {
    pub(super) tenant: &'s str,
    pub(super) mesh: &'s Mesh,
    pub(super) offered: &'s [Offered],
    pub(super) pins: &'s [Pin],
    pub(super) definitions: &'s BTreeMap<String, Known>,
}

impl Snapshot {
    /// The tool of a toolset, if it is offered.
    #[must_use]
    pub fn get(&self, toolset: &str, tool: &str) -> Option<&Arc<Offer>> {
        self.offers.get(toolset)?.get(tool)
    }

    /// All tools, by toolset and name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Offer>> {
        self.offers.values().flat_map(BTreeMap::values)
    }

    /// The tools of one toolset, by name; none where there is no such toolset.
    pub fn toolset(&self, name: &str) -> impl Iterator<Item = &Arc<Offer>> {
        self.offers.get(name).into_iter().flat_map(BTreeMap::values)
    }

    /// The names of the toolsets of which something is offered.
    pub fn toolsets(&self) -> impl Iterator<Item = &str> {
        self.offers.keys().map(String::as_str)
    }

    /// What is held, by toolset and name.
    #[must_use]
    pub fn held(&self) -> &[Held] {
        &self.held
    }

    /// Whether both list the same tools, defined alike; how many machines have them does not count.
    #[must_use]
    pub fn lists_as(&self, other: &Self) -> bool {
        let key =
            |offer: &Arc<Offer>| (offer.toolset.clone(), offer.tool.clone(), offer.hash.clone());
        self.iter().map(key).eq(other.iter().map(key))
    }

    /// Takes back what is offered of these tools.
    #[cfg(feature = "api")]
    pub(super) fn withdraw(&mut self, tools: &[NewPin]) {
        for NewPin { toolset, tool, .. } in tools {
            if let Some(of_toolset) = self.offers.get_mut(toolset) {
                of_toolset.remove(tool);
            }
        }
        self.offers.retain(|_, tools| !tools.is_empty());
    }

    /// Makes a snapshot, and tells what is to be approved because it is seen for the first time.
    ///
    /// Where machines define a tool differently, and pinning is off, the definition counts that most machines have
    /// that are online; of several the one that most have at all, and then the newest. With pinning, each definition
    /// but the approved one is held; what nobody has approved is held as well, unless pinning is `first_use`, which
    /// approves the one that would count without pinning.
    pub(super) fn build(sources: &Sources<'_>) -> (Self, Vec<NewPin>) {
        let spread = Spread::of(sources.offered);
        let mut tools: BTreeMap<(&str, &str), Vec<Candidate<'_>>> = BTreeMap::new();
        for offered in sources.offered {
            let (toolset, tool) = (offered.toolset.as_str(), offered.tool.as_str());
            let is_clear =
                toolset != PLATFORM && !toolset.contains(SEPARATOR) && !toolset.ends_with('_');
            let known = sources.definitions.get(&offered.hash);
            // A definition is of the tool that it names, and of no other.
            let known = known.filter(|known| known.definition["name"] == tool);
            if let Some(known) =
                known.filter(|_| is_clear && sources.mesh.offers(sources.tenant, toolset, tool))
            {
                let definition = Arc::clone(&known.definition);
                let mut offer = Offer::new(toolset, tool, &offered.hash, definition);
                offer.workers = usize::try_from(offered.online).unwrap_or(0);
                // A machine without the tool would refuse the call for good, which another one can make.
                offer.pinned =
                    sources.mesh.pinning != Pinning::Off || spread.some_lack(toolset, tool);
                tools.entry((toolset, tool)).or_default().push((offer, offered, known.created_at));
            }
        }
        let pins: BTreeMap<_, _> = sources
            .pins
            .iter()
            .map(|pin| ((pin.toolset.as_str(), pin.tool.as_str()), pin))
            .collect();
        let (mut snapshot, mut first) = (Self::default(), Vec::new());
        for (key, mut candidates) in tools {
            candidates.sort_by_key(|(offer, offered, created_at)| {
                (offered.online, offered.online + offered.away, *created_at, offer.hash.clone())
            });
            let pin = pins.get(&key);
            let best = candidates.last().map(|(offer, ..)| offer.hash.clone());
            let chosen = match (sources.mesh.pinning, pin) {
                (Pinning::Off, _) => best,
                (_, Some(pin)) => pin.hash.clone(),
                (Pinning::Strict, None) => None,
                (Pinning::FirstUse, None) => {
                    let (toolset, tool) = (key.0.to_owned(), key.1.to_owned());
                    first.push(NewPin { toolset, tool, hash: best.clone() });
                    best
                }
            };
            for (offer, offered, _) in candidates.into_iter().rev() {
                if chosen.as_ref() == Some(&offer.hash) {
                    let toolset = snapshot.offers.entry(offer.toolset.clone()).or_default();
                    toolset.insert(offer.tool.clone(), Arc::new(offer));
                } else if sources.mesh.pinning != Pinning::Off {
                    let approved = pin.map(|pin| Approved {
                        hash: pin.hash.clone(),
                        definition: pin
                            .hash
                            .as_ref()
                            .and_then(|hash| sources.definitions.get(hash))
                            .map(|known| Arc::clone(&known.definition)),
                        at: pin.pinned_at,
                        by: pin.pinned_by.clone(),
                    });
                    snapshot.held.push(Held { offer, machines: offered.workers.clone(), approved });
                }
            }
        }
        (snapshot, first)
    }
}

/// Which machines have what.
#[derive(Debug, Default)]
struct Spread<'s> {
    toolsets: BTreeMap<&'s str, Having<'s>>,
    tools: BTreeMap<(&'s str, &'s str), Having<'s>>,
}

/// Who has something: the first few by name, and how many there are at least.
#[derive(Debug, Default)]
struct Having<'s> {
    names: BTreeSet<&'s str>,
    count: i64,
}

impl<'s> Spread<'s> {
    fn of(offered: &'s [Offered]) -> Self {
        let mut spread = Self::default();
        for row in offered {
            let (toolset, tool) = (row.toolset.as_str(), row.tool.as_str());
            let names = || row.workers.iter().map(String::as_str);
            let having = spread.tools.entry((toolset, tool)).or_default();
            having.names.extend(names());
            having.count += i64::from(row.online) + i64::from(row.away);
            let count = having.count;
            let all = spread.toolsets.entry(toolset).or_default();
            all.names.extend(names());
            all.count = all.count.max(count);
        }
        spread
    }

    /// Whether a machine that has the toolset has no tool of this name.
    fn some_lack(&self, toolset: &str, tool: &str) -> bool {
        let (Some(all), Some(having)) =
            (self.toolsets.get(toolset), self.tools.get(&(toolset, tool)))
        else {
            return false;
        };
        having.count < all.count || having.count < i64::try_from(all.names.len()).unwrap_or(0)
    }
}

/// Of these offers.
impl FromIterator<Offer> for Snapshot {
    fn from_iter<I: IntoIterator<Item = Offer>>(offers: I) -> Self {
        let mut snapshot = Self::default();
        for offer in offers {
            let toolset = snapshot.offers.entry(offer.toolset.clone()).or_default();
            toolset.insert(offer.tool.clone(), Arc::new(offer));
        }
        snapshot
    }
}

#[cfg(test)]
mod tests;
