//! Wrong admin tokens, counted by address, so that guessing is slow.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::error::Code;
use crate::hub::client::Client;
use crate::hub::error::ApiError;
use crate::hub::rates::site;

/// From the first of them on.
const WINDOW: Duration = Duration::from_secs(60);
/// How many addresses are remembered; those beyond share one place, so that coming from many does not help.
const ADDRESSES: usize = 10_000;

/// Who has shown wrong tokens.
#[derive(Debug)]
pub(crate) struct Failures {
    /// How many an address may show in [`WINDOW`].
    max: u32,
    by_address: Mutex<HashMap<IpAddr, Failed>>,
}

#[derive(Debug)]
struct Failed {
    since: Instant,
    times: u32,
}

impl Failures {
    pub(crate) fn new(max: u32) -> Self {
        Self { max, by_address: Mutex::default() }
    }

    /// Refuses whoever has shown too many wrong ones, before the next one is looked at: a right one must not be
    /// told from a wrong one then.
    pub(crate) fn check(&self, client: &Client) -> Result<(), ApiError> {
        let Some(address) = client.address.map(site) else { return Ok(()) };
        let failed = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let one = failed
            .get(&address)
            .or_else(|| (failed.len() > ADDRESSES).then(|| failed.get(&OTHERS)).flatten());
        let left = one
            .filter(|one| one.times >= self.max)
            .map(|one| WINDOW.saturating_sub(one.since.elapsed()));
        match left {
            Some(left) if !left.is_zero() => {
                let message =
                    "too many wrong admin tokens from this address; it is heard again in a minute";
                Err(ApiError::new(Code::RateLimited, message).with_retry_after(left))
            }
            _ => Ok(()),
        }
    }

    /// Counts a wrong one.
    pub(crate) fn count(&self, client: &Client) {
        let Some(address) = client.address.map(site) else { return };
        let mut failed = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        if failed.len() >= ADDRESSES && !failed.contains_key(&address) {
            failed.retain(|_, one| one.since.elapsed() < WINDOW);
        }
        let full = failed.len() >= ADDRESSES && !failed.contains_key(&address);
        let one = failed
            .entry(if full { OTHERS } else { address })
            .or_insert_with(|| Failed { since: Instant::now(), times: 0 });
        if one.since.elapsed() >= WINDOW {
            *one = Failed { since: Instant::now(), times: 0 };
        }
        one.times = one.times.saturating_add(1);
    }
}

/// Nobody's address, for those that no place is left for.
const OTHERS: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: u32 = 10;

    fn at(address: IpAddr) -> Client {
        Client { address: Some(address), ..Client::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_guesses_is_not_heard_for_a_while() {
        let (failures, one) = (Failures::new(MAX), at([10, 0, 0, 1].into()));
        for _ in 0..MAX {
            assert!(failures.check(&one).is_ok());
            failures.count(&one);
        }
        assert!(failures.check(&one).is_err());
        assert!(failures.check(&at([10, 0, 0, 2].into())).is_ok());
        tokio::time::advance(WINDOW).await;
        assert!(failures.check(&one).is_ok());
        failures.count(&one);
        assert!(failures.check(&one).is_ok(), "counted anew");
    }

    #[tokio::test(start_paused = true)]
    async fn many_addresses_share_a_place_and_take_no_more_memory() {
        let failures = Failures::new(MAX);
        let nth = |n: u32| at(IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + n)));
        for n in 0..u32::try_from(ADDRESSES).expect("a small number") + 100 {
            failures.count(&nth(n));
        }
        assert_eq!(failures.by_address.lock().expect("unpoisoned").len(), ADDRESSES + 1);
        assert!(failures.check(&nth(20_000)).is_err());
        assert!(failures.check(&nth(0)).is_ok());
        tokio::time::advance(WINDOW).await;
        failures.count(&nth(20_000));
        assert_eq!(failures.by_address.lock().expect("unpoisoned").len(), 1);
    }
}
