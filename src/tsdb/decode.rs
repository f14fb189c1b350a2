//! What every decoder here shares: the error that names a place in a file, and the position of a
//! byte run in that file.
//!
//! Files reach the decoders as runs of any size, from one byte up, because they are verified while
//! they stream past. A value cut by the end of a run waits in a [`Carry`] for the next one, so a
//! decoder needs no copy of the file and no second look at it.

use std::fmt;

/// Bytes on disk are not what the format says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{section} section, offset {offset}: {kind}")]
pub struct DecodeError {
    /// The part of the file.
    pub section: Section,
    /// Absolute offset in the file, in bytes.
    pub offset: u64,
    /// What is wrong there.
    pub kind: DecodeErrorKind,
}

/// The part of an index, chunk segment or tombstones file that a decoder was in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Section {
    /// Magic number and version at the start of a file.
    Header,
    /// The index's symbol table.
    Symbols,
    /// The index's series entries.
    Series,
    /// Label index sections, left by older writers.
    LabelIndices,
    /// Postings lists.
    Postings,
    /// The table of the label index sections, left by older writers.
    LabelOffsetTable,
    /// The table of the postings lists.
    PostingsOffsetTable,
    /// The index's table of contents.
    Toc,
    /// The chunks of a segment file.
    Chunks,
    /// The data of one chunk; offsets are those in it.
    ChunkData,
    /// The entries of a tombstones file.
    Tombstones,
}

/// What is wrong at the place that a [`DecodeError`] names.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeErrorKind {
    /// The file does not begin with its format's magic number.
    #[error("magic number is {found:#010x}, not {expected:#010x}")]
    Magic {
        /// What the format demands.
        expected: u32,
        /// What the file holds.
        found: u32,
    },
    /// A version of the format that is unknown here.
    #[error("unsupported format version {found}")]
    Version {
        /// The version byte.
        found: u8,
    },
    /// A CRC-32C does not match the bytes it covers.
    #[error("checksum mismatch (stored {stored:#010x}, computed {computed:#010x})")]
    Checksum {
        /// As stored in the file.
        stored: u32,
        /// Of the bytes as read.
        computed: u32,
    },
    /// The bytes end before the structure does.
    #[error("ends inside {inside}")]
    Truncated {
        /// The structure that was being read.
        inside: &'static str,
    },
    /// A declared length does not fit where it stands.
    #[error("{what} declares {length} bytes, {available} are left")]
    Length {
        /// The structure that declares it.
        what: &'static str,
        /// Declared length in bytes.
        length: u64,
        /// Bytes up to the end of what holds it.
        available: u64,
    },
    /// A declared length that the structure cannot have.
    #[error("{what} cannot be {length} bytes long")]
    Shape {
        /// The structure that declares it.
        what: &'static str,
        /// Declared length in bytes.
        length: u64,
    },
    /// A count differs from what is there.
    #[error("{what}: {declared} declared, {found} found")]
    Count {
        /// The thing counted.
        what: &'static str,
        /// As declared.
        declared: u64,
        /// As found.
        found: u64,
    },
    /// Bytes follow where a structure must have ended.
    #[error("{bytes} bytes follow the end of {what}")]
    Trailing {
        /// The structure that ended.
        what: &'static str,
        /// How many bytes follow.
        bytes: u64,
    },
    /// A byte between structures is not zero.
    #[error("padding byte is {found:#04x}, not zero")]
    Padding {
        /// The byte.
        found: u8,
    },
    /// A variable-length integer is longer than its type allows.
    #[error("{what} is not a valid variable-length integer")]
    Varint {
        /// The value that was being read.
        what: &'static str,
    },
    /// A value exceeds a limit of this decoder, which keeps its memory constant.
    #[error("{what} is {value}, the limit is {limit}")]
    Limit {
        /// The value limited.
        what: &'static str,
        /// As found.
        value: u64,
        /// The most accepted.
        limit: u64,
    },
    /// A reference or number lies outside what it may address.
    #[error("{what} {value} is outside [{low}, {high})")]
    OutOfRange {
        /// The reference.
        what: &'static str,
        /// As found.
        value: u64,
        /// First value allowed.
        low: u64,
        /// First value no longer allowed.
        high: u64,
    },
    /// Things that must ascend strictly do not.
    #[error("{what} not in strictly ascending order")]
    Order {
        /// The things ordered.
        what: &'static str,
    },
    /// Text is not UTF-8.
    #[error("{what} is not UTF-8")]
    NotUtf8 {
        /// The text.
        what: &'static str,
    },
    /// A sum of delta-coded values does not fit 64 bits.
    #[error("{what} overflows 64 bits")]
    Overflow {
        /// The value.
        what: &'static str,
    },
    /// A chunk reaches outside the block's half-open range.
    #[error(
        "chunk [{mint}, {maxt}] reaches outside the block's range [{range_mint}, {range_maxt})"
    )]
    ChunkOutsideBlock {
        /// First sample, ms.
        mint: i64,
        /// Last sample, ms.
        maxt: i64,
        /// The block's first instant, ms.
        range_mint: i64,
        /// The first instant after the block, ms.
        range_maxt: i64,
    },
    /// A chunk begins before the previous one of its series has ended.
    #[error("chunk begins at {mint}, the one before it in the series ends at {previous_maxt}")]
    ChunkOverlap {
        /// First sample, ms.
        mint: i64,
        /// Last sample of the chunk before, ms.
        previous_maxt: i64,
    },
    /// A chunk encoding that is unknown here.
    #[error("unknown chunk encoding {found}")]
    Encoding {
        /// The encoding byte.
        found: u8,
    },
    /// The index points at a place where no chunk starts.
    #[error("the index references a chunk here, but none starts here")]
    NoChunk,
    /// The index points at one chunk twice.
    #[error("the index references this chunk twice")]
    DuplicateReference,
    /// Two parts of the file that must agree do not.
    #[error("{what}")]
    Disagreement {
        /// Who disagrees with whom.
        what: &'static str,
    },
}

