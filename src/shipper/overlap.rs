//! Whether a block may join those in the bucket (contract `shipper.md` §4).
//!
//! Compactors halt when two blocks of one stream overlap, so a block that comes out of order
//! (compacted, or whole again after it was damaged) is only published beside blocks that it does
//! not overlap.

use futures_util::TryStreamExt as _;

use crate::model::{BlockId, Labels, TimeRange};
use crate::objstore::{Bucket, BucketError, ListEntry, ObjectKey};
use crate::tsdb::{BlockMeta, MetaError};

/// The longest `meta.json` that is read, local or from the bucket: real ones have some KiB.
pub(super) const META_BYTES_MAX: u64 = 64 << 20;

/// Why a block may not join, or why that can't be told.
#[derive(Debug, thiserror::Error)]
pub(super) enum OverlapError {
    /// The bucket could not be read.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// A `meta.json` in the bucket could not be understood.
    #[error("meta.json of block {block} in the bucket")]
    Meta {
        /// The block.
        block: BlockId,
        /// What is wrong with it.
        source: MetaError,
    },
    /// A `meta.json` in the bucket is longer than any should be.
    #[error("meta.json of block {block} in the bucket is longer than {META_BYTES_MAX} bytes")]
    MetaTooLong {
        /// The block.
        block: BlockId,
    },
    /// Two blocks overlap, be it the new one or two that are there already.
    #[error(
        "shipping compacted block {block} is blocked; overlap spotted: {first} [{first_mint}, \
         {first_maxt}) and {second} [{second_mint}, {second_maxt})",
        first_mint = first_range.mint, first_maxt = first_range.maxt,
        second_mint = second_range.mint, second_maxt = second_range.maxt
    )]
    Overlap {
        /// The block that was to be shipped.
        block: BlockId,
        /// One of the two.
        first: BlockId,
        /// Its range.
        first_range: TimeRange,
        /// The other.
        second: BlockId,
        /// Its range.
        second_range: TimeRange,
    },
}

/// The ranges of the blocks in the bucket that carry our labels, as they were when it was read.
#[derive(Debug)]
pub(super) struct BucketRanges(Vec<(TimeRange, BlockId)>);

impl BucketRanges {
    /// Reads the `meta.json` of every block in the bucket. One without it is being written or
    /// deleted, and no reader sees it.
    pub(super) async fn read(bucket: &dyn Bucket, labels: &Labels) -> Result<Self, OverlapError> {
        let mut ranges = Vec::new();
        let mut entries = bucket.list(None).await?;
        while let Some(entry) = entries.try_next().await? {
            let ListEntry::Directory(name) = entry else {
                continue;
            };
            let Some(block) = BlockId::from_file_name(&name) else {
                continue;
            };
            let key = ObjectKey::new(format!("{block}/meta.json"))
                .expect("a ULID and a file name make an object name");
            // Asked before it is read: a miss is no failure of the bucket, and not counted as one.
            if !bucket.exists(&key).await? {
                continue;
            }
            let bytes = match read_object(bucket, &key).await {
                Ok(bytes) => bytes.ok_or(OverlapError::MetaTooLong { block })?,
                // Deleted just now.
                Err(error) if error.is_not_found() => continue,
                Err(error) => return Err(error.into()),
            };
            let meta =
                BlockMeta::parse(&bytes).map_err(|source| OverlapError::Meta { block, source })?;
            if meta
                .thanos
                .is_some_and(|thanos| thanos.labels == *labels.as_map())
            {
                let range = TimeRange {
                    mint: meta.min_time,
                    maxt: meta.max_time,
                };
                ranges.push((range, block));
            }
        }
        Ok(Self(ranges))
    }

    /// Without these, which are to leave.
    pub(super) fn without(&self, leaving: &[BlockId]) -> Self {
        let staying = self.0.iter().filter(|(_, id)| !leaving.contains(id));
        Self(staying.copied().collect())
    }

