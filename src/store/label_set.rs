//! The labels of one series in the form of StoreAPI's wire, so that sending them is a copy.
//!
//! A set holds the encoded `labels` fields of a `thanos.Series` (contract `grpc.md` §2.1), sorted
//! by name, in one buffer, and where each label stands in it. Since encoded labels are
//! self-delimiting and always encoded in the same way, one set is a prefix of another where its
//! bytes are. Two allocations per series.

use std::cmp::Ordering;

use super::StoreError;
use super::wire::{put_varint, varint_len};

/// The most bytes of one series' labels: Prometheus' frames are limited to 50 MB and its own
/// labels to 64 KiB by default.
pub(super) const LABEL_SET_BYTES_MAX: usize = 16 << 20;

/// Tags of `Series.labels`, `Label.name` and `Label.value`.
const TAG_LABEL: u8 = 0x0A;
const TAG_NAME: u8 = 0x0A;
const TAG_VALUE: u8 = 0x12;

/// A sorted label set, encoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSet {
    wire: Vec<u8>,
    entries: Vec<Entry>,
}

/// Where a label's parts are in the buffer; the value ends where the next label starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    start: u32,
    name_start: u32,
    name_end: u32,
    value_start: u32,
}

impl LabelSet {
    /// An empty set with room for this many bytes of labels.
    pub fn with_capacity(labels: usize, bytes: usize) -> Self {
        Self {
            wire: Vec::with_capacity(bytes),
            entries: Vec::with_capacity(labels),
        }
    }

    /// Appends a label, whose name sorts behind all that are there. A label without a value is
    /// none and left out.
    ///
    /// # Errors
    /// Where the set grows past its greatest size.
    pub fn push(&mut self, name: &[u8], value: &[u8]) -> Result<(), StoreError> {
        if value.is_empty() {
            return Ok(());
        }
        let start = self.wire.len();
        let field = |bytes: &[u8]| match bytes.len() {
            0 => 0,
            len => 1 + varint_len(len as u64) + len,
        };
        let label_len = field(name) + field(value);
        if start.saturating_add(label_len) > LABEL_SET_BYTES_MAX - 16 {
            return Err(StoreError::LabelsTooLong {
                bytes_max: LABEL_SET_BYTES_MAX,
            });
        }
        self.wire.push(TAG_LABEL);
        put_varint(&mut self.wire, label_len as u64);
        if !name.is_empty() {
            self.wire.push(TAG_NAME);
            put_varint(&mut self.wire, name.len() as u64);
        }
        let name_start = self.wire.len();
        self.wire.extend_from_slice(name);
        let name_end = self.wire.len();
        self.wire.push(TAG_VALUE);
        put_varint(&mut self.wire, value.len() as u64);
        let value_start = self.wire.len();
        self.wire.extend_from_slice(value);
        let offset = |at: usize| u32::try_from(at).expect("the buffer is below 16 MiB");
        self.entries.push(Entry {
            start: offset(start),
            name_start: offset(name_start),
            name_end: offset(name_end),
            value_start: offset(value_start),
        });
        Ok(())
    }

    /// Leaves only the first labels.
    pub(super) fn truncate(&mut self, labels: usize) {
        self.wire.truncate(self.start(labels));
        self.entries.truncate(labels);
    }

    /// How many labels there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The encoded labels.
    pub(super) fn wire(&self) -> &[u8] {
        &self.wire
    }

    /// The encoded labels of these positions.
    pub(super) fn wire_of(&self, from: usize, to: usize) -> &[u8] {
        &self.wire[self.start(from)..self.start(to)]
    }

    /// The label at a position; names and values are UTF-8, as bytes.
    pub fn label(&self, at: usize) -> Option<(&[u8], &[u8])> {
        let entry = self.entries.get(at)?;
        let name = &self.wire[entry.name_start as usize..entry.name_end as usize];
        let value = &self.wire[entry.value_start as usize..self.start(at + 1)];
        Some((name, value))
    }

    /// Names and values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        (0..self.len()).filter_map(|at| self.label(at))
    }

    /// The name of the label that sorts last.
    pub fn last_name(&self) -> Option<&[u8]> {
        let at = self.len().checked_sub(1)?;
        self.label(at).map(|(name, _)| name)
    }

    /// The position of the first label whose name sorts behind this one.
    pub(super) fn position_after(&self, name: &[u8]) -> usize {
        let end = |entry: &Entry| &self.wire[entry.name_start as usize..entry.name_end as usize];
        self.entries.partition_point(|entry| end(entry) <= name)
    }

    /// The name of the first label of `longer` behind this set, where this set is its prefix and
    /// shorter.
    pub fn extended_by<'a>(&self, longer: &'a Self) -> Option<&'a [u8]> {
        if self.len() >= longer.len() || !longer.wire.starts_with(&self.wire) {
            return None;
        }
        longer.label(self.len()).map(|(name, _)| name)
    }

    /// The set with the labels of `added`, whose names it must not have.
    ///
    /// # Errors
    /// Where the set grows past its greatest size.
    pub(super) fn merged(&self, added: &Self) -> Result<Self, StoreError> {
        let bytes = self.wire.len() + added.wire.len();
        let mut all = Self::with_capacity(self.len() + added.len(), bytes);
        Merged::new(self, added).try_for_each(|(name, value)| all.push(name, value))?;
        Ok(all)
    }

    /// Bytes that the set keeps allocated.
    pub(super) fn memory_bytes(&self) -> usize {
        self.wire.capacity() + self.entries.capacity() * size_of::<Entry>()
    }

    fn start(&self, at: usize) -> usize {
        let entry = self.entries.get(at);
        entry.map_or(self.wire.len(), |entry| entry.start as usize)
    }
}

