//! XOR chunks: floats in Gorilla's manner (`contract/tsdb.md` §4.1).

use super::bits::{BitReader, BitWriter, Window, fits_offset, offset_signed};
use super::samples::{FloatSample, first_count};
use crate::tsdb::decode::DecodeError;

/// Bytes before the bit stream: the number of samples.
const HEADER_BYTES: usize = 2;
/// What a delta of deltas takes after each prefix, by the prefix's ones.
const DOD_WIDTHS: [u32; 5] = [0, 14, 17, 20, 64];

/// Yields the samples of a chunk.
#[derive(Clone, Debug)]
pub(super) struct XorReader<'a> {
    bits: BitReader<'a>,
    left: u16,
    read: u16,
    delta_ms: i64,
    last: FloatSample,
    window: Window,
}

/// Makes a chunk of samples.
#[derive(Clone, Debug)]
pub struct XorEncoder {
    bits: BitWriter,
    samples: u16,
    delta_ms: i64,
    last: FloatSample,
    window: Option<Window>,
}

impl<'a> XorReader<'a> {
    pub(super) fn new(data: &'a [u8]) -> Result<Self, DecodeError> {
        Ok(Self {
            left: first_count(data)?,
            bits: BitReader::new(data, HEADER_BYTES),
            read: 0,
            delta_ms: 0,
            last: FloatSample::default(),
            window: Window::default(),
        })
    }

    pub(super) fn next(&mut self) -> Result<Option<FloatSample>, DecodeError> {
        if self.left == 0 {
            return Ok(None);
        }
        match self.read {
            0 => {
                self.last.t_ms = self.bits.varint("a sample's time")?;
                self.last.value = self.bits.float()?;
            }
            read => {
                self.delta_ms = match read {
                    1 => self.bits.uvarint("a sample's time")?.cast_signed(),
                    _ => self.delta_ms.wrapping_add(self.delta_of_delta()?),
                };
                self.last.t_ms = self.last.t_ms.wrapping_add(self.delta_ms);
                self.last.value = self.bits.xor(self.last.value, &mut self.window)?;
            }
        }
        self.left = self.left.saturating_sub(1);
        // Only whether it is 0, 1 or more counts.
        self.read = self.read.saturating_add(1);
        Ok(Some(self.last))
    }

    fn delta_of_delta(&mut self) -> Result<i64, DecodeError> {
        let ones = self.bits.prefix(4)? as usize;
        let width = DOD_WIDTHS.get(ones).copied().unwrap_or(64);
        Ok(offset_signed(self.bits.bits(width)?, width))
    }
}

impl XorEncoder {
    /// What the header can count.
    pub const SAMPLES_MAX: u16 = u16::MAX;

    /// A chunk without samples.
    pub fn new() -> Self {
        Self {
            bits: BitWriter::after(vec![0; HEADER_BYTES]),
            samples: 0,
            delta_ms: 0,
            last: FloatSample::default(),
            window: None,
        }
    }

    /// How many samples there are.
    pub fn samples(&self) -> u16 {
        self.samples
    }

    /// Adds a sample at `t_ms` (ms since the epoch, no earlier than the one before); false, and
    /// nothing is added, where the chunk is full.
    pub fn append(&mut self, t_ms: i64, value: f64) -> bool {
        if self.samples == Self::SAMPLES_MAX {
            return false;
        }
        let delta_ms = t_ms.wrapping_sub(self.last.t_ms);
        match self.samples {
            0 => {
                self.bits.varint(t_ms);
                self.bits.put(value.to_bits(), 64);
            }
            samples => {
                match samples {
                    1 => self.bits.uvarint(delta_ms.cast_unsigned()),
                    _ => self.delta_of_delta(delta_ms.wrapping_sub(self.delta_ms)),
                }
                self.bits.xor(value, self.last.value, &mut self.window);
                self.delta_ms = delta_ms;
            }
        }
        self.last = FloatSample { t_ms, value };
        self.samples = self.samples.saturating_add(1);
        true
    }

    /// The chunk's data, header included.
    pub fn finish(mut self) -> Vec<u8> {
        let samples = self.samples.to_be_bytes();
        if let Some(header) = self.bits.bytes_mut().first_chunk_mut() {
            *header = samples;
        }
        self.bits.into_bytes()
    }

    fn delta_of_delta(&mut self, dod: i64) {
        let (prefix, prefix_width, width) = match dod {
            0 => (0, 1, 0),
            dod if fits_offset(dod, 14) => (0b10, 2, 14),
            dod if fits_offset(dod, 17) => (0b110, 3, 17),
            dod if fits_offset(dod, 20) => (0b1110, 4, 20),
            _ => (0b1111, 4, 64),
        };
        self.bits.put(prefix, prefix_width);
        self.bits.put(dod.cast_unsigned(), width);
    }
}

impl Default for XorEncoder {
    fn default() -> Self {
        Self::new()
    }
}