impl DecodeError {
    /// An error at an absolute offset of the file.
    pub(super) fn new(section: Section, offset: u64, kind: DecodeErrorKind) -> Self {
        Self {
            section,
            offset,
            kind,
        }
    }
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Header => "header",
            Self::Symbols => "symbols",
            Self::Series => "series",
            Self::LabelIndices => "label indices",
            Self::Postings => "postings",
            Self::LabelOffsetTable => "label offset table",
            Self::PostingsOffsetTable => "postings offset table",
            Self::Toc => "toc",
            Self::Chunks => "chunks",
            Self::ChunkData => "chunk data",
            Self::Tombstones => "tombstones",
        })
    }
}

/// Bytes of a file whose first one stands at a known offset.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run<'a> {
    bytes: &'a [u8],
    offset: u64,
}

/// The longest value a [`Carry`] holds: a 64-bit variable-length integer.
const VARINT_BYTES_MAX: usize = 10;

/// The beginning of a value that the end of a run cut off.
#[derive(Clone, Debug, Default)]
pub(super) struct Carry {
    bytes: [u8; VARINT_BYTES_MAX],
    len: usize,
}

/// How far a variable-length integer got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Uvarint {
    /// The value and the number of bytes it took.
    Value(u64, usize),
    /// More bytes are needed.
    Incomplete,
    /// It does not fit 64 bits.
    Overflow,
}

impl<'a> Run<'a> {
    pub(super) fn new(bytes: &'a [u8], offset: u64) -> Self {
        Self { bytes, offset }
    }

    pub(super) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Absolute offset of the first byte left.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Fails if bytes are left where `what` was the last thing before `end`.
    pub(super) fn expect_end(
        &self,
        section: Section,
        end: u64,
        what: &'static str,
    ) -> Result<(), DecodeError> {
        if self.is_empty() {
            return Ok(());
        }
        let bytes = end.saturating_sub(self.offset);
        let kind = DecodeErrorKind::Trailing { what, bytes };
        Err(DecodeError::new(section, self.offset, kind))
    }

