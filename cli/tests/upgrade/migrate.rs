//! `cogo migrate` of the release before, where the schema is newer.

use cogo::testing::TestDb;

use crate::world::{World, echo, hub};

/// All that a migration could change: what is applied, functions, tables, rights, policies.
async fn schema(db: &TestDb) -> Vec<String> {
    sqlx::query_scalar(
        "select line from (
            select format('%s %s', version, encode(checksum, 'hex')) as line from _sqlx_migrations
            union all
            select format('%s %s %s', p.oid::regprocedure, md5(p.prosrc), p.proacl) from pg_proc p
                join pg_namespace n on n.oid = p.pronamespace where n.nspname in ('cogo', 'cogo_unscoped', 'public')
            union all
            select format('%s %s %s %s', c.oid::regclass, c.relkind, c.relacl, c.relrowsecurity) from pg_class c
                join pg_namespace n on n.oid = c.relnamespace where n.nspname in ('cogo', 'cogo_unscoped', 'public')
            union all
            select format('%s.%s %s', a.attrelid::regclass, a.attname, format_type(a.atttypid, a.atttypmod))
                from pg_attribute a join pg_class c on c.oid = a.attrelid
                join pg_namespace n on n.oid = c.relnamespace
                where n.nspname in ('cogo', 'cogo_unscoped', 'public') and a.attnum > 0
            union all
            select format('%s on %s %s', polname, polrelid::regclass, pg_get_expr(polqual, polrelid)) from pg_policy
        ) told order by 1",
    )
    .fetch_all(db.pool())
    .await
    .expect("read")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_release_before_leaves_a_newer_schema_as_it_is_and_says_which_it_is() {
    let world = World::new().await;
    let (today, before) = (world.today(), world.before());
    let newest = today.json(&["migrate"])["to"].clone();
    let found = schema(&world.db).await;
    let migrated = before.json(&["migrate"]);
    assert_eq!((&migrated["from"], &migrated["to"]), (&newest, &newest), "{migrated}");
    let said = before.ok(&["migrate"]).stderr;
    assert!(said.contains(&format!("up to date at {newest}")), "{said}");
    assert_eq!(schema(&world.db).await, found);
    // With --supabase it gives the rights, which are today's; that this is no project it says.
    let said = before.ok(&["migrate", "--supabase"]).stderr;
    assert!(said.contains("supabase_realtime: missing"), "{said}");
    assert_eq!(schema(&world.db).await, found);
    let hub = hub(&before);
    echo(&before, &[]);
    hub.running.stop();
    world.is_exact();
}
