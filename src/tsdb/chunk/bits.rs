//! Bit streams, most significant bit first, and the codes in them that all chunks share
//! (`contract/tsdb.md` §4.1).
//!
//! A reader's errors name the byte of the chunk's data. Sums of times wrap, as they do where
//! chunks are written.

use crate::tsdb::decode::{DecodeError, DecodeErrorKind, Section, count, unzigzag};

/// The stale marker among all NaNs.
pub(super) const STALE_NAN_BITS: u64 = 0x7ff0_0000_0000_0002;
/// The longest variable-length integer.
const VARINT_BYTES_MAX: u32 = 10;
/// Bits of the value after each prefix of a varbit code, by the number of ones in the prefix.
const VARBIT_WIDTHS: [u32; 9] = [0, 3, 6, 9, 12, 18, 25, 56, 64];
/// Bytes looked at at once; any value of 64 bits lies in them.
const WINDOW_BYTES: usize = 16;

/// Reads bits off chunk data.
#[derive(Clone, Debug)]
pub(super) struct BitReader<'a> {
    data: &'a [u8],
    /// Position in bits.
    at: usize,
}

/// Writes bits.
#[derive(Clone, Debug, Default)]
pub(super) struct BitWriter {
    bytes: Vec<u8>,
    /// Unused bits of the last byte.
    free: u32,
}

/// Where the significant bits of the xor of two floats lie.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Window {
    leading: u32,
    trailing: u32,
}

// === impl BitReader ===

impl<'a> BitReader<'a> {
    /// A reader of `data` from byte `start` on.
    pub(super) fn new(data: &'a [u8], start: usize) -> Self {
        Self {
            data,
            at: start.saturating_mul(8),
        }
    }

    /// Position in bits from the data's start.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// Goes on at this position, which is not before the one at hand.
    pub(super) fn seek(&mut self, position: usize) {
        self.at = position.max(self.at);
    }

    pub(super) fn bits_left(&self) -> usize {
        self.data.len().saturating_mul(8).saturating_sub(self.at)
    }

    /// The next `width` bits, at most 64.
    #[inline]
    pub(super) fn bits(&mut self, width: u32) -> Result<u64, DecodeError> {
        let next = self.at.saturating_add(width as usize);
        if next > self.data.len().saturating_mul(8) {
            return Err(self.truncated());
        }
        let value = self.window().checked_shr(128_u32.saturating_sub(width));
        self.at = next;
        // No bits are asked for where the shift is the whole width.
        Ok(low_bits(value.unwrap_or(0)))
    }

    pub(super) fn bit(&mut self) -> Result<bool, DecodeError> {
        Ok(self.bits(1)? == 1)
    }

    pub(super) fn float(&mut self) -> Result<f64, DecodeError> {
        Ok(f64::from_bits(self.bits(64)?))
    }

    /// How many ones come before a zero, `max` at most; the zero is consumed, and after `max` ones
    /// there is none.
    #[inline]
    pub(super) fn prefix(&mut self, max: u32) -> Result<u32, DecodeError> {
        let ones = self.window().leading_ones().min(max);
        let length = ones.saturating_add(u32::from(ones < max));
        let next = self.at.saturating_add(length as usize);
        if next > self.data.len().saturating_mul(8) {
            return Err(self.truncated());
        }
        self.at = next;
        Ok(ones)
    }

