//! Calls as tasks: what a tool asks on the way, and what it is answered.

use cogo::message::Status;
use cogo_worker_mcp_gateway::mesh::{Outcome, Refusal, Request, Task, TaskState};
use cogo_worker_mcp_gateway::upstream::Input;
use serde_json::{Map, Value, json};

use super::site::{Site, request};
use crate::support::asks::Asks;
use crate::support::{object, text};

fn asks(task: &Task) -> bool {
    matches!(task.state, TaskState::InputRequired(_))
}

fn ended(task: &Task) -> bool {
    task.state.is_final()
}

fn open(task: &Task) -> Vec<String> {
    match &task.state {
        TaskState::InputRequired(open) => open.keys().cloned().collect(),
        other => panic!("no question: {other:?}"),
    }
}

fn said(task: &Task) -> Value {
    match &task.state {
        TaskState::Completed(result) => serde_json::from_str(text(result)).expect("JSON"),
        other => panic!("no result: {other:?}"),
    }
}

fn answers(value: Value) -> Map<String, Value> {
    object(value)
}

#[tokio::test]
async fn a_client_may_answer_by_calling_again_with_what_it_was_given() {
    let (site, asks) = (Site::new().await, Asks::start().await);
    let _machine = site.machine(&[("asks", &asks.url)]).await;
    let Outcome::Result(asked) = site.call("asks", "one", json!({"x": 1})).await else {
        panic!("a question")
    };
    assert_eq!(asked["resultType"], "input_required");
    assert_eq!(asked["inputRequests"]["name"]["method"], "elicitation/create");
    let input = Input {
        responses: [("name".to_owned(), json!({"action": "accept"}))].into(),
        state: asked["requestState"].as_str().map(str::to_owned),
    };
    let again = Request { input: Some(input), ..request("asks", "one", json!({"x": 1})) };
    let started = site.mesh.start(&site.admin(), again).await.expect("taken");
    let Outcome::Result(result) = site.end(&started).await else { panic!("a result") };
    let said: Value = serde_json::from_str(text(&result)).expect("JSON");
    assert_eq!(said, json!({"given": {"name": {"action": "accept"}}, "state": "s-1"}));
    assert_eq!(asks.calls("one")[1]["arguments"], json!({"x": 1}));
    assert_eq!(site.bus.message(started.id).await.expect("a message").attempts, 1);
}

#[tokio::test]
async fn a_task_asks_and_goes_on_once_it_is_answered() {
    let (site, server) = (Site::new().await, Asks::start().await);
    let _machine = site.machine(&[("asks", &server.url)]).await;
    let who = site.sender(&["mcp-gateway/asks"]);
    let started =
        site.mesh.start(&who, request("asks", "one", json!({"x": 1}))).await.expect("taken");
    let task = site.task(&who, started.id, asks).await;
    assert_eq!(open(&task), ["name"]);
    // What was not asked is of no effect.
    site.mesh.answer(&who, started.id, answers(json!({"else": 1}))).await.expect("taken");
    assert_eq!(open(&site.task(&who, started.id, |_| true).await), ["name"]);
    let yes = json!({"action": "accept", "content": {"n": "Ada"}});
    site.mesh.answer(&who, started.id, answers(json!({"name": yes}))).await.expect("taken");
    // Twice is once.
    site.mesh.answer(&who, started.id, answers(json!({"name": "late"}))).await.expect("taken");
    let task = site.task(&who, started.id, ended).await;
    assert_eq!(said(&task), json!({"given": {"name": yes}, "state": "s-1"}));
    assert_eq!((task.id, task.trace_id), (started.id, started.trace_id));
    let calls = server.calls("one");
    assert_eq!(calls.len(), 2, "each step once");
    assert_eq!(calls[1]["arguments"], json!({"x": 1}));
    let events = site.bus.trace_events(started.trace_id, 100).await.expect("events");
    let follow_up = events.iter().filter_map(|event| event.message_id).find(|id| *id != started.id);
    let follow_up = site.bus.message(follow_up.expect("in one trace")).await.expect("a message");
    assert_eq!((follow_up.parent_id, follow_up.status), (Some(started.id), Status::Done));
    let stranger = site.sender(&["mcp-gateway/other"]);
    for stranger in [stranger, site.admin_of("other")] {
        let refusal = site.mesh.task(&stranger, started.id).await.expect_err("not theirs");
        assert!(matches!(refusal, Refusal::NoCall(_)), "{refusal:?}");
    }
    site.verify().await;
}

