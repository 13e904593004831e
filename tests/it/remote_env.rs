//! RemoteEnv against whoever can write the table, and against time.

use cogo::bus::env::Sealed;
use cogo::bus::{Bus, Error};
use cogo::remote_env::{
    ExposeSecret as _, Found, Keyring, MAX_NAMES, MAX_VALUE_BYTES, RemoteEnv, SecretString, Store,
    generate,
};
use cogo::shutdown::Tasks;
use cogo::testing::TestDb;
use sqlx::AssertSqlSafe;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::fixtures::{SOON, eventually};

struct Place {
    db: TestDb,
    bus: Bus,
    key: SecretString,
}

impl Place {
    async fn new() -> Self {
        let db = TestDb::new().await;
        let bus = Bus::new(db.pool().clone());
        Self { db, bus, key: generate().expect("randomness") }
    }

    fn keys(&self) -> Keyring {
        Keyring::parse(&self.key).expect("a key")
    }

    fn store(&self, tenant: &str) -> Store {
        Store::new(self.bus.clone(), tenant, self.keys())
    }

    async fn set(&self, name: &str, value: &str) -> i64 {
        self.store("default").set(name, &value.into(), "a test").await.expect("set")
    }

    /// What somebody does who can write the table.
    async fn sql(&self, sql: &str) {
        sqlx::query(AssertSqlSafe(sql)).execute(self.db.pool()).await.expect(sql);
    }

    /// The problems that a check finds, by name.
    async fn problems(&self) -> Vec<(String, Option<String>)> {
        let checked = self.store("default").check().await.expect("checked");
        checked.into_iter().map(|one| (one.name.name, one.problem)).collect()
    }

    fn follow(&self, names: &[&str]) -> (RemoteEnv, DropGuard) {
        let stop = CancellationToken::new();
        let keys = Ok(self.keys());
        let env = RemoteEnv::start(self.bus.clone(), "default", keys, &Tasks::new(), stop.clone());
        env.want(names.iter().map(|name| (*name).to_owned()));
        (env, stop.drop_guard())
    }
}

fn text(found: &Found) -> String {
    match found {
        Found::Value(value) => value.expose_secret().to_owned(),
        Found::NotYet => "not yet".to_owned(),
        Found::None(why) => format!("none: {why:?}"),
    }
}

#[tokio::test]
async fn what_was_tampered_with_moved_or_put_back_is_refused_by_name() {
    let place = Place::new().await;
    for name in ["A", "B", "C", "D"] {
        place.set(name, &format!("value of {name}")).await;
    }
    assert!(place.problems().await.iter().all(|(_, problem)| problem.is_none()));
    // A bit of one; two that are swapped; an older value under the present version.
    place.sql("update cogo.remote_env set ciphertext = set_byte(ciphertext, 20, get_byte(ciphertext, 20) # 1) where name = 'A'").await;
    place
        .sql(
            "update cogo.remote_env v set ciphertext = o.ciphertext from cogo.remote_env o
            where v.name in ('B', 'C') and o.name in ('B', 'C') and v.name <> o.name",
        )
        .await;
    place.sql("create table kept as select * from cogo.remote_env where name = 'D'").await;
    place.set("D", "a later value").await;
    place
        .sql(
            "update cogo.remote_env v set ciphertext = k.ciphertext from kept k where v.name = 'D'",
        )
        .await;
    for (name, problem) in place.problems().await {
        let problem = problem.unwrap_or_else(|| panic!("{name} is refused"));
        assert!(problem.contains("tampered"), "{name}: {problem}");
    }
    // A row of another tenant.
    let theirs = place.store("theirs");
    theirs.set("E", &"their own".into(), "a test").await.expect("set");
    place.sql("update cogo.remote_env set tenant = 'default' where name = 'E'").await;
    let moved = place.problems().await.into_iter().find(|(name, _)| name == "E").expect("there");
    assert!(moved.1.is_some_and(|problem| problem.contains("tampered")));
}

