//! How much one address and one key may ask.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::options::network::Network;
use crate::options::{InvalidOptions, within};

/// How many requests one address and one key may send; more are answered 429. Programs of the hub's own machine are
/// not counted, unless they forward for others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RateLimit {
    /// Of one address, an IPv6 one by its first 64 bits; null for any number.
    pub per_address: Option<Rate>,
    /// With one key, or with the admin token; null for any number.
    pub per_key: Option<Rate>,
    /// How many wrong admin tokens one address may show in a minute before it is not heard for the rest of it, from 1
    /// to 1000000.
    pub wrong_tokens_per_minute: u32,
    /// Proxies whose word counts for whom they speak (`X-Forwarded-For`, `Forwarded`, `X-Forwarded-Proto`), as
    /// addresses or networks such as `10.0.0.0/8`.
    pub trusted_proxies: Vec<String>,
}

/// A rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// How many requests a second, from 1 to 1000000.
    pub per_second: u32,
    /// How many at once after a pause, from 1 to 1000000.
    pub burst: u32,
}

impl Default for RateLimit {
    fn default() -> Self {
        Self {
            // Of a fleet behind one address: a worker asks a few times a second, and batches under load.
            per_address: Some(Rate { per_second: 1000, burst: 4000 }),
            // A key may be a whole fleet's, behind several addresses.
            per_key: Some(Rate { per_second: 2000, burst: 8000 }),
            // A person's slips, or a program's that was told an old one.
            wrong_tokens_per_minute: 10,
            trusted_proxies: Vec::new(),
        }
    }
}

impl RateLimit {
    pub(super) fn validate(&self) -> Result<(), InvalidOptions> {
        for (name, rate) in [("per_address", self.per_address), ("per_key", self.per_key)] {
            let Some(Rate { per_second, burst }) = rate else { continue };
            within(&format!("rate_limit.{name}.per_second"), per_second.into(), 1, 1_000_000)?;
            within(&format!("rate_limit.{name}.burst"), burst.into(), 1, 1_000_000)?;
        }
        let wrong = self.wrong_tokens_per_minute.into();
        within("rate_limit.wrong_tokens_per_minute", wrong, 1, 1_000_000)?;
        for (at, proxy) in self.trusted_proxies.iter().enumerate() {
            if proxy.parse::<Network>().is_err() {
                return Err(InvalidOptions {
                    field: format!("rate_limit.trusted_proxies[{at}]"),
                    rule: format!(
                        "{proxy:?} must be an address, or a network as 10.0.0.0/8 with no bits beyond its length"
                    ),
                });
            }
        }
        Ok(())
    }

    /// The proxies.
    #[cfg(feature = "hub")]
    pub(crate) fn trusted(&self) -> Vec<Network> {
        self.trusted_proxies.iter().filter_map(|proxy| proxy.parse().ok()).collect()
    }
}
