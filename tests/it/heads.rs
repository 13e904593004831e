//! What messages of a batch have in common, where they write it in different ways.

use cogo::testing::TestDb;
use serde_json::json;

use crate::fixtures::{enqueue, raw, refusal, rows};

/// To `jsonb` 1 and 1.0 are the same number, so both have one head; what comes of it is the same, too. Alone 1.0 is refused, as
/// it always was: whoever sends it should send 1.
#[tokio::test]
async fn a_priority_of_1_and_one_of_1_point_0_are_the_same() {
    let db = TestDb::new().await;
    let one = raw(&json!({"priority": 1}));
    let other = raw(&json!({"priority": 1.0}));
    assert_eq!(
        (one["priority"].to_string(), other["priority"].to_string()),
        ("1".into(), "1.0".into())
    );
    enqueue(&db, &[one, other.clone()]).await;
    let found = rows(&db, "select priority, count(*) as n from agent_messages group by 1").await;
    assert_eq!(found, [json!({"priority": 1, "n": 2})]);
    let (state, says) = refusal(&db, &format!("select bus_enqueue('[{other}]')")).await;
    assert_eq!(
        (state.as_str(), says.as_str()),
        ("CG400", "messages[0].priority: must be a whole number from -100 to 100",)
    );
}
