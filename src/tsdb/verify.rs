//! What must hold between the files of a block: every reference of the index meets a chunk, and the
//! sums are those of `meta.json`.
//!
//! [`RefMatch`] walks two ascending sequences in lock step: the references of the index to one
//! segment file, and the chunks found in that file. Neither is ever whole in memory; the caller
//! feeds whichever side is behind.

use std::collections::VecDeque;

use super::{
    BlockStats, ChunkRef, ChunkStart, DecodeError, DecodeErrorKind, IndexSummary, Section,
};

/// Matches the index's references to one segment file with the chunks found in it.
///
/// ```
/// # use outrigger::tsdb::{ChunkRef, ChunkStart, Encoding, RefMatch};
/// # fn main() -> Result<(), outrigger::tsdb::DecodeError> {
/// # let reference = ChunkRef::new(0, 8);
/// # let mut found = vec![ChunkStart { reference, encoding: Encoding::Xor, samples: 120 }];
/// # let mut index = vec![reference].into_iter();
/// let mut matching = RefMatch::new(0, 1);
/// loop {
///     let met = matching.found(&found)?;
///     found.drain(..met);
///     if found.is_empty() {
///         break; // feed the segment walk
///     }
///     for reference in index.by_ref().take(100) {
///         matching.expect(reference)?; // decoded from the index
///     }
/// }
/// while matching.wants_expected() {
///     match index.next() {
///         Some(reference) => matching.expect(reference)?,
///         None => break,
///     }
/// }
/// assert_eq!(matching.finish()?.totals.float_samples, 120);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct RefMatch {
    segment: u32,
    /// References to the segment still to be expected.
    to_come: u64,
    /// References expected and not met. As many as the caller feeds ahead.
    expected: VecDeque<ChunkRef>,
    last_expected: Option<ChunkRef>,
    matched: SegmentMatch,
}

/// What one segment file held of the index's chunks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SegmentMatch {
    /// Sums over the chunks that the index references.
    pub totals: BlockTotals,
    /// Chunks that nothing references. Harmless: no reader can reach them.
    pub unreferenced_chunks: u64,
}

/// Sums over chunks that the index references.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockTotals {
    /// Chunks.
    pub chunks: u64,
    /// Samples in float chunks.
    pub float_samples: u64,
    /// Samples in histogram chunks.
    pub histogram_samples: u64,
}

/// A block does not hold what its `meta.json` or its index says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TotalsError {
    /// A count in `stats` is wrong.
    #[error("stats.{stat} is {expected} in meta.json, the block holds {found}")]
    Stat {
        /// The key in `stats`.
        stat: &'static str,
        /// As `meta.json` has it.
        expected: u64,
        /// As counted.
        found: u64,
    },
    /// Some references of the index have not been matched with a chunk.
    #[error("the index references {expected} chunks, {found} have been met in the segment files")]
    Chunks {
        /// References in the index.
        expected: u64,
        /// References that met a chunk.
        found: u64,
    },
}

impl RefMatch {
    /// A matching for the segment file at position `segment`, to which the index holds `chunks`
    /// references ([`SegmentRefs::chunks`](super::SegmentRefs)).
    pub fn new(segment: u32, chunks: u64) -> Self {
        Self {
            segment,
            to_come: chunks,
            expected: VecDeque::new(),
            last_expected: None,
            matched: SegmentMatch::default(),
        }
    }

    /// Takes the next reference of the index. Those to other segments are ignored.
    ///
    /// # Errors
    /// When references do not ascend strictly, or are more than announced.
    pub fn expect(&mut self, reference: ChunkRef) -> Result<(), DecodeError> {
        if reference.segment() != self.segment {
            return Ok(());
        }
        let error = |kind| Err(at(reference, kind));
        match self.last_expected.replace(reference) {
            Some(last) if last == reference => return error(DecodeErrorKind::DuplicateReference),
            Some(last) if last > reference => {
                let what = "chunk references";
                return error(DecodeErrorKind::Order { what });
            }
            _ => {}
        }
        let Some(to_come) = self.to_come.checked_sub(1) else {
            return error(CHANGED);
        };
        self.to_come = to_come;
        self.expected.push_back(reference);
        Ok(())
    }

    /// Takes the next references of the index, see [`RefMatch::expect`].
    ///
    /// # Errors
    /// Those of [`RefMatch::expect`].
    pub fn expect_all(&mut self, references: &[ChunkRef]) -> Result<(), DecodeError> {
        self.expected.reserve(references.len());
        references
            .iter()
            .try_for_each(|reference| self.expect(*reference))
    }

    /// Whether nothing more can be matched before the next [`RefMatch::expect`].
    pub fn wants_expected(&self) -> bool {
        self.expected.is_empty() && self.to_come > 0
    }

