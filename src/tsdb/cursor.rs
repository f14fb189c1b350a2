//! A reading position in a file whose bytes are all at hand, for readers that go where they like.
//!
//! Nothing is taken that is not there: every length is held against what is left of the section,
//! and an error names section and absolute offset.

use std::ops::Range;

use super::checksum::crc32c;
use super::decode::{Uvarint, count, decode_uvarint, unzigzag};
use super::{DecodeError, DecodeErrorKind, Section};

/// A position in one section of a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'a> {
    section: Section,
    rest: &'a [u8],
    /// Absolute offset of the first byte of `rest`.
    offset: u64,
}

impl<'a> Cursor<'a> {
    /// At the start of `range` of a file; reads nothing past its end.
    ///
    /// # Errors
    /// Where the file ends before the range does.
    pub(super) fn new(
        section: Section,
        file: &'a [u8],
        range: Range<u64>,
    ) -> Result<Self, DecodeError> {
        let Range { start, end } = range;
        let bytes = usize::try_from(start).ok().zip(usize::try_from(end).ok());
        let Some(rest) = bytes.and_then(|(start, end)| file.get(start..end)) else {
            let inside = "the file";
            let kind = DecodeErrorKind::Truncated { inside };
            return Err(DecodeError::new(section, start, kind));
        };
        Ok(Self {
            section,
            rest,
            offset: start,
        })
    }

    /// At the start of bytes that stand at `offset` of the file.
    pub(super) fn of_bytes(section: Section, bytes: &'a [u8], offset: u64) -> Self {
        Self {
            section,
            rest: bytes,
            offset,
        }
    }

    /// Absolute offset of the next byte.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// What has not been read.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// An error at the next byte.
    #[cold]
    pub(super) fn error(&self, kind: DecodeErrorKind) -> DecodeError {
        DecodeError::new(self.section, self.offset, kind)
    }

    /// Passes over bytes that have been looked at in [`Cursor::rest`].
    #[inline]
    pub(super) fn skip(&mut self, bytes: usize) {
        self.rest = self.rest.get(bytes..).unwrap_or_default();
        self.offset = self.offset.saturating_add(count(bytes));
    }

    /// The next unsigned variable-length integer.
    #[inline]
    pub(super) fn uvarint(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        match decode_uvarint(self.rest) {
            Uvarint::Value(value, bytes) => {
                self.skip(bytes);
                Ok(value)
            }
            Uvarint::Incomplete => Err(self.error(DecodeErrorKind::Truncated { inside: what })),
            Uvarint::Overflow => Err(self.error(DecodeErrorKind::Varint { what })),
        }
    }

    /// The next signed (zig-zag) variable-length integer.
    #[inline]
    pub(super) fn varint(&mut self, what: &'static str) -> Result<i64, DecodeError> {
        Ok(unzigzag(self.uvarint(what)?))
    }

    /// The next big-endian 32-bit number.
    #[inline]
    pub(super) fn u32(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        let Some(bytes) = self.rest.first_chunk() else {
            return Err(self.error(DecodeErrorKind::Truncated { inside: what }));
        };
        self.skip(bytes.len());
        Ok(u32::from_be_bytes(*bytes))
    }

