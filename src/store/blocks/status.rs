//! Local blocks as a status page shows them.

use crate::model::{BlockId, TimestampMs};

/// The most blocks that are named with a reason.
pub const UNREADABLE_NAMED_MAX: usize = 100;

/// Which part blocks of the data directory have in answering.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalBlocks {
    /// Whether they answer.
    pub standing: LocalStanding,
    /// Complete blocks in the data directory.
    pub on_disk: usize,
    /// Those of them that may answer.
    pub local: usize,
    /// The first instant that Prometheus answers for with all that follow; `None` where it answers
    /// for all times.
    pub cut: Option<TimestampMs>,
    /// How many blocks can't be read.
    pub unreadable: usize,
    /// The first [`UNREADABLE_NAMED_MAX`] of them.
    pub unreadable_blocks: Vec<UnreadableBlock>,
}

/// Whether local blocks answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LocalStanding {
    /// Not yet, or not now: it is not known which blocks Prometheus has.
    #[default]
    Waiting,
    /// They do.
    On,
    /// They do not.
    Off {
        /// Why.
        reason: String,
    },
}

/// A block that can't be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnreadableBlock {
    /// The block.
    pub id: BlockId,
    /// Why.
    pub reason: String,
}
