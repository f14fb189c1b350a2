//! Who answers for which part of a request (`design.md` §5.3).
//!
//! [`divide`] is pure: what may answer goes in, ranges come out. Blocks cover half-open ranges and
//! requests closed ones; in between all is half-open, in 128 bits, so that the last instant has an
//! end too.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use super::block::Block;
use crate::model::{BlockId, TimeRange, TimestampMs};
use crate::store::QueryRange;

/// Who answers for which part of a request's range.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The blocks to read, by their first instant.
    pub local: Vec<LocalBlock>,
    /// What the blocks of `local` answer for, ascending, disjoint and not adjacent. Where none of
    /// them covers an instant of it, nobody has samples there.
    pub covered: Vec<QueryRange>,
    /// What Prometheus is asked for: ascending, disjoint, at most [`REMOTE_RANGES_MAX`]. Together
    /// with `covered` this is the request's range.
    pub remote: Vec<QueryRange>,
}

/// A block, and what it is to answer for.
#[derive(Clone, Debug)]
pub struct LocalBlock {
    /// The block.
    pub block: Arc<Block>,
    /// Ascending, disjoint, within the block's range, never empty.
    pub ranges: Vec<QueryRange>,
}

impl Plan {
    /// The same with everything between the first and the last remote range left to Prometheus.
    #[must_use]
    pub fn with_one_remote_range(mut self) -> Self {
        let (Some(first), Some(last)) = (self.remote.first(), self.remote.last()) else {
            return self;
        };
        let hull = QueryRange {
            mint: first.mint,
            maxt: last.maxt,
        };
        let outside = |range: &QueryRange| range.maxt < hull.mint || range.mint > hull.maxt;
        self.covered.retain(outside);
        for part in &mut self.local {
            part.ranges.retain(outside);
        }
        self.local.retain(|part| !part.ranges.is_empty());
        self.remote = vec![hull];
        self
    }
}

/// The most ranges that Prometheus is asked for: each is a remote read of its own.
pub(super) const REMOTE_RANGES_MAX: usize = 3;
const _: () = assert!(REMOTE_RANGES_MAX >= 2);

/// Instants from the first to before the last.
type Span = Range<i128>;

/// What may answer a request.
#[derive(Debug)]
pub(super) struct Sources<'a> {
    /// The proven blocks, by first instant.
    pub(super) blocks: &'a [Candidate],
    /// What lies between blocks and is wider than this is Prometheus', ms.
    pub(super) gap_ms_max: i64,
    /// Those of them that can't be used: their ranges are Prometheus'.
    pub(super) unusable: &'a HashSet<BlockId>,
    /// Other ranges that are Prometheus'.
    pub(super) excluded: &'a [TimeRange],
    /// The first instant that is Prometheus' with all that follow.
    pub(super) cut: TimestampMs,
    /// The first instant that may be local.
    pub(super) floor: TimestampMs,
}

/// A block that may answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) id: BlockId,
    pub(super) range: TimeRange,
}

/// A request, divided.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Division {
    /// Positions in [`Sources::blocks`], and what each answers for.
    pub(super) local: Vec<(usize, Vec<QueryRange>)>,
    /// As [`Plan::covered`].
    pub(super) covered: Vec<QueryRange>,
    /// As [`Plan::remote`].
    pub(super) remote: Vec<QueryRange>,
}

/// Divides `request` among blocks and Prometheus.
pub(super) fn divide(request: QueryRange, sources: &Sources<'_>) -> Division {
    let whole = i128::from(request.mint.0)..i128::from(request.maxt.0) + 1;
    let allowed = clip(
        &whole,
        &(i128::from(sources.floor.0)..i128::from(sources.cut.0)),
    );
    let mut covered = Vec::new();
    if !allowed.is_empty() && !sources.blocks.is_empty() {
        let mut taken = gaps(sources.blocks, sources.gap_ms_max);
        taken.extend(sources.excluded.iter().map(|range| span(*range)));
        let unusable = |block: &&Candidate| sources.unusable.contains(&block.id);
        let unusable = sources.blocks.iter().filter(unusable);
        taken.extend(unusable.map(|block| span(block.range)));
        covered = without(&allowed, taken);
    }
    let remote = joined(without(&whole, covered));
    let covered = without(&whole, remote.clone());
    let local = sources.blocks.iter().enumerate().filter_map(|(at, block)| {
        let within = covered.iter().map(|part| clip(part, &span(block.range)));
        let ranges: Vec<_> = within.filter_map(closed).collect();
        let usable = !ranges.is_empty() && !sources.unusable.contains(&block.id);
        usable.then_some((at, ranges))
    });
    Division {
        local: local.collect(),
        covered: covered.into_iter().filter_map(closed).collect(),
        remote: remote.into_iter().filter_map(closed).collect(),
    }
}

