//! Uploads in parts: how an object is cut, and what of it is in the bucket already.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::ops::Range;

use serde::{Deserialize, Serialize};

/// Most parts of one object (S3, "multipart upload limits").
const PARTS_MAX: u64 = 10_000;

/// How an object is cut into parts of one size, the last one shorter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartPlan {
    size_bytes: u64,
    part_bytes: NonZeroU64,
}

/// What an upload in parts has in the bucket: enough to go on from there in another process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MultipartState {
    /// Where it goes: endpoint, bucket and whole object name. Another destination is another
    /// upload.
    pub destination: String,
    /// What the bucket calls the upload.
    pub upload_id: String,
    /// Bytes of each part but the last.
    pub part_bytes: NonZeroU64,
    /// Which integrity check the upload was begun with, as the bucket names it.
    pub integrity: String,
    /// When it was begun by the bucket's clock, in whole seconds since the Unix epoch, where the
    /// bucket has told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_seconds: Option<i64>,
    /// The parts that are confirmed, by number, from 1.
    pub parts: BTreeMap<u32, SentPart>,
}

/// A part that is confirmed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentPart {
    /// The entity tag that completing the upload names.
    pub etag: String,
    /// CRC-64/NVME of the part's bytes, so that a later read can be held against it.
    pub crc64: u64,
}

// === impl PartPlan ===

impl PartPlan {
    /// Cuts `size_bytes` into parts of `part_bytes`, or of as many bytes more as it takes to stay
    /// within 10,000 parts (then whole MiB).
    pub fn new(size_bytes: u64, part_bytes: NonZeroU64) -> Self {
        Self::within(size_bytes, part_bytes, PARTS_MAX)
    }

    /// As [`PartPlan::new`], for a store that takes so many parts at most.
    pub fn within(size_bytes: u64, part_bytes: NonZeroU64, parts_max: u64) -> Self {
        let needed = size_bytes.div_ceil(parts_max.clamp(1, PARTS_MAX));
        let part_bytes = match NonZeroU64::new(needed.next_multiple_of(1 << 20)) {
            Some(raised) if needed > part_bytes.get() => raised,
            _ => part_bytes,
        };
        Self {
            size_bytes,
            part_bytes,
        }
    }

    /// Bytes of each part but the last.
    pub fn part_bytes(self) -> NonZeroU64 {
        self.part_bytes
    }

    /// How many parts there are; an empty object has none.
    pub fn count(self) -> u64 {
        self.size_bytes.div_ceil(self.part_bytes.get())
    }

    /// The parts in order: number from 1, and the range of bytes.
    pub fn parts(self) -> impl Iterator<Item = (u32, Range<u64>)> {
        (1u32..)
            .zip(
                (0..self.size_bytes)
                    .step_by(usize::try_from(self.part_bytes.get()).unwrap_or(usize::MAX)),
            )
            .map(move |(number, start)| {
                let end = start.saturating_add(self.part_bytes.get());
                (number, start..end.min(self.size_bytes))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn plan(size_bytes: u64, part_bytes: u64) -> PartPlan {
        PartPlan::new(size_bytes, NonZeroU64::new(part_bytes).unwrap())
    }

    proptest! {
        #[test]
        fn parts_cover_every_byte_once(size in 0u64..1 << 40, part in 5u64 << 20..5 << 30) {
            let plan = plan(size, part);
            prop_assert!(plan.count() <= PARTS_MAX);
            let mut end = 0;
            let mut count = 0;
            for (number, range) in plan.parts() {
                count += 1;
                prop_assert_eq!(u64::from(number), count);
                prop_assert_eq!(range.start, end);
                let length = range.end - range.start;
                prop_assert!(length == plan.part_bytes().get() || range.end == size);
                prop_assert!(length > 0);
                end = range.end;
            }
            prop_assert_eq!((end, count), (size, plan.count()));
        }
    }

    #[test]
    fn a_part_size_is_kept_exactly_until_the_parts_would_be_too_many() {
        let odd = (5 << 20) + 1;
        assert_eq!(plan(odd * PARTS_MAX, odd).part_bytes().get(), odd);
        assert_eq!(plan(odd * PARTS_MAX, odd).count(), PARTS_MAX);
        let raised = plan(odd * PARTS_MAX + 1, odd);
        assert_eq!(raised.part_bytes().get(), 6 << 20);
        // 200 GiB in 8 MiB parts would be 25,600.
        let large = plan(200 << 30, 8 << 20);
        assert_eq!(large.part_bytes().get(), 21 << 20);
        assert_eq!(
            large.parts().last(),
            Some((9753, 214_739_976_192..214_748_364_800))
        );
    }
}
