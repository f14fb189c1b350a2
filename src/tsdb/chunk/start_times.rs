//! Start times in chunks: which samples have one, and how to read over it.
//!
//! StoreAPI knows no start times, so what they say is not kept.

use super::bits::BitReader;
use crate::tsdb::decode::{DecodeError, DecodeErrorKind};

/// The byte of the header that tells of them.
const HEADER_AT: usize = 2;

/// Which samples of a chunk have a start time.
#[derive(Clone, Copy, Debug)]
pub(super) struct StartTimes {
    /// Whether the first one has.
    first: bool,
    /// From which sample on all others have; 0 where none has.
    from: u16,
}

impl StartTimes {
    pub(super) fn of(data: &[u8]) -> Result<Self, DecodeError> {
        let byte = data.get(HEADER_AT).copied().ok_or_else(|| {
            let inside = "a chunk's header";
            BitReader::new(data, data.len()).error(DecodeErrorKind::Truncated { inside })
        })?;
        Ok(Self {
            first: byte & 0x80 != 0,
            from: u16::from(byte & 0x7f),
        })
    }

    /// Reads over the start time of the sample at position `sample`, if it has one.
    pub(super) fn skip(self, bits: &mut BitReader<'_>, sample: u16) -> Result<(), DecodeError> {
        match sample {
            0 if self.first => drop(bits.varint("a start time")?),
            sample if self.from != 0 && sample >= self.from => drop(bits.varbit_int()?),
            _ => {}
        }
        Ok(())
    }
}
