//! Whether the blocks on disk are those that Prometheus answers from.
//!
//! Pure: what is on disk and what Prometheus says go in, a verdict comes out. [`Standing`] follows
//! the verdicts: one mismatch may be a compaction between two looks and changes nothing but that
//! vanished blocks are gone; two in a row turn local blocks off, the next proof turns them on.

use std::collections::BTreeMap;

use crate::model::{BlockId, TimeRange, TimestampMs};
use crate::prometheus::{ListedBlocks, LoadedBlocks};

/// A complete block on disk: a directory with a ULID's name whose `meta.json` could be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BlockOnDisk {
    /// What it covers.
    pub(super) range: TimeRange,
    /// The blocks that were merged into it.
    pub(super) parents: Vec<BlockId>,
    /// Whether it was cut from the head out of turn, so that it covers only some of the samples of
    /// its range: from out-of-order, stale or selected series.
    pub(super) hinted: bool,
}

/// The complete blocks on disk.
pub(super) type BlocksOnDisk = BTreeMap<BlockId, BlockOnDisk>;

/// What is proven of the blocks on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// Prometheus answers from exactly these.
    Proven {
        /// Those that can be read here too.
        readable: Vec<BlockId>,
        /// What it says that the others cover.
        unreadable: Vec<TimeRange>,
    },
    /// What is on disk is not what Prometheus has.
    Mismatch(Mismatch),
}

/// How Prometheus' blocks and those on disk differ.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Mismatch {
    #[error(
        "Prometheus has loaded block {first} and {others} others that are not in the data \
         directory"
    )]
    Missing { first: BlockId, others: usize },
    #[error("Prometheus has loaded {loaded} blocks, the data directory has {found}")]
    Count { loaded: u64, found: u64 },
    #[error("Prometheus' blocks have {loaded} bytes, those of the data directory {found}")]
    Bytes { loaded: u64, found: u64 },
    #[error(
        "Prometheus' oldest block begins at {loaded} ms, that of the data directory at {found}"
    )]
    Lowest {
        loaded: TimestampMs,
        found: TimestampMs,
    },
    #[error("the sizes of the blocks in the data directory can't be told")]
    NoSizes,
}

/// Compares. `is_unreadable` tells of a directory that is there, but is no complete block to us;
/// `bytes` is the size of a block's files, and is only asked where Prometheus tells no
/// more than sizes.
pub(super) fn prove(
    on_disk: &BlocksOnDisk,
    loaded: &LoadedBlocks,
    is_unreadable: impl Fn(BlockId) -> bool,
    bytes: impl FnMut(BlockId) -> Option<u64>,
) -> Proof {
    match loaded {
        LoadedBlocks::Listed(listed) => self::listed(on_disk, listed, is_unreadable),
        LoadedBlocks::Counted {
            blocks: loaded,
            bytes: loaded_bytes,
            lowest_ms,
        } => match counted(on_disk, (*loaded, *loaded_bytes, *lowest_ms), bytes) {
            Ok(readable) => Proof::Proven {
                readable,
                unreadable: Vec::new(),
            },
            Err(mismatch) => Proof::Mismatch(mismatch),
        },
    }
}

fn listed(
    on_disk: &BlocksOnDisk,
    listed: &ListedBlocks,
    is_unreadable: impl Fn(BlockId) -> bool,
) -> Proof {
    let (readable, others): (Vec<_>, Vec<_>) =
        listed.iter().partition(|(id, _)| on_disk.contains_key(id));
    let mut missing = others.iter().filter(|(id, _)| !is_unreadable(**id));
    match missing.next() {
        None => Proof::Proven {
            readable: readable.into_iter().map(|(id, _)| *id).collect(),
            unreadable: others.into_iter().map(|(_, range)| *range).collect(),
        },
        Some((first, _)) => Proof::Mismatch(Mismatch::Missing {
            first: **first,
            others: missing.count(),
        }),
    }
}

fn counted(
    on_disk: &BlocksOnDisk,
    (loaded, loaded_bytes, lowest_ms): (u64, u64, (TimestampMs, TimestampMs)),
    mut bytes: impl FnMut(BlockId) -> Option<u64>,
) -> Result<Vec<BlockId>, Mismatch> {
    let superseded = superseded(on_disk.values());
    let current: Vec<_> = on_disk
        .iter()
        .filter(|(id, _)| superseded.binary_search(id).is_err())
        .collect();
    let found = current.len() as u64;
    if found != loaded {
        return Err(Mismatch::Count { loaded, found });
    }
    if let Some(found) = current.iter().map(|(_, block)| block.range.mint).min()
        && !(lowest_ms.0..=lowest_ms.1).contains(&found)
    {
        let loaded = lowest_ms.0;
        return Err(Mismatch::Lowest { loaded, found });
    }
    let mut found = 0_u64;
    for (id, _) in &current {
        found = found.saturating_add(bytes(**id).ok_or(Mismatch::NoSizes)?);
    }
    if found != loaded_bytes {
        let loaded = loaded_bytes;
        return Err(Mismatch::Bytes { loaded, found });
    }
    Ok(current.into_iter().map(|(id, _)| *id).collect())
}