    /// A block has joined.
    pub(super) fn add(&mut self, block: BlockId, range: TimeRange) {
        self.0.push((range, block));
    }

    /// Whether `block` overlaps none that is there; they may overlap each other.
    pub(super) fn admit_alone(&self, block: BlockId, range: TimeRange) -> Result<(), OverlapError> {
        match self
            .0
            .iter()
            .find(|(there, id)| *id != block && there.overlaps(range))
        {
            None => Ok(()),
            Some((first_range, first)) => Err(OverlapError::Overlap {
                block,
                first: *first,
                first_range: *first_range,
                second: block,
                second_range: range,
            }),
        }
    }

    /// Whether `block` may join: nothing overlaps among it and what is there.
    pub(super) fn admit(&self, block: BlockId, range: TimeRange) -> Result<(), OverlapError> {
        let mut all = self.0.clone();
        all.push((range, block));
        all.sort_by_key(|(range, id)| (range.mint, range.maxt, *id));
        // In order of mint, an overlap shows between a block and the one reaching furthest before.
        let mut furthest: Option<(TimeRange, BlockId)> = None;
        for (range, id) in all {
            if let Some((before, before_id)) = furthest {
                if before.overlaps(range) {
                    return Err(OverlapError::Overlap {
                        block,
                        first: before_id,
                        first_range: before,
                        second: id,
                        second_range: range,
                    });
                }
                if before.maxt >= range.maxt {
                    continue;
                }
            }
            furthest = Some((range, id));
        }
        Ok(())
    }
}

/// A small object's content; `None` where it is longer than [`META_BYTES_MAX`].
pub(super) async fn read_object(
    bucket: &dyn Bucket,
    key: &ObjectKey,
) -> Result<Option<Vec<u8>>, BucketError> {
    let mut reader = bucket.get(key).await?;
    let mut bytes = Vec::new();
    while let Some(run) = reader.try_next().await? {
        bytes.extend_from_slice(&run);
        if bytes.len() as u64 > META_BYTES_MAX {
            return Ok(None);
        }
    }
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TimestampMs;
    use proptest::prelude::*;

    fn range(mint: i64, maxt: i64) -> TimeRange {
        TimeRange {
            mint: TimestampMs(mint),
            maxt: TimestampMs(maxt),
        }
    }

    #[test]
    fn neighbours_are_fine_and_overlaps_are_named() {
        let id = BlockId::from_u128;
        let ranges = BucketRanges(vec![(range(0, 10), id(1)), (range(10, 20), id(2))]);
        assert!(ranges.admit(id(3), range(20, 30)).is_ok());
        let text = ranges.admit(id(3), range(19, 30)).unwrap_err().to_string();
        assert!(text.starts_with(&format!("shipping compacted block {} is blocked", id(3))));
        assert!(
            text.contains("[10, 20)") && text.contains("[19, 30)"),
            "{text}"
        );
        let broken = BucketRanges(vec![(range(0, 10), id(1)), (range(5, 6), id(2))]);
        assert!(
            broken.admit(id(3), range(90, 100)).is_err(),
            "also among those already there"
        );
    }

    proptest! {
        #[test]
        fn admits_exactly_what_overlaps_nowhere(
            spans in proptest::collection::vec((0i64..60, 1i64..12), 1..7),
        ) {
            let all: Vec<_> = spans.iter().enumerate()
                .map(|(n, (at, length))| (range(*at, at + length), BlockId::from_u128(n as u128)))
                .collect();
            let mut clean = true;
            for (n, (a, _)) in all.iter().enumerate() {
                clean &= all.iter().skip(n + 1).all(|(b, _)| !a.overlaps(*b));
            }
            let (last_range, last_id) = all[all.len() - 1];
            let there = BucketRanges(all[..all.len() - 1].to_vec());
            prop_assert_eq!(there.admit(last_id, last_range).is_ok(), clean);
        }
    }
}
