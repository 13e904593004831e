//! RemoteEnv, whichever way the bus is reached.

use cogo::bus::env::Sealed;
use cogo::error::Code;
use cogo::remote_env::{ExposeSecret as _, Found, Keyring, RemoteEnv, Store, generate};
use cogo::shutdown::Tasks;
use tokio_util::sync::CancellationToken;

use super::setting::{Setting, Way};
use crate::fixtures::{SOON, eventually};

fn keys() -> Keyring {
    Keyring::parse(&generate().expect("randomness")).expect("a key")
}

fn value(env: &RemoteEnv, name: &str) -> Option<String> {
    match env.get(name) {
        Found::Value(value) => Some(value.expose_secret().to_owned()),
        Found::NotYet | Found::None(_) => None,
    }
}

pub(super) async fn a_value_is_followed_as_it_is_set_changed_and_unset(s: Setting) {
    let keys = keys();
    let store = Store::new(s.admin.clone(), "default", keys.clone());
    assert_eq!(store.set("TOKEN", &"one".into(), "a test").await.expect("set"), 1);
    store.set("OTHER", &"nobody wants it".into(), "a test").await.expect("set");
    let (tasks, stop) = (Tasks::new(), CancellationToken::new());
    let env = RemoteEnv::start(s.bus.clone(), "default", Ok(keys), &tasks, stop.clone());
    env.want(["TOKEN".to_owned(), "MISSING".to_owned()]);
    assert!(matches!(env.get("TOKEN"), Found::NotYet));
    tokio::time::timeout(SOON, env.settled()).await.expect("it is read");
    assert_eq!(value(&env, "TOKEN").as_deref(), Some("one"));
    assert!(matches!(env.get("MISSING"), Found::None(None)));
    assert!(matches!(env.get("OTHER"), Found::NotYet), "it was never asked for");
    store.set("TOKEN", &"two".into(), "a test").await.expect("set");
    eventually("the change is seen", async || {
        (value(&env, "TOKEN").as_deref() == Some("two")).then_some(())
    })
    .await;
    s.admin.env_unset("default", &["TOKEN".to_owned()], None).await.expect("unset");
    eventually("it is gone", async || matches!(env.get("TOKEN"), Found::None(None)).then_some(()))
        .await;
    stop.cancel();
}

pub(super) async fn names_and_values_are_read_alike_and_a_tokens_are_its_tenants(s: Setting) {
    let keys = keys();
    for tenant in ["default", "other"] {
        let store = Store::new(s.admin.clone(), tenant, keys.clone());
        store.set("TOKEN", &tenant.into(), "a test").await.expect("set");
    }
    let names = ["TOKEN".to_owned(), "MISSING".to_owned()];
    let ours = s.bus.env_names("default", None).await.expect("read");
    assert_eq!(ours, s.admin.env_names("default", None).await.expect("read"));
    assert_eq!(ours.names.as_ref().map(Vec::len), Some(1));
    let unchanged = s.bus.env_names("default", Some(ours.revision)).await.expect("read");
    assert_eq!((unchanged.revision, unchanged.names), (ours.revision, None));
    let sealed = s.bus.env_read("default", &names).await.expect("read");
    assert_eq!(sealed, s.admin.env_read("default", &names).await.expect("read"));
    assert_eq!(sealed.len(), 1);
    let read = s.bus.env_read("other", &names).await;
    let named = s.bus.env_names("other", None).await;
    let set = Store::new(s.bus.clone(), "default", keys).set("A", &"x".into(), "a test").await;
    let unset = s.bus.env_unset("default", &["TOKEN".to_owned()], None).await;
    if s.way == Way::Token {
        assert_eq!(read.expect_err("refused").code(), Code::Forbidden);
        assert_eq!(named.expect_err("refused").code(), Code::Forbidden);
        assert!(set.is_err() && unset.is_err(), "a token sets nothing");
        let left = s.admin.env_names("default", None).await.expect("read");
        assert_eq!(left, ours, "nothing was changed");
    } else {
        assert_eq!(read.expect("read").len(), 1);
        assert_eq!(named.expect("read").names.map(|names| names.len()), Some(1));
        assert_eq!((set.expect("set"), unset.expect("unset")), (2, 1));
    }
}

pub(super) async fn what_is_wrong_with_an_entry_is_named_and_nothing_is_set(s: Setting) {
    if s.way == Way::Token {
        return; // it may set nothing at all: see above
    }
    let good = Sealed {
        name: "A".to_owned(),
        version: 1,
        ciphertext: "A".repeat(40),
        key_id: "0123abcd".to_owned(),
    };
    let with = |change: fn(&mut Sealed)| {
        let mut bad = good.clone();
        change(&mut bad);
        bad
    };
    let named = |n: usize| Sealed { name: format!("A{n}"), ..good.clone() };
    for (entries, code, start) in [
        (vec![with(|e| e.name = "a".to_owned())], Code::InvalidArgument, "entries[0].name: "),
        (
            vec![good.clone(), with(|e| e.name = "COGO_ENV_KEY".to_owned())],
            Code::InvalidArgument,
            "entries[1].name: ",
        ),
        (
            vec![with(|e| e.name = "PGPASSWORD".to_owned())],
            Code::InvalidArgument,
            "entries[0].name: ",
        ),
        (vec![with(|e| e.key_id = "x".to_owned())], Code::InvalidArgument, "entries[0].key_id: "),
        (
            vec![with(|e| e.ciphertext = "A".repeat(36))],
            Code::InvalidArgument,
            "entries[0].ciphertext: ",
        ),
        (
            vec![with(|e| e.ciphertext = "no base64, and in clear!".repeat(2))],
            Code::InvalidArgument,
            "entries[0].ciphertext: ",
        ),
        (
            vec![with(|e| e.ciphertext = "A".repeat(87_424))],
            Code::PayloadTooLarge,
            "entries[0].ciphertext: a value is at most 64 KiB",
        ),
        (vec![good.clone(), good.clone()], Code::InvalidArgument, "entries[1].name: "),
        ((0..101).map(named).collect(), Code::PayloadTooLarge, "entries: at most 100"),
        (vec![with(|e| e.version = 2)], Code::Conflict, "entries[0].version: "),
    ] {
        let error = s.bus.env_set("default", &entries, None, None).await.expect_err("refused");
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains(start), "{start}: {error}");
    }
    let names = s.admin.env_names("default", None).await.expect("read");
    assert_eq!((names.revision, names.names), (0, Some(vec![])));
    assert_eq!(s.bus.env_set("default", &[good], Some("w"), None).await.expect("set"), 1);
}
