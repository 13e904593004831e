//! A database of a scenario, the ways to it, and what runs on it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use cogo::bus::Bus;
use cogo::shutdown::Tasks;
use sqlx::ConnectOptions as _;
use sqlx::postgres::{PgConnectOptions, PgPool};

use crate::connect::{Rights, pool};

/// How long a pool may take to close.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

/// A database with the bus's schema, and nothing in it at first.
#[derive(Debug, Clone)]
pub(crate) struct Database {
    connect: PgConnectOptions,
    name: String,
    /// What runs on it.
    pub(super) tasks: Tasks,
    pools: Arc<Mutex<Vec<PgPool>>>,
}

impl Database {
    pub(super) fn new(connect: PgConnectOptions, name: String, tasks: Tasks) -> Self {
        Self { connect, name, tasks, pools: Arc::default() }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// For a process that is to work on it.
    pub(super) fn url(&self) -> String {
        self.connect.to_url_lossy().to_string()
    }

    /// As its owner, for what no user of the bus may.
    pub(super) async fn owner(&self) -> Result<PgPool> {
        self.pool(Rights::Login, 4).await
    }

    /// A bus as a process of its own would have it: a pool of its own, with the rights of a worker.
    pub(super) async fn bus(&self, connections: u32) -> Result<Bus> {
        let bus = Bus::new(self.pool(Rights::Bus, connections).await?);
        // So that the first call is not the one that pays for the connection.
        bus.schema_version().await?;
        Ok(bus)
    }

    /// For what needs a connection of its own.
    pub(super) async fn one_connection(&self) -> Result<PgPool> {
        self.pool(Rights::Login, 1).await
    }

    async fn pool(&self, rights: Rights, connections: u32) -> Result<PgPool> {
        let pool = pool(&self.connect, rights, connections).await?;
        self.pools.lock().unwrap_or_else(PoisonError::into_inner).push(pool.clone());
        Ok(pool)
    }

    /// Closes all ways to it.
    pub(super) async fn close(&self) {
        let pools = std::mem::take(&mut *self.pools.lock().unwrap_or_else(PoisonError::into_inner));
        let closing = pools.iter().map(PgPool::close);
        let all = futures_util::future::join_all(closing);
        let _too_slow = tokio::time::timeout(CLOSE_WITHIN, all).await;
    }
}