#[tokio::test]
async fn a_whole_row_that_is_put_back_is_not_taken_by_who_saw_the_later_one() {
    let place = Place::new().await;
    place.set("A", "old").await;
    place.sql("create table kept as select * from cogo.remote_env").await;
    place.set("A", "new").await;
    let (env, _stop) = place.follow(&["A", "B"]);
    tokio::time::timeout(SOON, env.settled()).await.expect("read");
    assert_eq!(text(&env.get("A")), "new");
    place
        .sql(
            "update cogo.remote_env v set version = k.version, ciphertext = k.ciphertext, key_id = k.key_id from kept k",
        )
        .await;
    // Something else changes, so that everybody looks.
    place.set("B", "beside").await;
    eventually("it was looked at", async || (text(&env.get("B")) == "beside").then_some(())).await;
    assert_eq!(text(&env.get("A")), "new", "the later value stays");
    // And a revision that is put back as a whole changes nothing either.
    place.sql("update cogo.env_revisions set revision = 1").await;
    place.sql("delete from cogo.remote_env where name = 'B'").await;
    place.sql("select pg_notify('cogo_env', '')").await;
    let (fresh, _stop) = place.follow(&["A"]);
    tokio::time::timeout(SOON, fresh.settled()).await.expect("read");
    assert_eq!(text(&fresh.get("A")), "old", "who has seen nothing cannot know");
    assert_eq!(text(&env.get("B")), "beside");
}

#[tokio::test]
async fn keys_are_rotated_and_a_wrong_one_is_told_by_its_id() {
    let place = Place::new().await;
    for n in 0..105 {
        place.set(&format!("N{n}"), &format!("value {n}")).await;
    }
    let new = generate().expect("randomness");
    let only_new = Keyring::parse(&new).expect("a key");
    let both: SecretString =
        format!("{},{}", new.expose_secret(), place.key.expose_secret()).into();
    let both = Keyring::parse(&both).expect("keys");
    let wrong = Store::new(place.bus.clone(), "default", only_new.clone());
    let checked = wrong.check().await.expect("checked");
    let problem = checked[0].problem.as_deref().expect("another key");
    assert!(problem.contains(place.keys().ids()[0]), "{problem}");
    assert!(problem.contains(only_new.ids()[0]), "{problem}");
    let refused = wrong.rekey("a test").await.expect_err("it cannot read them");
    assert!(refused.to_string().contains("N0"), "{refused}");
    let names = place.bus.env_names("default", None).await.expect("read");
    assert_eq!(names.revision, 105, "nothing was changed");

    let done = Store::new(place.bus.clone(), "default", both).rekey("a test").await.expect("done");
    assert_eq!((done.changed.len(), done.kept), (105, 0));
    let again = wrong.rekey("a test").await.expect("nothing to do");
    assert_eq!((again.changed.len(), again.kept), (0, 105));
    let checked = wrong.check().await.expect("checked");
    assert!(checked.iter().all(|one| one.problem.is_none()), "the new key reads all");
    let why: i64 = sqlx::query_scalar(
        "select count(*) from bus_events where event_type = 'env_set' and payload ->> 'why' = 'rekey'",
    )
    .fetch_one(place.db.pool())
    .await
    .expect("counted");
    assert_eq!(why, 105);
}

#[tokio::test]
async fn a_value_is_nowhere_in_the_database_in_clear() {
    let place = Place::new().await;
    let secret = "hunter2-nowhere-in-clear";
    place.set("TOKEN", secret).await;
    place.set("TOKEN", secret).await;
    place.bus.env_unset("default", &["TOKEN".to_owned()], Some("a test")).await.expect("unset");
    place.set("TOKEN", secret).await;
    let tables: Vec<String> = sqlx::query_scalar(
        "select c.oid::regclass::text from pg_class c join pg_namespace n on n.oid = c.relnamespace
            where c.relkind in ('r', 'p', 'm', 'v') and n.nspname in ('public', 'cogo')",
    )
    .fetch_all(place.db.pool())
    .await
    .expect("listed");
    assert!(tables.iter().any(|table| table.ends_with("remote_env")), "{tables:?}");
    let mut seen_name = false;
    for table in tables {
        // bytea in both of the forms in which a dump could have it.
        let sql = format!("select coalesce(string_agg(t::text, E'\\n'), '') from {table} t");
        let all: String =
            sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(place.db.pool()).await.expect("read");
        let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
        assert!(!all.contains(secret) && !all.contains(&hex), "{table}");
        seen_name |= all.contains("TOKEN");
    }
    assert!(seen_name, "the scan sees what is there");
    let log: Vec<(String, serde_json::Value)> = sqlx::query_as(
        "select event_type, payload - 'key_id' from bus_events where event_type like 'env%' order by seq",
    )
    .fetch_all(place.db.pool())
    .await
    .expect("read");
    let entry = |kind: &str, payload| (kind.to_owned(), payload);
    assert_eq!(
        log,
        [
            entry("env_set", serde_json::json!({"name": "TOKEN", "version": 1})),
            entry("env_set", serde_json::json!({"name": "TOKEN", "version": 2})),
            entry("env_unset", serde_json::json!({"name": "TOKEN", "version": 3, "was": 2})),
            entry("env_set", serde_json::json!({"name": "TOKEN", "version": 4})),
        ]
    );
}

