//! What a process that is running finds when the schema has changed below it.

use cogo::bus::Bus;
use cogo::db::Options;
use cogo::testing::TestDb;

/// A function that answers with another type than before, as an upgrade may bring it.
const CHANGED: &str = "alter function public.bus_log_end() rename to bus_log_end_before;
    create function public.bus_log_end() returns varchar language sql as
        'select public.bus_log_end_before()::varchar'";

#[tokio::test]
async fn a_statement_of_the_schema_before_is_refused_once_and_not_for_as_long_as_its_connection_lives()
 {
    let db = TestDb::new().await;
    let bus = Bus::new(Options::new(db.connect_options()).pool());
    for _ in 0..3 {
        bus.log_end().await.expect("read");
    }
    sqlx::raw_sql(CHANGED).execute(db.pool()).await.expect("changed");
    let mut refused = 0;
    while bus.log_end().await.is_err() {
        refused += 1;
        assert!(refused < 5, "each of its connections has it once");
    }
    assert!(refused > 0, "else this shows nothing");
}