#[tokio::test]
async fn answers_may_come_one_by_one_and_the_first_to_a_question_stands() {
    let (site, server) = (Site::new().await, Asks::start().await);
    let _machine = site.machine(&[("asks", &server.url)]).await;
    let who = site.sender(&["mcp-gateway/asks"]);
    let started = site.mesh.start(&who, request("asks", "two", json!({}))).await.expect("taken");
    assert_eq!(open(&site.task(&who, started.id, asks).await), ["a", "b"]);
    let answer = async |given| site.mesh.answer(&who, started.id, answers(given)).await;
    answer(json!({"b": 1})).await.expect("taken");
    assert_eq!(open(&site.task(&who, started.id, |_| true).await), ["a"]);
    answer(json!({"b": 2, "c": 3})).await.expect("taken");
    assert_eq!(open(&site.task(&who, started.id, |_| true).await), ["a"]);
    assert_eq!(server.calls("two").len(), 1, "nothing went on");
    let huge = answer(json!({"a": "x".repeat(100_000)})).await;
    huge.expect("what is answered for good is a message, and may be large");
    let task = site.task(&who, started.id, ended).await;
    let given = said(&task)["given"].clone();
    assert_eq!((&given["b"], given["a"].as_str().map(str::len)), (&json!(1), Some(100_000)));
    assert_eq!(server.calls("two").len(), 2);
    site.verify().await;
}

#[tokio::test]
async fn a_partial_answer_that_is_too_large_is_refused() {
    let (site, server) = (Site::new().await, Asks::start().await);
    let _machine = site.machine(&[("asks", &server.url)]).await;
    let who = site.admin();
    let started = site.mesh.start(&who, request("asks", "two", json!({}))).await.expect("taken");
    site.task(&who, started.id, asks).await;
    let huge = answers(json!({"a": "x".repeat(100_000)}));
    let refusal = site.mesh.answer(&who, started.id, huge).await.expect_err("too large");
    assert!(matches!(refusal, Refusal::InvalidArguments { .. }), "{refusal:?}");
    assert_eq!(open(&site.task(&who, started.id, |_| true).await), ["a", "b"]);
}

#[tokio::test]
async fn answers_that_come_at_once_from_many_are_each_counted_once() {
    let (site, server) = (Site::new().await, Asks::start().await);
    let _machine = site.machine(&[("asks", &server.url)]).await;
    let who = site.admin();
    for _ in 0..5 {
        let started =
            site.mesh.start(&who, request("asks", "two", json!({}))).await.expect("taken");
        site.task(&who, started.id, asks).await;
        let before = server.calls("two").len();
        let answer = async |given| site.mesh.answer(&who, started.id, answers(given)).await;
        let (a, b, again) = tokio::join!(
            answer(json!({"a": 1})),
            answer(json!({"b": 2})),
            answer(json!({"a": 1, "b": 2})),
        );
        a.and(b).and(again).expect("taken");
        let task = site.task(&who, started.id, ended).await;
        assert_eq!(said(&task)["given"], json!({"a": 1, "b": 2}));
        assert_eq!(server.calls("two").len() - before, 1, "it went on once");
    }
}

#[tokio::test]
async fn a_tool_that_asks_the_same_again_is_answered_anew() {
    let (site, server) = (Site::new().await, Asks::start().await);
    let _machine = site.machine(&[("asks", &server.url)]).await;
    let who = site.admin();
    let started = site.start("asks", "rounds", json!({})).await;
    let answer = async |given| site.mesh.answer(&who, started.id, answers(given)).await;
    assert_eq!(open(&site.task(&who, started.id, asks).await), ["again"]);
    answer(json!({"again": 1})).await.expect("taken");
    let second = |task: &Task| asks(task) && open(task) != ["again"];
    assert_eq!(open(&site.task(&who, started.id, second).await), ["again#2"]);
    answer(json!({"again": "the first one's, late"})).await.expect("taken");
    assert_eq!(open(&site.task(&who, started.id, |_| true).await), ["again#2"]);
    answer(json!({"again#2": 2})).await.expect("taken");
    let task = site.task(&who, started.id, ended).await;
    assert_eq!(said(&task), json!({"given": {"again": 2}, "state": "2"}));
}

#[tokio::test]
async fn a_tool_that_only_wants_to_be_called_later_is() {
    let (site, server) = (Site::new().await, Asks::start().await);
    let _machine = site.machine(&[("asks", &server.url)]).await;
    let started = site.start("asks", "later", json!({})).await;
    let task = site.task(&site.admin(), started.id, ended).await;
    assert_eq!(said(&task), json!("now"));
    assert_eq!(server.calls("later").len(), 2);
    // One that names nothing at all breaks the protocol.
    let started = site.start("asks", "hollow", json!({})).await;
    let task = site.task(&site.admin(), started.id, ended).await;
    assert!(matches!(&task.state, TaskState::Failed(f) if f.class == "protocol"), "{task:?}");
}