    /// Takes up to `len` bytes off the front.
    #[inline]
    pub(super) fn split_to(&mut self, len: u64) -> Self {
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let (taken, rest) = match self.bytes.split_at_checked(len) {
            Some(split) => split,
            None => (self.bytes, [].as_slice()),
        };
        let taken = Self::new(taken, self.offset);
        self.bytes = rest;
        self.offset = self.offset.saturating_add(count(taken.bytes.len()));
        taken
    }

    /// Drops up to `len` bytes off the front.
    #[inline]
    pub(super) fn skip(&mut self, len: usize) {
        let len = len.min(self.bytes.len());
        self.bytes = self.bytes.get(len..).unwrap_or_default();
        self.offset = self.offset.saturating_add(count(len));
    }

    /// Takes one byte off the front.
    pub(super) fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.bytes.split_first()?;
        self.bytes = rest;
        self.offset = self.offset.saturating_add(1);
        Some(*first)
    }
}

impl Carry {
    /// Absolute offset at which the value being read begins.
    pub(super) fn start(&self, run: &Run<'_>) -> u64 {
        run.offset().saturating_sub(count(self.len))
    }

    /// Whether a value has begun and not ended.
    pub(super) fn is_pending(&self) -> bool {
        self.len != 0
    }

    /// The next unsigned variable-length integer; `None` when the run ends first.
    ///
    /// # Errors
    /// When it does not fit 64 bits. Nothing is consumed then, so [`Carry::start`] is its offset.
    #[inline]
    pub(super) fn uvarint(
        &mut self,
        run: &mut Run<'_>,
        what: &'static str,
    ) -> Result<Option<u64>, DecodeErrorKind> {
        if self.len == 0 {
            match decode_uvarint(run.bytes()) {
                Uvarint::Value(value, len) => {
                    run.skip(len);
                    return Ok(Some(value));
                }
                Uvarint::Overflow => return Err(DecodeErrorKind::Varint { what }),
                Uvarint::Incomplete => {}
            }
        }
        self.uvarint_across_runs(run, what)
    }

    /// The next signed (zig-zag) variable-length integer; otherwise as [`Carry::uvarint`].
    #[inline]
    pub(super) fn varint(
        &mut self,
        run: &mut Run<'_>,
        what: &'static str,
    ) -> Result<Option<i64>, DecodeErrorKind> {
        Ok(self.uvarint(run, what)?.map(unzigzag))
    }

    /// The next big-endian 32-bit number; `None` when the run ends first.
    #[inline]
    pub(super) fn u32(&mut self, run: &mut Run<'_>) -> Option<u32> {
        if self.len == 0
            && let Some(bytes) = run.bytes().first_chunk()
        {
            run.skip(bytes.len());
            return Some(u32::from_be_bytes(*bytes));
        }
        while let Some(byte) = run.next() {
            self.push(byte);
            if let Some(bytes) = self.pending().first_chunk() {
                let value = u32::from_be_bytes(*bytes);
                self.len = 0;
                return Some(value);
            }
        }
        None
    }

    #[cold]
    fn uvarint_across_runs(
        &mut self,
        run: &mut Run<'_>,
        what: &'static str,
    ) -> Result<Option<u64>, DecodeErrorKind> {
        while let Some(byte) = run.next() {
            self.push(byte);
            match decode_uvarint(self.pending()) {
                Uvarint::Value(value, _) => {
                    self.len = 0;
                    return Ok(Some(value));
                }
                Uvarint::Overflow => return Err(DecodeErrorKind::Varint { what }),
                Uvarint::Incomplete => {}
            }
        }
        Ok(None)
    }