    /// An unsigned integer in bytes (LEB128), which need not be aligned.
    pub(super) fn uvarint(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        let start = self.clone();
        let mut value = 0_u64;
        for position in 0..VARINT_BYTES_MAX {
            let byte = self.bits(8)?;
            let shift = position.saturating_mul(7);
            if shift == 63 && byte > 1 {
                break;
            }
            value |= (byte & 0x7f).wrapping_shl(shift);
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(start.error(DecodeErrorKind::Varint { what }))
    }

    pub(super) fn varint(&mut self, what: &'static str) -> Result<i64, DecodeError> {
        Ok(unzigzag(self.uvarint(what)?))
    }

    /// A signed integer in the widths of varbit codes.
    pub(super) fn varbit_int(&mut self) -> Result<i64, DecodeError> {
        let width = self.varbit_width()?;
        Ok(offset_signed(self.bits(width)?, width))
    }

    pub(super) fn varbit_uint(&mut self) -> Result<u64, DecodeError> {
        let width = self.varbit_width()?;
        self.bits(width)
    }

    /// A float whose xor with `base` is not zero, after the bit that says so.
    pub(super) fn changed(
        &mut self,
        base: f64,
        window: &mut Window,
        is_new: bool,
    ) -> Result<f64, DecodeError> {
        if is_new {
            let start = self.clone();
            let leading = low_u32(self.bits(5)?);
            let significant = match low_u32(self.bits(6)?) {
                0 => 64,
                bits => bits,
            };
            let used = leading.saturating_add(significant);
            let Some(trailing) = 64_u32.checked_sub(used) else {
                return Err(start.error(DecodeErrorKind::Limit {
                    what: "bits of a float",
                    value: u64::from(used),
                    limit: 64,
                }));
            };
            *window = Window { leading, trailing };
        }
        let width = 64_u32
            .saturating_sub(window.leading)
            .saturating_sub(window.trailing);
        let delta = self.bits(width)?.wrapping_shl(window.trailing);
        Ok(f64::from_bits(base.to_bits() ^ delta))
    }

    /// A float as the xor with the one before.
    pub(super) fn xor(&mut self, base: f64, window: &mut Window) -> Result<f64, DecodeError> {
        match self.prefix(2)? {
            0 => Ok(base),
            ones => self.changed(base, window, ones == 2),
        }
    }

    pub(super) fn error(&self, kind: DecodeErrorKind) -> DecodeError {
        let byte = self.at.wrapping_div(8);
        DecodeError::new(Section::ChunkData, count(byte), kind)
    }

    fn varbit_width(&mut self) -> Result<u32, DecodeError> {
        let ones = self.prefix(8)? as usize;
        Ok(VARBIT_WIDTHS.get(ones).copied().unwrap_or(64))
    }

    fn truncated(&self) -> DecodeError {
        self.error(DecodeErrorKind::Truncated {
            inside: "a chunk's samples",
        })
    }

    /// The bits ahead from the upper end on; past the data's end zeros.
    #[inline]
    fn window(&self) -> u128 {
        let byte = self.at.wrapping_div(8);
        let ahead = self.data.get(byte..).unwrap_or_default();
        let bytes = match ahead.first_chunk::<WINDOW_BYTES>() {
            Some(bytes) => *bytes,
            None => {
                let mut padded = [0; WINDOW_BYTES];
                for (slot, byte) in padded.iter_mut().zip(ahead) {
                    *slot = *byte;
                }
                padded
            }
        };
        u128::from_be_bytes(bytes).wrapping_shl(low_u32(self.at as u64 & 7))
    }
}

/// A number in the asymmetric ranges of all codes but XOR2's: `-(2^(width-1)-1)` to `2^(width-1)`.
pub(super) fn offset_signed(raw: u64, width: u32) -> i64 {
    if width == 0 || width >= 64 {
        return raw.cast_signed();
    }
    let half = 1_u64.wrapping_shl(width.saturating_sub(1));
    match raw > half {
        true => raw.wrapping_sub(half.wrapping_mul(2)).cast_signed(),
        false => raw.cast_signed(),
    }
}

/// A number in two's complement.
pub(super) fn twos_signed(raw: u64, width: u32) -> i64 {
    let unused = 64_u32.saturating_sub(width);
    raw.wrapping_shl(unused).cast_signed().wrapping_shr(unused)
}

/// Whether `offset_signed` has the number at this width.
pub(super) fn fits_offset(value: i64, width: u32) -> bool {
    let half = 1_i64.wrapping_shl(width.saturating_sub(1));
    value >= 1_i64.saturating_sub(half) && value <= half
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the upper bits are dropped"
)]
fn low_bits(value: u128) -> u64 {
    value as u64
}

#[expect(clippy::cast_possible_truncation, reason = "of a few bits")]
fn low_u32(value: u64) -> u32 {
    value as u32
}

// === impl BitWriter ===

impl BitWriter {
    /// A writer that goes on after these bytes.
    pub(super) fn after(bytes: Vec<u8>) -> Self {
        Self { bytes, free: 0 }
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    pub(super) fn bytes_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// The lower `width` bits of `value`, at most 64.
    #[inline]
    pub(super) fn put(&mut self, value: u64, width: u32) {
        let mut left = width;
        while left > 0 {
            if self.free == 0 {
                self.bytes.push(0);
                self.free = 8;
            }
            let taken = self.free.min(left);
            left = left.saturating_sub(taken);
            let piece = value.wrapping_shr(left) & 0xff_u64.wrapping_shr(8_u32.wrapping_sub(taken));
            self.free = self.free.saturating_sub(taken);
            if let Some(last) = self.bytes.last_mut() {
                *last |= low_byte(piece.wrapping_shl(self.free));
            }
        }
    }

    pub(super) fn uvarint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.put(value & 0x7f | 0x80, 8);
            value >>= 7;
        }
        self.put(value, 8);
    }

    pub(super) fn varint(&mut self, value: i64) {
        self.uvarint((value.wrapping_shl(1) ^ value.wrapping_shr(63)).cast_unsigned());
    }

    /// A float as the xor with the one before; a `window` of `None` has not been written yet.
    pub(super) fn xor(&mut self, value: f64, base: f64, window: &mut Option<Window>) {
        let delta = value.to_bits() ^ base.to_bits();
        if delta == 0 {
            self.put(0, 1);
            return;
        }
        // More than 31 would not fit five bits.
        let leading = delta.leading_zeros().min(31);
        let trailing = delta.trailing_zeros();
        let known = window.filter(|known| leading >= known.leading && trailing >= known.trailing);
        let used = match known {
            Some(known) => {
                self.put(0b10, 2);
                known
            }
            None => Window { leading, trailing },
        };
        let width = 64_u32
            .saturating_sub(used.leading)
            .saturating_sub(used.trailing);
        if known.is_none() {
            self.put(0b11, 2);
            self.put(u64::from(leading), 5);
            self.put(u64::from(width & 63), 6);
            *window = Some(used);
        }
        self.put(delta.wrapping_shr(used.trailing), width);
    }

    /// The shortest code that holds the number.
    pub(super) fn varbit_int(&mut self, value: i64) {
        let fits =
            |width: u32| (value == 0 && width == 0) || (width > 0 && fits_offset(value, width));
        let ones = VARBIT_WIDTHS
            .iter()
            .position(|&width| width < 64 && fits(width));
        self.varbit(value.cast_unsigned(), ones.unwrap_or(8));
    }

    /// As [`Self::varbit_int`].
    pub(super) fn varbit_uint(&mut self, value: u64) {
        let fits = |width: u32| value.checked_shr(width).unwrap_or(0) == 0;
        let ones = VARBIT_WIDTHS.iter().position(|&width| fits(width));
        self.varbit(value, ones.unwrap_or(8));
    }

    fn varbit(&mut self, value: u64, ones: usize) {
        for _ in 0..ones {
            self.put(1, 1);
        }
        if ones < 8 {
            self.put(0, 1);
        }
        self.put(value, VARBIT_WIDTHS.get(ones).copied().unwrap_or(64));
    }

    /// What `reader` has from where it stands up to the bit `end`.
    pub(super) fn copy(
        &mut self,
        reader: &mut BitReader<'_>,
        end: usize,
    ) -> Result<(), DecodeError> {
        while reader.position() < end {
            let width = end.saturating_sub(reader.position()).min(64);
            let width = low_u32(width as u64);
            self.put(reader.bits(width)?, width);
        }
        Ok(())
    }
}

