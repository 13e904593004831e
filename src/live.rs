//! A value that may be replaced while it is in use.

use std::sync::Arc;

use tokio::sync::watch;

/// Reads a value that a [`Setter`] may replace. Cheap to clone; all clones see the same value.
///
/// Who needs several parts of a value takes it once, with [`Live::get`]: the next call may give another.
#[derive(Debug)]
pub struct Live<T>(watch::Receiver<Arc<T>>);

impl<T> Clone for Live<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// Replaces the value of a [`Live`].
#[derive(Debug)]
pub struct Setter<T>(watch::Sender<Arc<T>>);

impl<T> Live<T> {
    /// A value, and what replaces it.
    #[must_use]
    pub fn new(value: T) -> (Setter<T>, Self) {
        let (sender, receiver) = watch::channel(Arc::new(value));
        (Setter(sender), Self(receiver))
    }

    /// The value as it is now.
    #[must_use]
    pub fn get(&self) -> Arc<T> {
        Arc::clone(&self.0.borrow())
    }

    /// Waits until the value has been replaced since this handle last waited; for ever once nothing can
    /// replace it any more. Cancel-safe.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

/// A value that is never replaced.
impl<T> From<Arc<T>> for Live<T> {
    fn from(value: Arc<T>) -> Self {
        Self(watch::channel(value).1)
    }
}

/// A value that is never replaced.
impl<T> From<T> for Live<T> {
    fn from(value: T) -> Self {
        Arc::new(value).into()
    }
}

/// A default value that is never replaced.
impl<T: Default> Default for Live<T> {
    fn default() -> Self {
        T::default().into()
    }
}

impl<T> Setter<T> {
    /// Replaces the value for everyone.
    pub fn set(&self, value: T) {
        self.0.send_replace(Arc::new(value));
    }
}
