//! What storage Prometheus has: which blocks it counts, and what only its head can answer for.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::gauges::Gauges;
use crate::model::{BlockId, TimeRange, TimestampMs};

/// Prometheus' storage, as one heartbeat saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStorage {
    /// Grows with each heartbeat that saw all of this.
    pub sequence: u64,
    /// The blocks that are loaded.
    pub blocks: LoadedBlocks,
    /// No later than the oldest sample in the head, ms; `i64::MAX` while the head is empty.
    pub head_min: TimestampMs,
    /// No later than the newest sample in the head, ms; `i64::MIN` while the head is empty.
    pub head_max: TimestampMs,
    /// How far back samples may come out of order, ms; 0 where they may not. The largest that was
    /// told since the heartbeat before.
    pub out_of_order_window_ms: i64,
    /// What the head is cut into, ms. Two hours where it does not matter, because no samples come
    /// out of order, and where Prometheus does not tell.
    pub block_range_ms: i64,
}

/// Blocks and the ranges that Prometheus says they cover.
pub type ListedBlocks = BTreeMap<BlockId, TimeRange>;

/// Which blocks are loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadedBlocks {
    /// Exactly these (Prometheus 3.6 and later).
    Listed(Arc<ListedBlocks>),
    /// So many.
    Counted {
        /// The number of blocks.
        blocks: u64,
        /// The bytes of all their files together.
        bytes: u64,
        /// The oldest instant of any, ms, is one from the first to the second, both inside; that
        /// of the head where there are no blocks.
        lowest_ms: (TimestampMs, TimestampMs),
    },
}

/// A gauge is absent or has no number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("/metrics does not tell {0}")]
pub(super) struct Untold(&'static str);

impl PeerStorage {
    /// What a heartbeat learned; `listed` is what Prometheus says is loaded, where it does.
    pub(super) fn learned(
        sequence: u64,
        listed: Option<ListedBlocks>,
        gauges: &Gauges,
        out_of_order_window_ms: i64,
        block_range_ms: i64,
    ) -> Result<Self, Untold> {
        let head_min = gauges.head_min();
        let head_max = gauges.head_max();
        Ok(Self {
            sequence,
            blocks: match listed {
                Some(listed) => LoadedBlocks::Listed(Arc::new(listed)),
                None => LoadedBlocks::counted(gauges)?,
            },
            head_min: head_min.ok_or(Untold("the head's oldest sample"))?,
            head_max: head_max.ok_or(Untold("the head's newest sample"))?,
            out_of_order_window_ms,
            block_range_ms,
        })
    }
}

impl LoadedBlocks {
    fn counted(gauges: &Gauges) -> Result<Self, Untold> {
        let blocks = gauges.blocks_loaded().ok_or(Untold("how many blocks"))?;
        let bytes = gauges.blocks_bytes().ok_or(Untold("the blocks' bytes"))?;
        let lowest = gauges.lowest_ms().ok_or(Untold("the oldest instant"))?;
        Ok(Self::Counted {
            blocks,
            bytes,
            lowest_ms: (TimestampMs(*lowest.start()), TimestampMs(*lowest.end())),
        })
    }
}
