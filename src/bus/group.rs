//! Group commit: what is waiting goes in one round trip.
//!
//! One row a commit costs many times a row in a batch of a hundred. So calls are queued, and whoever
//! flushes takes all that wait, up to a limit. Where groups form by themselves, the next one is given a moment to grow;
//! a lone call waits for nobody, and is as fast as without.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::bus::error::Error;
use crate::shutdown::Tasks;

/// Past a hundred in a batch, latency grows and throughput hardly does.
const MAX_GROUP: usize = 100;
/// Two flushes under way keep the connection busy while the next group forms; more would only make the
/// groups smaller.
const MAX_FLUSHES: usize = 2;
/// How long the first flush may take until a second one goes beside it. What comes meanwhile makes one group, so that
/// under load there are few commits with much in each; and a flush that waits for something holds up nobody for long.
pub(crate) const ALONE_FOR: Duration = Duration::from_millis(4);
/// From so many in one group, the next one may be larger for a moment's wait: to set up a statement takes as long as what
/// it does for ten messages.
pub(crate) const MANY: usize = 4;
/// That moment.
pub(crate) const LINGER: Duration = Duration::from_millis(1);

/// Callers beyond this wait before they are queued.
const MAX_QUEUED: usize = 10_000;

struct Pending<T, R> {
    item: T,
    answer: oneshot::Sender<Result<R, Error>>,
}

/// How heavy a group may be.
#[derive(Debug)]
pub(crate) struct Room<T> {
    pub(crate) most: usize,
    pub(crate) weigh: fn(&T) -> usize,
}

/// Groups concurrent calls with one item each into calls with many.
#[derive(Debug)]
pub(crate) struct Grouper<T, R> {
    queue: mpsc::Sender<Pending<T, R>>,
}

impl<T, R> Clone for Grouper<T, R> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone() }
    }
}

