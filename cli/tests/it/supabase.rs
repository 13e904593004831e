//! `cogo migrate --supabase` on a server shaped like a hosted project, and what each of its roles may then do.

use cogo::db::embedded::{Embedded, Options};
use serde_json::{Value, json};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions as _, Connection as _, Executor as _};
use tempfile::TempDir;

use crate::support::Cogo;

/// As a project is when it is made: its owner is no superuser and inherits from nobody, and everything in `public`
/// is everybody's by default.
const PROJECT: &str = "
    create role anon nologin noinherit;
    create role authenticated nologin noinherit;
    create role service_role nologin noinherit bypassrls;
    create role authenticator login noinherit;
    create role supabase_admin login superuser;
    create role supabase_realtime_admin nologin noinherit;
    grant anon, authenticated, service_role to authenticator;
    create role postgres login createrole createdb bypassrls replication;
    grant anon, authenticated, service_role to postgres;
    create database project owner postgres;
";

const INSIDE: &str = "
    revoke create on schema public from public;
    grant all on schema public to postgres;
    grant usage on schema public to anon, authenticated, service_role;
    create publication supabase_realtime;
    alter publication supabase_realtime owner to postgres;
    alter default privileges for role postgres in schema public
        grant all on tables to postgres, anon, authenticated, service_role;
    alter default privileges for role postgres in schema public
        grant all on functions to postgres, anon, authenticated, service_role;
    alter default privileges for role postgres in schema public
        grant all on sequences to postgres, anon, authenticated, service_role;
    create schema realtime;
    grant usage on schema realtime to postgres, anon, authenticated, service_role;
    create table realtime.messages (topic text not null, extension text not null, payload jsonb);
    alter table realtime.messages enable row level security;
    grant select, insert on realtime.messages to anon, authenticated, service_role;
    create function realtime.topic() returns text language sql stable
        as $$ select nullif(current_setting('realtime.topic', true), '') $$;
";

#[derive(Debug)]
struct Project {
    server: Embedded,
    _dir: TempDir,
}

impl Project {
    async fn start(besides: &'static str) -> Self {
        let dir = tempfile::Builder::new().prefix("cogo-it-").tempdir().expect("a directory");
        #[cfg(unix)]
        std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711))
            .expect("set");
        let server = Embedded::start(Options::new(dir.path())).await.expect("a server");
        let project = Self { server, _dir: dir };
        for statement in PROJECT.split(';').filter(|statement| !statement.trim().is_empty()) {
            project.connect("cogo", "postgres").await.execute(statement).await.expect(statement);
        }
        let mut admin = project.connect("supabase_admin", "project").await;
        sqlx::raw_sql(INSIDE).execute(&mut admin).await.expect("made");
        sqlx::raw_sql(besides).execute(&mut admin).await.expect("made");
        project
    }

    fn options(&self, user: &str, database: &str) -> PgConnectOptions {
        self.server.connect_options().username(user).database(database)
    }

    async fn connect(&self, user: &str, database: &str) -> PgConnection {
        self.options(user, database).connect().await.expect("connected")
    }

    fn cogo(&self) -> Cogo {
        Cogo::new()
            .with("DATABASE_URL", self.options("postgres", "project").to_url_lossy().to_string())
    }

    /// What PostgREST gets, that is as `authenticator` under a token's role.
    async fn call(&self, role: &str, claims: &str, sql: &str) -> Result<Vec<Value>, String> {
        let mut connection = self.connect("authenticator", "project").await;
        let mut transaction = connection.begin().await.expect("begun");
        sqlx::query(
            "select set_config('role', $1, true), set_config('request.jwt.claims', $2, true)",
        )
        .bind(role)
        .bind(claims)
        .execute(&mut *transaction)
        .await
        .expect("set");
        let sql = format!("select to_jsonb(x) from ({sql}) x");
        let rows = sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_all(&mut *transaction).await;
        let rows = rows.map_err(|error| {
            error.as_database_error().and_then(|error| error.code()).expect("a state").into_owned()
        })?;
        transaction.commit().await.expect("committed");
        Ok(rows)
    }
}

