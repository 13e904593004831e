//! The same over HTTP: through a hub, as machines have it that reach no database.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use crate::bench::Run;
use crate::bench::child::Hub;
use crate::bench::load::Messages;
use crate::bench::measure::{Case, Record};
use crate::bench::scenario::enqueue;
use crate::bench::scenario::steady::Stream;

pub(super) const ABOUT: &str = "Enqueueing and the steady stream through a hub: requests to /rest/v1, wake-ups over the \
    Realtime WebSocket; hub, sender and worker as three processes have them";

/// Producers, and how many messages each sends at once.
const SENDERS: [(usize, u64); 5] = [(1, 1), (8, 1), (32, 1), (1, 100), (4, 1000)];

pub(super) async fn measure(run: &Run, record: &Record) -> Result<()> {
    for round in 1..=run.plan.rounds {
        let messages = Messages::of(run.plan.payload_bytes);
        for sender in SENDERS {
            let case = enqueue::case(sender.0, sender.1);
            run.screen.doing(&format!("far: {}, round {round}", case.name()));
            // Each on a table that is as good as empty, as in `enqueue`.
            let database = run.place.database().await?;
            let hub = Hub::start(run, &database, 0).await?;
            let bus = hub.bus(false)?;
            let spell = run.plan.spell();
            enqueue::send(&bus, &messages, sender, spell / 10, &database.tasks).await?;
            enqueue::send(&bus, &messages, sender, spell, &database.tasks)
                .await?
                .put(record, &case);
            hub.stop().await?;
            run.place.drop_database(database).await?;
        }
        let usual = Duration::from_secs(run.plan.seconds);
        for (rate, spell) in [(run.plan.rate, usual), (10, usual / 2)] {
            let case = Case::new(
                format!("{rate} a second, to a handler"),
                json!({"rate": rate, "seconds": spell.as_secs_f64()}),
            );
            run.screen.doing(&format!("far: {}, round {round}", case.name()));
            let database = run.place.database().await?;
            let hub = Hub::start(run, &database, 0).await?;
            let stream = Stream { sender: hub.bus(false)?, worker: hub.bus(true)?, rate, spell };
            stream.run(&messages, run.plan.concurrency, &database.tasks, record, &case).await?;
            drop(stream);
            hub.stop().await?;
            run.place.drop_database(database).await?;
        }
    }
    Ok(())
}
