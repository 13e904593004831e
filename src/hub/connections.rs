//! How many connections there may be, and how many of them one address may hold.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use crate::hub::rates::site;
use crate::hub::serve::CONNECTIONS_MAX;
use crate::options::Options;
use crate::options::network::Network;

/// How many connections there may be at once, and how many of them one address may hold, so that it cannot take all there
/// are. Cheap to clone; all clones count those of an address together.
#[derive(Debug, Clone)]
pub struct Connections {
    most: usize,
    pub(super) in_all: usize,
    exempt: Arc<[Network]>,
    held: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Connections {
    /// So many of each address, whichever it is, and [`CONNECTIONS_MAX`] in all.
    #[must_use]
    pub fn per_address(most: usize) -> Self {
        Self { most, in_all: CONNECTIONS_MAX, exempt: Arc::new([]), held: Arc::default() }
    }

    /// As `max_connections_per_address` says. This machine's own addresses and the proxies that are trusted may
    /// hold any number: through them come many others.
    pub(crate) fn new(options: &Options) -> Self {
        let exempt = Network::LOOPBACK.into_iter().chain(options.rate_limit.trusted());
        let per_address = Self::per_address(options.max_connections_per_address);
        Self { exempt: exempt.collect(), ..per_address }
    }

    /// So many in all, at least one.
    #[must_use]
    pub fn in_all(self, most: usize) -> Self {
        Self { in_all: most.max(1), ..self }
    }

    /// A place for one more, unless its address holds as many as it may.
    pub(crate) fn take(&self, address: IpAddr) -> Option<Held> {
        let address = address.to_canonical();
        if self.exempt.iter().any(|network| network.contains(address)) {
            return Some(Held(None));
        }
        let address = site(address);
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let count = held.entry(address).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Held(Some((self.clone(), address))))
    }
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(crate) struct Held(Option<(Connections, IpAddr)>);

impl Drop for Held {
    fn drop(&mut self) {
        let Some((connections, address)) = self.0.take() else { return };
        let mut held = connections.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                held.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_places_and_gives_them_back() {
        let connections = Connections::per_address(2);
        let take = |address: [u8; 4]| connections.take(address.into());
        let (first, second) = (take([10, 0, 0, 1]), take([10, 0, 0, 1]));
        assert!(first.is_some() && second.is_some());
        assert!(take([10, 0, 0, 1]).is_none());
        assert!(take([10, 0, 0, 2]).is_some());
        drop(first);
        assert!(take([10, 0, 0, 1]).is_some());
        drop(second);
        assert!(connections.held.lock().expect("unpoisoned").is_empty());
    }

    #[test]
    fn this_machine_and_trusted_proxies_hold_any_number() {
        let mut options = Options { max_connections_per_address: 1, ..Options::default() };
        options.rate_limit.trusted_proxies = vec!["10.0.0.0/8".to_owned()];
        let connections = Connections::new(&options);
        for address in ["127.0.0.1", "::1", "::ffff:127.0.0.1", "10.1.1.1"] {
            let address: IpAddr = address.parse().expect("an address");
            let _one = connections.take(address).expect("a place");
            assert!(connections.take(address).is_some(), "{address}");
        }
        let _one = connections.take([192, 0, 2, 1].into()).expect("a place");
        assert!(connections.take([192, 0, 2, 1].into()).is_none());
    }
}