/// The parents of `blocks`, sorted.
pub(super) fn superseded<'a>(blocks: impl Iterator<Item = &'a BlockOnDisk>) -> Vec<BlockId> {
    let mut parents: Vec<_> = blocks.flat_map(|block| &block.parents).copied().collect();
    parents.sort_unstable();
    parents.dedup();
    parents
}

// === Standing ===

/// What the verdicts so far mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nothing was ever proven; `mismatched` tells whether the last look found a mismatch.
    Unproven { mismatched: bool },
    /// These may answer.
    Proven {
        /// With their ranges, which outlive the blocks on disk.
        blocks: BTreeMap<BlockId, BlockOnDisk>,
        /// What those blocks cover that Prometheus has and that could not be read here.
        unreadable: Vec<TimeRange>,
        /// Whether the last look found a mismatch.
        mismatched: bool,
    },
    /// Two looks in a row found a mismatch.
    Off(Mismatch),
}

/// What a verdict changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Local blocks answer from now on.
    On,
    /// They do not any more, or still not after two looks.
    Off,
    /// Nothing to tell.
    None,
}

impl Standing {
    /// Takes the next verdict.
    pub(super) fn follow(&mut self, proof: Proof, on_disk: &BlocksOnDisk) -> Turn {
        match proof {
            Proof::Proven {
                readable,
                unreadable,
            } => {
                let turn = match self {
                    Self::Proven { .. } => Turn::None,
                    Self::Unproven { .. } | Self::Off(_) => Turn::On,
                };
                let known = readable
                    .into_iter()
                    .filter_map(|id| Some((id, on_disk.get(&id)?.clone())));
                *self = Self::Proven {
                    blocks: known.collect(),
                    unreadable,
                    mismatched: false,
                };
                turn
            }
            Proof::Mismatch(why) => match self {
                Self::Unproven { mismatched } | Self::Proven { mismatched, .. } => {
                    if !*mismatched {
                        *mismatched = true;
                        return Turn::None;
                    }
                    *self = Self::Off(why);
                    Turn::Off
                }
                Self::Off(last) => {
                    *last = why;
                    Turn::None
                }
            },
        }
    }

    /// The blocks that may answer.
    pub(super) fn proven(&self) -> Option<&BTreeMap<BlockId, BlockOnDisk>> {
        match self {
            Self::Proven { blocks, .. } => Some(blocks),
            Self::Unproven { .. } | Self::Off(_) => None,
        }
    }

