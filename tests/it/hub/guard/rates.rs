//! How much one address and one key may ask.

use anyhow::Result;
use cogo::hub::{Options, Rate, RateLimit};

use crate::hub::guard::from;
use crate::hub::{Answer, Setup, TOKEN, TestHub};

/// So few and so slowly that no time that a test takes matters: one a second is the least there is, so the bursts
/// are asked for without a pause and counted generously, and what is to be refused may be asked more than once.
fn hub(per_address: Option<Rate>, per_key: Option<Rate>) -> Result<TestHub> {
    let trusted_proxies = vec!["192.0.2.0/24".to_owned()];
    let rate_limit = RateLimit { per_address, per_key, trusted_proxies, ..RateLimit::default() };
    let options = Options { rate_limit, ..Options::default() };
    TestHub::without_database(Setup { options, ..Setup::default() })
}

const FEW: Option<Rate> = Some(Rate { per_second: 1, burst: 5 });
const MANY: Option<Rate> = Some(Rate { per_second: 1_000_000, burst: 1_000_000 });

/// How many of a hundred requests are let through; `n` counts them.
async fn passed(
    hub: &TestHub,
    build: impl Fn(u8) -> Result<axum::http::request::Builder>,
) -> Result<usize> {
    let mut passed = 0;
    for n in 0..100 {
        let answer = hub.bare(build(n)?).await?;
        if answer.status == 429 {
            assert!(answer.text.contains("rate_limit.per_"), "{}", answer.text);
            assert_eq!(answer.header("retry-after"), "1");
        } else {
            passed += 1;
        }
    }
    Ok(passed)
}

/// The refusal of an address that has asked too much: on a machine that takes a second between two requests, one more is let
/// through.
async fn refused(hub: &TestHub, address: &str, path: &str) -> Result<Answer> {
    let mut answer = hub.bare(from(address, "GET", path)?).await?;
    for _ in 0..50 {
        if answer.status == 429 {
            break;
        }
        answer = hub.bare(from(address, "GET", path)?).await?;
    }
    Ok(answer)
}

#[tokio::test]
async fn an_address_that_asks_too_much_is_told_when_to_come_back() -> Result<()> {
    let hub = hub(FEW, None)?;
    let some = passed(&hub, |_| from("10.0.0.1", "GET", "/metrics-of-nothing")).await?;
    assert!((5..50).contains(&some), "{some}");
    refused(&hub, "10.0.0.1", "/nowhere").await?.error(429, "rate_limited")?;
    let again = hub.bare(from("10.0.0.2", "GET", "/nowhere")?).await?;
    assert_eq!(again.status, 404, "another address has its own");
    for path in ["/healthz", "/readyz"] {
        let answer = hub.bare(from("10.0.0.1", "GET", path)?).await?;
        assert_ne!(answer.status, 429, "{path} is asked by probes");
    }
    // In the words of the protocol.
    let rest = refused(&hub, "10.0.0.1", "/rest/v1/x").await?;
    assert_eq!(rest.status, 429);
    assert!(rest.json()?["message"].as_str().is_some_and(|text| text.contains("too many")));
    Ok(())
}

#[tokio::test]
async fn no_header_makes_an_address_another_one_unless_a_trusted_proxy_sent_it() -> Result<()> {
    let hub = hub(FEW, None)?;
    let spoofed = |n: u8| {
        Ok(from("10.0.0.1", "GET", "/nowhere")?
            .header("x-forwarded-for", format!("203.0.113.{n}"))
            .header("forwarded", format!("for=203.0.113.{n}")))
    };
    assert!(passed(&hub, spoofed).await? < 50);
    let spoofed_before_the_proxy = |n: u8| {
        Ok(from("192.0.2.1", "GET", "/nowhere")?
            .header("x-forwarded-for", format!("203.0.113.{n}, 198.51.100.7, 192.0.2.9")))
    };
    assert!(passed(&hub, spoofed_before_the_proxy).await? < 50);
    let each_its_own = |n: u8| {
        Ok(from("192.0.2.1", "GET", "/nowhere")?
            .header("x-forwarded-for", format!("203.0.113.{n}")))
    };
    assert_eq!(passed(&hub, each_its_own).await?, 100);
    let one_site = |n: u8| from(&format!("2001:db8::{n:x}"), "GET", "/nowhere");
    assert!(passed(&hub, one_site).await? < 50);
    Ok(())
}

