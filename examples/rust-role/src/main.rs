//! `cogo worker deliver`, once this program is on the `PATH` as `cogo-worker-deliver`; docs/roles-rust.md goes through it.
//!
//! Its environment is what `cogo worker` gives to a program: `COGO_URL` with `COGO_KEY` or `COGO_KEY_FILE`, and
//! `COGO_CONFIG_DIR`. Besides: `DELIVER_TO`, where the items go; `DELIVER_REPEATABLE=1`, where that service knows an
//! `Idempotency-Key` when it sees it again; `COGO_TOPIC` and `COGO_WORKER`.

mod deliver;

use std::env;
use std::error::Error;
use std::path::PathBuf;

use cogo::artifact;
use cogo::bus::Bus;
use cogo::bus::rest::{self, Key};
use cogo::config::{Reload, Source, Worker};
use cogo::live::Live;
use cogo::message::Topic;
use cogo::net;
use cogo::shutdown::{Shutdown, Tasks};
use cogo::worker::{Context, runner};
use tokio::sync::watch;

use crate::deliver::Deliver;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let topic: Topic = var("COGO_TOPIC").unwrap_or("deliver/default".to_owned()).parse()?;
    let net =
        net::Options { ca_file: var("COGO_CA_FILE").map(PathBuf::from), ..net::Options::default() };
    let handler = Deliver {
        to: var("DELIVER_TO").ok_or("DELIVER_TO: must be set")?,
        repeatable: var("DELIVER_REPEATABLE").as_deref() == Some("1"),
        http: net.http_client()?,
    };
    let (shutdown, tasks) = (Shutdown::new(), Tasks::new());
    let context = context(net, &shutdown, &tasks)?;
    let drain = context.drain;
    let stop = shutdown.clone();
    tasks.spawn(async move {
        let _which = Shutdown::signal().await;
        stop.drain(); // takes nothing new, and finishes what it has
        tokio::time::sleep(drain).await;
        stop.cancel(); // puts back the rest
    });
    eprintln!("{} claims {topic}", context.worker_id);
    runner::run(handler, vec![topic], &context).await
}

/// What a role runs with: the bus over HTTPS, and `worker.json` and the policies of the configuration directory.
fn context(
    net: net::Options,
    shutdown: &Shutdown,
    tasks: &Tasks,
) -> Result<Context, Box<dyn Error + Send + Sync>> {
    let config_dir = var("COGO_CONFIG_DIR").map(PathBuf::from);
    let source = Source::new(config_dir.clone());
    let options: Worker = source.load()?;
    let mut reload = Reload::new(source);
    let (retry, breaker) = (reload.watch()?, reload.watch()?);
    tasks.spawn(reload.run(Live::default(), shutdown.draining().clone())); // when a file changes
    let key = match (var("COGO_KEY"), var("COGO_KEY_FILE")) {
        (Some(key), _) => Key::Text(key.as_str().into()),
        (None, Some(file)) => Key::File(file.into()),
        (None, None) => return Err("COGO_KEY or COGO_KEY_FILE: one must be set".into()),
    };
    let url = var("COGO_URL").ok_or("COGO_URL: must be set")?;
    let api_key = var("COGO_API_KEY").map(|key| key.as_str().into());
    let bus = Bus::remote(rest::Options { url, key, api_key, net })?;
    // The key says whose work it is, and which worker this may be.
    let claims = bus.claims();
    let its = claims.as_ref().and_then(|claims| claims.worker.clone());
    let tenant = claims.and_then(|claims| claims.tenant).unwrap_or(options.tenant.clone());
    let artifacts_dir = PathBuf::from(var("COGO_ARTIFACTS_DIR").unwrap_or("artifacts".to_owned()));
    Ok(Context {
        worker_id: var("COGO_WORKER").or(its).unwrap_or("rust-1".to_owned()),
        tenant,
        concurrency: options.concurrency,
        prefetch: options.prefetch,
        lease: options.lease(),
        drain: options.drain(),
        retry,
        breaker,
        config_dir: config_dir.unwrap_or_else(|| "configs".into()),
        artifacts: bus.artifacts().unwrap_or_else(|| {
            artifact::Store::folder(&artifacts_dir, artifact::Limits::default())
        }),
        artifacts_dir,
        reread: Live::default(),
        shutdown: shutdown.clone(),
        ready: watch::Sender::new(false),
        bus,
    })
}

/// A variable that is set to something.
fn var(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}
