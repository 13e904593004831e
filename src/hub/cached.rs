//! An answer that is asked for more often than it is worth finding out.

use std::time::Duration;

use tokio::sync::Mutex;

use crate::clock::Stopwatch;

/// The last answer and its age. Whoever asks while it is being found out waits for that one.
pub(crate) struct Cached<T> {
    last: Mutex<Option<(Stopwatch, T)>>,
}

impl<T> Default for Cached<T> {
    fn default() -> Self {
        Self { last: Mutex::new(None) }
    }
}

impl<T: Clone> Cached<T> {
    /// The answer, at most `age` old; else what `find` gives. `find` must end by itself: the others wait.
    pub(crate) async fn get(&self, age: Duration, find: impl Future<Output = T>) -> T {
        let mut last = self.last.lock().await;
        match &*last {
            Some((since, answer)) if since.elapsed() < age => answer.clone(),
            _ => {
                let answer = find.await;
                *last = Some((Stopwatch::start(), answer.clone()));
                answer
            }
        }
    }
}
