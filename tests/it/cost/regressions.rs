//! That the guard fails: databases and clients that were made worse, as a careless change would, are measured against the
//! budgets that hold for the others.

use std::collections::BTreeMap;

use super::budget::{Bound, Budgets, Entry, Measure};
use super::depth::{self, Beside};
use super::server::Watched;
use super::{clients, functions, held};

/// Puts `statement` before what a function does, whatever its arguments are.
fn before(function: &str, statement: &str) -> String {
    format!(
        "do $$
        declare
            f regprocedure := (select oid from pg_proc where oid::regproc = '{function}'::regproc);
            args text := pg_get_function_arguments(f);
            ids text := pg_get_function_identity_arguments(f);
            result text := pg_get_function_result(f);
            n integer := (select pronargs from pg_proc where oid = f);
            passed text := (select string_agg('$' || i, ', ' order by i) from generate_series(1, n) i);
        begin
            execute format('alter function {function}(%s) rename to as_it_was', ids);
            execute format('create function {function}(%s) returns %s language plpgsql as
                ''begin {statement}; return query select * from public.as_it_was(%s); end''', args, result, passed);
        end
        $$"
    )
}

/// The messages of the violations of `group`, each of which must say what to do.
fn violations(group: &str, measures: &[Measure]) -> Vec<String> {
    let budgets = Budgets::read().expect("budgets");
    // Without the room that another version of the server has: what is spoilt here is spoilt on each of them.
    let found = budgets.violations(group, measures, budgets.postgres);
    for message in &found {
        assert!(message.contains("COGO_REGENERATE=1 cargo test -p cogo-bus --test it cost::"));
        assert!(message.contains("Mend what made it worse"), "{message}");
    }
    found
}

/// A database to make worse; `None` while budgets are set anew, since there is nothing yet to hold it to.
async fn spoilt(name: &str) -> Option<Watched> {
    if std::env::var_os("COGO_REGENERATE").is_some() {
        return None;
    }
    Watched::counting(&format!("regressions.{name}")).await
}

/// Whether one of the violations is of `key`.
fn tells(found: &[String], key: &str) -> bool {
    found.iter().any(|message| message.starts_with(&format!("{key}: ")))
}

#[tokio::test]
async fn a_statement_more_in_a_function_is_told() {
    let group = "functions.batch_1";
    let Some(server) = spoilt("statement").await else { return };
    server.migrate(before("public.bus_claim", "perform from public.workers")).await;
    let found = violations(group, &functions::measure(&server, group, 1).await);
    assert!(tells(&found, "functions.batch_1.claim.statements"), "{found:?}");
    assert!(!tells(&found, "functions.batch_1.enqueue.statements"), "{found:?}");
}

#[tokio::test]
async fn an_index_more_is_told() {
    let group = "functions.batch_100";
    let Some(server) = spoilt("index").await else { return };
    server.migrate("create index on agent_messages (updated_at, trace_id)").await;
    let found = violations(group, &functions::measure(&server, group, 100).await);
    for op in ["enqueue", "claim", "complete", "step"] {
        assert!(tells(&found, &format!("{group}.{op}.wal")), "{op}: {found:?}");
        assert!(tells(&found, &format!("{group}.{op}.blocks")), "{op}: {found:?}");
        assert!(!tells(&found, &format!("{group}.{op}.statements")), "{op}: {found:?}");
    }
}

#[tokio::test]
async fn a_row_written_twice_is_told() {
    let group = "functions.batch_10";
    let Some(server) = spoilt("rows").await else { return };
    let touched = "create function public.touch() returns trigger language plpgsql as
            'begin update public.agent_messages set shard = shard where id = new.id; return null; end';
        create trigger touched after insert on agent_messages for each row execute function public.touch()";
    server.migrate(touched).await;
    let found = violations(group, &functions::measure(&server, group, 10).await);
    assert!(tells(&found, "functions.batch_10.enqueue.statements"), "{found:?}");
    assert!(tells(&found, "functions.batch_10.enqueue.read"), "{found:?}");
}

#[tokio::test]
async fn a_scan_of_the_table_is_told_with_its_statement() {
    let Some(server) = spoilt("scan").await else { return };
    let scan = "perform count(*) from public.agent_messages where shard < 0";
    let spoil = before("public.bus_claim", scan);
    let measures = depth::measure(&server, Beside::Delayed, &spoil).await;
    let found = violations("depth.delayed", &measures);
    for key in
        ["100000.claim_1", "100000.claim_100", "10000.claim_10", "scans.kept", "scans.analyzed"]
    {
        assert!(tells(&found, &format!("depth.delayed.{key}")), "{key}: {found:?}");
    }
    assert!(!tells(&found, "depth.delayed.100000.enqueue_100"), "{found:?}");
    let told = found.iter().find(|message| message.contains("depth.delayed.scans.kept: "));
    let told = told.expect("told");
    assert!(told.contains("agent_messages by ` count(*)") || told.contains("shard < 0"), "{told}");
}

#[tokio::test]
async fn a_claim_that_goes_through_what_has_passed_is_told() {
    let scan = "perform count(*) from public.bus_events where message_id is not null and seq > 0";
    let Some(server) = spoilt("held").await else { return };
    let measures = held::measure(&server, &before("public.bus_claim", scan)).await;
    let found = violations("held", &measures);
    assert!(tells(&found, "held.claim_100"), "{found:?}");
}

#[tokio::test]
async fn producers_without_groups_are_told() {
    let Some(server) = spoilt("producers").await else { return };
    let found = violations("client.producers", &clients::producers(&server, true).await);
    assert!(tells(&found, "client.producers.steady"), "{found:?}");
    assert!(tells(&found, "client.producers.burst"), "{found:?}");
}

/// Budgets with one entry, `g.a`.
fn budgets(bound: Bound, budget: f64) -> Budgets {
    let (what, why) = ("things per message".to_owned(), "they cost".to_owned());
    let entry = Entry { what, bound, budget, measured: 2.0, slack: 1.5, target: None, why };
    let budgets = BTreeMap::from([("g.a".to_owned(), entry)]);
    Budgets { postgres: 15, budgets }
}

fn measured(key: &str, value: f64) -> Measure {
    Measure::new(key, "things per message", value, "they cost")
}

#[test]
fn what_is_over_its_budget_is_told_with_what_to_do() {
    let most = budgets(Bound::Most, 3.0);
    assert_eq!(most.violations("g", &[measured("g.a", 3.0)], 15), Vec::<String>::new());
    let [told] = &most.violations("g", &[measured("g.a", 3.01)], 15)[..] else { panic!("one is") };
    for part in [
        "g.a",
        "things per message",
        "3.01",
        "at most 3",
        "2 when it was set",
        "they cost",
        "Mend",
        "`why`",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let [told] = &most.violations("g", &[measured("g.a", 9.0).because("by it".into())], 15)[..]
    else {
        panic!("one is")
    };
    assert!(told.contains("Seen: by it."), "{told}");
    let least = budgets(Bound::Least, 0.5);
    assert_eq!(least.violations("g", &[measured("g.a", 0.5)], 15), Vec::<String>::new());
    let [told] = &least.violations("g", &[measured("g.a", 0.4)], 15)[..] else { panic!("one is") };
    assert!(told.contains("at least 0.5"), "{told}");
}

#[test]
fn another_version_of_the_server_has_some_room_where_there_is_any() {
    let mut most = budgets(Bound::Most, 3.0);
    let near = [measured("g.a", 3.29)];
    assert_eq!(most.violations("g", &near, 15).len(), 1);
    assert_eq!(most.violations("g", &near, 16), Vec::<String>::new());
    assert_eq!(most.violations("g", &[measured("g.a", 3.31)], 16).len(), 1);
    most.budgets.get_mut("g.a").expect("there").slack = 1.0;
    assert_eq!(most.violations("g", &near, 16).len(), 1, "it is the same each time");
}

#[test]
fn what_has_no_budget_and_what_is_not_measured_is_told() {
    let found = budgets(Bound::Most, 3.0).violations("g", &[measured("g.b", 1.0)], 15);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with("g.b: ") && found[0].contains("has no budget"), "{found:?}");
    assert!(found[1].starts_with("g.a: ") && found[1].contains("not measured"), "{found:?}");
    // Groups are apart, also where one name begins with the other's.
    let mut two = budgets(Bound::Most, 3.0);
    two.budgets.insert("g_more.a".to_owned(), two.budgets["g.a"].clone());
    assert_eq!(two.violations("g", &[measured("g.a", 1.0)], 15), Vec::<String>::new());
}

#[test]
fn a_budget_that_is_set_anew_keeps_its_reason_and_its_room() {
    let mut renewed = budgets(Bound::Most, 3.0);
    let entry = renewed.budgets.get_mut("g.a").expect("there");
    entry.why = "somebody wrote this".to_owned();
    entry.target = Some(1.3);
    renewed.renew("g", &[measured("g.a", 4.0), measured("g.b", 7.0).slack(2.0)]);
    let entry = &renewed.budgets["g.a"];
    assert_eq!((entry.measured, entry.budget, entry.slack), (4.0, 6.0, 1.5));
    assert_eq!((entry.why.as_str(), entry.target), ("somebody wrote this", Some(1.3)));
    assert_eq!(
        (renewed.budgets["g.b"].budget, renewed.budgets["g.b"].why.as_str()),
        (14.0, "they cost")
    );
    renewed.renew("g", &[measured("g.b", 7.0)]);
    assert!(!renewed.budgets.contains_key("g.a"), "it is not measured any more");
    let mut least = budgets(Bound::Least, 0.5);
    least.renew("g", &[measured("g.a", 0.9).at_least()]);
    assert_eq!(least.budgets["g.a"].budget, 0.6);
}

#[test]
fn the_file_is_as_it_would_be_written() {
    if std::env::var_os("COGO_REGENERATE").is_some() {
        return; // it is being written
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/cost/budgets.json");
    let budgets = Budgets::read().expect("budgets");
    let text = std::fs::read_to_string(path).expect("the file").replace("\r\n", "\n");
    assert_eq!(budgets.text().expect("text"), text, "write it anew, a line an entry");
    for (key, entry) in &budgets.budgets {
        assert!(!entry.why.trim().is_empty(), "{key} has no reason");
        assert!(entry.slack >= 1.0, "{key} leaves less room than none");
    }
}
