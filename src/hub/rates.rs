//! How many requests an address and a key may send.
//!
//! `tower_governor` counts. Its layer refuses what has no key and cannot let anything pass uncounted, so its limiter
//! is asked here instead: requests without credentials have no key, and programs of this machine are not counted.

use std::fmt;
use std::hash::Hash;
use std::marker::PhantomData;
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, Request, Uri, header};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;
use tower_governor::GovernorError;
use tower_governor::governor::GovernorConfigBuilder;
use tower_governor::key_extractor::KeyExtractor;

use crate::error::Code;
use crate::hub::client::Client;
use crate::hub::error::ApiError;
use crate::hub::realtime::handshake;
use crate::hub::{auth, caller, guard};
use crate::options::network::Network;
use crate::options::{Rate, RateLimit};

/// How often addresses and keys that have been quiet are forgotten. Each costs a request and is kept for as long as
/// its allowance takes to grow back, so that memory is bounded by what the hub can answer in about that time.
const SWEEP: Duration = Duration::from_secs(1);
/// Of an IPv6 address so many bits count: a site has all addresses that begin with them.
const SITE_BITS: u32 = 64;

/// The rates of one hub.
#[derive(Debug)]
pub(crate) struct Rates {
    per_address: Option<Limiter<IpAddr>>,
    per_key: Option<Limiter<[u8; 16]>>,
}

impl Rates {
    pub(crate) fn new(options: &RateLimit) -> Self {
        Self {
            per_address: options.per_address.map(Limiter::new),
            per_key: options.per_key.map(Limiter::new),
        }
    }

    /// Lets a request pass.
    ///
    /// # Errors
    /// 429, with when to try again.
    pub(crate) fn check(
        &self,
        client: &Client,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<(), ApiError> {
        // What runs here could take the processor without asking the hub; and workers, gateways and a benchmark
        // of one machine would all be one address.
        if client.local {
            return Ok(());
        }
        if let (Some(limiter), Some(address)) = (&self.per_address, client.address) {
            limiter.take(&site(address)).map_err(|after| refused("address", after))?;
        }
        if let (Some(limiter), Some(key)) = (&self.per_key, key(uri, headers)) {
            limiter.take(&key).map_err(|after| refused("key", after))?;
        }
        Ok(())
    }
}

fn refused(whose: &str, after: Duration) -> ApiError {
    let message = format!(
        "too many requests of this {whose}; slow down (see rate_limit.per_{whose} of hub.json)"
    );
    ApiError::new(Code::RateLimited, message).with_retry_after(after)
}

/// What counts as one address.
pub(crate) fn site(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(_) => Network::around(address, SITE_BITS).first(),
    }
}

/// What tells one credential from another, and leads to none. It is of the one that says who calls: whatever else is
/// sent beside it could be another one each time.
fn key(uri: &Uri, headers: &HeaderMap) -> Option<[u8; 16]> {
    let digest = if uri.path() == handshake::PATH {
        // There, other credentials go before the bearer's.
        Sha256::digest(handshake::key(headers, uri)?)
    } else if guard::is_remote(uri.path()) {
        Sha256::digest(caller::token(headers, uri).ok()?)
    } else {
        let bearer = || headers.get(header::AUTHORIZATION).and_then(auth::bearer);
        let admin = headers.get(auth::HEADER).map(HeaderValue::as_bytes);
        Sha256::digest(admin.or_else(bearer)?.trim_ascii())
    };
    digest.first_chunk().copied()
}

/// One rate, for each `K`.
struct Limiter<K> {
    take: Box<dyn Fn(&K) -> bool + Send + Sync>,
    forget: Box<dyn Fn() + Send + Sync>,
    /// The time in which one more request is allowed.
    period: Duration,
    swept: Mutex<Instant>,
}

impl<K> fmt::Debug for Limiter<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limiter").field("period", &self.period).finish_non_exhaustive()
    }
}

impl<K: Clone + Hash + Eq + fmt::Debug + Send + Sync + 'static> Limiter<K> {
    fn new(rate: Rate) -> Self {
        let period = Duration::from_secs(1) / rate.per_second.max(1);
        let config = GovernorConfigBuilder::default()
            .period(period)
            .burst_size(rate.burst.max(1))
            .key_extractor(Asked::<K>(PhantomData))
            .finish()
            .expect("neither the period nor the burst is 0");
        let (taking, forgetting) = (config.limiter().clone(), config.limiter().clone());
        Self {
            take: Box::new(move |key| taking.check_key(key).is_ok()),
            forget: Box::new(move || {
                forgetting.retain_recent();
                forgetting.shrink_to_fit();
            }),
            period,
            swept: Mutex::new(Instant::now()),
        }
    }

    /// Takes one, or says when there will be one again: within a period.
    fn take(&self, key: &K) -> Result<(), Duration> {
        // Whoever comes while another sweeps goes on.
        if let Ok(mut swept) = self.swept.try_lock()
            && swept.elapsed() >= SWEEP
        {
            *swept = Instant::now();
            (self.forget)();
        }
        if (self.take)(key) { Ok(()) } else { Err(self.period) }
    }
}

/// Keys are handed over by whoever asks.
#[derive(Debug, Clone)]
struct Asked<K>(PhantomData<K>);

impl<K: Clone + Hash + Eq + fmt::Debug> KeyExtractor for Asked<K> {
    type Key = K;

    fn extract<T>(&self, _: &Request<T>) -> Result<K, GovernorError> {
        Err(GovernorError::UnableToExtractKey)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_burst_passes_and_what_is_beyond_it_is_told_when() {
        let limiter = Limiter::new(Rate { per_second: 1, burst: 3 });
        let taken: Vec<bool> = (0..5).map(|_| limiter.take(&1).is_ok()).collect();
        assert_eq!(taken[..3], [true; 3]);
        assert_eq!(limiter.take(&1), Err(Duration::from_secs(1)));
        assert_eq!(limiter.take(&2), Ok(()), "another one's allowance is its own");
    }

    #[test]
    fn a_site_is_one_address() {
        let of = |text: &str| site(text.parse().expect("an address"));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    }
}
