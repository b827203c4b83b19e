//! How many chunks are arriving at this agent, over all its pull streams, and when a neighbour is told: senders give
//! their next slot to a puller with few chunks arriving. Owns the count; touches nothing.

use std::future::pending;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// The shortest time between two reports of the count to a neighbour: most changes are one chunk that ends and another
/// that begins.
pub const GATHERED: Duration = Duration::from_millis(20);

/// The number of chunks whose bytes are arriving now.
#[derive(Debug, Default)]
pub(super) struct Coming(watch::Sender<u32>);

/// Counts one arriving chunk until it is dropped: read whole, or given up.
#[derive(Debug)]
pub(super) struct Arriving<'a>(&'a Coming);

impl Coming {
    /// Counts one more arriving chunk.
    pub(super) fn one(&self) -> Arriving<'_> {
        self.0.send_modify(|count| *count += 1);
        Arriving(self)
    }

    /// What one neighbour is told of the count; it takes the count for 0 until then.
    pub(super) fn news(&self) -> News {
        News { count: self.0.subscribe(), told: 0, next: Instant::now() }
    }
}

impl Drop for Arriving<'_> {
    fn drop(&mut self) {
        self.0.0.send_modify(|count| *count -= 1);
    }
}

/// The count as one neighbour was last told, and when it may be told again.
#[derive(Debug)]
pub(super) struct News {
    count: watch::Receiver<u32>,
    told: u32,
    next: Instant,
}

impl News {
    /// Waits until the neighbour is to be told another count, and takes it as told. Cancel-safe.
    pub(super) async fn changed(&mut self) -> u32 {
        loop {
            if self.count.wait_for(|count| *count != self.told).await.is_err() {
                // The count was dropped: it does not change any more.
                pending::<()>().await;
            }
            sleep_until(self.next).await;
            let count = *self.count.borrow();
            if count != self.told {
                self.told = count;
                self.next = Instant::now() + GATHERED;
                return count;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{advance, timeout};

    use super::*;

    async fn hears(news: &mut News) -> Option<u32> {
        timeout(GATHERED / 4, news.changed()).await.ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_neighbour_hears_what_has_changed_and_not_too_often() {
        let coming = Coming::default();
        let mut news = coming.news();
        assert_eq!(hears(&mut news).await, None);
        let first = coming.one();
        assert_eq!(hears(&mut news).await, Some(1));
        let second = coming.one();
        assert_eq!(hears(&mut news).await, None, "too soon");
        advance(GATHERED).await;
        assert_eq!(hears(&mut news).await, Some(2));
        advance(GATHERED).await;
        drop(first);
        let third = coming.one();
        assert_eq!(hears(&mut news).await, None, "one ended, one began");
        drop((second, third));
        assert_eq!(hears(&mut news).await, Some(0));
    }
}