/// What lies between blocks, which are in order of their first instants, where that is wider than
/// `gap_ms_max`.
fn gaps(blocks: &[Candidate], gap_ms_max: i64) -> Vec<Span> {
    let mut gaps = Vec::new();
    let mut reached: Option<i128> = None;
    for block in blocks.iter().map(|block| span(block.range)) {
        let gap = reached.map(|reached| reached..block.start);
        gaps.extend(gap.filter(|gap| gap.end - gap.start > i128::from(gap_ms_max)));
        reached = reached.max(Some(block.end));
    }
    gaps
}

/// What of `whole` is in none of `taken`: ascending, disjoint, not adjacent.
fn without(whole: &Span, mut taken: Vec<Span>) -> Vec<Span> {
    taken.sort_unstable_by_key(|span| span.start);
    let mut left = Vec::new();
    let mut from = whole.start;
    for span in taken.iter().filter(|span| !span.is_empty()) {
        if from < span.start.min(whole.end) {
            left.push(from..span.start.min(whole.end));
        }
        from = from.max(span.end);
    }
    if from < whole.end {
        left.push(from..whole.end);
    }
    left
}

/// At most [`REMOTE_RANGES_MAX`] ranges: those nearest to each other become one, with what was
/// local between them. The newest, which is the head's as a rule and the most asked for, stays
/// apart.
fn joined(remote: Vec<Span>) -> Vec<Span> {
    let Some(others) = remote.len().checked_sub(REMOTE_RANGES_MAX) else {
        return remote;
    };
    if others == 0 {
        return remote;
    }
    let starts = remote.iter().skip(1).map(|span| span.start);
    let ends = remote.iter().map(|span| span.end);
    // One fewer than there are, without that before the newest.
    let between = starts.zip(ends).map(|(start, end)| start - end);
    let mut widest: Vec<(i128, usize)> = between.zip(0..).collect();
    let newest = widest.pop();
    widest.sort_unstable();
    let kept = widest.split_off(others.min(widest.len()));
    let kept: HashSet<usize> = kept.into_iter().chain(newest).map(|(_, at)| at).collect();
    let mut joined: Vec<Span> = Vec::with_capacity(REMOTE_RANGES_MAX);
    let mut apart = true;
    for (at, span) in remote.into_iter().enumerate() {
        match joined.last_mut() {
            Some(last) if !apart => last.end = span.end,
            _ => joined.push(span),
        }
        apart = kept.contains(&at);
    }
    joined
}

fn span(range: TimeRange) -> Span {
    i128::from(range.mint.0)..i128::from(range.maxt.0)
}

fn clip(span: &Span, to: &Span) -> Span {
    span.start.max(to.start)..span.end.min(to.end)
}

