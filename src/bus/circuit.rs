//! Circuit breakers: what the database says of them, and the transitions that it makes.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::breaker::{Evidence, Id, Policy, Remote, State};
use crate::bus::core::millis;
use crate::bus::error::Error;
use crate::bus::{Bus, Signal};
use crate::message::{Stored, stored};

/// A breaker that has opened at least once; the others have no row, and are closed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, sqlx::FromRow)]
pub struct Circuit {
    /// Whose messages it is for.
    pub tenant: String,
    /// The policy key, such as `mcp.call.browser.get_title.0`.
    pub key: String,
    /// Where it stands.
    pub state: State,
    /// Whether an operator opened it, and must close it.
    pub forced: bool,
    /// Grows with every transition.
    pub version: i64,
    /// How long until a probe may be asked for, in milliseconds; `None` where it is closed or an operator's to say.
    pub open_for_ms: Option<i64>,
    /// The one worker that probes.
    pub prober: Option<String>,
    /// Why it stands where it does.
    pub reason: Option<String>,
    /// The worker or operator that brought it there.
    pub worker_id: Option<String>,
    /// What the window held when it opened.
    #[serde(deserialize_with = "stored")]
    #[sqlx(try_from = "Stored")]
    pub evidence: Value,
    /// When it last opened from closed.
    pub opened_at: Option<DateTime<Utc>>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
}

/// What an operator does to a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CircuitAction {
    /// Opens it, until it is closed again or for a time.
    Open(Option<Duration>),
    /// Closes it.
    Close,
    /// Closes it, and has every worker forget what it counted.
    Reset,
}

impl CircuitAction {
    /// The word that the database and the API use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open(_) => "open",
            Self::Close => "close",
            Self::Reset => "reset",
        }
    }

    /// For how long it opens, if not until it is closed by hand.
    pub(crate) fn open_ms(self) -> Option<i64> {
        match self {
            Self::Open(period) => period.map(|p| i64::try_from(p.as_millis()).unwrap_or(i64::MAX)),
            Self::Close | Self::Reset => None,
        }
    }
}

impl From<&Circuit> for Remote {
    fn from(circuit: &Circuit) -> Self {
        Self {
            id: Id::new(&circuit.tenant, &circuit.key),
            state: circuit.state,
            forced: circuit.forced,
            version: circuit.version,
            open_for_ms: circuit.open_for_ms.and_then(|ms| u64::try_from(ms).ok()),
            prober: circuit.prober.clone(),
        }
    }
}

impl Bus {
    /// All breakers that have ever opened, of `tenant` or, with `*`, of all: those that are not closed first.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn circuits(&self, tenant: &str) -> Result<Vec<Circuit>, Error> {
        self.transport().circuits(tenant).await
    }

    /// Proposes to open a breaker that is closed since `seen_version`; whoever is first opens it for all. Gives
    /// the breaker as it then is.
    ///
    /// # Errors
    /// [`Error::Refused`] names the argument; [`Error::Database`].
    pub async fn circuit_open(
        &self,
        id: &Id,
        worker: &str,
        seen_version: i64,
        policy: &Policy,
        evidence: &Evidence,
    ) -> Result<Circuit, Error> {
        let policy = json!({
            "open_ms": policy.open_ms,
            "half_open_max_calls": policy.half_open_max_calls,
            "successes_to_close": policy.successes_to_close,
        });
        let counted = json!(evidence);
        let call = || {
            let reason = evidence.reason;
            self.transport().circuit_open(id, worker, reason, seen_version, &policy, &counted)
        };
        let circuit = self.core.retry("bus_circuit_open", call).await?;
        self.circuit_changed();
        Ok(circuit)
    }

    /// Asks to test the water, for as long as `lease`. Whether that was granted, and the breaker as it then is.
    ///
    /// # Errors
    /// [`Error::Refused`], also where the breaker has no row; [`Error::Database`].
    pub async fn circuit_probe(
        &self,
        id: &Id,
        worker: &str,
        lease: Duration,
    ) -> Result<(bool, Circuit), Error> {
        // Once: an answer that is lost costs one place of a probe, and a second call would take two.
        let probe = self.transport().circuit_probe(id, worker, millis(lease));
        let (granted, circuit) = probe.await?;
        if granted {
            self.circuit_changed();
        }
        Ok((granted, circuit))
    }

    /// Says how a probe went; `None`: it was not made. Gives the breaker as it then is, if there is one.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn circuit_report(
        &self,
        id: &Id,
        worker: &str,
        ok: Option<bool>,
        reason: Option<&str>,
    ) -> Result<Option<Circuit>, Error> {
        // Once: a second report would count as a second call. A lost one costs the probe's lease.
        let circuit = self.transport().circuit_report(id, worker, ok, reason).await?;
        self.circuit_changed();
        Ok(circuit)
    }

    /// Opens, closes or resets a breaker by hand. Gives the breaker as it then is.
    ///
    /// # Errors
    /// [`Error::Refused`] names the argument, says that no such breaker has ever opened, or that the role may
    /// not; [`Error::Database`].
    pub async fn circuit_set(
        &self,
        id: &Id,
        action: CircuitAction,
        actor: Option<&str>,
        reason: Option<&str>,
    ) -> Result<Circuit, Error> {
        let circuit = self.transport().circuit_set(id, action, actor, reason).await?;
        self.circuit_changed();
        Ok(circuit)
    }

    fn circuit_changed(&self) {
        self.wake(Signal::Circuit);
        self.wake(Signal::Log);
    }
}