    /// Takes chunks found in the segment file, in file order; returns how many it could place. When
    /// fewer than all, expect more references and offer the rest again.
    ///
    /// # Errors
    /// When the index references a place where no chunk starts.
    pub fn found(&mut self, found: &[ChunkStart]) -> Result<usize, DecodeError> {
        let mut placed = 0_usize;
        for chunk in found {
            match self.expected.front() {
                None if self.to_come > 0 => return Ok(placed),
                Some(&expected) if expected < chunk.reference => {
                    return Err(at(expected, DecodeErrorKind::NoChunk));
                }
                Some(&expected) if expected == chunk.reference => {
                    self.expected.pop_front();
                    self.matched.totals.add_chunk(chunk);
                }
                _ => {
                    let unreferenced = &mut self.matched.unreferenced_chunks;
                    *unreferenced = unreferenced.saturating_add(1);
                }
            }
            placed = placed.saturating_add(1);
        }
        Ok(placed)
    }

    /// Ends the matching: both sides have been fed to their ends.
    ///
    /// # Errors
    /// When references are left for which no chunk was found, or fewer came than announced.
    pub fn finish(self) -> Result<SegmentMatch, DecodeError> {
        if let Some(&left) = self.expected.front() {
            return Err(at(left, DecodeErrorKind::NoChunk));
        }
        if self.to_come > 0 {
            let last = self.last_expected.unwrap_or(ChunkRef::new(self.segment, 0));
            return Err(at(last, CHANGED));
        }
        Ok(self.matched)
    }
}

impl BlockTotals {
    /// Adds the sums of another segment.
    pub fn add(&mut self, other: Self) {
        self.chunks = self.chunks.saturating_add(other.chunks);
        self.float_samples = self.float_samples.saturating_add(other.float_samples);
        self.histogram_samples = self
            .histogram_samples
            .saturating_add(other.histogram_samples);
    }

    /// Compares the sums over all segments with what the index and `meta.json` say. The two counts
    /// by kind of sample are compared only where the writer left at least one of them.
    ///
    /// # Errors
    /// The first count that differs.
    pub fn check(&self, index: &IndexSummary, stats: &BlockStats) -> Result<(), TotalsError> {
        if self.chunks != index.chunks {
            return Err(TotalsError::Chunks {
                expected: index.chunks,
                found: self.chunks,
            });
        }
        let by_kind = stats.num_float_samples != 0 || stats.num_histogram_samples != 0;
        let samples = self.float_samples.saturating_add(self.histogram_samples);
        let counts = [
            (true, "numSeries", stats.num_series, index.series),
            (true, "numChunks", stats.num_chunks, index.chunks),
            (true, "numSamples", stats.num_samples, samples),
            (
                by_kind,
                "numFloatSamples",
                stats.num_float_samples,
                self.float_samples,
            ),
            (
                by_kind,
                "numHistogramSamples",
                stats.num_histogram_samples,
                self.histogram_samples,
            ),
        ];
        for (compared, stat, expected, found) in counts {
            if compared && expected != found {
                return Err(TotalsError::Stat {
                    stat,
                    expected,
                    found,
                });
            }
        }
        Ok(())
    }

    fn add_chunk(&mut self, chunk: &ChunkStart) {
        let samples = u64::from(chunk.samples);
        let sum = if chunk.encoding.is_histogram() {
            &mut self.histogram_samples
        } else {
            &mut self.float_samples
        };
        *sum = sum.saturating_add(samples);
        self.chunks = self.chunks.saturating_add(1);
    }
}

/// The two readings of the index have not seen the same file.
const CHANGED: DecodeErrorKind = DecodeErrorKind::Disagreement {
    what: "the index holds another number of references to this segment than when it was verified",
};