    fn pending(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    fn push(&mut self, byte: u8) {
        if let Some(slot) = self.bytes.get_mut(self.len) {
            *slot = byte;
            self.len = self.len.saturating_add(1);
        }
    }
}

/// Decodes the unsigned variable-length integer (LEB128) at the start of `bytes`.
#[inline]
pub(super) fn decode_uvarint(bytes: &[u8]) -> Uvarint {
    match *bytes {
        // Nine of ten values of a real index take one byte or two.
        [a, ..] if a < 0x80 => Uvarint::Value(u64::from(a), 1),
        [a, b, ..] if b < 0x80 => Uvarint::Value(u64::from(a & 0x7f) | u64::from(b) << 7, 2),
        _ => decode_long_uvarint(bytes),
    }
}

fn decode_long_uvarint(bytes: &[u8]) -> Uvarint {
    let mut value = 0_u64;
    let mut shift = 0_u32;
    let mut len = 0_usize;
    for &byte in bytes.iter().take(VARINT_BYTES_MAX) {
        len = len.wrapping_add(1);
        value |= u64::from(byte & 0x7f).wrapping_shl(shift);
        if byte < 0x80 {
            let overflow = len == VARINT_BYTES_MAX && byte > 1;
            return if overflow {
                Uvarint::Overflow
            } else {
                Uvarint::Value(value, len)
            };
        }
        shift = shift.wrapping_add(7);
    }
    if len == VARINT_BYTES_MAX {
        Uvarint::Overflow
    } else {
        Uvarint::Incomplete
    }
}

/// Variable-length integers in a row, each with where it ends; `None` unless all of them lie whole
/// and valid in `bytes`.
#[inline(always)]
pub(super) fn decode_uvarints<const N: usize>(bytes: &[u8]) -> Option<[(u64, usize); N]> {
    if let Some(decoded) = bytes.first_chunk().and_then(decode_short_uvarints) {
        return Some(decoded);
    }
    let mut decoded = [(0, 0); N];
    let mut end = 0_usize;
    for slot in &mut decoded {
        let Uvarint::Value(value, len) = decode_uvarint(bytes.get(end..)?) else {
            return None;
        };
        end = end.wrapping_add(len);
        *slot = (value, end);
    }
    Some(decoded)
}

/// The same within eight bytes, where none is longer than four: nearly all. Lengths vary from
/// value to value, which a branch on each would have to guess.
#[inline(always)]
fn decode_short_uvarints<const N: usize>(bytes: &[u8; 8]) -> Option<[(u64, usize); N]> {
    // The last byte of each has its upper bit clear.
    const UPPER_BITS: u64 = 0x8080_8080_8080_8080;
    const FOUR_BYTES: u64 = 0xffff_ffff;
    let mut word = u64::from_le_bytes(*bytes);
    let mut ends = !word & UPPER_BITS;
    let mut decoded = [(0, 0); N];
    let mut end = 0_u32;
    for slot in &mut decoded {
        if ends & FOUR_BYTES == 0 {
            return None;
        }
        let bits = ends.trailing_zeros().wrapping_add(1);
        let groups = word & FOUR_BYTES.wrapping_shr(32_u32.wrapping_sub(bits));
        // Closes the gaps of one bit, pairwise.
        let pairs = (groups & 0x007f_007f) | (groups & 0x7f00_7f00) >> 1;
        let value = (pairs & 0x3fff) | (pairs & 0x3fff_0000) >> 2;
        word = word.wrapping_shr(bits);
        // The bits shifted in from above are no ends.
        ends = ends.wrapping_shr(bits);
        end = end.wrapping_add(bits / 8);
        *slot = (value, end as usize);
    }
    Some(decoded)
}

/// How many bytes `many` variable-length integers take that stand at the front of `bytes`; `None`
/// where they may not lie whole in it. Their values are not looked at.
pub(super) fn uvarints_length(bytes: &[u8], many: usize) -> Option<usize> {
    const WORD_BYTES: usize = 8;
    // The last byte of each has its upper bit clear.
    const UPPER_BITS: u64 = 0x8080_8080_8080_8080;
    let mut left = many;
    let (words, _) = bytes.as_chunks::<WORD_BYTES>();
    let whole = words.iter().take_while(|word| {
        let ends = (!u64::from_le_bytes(**word) & UPPER_BITS).count_ones();
        let fits = usize::try_from(ends).ok().filter(|ends| *ends < left);
        left = left.saturating_sub(fits.unwrap_or_default());
        fits.is_some()
    });
    let mut length = whole.count().saturating_mul(WORD_BYTES);
    while left > 0 {
        left = left.saturating_sub(usize::from(*bytes.get(length)? < 0x80));
        length = length.saturating_add(1);
    }
    Some(length)
}

/// Undoes the zig-zag mapping of signed numbers to unsigned ones.
pub(super) fn unzigzag(raw: u64) -> i64 {
    let magnitude = (raw >> 1).cast_signed();
    if raw & 1 == 0 { magnitude } else { !magnitude }
}

/// A length in memory as the 64-bit number that file offsets are.
pub(super) fn count(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn passing_over_integers_ends_where_decoding_them_does(
            values in proptest::collection::vec(any::<(u64, u8)>(), 0..40), many in 0usize..45,
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = Vec::new();
            let mut ends = vec![0];
            for (value, shift) in values {
                crate::tsdb::testing::put_uvarint(&mut bytes, value >> (shift % 64));
                ends.push(bytes.len());
            }
            prop_assert_eq!(uvarints_length(&bytes, many), ends.get(many).copied());
            bytes.truncate(cut.index(bytes.len().max(1)));
            let end = ends.get(many).copied().filter(|end| *end <= bytes.len());
            prop_assert_eq!(uvarints_length(&bytes, many), end);
        }
    }

