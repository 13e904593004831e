//! RemoteEnv over the API: names come out, values only go in.

use anyhow::Result;
use axum::body::Body;
use cogo::remote_env::{ExposeSecret as _, Found, KeyError, Keyring, RemoteEnv, generate};
use cogo::shutdown::Tasks;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::hub::{Answer, Setup, TOKEN, TestHub, request};

const VALUE: &str = "hunter2-of-the-api";

fn keys() -> Keyring {
    Keyring::parse(&generate().expect("randomness")).expect("a key")
}

async fn hub(keys: &Keyring) -> Result<TestHub> {
    TestHub::with(Setup { env_keys: Ok(keys.clone()), ..Setup::default() }).await
}

/// With the admin token.
async fn send(hub: &TestHub, method: &str, path: &str, body: Option<Value>) -> Result<Answer> {
    let request = request(method, path)
        .header("x-admin-token", TOKEN)
        .header("content-type", "application/json");
    let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
    hub.send(request.body(body)?).await
}

#[tokio::test]
async fn a_value_is_set_listed_without_it_read_by_whoever_has_the_key_and_unset() -> Result<()> {
    let keys = keys();
    let hub = hub(&keys).await?;
    let body = json!({"value": VALUE});
    let set = send(&hub, "PUT", "/api/env/FIGMA_TOKEN?tenant=acme", Some(body)).await?;
    assert_eq!(
        set.json()?,
        json!({"ok": true, "tenant": "acme", "name": "FIGMA_TOKEN", "version": 1, "key_id": keys.ids()[0]})
    );
    let listed = send(&hub, "GET", "/api/env?tenant=acme", None).await?;
    let json = listed.json()?;
    assert_eq!((&json["revision"], &json["key_ids"]), (&json!(1), &json!(keys.ids())));
    let name = &json["names"][0];
    assert_eq!((&name["name"], &name["version"]), (&json!("FIGMA_TOKEN"), &json!(1)));
    assert_eq!(
        (&name["key_id"], &name["updated_by"]),
        (&json!(keys.ids()[0]), &json!("hub-admin"))
    );
    assert!(!set.text.contains(VALUE) && !listed.text.contains(VALUE));
    assert_eq!(send(&hub, "GET", "/api/env", None).await?.json()?["names"], json!([]));

    let (tasks, stop) = (Tasks::new(), CancellationToken::new());
    let env = RemoteEnv::start(hub.bus.clone(), "acme", Ok(keys), &tasks, stop.clone());
    env.want(["FIGMA_TOKEN".to_owned()]);
    env.settled().await;
    let Found::Value(value) = env.get("FIGMA_TOKEN") else { panic!("it is there") };
    assert_eq!(value.expose_secret(), VALUE);
    stop.cancel();

    let gone = send(&hub, "DELETE", "/api/env/FIGMA_TOKEN?tenant=acme", None).await?;
    assert_eq!(gone.json()?, json!({"ok": true, "tenant": "acme", "name": "FIGMA_TOKEN"}));
    let again = send(&hub, "DELETE", "/api/env/FIGMA_TOKEN?tenant=acme", None).await?;
    again.error(404, "not_found")?;
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_set_is_refused_by_field_without_the_value() -> Result<()> {
    let hub = hub(&keys()).await?;
    let long = VALUE.repeat(65_536 / VALUE.len() + 1);
    for (path, body, status, code, start) in [
        ("/api/env/figma", json!({"value": VALUE}), 400, "invalid_argument", "name: "),
        ("/api/env/COGO_ADMIN_TOKEN", json!({"value": VALUE}), 400, "invalid_argument", "name: "),
        ("/api/env/DATABASE_URL", json!({"value": VALUE}), 400, "invalid_argument", "name: "),
        ("/api/env/A?tenant=a/b", json!({"value": VALUE}), 400, "invalid_argument", "tenant: "),
        ("/api/env/A?tennant=a", json!({"value": VALUE}), 400, "invalid_argument", "query: "),
        ("/api/env/A", json!({"value": [VALUE]}), 400, "invalid_argument", "value: "),
        ("/api/env/A", json!({"value": 2_718_281}), 400, "invalid_argument", "value: "),
        ("/api/env/A", json!({}), 400, "invalid_argument", "body: "),
        ("/api/env/A", json!({"value": VALUE, "x": 1}), 400, "invalid_argument", "x: "),
        ("/api/env/A", json!({"value": format!("{VALUE}\0")}), 400, "invalid_argument", "value: "),
        ("/api/env/A", json!({"value": long}), 413, "payload_too_large", "value: "),
    ] {
        let answer = send(&hub, "PUT", path, Some(body)).await?;
        let message = answer.error(status, code)?;
        assert!(message.starts_with(start), "{path}: {message}");
        assert!(!answer.text.contains("hunter2") && !answer.text.contains("2718281"), "{answer:?}");
    }
    assert_eq!(hub.written().await?.1, 0, "nothing was changed");
    Ok(())
}

#[tokio::test]
async fn without_a_key_the_hub_says_what_to_do_and_without_the_token_it_says_nothing() -> Result<()>
{
    let hub = TestHub::new().await?;
    let answer = send(&hub, "PUT", "/api/env/A", Some(json!({"value": VALUE}))).await?;
    let message = answer.error(409, "conflict")?;
    assert!(message.contains("COGO_ENV_KEY is not set") && message.contains("keygen"), "{message}");
    assert_eq!(send(&hub, "GET", "/api/env", None).await?.json()?["key_ids"], json!([]));
    // Reads are open on loopback; these are not.
    hub.get("/api/env").await?.error(401, "unauthorized")?;
    for method in ["PUT", "DELETE"] {
        let request = request(method, "/api/env/A").header("content-type", "application/json");
        let answer = hub.send(request.body(json!({"value": VALUE}).to_string().into())?).await?;
        answer.error(401, "unauthorized")?;
        assert!(!answer.text.contains(VALUE));
    }
    assert!(matches!(Keyring::parse(&"".into()), Err(KeyError::Missing)));
    Ok(())
}
