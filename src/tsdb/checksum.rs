//! CRC-32C (Castagnoli), the one checksum of the TSDB's files.
//!
//! crc-fast costs about 5 ns a call and passes 25 GB/s from 500 bytes on, so even small chunks need
//! nothing else. It is SIMD code, which miri does not run; under miri a plain table stands in.

/// A CRC-32C over bytes that arrive in pieces.
#[derive(Clone, Copy, Debug)]
pub(super) struct Crc32c {
    state: u32,
}

impl Crc32c {
    pub(super) const fn new() -> Self {
        Self { state: u32::MAX }
    }

    /// That of one byte so far, without the cost of a call into the engine.
    #[inline]
    pub(super) fn after(byte: u8) -> Self {
        let state = table::update(u32::MAX, &[byte]);
        Self { state }
    }

    #[inline]
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.state = engine::update(self.state, bytes);
    }

    pub(super) fn value(self) -> u32 {
        !self.state
    }
}

/// The CRC-32C of `bytes`.
#[inline]
pub(super) fn crc32c(bytes: &[u8]) -> u32 {
    engine::whole(bytes)
}

#[cfg(not(miri))]
mod engine {
    //! The fast one.

    use crc_fast::{CrcAlgorithm, Digest};

    #[inline]
    pub(super) fn whole(bytes: &[u8]) -> u32 {
        crc_fast::crc32_iscsi(bytes)
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "the state of a 32-bit CRC is carried in a u64 whose upper half is zero"
    )]
    pub(super) fn update(state: u32, bytes: &[u8]) -> u32 {
        let mut digest = Digest::new_with_init_state(CrcAlgorithm::Crc32Iscsi, u64::from(state));
        digest.update(bytes);
        digest.get_state() as u32
    }
}

mod table {
    //! One table look-up a byte: for single bytes, what the fast one is checked against, and what
    //! miri runs.

    /// The Castagnoli polynomial, bits reversed.
    const POLYNOMIAL: u32 = 0x82f6_3b78;

    static REMAINDERS: [u32; 256] = remainders();

    #[expect(
        clippy::indexing_slicing,
        reason = "a byte indexes 256 entries; miri pays per call"
    )]
    pub(super) fn update(mut state: u32, bytes: &[u8]) -> u32 {
        for &byte in bytes {
            let low = (state & 0xff) as usize ^ byte as usize;
            state = REMAINDERS[low] ^ (state >> 8);
        }
        state
    }

    #[expect(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        reason = "evaluated at compile time, where both would fail the build"
    )]
    const fn remainders() -> [u32; 256] {
        let mut table = [0; 256];
        let mut byte = 0_u32;
        while byte < 256 {
            let mut remainder = byte;
            let mut bit = 0;
            while bit < 8 {
                let carry = remainder & 1;
                remainder = (remainder >> 1) ^ (POLYNOMIAL * carry);
                bit += 1;
            }
            table[byte as usize] = remainder;
            byte += 1;
        }
        table
    }

    #[cfg(miri)]
    pub(super) fn whole(bytes: &[u8]) -> u32 {
        !update(u32::MAX, bytes)
    }
}

#[cfg(miri)]
use table as engine;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_the_check_value_of_the_catalogue() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(!table::update(u32::MAX, b"123456789"), 0xe306_9283);
    }

    #[test]
    fn pieces_give_the_checksum_of_the_whole() {
        let bytes: Vec<u8> = (0..1000_u32).map(|i| (i * 7 % 251) as u8).collect();
        for cut in [0, 1, 15, 16, 63, 64, 500, 999, 1000] {
            let (head, tail) = bytes.split_at(cut);
            let mut crc = Crc32c::new();
            crc.update(head);
            crc.update(tail);
            assert_eq!(crc.value(), crc32c(&bytes), "cut at {cut}");
            assert_eq!(crc.value(), !table::update(u32::MAX, &bytes));
            let mut crc = Crc32c::after(bytes.first().copied().unwrap());
            crc.update(bytes.get(1..).unwrap());
            assert_eq!(crc.value(), crc32c(&bytes));
        }
    }
}
