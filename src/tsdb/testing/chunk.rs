//! Chunks to be written: real XOR chunks, and opaque ones of any encoding.

use super::{put_uvarint, put_varint};
use crate::tsdb::Encoding;

/// One chunk of a series to be written.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// First sample, ms.
    pub mint: i64,
    /// Last sample, ms.
    pub maxt: i64,
    /// Number of samples.
    pub samples: u32,
    /// Encoding of the data.
    pub encoding: Encoding,
    /// The chunk's data, count included.
    pub data: Vec<u8>,
}

impl Chunk {
    /// An XOR chunk of these samples: time in ms, ascending, and value. At least one.
    pub fn xor(samples: &[(i64, f64)]) -> Self {
        let mut bits = BitWriter {
            bytes: (samples.len() as u16).to_be_bytes().to_vec(),
            free: 0,
        };
        let mut window = None;
        for (i, &(t, v)) in samples.iter().enumerate() {
            match i {
                0 => {
                    bits.varint(t);
                    bits.put(v.to_bits(), 64);
                }
                1 => bits.uvarint((t - samples[0].0) as u64),
                _ => {
                    let delta = t - samples[i - 1].0;
                    bits.delta_of_delta(delta - (samples[i - 1].0 - samples[i - 2].0));
                }
            }
            if i > 0 {
                bits.xor(v.to_bits() ^ samples[i - 1].1.to_bits(), &mut window);
            }
        }
        Self {
            mint: samples[0].0,
            maxt: samples[samples.len() - 1].0,
            samples: samples.len() as u32,
            encoding: Encoding::Xor,
            data: bits.bytes,
        }
    }

    /// A chunk whose header is right and whose samples are noise, `data_bytes` long (3 or more).
    /// Verification does not decode samples, so this is as good as a real one, and cheap.
    pub fn opaque(
        encoding: Encoding,
        samples: u16,
        mint: i64,
        maxt: i64,
        data_bytes: usize,
    ) -> Self {
        let mut data = samples.to_be_bytes().to_vec();
        let mut noise = (mint as u64) ^ 0x9e37_79b9_7f4a_7c15;
        while data.len() < data_bytes.max(3) {
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            data.extend_from_slice(&noise.to_be_bytes());
        }
        data.truncate(data_bytes.max(3));
        Self {
            mint,
            maxt,
            samples: u32::from(samples),
            encoding,
            data,
        }
    }
}

/// Bits, most significant first.
struct BitWriter {
    bytes: Vec<u8>,
    /// Unused low bits of the last byte.
    free: u32,
}

impl BitWriter {
    fn put(&mut self, value: u64, mut bits: u32) {
        while bits > 0 {
            if self.free == 0 {
                self.bytes.push(0);
                self.free = 8;
            }
            let taken = bits.min(self.free);
            let piece = (value >> (bits - taken)) as u32 & ((1 << taken) - 1);
            let last = self.bytes.len() - 1;
            self.bytes[last] |= (piece << (self.free - taken)) as u8;
            self.free -= taken;
            bits -= taken;
        }
    }

    fn uvarint(&mut self, value: u64) {
        let mut bytes = Vec::new();
        put_uvarint(&mut bytes, value);
        bytes.iter().for_each(|&b| self.put(u64::from(b), 8));
    }

    fn varint(&mut self, value: i64) {
        let mut bytes = Vec::new();
        put_varint(&mut bytes, value);
        bytes.iter().for_each(|&b| self.put(u64::from(b), 8));
    }

    fn delta_of_delta(&mut self, dod: i64) {
        let fits = |bits: u32| -((1 << (bits - 1)) - 1) <= dod && dod <= 1 << (bits - 1);
        if dod == 0 {
            self.put(0, 1);
        } else if fits(14) {
            self.put(0b10, 2);
            self.put(dod as u64, 14);
        } else if fits(17) {
            self.put(0b110, 3);
            self.put(dod as u64, 17);
        } else if fits(20) {
            self.put(0b1110, 4);
            self.put(dod as u64, 20);
        } else {
            self.put(0b1111, 4);
            self.put(dod as u64, 64);
        }
    }

    fn xor(&mut self, delta: u64, window: &mut Option<(u32, u32)>) {
        if delta == 0 {
            self.put(0, 1);
            return;
        }
        let leading = delta.leading_zeros().min(31);
        let trailing = delta.trailing_zeros();
        if let Some((old_leading, old_trailing)) = *window
            && leading >= old_leading
            && trailing >= old_trailing
        {
            self.put(0b10, 2);
            self.put(delta >> old_trailing, 64 - old_leading - old_trailing);
            return;
        }
        *window = Some((leading, trailing));
        let significant = 64 - leading - trailing;
        self.put(0b11, 2);
        self.put(u64::from(leading), 5);
        self.put(u64::from(significant % 64), 6);
        self.put(delta >> trailing, significant);
    }
}
