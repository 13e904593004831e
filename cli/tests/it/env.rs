//! `cogo env`, as it is typed.

use cogo::testing::TestDb;
use serde_json::{Value, json};

use crate::support::{Cogo, Done};

const VALUE: &str = "hunter2-of-the-cli";

fn key() -> String {
    Cogo::new().ok(&["env", "keygen"]).line().to_owned()
}

fn set(cogo: &Cogo, name: &str, value: &str) -> Done {
    let done = cogo.run_with(&["env", "set", name], value);
    assert_eq!(done.code, Some(0), "{done:?}");
    done
}

fn names(listed: &Value) -> Vec<&str> {
    let names = listed["names"].as_array().expect("names");
    names.iter().filter_map(|name| name["name"].as_str()).collect()
}

#[tokio::test]
async fn a_value_is_set_from_stdin_or_a_variable_listed_checked_and_unset() {
    let db = TestDb::new().await;
    let key = key();
    let cogo = Cogo::on(&db).with("COGO_ENV_KEY", &*key).with("OLD_NAME", "hunter2-of-a-variable");
    assert_eq!(cogo.json(&["env", "list"])["names"], json!([]));
    // Also with all that can be logged.
    let loud = Cogo::on(&db).with("COGO_ENV_KEY", &*key).with("RUST_LOG", "trace");
    for done in [
        set(&loud, "TOKEN", &format!("{VALUE}\n")),
        cogo.ok(&["env", "set", "OTHER", "--from-env", "OLD_NAME"]),
        loud.ok(&["env", "list"]),
        loud.ok(&["env", "check"]),
        loud.ok(&["env", "check", "--json"]),
        loud.ok(&["tail", "--json"]),
    ] {
        let all = format!("{}{}", done.stdout, done.stderr);
        assert!(!all.contains("hunter2") && !all.contains(&key), "{all}");
    }
    let listed = cogo.json(&["env", "list"]);
    assert_eq!(names(&listed), ["OTHER", "TOKEN"]);
    assert_eq!(listed["names"][1]["updated_by"], "cli");
    let id = cogo.json(&["env", "keygen"])["key_id"].as_str().map(str::len);
    assert_eq!(id, Some(8));
    let checked = cogo.json(&["env", "check"]);
    assert!(checked.as_array().is_some_and(|all| all.iter().all(|one| one["problem"].is_null())));
    assert_eq!(
        cogo.json(&["env", "unset", "TOKEN", "NEVER"]),
        json!({"tenant": "default", "unset": 1})
    );
    cogo.run(&["env", "unset", "TOKEN"]).refused(3, &["has none of these names"]);
    assert_eq!(names(&cogo.json(&["env", "list"])), ["OTHER"]);
}

#[tokio::test]
async fn keys_are_rotated_and_what_cannot_be_read_is_told() {
    let db = TestDb::new().await;
    let (old, new) = (key(), key());
    let with = |keys: &str| Cogo::on(&db).with("COGO_ENV_KEY", keys);
    set(&with(&old), "TOKEN", VALUE);
    let checked = with(&new).run(&["env", "check"]);
    assert_eq!(checked.code, Some(1), "{checked:?}");
    assert!(checked.stdout.contains("is sealed with key"), "{checked:?}");
    with(&new).run(&["env", "rekey"]).refused(1, &["TOKEN is sealed with key"]);
    let both = with(&format!("{new},{old}"));
    let done = both.json(&["env", "rekey"]);
    assert_eq!(done, json!({"tenant": "default", "changed": ["TOKEN"], "kept": 0}));
    with(&new).ok(&["env", "check"]);
    let checked = with(&old).run(&["env", "check"]);
    assert_eq!(checked.code, Some(1), "{checked:?}");
}

#[tokio::test]
async fn what_is_wrong_is_said_with_what_to_do() {
    let db = TestDb::new().await;
    let key = key();
    let cogo = Cogo::on(&db).with("COGO_ENV_KEY", &*key);
    for (name, words) in [
        ("lower", ["capital letters"]),
        ("COGO_JWT_SECRET", ["configures COGO itself"]),
        ("DATABASE_URL", ["to reach this table"]),
    ] {
        let done = cogo.run_with(&["env", "set", name], VALUE);
        done.refused(2, &words);
        assert!(!done.stderr.contains(VALUE), "{done:?}");
    }
    cogo.run_with(&["env", "set", "A"], "\n").refused(2, &["is empty"]);
    cogo.run_with(&["env", "set", "A"], &"x".repeat(65_537)).refused(2, &["at most 64 KiB"]);
    cogo.run(&["env", "set", "A", "--from-env", "NEVER_SET"]).refused(2, &["NEVER_SET"]);
    cogo.run(&["env", "set", "A", VALUE]).refused(2, &["unexpected argument"]);
    cogo.run(&["env", "list", "--tenant", "a/b"]).refused(2, &["--tenant"]);
    for (keys, words) in [
        ("", ["COGO_ENV_KEY is not set", "cogo env keygen"]),
        ("c2hvcnQ=", ["key 1 has 5 bytes", "must have 32"]),
        ("not base64!", ["key 1 is no base64", "cogo env keygen"]),
    ] {
        let cogo = Cogo::on(&db).with("COGO_ENV_KEY", keys);
        cogo.run_with(&["env", "set", "A"], VALUE).refused(2, &words);
        cogo.run(&["env", "check"]).refused(2, &words);
    }
    assert_eq!(cogo.json(&["env", "list"])["revision"], 0, "nothing was changed");
}
