//! What shipping and disk tell of themselves: values for whoever shows them, such as a status page.

use std::time::Duration;

use tokio::time::Instant;

use super::{BlockId, TimeRange, TimestampMs};

/// The most blocks that are named one by one.
pub const SHIPPING_BLOCKS_NAMED_MAX: usize = 100;

/// The most failures that are kept, the latest ones.
pub const SHIPPING_FAILURES_MAX: usize = 10;

/// How it stands with the blocks that are to be shipped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShippingStatus {
    /// What the shipper is at.
    pub standing: ShippingStanding,
    /// When the last look at the data directory ended; `None` before the first one.
    pub last_look: Option<TimestampMs>,
    /// How many blocks there are, by what becomes of them.
    pub counts: ShippingCounts,
    /// Blocks one by one: those that are not shipped, oldest first, then the shipped ones, newest
    /// first; at most [`SHIPPING_BLOCKS_NAMED_MAX`] of them.
    pub blocks: Vec<ShippingBlock>,
    /// The upload under way.
    pub upload: Option<UploadStatus>,
    /// The block that was shipped last, by this process.
    pub last_shipped: Option<ShippedBlock>,
    /// The latest [`SHIPPING_FAILURES_MAX`] failures, newest first.
    pub failures: Vec<ShippingFailure>,
}

/// What the shipper is at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ShippingStanding {
    /// It waits for the data directory or for external labels.
    #[default]
    Starting,
    /// Another process ships from the data directory.
    OtherOwner,
    /// It ships what there is.
    Running,
}

/// How many blocks of the data directory there are, by what becomes of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShippingCounts {
    /// They are in the bucket.
    pub shipped: usize,
    /// They will be sent, or are tried again later.
    pub waiting: usize,
    /// They are left out because they are damaged or can't be read.
    pub damaged: usize,
    /// They are not to be shipped: empty, compacted, downsampled.
    pub left_out: usize,
}

/// A block and what becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShippingBlock {
    /// The block.
    pub id: BlockId,
    /// What it covers; `None` where its `meta.json` can't be read.
    pub range: Option<TimeRange>,
    /// What becomes of it.
    pub state: BlockState,
}

/// What becomes of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockState {
    /// It is in the bucket.
    Shipped,
    /// It is sent when its turn comes.
    Waiting,
    /// It waits for its share of `--shipper.upload-jitter`.
    Delayed,
    /// It has failed and is tried again later.
    Retrying,
    /// An older block has to be shipped or read first.
    HeldBack,
    /// It is damaged and therefore not published.
    Corrupt,
    /// Its `meta.json` can't be read.
    Unreadable,
    /// It has no samples.
    Empty,
    /// Prometheus compacted it, and compacted blocks are not asked for.
    Compacted,
    /// It says that it is downsampled, which is refused.
    Downsampled,
}

/// How far an upload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UploadStatus {
    /// The block.
    pub block: BlockId,
    /// Its size, bytes.
    pub total_bytes: u64,
    /// What of it is in the bucket, bytes.
    pub sent_bytes: u64,
    /// When it began.
    pub started: Instant,
    /// From when on the rate is measured: some seconds ago.
    pub measured_from: Instant,
    /// What was in the bucket then, bytes.
    pub measured_from_bytes: u64,
}

/// A block that was shipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShippedBlock {
    /// The block.
    pub id: BlockId,
    /// When it was published.
    pub at: TimestampMs,
    /// Its size, bytes.
    pub size_bytes: u64,
    /// How long it took, from staging to publication.
    pub took: Duration,
}

/// Something that kept blocks from being shipped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShippingFailure {
    /// When, the last time.
    pub at: TimestampMs,
    /// How often in a row.
    pub times: u64,
    /// The block that failed, where it was one.
    pub block: Option<BlockId>,
    /// The error and its causes, in one line. Without credentials.
    pub error: String,
    /// What an operator can do about it, where that is known.
    pub remedy: Option<&'static str>,
}

/// How files are read and uploads are checked, as of now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IoStatus {
    /// The disk engine: `uring` or `pread`.
    pub engine: &'static str,
    /// Why this one.
    pub engine_reason: String,
    /// Buffers that are taken.
    pub buffers_in_use: usize,
    /// Buffers that there may be.
    pub buffers_max: usize,
    /// Bytes of all buffers together.
    pub buffers_bytes: usize,
    /// The check that protects uploads on their way; `None` until one was sent, and where the
    /// bucket knows none.
    pub integrity: Option<String>,
}

// === impl UploadStatus ===

impl UploadStatus {
    /// Bytes per second of late; `None` while nothing moves.
    pub fn bytes_per_second(&self, now: Instant) -> Option<u64> {
        let elapsed_ms = now
            .saturating_duration_since(self.measured_from)
            .as_millis();
        let news_bytes = self.sent_bytes.saturating_sub(self.measured_from_bytes);
        let rate = (u128::from(news_bytes) * 1000).checked_div(elapsed_ms)?;
        let rate = u64::try_from(rate).unwrap_or(u64::MAX);
        (rate > 0).then_some(rate)
    }

    /// Seconds until the end at the rate of late.
    pub fn seconds_left(&self, now: Instant) -> Option<u64> {
        let left_bytes = self.total_bytes.saturating_sub(self.sent_bytes);
        let rate = self.bytes_per_second(now)?;
        Some(left_bytes.div_ceil(rate))
    }
}

// === impl BlockState ===

impl BlockState {
    /// The name in documents for programs; it does not change.
    pub fn name(self) -> &'static str {
        match self {
            Self::Shipped => "shipped",
            Self::Waiting => "waiting",
            Self::Delayed => "delayed",
            Self::Retrying => "retrying",
            Self::HeldBack => "held_back",
            Self::Corrupt => "corrupt",
            Self::Unreadable => "unreadable",
            Self::Empty => "empty",
            Self::Compacted => "compacted",
            Self::Downsampled => "downsampled",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_rate_is_of_late_and_falls_while_nothing_moves() {
        let started = Instant::now();
        let upload = UploadStatus {
            block: BlockId::from_u128(1),
            total_bytes: 1000,
            sent_bytes: 600,
            started,
            measured_from: started,
            measured_from_bytes: 200,
        };
        assert_eq!(upload.bytes_per_second(started), None);
        let at = |seconds| started + Duration::from_secs(seconds);
        assert_eq!(upload.bytes_per_second(at(4)), Some(100));
        assert_eq!(upload.seconds_left(at(4)), Some(4));
        assert_eq!(upload.bytes_per_second(at(40)), Some(10));
        let idle = UploadStatus {
            sent_bytes: 200,
            ..upload
        };
        assert_eq!(idle.bytes_per_second(at(4)), None);
        assert_eq!(idle.seconds_left(at(4)), None);
    }
}
