//! A token from its minting to the bus functions: what `identity` says that it may is what the SQL lets it.

use chrono::DateTime;
use cogo::identity::{Claims, Keys, Role};
use cogo::message::Topic;
use cogo::testing::TestDb;
use serde_json::json;

use crate::caller::Caller;

const NOW: i64 = 1_800_000_000;

fn claims(role: Role, tenant: Option<&str>, worker: Option<&str>, lists: [&[&str]; 2]) -> Claims {
    let mut claims = Claims::new(role, NOW + 60);
    claims.tenant = tenant.map(str::to_owned);
    claims.worker = worker.map(str::to_owned);
    let [topics, send] = lists
        .map(|list| list.iter().map(|text| text.parse().expect("a pattern")).collect::<Vec<_>>());
    (claims.topics, claims.send) = (topics, send);
    claims.rest.insert("aud".to_owned(), json!("authenticated"));
    claims
}

/// As a hub does it: the token's own JSON, once its signature is good.
fn caller(claims: &Claims) -> Caller {
    let keys = Keys::parse("0123456789abcdef0123456789abcdef").expect("a secret");
    let now = DateTime::from_timestamp(NOW, 0).expect("a time");
    let verified = keys.verify_at(&keys.mint(claims), now).expect("good");
    Caller::new(verified.claims.role.as_str(), Some(&verified.raw_json))
}

#[tokio::test]
async fn what_a_token_says_that_it_may_is_what_the_database_lets_it() {
    let db = TestDb::new().await;
    let tokens = [
        claims(Role::Authenticated, Some("acme"), Some("w"), [&["a/x"], &["b/*"]]),
        claims(Role::Authenticated, Some("acme"), Some("w"), [&["a/*", "b/y"], &[]]),
        claims(Role::Authenticated, Some("acme"), Some("w"), [&["*"], &["*"]]),
        claims(Role::Authenticated, Some("acme"), None, [&["*"], &["*"]]),
        claims(Role::Authenticated, Some("acme"), Some("w"), [&[], &[]]),
        claims(Role::Authenticated, None, Some("w"), [&["*"], &["*"]]),
        claims(Role::Anon, Some("acme"), Some("w"), [&["*"], &["*"]]),
        claims(Role::ServiceRole, None, None, [&[], &[]]),
    ];
    let (mut allowed, mut refused) = (0, 0);
    for claims in &tokens {
        let caller = caller(claims);
        for tenant in ["acme", "other"] {
            for text in ["a/x", "a/y", "b/y", "ab/x"] {
                let topic: Topic = text.parse().expect("a topic");
                let message = json!([{"tenant": tenant, "role": topic.role(), "service": topic.service(),
                    "intent": "x", "payload": {}}]);
                let sent =
                    caller.call(&db, &format!("select id from bus_enqueue('{message}')")).await;
                assert_eq!(
                    sent.is_ok(),
                    claims.may_send(tenant, &topic),
                    "{claims:?} {tenant} {text}"
                );
                for worker in ["w", "w.2", "w2", "v"] {
                    let sql = format!(
                        "select id from bus_claim('{worker}', array['{text}'], 0, 1000, '{tenant}')"
                    );
                    let claimed = caller.call(&db, &sql).await;
                    let may = claims.may_claim(tenant, &topic) && claims.may_be(worker);
                    assert_eq!(
                        claimed.is_ok(),
                        may,
                        "{claims:?} {tenant} {text} {worker}: {claimed:?}"
                    );
                    match claimed {
                        Ok(_) => allowed += 1,
                        Err(no) => {
                            assert!(["CG403", "42501"].contains(&no.state.as_str()), "{no:?}");
                            refused += 1;
                        }
                    }
                }
            }
        }
    }
    assert!(allowed > 30 && refused > 100, "{allowed} allowed, {refused} refused");
}
