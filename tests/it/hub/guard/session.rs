//! What credentials allow.

use anyhow::Result;
use cogo::hub::Options;
use cogo::identity::{Claims, Keys, Role};
use serde_json::{Value, json};

use crate::hub::{SECRET, Setup, TOKEN, TestHub, request};

#[tokio::test]
async fn a_session_says_what_the_credentials_allow() -> Result<()> {
    let claims = Claims::new(Role::ServiceRole, cogo::clock::utc_now().timestamp() + 3600);
    let key = format!("Bearer {}", Keys::new(&[SECRET])?.mint(&claims));
    for open in [true, false] {
        let options = Options { open_reads: Some(open), ..Options::default() };
        let hub = TestHub::without_database(Setup { options, ..Setup::default() })?;
        for (shown, admin, wrong) in [
            (None, false, false),
            (Some(("x-admin-token", TOKEN)), true, false),
            (Some(("x-admin-token", "not-the-token")), false, true),
            (Some(("authorization", "Bearer a.b.c")), false, true),
            (Some(("authorization", key.as_str())), false, false),
        ] {
            let mut request = request("GET", "/api/session");
            if let Some((name, value)) = shown {
                request = request.header(name, value);
            }
            let answer = hub.bare(request).await?;
            assert_eq!(answer.status, 200);
            let mut wanted = json!({
                "ok": true, "admin": admin, "reads": admin || open, "open_reads": open,
                "version": env!("CARGO_PKG_VERSION"),
            });
            if wrong {
                wanted["token"] = json!("wrong");
            }
            assert_eq!(answer.json()?, wanted, "{shown:?}");
            assert!(!answer.text.contains(TOKEN));
        }
        hub.get("/api/session?token=x").await?.error(400, "invalid_argument")?;
    }
    Ok(())
}

/// What is answered is what is described.
#[tokio::test]
async fn the_description_of_a_session_is_exact() -> Result<()> {
    let described: Value =
        serde_json::from_str(include_str!("../../../../src/hub/openapi/session.json"))?;
    let schema = &described["components"]["schemas"]["Session"];
    let hub = TestHub::without_database(Setup::default())?;
    let wrong =
        hub.bare(request("GET", "/api/session").header("x-admin-token", "wrong")).await?.json()?;
    let named: Vec<&String> = wrong.as_object().expect("an object").keys().collect();
    let properties: Vec<&String> =
        schema["properties"].as_object().expect("properties").keys().collect();
    assert_eq!(named, properties, "with every field there is");
    assert_eq!(schema["additionalProperties"], false);
    let required: Vec<&str> =
        schema["required"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    assert_eq!(required, ["ok", "admin", "reads", "open_reads", "version"]);
    assert!(described["paths"]["/api/session"]["get"]["operationId"].is_string());
    Ok(())
}
