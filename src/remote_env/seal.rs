//! One value: sealed for its place, and opened there alone.
//!
//! AES-256-GCM. The nonce is 96 random bits: with one key some 2^32 values may be sealed before two of the same become
//! likelier than one in 2^32, and nobody sets that many. Tenant, name, version and key are associated data, so that a
//! ciphertext opens in its own row alone: not under another name or tenant, and not under the version of another time.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretString};

use crate::bus::env::Sealed;
use crate::remote_env::key::{Key, Keyring};

/// Why a value cannot be opened. Never holds any of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// It was sealed with a key that is not among ours.
    #[error(
        "is sealed with key {key_id}, which COGO_ENV_KEY of this process does not have (it has {known})"
    )]
    UnknownKey {
        /// The key's id.
        key_id: String,
        /// The ids of ours.
        known: String,
    },
    /// It is not what was sealed for this tenant, name and version.
    #[error(
        "was tampered with: it is not what was sealed for this tenant, name and version; set it again"
    )]
    Tampered,
}

/// The system has no randomness to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no random bytes")]
pub struct NoRandomness;

/// Seals `value` for its place.
pub(super) fn seal(
    keys: &Keyring,
    tenant: &str,
    name: &str,
    version: i64,
    value: &SecretString,
) -> Result<Sealed, NoRandomness> {
    let key = keys.first();
    let mut nonce = [0; NONCE_LEN];
    SystemRandom::new().fill(&mut nonce).map_err(|_| NoRandomness)?;
    // With all the room from the start: what grows leaves copies of the value behind.
    let value = value.expose_secret().as_bytes();
    let mut text = Zeroizing::new(Vec::with_capacity(value.len() + AES_256_GCM.tag_len()));
    text.extend_from_slice(value);
    let place = Aad::from(place(tenant, name, version, key.id()));
    let nonce_once = Nonce::assume_unique_for_key(nonce);
    // It fails for texts of 64 GiB.
    cipher(key)
        .seal_in_place_append_tag(nonce_once, place, &mut *text)
        .map_err(|_| NoRandomness)?;
    let mut all = nonce.to_vec();
    all.extend_from_slice(&text);
    Ok(Sealed {
        name: name.to_owned(),
        version,
        ciphertext: STANDARD.encode(all),
        key_id: key.id().to_owned(),
    })
}

/// Opens what was sealed for `tenant`, and for the name and version that it comes with.
pub(super) fn open(
    keys: &Keyring,
    tenant: &str,
    sealed: &Sealed,
) -> Result<SecretString, OpenError> {
    let Some(key) = keys.get(&sealed.key_id) else {
        let (key_id, known) = (sealed.key_id.clone(), keys.ids().join(", "));
        return Err(OpenError::UnknownKey { key_id, known });
    };
    let all = STANDARD.decode(&sealed.ciphertext).map_err(|_| OpenError::Tampered)?;
    let (nonce, rest) = all.split_first_chunk::<NONCE_LEN>().ok_or(OpenError::Tampered)?;
    let mut text = Zeroizing::new(rest.to_vec());
    let place = Aad::from(place(tenant, &sealed.name, sealed.version, key.id()));
    let nonce = Nonce::assume_unique_for_key(*nonce);
    let opened = cipher(key)
        .open_in_place(nonce, place, text.as_mut_slice())
        .map_err(|_| OpenError::Tampered)?;
    let text = std::str::from_utf8(opened).map_err(|_| OpenError::Tampered)?;
    Ok(SecretString::from(text))
}

fn cipher(key: &Key) -> LessSafeKey {
    let key = UnboundKey::new(&AES_256_GCM, key.bytes()).expect("a key has 32 bytes");
    LessSafeKey::new(key)
}

/// Tenants, names and ids hold no line break, so that no two places give the same text.
fn place(tenant: &str, name: &str, version: i64, key_id: &str) -> String {
    format!("cogo remote_env 1\n{tenant}\n{name}\n{version}\n{key_id}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote_env::key::generate;

    fn keys() -> Keyring {
        Keyring::parse(&generate().expect("randomness")).expect("a key")
    }

    #[test]
    fn a_value_opens_in_its_own_place_alone() {
        let keys = keys();
        let value = SecretString::from("hunter2-\u{1f511}");
        let sealed = seal(&keys, "acme", "TOKEN", 7, &value).expect("sealed");
        let opened = open(&keys, "acme", &sealed).expect("opened");
        assert_eq!(opened.expose_secret(), value.expose_secret());
        let wrong = [
            ("other", sealed.clone()),
            ("acme", Sealed { name: "TOKEN2".to_owned(), ..sealed.clone() }),
            ("acme", Sealed { version: 8, ..sealed.clone() }),
            ("acme", Sealed { version: 6, ..sealed.clone() }),
        ];
        for (tenant, moved) in wrong {
            assert_eq!(open(&keys, tenant, &moved).expect_err("refused"), OpenError::Tampered);
        }
    }

    #[test]
    fn every_bit_of_a_sealed_value_counts() {
        let keys = keys();
        let sealed = seal(&keys, "t", "A", 1, &"xy".into()).expect("sealed");
        let bytes = STANDARD.decode(&sealed.ciphertext).expect("base64");
        assert_eq!(bytes.len(), 12 + 2 + 16);
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let changed = Sealed { ciphertext: STANDARD.encode(bytes), ..sealed.clone() };
            assert_eq!(open(&keys, "t", &changed).expect_err("refused"), OpenError::Tampered);
        }
        for cut in 0..bytes.len() {
            let cut = Sealed { ciphertext: STANDARD.encode(&bytes[..cut]), ..sealed.clone() };
            assert_eq!(open(&keys, "t", &cut).expect_err("refused"), OpenError::Tampered);
        }
    }

    #[test]
    fn all_keys_open_and_the_first_seals() {
        let (old, new) = (generate().expect("a key"), generate().expect("a key"));
        let ring = |text: String| Keyring::parse(&text.into()).expect("keys");
        let (old, new) = (old.expose_secret().to_owned(), new.expose_secret().to_owned());
        let sealed = seal(&ring(old.clone()), "t", "A", 1, &"value".into()).expect("sealed");
        let both = ring(format!("{new},{old}"));
        assert_eq!(open(&both, "t", &sealed).expect("opened").expose_secret(), "value");
        let again = seal(&both, "t", "A", 2, &"value".into()).expect("sealed");
        assert_eq!(again.key_id, ring(new.clone()).ids()[0]);
        let error = open(&ring(new), "t", &sealed).expect_err("refused");
        assert!(matches!(error, OpenError::UnknownKey { .. }), "{error:?}");
        assert!(error.to_string().contains(&sealed.key_id), "{error}");
    }

    #[test]
    fn an_empty_value_is_one_and_two_seals_differ() {
        let keys = keys();
        let seal = || seal(&keys, "t", "A", 1, &"".into()).expect("sealed");
        assert_eq!(open(&keys, "t", &seal()).expect("opened").expose_secret(), "");
        assert_ne!(seal().ciphertext, seal().ciphertext);
    }
}
