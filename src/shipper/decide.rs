//! What to do with a block: a pure table over what is known of it (contract `shipper.md` §2).

use crate::model::BlockId;
use crate::tsdb::BlockMeta;

/// How the operator wants blocks to be shipped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// `--shipper.upload-compacted`: also blocks that Prometheus has compacted.
    pub upload_compacted: bool,
    /// `--shipper.allow-out-of-order-uploads`: a failed block does not hold back newer ones, and
    /// overlaps are not looked for.
    pub allow_out_of_order: bool,
    /// `--shipper.skip-corrupted-blocks`: a block that can't be read does not hold back newer ones.
    pub skip_corrupted: bool,
}

/// What is known of a block beside its `meta.json`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Standing {
    /// The ledger lists it.
    pub(super) in_ledger: bool,
    /// It was found damaged, and nothing of it has changed since.
    pub(super) is_corrupt: bool,
    /// It was found damaged and has changed since; newer blocks may be in the bucket by now.
    pub(super) was_corrupt: bool,
    /// An older block failed, and newer ones must wait for it.
    pub(super) held_back_by: Option<BlockId>,
}

/// What to do with a block now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// It is in the bucket; keep it in the ledger.
    AlreadyShipped,
    /// It is not to be shipped.
    Skip(SkipReason),
    /// Look whether the bucket has it, and ship it where not.
    Ship(OverlapCheck),
}

/// What must be proven of a block's range before it joins those in the bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OverlapCheck {
    /// Nothing: it comes in order.
    None,
    /// That it overlaps no block there.
    OwnOnly,
    /// That nothing overlaps, be it the block or two that are there already.
    Everything,
}

/// Why a block is not shipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SkipReason {
    /// It has no samples.
    Empty,
    /// Prometheus compacted it, and compacted blocks are not wanted.
    Compacted,
    /// It is damaged.
    Corrupt,
    /// It says that it is downsampled, which no block of a Prometheus is: store gateway and
    /// compactor would refuse it.
    Downsampled {
        /// The resolution it claims, in milliseconds.
        resolution_ms: i64,
    },
    /// An older block failed, and compactors rely on the order.
    HeldBack {
        /// That block.
        by: BlockId,
    },
}

/// Decides, in the reference's order of checks.
pub(super) fn decide(meta: &BlockMeta, standing: Standing, policy: Policy) -> Decision {
    if standing.in_ledger {
        return Decision::AlreadyShipped;
    }
    if meta.stats.num_samples == 0 {
        return Decision::Skip(SkipReason::Empty);
    }
    let is_compacted = meta.compaction.level > 1;
    if is_compacted && !policy.upload_compacted {
        return Decision::Skip(SkipReason::Compacted);
    }
    let resolution_ms = meta
        .thanos
        .as_ref()
        .map_or(0, |thanos| thanos.downsample.resolution);
    if resolution_ms != 0 {
        return Decision::Skip(SkipReason::Downsampled { resolution_ms });
    }
    if standing.is_corrupt {
        return Decision::Skip(SkipReason::Corrupt);
    }
    if let Some(by) = standing.held_back_by {
        return Decision::Skip(SkipReason::HeldBack { by });
    }
    Decision::Ship(match () {
        () if policy.allow_out_of_order => OverlapCheck::None,
        () if is_compacted => OverlapCheck::Everything,
        () if standing.was_corrupt => OverlapCheck::OwnOnly,
        () => OverlapCheck::None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(samples: u64, level: u32, resolution: i64) -> BlockMeta {
        let text = format!(
            "{{\"ulid\":\"01HZXW7J7T3Q9V8N2M4K6B5A0C\",\"minTime\":0,\"maxTime\":10,\
             \"stats\":{{\"numSamples\":{samples}}},\"compaction\":{{\"level\":{level}}},\
             \"version\":1,\"thanos\":{{\"labels\":{{}},\
             \"downsample\":{{\"resolution\":{resolution}}},\
             \"source\":\"\"}}}}"
        );
        BlockMeta::parse(text.as_bytes()).unwrap()
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table, one row a case")]
    fn the_table() {
        let by = BlockId::from_u128(1);
        let none = Standing::default();
        let ledger = Standing {
            in_ledger: true,
            is_corrupt: true,
            ..none
        };
        let corrupt = Standing {
            is_corrupt: true,
            ..none
        };
        let whole_again = Standing {
            was_corrupt: true,
            ..none
        };
        let held = Standing {
            held_back_by: Some(by),
            ..none
        };
        let strict = Policy::default();
        let compacted = Policy {
            upload_compacted: true,
            ..strict
        };
        let loose = Policy {
            upload_compacted: true,
            allow_out_of_order: true,
            ..strict
        };
        let ship = Decision::Ship;
        let skip = Decision::Skip;
        for (meta, standing, policy, expected) in [
            (meta(5, 1, 0), none, strict, ship(OverlapCheck::None)),
            (meta(5, 1, 0), ledger, strict, Decision::AlreadyShipped),
            (meta(0, 1, 0), ledger, strict, Decision::AlreadyShipped),
            (meta(0, 1, 0), none, strict, skip(SkipReason::Empty)),
            (meta(5, 2, 0), none, strict, skip(SkipReason::Compacted)),
            (
                meta(5, 2, 0),
                none,
                compacted,
                ship(OverlapCheck::Everything),
            ),
            (meta(5, 2, 0), none, loose, ship(OverlapCheck::None)),
            (meta(5, 1, 0), none, loose, ship(OverlapCheck::None)),
            (meta(5, 1, 0), corrupt, strict, skip(SkipReason::Corrupt)),
            (meta(5, 1, 0), corrupt, loose, skip(SkipReason::Corrupt)),
            (
                meta(5, 1, 0),
                whole_again,
                strict,
                ship(OverlapCheck::OwnOnly),
            ),
            (meta(5, 1, 0), whole_again, loose, ship(OverlapCheck::None)),
            (
                meta(5, 1, 0),
                held,
                strict,
                skip(SkipReason::HeldBack { by }),
            ),
            (meta(0, 1, 0), held, strict, skip(SkipReason::Empty)),
            (
                meta(5, 1, 5),
                none,
                strict,
                skip(SkipReason::Downsampled { resolution_ms: 5 }),
            ),
        ] {
            assert_eq!(
                decide(&meta, standing, policy),
                expected,
                "{meta:?} {standing:?} {policy:?}"
            );
        }
    }
}