#[tokio::test]
async fn nothing_that_is_printed_has_a_value_or_a_key() {
    let place = Place::new().await;
    place.set("TOKEN", "hunter2-in-debug").await;
    let (env, _stop) = place.follow(&["TOKEN"]);
    tokio::time::timeout(SOON, env.settled()).await.expect("read");
    let found = env.get("TOKEN");
    assert_eq!(text(&found), "hunter2-in-debug");
    let printed = format!("{env:?} {found:?} {:?} {:?}", place.store("default"), env.changes());
    assert!(!printed.contains("hunter2"), "{printed}");
    assert!(!printed.contains(place.key.expose_secret()), "{printed}");
}

#[tokio::test]
async fn a_tenant_has_so_many_names_and_a_value_so_many_bytes() {
    let place = Place::new().await;
    let key_id = place.keys().ids()[0].to_owned();
    let batch = |from: usize, version| -> Vec<Sealed> {
        let entry = |n| Sealed {
            name: format!("N{n}"),
            version,
            ciphertext: "A".repeat(40),
            key_id: key_id.clone(),
        };
        (from..from + 100).map(entry).collect()
    };
    for n in 0..MAX_NAMES / 100 {
        let version = i64::try_from(n).expect("small") + 1;
        place.bus.env_set("default", &batch(n * 100, version), None, None).await.expect("set");
    }
    let error = place.bus.env_set("default", &batch(MAX_NAMES, 11), None, None).await;
    assert!(matches!(error, Err(Error::Full { .. })), "{error:?}");
    // One that is there may still change, and the largest value fits.
    let largest = "x".repeat(MAX_VALUE_BYTES);
    assert_eq!(place.set("N7", &largest).await, 11);
    let larger = format!("{largest}x");
    let error = place.store("default").set("N7", &larger.into(), "a test").await;
    assert!(error.is_err_and(|error| error.to_string() == "N7: must be at most 64 KiB"));
    let (env, _stop) = place.follow(&["N7"]);
    tokio::time::timeout(SOON, env.settled()).await.expect("read");
    assert_eq!(text(&env.get("N7")), largest);
}

#[tokio::test]
async fn two_that_set_at_once_both_get_their_own_version() {
    let place = Place::new().await;
    let store = place.store("default");
    let sets = (0..4).map(|n| {
        let store = store.clone();
        async move { store.set(&format!("N{n}"), &"x".into(), "a test").await.expect("set") }
    });
    let mut versions = futures_util::future::join_all(sets).await;
    versions.sort_unstable();
    assert_eq!(versions, [1, 2, 3, 4]);
    assert!(place.problems().await.iter().all(|(_, problem)| problem.is_none()));
}

#[tokio::test]
async fn without_a_key_every_name_has_the_reason() {
    let place = Place::new().await;
    let keys = Keyring::parse(&"".into());
    let env = RemoteEnv::start(
        place.bus.clone(),
        "default",
        keys,
        &Tasks::new(),
        CancellationToken::new(),
    );
    env.want(["A".to_owned()]);
    tokio::time::timeout(SOON, env.settled()).await.expect("at once");
    assert!(text(&env.get("A")).contains("COGO_ENV_KEY is not set"));
    assert!(text(&env.get("COGO_ADMIN_TOKEN")).contains("COGO itself"));
}
