//! A real browser behind a NAT, used by an MCP client that knows the hub and nothing else.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use crate::client::Sdk;
use crate::hub::busy;
use crate::inside::inside;
use crate::net::impossible;
use crate::support::until;
use crate::world::{World, check_chromium, picture};

/// The size of the browser's window.
const VIEWPORT: (u32, u32) = (320, 240);
/// The background of the page `/green`; of any other it is [`BLUE`].
const GREEN: [u8; 3] = [0x0a, 0x7d, 0x4b];
/// See [`GREEN`].
const BLUE: [u8; 3] = [0x1d, 0x3a, 0xb8];

#[test]
fn a_browser_behind_a_nat_shows_an_mcp_client_its_pages() -> Result<()> {
    if let Some(why) = impossible() {
        let mut stderr = std::io::stderr();
        let _nobody_listens =
            writeln!(stderr, "mesh: skipped, since network namespaces cannot be had here: {why}");
        return Ok(());
    }
    let _busy = busy();
    check_chromium();
    let mut world = World::new()?;
    world.net.check_that_nothing_comes_in()?;
    let page = serve(&world.net.worker)?;
    world.start_worker(VIEWPORT)?;
    let client = world.connect(Sdk::TypeScript2);
    let has_it = || client.tools().iter().any(|name| name == "browser__browser_navigate");
    assert!(until(has_it), "{:?}\n{}", client.tools(), world.worker_log());

    let screenshot = |colour: [u8; 3]| {
        let taken =
            client.call("browser__browser_take_screenshot", json!({"type": "png", "scale": "css"}));
        let picture = picture(&taken);
        assert_eq!((picture.width, picture.height), VIEWPORT);
        for (x, y) in [(0, 0), (VIEWPORT.0 - 1, VIEWPORT.1 - 1), (VIEWPORT.0 / 2, 5)] {
            assert_eq!(picture.at(x, y), colour, "at {x}, {y}");
        }
    };
    let gone_to = client.call("browser__browser_navigate", json!({"url": format!("{page}/green")}));
    assert!(
        gone_to.to_string().contains("The page of the mesh"),
        "{gone_to}\n{}",
        world.worker_log()
    );
    screenshot(GREEN);

    world.kill_worker();
    // The machine is away: its tools stay, and what is asked of them waits for it.
    let key = json!({"cogo/idempotency_key": "while-it-is-away"});
    let away = json!({"url": format!("{page}/blue")});
    client.begin(1, "browser__browser_navigate", away, key);
    thread::sleep(Duration::from_secs(2));
    assert!(has_it(), "the tools are gone with their machine: {:?}", client.tools());
    world.start_worker(VIEWPORT)?;
    let ended = client.ended(1);
    assert!(
        ended["result"].to_string().contains("The page of the mesh"),
        "{ended}\n{}",
        world.worker_log()
    );
    screenshot(BLUE);
    Ok(())
}

/// Serves the pages on a loopback address of the namespace, until the process ends; their address.
fn serve(namespace: &str) -> Result<String> {
    let listener = inside(namespace, || TcpListener::bind("127.0.0.1:0"))?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let mut head = [0; 4096];
                let read = stream.read(&mut head).unwrap_or(0);
                let [r, g, b] = if head[..read].starts_with(b"GET /green ") { GREEN } else { BLUE };
                let page = format!(
                    "<!doctype html><title>The page of the mesh</title><style>html {{ background: rgb({r} {g} {b}) }}</style>"
                );
                let _gone = write!(
                    stream,
                    "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{page}",
                    page.len()
                );
            });
        }
    });
    Ok(format!("http://{address}"))
}