impl PartialOrd for LabelSet {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for LabelSet {
    /// The order of StoreAPI (contract `grpc.md` §3.4): name, then value, pairwise by bytes, a
    /// prefix first.
    fn cmp(&self, other: &Self) -> Ordering {
        let Some(at) = first_difference(&self.wire, &other.wire) else {
            return self.wire.len().cmp(&other.wire.len());
        };
        // What stands before is the same in both, so the first label that differs is the one that
        // this byte belongs to.
        let ended = |entry: &Entry| entry.start as usize <= at;
        let differs = self.entries.partition_point(ended).saturating_sub(1);
        self.label(differs).cmp(&other.label(differs))
    }
}

/// The first position at which two byte strings differ; `None` where one begins with the other.
fn first_difference(a: &[u8], b: &[u8]) -> Option<usize> {
    const WORD: usize = size_of::<u64>();
    let words = a.chunks_exact(WORD).zip(b.chunks_exact(WORD));
    let same = words.take_while(|(a, b)| a == b).count() * WORD;
    let bytes = a[same..].iter().zip(&b[same..]);
    let differs = bytes.into_iter().position(|(a, b)| a != b);
    differs.map(|at| same + at)
}

/// The labels of two sets without a common name, in order.
#[derive(Debug)]
pub(super) struct Merged<'a> {
    sets: [&'a LabelSet; 2],
    at: [usize; 2],
}

impl<'a> Merged<'a> {
    pub(super) fn new(inner: &'a LabelSet, added: &'a LabelSet) -> Self {
        Self {
            sets: [inner, added],
            at: [0, 0],
        }
    }
}

impl<'a> Iterator for Merged<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let [inner, added] = self.sets;
        let heads = (inner.label(self.at[0]), added.label(self.at[1]));
        let from_added = match heads {
            (Some((inner, _)), Some((added, _))) => added < inner,
            (inner, _) => inner.is_none(),
        };
        self.at[usize::from(from_added)] += 1;
        if from_added { heads.1 } else { heads.0 }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::proto::thanos;

    pub(super) fn set(labels: &[(&str, &str)]) -> LabelSet {
        let mut set = LabelSet::default();
        for (name, value) in labels {
            set.push(name.as_bytes(), value.as_bytes()).unwrap();
        }
        set
    }

    #[test]
    fn the_bytes_are_those_of_the_message() {
        let long = "v".repeat(300);
        let labels = [("", "x"), ("a", "1"), ("b", ""), ("ü", long.as_str())];
        let encoded = set(&labels);
        let decoded = thanos::Series::decode(encoded.wire()).unwrap();
        let decoded: Vec<_> = decoded.labels.iter().collect();
        let expected = [("", "x"), ("a", "1"), ("ü", long.as_str())];
        assert_eq!(decoded.len(), expected.len());
        for (label, (name, value)) in decoded.iter().zip(expected) {
            assert_eq!((label.name.as_str(), label.value.as_str()), (name, value));
        }
        let again = thanos::Series {
            labels: decoded.into_iter().cloned().collect(),
            chunks: Vec::new(),
        };
        assert_eq!(again.encode_to_vec(), encoded.wire());
    }

    #[test]
    fn order_and_prefixes() {
        let (a, ab, b) = (
            set(&[("a", "1")]),
            set(&[("a", "1"), ("b", "2")]),
            set(&[("b", "")]),
        );
        assert!(a < ab && b < a && ab < set(&[("a", "2")]));
        assert_eq!(a.extended_by(&ab), Some(b"b".as_slice()));
        assert_eq!(ab.extended_by(&a), None);
        assert_eq!(a.extended_by(&a), None);
        assert_eq!(set(&[("a", "11")]).extended_by(&ab), None);
        assert_eq!(ab.last_name(), Some(b"b".as_slice()));
        assert_eq!(ab.position_after(b"a"), 1);
        assert_eq!(ab.position_after(b"aa"), 1);
        assert_eq!(ab.position_after(b"c"), 2);
        let merged = a.merged(&set(&[("A", "x"), ("c", "y")])).unwrap();
        assert_eq!(merged, set(&[("A", "x"), ("a", "1"), ("c", "y")]));
    }

    #[test]
    fn labels_have_a_limit() {
        let mut set = LabelSet::default();
        let value = vec![b'v'; LABEL_SET_BYTES_MAX / 2];
        set.push(b"a", &value).unwrap();
        let error = set.push(b"b", &value).unwrap_err();
        assert!(matches!(error, StoreError::LabelsTooLong { .. }));
    }
}
