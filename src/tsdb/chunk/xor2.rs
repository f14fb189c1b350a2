//! XOR2 chunks: floats with one prefix for time and value, a code for stale markers, and start
//! times (`contract/tsdb.md` §4.1). The start times are read over.

use super::bits::{BitReader, STALE_NAN_BITS, Window, twos_signed};
use super::samples::{FloatSample, first_count};
use super::start_times::StartTimes;
use crate::tsdb::decode::DecodeError;

/// Bytes before the bit stream: the number of samples and the byte on start times.
const HEADER_BYTES: usize = 3;

/// Yields the samples of a chunk.
#[derive(Clone, Debug)]
pub(super) struct Xor2Reader<'a> {
    bits: BitReader<'a>,
    start_times: StartTimes,
    left: u16,
    read: u16,
    t_ms: i64,
    delta_ms: i64,
    /// The last value that is no stale marker, which the next one is the xor with.
    base: f64,
    window: Window,
}

impl<'a> Xor2Reader<'a> {
    pub(super) fn new(data: &'a [u8]) -> Result<Self, DecodeError> {
        Ok(Self {
            left: first_count(data)?,
            start_times: StartTimes::of(data)?,
            bits: BitReader::new(data, HEADER_BYTES),
            read: 0,
            t_ms: 0,
            delta_ms: 0,
            base: 0.0,
            window: Window::default(),
        })
    }

    pub(super) fn next(&mut self) -> Result<Option<FloatSample>, DecodeError> {
        if self.left == 0 {
            return Ok(None);
        }
        let value = match self.read {
            0 => {
                self.t_ms = self.bits.varint("a sample's time")?;
                self.bits.float()?
            }
            1 => {
                self.delta_ms = self.bits.uvarint("a sample's time")?.cast_signed();
                self.t_ms = self.t_ms.wrapping_add(self.delta_ms);
                self.value()?
            }
            _ => self.joint()?,
        };
        self.start_times.skip(&mut self.bits, self.read)?;
        if value.to_bits() != STALE_NAN_BITS {
            self.base = value;
        }
        self.left = self.left.saturating_sub(1);
        self.read = self.read.saturating_add(1);
        Ok(Some(FloatSample {
            t_ms: self.t_ms,
            value,
        }))
    }

    /// Time and value behind one prefix.
    fn joint(&mut self) -> Result<f64, DecodeError> {
        let ones = self.bits.prefix(5)?;
        let width = match ones {
            2 => 13,
            3 => 20,
            4 => 64,
            _ => 0,
        };
        let dod = twos_signed(self.bits.bits(width)?, width);
        self.delta_ms = self.delta_ms.wrapping_add(dod);
        self.t_ms = self.t_ms.wrapping_add(self.delta_ms);
        match ones {
            0 => Ok(self.base),
            1 => {
                let is_new = self.bits.bit()?;
                self.bits.changed(self.base, &mut self.window, is_new)
            }
            2..=4 => self.value(),
            _ => Ok(f64::from_bits(STALE_NAN_BITS)),
        }
    }

    fn value(&mut self) -> Result<f64, DecodeError> {
        match self.bits.prefix(3)? {
            0 => Ok(self.base),
            1 => self.bits.changed(self.base, &mut self.window, false),
            2 => self.bits.changed(self.base, &mut self.window, true),
            _ => Ok(f64::from_bits(STALE_NAN_BITS)),
        }
    }
}
