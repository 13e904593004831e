//! Artifacts by way of a hub, with the key of the bus.

use cogo::artifact::{Digest, Error};
use cogo::error::Code;
use cogo::identity::Role;

use super::setting::{Setting, Way, remote};

#[tokio::test]
async fn a_worker_keeps_artifacts_at_its_hub() {
    let s = Setting::new(Way::Token).await;
    assert!(s.admin.artifacts().is_none(), "a database is no place for them");
    let store = s.bus.artifacts().expect("the hub's");
    let bytes = vec![9; 6 << 20];
    let kept = store.put("default", bytes.clone(), "image/png").await.expect("kept");
    let found = store.get("default", kept.sha256).await.expect("there");
    assert_eq!((found.mime.as_str(), found.bytes), ("image/png", bytes));
    let missing = store.get("default", Digest::of(b"absent")).await;
    assert!(matches!(missing, Err(Error::Missing { .. })), "{missing:?}");
    let refused = store.put("other", b"x".to_vec(), "text/plain").await;
    assert!(matches!(refused, Err(Error::Hub { code: Code::Forbidden, .. })), "{refused:?}");
    let large = store.put("default", vec![0; (32 << 20) + 1], "text/plain").await;
    assert_eq!(large.expect_err("too large").code(), Code::PayloadTooLarge);
    let other = s.hub.key(Role::Authenticated, |claims| {
        claims.tenant = Some("other".to_owned());
        claims.worker = Some("w".to_owned());
    });
    let other = remote(&s.hub.url(), &other).artifacts().expect("the hub's");
    let refused = other.get("default", kept.sha256).await;
    assert!(matches!(refused, Err(Error::Hub { code: Code::Forbidden, .. })), "{refused:?}");
}
