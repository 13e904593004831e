//! The keys with which values are sealed: from the environment, and never shown.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::{SecureRandom as _, SystemRandom};
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};

/// The variable that holds the keys.
pub const VARIABLE: &str = "COGO_ENV_KEY";
/// What AES-256 takes.
const KEY_BYTES: usize = 32;
/// Each is tried at no value but its own; more than this is a mistake in the variable.
const MAX_KEYS: usize = 16;

/// Why there are no keys to work with. Never holds any of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The variable is not set, or empty.
    #[error(
        "{VARIABLE} is not set: it holds the key that RemoteEnv is sealed with; `cogo env keygen` makes one"
    )]
    Missing,
    /// The variable is no text.
    #[error("{VARIABLE}: is no text")]
    NotText,
    /// One of the keys is no base64.
    #[error("{VARIABLE}: key {at} is no base64; `cogo env keygen` makes a key")]
    NotBase64 {
        /// Which, beginning with 1.
        at: usize,
    },
    /// One of the keys is of the wrong length.
    #[error(
        "{VARIABLE}: key {at} has {bytes} bytes, and must have {KEY_BYTES}; `cogo env keygen` makes a key"
    )]
    Length {
        /// Which, beginning with 1.
        at: usize,
        /// How long it is.
        bytes: usize,
    },
    /// A key stands there twice, or two have the same id.
    #[error("{VARIABLE}: keys {first} and {second} are the same")]
    Twice {
        /// Which, beginning with 1.
        first: usize,
        /// And which.
        second: usize,
    },
    /// There are too many.
    #[error("{VARIABLE}: has more than {MAX_KEYS} keys")]
    TooMany,
}

/// One key.
pub(super) struct Key {
    bytes: Zeroizing<[u8; KEY_BYTES]>,
    id: String,
}

impl Key {
    pub(super) fn bytes(&self) -> &[u8; KEY_BYTES] {
        &self.bytes
    }

    /// The first 8 hexadecimal digits of the key's SHA-256.
    pub(super) fn id(&self) -> &str {
        &self.id
    }
}

/// Keys, of which the first seals and all open. Cheap to clone; shows the keys' ids alone.
#[derive(Clone)]
pub struct Keyring(Arc<[Key]>);

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Keyring").field(&self.ids()).finish()
    }
}

impl Keyring {
    /// Reads keys from a text as `COGO_ENV_KEY` has it.
    ///
    /// # Errors
    /// Says which key is wrong, and how.
    pub fn parse(text: &SecretString) -> Result<Self, KeyError> {
        let mut keys: Vec<Key> = Vec::new();
        let parts = text.expose_secret().split(',').map(str::trim).filter(|part| !part.is_empty());
        for (at, part) in (1..).zip(parts) {
            let bytes = STANDARD.decode(part).map_err(|_| KeyError::NotBase64 { at })?;
            let bytes = Zeroizing::new(bytes);
            let sized = <[u8; KEY_BYTES]>::try_from(bytes.as_slice());
            let sized = sized.map_err(|_| KeyError::Length { at, bytes: bytes.len() })?;
            let key = Key { id: id_of(&sized), bytes: Zeroizing::new(sized) };
            if let Some(first) = keys.iter().position(|other| other.id == key.id) {
                return Err(KeyError::Twice { first: first + 1, second: at });
            }
            keys.push(key);
        }
        match keys.len() {
            0 => Err(KeyError::Missing),
            1..=MAX_KEYS => Ok(Self(keys.into())),
            _ => Err(KeyError::TooMany),
        }
    }

    /// Reads the keys of this process' environment.
    ///
    /// # Errors
    /// As [`Keyring::parse`], and when there are none.
    pub fn from_env() -> Result<Self, KeyError> {
        match std::env::var(VARIABLE) {
            Ok(text) => Self::parse(&text.into()),
            Err(std::env::VarError::NotPresent) => Err(KeyError::Missing),
            Err(std::env::VarError::NotUnicode(_)) => Err(KeyError::NotText),
        }
    }

    /// What names the keys, in their order.
    #[must_use]
    pub fn ids(&self) -> Vec<&str> {
        self.0.iter().map(|key| key.id.as_str()).collect()
    }

    /// The one that seals.
    pub(super) fn first(&self) -> &Key {
        &self.0[0] // there is one: see parse
    }

    pub(super) fn get(&self, id: &str) -> Option<&Key> {
        self.0.iter().find(|key| key.id == id)
    }
}

fn id_of(key: &[u8; KEY_BYTES]) -> String {
    let digest = Sha256::digest(key);
    digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

/// A new key, in base64; none when the system has no randomness to give.
#[must_use]
pub fn generate() -> Option<SecretString> {
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    SystemRandom::new().fill(key.as_mut_slice()).ok()?;
    Some(STANDARD.encode(key.as_slice()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_key_is_said_without_the_key() {
        let good = generate().expect("randomness");
        let good = good.expose_secret();
        let short = STANDARD.encode([7; 16]);
        for (text, error) in [
            (String::new(), KeyError::Missing),
            (" , ".to_owned(), KeyError::Missing),
            ("hunter2!".to_owned(), KeyError::NotBase64 { at: 1 }),
            (format!("{good},{short}"), KeyError::Length { at: 2, bytes: 16 }),
            (format!("{good}, {good}"), KeyError::Twice { first: 1, second: 2 }),
        ] {
            let found = Keyring::parse(&text.clone().into()).expect_err("refused");
            assert_eq!(found, error);
            let told = format!("{found} {found:?}");
            assert!(!told.contains(good) && !told.contains("hunter2") && !told.contains(&short));
        }
    }

    #[test]
    fn keys_are_named_by_their_digest_and_not_shown() {
        let zeros = STANDARD.encode([0; 32]);
        let keys = Keyring::parse(&zeros.clone().into()).expect("a key");
        assert_eq!(keys.ids(), ["66687aad"]); // sha256 of 32 zero bytes
        assert_eq!(format!("{keys:?}"), r#"Keyring(["66687aad"])"#);
    }
}