fn at(reference: ChunkRef, kind: DecodeErrorKind) -> DecodeError {
    DecodeError::new(Section::Chunks, u64::from(reference.offset()), kind)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tsdb::Encoding;

    fn chunk(offset: u32, samples: u32) -> ChunkStart {
        ChunkStart {
            reference: ChunkRef::new(1, offset),
            encoding: match offset.is_multiple_of(2) {
                true => Encoding::Xor,
                false => Encoding::Histogram,
            },
            samples,
        }
    }

    /// Feeds both sides in pieces of the given sizes.
    fn matched(
        chunks: u64,
        expected: &[u32],
        found: &[ChunkStart],
        pieces: (usize, usize),
    ) -> Result<SegmentMatch, DecodeError> {
        let mut matching = RefMatch::new(1, chunks);
        let mut references = expected.chunks(pieces.0);
        let mut more = |matching: &mut RefMatch| match references.next() {
            Some(piece) => piece
                .iter()
                .try_for_each(|&offset| matching.expect(ChunkRef::new(1, offset)))
                .map(|()| true),
            None => Ok(false),
        };
        for piece in found.chunks(pieces.1) {
            let mut piece = piece;
            while !piece.is_empty() {
                let placed = matching.found(piece)?;
                piece = piece.split_at(placed).1;
                if !piece.is_empty() && !more(&mut matching)? {
                    break;
                }
            }
        }
        while matching.wants_expected() && more(&mut matching)? {}
        matching.finish()
    }

    #[test]
    fn sums_the_chunks_that_are_referenced() {
        let found = [chunk(8, 10), chunk(21, 20), chunk(30, 40), chunk(41, 80)];
        let matched = matched(3, &[8, 21, 41], &found, (2, 3)).unwrap();
        let totals = BlockTotals {
            chunks: 3,
            float_samples: 10,
            histogram_samples: 100,
        };
        assert_eq!(matched.totals, totals);
        assert_eq!(matched.unreferenced_chunks, 1);
    }

    #[test]
    fn every_reference_must_meet_a_chunk() {
        let found = [chunk(8, 1), chunk(20, 1)];
        let error = matched(2, &[8, 19], &found, (9, 9)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "chunks section, offset 19: the index references a chunk here, but none starts here"
        );
        let error = matched(3, &[8, 20, 33], &found, (9, 9)).unwrap_err();
        assert_eq!((error.offset, error.kind), (33, DecodeErrorKind::NoChunk));
        let error = matched(2, &[8, 8], &found, (9, 9)).unwrap_err();
        assert_eq!(error.kind, DecodeErrorKind::DuplicateReference);
        let error = matched(2, &[20, 8], &found, (9, 9)).unwrap_err();
        assert!(matches!(error.kind, DecodeErrorKind::Order { .. }));
        for announced in [1, 3] {
            let error = matched(announced, &[8, 20], &found, (9, 9)).unwrap_err();
            assert_eq!(error.kind, CHANGED, "{announced} announced");
        }
    }

    #[test]
    fn references_to_other_segments_do_not_matter() {
        let mut matching = RefMatch::new(1, 1);
        for reference in [
            ChunkRef::new(0, 900),
            ChunkRef::new(1, 8),
            ChunkRef::new(2, 8),
        ] {
            matching.expect(reference).unwrap();
        }
        assert!(!matching.wants_expected());
        assert_eq!(matching.found(&[chunk(8, 5)]), Ok(1));
        assert_eq!(matching.finish().unwrap().totals.chunks, 1);
        let nothing = RefMatch::new(1, 0).finish().unwrap();
        assert_eq!(nothing, SegmentMatch::default());
    }

    #[test]
    fn wrong_counts_are_named() {
        let index = IndexSummary {
            version: 2,
            symbols: 9,
            series: 3,
            chunks: 4,
            series_section: 0..1,
            refs_ascending: true,
            segments: Vec::new(),
        };
        let totals = BlockTotals {
            chunks: 4,
            float_samples: 100,
            histogram_samples: 20,
        };
        let stats = BlockStats {
            num_samples: 120,
            num_series: 3,
            num_chunks: 4,
            ..BlockStats::default()
        };
        assert_eq!(totals.check(&index, &stats), Ok(()));
        let kinds = BlockStats {
            num_float_samples: 100,
            num_histogram_samples: 20,
            ..stats.clone()
        };
        assert_eq!(totals.check(&index, &kinds), Ok(()));
        let wrong = |change: fn(&mut BlockStats)| {
            let mut stats = kinds.clone();
            change(&mut stats);
            totals.check(&index, &stats).unwrap_err().to_string()
        };
        assert_eq!(
            wrong(|s| s.num_samples = 121),
            "stats.numSamples is 121 in meta.json, the block holds 120"
        );
        assert!(wrong(|s| s.num_series = 0).starts_with("stats.numSeries is 0"));
        assert!(wrong(|s| s.num_chunks = 5).starts_with("stats.numChunks is 5"));
        assert!(wrong(|s| s.num_histogram_samples = 0).starts_with("stats.numHistogramSamples"));
        assert!(wrong(|s| s.num_float_samples = 99).starts_with("stats.numFloatSamples"));
        let fewer = BlockTotals {
            chunks: 3,
            ..totals
        };
        let error = fewer.check(&index, &stats).unwrap_err();
        assert_eq!(
            error,
            TotalsError::Chunks {
                expected: 4,
                found: 3
            }
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 256 }))]

        #[test]
        fn pieces_do_not_matter(
            offsets in prop::collection::btree_map(8_u32..200, any::<bool>(), 0..40),
            stray in prop::option::of(8_u32..200),
            pieces in (1_usize..9, 1_usize..9),
        ) {
            let found: Vec<_> = offsets.keys().map(|&offset| chunk(offset, 1)).collect();
            let mut expected: Vec<u32> =
                offsets.iter().filter_map(|(&o, &referenced)| referenced.then_some(o)).collect();
            expected.extend(stray);
            expected.sort_unstable();
            expected.dedup();
            let chunks = expected.len() as u64;
            let result = matched(chunks, &expected, &found, pieces);
            match stray.filter(|offset| !offsets.contains_key(offset)) {
                Some(offset) => {
                    let error = result.unwrap_err();
                    prop_assert_eq!((error.offset, error.kind),
                        (u64::from(offset), DecodeErrorKind::NoChunk));
                }
                None => prop_assert_eq!(result.unwrap().totals.chunks, chunks),
            }
        }
    }
}
