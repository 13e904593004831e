//! Wake-ups between the processes of one database: LISTEN and NOTIFY.
//!
//! NOTIFY never stands in the transaction that it tells of: it takes one lock for the whole cluster until
//! commit. It is sent afterwards, from one place, at most once in [`COALESCE`].

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgListener, PgPool};

use crate::bus::at_hand::AtHand;
use crate::bus::patience::Patient;
use crate::bus::queries;
use crate::bus::wake::{Signal, Wake};
use crate::error::chain;
use crate::shutdown::Tasks;

/// How long wake-ups for other processes are gathered after one was sent.
const COALESCE: Duration = Duration::from_millis(10);
/// How long to wait before listening again after the connection was lost.
const RECONNECT: Duration = Duration::from_secs(1);

const CHANNELS: [(Signal, &str); 5] = [
    (Signal::Work, "cogo_work"),
    (Signal::Log, "cogo_log"),
    (Signal::Circuit, "cogo_circuit"),
    (Signal::Claims, "cogo_claims"),
    (Signal::Env, "cogo_env"),
];

/// Tells other processes to look at everything. It costs a round trip, and a needless wake-up when
/// our task was faster; that it may be half-way is why this does not leave it to that.
pub(super) async fn tell_now(connections: &Arc<AtHand>) {
    tell(connections, &CHANNELS.map(|(_, channel)| channel), "").await;
}

async fn tell(connections: &Arc<AtHand>, channels: &[&str], own: &str) {
    if let Err(error) = queries::notify(Patient::new(connections), channels, own).await {
        tracing::debug!(error = %chain(&error), "Could not wake other processes; they poll");
    }
}

/// Starts to tell other processes of our wake-ups.
pub(super) fn start_telling(wake: &Wake, tasks: &Tasks, connections: Arc<AtHand>) {
    let (lines, closed) = (wake.lines(), wake.closed());
    tasks.spawn(async move {
        loop {
            tokio::select! {
                () = lines.to_tell() => {}
                () = closed.cancelled() => return,
            }
            let due = CHANNELS.iter().filter(|(signal, _)| lines.take_to_tell(*signal));
            let channels: Vec<_> = due.map(|(_, channel)| *channel).collect();
            if channels.is_empty() {
                // Told with those before: each signal knocks for itself.
                continue;
            }
            tell(&connections, &channels, lines.own()).await;
            tokio::time::sleep(COALESCE).await;
        }
    });
}

/// Starts to listen for wake-ups of other processes.
pub(super) fn start_listening(wake: &Wake, tasks: &Tasks, pool: PgPool) {
    let (lines, closed) = (wake.lines(), wake.closed());
    tasks.spawn(async move {
        let mut complained = false;
        loop {
            let heard = tokio::select! {
                heard = listen(&pool, &lines) => heard,
                () = closed.cancelled() => return,
            };
            if matches!(heard, Err(sqlx::Error::PoolClosed)) {
                return; // its owner is done with the database
            }
            if let Err(error) = heard
                && !complained
            {
                // Behind a pooler in transaction mode LISTEN never works; once is enough to say so.
                tracing::warn!(error = %chain(&error), "LISTEN failed; polling until it works");
                complained = true;
            }
            tokio::select! {
                () = tokio::time::sleep(RECONNECT) => {}
                () = closed.cancelled() => return,
            }
        }
    });
}

/// Listens until the connection cannot be made again.
async fn listen(pool: &PgPool, lines: &crate::bus::wake::Lines) -> sqlx::Result<Infallible> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.listen_all(CHANNELS.map(|(_, channel)| channel)).await?;
    // Whatever happened before we listened went unheard.
    lines.wake_all_here();
    loop {
        match listener.try_recv().await? {
            // Here it was told at once.
            Some(heard) if heard.payload() == lines.own() => {}
            Some(heard) => {
                for (signal, channel) in CHANNELS {
                    if heard.channel() == channel {
                        lines.heard(signal);
                    }
                }
            }
            // The connection was lost; the next call makes it again. Look, then and now.
            None => lines.wake_all_here(),
        }
    }
}
