//! Tokens as they are sent: whole, changed, stale, forged.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};

use super::*;
use crate::message::Topic;

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const OTHER: &str = "fedcba9876543210fedcba9876543210";
/// The secret that a local Supabase has unless it is told another one.
const SUPABASE: &str = "super-secret-jwt-token-with-at-least-32-characters-long";
const NOW: i64 = 1_800_000_000;

fn keys(secrets: &[&str]) -> Keys {
    Keys::new(secrets).expect("secrets")
}

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(seconds, 0).expect("a time")
}

/// Signs what no honest minter would.
fn signed(header: &Value, payload: &str) -> String {
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let signed = format!("{}.{}", part(&header.to_string()), part(payload));
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes());
    let signature =
        jsonwebtoken::crypto::sign(signed.as_bytes(), &key, jsonwebtoken::Algorithm::HS256)
            .expect("a signature");
    format!("{signed}.{signature}")
}

fn verified(payload: &str) -> Result<Verified, Error> {
    keys(&[SECRET]).verify_at(&signed(&json!({"alg": "HS256"}), payload), at(NOW))
}

fn laptop() -> Claims {
    let mut claims = Claims::new(Role::Authenticated, NOW + 60);
    claims.iat = Some(NOW);
    claims.tenant = Some("acme".to_owned());
    claims.worker = Some("laptop-1".to_owned());
    claims.topics = vec!["mcp-gateway/figma".parse().expect("a pattern")];
    claims.send = vec!["echo/*".parse().expect("a pattern")];
    claims
}

#[test]
fn a_minted_token_is_taken_and_says_what_it_was_made_to_say() {
    let mut claims = laptop();
    claims.rest.insert("app_metadata".to_owned(), json!({"plan": [1, "two", null]}));
    let token = keys(&[SECRET]).mint(&claims);
    let verified = keys(&[SECRET]).verify_at(&token, at(NOW)).expect("good");
    assert_eq!((&verified.claims, verified.key), (&claims, 0));
    assert_eq!(peek(&token), Ok(claims));
    // As it would arrive in a header by hand.
    assert!(keys(&[SECRET]).verify_at(&format!(" {token}\n"), at(NOW)).is_ok());
}

#[test]
fn the_tokens_own_json_is_given_on_unchanged() {
    let payload = r#"{ "exp":1800000060.5,"n":1e400, "role":"anon","aud":["authenticated"] ,"n2":12345678901234567890123}"#;
    // 1e400 is no number that serde_json reads: not taken, rather than taken for something else.
    assert_eq!(
        verified(payload).map(|_| ()),
        Err(Error::Malformed { why: "its payload is no JSON object" })
    );
    let payload = payload.replace("1e400", "1.50");
    let verified = verified(&payload).expect("good");
    assert_eq!(&*verified.raw_json, payload);
    assert_eq!(verified.claims.exp, NOW + 60);
    assert_eq!(verified.claims.rest["aud"], json!(["authenticated"]));
}

#[test]
fn supabases_own_tokens_are_taken() {
    // From recorded traffic of supabase-js and supabase-py, whose keys a local Supabase's secret signed.
    const HEADER: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9";
    let anon = "eyJpc3MiOiJjb2dvLWh1YiIsInJvbGUiOiJhbm9uIiwiaWF0IjoxNzAwMDAwMDAwLCJleHAiOjQxMDI0NDQ4MDB9.2kWENEOIafQEc6CzLtU5n_LMKE6NkcuOzWXBo68LfbY";
    let user = "eyJpc3MiOiJjb2dvLWh1YiIsInJvbGUiOiJhdXRoZW50aWNhdGVkIiwic3ViIjoiMTExMTExMTEtMTExMS00MTExLTgxMTEtMTExMTExMTExMTExIiwiaWF0IjoxNzAwMDAwMDAwLCJleHAiOjQxMDI0NDQ4MDB9.zzXn-_Jtm_t_k5ZCUk2fXJjEdWkGARLZi9nqhvgRpVc";
    let service = "eyJpc3MiOiJjb2dvLWh1YiIsInJvbGUiOiJzZXJ2aWNlX3JvbGUiLCJpYXQiOjE3MDAwMDAwMDAsImV4cCI6NDEwMjQ0NDgwMH0.Ki0dlX_g1_1p-7SLHWbjGTKDOGZrNTbxttr6Rjmjrh0";
    for (rest, role) in
        [(anon, Role::Anon), (user, Role::Authenticated), (service, Role::ServiceRole)]
    {
        let verified = keys(&[SUPABASE]).verify_at(&format!("{HEADER}.{rest}"), at(NOW));
        let claims = verified.expect("good").claims;
        assert_eq!((claims.role, claims.exp), (role, 4_102_444_800));
        assert_eq!(claims.iss.as_deref(), Some("cogo-hub"));
        // The same token again, bit by bit.
        let mut like = Claims::new(role, claims.exp);
        like.iss.clone_from(&claims.iss);
        assert_eq!(peek(&keys(&[SECRET]).mint(&like)), Ok(like));
    }
}