    /// The ranges that are Prometheus' though nothing on disk tells so.
    pub(super) fn unreadable(&self) -> &[TimeRange] {
        match self {
            Self::Proven { unreadable, .. } => unreadable,
            Self::Unproven { .. } | Self::Off(_) => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn id(n: u128) -> BlockId {
        BlockId::from_u128(n)
    }

    fn block(mint: i64, maxt: i64, parents: &[u128]) -> BlockOnDisk {
        BlockOnDisk {
            range: TimeRange {
                mint: TimestampMs(mint),
                maxt: TimestampMs(maxt),
            },
            parents: parents.iter().copied().map(id).collect(),
            hinted: false,
        }
    }

    fn disk() -> BlocksOnDisk {
        [
            (id(1), block(0, 10, &[])),
            (id(2), block(10, 20, &[])),
            (id(3), block(0, 20, &[1, 2, 77])),
            (id(4), block(20, 30, &[])),
        ]
        .into()
    }

    fn listed(ids: &[u128]) -> LoadedBlocks {
        let listed = ids.iter().map(|n| (id(*n), told(*n)));
        LoadedBlocks::Listed(Arc::new(listed.collect()))
    }

    /// What Prometheus tells of a block's range.
    fn told(n: u128) -> TimeRange {
        let n = i64::try_from(n).unwrap();
        block(n * 100, n * 100 + 50, &[]).range
    }

    /// Block 7 is there, but can't be read.
    fn is_unreadable(block: BlockId) -> bool {
        block == id(7)
    }

    fn proven(ids: &[u128], unreadable: &[TimeRange]) -> Proof {
        Proof::Proven {
            readable: ids.iter().copied().map(id).collect(),
            unreadable: unreadable.to_vec(),
        }
    }

    fn by_list(ids: &[u128]) -> Proof {
        prove(&disk(), &listed(ids), is_unreadable, |_| {
            panic!("sizes are not needed")
        })
    }

    fn by_counts(blocks: u64, bytes: u64, lowest_ms: (i64, i64)) -> Proof {
        let lowest_ms = (TimestampMs(lowest_ms.0), TimestampMs(lowest_ms.1));
        let loaded = LoadedBlocks::Counted {
            blocks,
            bytes,
            lowest_ms,
        };
        prove(&disk(), &loaded, is_unreadable, |_| Some(50))
    }

    #[test]
    fn what_is_listed_and_on_disk_is_proven_and_nothing_else() {
        assert_eq!(by_list(&[4, 3]), proven(&[3, 4], &[]));
        assert_eq!(by_list(&[]), proven(&[], &[]));
        assert_eq!(by_list(&[3, 7, 4]), proven(&[3, 4], &[told(7)]));
        let missing = Mismatch::Missing {
            first: id(5),
            others: 1,
        };
        assert_eq!(by_list(&[3, 4, 5, 6, 7]), Proof::Mismatch(missing));
    }

    #[test]
    fn counts_sizes_and_the_oldest_instant_must_all_agree() {
        let both = proven(&[3, 4], &[]);
        assert_eq!(by_counts(2, 100, (0, 0)), both, "parents do not count");
        assert_eq!(by_counts(2, 100, (-999, 999)), both);
        let mismatch = |blocks, bytes, lowest| match by_counts(blocks, bytes, lowest) {
            Proof::Mismatch(mismatch) => mismatch,
            proven @ Proof::Proven { .. } => panic!("{proven:?}"),
        };
        assert_eq!(
            mismatch(4, 100, (0, 0)),
            Mismatch::Count {
                loaded: 4,
                found: 2
            }
        );
        assert_eq!(
            mismatch(2, 99, (0, 0)),
            Mismatch::Bytes {
                loaded: 99,
                found: 100
            }
        );
        assert!(matches!(mismatch(2, 100, (1, 1)), Mismatch::Lowest { .. }));
        let loaded = LoadedBlocks::Counted {
            blocks: 2,
            bytes: 100,
            lowest_ms: (TimestampMs(0), TimestampMs(0)),
        };
        let unknown = prove(&disk(), &loaded, is_unreadable, |_| None);
        assert_eq!(unknown, Proof::Mismatch(Mismatch::NoSizes));
        let none = LoadedBlocks::Counted {
            blocks: 0,
            bytes: 0,
            lowest_ms: (TimestampMs(5), TimestampMs(5)),
        };
        let empty = prove(&BlocksOnDisk::new(), &none, is_unreadable, |_| None);
        assert_eq!(empty, proven(&[], &[]), "the head's instant means nothing");
    }

    #[test]
    fn one_mismatch_is_forgiven_two_are_not_and_a_proof_heals() {
        let mut standing = Standing::Unproven { mismatched: false };
        let mut follow = |listed: &[u128]| {
            let turn = standing.follow(by_list(listed), &disk());
            let proven = standing.proven();
            let ids = proven.map(|blocks| blocks.keys().copied().collect::<Vec<_>>());
            (turn, ids)
        };
        let both = Some(vec![id(3), id(4)]);
        assert_eq!(follow(&[9]), (Turn::None, None));
        assert_eq!(follow(&[3, 4]), (Turn::On, both.clone()));
        assert_eq!(follow(&[9]), (Turn::None, both.clone()));
        assert_eq!(follow(&[3]), (Turn::None, Some(vec![id(3)])));
        assert_eq!(follow(&[3, 4]), (Turn::None, both.clone()));
        assert_eq!(follow(&[9]), (Turn::None, both.clone()));
        assert_eq!(follow(&[8, 9]), (Turn::Off, None));
        assert_eq!(follow(&[9]), (Turn::None, None), "it is told once");
        assert_eq!(follow(&[3, 4]), (Turn::On, both));
        assert_eq!(follow(&[9]), (Turn::None, Some(vec![id(3), id(4)])));
        let mut never = Standing::Unproven { mismatched: false };
        assert_eq!(never.follow(by_list(&[9]), &disk()), Turn::None);
        assert_eq!(never.follow(by_list(&[9]), &disk()), Turn::Off);
    }
}
