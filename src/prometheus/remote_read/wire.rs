//! A reader of protobuf that borrows: fields one by one, in place (protobuf encoding, proto3).
//!
//! prost would make a `String` of every label: a million small allocations where a hundred thousand
//! series stream by. Property tests hold this one against it.

use super::frame::FrameErrorKind;

/// The length of the longest varint.
const VARINT_BYTES_MAX: usize = 10;
/// How deep groups, which no message here has, may be nested where they are skipped.
const GROUP_DEPTH_MAX: u32 = 16;

/// A message whose fields are read in turn.
#[derive(Clone, Debug)]
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

/// A field's value by its type on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32,
    Group,
}

impl<'a> Fields<'a> {
    pub(super) fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    /// How many bytes are not read yet.
    pub(super) fn rest_bytes(&self) -> usize {
        self.rest.len()
    }

    /// The next field's number and value; `None` at the message's end.
    pub(super) fn next(&mut self) -> Result<Option<(u32, Value<'a>)>, FrameErrorKind> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let (number, wire_type) = self.key()?;
        let value = match wire_type {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.fixed()?)),
            2 => Value::Bytes(self.bytes()?),
            3 => {
                self.skip_group(number)?;
                Value::Group
            }
            5 => {
                self.fixed::<4>()?;
                Value::Fixed32
            }
            _ => return Err(FrameErrorKind::Message("a field's wire type is unknown")),
        };
        Ok(Some((number, value)))
    }

    fn key(&mut self) -> Result<(u32, u64), FrameErrorKind> {
        let key = self.varint()?;
        match u32::try_from(key >> 3) {
            // A key is 32 bits wide, three of which are the type.
            Ok(number) if number != 0 && number >> 29 == 0 => Ok((number, key & 7)),
            _ => Err(FrameErrorKind::Message("a field's number is out of range")),
        }
    }

    fn varint(&mut self) -> Result<u64, FrameErrorKind> {
        let (value, length) = varint(self.rest)
            .map_err(|_| FrameErrorKind::Message("a number is longer than 64 bits"))?
            .ok_or(TRUNCATED)?;
        self.rest = self.rest.get(length..).unwrap_or_default();
        Ok(value)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], FrameErrorKind> {
        let (value, rest) = self.rest.split_first_chunk().ok_or(TRUNCATED)?;
        self.rest = rest;
        Ok(*value)
    }

    fn bytes(&mut self) -> Result<&'a [u8], FrameErrorKind> {
        let length = self.varint()?;
        let split = usize::try_from(length).ok();
        let split = split.and_then(|length| self.rest.split_at_checked(length));
        let (value, rest) = split.ok_or(TRUNCATED)?;
        self.rest = rest;
        Ok(value)
    }

    fn skip_group(&mut self, number: u32) -> Result<(), FrameErrorKind> {
        let mut open = vec![number];
        while let Some(&innermost) = open.last() {
            match self.key()? {
                (_, 0) => drop(self.varint()?),
                (_, 1) => drop(self.fixed::<8>()?),
                (_, 2) => drop(self.bytes()?),
                (number, 3) if open.len() < GROUP_DEPTH_MAX as usize => open.push(number),
                (number, 4) if number == innermost => drop(open.pop()),
                (_, 5) => drop(self.fixed::<4>()?),
                _ => return Err(FrameErrorKind::Message("a group is broken")),
            }
        }
        Ok(())
    }
}

const TRUNCATED: FrameErrorKind = FrameErrorKind::Message("a field reaches past the end");

impl<'a> Value<'a> {
    pub(super) fn bytes(self) -> Result<&'a [u8], FrameErrorKind> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            _ => Err(WRONG_TYPE),
        }
    }

    pub(super) fn text(self) -> Result<&'a str, FrameErrorKind> {
        std::str::from_utf8(self.bytes()?).map_err(|_| FrameErrorKind::NotUtf8)
    }

    pub(super) fn int64(self) -> Result<i64, FrameErrorKind> {
        match self {
            Self::Varint(value) => Ok(value.cast_signed()),
            _ => Err(WRONG_TYPE),
        }
    }

    pub(super) fn double(self) -> Result<f64, FrameErrorKind> {
        match self {
            Self::Fixed64(bits) => Ok(f64::from_bits(bits)),
            _ => Err(WRONG_TYPE),
        }
    }
}

const WRONG_TYPE: FrameErrorKind = FrameErrorKind::Message("a field has the wrong wire type");

/// The variable-length integer at the front and its length; `None` where its end has not come.
///
/// # Errors
/// Where it does not fit 64 bits.
#[inline]
pub(super) fn varint(bytes: &[u8]) -> Result<Option<(u64, usize)>, ()> {
    if let Some(&first) = bytes.first()
        && first < 0x80
    {
        return Ok(Some((u64::from(first), 1)));
    }
    let mut value = 0_u64;
    for (position, &byte) in bytes.iter().take(VARINT_BYTES_MAX).enumerate() {
        // The tenth byte has room for one bit.
        if position == VARINT_BYTES_MAX - 1 && byte > 1 {
            return Err(());
        }
        value |= u64::from(byte & 0x7f) << (7 * position);
        if byte < 0x80 {
            return Ok(Some((value, position + 1)));
        }
    }
    Ok(None)
}