    #[test]
    fn displays_section_offset_and_what_is_wrong() {
        let error = DecodeError::new(
            Section::Series,
            12_345,
            DecodeErrorKind::Checksum {
                stored: 0xdead_beef,
                computed: 0x12,
            },
        );
        assert_eq!(
            error.to_string(),
            "series section, offset 12345: checksum mismatch \
             (stored 0xdeadbeef, computed 0x00000012)"
        );
    }

    #[test]
    fn uvarint_knows_its_ends() {
        assert_eq!(decode_uvarint(&[]), Uvarint::Incomplete);
        assert_eq!(decode_uvarint(&[0x80]), Uvarint::Incomplete);
        assert_eq!(decode_uvarint(&[0x7f, 9]), Uvarint::Value(127, 1));
        assert_eq!(decode_uvarint(&[0x80, 1]), Uvarint::Value(128, 2));
        let max = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
        assert_eq!(decode_uvarint(&max), Uvarint::Value(u64::MAX, 10));
        let over = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2];
        assert_eq!(decode_uvarint(&over), Uvarint::Overflow);
        assert_eq!(decode_uvarint(&[0x80; 10]), Uvarint::Overflow);
    }

    #[test]
    fn a_value_cut_by_the_end_of_a_run_is_carried_over() {
        let mut carry = Carry::default();
        let mut head = Run::new(&[0x80], 100);
        assert_eq!(carry.uvarint(&mut head, "x"), Ok(None));
        assert!(carry.is_pending());
        let mut tail = Run::new(&[0x01, 0xaa], 101);
        assert_eq!(carry.start(&tail), 100);
        assert_eq!(carry.uvarint(&mut tail, "x"), Ok(Some(128)));
        assert!(!carry.is_pending());
        assert_eq!(tail.bytes(), [0xaa]);
        assert_eq!(tail.offset(), 102);

        let mut head = Run::new(&[0, 0, 1], 0);
        assert_eq!(carry.u32(&mut head), None);
        let mut tail = Run::new(&[2, 3], 3);
        assert_eq!(carry.u32(&mut tail), Some(0x102));
        assert_eq!(tail.bytes(), [3]);
    }

    #[test]
    fn zigzag_covers_both_signs() {
        assert_eq!(unzigzag(0), 0);
        assert_eq!(unzigzag(1), -1);
        assert_eq!(unzigzag(2), 1);
        assert_eq!(unzigzag(u64::MAX), i64::MIN);
        assert_eq!(unzigzag(u64::MAX - 1), i64::MAX);
    }
}