#[test]
fn keys_rotate_with_overlap() {
    let [old, new] = [SECRET, OTHER];
    let token = keys(&[old]).mint(&laptop());
    for (secrets, found) in [
        (&[old][..], Ok(0)),
        (&[new, old], Ok(1)),
        (&[old, new], Ok(0)),
        (&[new], Err(Error::BadSignature)),
    ] {
        assert_eq!(keys(secrets).verify_at(&token, at(NOW)).map(|good| good.key), found);
        assert_eq!(keys(secrets).signer(&token), found);
    }
    assert_eq!(
        keys(&[old]).verify_at(&keys(&[new, old]).mint(&laptop()), at(NOW)).map(|_| ()),
        Err(Error::BadSignature)
    );
}

#[test]
fn secrets_are_read_with_their_separators_and_refused_by_number() {
    assert_eq!(Keys::parse(&format!(" {SECRET} ,\n{OTHER}\n,")).expect("two").len(), 2);
    assert_eq!(generate_secret().len(), 64);
    assert_ne!(generate_secret(), generate_secret());
    for (list, why) in [
        ("", InvalidSecret::None),
        (" , \n", InvalidSecret::None),
        ("short", InvalidSecret::TooShort { number: 1, bytes: 5 }),
        (&format!("{SECRET},{}", &OTHER[1..]), InvalidSecret::TooShort { number: 2, bytes: 31 }),
        (&[SECRET; 17].join(","), InvalidSecret::TooMany(17)),
    ] {
        let refused = Keys::parse(list).expect_err("refused");
        assert_eq!(refused, why);
        assert!(list.is_empty() || !refused.to_string().contains(list.trim_matches(',')));
    }
    assert_eq!(format!("{:?}", keys(&[SECRET, OTHER])), "Keys(2 secrets)");
}