    /// The next `length` bytes, declared at `declared_at`.
    #[inline]
    pub(super) fn take(
        &mut self,
        length: u64,
        declared_at: u64,
        what: &'static str,
    ) -> Result<&'a [u8], DecodeError> {
        let split = usize::try_from(length)
            .ok()
            .and_then(|length| self.rest.split_at_checked(length));
        let Some((taken, rest)) = split else {
            return Err(self.too_long(length, declared_at, what));
        };
        self.rest = rest;
        self.offset = self.offset.saturating_add(length);
        Ok(taken)
    }

    /// The next structure of a 32-bit length, that many bytes and their CRC-32C: its bytes, with
    /// the cursor that stands at their start.
    ///
    /// # Errors
    /// Where it does not lie whole in the section, or its checksum is wrong.
    pub(super) fn framed(&mut self, what: &'static str) -> Result<Self, DecodeError> {
        let declared_at = self.offset;
        let length = self.u32(what)?;
        self.checked(u64::from(length), declared_at, what)
    }

    /// The next `length` bytes, which their CRC-32C follows.
    ///
    /// # Errors
    /// As [`Cursor::framed`].
    #[inline]
    pub(super) fn checked(
        &mut self,
        length: u64,
        declared_at: u64,
        what: &'static str,
    ) -> Result<Self, DecodeError> {
        let start = self.offset;
        let body = self.take(length, declared_at, what)?;
        let stored = self.u32(what)?;
        let computed = crc32c(body);
        if stored != computed {
            let kind = DecodeErrorKind::Checksum { stored, computed };
            return Err(DecodeError::new(self.section, declared_at, kind));
        }
        Ok(Self::of_bytes(self.section, body, start))
    }

    /// Fails where bytes follow `what`, which was the last there may be.
    pub(super) fn expect_end(&self, what: &'static str) -> Result<(), DecodeError> {
        if self.rest.is_empty() {
            return Ok(());
        }
        let bytes = count(self.rest.len());
        Err(self.error(DecodeErrorKind::Trailing { what, bytes }))
    }

    #[cold]
    fn too_long(&self, length: u64, declared_at: u64, what: &'static str) -> DecodeError {
        let available = count(self.rest.len());
        let kind = DecodeErrorKind::Length {
            what,
            length,
            available,
        };
        DecodeError::new(self.section, declared_at, kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_is_there_and_names_the_place_of_what_is_not() {
        let file = [9, 9, 0x80, 1, 3, 0, 0, 1, 0, b'a', b'b', 9];
        let mut cursor = Cursor::new(Section::Series, &file, 2..11).unwrap();
        assert_eq!(cursor.uvarint("x").unwrap(), 128);
        assert_eq!(cursor.varint("x").unwrap(), -2);
        assert_eq!(cursor.u32("x").unwrap(), 256);
        assert_eq!(cursor.offset(), 9);
        assert_eq!(
            cursor.clone().take(3, 4, "a text").unwrap_err().to_string(),
            "series section, offset 4: a text declares 3 bytes, 2 are left"
        );
        assert!(cursor.u32("x").is_err());
        assert_eq!(cursor.take(2, 4, "a text").unwrap(), b"ab");
        assert!(cursor.is_at_end() && cursor.expect_end("it").is_ok());
        assert_eq!(
            cursor.uvarint("a count").unwrap_err().to_string(),
            "series section, offset 11: ends inside a count"
        );
        assert!(Cursor::new(Section::Series, &file, 2..13).is_err());
        let backwards = Range { start: 5, end: 4 };
        assert!(Cursor::new(Section::Series, &file, backwards).is_err());
        assert!(Cursor::new(Section::Series, &file, u64::MAX..u64::MAX).is_err());
    }

    #[test]
    fn a_frame_is_its_body_with_the_right_checksum() {
        let mut file = vec![0, 0, 0, 3, b'a', b'b', b'c'];
        file.extend(crc32c(b"abc").to_be_bytes());
        let whole = |file: &[u8]| {
            let range = 0..count(file.len());
            let mut cursor = Cursor::new(Section::Symbols, file, range)?;
            let body = cursor.framed("a frame")?;
            assert_eq!((body.offset(), cursor.is_at_end()), (4, true));
            Ok::<_, DecodeError>(body.rest().to_vec())
        };
        assert_eq!(whole(&file).unwrap(), b"abc");
        for at in 0..file.len() {
            assert!(whole(file.split_at(at).0).is_err(), "cut at {at}");
            let mut flipped = file.clone();
            *flipped.get_mut(at).unwrap() ^= 1;
            assert!(whole(&flipped).is_err(), "flipped at {at}");
        }
    }
}