#[tokio::test]
async fn a_key_that_asks_too_much_is_held_back_from_wherever_it_comes() -> Result<()> {
    let hub = hub(MANY, FEW)?;
    let with = |n: u8, token: &'static str| {
        Ok(from(&format!("10.0.1.{n}"), "GET", "/nowhere")?.header("authorization", token))
    };
    assert!(passed(&hub, |n| with(n, "Bearer a.b.c")).await? < 50);
    assert!(passed(&hub, |n| with(n, "Bearer a.b.d")).await? >= 5, "another key has its own");
    let without = |_| from("10.0.2.1", "GET", "/nowhere");
    assert_eq!(passed(&hub, without).await?, 100);
    // What is sent beside it, or how it is written, makes it no other key.
    let beside = |n: u8| {
        Ok(from(&format!("10.0.3.{n}"), "GET", "/rest/v1/x")?
            .header("x-admin-token", format!("another-{n}"))
            .header("apikey", format!("sb_{n}"))
            .header("authorization", "Bearer a.b.e"))
    };
    assert!(passed(&hub, beside).await? < 50);
    let ways = ["Bearer a.b.f", "bearer a.b.f", "BEARER  a.b.f"];
    let written = |n: u8| {
        Ok(from("10.0.4.1", "GET", "/mcp/x")?.header("authorization", ways[usize::from(n) % 3]))
    };
    assert!(passed(&hub, written).await? < 15);
    let in_the_address = |n: u8| from(&format!("10.0.5.{n}"), "GET", "/rest/v1/x?apikey=a.b.g");
    assert!(passed(&hub, in_the_address).await? < 50);
    Ok(())
}

#[tokio::test]
async fn a_socket_is_counted_by_the_key_that_it_is_asked_for_with() -> Result<()> {
    let hub = hub(MANY, FEW)?;
    let socket = "/realtime/v1/websocket";
    let by_header = |n: u8| {
        Ok(from(&format!("10.0.6.{n}"), "GET", socket)?
            .header("apikey", "a.b.h")
            .header("authorization", format!("Bearer a.b.{n}")))
    };
    assert!(passed(&hub, by_header).await? < 50);
    let by_address = |n: u8| {
        Ok(from(&format!("10.0.7.{n}"), "GET", &format!("{socket}?apikey=a.b.i&vsn=2.0.0"))?
            .header("authorization", format!("Bearer a.b.{n}")))
    };
    assert!(passed(&hub, by_address).await? < 50);
    let by_the_first = |n: u8| {
        Ok(from(&format!("10.0.8.{n}"), "GET", &format!("{socket}?apikey=a.b.{n}"))?
            .header("x-api-key", "a.b.j")
            .header("apikey", format!("a.c.{n}")))
    };
    assert!(passed(&hub, by_the_first).await? < 50);
    let by_bearer = |n: u8| {
        Ok(from(&format!("10.0.9.{n}"), "GET", socket)?.header("authorization", "Bearer a.b.k"))
    };
    assert!(passed(&hub, by_bearer).await? < 50);
    let each_its_own = |n: u8| {
        Ok(from("10.0.10.1", "GET", &format!("{socket}?apikey=a.d.{n}"))?
            .header("authorization", "Bearer a.b.l"))
    };
    assert_eq!(passed(&hub, each_its_own).await?, 100);
    Ok(())
}

#[tokio::test]
async fn programs_of_this_machine_are_not_counted_unless_they_forward() -> Result<()> {
    let hub = hub(FEW, FEW)?;
    for address in ["127.0.0.1", "::1"] {
        let local = |_| Ok(from(address, "GET", "/nowhere")?.header("x-admin-token", TOKEN));
        assert_eq!(passed(&hub, local).await?, 100);
        let forwards =
            |_| Ok(from(address, "GET", "/nowhere")?.header("x-forwarded-for", "10.0.0.1"));
        assert!(passed(&hub, forwards).await? < 50, "{address}");
    }
    Ok(())
}
