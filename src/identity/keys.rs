//! The secrets that sign and verify.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, crypto};
use rand::RngExt as _;

use crate::clock;
use crate::identity::encoded::Encoded;
use crate::identity::{Claims, Error};

/// The least that a secret may have: RFC 7518, section 3.2, asks for a key as long as the hash.
pub const MIN_SECRET_BYTES: usize = 32;
/// More secrets than any rotation needs; each costs a wrong token one more hash.
const MAX_SECRETS: usize = 16;
/// `{"alg":"HS256","typ":"JWT"}`, written as Supabase's tokens have it.
const HEADER: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9";

/// One or several secrets: the first signs, all verify, so that a new one can be put in front while tokens
/// of the old one are still about. Never printed.
#[derive(Clone)]
pub struct Keys(Arc<[Key]>);

struct Key {
    sign: EncodingKey,
    verify: DecodingKey,
}

/// Secrets that cannot be used; the secrets themselves are not told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSecret {
    /// There is none.
    #[error("holds no secret; `openssl rand -hex 32` makes one")]
    None,
    /// Only so many are taken.
    #[error("holds {0} secrets, and at most 16 are taken")]
    TooMany(usize),
    /// One of them can be guessed.
    #[error(
        "secret {number} has {bytes} bytes, and at least 32 are needed; `openssl rand -hex 32` makes one"
    )]
    TooShort {
        /// Which one, from 1.
        number: usize,
        /// How long it is.
        bytes: usize,
    },
}

/// A token that one of the secrets signed, and that is good now.
#[derive(Debug, Clone, PartialEq)]
pub struct Verified {
    /// What it says.
    pub claims: Claims,
    /// The token's own JSON, for `request.jwt.claims`.
    pub raw_json: Arc<str>,
    /// Which secret signed it: 0 is the one that signs now.
    pub key: usize,
}

/// A new secret: 256 random bits in hexadecimal.
#[must_use]
pub fn generate_secret() -> String {
    let bits: [u8; 32] = rand::rng().random();
    bits.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Keys {
    /// These secrets; the first one signs. Their bytes are the keys, as Supabase's are.
    ///
    /// # Errors
    /// When there is none, or one is too short to be a secret.
    pub fn new<S: AsRef<str>>(secrets: &[S]) -> Result<Self, InvalidSecret> {
        match secrets.len() {
            0 => return Err(InvalidSecret::None),
            n if n > MAX_SECRETS => return Err(InvalidSecret::TooMany(n)),
            _ => {}
        }
        let mut keys = Vec::with_capacity(secrets.len());
        for (number, secret) in (1..).zip(secrets) {
            let bytes = secret.as_ref().as_bytes();
            if bytes.len() < MIN_SECRET_BYTES {
                return Err(InvalidSecret::TooShort { number, bytes: bytes.len() });
            }
            keys.push(Key {
                sign: EncodingKey::from_secret(bytes),
                verify: DecodingKey::from_secret(bytes),
            });
        }
        Ok(Self(keys.into()))
    }

    /// Secrets with commas or line ends between them, as `COGO_JWT_SECRET` holds them.
    ///
    /// # Errors
    /// See [`Keys::new`].
    pub fn parse(list: &str) -> Result<Self, InvalidSecret> {
        let secrets: Vec<&str> =
            list.split([',', '\n']).map(str::trim).filter(|secret| !secret.is_empty()).collect();
        Self::new(&secrets)
    }

    /// How many secrets there are.
    #[must_use]
    #[allow(clippy::len_without_is_empty)] // there is always one
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// A token that says `claims`, signed with the first secret.
    #[must_use]
    pub fn mint(&self, claims: &Claims) -> String {
        let json = serde_json::to_string(claims).expect("claims are a JSON object");
        let signed = format!("{HEADER}.{}", URL_SAFE_NO_PAD.encode(json));
        let signature = crypto::sign(signed.as_bytes(), &self.0[0].sign, Algorithm::HS256)
            .expect("HMAC takes any key and any text");
        format!("{signed}.{signature}")
    }

    /// Which secret signed the token, however old it is.
    ///
    /// # Errors
    /// When it is no token of ours.
    pub fn signer(&self, token: &str) -> Result<usize, Error> {
        self.signer_of(&Encoded::read(token)?)
    }

    /// What a token says, if one of the secrets signed it and it is good now.
    ///
    /// # Errors
    /// Why it is not taken. The claims are looked at only once the signature is found good.
    pub fn verify(&self, token: &str) -> Result<Verified, Error> {
        self.verify_at(token, clock::utc_now())
    }

    /// The same, at a given time.
    ///
    /// # Errors
    /// See [`Keys::verify`].
    pub fn verify_at(&self, token: &str, now: DateTime<Utc>) -> Result<Verified, Error> {
        let encoded = Encoded::read(token)?;
        let key = self.signer_of(&encoded)?;
        let claims = encoded.claims()?;
        claims.check_time(now)?;
        Ok(Verified { claims, raw_json: encoded.json()?.into(), key })
    }

    fn signer_of(&self, encoded: &Encoded<'_>) -> Result<usize, Error> {
        let signed = encoded.signed.as_bytes();
        self.0
            .iter()
            .position(|key| {
                // An error is a signature that is no base64url.
                crypto::verify(encoded.signature, signed, &key.verify, Algorithm::HS256)
                    .unwrap_or(false)
            })
            .ok_or(Error::BadSignature)
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({} secrets)", self.0.len())
    }
}
