//! How far the upload of a block is: for gauges, for the status, and for a line in the log now and
//! then.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::ShipperMetrics;
use super::bulletin::Bulletin;
use crate::model::{BlockId, UploadStatus};

/// Shortest time between two lines about the same block.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// The rate in the status is that since one to two such times ago.
const RATE_INTERVAL: Duration = Duration::from_secs(5);

/// The progress of one block; the gauges go back to 0 when the last clone is dropped.
#[derive(Clone, Debug)]
pub(super) struct Progress(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    block: BlockId,
    total_bytes: u64,
    metrics: ShipperMetrics,
    bulletin: Bulletin,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Bytes in the bucket, by file: a file that starts over counts from 0 again.
    files: BTreeMap<String, u64>,
    logged: Instant,
    logged_bytes: u64,
    published: UploadStatus,
    /// From when on the rate will be measured, and what was in the bucket then.
    next_measured: (Instant, u64),
}

// === impl Progress ===

impl Progress {
    /// Of a block of `total_bytes`.
    pub(super) fn new(
        block: BlockId,
        total_bytes: u64,
        metrics: &ShipperMetrics,
        bulletin: &Bulletin,
    ) -> Self {
        metrics.upload_block_bytes.set(gauge(total_bytes));
        let now = Instant::now();
        let published = UploadStatus {
            block,
            total_bytes,
            sent_bytes: 0,
            started: now,
            measured_from: now,
            measured_from_bytes: 0,
        };
        bulletin.upload(Some(published));
        Self(Arc::new(Inner {
            block,
            total_bytes,
            metrics: metrics.clone(),
            bulletin: bulletin.clone(),
            state: Mutex::new(State {
                files: BTreeMap::new(),
                logged: now,
                logged_bytes: 0,
                published,
                next_measured: (now, 0),
            }),
        }))
    }

    /// Bytes in the bucket now.
    pub(super) fn sent_bytes(&self) -> u64 {
        self.lock().files.values().sum()
    }

    /// So many bytes more of a file are in the bucket.
    pub(super) fn add(&self, rel_path: &str, bytes: u64) {
        let mut state = self.lock();
        *state.files.entry(rel_path.to_owned()).or_default() += bytes;
        self.tell(&mut state);
    }

    /// So many bytes of a file are in the bucket.
    pub(super) fn set(&self, rel_path: &str, bytes: u64) {
        let mut state = self.lock();
        state.files.insert(rel_path.to_owned(), bytes);
        self.tell(&mut state);
    }

    fn tell(&self, state: &mut State) {
        let Inner {
            block,
            total_bytes,
            metrics,
            bulletin,
            ..
        } = &*self.0;
        let sent_bytes: u64 = state.files.values().sum();
        metrics.upload_sent_bytes.set(gauge(sent_bytes));
        bulletin.upload(Some(state.publish(sent_bytes)));
        let elapsed = state.logged.elapsed();
        let news_bytes = sent_bytes.saturating_sub(state.logged_bytes);
        if elapsed < LOG_INTERVAL || news_bytes == 0 {
            return;
        }
        (state.logged, state.logged_bytes) = (Instant::now(), sent_bytes);
        let rate = float(news_bytes) / elapsed.as_secs_f64();
        let percent = 100.0 * float(sent_bytes) / float((*total_bytes).max(1));
        let left_seconds = float(total_bytes.saturating_sub(sent_bytes)) / rate;
        tracing::info!(
            %block, percent = format_args!("{percent:.1}"), sent_bytes, total_bytes,
            mib_per_second = format_args!("{:.1}", rate / f64::from(1u32 << 20)),
            seconds_left = format_args!("{left_seconds:.0}"),
            "uploading block"
        );
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The status with so much of the block in the bucket.
    fn publish(&mut self, sent_bytes: u64) -> UploadStatus {
        let now = Instant::now();
        let (marked, marked_bytes) = self.next_measured;
        if now.saturating_duration_since(marked) >= RATE_INTERVAL {
            self.published.measured_from = marked;
            self.published.measured_from_bytes = marked_bytes;
            self.next_measured = (now, sent_bytes);
        }
        self.published.sent_bytes = sent_bytes;
        self.published
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.bulletin.upload(None);
        self.metrics.upload_block_bytes.set(0);
        self.metrics.upload_sent_bytes.set(0);
    }
}

fn gauge(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "for people and to three digits")]
fn float(bytes: u64) -> f64 {
    bytes as f64
}

#[cfg(test)]
mod tests {
    use tokio::sync::watch;

    use super::*;
    use crate::model::ShippingStatus;

    #[tokio::test(start_paused = true)]
    async fn the_status_has_the_rate_of_late_and_nothing_after_the_end() {
        let (sender, status) = watch::channel(ShippingStatus::default());
        let bulletin = Bulletin::new(sender);
        let block = BlockId::from_u128(1);
        let progress = Progress::new(block, 10_000, &ShipperMetrics::default(), &bulletin);
        let upload = || status.borrow().upload.unwrap();
        assert_eq!((upload().total_bytes, upload().sent_bytes), (10_000, 0));
        let step = async |bytes| {
            tokio::time::advance(Duration::from_secs(1)).await;
            progress.add("index", bytes);
        };
        for _ in 0..4 {
            step(1000).await;
        }
        let rate = || upload().bytes_per_second(Instant::now());
        assert_eq!(rate(), Some(1000));
        // The fast start is forgotten after two intervals.
        for _ in 0..16 {
            step(10).await;
        }
        assert_eq!(upload().sent_bytes, 4160);
        assert_eq!(rate(), Some(10));
        assert_eq!(upload().seconds_left(Instant::now()), Some(584));
        drop(progress);
        assert_eq!(status.borrow().upload, None);
    }
}