#[tokio::test]
async fn a_task_that_asks_is_cancelled_for_good() {
    let (site, server) = (Site::new().await, Asks::start().await);
    let _machine = site.machine(&[("asks", &server.url)]).await;
    let who = site.sender(&["mcp-gateway/asks"]);
    let started = site.mesh.start(&who, request("asks", "one", json!({}))).await.expect("taken");
    site.task(&who, started.id, asks).await;
    site.mesh.cancel(&who, started.id, "never mind").await.expect("cancelled");
    assert_eq!(site.task(&who, started.id, |_| true).await.state, TaskState::Cancelled);
    site.mesh.answer(&who, started.id, answers(json!({"name": 1}))).await.expect("of no effect");
    site.mesh.cancel(&who, started.id, "again").await.expect("it has ended");
    assert_eq!(site.task(&who, started.id, |_| true).await.state, TaskState::Cancelled);
    assert_eq!(server.calls("one").len(), 1);
    assert_eq!(site.messages().await, 0, "nothing waits");
    // One that goes on is cancelled where it is.
    let started = site.mesh.start(&who, request("asks", "rounds", json!({}))).await.expect("taken");
    site.task(&who, started.id, asks).await;
    site.mesh.answer(&who, started.id, answers(json!({"again": 1}))).await.expect("taken");
    site.task(&who, started.id, |task| asks(task) && open(task) == ["again#2"]).await;
    site.mesh.cancel(&who, started.id, "enough").await.expect("cancelled");
    assert_eq!(site.task(&who, started.id, |_| true).await.state, TaskState::Cancelled);
    site.verify().await;
}

#[tokio::test]
async fn an_answer_and_a_cancellation_together_end_in_one_of_both() {
    let (site, server) = (Site::new().await, Asks::start().await);
    let _machine = site.machine(&[("asks", &server.url)]).await;
    let who = site.admin();
    for _ in 0..5 {
        let started = site.start("asks", "one", json!({})).await;
        site.task(&who, started.id, asks).await;
        let (answered, cancelled) = tokio::join!(
            site.mesh.answer(&who, started.id, answers(json!({"name": 1}))),
            site.mesh.cancel(&who, started.id, "no"),
        );
        answered.and(cancelled).expect("taken");
        let state = site.task(&who, started.id, ended).await.state;
        assert!(matches!(state, TaskState::Cancelled | TaskState::Completed(_)), "{state:?}");
    }
    assert_eq!(site.messages().await, 0, "nothing is left");
}

/// The hub dies between two steps: what it had begun is finished by whoever asks next.
#[tokio::test]
async fn what_a_crash_left_out_is_made_up_for() {
    let (site, server) = (Site::new().await, Asks::start().await);
    let _machine = site.machine(&[("asks", &server.url)]).await;
    let who = site.admin();
    let started = site.start("asks", "two", json!({})).await;
    site.task(&who, started.id, asks).await;
    // All answers are in the log, and the follow-up is not there.
    let message = site.bus.message(started.id).await.expect("a message");
    for given in [json!({"a": 1}), json!({"b": 2})] {
        let event = json!({"event_type": "mcp_call_input", "message_id": message.id,
            "trace_id": message.trace_id, "tenant": message.tenant, "role": message.role,
            "service": message.service, "payload": {"responses": given, "task": message.id}});
        site.bus.append_event(event).await.expect("appended");
    }
    let task = site.task(&who, started.id, ended).await;
    assert_eq!(said(&task)["given"], json!({"a": 1, "b": 2}));
    assert_eq!(server.calls("two").len(), 2);
}

#[tokio::test]
async fn a_tool_that_never_stops_asking_is_stopped() {
    let (site, server) = (Site::new().await, Asks::start().await);
    let _machine = site.machine(&[("asks", &server.url)]).await;
    let who = site.admin();
    let started = site.start("asks", "for_ever", json!({})).await;
    loop {
        let task = site.task(&who, started.id, |task| asks(task) || ended(task)).await;
        if ended(&task) {
            assert!(matches!(&task.state, TaskState::Failed(f) if f.message.contains("32 times")));
            break;
        }
        let name = open(&task).remove(0);
        site.mesh.answer(&who, started.id, answers(json!({name: 1}))).await.expect("taken");
    }
    assert_eq!(server.calls("for_ever").len(), 33);
}