const TOKEN: &str = r#"{"role": "authenticated", "tenant": "acme", "worker": "w", "topics": ["r/s"], "send": ["r/s"]}"#;
const ENQUEUE: &str =
    r#"select duplicate from bus_enqueue('[{"role":"r","service":"s","intent":"i","payload":1}]')"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_project_is_set_up_by_its_owner_twice_and_each_role_may_what_it_should() {
    let project = Project::start("alter table realtime.messages owner to postgres").await;
    let first = project.cogo().json(&["migrate", "--supabase"]);
    assert_eq!(first["notes"], json!([]), "{first}");
    let again = project.cogo().json(&["migrate", "--supabase"]);
    assert_eq!((&again["notes"], &again["from"]), (&json!([]), &first["to"]));

    let mut admin = project.connect("supabase_admin", "project").await;
    let owned: Vec<String> = sqlx::query_scalar(
        "select tablename::text from pg_publication_tables where pubname = 'supabase_realtime' order by 1")
        .fetch_all(&mut admin).await.expect("read");
    assert_eq!(owned, ["agent_messages", "circuits", "workers"]);
    let functions: Vec<String> = sqlx::query_scalar(
        "select distinct proname::text from pg_proc p join pg_namespace n on n.oid = p.pronamespace
            where n.nspname = 'public' and has_function_privilege('anon', p.oid, 'execute')",
    )
    .fetch_all(&mut admin)
    .await
    .expect("read");
    assert_eq!(functions, Vec::<String>::new());

    // anon: nothing, whatever it claims.
    for sql in [
        ENQUEUE,
        "select * from agent_messages",
        "select * from bus_events",
        "select * from workers",
        "select * from circuits",
        "select * from _sqlx_migrations",
        "select bus_schema_version()",
        "select bus_reap()",
        "select bus_channel_allowed('acme:x', 'join')",
        "select * from cogo.limits",
    ] {
        assert_eq!(project.call("anon", TOKEN, sql).await, Err("42501".to_owned()), "{sql}");
    }
    // A token: its scope.
    project.call("authenticated", TOKEN, ENQUEUE).await.expect("sent");
    let claimed =
        project.call("authenticated", TOKEN, "select tenant from bus_claim('w', '{r/s}')").await;
    assert_eq!(claimed, Ok(vec![json!({"tenant": "acme"})]));
    assert_eq!(
        project.call("authenticated", TOKEN, "select bus_claim('v', '{r/s}')").await,
        Err("CG403".to_owned())
    );
    assert_eq!(project.call("authenticated", "", ENQUEUE).await, Err("CG403".to_owned()));
    for table in ["agent_messages", "bus_events"] {
        let sql = format!("select 1 as n from {table}");
        assert_eq!(project.call("authenticated", TOKEN, &sql).await, Ok(vec![json!({"n": 1})]));
        let other = TOKEN.replace("acme", "other");
        assert_eq!(project.call("authenticated", &other, &sql).await, Ok(vec![]));
    }
    for sql in
        ["select * from _sqlx_migrations", "select bus_stats()", "select cogo.grant_rights()"]
    {
        assert_eq!(
            project.call("authenticated", TOKEN, sql).await,
            Err("42501".to_owned()),
            "{sql}"
        );
    }
    // The service role, which inherits nothing: everything.
    for sql in [
        ENQUEUE,
        "select * from bus_stats()",
        "select bus_retain()",
        "select * from bus_read_events()",
        "select * from bus_claim('x', '{r/s}', 1, 1000, '*')",
    ] {
        project.call("service_role", r#"{"role": "service_role"}"#, sql).await.expect(sql);
    }
    assert_eq!(
        project.call("service_role", "{}", "select * from _sqlx_migrations").await,
        Err("42501".to_owned())
    );
    // The owner, as a hub or a worker with the connection string would.
    project.cogo().ok(&["status"]);
    let mut owner = project.connect("postgres", "project").await;
    owner.execute("select bus_claim('x', '{r/s}', 1, 1000, '*')").await.expect("bound to no token");
    project.server.stop().await.expect("stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn private_channels_follow_the_bus_s_rule_where_the_owner_may_make_policies() {
    let project = Project::start("alter table realtime.messages owner to postgres").await;
    assert_eq!(project.cogo().json(&["migrate", "--supabase"])["notes"], json!([]));
    assert_eq!(project.cogo().json(&["migrate", "--supabase"])["notes"], json!([]));
    let send = |topic: &str, extension: &str| {
        format!(
            "insert into realtime.messages (topic, extension) select '{topic}', '{extension}'
            from (select set_config('realtime.topic', '{topic}', true)) s returning topic"
        )
    };
    let insert = async |role: &str, topic: &str, extension: &str| {
        let mut connection = project.connect("authenticator", "project").await;
        let mut transaction = connection.begin().await.expect("begun");
        sqlx::query(
            "select set_config('role', $1, true), set_config('request.jwt.claims', $2, true),
                set_config('realtime.topic', $3, true)",
        )
        .bind(role)
        .bind(TOKEN)
        .bind(topic)
        .execute(&mut *transaction)
        .await
        .expect("set");
        sqlx::query(sqlx::AssertSqlSafe(send(topic, extension)))
            .execute(&mut *transaction)
            .await
            .is_ok()
    };
    assert!(insert("authenticated", "acme:room", "broadcast").await);
    assert!(insert("authenticated", "acme:room", "presence").await);
    assert!(!insert("authenticated", "other:room", "broadcast").await);
    assert!(!insert("authenticated", "cogo:work:acme:r:s", "broadcast").await);
    assert!(!insert("anon", "acme:room", "broadcast").await);
    project.server.stop().await.expect("stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_project_does_not_allow_or_lacks_is_told_line_by_line_and_the_rest_is_done() {
    let project =
        Project::start("alter publication supabase_realtime owner to supabase_admin").await;
    let done = project.cogo().ok(&["migrate", "--supabase"]);
    for line in [
        "publication supabase_realtime: this login may not add agent_messages",
        "realtime.messages: this login may not make policies",
    ] {
        assert!(done.stderr.contains(line), "{line:?} is missing: {done:?}");
    }
    assert_eq!(project.call("anon", TOKEN, ENQUEUE).await, Err("42501".to_owned()));
    project.call("authenticated", TOKEN, ENQUEUE).await.expect("sent");

    let mut admin = project.connect("supabase_admin", "project").await;
    admin
        .execute("drop publication supabase_realtime; drop table realtime.messages")
        .await
        .expect("dropped");
    let notes = project.cogo().json(&["migrate", "--supabase"])["notes"].to_string();
    for line in ["supabase_realtime: missing", "realtime.messages: missing"] {
        assert!(notes.contains(line), "{line:?} is missing: {notes}");
    }
    // What another role opened is not closed by us, and is no success.
    admin.execute("grant select on public.agent_messages to public").await.expect("granted");
    project
        .cogo()
        .run(&["migrate", "--supabase"])
        .refused(5, &["open to the public key", "agent_messages"]);
    project.server.stop().await.expect("stopped");
}

#[test]
fn the_transaction_pooler_is_refused_before_anything_is_tried() {
    let url = "postgres://postgres.ref:geheim@aws-0-eu-central-1.pooler.supabase.com:6543/postgres";
    let done = Cogo::new().with("DATABASE_URL", url).run(&["migrate", "--supabase"]);
    done.refused(2, &["6543", "transaction pooler", "5432"]);
    assert!(!done.stderr.contains("geheim"), "{done:?}");
}
