//! The key of a worker that is to be installed: is it one, and will it do?

use std::path::Path;

use anyhow::Result;
use cogo::clock;
use cogo::identity::{self, Claims, Error, MAX_TOKEN_BYTES, Role};

use crate::exit::{Exit, Failed};
use crate::output::note;

/// The variable that may hold it.
const VARIABLE: &str = "COGO_KEY";
/// A key that ends within so many seconds is worth a word: a week.
const SOON_S: i64 = 7 * 86_400;

/// A key, and where it is from.
pub(super) struct Key {
    secret: String,
    from: String,
    /// Nothing of an `sb_…` key, which says nothing of itself.
    claims: Option<Claims>,
}

impl Key {
    pub(super) fn find(file: Option<&Path>) -> Result<Option<Self>> {
        let (from, text) = match file {
            Some(path) => {
                let from = format!("--key-file {}", path.display());
                let text = std::fs::read_to_string(path)
                    .map_err(|error| Failed::usage(format!("{from}: {error}")))?;
                (from, text)
            }
            None => match std::env::var(VARIABLE).ok().filter(|key| !key.trim().is_empty()) {
                Some(text) => (VARIABLE.to_owned(), text),
                None => return Ok(None),
            },
        };
        let secret = text.trim().to_owned();
        let claims = match identity::peek(&secret) {
            Ok(claims) => Some(claims),
            Err(Error::OpaqueKey) => None,
            // It may be one that is for others to read, such as Supabase's newer ones with ES256.
            Err(Error::WrongAlgorithm { .. }) => None,
            Err(error) => return Err(Failed::usage(format!("{from}: {error}")).into()),
        };
        // It will stand in a file that a shell or systemd reads.
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        if !secret.bytes().all(plain) || secret.len() > MAX_TOKEN_BYTES {
            return Err(Failed::usage(format!("{from}: is no key")).into());
        }
        Ok(Some(Self { secret, from, claims }))
    }

    pub(super) fn secret(&self) -> &str {
        &self.secret
    }

    /// Refuses a key with which the worker could not work, and tells of one with which it could not for long.
    pub(super) fn check(&self, worker: Option<&str>) -> Result<()> {
        let Some(claims) = &self.claims else { return Ok(()) };
        let now = clock::utc_now();
        let from = &self.from;
        let refused = |text: String| Failed::new(Exit::Usage, text);
        claims.check_time(now).map_err(|error| refused(format!("{from}: {error}")))?;
        if let Some(worker) = worker.filter(|worker| !claims.may_be(worker)) {
            let own = claims.worker.as_deref().unwrap_or("none");
            return Err(refused(format!("--worker-id {worker:?}: the key is for worker {own:?}"))
                .hint("Leave it out, or go on after a dot, or mint a key for it.")
                .into());
        }
        let idle = claims.role == Role::Anon
            || (claims.role == Role::Authenticated
                && (claims.topics.is_empty()
                    || claims.tenant.is_none()
                    || claims.worker.is_none()));
        if idle {
            return Err(refused(format!("{from}: with this key a worker may work on nothing"))
                .hint(
                    "Mint one with --tenant, --worker and --topic; `cogo token inspect` reads it.",
                )
                .into());
        }
        if claims.role == Role::ServiceRole {
            note(
                "Warning: this key may do everything, in every tenant. `cogo token mint` makes one for a worker.",
            );
        }
        let left = claims.exp.saturating_sub(now.timestamp());
        if left < SOON_S {
            let hours = left.max(0) / 3600;
            note(&format!(
                "Warning: the key expires in {hours} h, and the worker stops working then."
            ));
        }
        Ok(())
    }

    /// The name for a worker of a role that the key is for: one key may serve several roles of a machine.
    pub(super) fn worker(&self, role: &str) -> Option<String> {
        let claims = self.claims.as_ref().filter(|claims| claims.role == Role::Authenticated)?;
        claims.worker.as_ref().map(|worker| format!("{worker}.{role}"))
    }
}
