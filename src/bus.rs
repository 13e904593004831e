//! The bus client.

use sqlx::postgres::PgPool;

/// The bus, over a pool of connections. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Bus {
    pool: PgPool,
}

impl Bus {
    /// A bus over `pool`.
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// The pool.
    #[must_use]
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }
}
