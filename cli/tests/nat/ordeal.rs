//! What is done to the link, and what must hold.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use cogo::clock::{Stopwatch, utc_now};

use crate::inside::inside;
use crate::net::{Egress, HUB, Net, ROUTER, impossible};
use crate::proxy;
use crate::support::until;
use crate::tls::NAME;
use crate::world::{BACK_WITHIN, BUSY, LEASE, Stream, World};

/// Something that happens to a worker; it returns when that is over.
type Fault = fn(&World) -> Result<()>;

/// Even where tests are not to say anything.
fn say(line: &str) {
    let _nobody_listens = writeln!(std::io::stderr(), "nat: {line}");
}

fn can_be_run() -> bool {
    if let Some(why) = impossible() {
        say(&format!("skipped, since network namespaces cannot be had here: {why}"));
        return false;
    }
    true
}

/// Does something to the worker, and measures how long after that it is back; on a machine with nothing else to do that is
/// within [`BACK_WITHIN`].
fn suffer(world: &World, slow: &mut Vec<String>, what: &str, fault: Fault) -> Result<()> {
    fault(world)?;
    let back = world.back_after(utc_now())?;
    say(&format!("{what}: back after {} ms", back.as_millis()));
    if back > BACK_WITHIN + BUSY {
        slow.push(format!("{what}: {back:?}"));
    }
    Ok(())
}

/// Cuts the link for so long.
fn cut_for(world: &World, time: Duration) -> Result<()> {
    world.net.cut()?;
    thread::sleep(time);
    world.net.mend()
}

/// Ends the stream; each message must be done, and exactly once.
fn nothing_is_lost_and_nothing_done_twice(world: &World, stream: &Stream) -> Result<()> {
    let ids = stream.end()?;
    let left = "agent_messages?role=eq.echo&status=neq.done&select=id,status,attempts";
    let all_done =
        until(|| world.get(left).is_ok_and(|rows| rows.as_array().is_some_and(Vec::is_empty)));
    ensure!(all_done, "some are not done: {}\n{}", world.get(left)?, world.worker_log());
    let mut done: HashMap<String, usize> = HashMap::new();
    let mut seen = 0;
    loop {
        let page = world.get(&format!(
            "bus_events?event_type=eq.echo_succeeded&select=message_id&order=xid,seq&limit=500&offset={seen}"
        ))?;
        let rows = page.as_array().map(Vec::as_slice).unwrap_or_default();
        for row in rows {
            *done.entry(row["message_id"].as_str().unwrap_or_default().to_owned()).or_default() +=
                1;
        }
        seen += rows.len();
        if rows.is_empty() {
            break;
        }
    }
    let lost: Vec<_> = ids.iter().filter(|id| !done.contains_key(*id)).collect();
    let twice: Vec<_> = done.iter().filter(|(_, times)| **times != 1).collect();
    ensure!(lost.is_empty() && twice.is_empty(), "lost: {lost:?}; done more than once: {twice:?}");
    ensure!(done.len() >= ids.len(), "{} of {} done", done.len(), ids.len());
    say(&format!("{} messages, each done once", ids.len()));
    Ok(())
}

#[test]
fn a_worker_behind_a_nat_survives_what_happens_to_its_link() -> Result<()> {
    if !can_be_run() {
        return Ok(());
    }
    let net = Net::new(Egress::Direct)?;
    net.check_that_nothing_comes_in()?;
    let mut world = World::new(net)?;
    world.start_worker(&format!("https://{HUB}"), &[])?;
    let stream = world.stream();
    world.back_after(utc_now())?;

    let faults: [(&str, Fault); 7] = [
        ("silence for 5 s", |world| cut_for(world, Duration::from_secs(5))),
        ("unplugged for 5 s", |world| {
            world.net.unplug()?;
            thread::sleep(Duration::from_secs(5));
            world.net.plug()
        }),
        ("all connections forgotten by the router", |world| world.net.forget()),
        ("another address of the router", |world| world.net.move_router("203.0.113.2")),
        ("another address of the worker", |world| world.net.move_worker("192.168.77.20")),
        ("asleep for two leases", |world| {
            world.signal_worker("STOP")?;
            thread::sleep(LEASE * 2);
            world.signal_worker("CONT")
        }),
        ("silence for 65 s, and another address of the router", |world| {
            world.net.cut()?;
            let watch = Stopwatch::start();
            let is_offline =
                until(|| world.worker_status().is_ok_and(|status| status == "offline"));
            ensure!(is_offline, "a minute later the worker is {}", world.worker_status()?);
            thread::sleep(Duration::from_secs(65).saturating_sub(watch.elapsed()));
            world.net.move_router("203.0.113.3")?;
            world.net.mend()
        }),
    ];
    let mut slow = Vec::new();
    for (what, fault) in faults {
        suffer(&world, &mut slow, what, fault)?;
    }
    let gone =
        world.get("bus_events?event_type=eq.agent_offline&worker_id=eq.laptop&select=reason")?;
    ensure!(gone.to_string().contains("lost"), "the log does not say that it was lost: {gone}");
    // It works as soon as it gets through, and shows itself by another call.
    let is_online = until(|| world.worker_status().is_ok_and(|status| status == "online"));
    ensure!(is_online, "it is back, and {}", world.worker_status()?);
    nothing_is_lost_and_nothing_done_twice(&world, &stream)?;
    world.stop_worker()?;
    ensure!(slow.is_empty(), "it took more than {BACK_WITHIN:?}: {slow:?}\n{}", world.worker_log());
    Ok(())
}

