//! A database that fails in ways that say nothing of a result, that refuses one, or denies a right.

use std::time::Duration;

use cogo::bus::Bus;
use cogo::db;
use cogo::error::Code;
use cogo::message::{Message, MessageId, Status};
use cogo::retry::Policies;
use cogo::shutdown::Shutdown;
use cogo::testing::TestDb;
use cogo::worker::runner::{Options, Runner};
use cogo::worker::{Delivery, Failure, Handler, Output};
use serde_json::json;
use tokio::sync::watch;

use super::setting::{Setting, Way};
use super::workers::Running;
use crate::fixtures::{SOON, echo, eventually, replay_differences, topic};

const LEASE: Duration = Duration::from_secs(30);

/// Gives back what it got.
struct Echo;

impl Handler for Echo {
    async fn handle(&self, delivery: Delivery) -> Result<Output, Failure> {
        Ok(delivery.message.payload.clone().into())
    }
}

/// From now on the database fails so often with `state` when a message gets `status`, if `condition` holds.
async fn sabotage(db: &TestDb, status: &str, condition: &str, state: &str, times: u32) {
    let sql = format!(
        "drop trigger if exists sabotage on public.agent_messages;
        drop sequence if exists public.sabotage;
        create sequence public.sabotage;
        create or replace function public.sabotage() returns trigger language plpgsql security definer as $$ begin
            if nextval('public.sabotage') <= {times} then
                raise exception 'sabotage' using errcode = '{state}';
            end if;
            return new;
        end $$;
        create trigger sabotage before update on public.agent_messages for each row
            when (new.status = '{status}' and {condition}) execute function public.sabotage()"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(db.pool()).await.expect("sabotaged");
}

/// How often it has been asked whether to fail.
async fn asked(db: &TestDb) -> i64 {
    let sql = "select last_value from public.sabotage";
    sqlx::query_scalar(sql).fetch_one(db.pool()).await.expect("read")
}

async fn finished(bus: &Bus, id: MessageId) -> Message {
    eventually("it is finished", async || {
        let message = bus.message(id).await.expect("found");
        message.status.is_final().then_some(message)
    })
    .await
}

pub(super) async fn a_failure_that_says_nothing_of_a_result_makes_no_dead_letter_of_it(s: Setting) {
    let running = Running::start(&s.bus, Echo, LEASE).await;
    // A pooler's own failure, a right that is missing for a moment, and what goes with a schema that changes.
    for (status, state) in [
        ("done", "XX000"),
        ("done", "42501"),
        ("claimed", "42501"),
        ("done", "0A000"),
        ("claimed", "0A000"),
        ("done", "42703"),
        ("done", "28P01"),
    ] {
        sabotage(&s.db, status, "true", state, 3).await;
        let id = s.admin.publish(echo(json!(state))).await.expect("published").id;
        let done = finished(&s.admin, id).await;
        let found = (done.status, done.attempts, done.error);
        assert_eq!(found, (Status::Done, 1, None), "{status} {state}");
        assert!(asked(&s.db).await >= 4, "{status} {state}: else this shows nothing");
    }
    running.stop().await;
    assert_eq!(replay_differences(&s.db).await, Vec::<String>::new());
}

pub(super) async fn what_the_database_refuses_of_a_result_is_a_dead_letter_that_says_so(
    s: Setting,
) {
    let running = Running::start(&s.bus, Echo, LEASE).await;
    for state in ["22003", "54000", "23514", "P0001"] {
        sabotage(&s.db, "done", "new.payload = '\"bad\"'", state, 1000).await;
        let [bad, good] = ["bad", "good"].map(|payload| echo(json!(payload)));
        let sent = s.admin.publish_all(&[bad, good]).await.expect("published");
        let dead = finished(&s.admin, sent[0].id).await;
        assert_eq!((dead.status, dead.attempts), (Status::Failed, 1), "{state}");
        let says = dead.error.expect("an error")["message"].to_string();
        assert!(says.contains("the result could not be stored"), "{state}: {says}");
        assert_eq!(finished(&s.admin, sent[1].id).await.status, Status::Done, "{state}");
    }
    running.stop().await;
}

pub(super) async fn a_result_that_the_database_fails_at_for_ever_holds_up_no_other(s: Setting) {
    sabotage(&s.db, "done", "new.payload = '\"bad\"'", "XX000", u32::MAX).await;
    let running = Running::start(&s.bus, Echo, Duration::from_secs(2)).await;
    let bad = echo(json!("bad")).with_max_attempts(1);
    let bad = s.admin.publish(bad).await.expect("published").id;
    for n in 0..20 {
        let good = s.admin.publish(echo(json!(n))).await.expect("published").id;
        let done = finished(&s.admin, good).await;
        assert_eq!((done.status, done.attempts), (Status::Done, 1), "{n}");
    }
    // It was given up after a lease, whose end nobody put off any more.
    let dead = eventually("it is taken back", async || {
        s.admin.reap(10).await.expect("reaped");
        let message = s.admin.message(bad).await.expect("found");
        message.status.is_final().then_some(message)
    })
    .await;
    assert_eq!(dead.error.expect("an error")["class"], "lease_expired");
    running.stop().await;
}

pub(super) async fn a_right_that_is_missing_is_told_with_what_gives_it(s: Setting) {
    let revoke =
        "revoke execute on function public.bus_step(jsonb, text, text[], integer, integer, text)
        from cogo_bus, authenticated, service_role";
    sqlx::raw_sql(revoke).execute(s.db.pool()).await.expect("revoked");
    let bus = match s.way {
        Way::Postgres => {
            let login = s.db.connect_options().options([("role", "cogo_bus")]);
            Bus::new(db::Options::new(login).pool())
        }
        Way::Service | Way::Token => s.bus.clone(),
    };
    let options = Options {
        worker_id: "w.1".to_owned(),
        tenant: "default".to_owned(),
        topics: vec![topic()],
        concurrency: 4,
        prefetch: cogo::worker::Prefetch::Auto,
        lease: LEASE,
    };
    let runner = Runner::new(Echo, options, bus.clone(), Policies::default());
    let (shutdown, ready) = (Shutdown::new(), watch::channel(false).0);
    let ended = tokio::time::timeout(SOON, runner.run(&shutdown, &ready)).await.expect("at once");
    let error = ended.expect_err("denied");
    assert_eq!(error.code(), Code::Forbidden, "{error:?}");
    let says = error.to_string();
    for word in ["permission denied for function bus_step", "`cogo migrate`", "`grant cogo_bus to`"]
    {
        assert!(says.contains(word), "{word}: {says}");
    }
    // What it says helps.
    sqlx::raw_sql("select cogo.grant_rights()").execute(s.db.pool()).await.expect("granted");
    let running = Running::start(&bus, Echo, LEASE).await;
    let id = s.admin.publish(echo(json!(1))).await.expect("published").id;
    assert_eq!(finished(&s.admin, id).await.status, Status::Done);
    running.stop().await;
}