#[expect(clippy::cast_possible_truncation, reason = "of eight bits at most")]
fn low_byte(value: u64) -> u8 {
    value as u8
}

#[cfg(test)]
impl BitWriter {
    pub(super) fn position(&self) -> usize {
        let bits = self.bytes.len().saturating_mul(8);
        bits.saturating_sub(self.free as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(
            values in proptest::collection::vec((any::<u64>(), 0u32..65, 0u8..5), 0..40),
        ) {
            let mut writer = BitWriter::default();
            let small = |value: u64, width: u32| {
                value.checked_shr(64_u32.saturating_sub(width)).unwrap_or(0)
            };
            for &(value, width, kind) in &values {
                let value = small(value, width);
                match kind {
                    0 => writer.put(value, width),
                    1 => writer.uvarint(value),
                    2 => writer.varint(value.cast_signed()),
                    3 => writer.varbit_int(value.cast_signed()),
                    _ => writer.varbit_uint(value),
                }
            }
            let bytes = writer.into_bytes();
            let mut reader = BitReader::new(&bytes, 0);
            for &(value, width, kind) in &values {
                let value = small(value, width);
                let read = match kind {
                    0 => reader.bits(width).unwrap(),
                    1 => reader.uvarint("x").unwrap(),
                    2 => reader.varint("x").unwrap().cast_unsigned(),
                    3 => reader.varbit_int().unwrap().cast_unsigned(),
                    _ => reader.varbit_uint().unwrap(),
                };
                prop_assert_eq!(read, value);
            }
            prop_assert!(reader.bits_left() < 8);
        }

        #[test]
        fn floats_go_through_any_windows(values in proptest::collection::vec(any::<u64>(), 1..30)) {
            let mut writer = BitWriter::default();
            let (mut base, mut window) = (0.0, None);
            for &bits in &values {
                let value = f64::from_bits(bits);
                writer.xor(value, base, &mut window);
                base = value;
            }
            let bytes = writer.into_bytes();
            let mut reader = BitReader::new(&bytes, 0);
            let (mut base, mut window) = (0.0, Window::default());
            for &bits in &values {
                base = reader.xor(base, &mut window).unwrap();
                prop_assert_eq!(base.to_bits(), bits);
            }
        }
    }

    #[test]
    fn ranges_are_as_the_format_has_them() {
        assert_eq!(offset_signed(0b100, 3), 4);
        assert_eq!(offset_signed(0b101, 3), -3);
        assert_eq!(twos_signed(0b100, 3), -4);
        assert!(fits_offset(4, 3) && fits_offset(-3, 3));
        assert!(!fits_offset(5, 3) && !fits_offset(-4, 3));
        assert_eq!(offset_signed(u64::MAX, 64), -1);
    }

    #[test]
    fn the_end_is_an_error_that_names_its_byte() {
        let mut reader = BitReader::new(&[0xff, 0xff, 0xff], 1);
        assert_eq!(reader.bits(12).unwrap(), 0xfff);
        let error = reader.bits(5).unwrap_err();
        assert_eq!(
            error.to_string(),
            "chunk data section, offset 2: ends inside a chunk's samples"
        );
        assert!(reader.prefix(8).is_err());
        assert!(BitReader::new(&[0x80; 20], 0).uvarint("x").is_err());
        let mut overlong = BitReader::new(&[0b1111_1000, 0], 0);
        assert!(overlong.changed(0.0, &mut Window::default(), true).is_err());
    }
}