#[test]
fn a_worker_that_may_leave_by_a_proxy_alone_works_as_well() -> Result<()> {
    if !can_be_run() {
        return Ok(());
    }
    let net = Net::new(Egress::ProxyOnly)?;
    net.check_that_nothing_comes_in()?;
    let tunnels = proxy::serve(&net.router);
    let mut world = World::new(net)?;
    ensure!(!world.net.gets_out(&format!("{HUB}:443")), "the worker gets out without the proxy");
    let proxy = format!("http://{ROUTER}:{}", proxy::PORT);
    world.start_worker(&format!("https://{NAME}"), &[("HTTPS_PROXY", proxy)])?;
    let stream = world.stream();
    world.back_after(utc_now())?;
    let both = until(|| tunnels.load(Ordering::Relaxed) >= 2);
    ensure!(both, "REST and Realtime have a tunnel each");
    let faults: [(&str, Fault); 2] = [
        ("through a proxy, silence for 5 s", |world| cut_for(world, Duration::from_secs(5))),
        ("through a proxy, silence for 20 s and another address", |world| {
            world.net.cut()?;
            thread::sleep(Duration::from_secs(20));
            world.net.move_worker("192.168.77.20")?;
            world.net.mend()
        }),
    ];
    let mut slow = Vec::new();
    for (what, fault) in faults {
        suffer(&world, &mut slow, what, fault)?;
    }
    nothing_is_lost_and_nothing_done_twice(&world, &stream)?;
    world.stop_worker()?;
    ensure!(slow.is_empty(), "it took more than {BACK_WITHIN:?}: {slow:?}\n{}", world.worker_log());
    Ok(())
}

/// What the other tests stand on: were the link not cut, they would show nothing.
#[test]
fn the_link_is_there_and_is_not_as_it_is_said() -> Result<()> {
    if !can_be_run() {
        return Ok(());
    }
    let net = Net::new(Egress::Direct)?;
    net.check_that_nothing_comes_in()?;
    let _listener = inside(&net.hub, || TcpListener::bind((HUB, 443)))?;
    let out = || net.gets_out(&format!("{HUB}:443"));
    let comes_out = || net.comes_to_get_out(&format!("{HUB}:443"));
    ensure!(comes_out(), "the worker does not get out");
    net.cut()?;
    ensure!(!out(), "the link is not cut");
    net.mend()?;
    ensure!(comes_out(), "the link is not mended");
    net.unplug()?;
    ensure!(!out(), "the plug is not pulled");
    net.plug()?;
    ensure!(comes_out(), "the plug is not in again");
    net.move_router("203.0.113.2")?;
    net.move_worker("192.168.77.20")?;
    ensure!(comes_out(), "with other addresses the worker does not get out");
    let closed = Net::new(Egress::ProxyOnly)?;
    let _listener = inside(&closed.hub, || TcpListener::bind((HUB, 443)))?;
    ensure!(!closed.gets_out(&format!("{HUB}:443")), "the worker gets out without a proxy");
    Ok(())
}

/// A connection that is open when the router forgets it is dead, and nobody is told.
#[test]
fn what_the_router_forgets_is_dead() -> Result<()> {
    if !can_be_run() {
        return Ok(());
    }
    let net = Net::new(Egress::Direct)?;
    let listener = inside(&net.hub, || TcpListener::bind((HUB, 443)))?;
    let mut near = inside(&net.worker, || TcpStream::connect((HUB, 443)))?;
    let (mut far, from) = listener.accept()?;
    ensure!(from.ip().to_string() == "203.0.113.1", "the hub sees {from}, which is not the router");
    let mut byte = [0];
    near.write_all(b"1")?;
    far.set_read_timeout(Some(Duration::from_secs(30)))?;
    far.read_exact(&mut byte)?;
    far.set_read_timeout(Some(Duration::from_secs(1)))?;
    net.forget()?;
    near.write_all(b"2")?;
    ensure!(far.read_exact(&mut byte).is_err(), "the connection lives on");
    Ok(())
}
