//! The index file, walked once from front to back while it streams past, or read at random.
//!
//! [`IndexVerifier`] proves the whole file; [`SeriesChunks`] is a second reading position in its
//! series section, for the chunk references that a segment must contain. Layout:
//! `contract/tsdb.md` §3. How the pieces talk: the verifier cuts the stream at the section starts
//! that the table of contents gives, [`frames`] cuts a section into checksummed structures, and one
//! small decoder per structure reads the bodies.
//!
//! Memory depends neither on file size nor on the number of series. Where two sections must agree
//! on a set of numbers, both sides keep an order-independent [`Tally`] instead of the set. The
//! limits below bound the rest.
//!
//! Random access is apart from all that, for it has all bytes at hand: [`layout`] is what is kept
//! of an open index ([`sampled_symbols`], [`sampled_table`]), [`view`] looks things up in it,
//! [`lists`] combines postings, [`reader`] decodes series entries.

mod chunks;
mod frames;
#[cfg(any(fuzzing, test, feature = "testing"))]
mod fuzz;
#[cfg(any(fuzzing, test, feature = "testing"))]
mod fuzz_access;
mod label_index;
mod layout;
mod lists;
mod offset_table;
mod postings;
mod reader;
mod sampled_symbols;
mod sampled_table;
mod series;
mod series_checks;
mod symbols;
mod text;
mod toc;
mod verifier;
mod view;

pub use chunks::SeriesChunks;
#[cfg(any(fuzzing, test, feature = "testing"))]
pub(super) use fuzz::fuzz_bodies;
#[cfg(any(fuzzing, test, feature = "testing"))]
pub use fuzz_access::{fuzz_postings, fuzz_series_entry, fuzz_view};
pub use layout::IndexLayout;
pub use lists::{Postings, PostingsUnion};
pub use reader::{SERIES_CHUNKS_MAX, SeriesReader};
pub use series::ChunkMeta;
pub use toc::{INDEX_TOC_BYTES, IndexToc};
pub use verifier::{IndexSummary, IndexVerifier, SegmentRefs};
pub use view::{IndexView, PostingsRef, Values};

/// The longest symbol (label name or value), bytes. Prometheus packs labels with 24-bit lengths and
/// cannot hold a longer one. At most three texts are in memory at once (the key before and the part
/// of a text that a run's end has cut), which in real blocks are some hundred bytes.
pub const SYMBOL_BYTES_MAX: u64 = 16 << 20;

/// The most labels one series may have; 8 bytes each are in memory. Real series have tens, and
/// scrape pages with a thousand labels on one series do not exist.
pub const SERIES_LABELS_MAX: u64 = 1 << 16;

/// The most segment files one index may refer to; 24 bytes each are in memory. At Prometheus'
/// 512 MiB a segment this is 32 TiB.
pub const SEGMENTS_MAX: u64 = 1 << 16;

/// The most padding between two structures, bytes: series entries are aligned to 16.
const PADDING_BYTES_MAX: u64 = 15;

/// A multiset of numbers, told from others by its size and the sum of a hash of each element.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    count: u64,
    sum: u64,
}

impl Tally {
    fn add(&mut self, element: u64) {
        self.add_times(element, 1);
    }

    fn add_times(&mut self, element: u64, times: u64) {
        self.count = self.count.wrapping_add(times);
        self.sum = self.sum.wrapping_add(mix(element).wrapping_mul(times));
    }

    fn add_all(&mut self, other: Self) {
        self.count = self.count.wrapping_add(other.count);
        self.sum = self.sum.wrapping_add(other.sum);
    }
}

/// The finaliser of SplitMix64: every input bit changes about half of the output bits, so sums of
/// its values over different sets differ except with probability 2^-64.
const fn mix(element: u64) -> u64 {
    let mut z = element.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests;
