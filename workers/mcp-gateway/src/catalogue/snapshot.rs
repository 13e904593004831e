//! All that a tenant is offered at one moment.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::offer::Offer;

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
    /// The hash that was approved, if any ever was.
    pub approved: Option<String>,
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
