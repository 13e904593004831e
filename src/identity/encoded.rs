//! The three parts of a token (RFC 7515, section 3.1), before anything in it is believed.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use crate::identity::{Claims, Error, MAX_TOKEN_BYTES};

/// The algorithms that have a name (RFC 7518, section 3.1, and RFC 8037); another one is not repeated.
const KNOWN: [&str; 13] = [
    "HS384", "HS512", "RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384",
    "PS512", "EdDSA", "none",
];

/// A token, taken apart. Its header is sound, its signature was not looked at.
#[derive(Clone, Copy)]
pub(super) struct Encoded<'a> {
    /// What is signed: header and payload as they were sent.
    #[cfg_attr(not(feature = "hub"), allow(dead_code))]
    pub(super) signed: &'a str,
    payload: &'a str,
    #[cfg_attr(not(feature = "hub"), allow(dead_code))]
    pub(super) signature: &'a str,
}

fn malformed<T>(why: &'static str) -> Result<T, Error> {
    Err(Error::Malformed { why })
}

impl<'a> Encoded<'a> {
    pub(super) fn read(token: &'a str) -> Result<Self, Error> {
        let token = token.trim();
        if token.is_empty() {
            return Err(Error::Missing);
        }
        if token.starts_with("sb_") {
            return Err(Error::OpaqueKey);
        }
        if token.len() > MAX_TOKEN_BYTES {
            return malformed("it is longer than 16 KiB");
        }
        let mut parts = token.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return malformed("it is not three parts joined by dots");
        };
        check_header(header)?;
        Ok(Self { signed: &token[..header.len() + 1 + payload.len()], payload, signature })
    }

    /// The payload as it was signed.
    pub(super) fn json(&self) -> Result<String, Error> {
        match decode(self.payload).map(String::from_utf8) {
            Some(Ok(json)) => Ok(json),
            _ => malformed("its payload is not base64url of UTF-8"),
        }
    }

    pub(super) fn claims(&self) -> Result<Claims, Error> {
        Claims::try_from(object(&self.json()?, "its payload is no JSON object")?)
    }
}

fn check_header(header: &str) -> Result<(), Error> {
    const WHY: &str = "its header is not base64url of a JSON object";
    let Some(Ok(json)) = decode(header).map(String::from_utf8) else { return malformed(WHY) };
    let header = object(&json, WHY)?;
    // Before the signature, and by name: what an algorithm makes of a key is decided here, not there.
    let alg = header.get("alg").and_then(Value::as_str);
    if alg != Some("HS256") {
        let known =
            KNOWN.into_iter().find(|known| alg.is_some_and(|a| a.eq_ignore_ascii_case(known)));
        return Err(Error::WrongAlgorithm { found: known.unwrap_or("something else") });
    }
    // RFC 7515, section 4.1.11: who does not understand an extension named here must refuse the token.
    if header.contains_key("crit") {
        return malformed("its header has `crit`, and no extension is understood");
    }
    Ok(())
}

fn decode(part: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(part).ok()
}

fn object(json: &str, why: &'static str) -> Result<Map<String, Value>, Error> {
    serde_json::from_str(json).map_err(|_told_by_why| Error::Malformed { why })
}
