//! The console in a real browser: Debian's Chromium, driven by the scenarios of `tests/console`, against `cogo up` with
//! the demo toolset and one whose tools fail in all the ways that the console explains.
//!
//! Each test has a hub and a database of its own. Screenshots of every page lie in `target/console/screenshots`.

#![cfg(target_os = "linux")]

mod driver;
#[allow(dead_code, reason = "another binary's, which uses all of it")]
#[path = "../it/support.rs"]
mod support;
mod world;

use world::World;

#[tokio::test(flavor = "multi_thread")]
async fn every_page_has_its_data_in_each_look() {
    World::new().await.run(&["every", "choices", "literals"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_signs_in_looks_and_acts() {
    let scenarios = ["signing", "arriving", "calling", "keyboard", "requeue", "circuits"];
    World::new().await.run(&scenarios).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_events_go_on_where_they_were_when_the_hub_is_killed() {
    World::new().await.run(&["killed"]).await;
}

#[test]
fn the_catalogues_say_the_same() {
    driver::catalogues();
}
