//! Rates: so many a second, and as many more at once.

use std::time::Duration;

use tokio::time::Instant;

/// A token bucket.
#[derive(Debug)]
pub(crate) struct Bucket {
    tokens: f64,
    burst: f64,
    per_second: f64,
    since: Instant,
}

impl Bucket {
    /// `count` in each `period`, and `count` at once.
    pub(crate) fn new(count: u32, period: Duration) -> Self {
        let burst = f64::from(count);
        Self {
            tokens: burst,
            burst,
            per_second: burst / period.as_secs_f64(),
            since: Instant::now(),
        }
    }

    /// Takes `count` if they are there.
    pub(crate) fn take(&mut self, count: u32) -> bool {
        let now = Instant::now();
        let grown = (now - self.since).as_secs_f64() * self.per_second;
        self.tokens = self.burst.min(self.tokens + grown);
        self.since = now;
        let wanted = f64::from(count);
        let taken = self.tokens >= wanted;
        if taken {
            self.tokens -= wanted;
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_bucket_fills_again_with_time() {
        let mut bucket = Bucket::new(5, Duration::from_secs(30));
        assert!((0..5).all(|_| bucket.take(1)));
        assert!(!bucket.take(1));
        tokio::time::advance(Duration::from_secs(6)).await;
        assert!(bucket.take(1) && !bucket.take(1));
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert!(!bucket.take(6), "never more than the burst");
        assert!(bucket.take(5));
    }
}