/// `None` where it is empty.
fn closed(span: Span) -> Option<QueryRange> {
    // Every span here is part of a request's, whose borders fit.
    let mint = i64::try_from(span.start).ok()?;
    let maxt = i64::try_from(span.end - 1).ok()?;
    (mint <= maxt).then_some(QueryRange {
        mint: TimestampMs(mint),
        maxt: TimestampMs(maxt),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(n: usize) -> BlockId {
        BlockId::from_u128(n as u128)
    }

    fn time_range((mint, maxt): (i64, i64)) -> TimeRange {
        TimeRange {
            mint: TimestampMs(mint),
            maxt: TimestampMs(maxt),
        }
    }

    fn query((mint, maxt): (i64, i64)) -> QueryRange {
        QueryRange {
            mint: TimestampMs(mint),
            maxt: TimestampMs(maxt),
        }
    }

    fn pairs(ranges: &[QueryRange]) -> Vec<(i64, i64)> {
        ranges
            .iter()
            .map(|range| (range.mint.0, range.maxt.0))
            .collect()
    }

    /// Everything that [`Sources`] borrows.
    #[derive(Clone, Debug)]
    struct Scene {
        blocks: Vec<Candidate>,
        unusable: HashSet<BlockId>,
        excluded: Vec<TimeRange>,
        cut: i64,
        floor: i64,
        gap_ms_max: i64,
    }

    impl Scene {
        fn new(
            blocks: &[(i64, i64)],
            unusable: &[usize],
            excluded: &[(i64, i64)],
            cut: i64,
        ) -> Self {
            let mut blocks = blocks.to_vec();
            blocks.sort_unstable();
            let blocks = blocks.into_iter().enumerate().map(|(n, range)| Candidate {
                id: id(n),
                range: time_range(range),
            });
            Self {
                blocks: blocks.collect(),
                unusable: unusable.iter().copied().map(id).collect(),
                excluded: excluded.iter().copied().map(time_range).collect(),
                cut,
                floor: i64::MIN,
                gap_ms_max: 0,
            }
        }

        fn divide(&self, request: (i64, i64)) -> Division {
            divide(
                query(request),
                &Sources {
                    blocks: &self.blocks,
                    gap_ms_max: self.gap_ms_max,
                    unusable: &self.unusable,
                    excluded: &self.excluded,
                    cut: TimestampMs(self.cut),
                    floor: TimestampMs(self.floor),
                },
            )
        }

        /// Whether an instant may be local, by the words of the design.
        fn may_be_local(&self, t: i64) -> bool {
            let holds = |range: &TimeRange| range.mint.0 <= t && t < range.maxt.0;
            let held = self.blocks.iter().any(|b| holds(&b.range));
            let ended = self
                .blocks
                .iter()
                .map(|b| b.range.maxt.0.max(b.range.mint.0));
            let ended = ended.filter(|end| *end <= t).max();
            let begins = self.blocks.iter().map(|b| b.range.mint.0);
            let begins = begins.filter(|begin| *begin > t).min();
            let is_wide = |(end, begin): (i64, i64)| begin - end > self.gap_ms_max;
            let between = !held && ended.zip(begins).is_some_and(is_wide);
            let bad = |b: &&Candidate| self.unusable.contains(&b.id);
            !self.blocks.is_empty()
                && t < self.cut
                && t >= self.floor
                && !between
                && !self.excluded.iter().any(holds)
                && !self.blocks.iter().filter(bad).any(|b| holds(&b.range))
        }
    }

    #[test]
    fn the_newest_part_is_prometheus_and_the_rest_is_local() {
        let scene = Scene::new(&[(0, 10), (10, 20)], &[], &[], 18);
        let division = scene.divide((5, 30));
        assert_eq!(pairs(&division.covered), [(5, 17)]);
        assert_eq!(pairs(&division.remote), [(18, 30)]);
        let local: Vec<_> = division
            .local
            .iter()
            .map(|(at, r)| (*at, pairs(r)))
            .collect();
        assert_eq!(local, [(0, vec![(5, 9)]), (1, vec![(10, 17)])]);
    }

    #[test]
    fn narrow_gaps_are_nobodys_and_wide_ones_prometheus() {
        // As heads are cut: each block begins with its first sample.
        let blocks = [(3, 10), (12, 20), (21, 30), (36, 40)];
        let scene = Scene {
            gap_ms_max: 5,
            ..Scene::new(&blocks, &[], &[], 40)
        };
        let division = scene.divide((0, 39));
        assert_eq!(pairs(&division.covered), [(0, 29), (36, 39)]);
        assert_eq!(pairs(&division.remote), [(30, 35)]);
        assert_eq!(division.local.len(), 4);
    }

    #[test]
    fn what_is_older_than_all_blocks_is_nobodys_and_needs_no_question() {
        let scene = Scene::new(&[(0, 10)], &[], &[], 10);
        let division = scene.divide((i64::MIN, 9));
        assert_eq!(pairs(&division.covered), [(i64::MIN, 9)]);
        assert_eq!((division.remote.len(), division.local.len()), (0, 1));
    }

    #[test]
    fn without_blocks_all_is_prometheus_up_to_the_end_of_time() {
        let everything = (i64::MIN, i64::MAX);
        let none = Scene::new(&[], &[], &[], i64::MAX).divide(everything);
        assert_eq!(pairs(&none.remote), [everything]);
        assert!(none.covered.is_empty() && none.local.is_empty());
        let all = Scene::new(&[(0, 10)], &[], &[], i64::MIN).divide(everything);
        assert_eq!(pairs(&all.remote), [everything]);
        let some = Scene::new(&[(i64::MIN, i64::MAX)], &[], &[], i64::MAX).divide(everything);
        assert_eq!(pairs(&some.remote), [(i64::MAX, i64::MAX)]);
        assert_eq!(pairs(&some.covered), [(i64::MIN, i64::MAX - 1)]);
    }

    #[test]
    fn one_block_that_cannot_be_used_does_not_take_along_what_is_newer() {
        let blocks: Vec<_> = (0..10).map(|n| (n * 10, n * 10 + 10)).collect();
        let division = Scene::new(&blocks, &[3], &[], 95).divide((0, 120));
        assert_eq!(pairs(&division.remote), [(30, 39), (95, 120)]);
        assert_eq!(pairs(&division.covered), [(0, 29), (40, 94)]);
        assert_eq!(division.local.len(), 9);
    }

    #[test]
    fn the_nearest_are_joined_and_the_newest_stays_apart() {
        let blocks: Vec<_> = (0..10).map(|n| (n * 10, n * 10 + 10)).collect();
        // 1 and 3 are the nearest but for 8 and the head.
        let division = Scene::new(&blocks, &[1, 3, 8], &[], 95).divide((0, 120));
        assert_eq!(pairs(&division.remote), [(10, 39), (80, 89), (95, 120)]);
        assert_eq!(pairs(&division.covered), [(0, 9), (40, 79), (90, 94)]);
        let division = Scene::new(&blocks, &[1, 3, 6, 8], &[], 95).divide((0, 120));
        assert_eq!(pairs(&division.remote), [(10, 39), (60, 89), (95, 120)]);
        let all_but_even = Scene::new(&blocks, &[1, 3, 5, 7, 9], &[], 100).divide((0, 99));
        assert_eq!(all_but_even.remote.len(), REMOTE_RANGES_MAX);
        assert_eq!(all_but_even.remote[2], query((90, 99)));
    }

    #[test]
    fn ten_thousand_blocks_with_holes_give_three_ranges() {
        let blocks: Vec<_> = (0..10_000).map(|n| (n * 10, n * 10 + 9)).collect();
        let division = Scene::new(&blocks, &[], &[], 99_999).divide((0, 200_000));
        assert_eq!(division.remote.len(), REMOTE_RANGES_MAX);
        assert_eq!(division.remote[2], query((99_999, 200_000)));
    }

    fn spans() -> impl Strategy<Value = Vec<(i64, i64)>> {
        let span = (-20_i64..60, 0_i64..25).prop_map(|(start, length)| (start, start + length));
        proptest::collection::vec(span, 0..7)
    }

    fn scenes() -> impl Strategy<Value = Scene> {
        let unusable = proptest::collection::vec(0_usize..7, 0..3);
        let floor = prop_oneof![4 => Just(i64::MIN), 1 => -20_i64..60];
        (spans(), unusable, spans(), -25_i64..90, floor, 0_i64..12).prop_map(
            |(blocks, unusable, excluded, cut, floor, gap_ms_max)| Scene {
                floor,
                gap_ms_max,
                ..Scene::new(&blocks, &unusable, &excluded[..excluded.len().min(2)], cut)
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn every_instant_is_answered_for_once_by_those_who_may(
            scene in scenes(), start in -30_i64..70, length in 0_i64..100,
        ) {
            let request = (start, start + length);
            let division = scene.divide(request);
            let holds = |ranges: &[QueryRange], t: i64| {
                ranges.iter().filter(|range| range.mint.0 <= t && t <= range.maxt.0).count()
            };
            for ranges in [&division.covered, &division.remote] {
                prop_assert!(ranges.iter().all(|range| range.mint <= range.maxt));
                let apart = |pair: &[QueryRange]| pair[0].maxt.0 + 1 < pair[1].mint.0;
                prop_assert!(ranges.windows(2).all(apart));
                prop_assert!(ranges.iter().all(|r| request.0 <= r.mint.0 && r.maxt.0 <= request.1));
            }
            prop_assert!(division.remote.len() <= REMOTE_RANGES_MAX);
            let mut runs = 0;
            let mut before = true;
            for t in request.0..=request.1 {
                let local = scene.may_be_local(t);
                runs += usize::from(before && !local);
                before = local;
            }
            for t in request.0..=request.1 {
                let (covered, remote) = (holds(&division.covered, t), holds(&division.remote, t));
                prop_assert_eq!(covered + remote, 1, "{}", t);
                prop_assert!(covered == 0 || scene.may_be_local(t), "{}", t);
                if runs <= REMOTE_RANGES_MAX {
                    prop_assert_eq!(covered == 1, scene.may_be_local(t), "{}", t);
                }
                for (at, block) in scene.blocks.iter().enumerate() {
                    let has = block.range.mint.0 <= t && t < block.range.maxt.0;
                    let parts = division.local.iter().filter(|(picked, _)| *picked == at);
                    let times: usize = parts.map(|(_, ranges)| holds(ranges, t)).sum();
                    prop_assert_eq!(times, usize::from(has && covered == 1), "{} {}", at, t);
                }
            }
            prop_assert!(division.local.iter().all(|(_, ranges)| !ranges.is_empty()));
        }
    }

    #[test]
    fn one_remote_range_takes_what_lies_between() {
        let range = |mint, maxt| QueryRange {
            mint: TimestampMs(mint),
            maxt: TimestampMs(maxt),
        };
        let plan = Plan {
            local: Vec::new(),
            covered: vec![range(0, 9), range(20, 29), range(40, 49)],
            remote: vec![range(10, 19), range(30, 39)],
        };
        let one = plan.with_one_remote_range();
        assert_eq!(one.remote, [range(10, 39)]);
        assert_eq!(one.covered, [range(0, 9), range(40, 49)]);
    }
}
