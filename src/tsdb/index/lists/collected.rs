//! Ids in memory: sorted, or a bit for each.

use super::gallop;

/// How much more memory bits may take than ids would. Setting bits costs a nanosecond an id,
/// sorting some dozen.
const BITS_FACTOR: u64 = 4;

/// An ascending set of ids in memory.
#[derive(Clone, Debug)]
pub(super) enum Collected {
    Sorted {
        ids: Vec<u32>,
        /// All before are below what was asked for last.
        at: usize,
    },
    Bits(Bits),
}

/// A bit for each id from `base` on.
#[derive(Clone, Debug)]
pub(super) struct Bits {
    base: u32,
    words: Vec<u64>,
    /// How many ids were set, some maybe more than once.
    ids: u64,
}

impl Collected {
    /// The set of ids that come in any order.
    pub(super) fn of_loose(mut ids: Vec<u32>) -> Self {
        let low = ids.iter().copied().min();
        let high = ids.iter().copied().max();
        let all = u64::try_from(ids.len()).unwrap_or(u64::MAX);
        let bits = low.zip(high);
        if let Some(mut bits) = bits.and_then(|(low, high)| Self::bits(low, high, all)) {
            bits.set_all(ids);
            return bits.finish();
        }
        ids.sort_unstable();
        ids.dedup();
        Self::Sorted { ids, at: 0 }
    }

    /// Bits for ids from `low` to `high`, both included, unless they take much more memory than
    /// `ids` ids as they are.
    pub(super) fn bits(low: u32, high: u32, ids: u64) -> Option<Bits> {
        let words = u64::from(high.checked_sub(low)?).wrapping_div(64);
        let words = words.saturating_add(1);
        // A word has the size of two ids.
        if words.saturating_mul(2) > ids.saturating_mul(BITS_FACTOR) {
            return None;
        }
        let words = vec![0; usize::try_from(words).ok()?];
        Some(Bits {
            base: low,
            words,
            ids: 0,
        })
    }

    /// At least how many there are.
    pub(super) fn count(&self) -> u64 {
        match self {
            Self::Sorted { ids, .. } => u64::try_from(ids.len()).unwrap_or(u64::MAX),
            Self::Bits(bits) => bits.ids,
        }
    }

    #[inline]
    pub(super) fn seek(&mut self, at_least: u32) -> Option<u32> {
        match self {
            Self::Sorted { ids, at } => {
                let (passed, found) = gallop(ids.get(*at..)?, at_least, |id| *id);
                *at = at.saturating_add(passed);
                found
            }
            Self::Bits(bits) => bits.seek(at_least),
        }
    }

    pub(super) fn rewind(&mut self) {
        match self {
            Self::Sorted { at, .. } => *at = 0,
            Self::Bits(_) => {}
        }
    }
}

impl Bits {
    /// Sets ids that lie in the range.
    #[inline]
    pub(super) fn set_all(&mut self, ids: impl IntoIterator<Item = u32>) {
        for id in ids {
            let bit = id.wrapping_sub(self.base);
            if let Some(word) = self.words.get_mut(bit.wrapping_div(64) as usize) {
                *word |= 1_u64.wrapping_shl(bit);
                self.ids = self.ids.wrapping_add(1);
            }
        }
    }

    pub(super) fn finish(self) -> Collected {
        Collected::Bits(self)
    }

    #[inline]
    fn seek(&self, at_least: u32) -> Option<u32> {
        let bit = at_least.saturating_sub(self.base);
        let at = bit.wrapping_div(64) as usize;
        // Those below in the same word are not wanted.
        let first = *self.words.get(at)? & u64::MAX.wrapping_shl(bit);
        if first != 0 {
            return Some(self.id(at, first));
        }
        let after = self.words.get(at.saturating_add(1)..)?;
        let skipped = after.iter().position(|word| *word != 0)?;
        let word = *after.get(skipped)?;
        Some(self.id(at.saturating_add(1).saturating_add(skipped), word))
    }

    /// The lowest id of the word at a position.
    fn id(&self, at: usize, word: u64) -> u32 {
        let bit = u32::try_from(at).unwrap_or(u32::MAX).wrapping_mul(64);
        let bit = bit.wrapping_add(word.trailing_zeros());
        self.base.wrapping_add(bit)
    }
}