#[test]
fn no_other_algorithm_is_taken_whatever_its_signature() {
    let payload = format!(r#"{{"role":"service_role","exp":{}}}"#, NOW + 60);
    for (alg, found) in [
        (json!("none"), "none"),
        (json!("None"), "none"),
        (json!("nOnE"), "none"),
        (json!("HS384"), "HS384"),
        (json!("RS256"), "RS256"),
        (json!("ES256"), "ES256"),
        (json!("hs256"), "something else"),
        (json!("HS256\u{0}"), "something else"),
        (json!(""), "something else"),
        (json!(["HS256"]), "something else"),
        (Value::Null, "something else"),
    ] {
        let token = signed(&json!({"alg": alg}), &payload);
        let (unsigned, _) = token.rsplit_once('.').expect("a signature");
        for token in [token.clone(), format!("{unsigned}.")] {
            let refused = keys(&[SECRET]).verify_at(&token, at(NOW)).map(|_| ());
            assert_eq!(refused, Err(Error::WrongAlgorithm { found }), "{alg}");
        }
    }
    let odd = signed(&json!({"alg": "HS256", "crit": ["b64"], "b64": false}), &payload);
    assert!(matches!(keys(&[SECRET]).verify_at(&odd, at(NOW)), Err(Error::Malformed { .. })));
    // A key of the sender's own is not looked at.
    let own = signed(
        &json!({"alg": "HS256", "jwk": {"kty": "oct", "k": "AAAA"}, "kid": "../x"}),
        &payload,
    );
    assert!(keys(&[SECRET]).verify_at(&own, at(NOW)).is_ok());
    assert!(matches!(keys(&[OTHER]).verify_at(&own, at(NOW)), Err(Error::BadSignature)));
}

#[test]
fn a_token_is_good_until_its_end_and_half_a_minute_more() {
    let claims = |nbf| Claims { nbf, ..Claims::new(Role::Anon, NOW) };
    let keys = keys(&[SECRET]);
    for (now, good) in [(-1000, true), (0, true), (29, true), (30, false), (31, false)] {
        let verified = keys.verify_at(&keys.mint(&claims(None)), at(NOW + now)).map(|_| ());
        assert_eq!(verified, if good { Ok(()) } else { Err(Error::Expired { seconds: now }) });
    }
    for (before, good) in [(60, false), (31, false), (30, true), (0, true)] {
        let claims = Claims { exp: NOW + 60, ..claims(Some(NOW)) };
        assert_eq!(keys.verify_at(&keys.mint(&claims), at(NOW - before)).is_ok(), good, "{before}");
    }
    for exp in [i64::MIN, -1, 0] {
        let token = keys.mint(&Claims::new(Role::Anon, exp));
        assert!(matches!(keys.verify_at(&token, at(NOW)), Err(Error::Expired { .. })), "{exp}");
    }
    assert!(keys.verify_at(&keys.mint(&Claims::new(Role::Anon, i64::MAX)), at(NOW)).is_ok());
    // The clock of this machine, too.
    let now = |exp| keys.verify(&keys.mint(&Claims::new(Role::Anon, exp))).map(|_| ());
    assert_eq!(now(i64::MAX), Ok(()));
    assert!(matches!(now(1_000_000_000), Err(Error::Expired { .. })));
}

#[test]
fn each_claim_that_is_missing_or_wrong_is_named() {
    let base = json!({"role": "authenticated", "exp": NOW + 60});
    for (claim, value, refused) in [
        ("role", Value::Null, Error::MissingClaim("role")),
        ("exp", Value::Null, Error::MissingClaim("exp")),
        ("role", json!("postgres"), bad("role")),
        ("role", json!("Service_role"), bad("role")),
        ("role", json!(["anon"]), bad("role")),
        ("exp", json!("1800000060"), bad("exp")),
        ("exp", json!(true), bad("exp")),
        ("iat", json!("now"), bad("iat")),
        ("nbf", json!([]), bad("nbf")),
        ("nbf", json!(NOW + 31), bad("nbf")),
        ("sub", json!(7), bad("sub")),
        ("iss", json!({}), bad("iss")),
        ("tenant", json!("*"), bad("tenant")),
        ("tenant", json!(""), bad("tenant")),
        ("tenant", json!("a:b"), bad("tenant")),
        ("tenant", json!(["a"]), bad("tenant")),
        ("worker", json!(""), bad("worker")),
        ("worker", json!("a\nb"), bad("worker")),
        ("worker", json!("w".repeat(256)), bad("worker")),
        ("topics", json!("*"), bad("topics")),
        ("topics", json!(["*", "a"]), bad("topics")),
        ("topics", json!([7]), bad("topics")),
        ("topics", json!(vec!["*"; 1001]), bad("topics")),
        ("send", json!({"*": true}), bad("send")),
    ] {
        let mut payload = base.clone();
        payload[claim] = value;
        let found = verified(&payload.to_string()).expect_err("refused");
        let same = match (found, refused) {
            (Error::BadClaim { name, .. }, Error::BadClaim { name: wanted, .. }) => name == wanted,
            (found, wanted) => found == wanted,
        };
        assert!(same, "{payload}: {found}");
        assert!(found.to_string().contains(&format!("{claim:?}")), "{found}");
    }
    // Absent, empty and null are the same; the order does not matter; the last of two counts, as in jsonb.
    for good in [
        format!(r#"{{"exp":{},"role":"anon","tenant":null,"topics":null,"iat":null}}"#, NOW + 1),
        format!(r#"{{"role":"service_role","exp":{},"role":"anon","topics":[]}}"#, NOW + 1),
    ] {
        assert_eq!(verified(&good).expect("good").claims, Claims::new(Role::Anon, NOW + 1));
    }
}

fn bad(name: &'static str) -> Error {
    Error::BadClaim { name, rule: "" }
}

#[test]
fn what_is_no_token_is_told_apart_and_never_repeated() {
    let token = keys(&[SECRET]).mint(&laptop());
    let [header, payload, signature] =
        token.split('.').collect::<Vec<_>>().try_into().expect("three parts");
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let no_utf8 = format!("{header}.{}.{signature}", URL_SAFE_NO_PAD.encode([0xff, 0xfe]));
    for (bad, kind) in [
        (String::new(), "Missing"),
        (" \n".to_owned(), "Missing"),
        ("sb_publishable_abc".to_owned(), "OpaqueKey"),
        ("sb_secret_a.b.c".to_owned(), "OpaqueKey"),
        ("hunter2hunter2".to_owned(), "Malformed"),
        (format!("{header}.{payload}"), "Malformed"),
        (format!("{token}.{payload}"), "Malformed"),
        (format!("Bearer {token}"), "Malformed"),
        ("..".to_owned(), "Malformed"),
        (format!("{}.{payload}.{signature}", part("{")), "Malformed"),
        (format!("{}.{payload}.{signature}", part("[]")), "Malformed"),
        (format!("{header}.{}.{signature}", "e".repeat(MAX_TOKEN_BYTES)), "Malformed"),
        (format!("{header}.{payload}."), "BadSignature"),
        (format!("{header}.{payload}.{signature}="), "BadSignature"),
        (format!("{header}.{payload}.ü"), "BadSignature"),
        (format!("{header}.{}.{signature}", part("{}")), "BadSignature"),
        (no_utf8, "BadSignature"),
    ] {
        let refused = keys(&[SECRET]).verify_at(&bad, at(NOW)).expect_err("refused");
        assert!(format!("{refused:?}").starts_with(kind), "{bad}: {refused:?}");
        let said = refused.to_string();
        for part in bad.split('.').filter(|part| part.len() > 8) {
            assert!(!said.contains(part), "{said}");
        }
    }
    for payload in ["[]", "7", "null", "", "{\"role\":", &format!("{}1", "[".repeat(5000))] {
        let refused = verified(payload).map(|_| ());
        assert!(matches!(refused, Err(Error::Malformed { .. })), "{payload:.20}: {refused:?}");
    }
}

#[test]
fn a_token_with_any_character_changed_is_refused() {
    let keys = keys(&[SECRET]);
    let token = keys.mint(&laptop());
    let mut rng = StdRng::seed_from_u64(7);
    for at_byte in 0..token.len() {
        for _ in 0..4 {
            let mut bytes = token.clone().into_bytes();
            let new = *b"ABCXYZabcxyz0189-_.".choose(&mut rng).expect("one");
            if std::mem::replace(&mut bytes[at_byte], new) == new {
                continue;
            }
            let changed = String::from_utf8(bytes).expect("ASCII");
            assert!(keys.verify_at(&changed, at(NOW)).is_err(), "byte {at_byte}: {changed}");
        }
    }
}

#[test]
fn claims_survive_being_minted_whatever_they_are() {
    let mut rng = StdRng::seed_from_u64(11);
    let keys = keys(&[SECRET]);
    let patterns = ["*", "a/*", "a/b", "mcp-gateway/figma"];
    for _ in 0..300 {
        let roles = [Role::Anon, Role::Authenticated, Role::ServiceRole];
        let mut claims = Claims::new(*roles.choose(&mut rng).expect("one"), rng.random());
        let mut maybe = |text: &str| rng.random_bool(0.5).then(|| text.to_owned());
        claims.tenant = maybe("acme");
        claims.worker = maybe("Büro \"1\" \\ \u{2028}");
        claims.sub = maybe("");
        claims.iss = maybe("https://x/auth/v1");
        claims.iat = rng.random_bool(0.5).then(|| rng.random());
        claims.topics = (0..rng.random_range(0..4))
            .map(|_| patterns.choose(&mut rng).expect("one").parse().expect("a pattern"))
            .collect();
        claims.send.clone_from(&claims.topics);
        claims.rest.insert("aud".to_owned(), json!("authenticated"));
        let token = keys.mint(&claims);
        assert_eq!(keys.signer(&token), Ok(0));
        assert_eq!(peek(&token), Ok(claims));
    }
}

#[test]
fn what_a_token_may_follows_from_role_tenant_topics_and_name() {
    let topic = |text: &str| text.parse::<Topic>().expect("a topic");
    let (figma, browser, echo) =
        (topic("mcp-gateway/figma"), topic("mcp-gateway/browser"), topic("echo/x"));
    let laptop = laptop();
    for (tenant, topic, claim, send) in [
        ("acme", &figma, true, false),
        ("acme", &browser, false, false),
        ("acme", &echo, false, true),
        ("other", &figma, false, false),
        ("other", &echo, false, false),
    ] {
        let found = (laptop.may_claim(tenant, topic), laptop.may_send(tenant, topic));
        assert_eq!(found, (claim, send), "{tenant} {topic}");
        assert_eq!(laptop.may_read(tenant, topic), claim || send, "{tenant} {topic}");
        let as_role = |role| Claims { role, ..laptop.clone() };
        assert!(!as_role(Role::Anon).may_read(tenant, topic));
        assert!(as_role(Role::ServiceRole).may_claim(tenant, topic));
        let homeless = Claims { tenant: None, ..laptop.clone() };
        assert!(!homeless.may_read(tenant, topic) && !homeless.may_claim(tenant, topic));
    }
    for (name, may) in [
        ("laptop-1", true),
        ("laptop-1.2", true),
        ("laptop-1.a.b", true),
        ("laptop-1.", true),
        ("laptop-12", false),
        ("laptop-1x.2", false),
        ("laptop", false),
        ("x.laptop-1", false),
        ("", false),
    ] {
        assert_eq!(laptop.may_be(name), may, "{name}");
        assert!(!Claims { worker: None, ..laptop.clone() }.may_be(name));
        assert!(Claims { role: Role::ServiceRole, ..laptop.clone() }.may_be(name));
        assert!(!Claims { role: Role::Anon, ..laptop.clone() }.may_be(name));
    }
}