impl<T, R> Grouper<T, R>
where
    T: Clone + Send + Sync + 'static,
    R: Send + 'static,
{
    /// Starts a grouper whose groups are carried out by `flush`, which answers in the group's order. Where `room`
    /// is given, a group is at most as heavy as that, or of one item. It ends when the last clone is dropped.
    pub(crate) fn start<F, Fut>(tasks: &Tasks, room: Option<Room<T>>, flush: F) -> Self
    where
        F: Fn(Arc<Vec<T>>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Vec<R>, Error>> + Send,
    {
        let (weigh, most): (fn(&T) -> usize, _) =
            room.map_or((|_| 0, usize::MAX), |room| (room.weigh, room.most));
        let (queue, mut waiting) = mpsc::channel::<Pending<T, R>>(MAX_QUEUED);
        let flush = Arc::new(flush);
        let flushes = Arc::new(Semaphore::new(MAX_FLUSHES));
        let alone = Arc::new(Semaphore::new(1));
        let spawner = tasks.clone();
        tasks.spawn(async move {
            // What was too heavy for the last group.
            let mut left: Option<Pending<T, R>> = None;
            let mut last = 0;
            loop {
                let first = match left.take() {
                    Some(left) => left,
                    None => match waiting.recv().await {
                        Some(first) => first,
                        None => return,
                    },
                };
                let Ok(permit) = Arc::clone(&flushes).acquire_owned().await else { return };
                let turn = Arc::clone(&alone).acquire_owned();
                let turn = tokio::time::timeout(ALONE_FOR, turn).await.ok();
                let mut weight = weigh(&first.item);
                let mut group = vec![first];
                let moment = tokio::time::sleep(LINGER);
                tokio::pin!(moment);
                while group.len() < MAX_GROUP {
                    // While we waited for the permit, more may have come. As many as last time are worth a moment: who
                    // was answered then is about to call again.
                    let next = match waiting.try_recv() {
                        Ok(next) => next,
                        Err(_) if last < MANY || group.len() >= last => break,
                        Err(_) => tokio::select! {
                            biased;
                            Some(next) = waiting.recv() => next,
                            () = &mut moment => break,
                        },
                    };
                    weight = weight.saturating_add(weigh(&next.item));
                    if weight > most {
                        left = Some(next);
                        break;
                    }
                    group.push(next);
                }
                last = group.len();
                let flush = Arc::clone(&flush);
                spawner.spawn(async move {
                    carry_out(&*flush, group).await;
                    drop((turn, permit));
                });
            }
        });
        Self { queue }
    }

    /// Carries out one call within whatever group it falls into.
    pub(crate) async fn call(&self, item: T) -> Result<R, Error> {
        let (answer, answered) = oneshot::channel();
        self.queue.send(Pending { item, answer }).await.map_err(|_| Error::Closed)?;
        answered.await.map_err(|_| Error::Closed)?
    }
}

async fn carry_out<T, R, F, Fut>(flush: &F, group: Vec<Pending<T, R>>)
where
    T: Clone + Sync,
    F: Fn(Arc<Vec<T>>) -> Fut,
    Fut: Future<Output = Result<Vec<R>, Error>>,
{
    let (items, mut answers): (Vec<_>, Vec<_>) =
        group.into_iter().map(|pending| (pending.item, pending.answer)).unzip();
    let items = Arc::new(items);
    match flush(Arc::clone(&items)).await {
        Ok(results) => {
            for (answer, result) in answers.into_iter().zip(results) {
                drop(answer.send(Ok(result))); // the caller may have gone; the call was made
            }
        }
        Err(error) if answers.len() == 1 => {
            let alone = answers.pop();
            drop(alone.map(|answer| answer.send(Err(error))));
        }
        Err(error) if error.shared().is_some() => {
            // Nobody's item is to blame, and the bus was asked often enough: alone, each would wait
            // for it as long as all together did, one after the other.
            for answer in answers {
                drop(answer.send(Err(error.shared().unwrap_or(Error::Closed))));
            }
        }
        Err(error) => {
            // One bad item must not fail its neighbours, so each goes alone; all were refused together,
            // and calls are safe to repeat.
            tracing::debug!(error = %error, "A group of {} was refused; sending one by one", answers.len());
            for (item, answer) in items.iter().zip(answers) {
                let result = flush(Arc::new(vec![item.clone()])).await;
                let result = result.and_then(|mut results| results.pop().ok_or(Error::Closed));
                drop(answer.send(result));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::error::Code;

    #[tokio::test]
    async fn what_waits_goes_together_and_a_bad_item_fails_alone() {
        let groups = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&groups);
        let grouper = Grouper::start(&Tasks::new(), None, move |items: Arc<Vec<u32>>| {
            let seen = Arc::clone(&seen);
            async move {
                seen.lock().expect("not poisoned").push(items.len());
                tokio::task::yield_now().await;
                if items.contains(&7) {
                    return Err(Error::Field {
                        field: "x",
                        rule: "y",
                        code: Code::InvalidArgument,
                    });
                }
                Ok(items.iter().map(|n| n * 2).collect())
            }
        });
        let calls = (0..50u32).map(|n| {
            let grouper = grouper.clone();
            async move { grouper.call(n).await }
        });
        let results = futures_util::future::join_all(calls).await;
        for (n, result) in (0..50u32).zip(results) {
            match result {
                Ok(doubled) => assert_eq!(doubled, n * 2),
                Err(_) => assert_eq!(n, 7, "only the bad one fails"),
            }
        }
        let groups = groups.lock().expect("not poisoned");
        assert!(groups.iter().any(|&len| len > 1), "something was grouped: {groups:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_lone_call_waits_for_nobody_and_after_a_large_group_the_next_may_grow() {
        let groups = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&groups);
        let grouper = Grouper::start(&Tasks::new(), None, move |items: Arc<Vec<usize>>| {
            seen.lock().expect("not poisoned").push(items.len());
            async move { Ok(items.to_vec()) }
        });
        let began = tokio::time::Instant::now();
        for n in 0..10 {
            grouper.call(n).await.expect("carried out");
        }
        assert_eq!(began.elapsed(), Duration::ZERO, "time goes on where somebody waits for it");
        assert_eq!(std::mem::take(&mut *groups.lock().expect("not poisoned")), [1; 10]);
        futures_util::future::join_all((0..20).map(|n| grouper.call(n))).await;
        let later = async {
            for _ in 0..5 {
                tokio::task::yield_now().await;
            }
            grouper.call(1).await
        };
        let (first, later) = tokio::join!(grouper.call(0), later);
        assert_eq!((first.expect("carried out"), later.expect("carried out")), (0, 1));
        assert_eq!(groups.lock().expect("not poisoned").last(), Some(&2), "both in one");
    }

    #[tokio::test]
    async fn a_database_that_does_not_answer_is_asked_once_for_all() {
        let asked = Arc::new(Mutex::new(0));
        let count = Arc::clone(&asked);
        let grouper = Grouper::start(&Tasks::new(), None, move |_: Arc<Vec<u32>>| {
            *count.lock().expect("not poisoned") += 1;
            async {
                tokio::task::yield_now().await;
                Err::<Vec<u32>, _>(Error::Database { call: "x", source: sqlx::Error::PoolTimedOut })
            }
        });
        let results = futures_util::future::join_all((0..50u32).map(|n| grouper.call(n))).await;
        assert!(results.iter().all(|result| result.as_ref().is_err_and(Error::is_transient)));
        let asked = *asked.lock().expect("not poisoned");
        assert!(asked < 10, "{asked} calls for 50 items");
    }

    #[tokio::test]
    async fn no_group_is_heavier_than_there_is_room_but_for_one_item_alone() {
        let groups = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&groups);
        let room = Room { most: 10, weigh: |n: &usize| *n };
        let grouper = Grouper::start(&Tasks::new(), Some(room), move |items: Arc<Vec<usize>>| {
            seen.lock().expect("not poisoned").push(items.to_vec());
            async move {
                tokio::task::yield_now().await;
                Ok(items.to_vec())
            }
        });
        let weights = [4, 4, 4, 25, 1, 1, 9, 9, 2];
        let calls = weights.map(|n| {
            let grouper = grouper.clone();
            async move { grouper.call(n).await }
        });
        for (n, result) in weights.iter().zip(futures_util::future::join_all(calls).await) {
            assert_eq!(result.expect("carried out"), *n, "each its own answer");
        }
        let groups = groups.lock().expect("not poisoned");
        for group in groups.iter() {
            assert!(group.len() == 1 || group.iter().sum::<usize>() <= 10, "{groups:?}");
        }
        assert!(groups.iter().any(|group| group.len() > 1), "something was grouped: {groups:?}");
    }
}
