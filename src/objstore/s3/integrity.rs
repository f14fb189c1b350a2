//! How bytes are protected on their way: checksums of what is sent, and which of them the server
//! understands.
//!
//! `send_content_md5: true` means Content-MD5. Otherwise a CRC-64/NVME goes along as long as the
//! server echoes it; a server that refuses it or keeps silent gets Content-MD5 instead, or nothing
//! where the user has turned that off. What was found out holds for the life of the bucket object.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use crc_fast::CrcAlgorithm;
use md5::Md5;
use sha2::{Digest as _, Sha256};

/// The check that travels with each body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum S3Integrity {
    /// `x-amz-checksum-crc64nvme`.
    Crc64Nvme,
    /// `Content-MD5`.
    ContentMd5,
    /// CRC-32C, which Google's stores check.
    Crc32c,
    /// None that the server would check.
    None,
}

/// Which check a bucket's server takes.
#[derive(Debug)]
pub(super) struct Verdict {
    component: &'static str,
    pub(super) first: S3Integrity,
    current: AtomicU8,
    fallback: Option<S3Integrity>,
    is_told: AtomicBool,
}

/// Which sums of a body are wanted; a CRC-64/NVME always is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) md5: bool,
    pub(super) sha256: bool,
    pub(super) crc32c: bool,
}

/// Sums in the making.
pub(super) struct Summing {
    crc64: crc_fast::Digest,
    md5: Option<Md5>,
    sha256: Option<Sha256>,
    crc32c: Option<crc_fast::Digest>,
}

/// Sums of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::objstore) struct Sums {
    pub(in crate::objstore) crc64: u64,
    pub(in crate::objstore) md5: Option<[u8; 16]>,
    pub(in crate::objstore) sha256: Option<[u8; 32]>,
    /// In the low half.
    pub(in crate::objstore) crc32c: Option<u64>,
}

/// The sum of parts in order, from theirs.
#[derive(Debug, Default)]
pub(super) struct Combined {
    so_far: Option<u64>,
    crc32c: Option<u64>,
    /// Nearly all parts are equally long, and finding this out costs much more than using it.
    shift: Option<Shift>,
}

/// What becomes of each bit of a sum when so many bytes follow.
#[derive(Debug)]
struct Shift {
    length: u64,
    bits: [u64; 64],
}

/// The polynomial of CRC-64/NVME with its lowest power in the highest bit.
const POLYNOMIAL: u64 = 0x9a6c_9329_ac4b_c9b5;

// === impl S3Integrity ===

impl S3Integrity {
    /// The name in a resume state.
    pub fn name(self) -> &'static str {
        match self {
            Self::Crc64Nvme => "crc64nvme",
            Self::ContentMd5 => "content-md5",
            Self::Crc32c => "crc32c",
            Self::None => "none",
        }
    }
}

impl fmt::Display for S3Integrity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

// === impl Verdict ===

impl Verdict {
    /// What to begin with, by `send_content_md5`.
    pub(super) fn new(send_content_md5: Option<bool>) -> Self {
        let (first, fallback) = match send_content_md5 {
            Some(true) => (S3Integrity::ContentMd5, None),
            Some(false) => (S3Integrity::Crc64Nvme, Some(S3Integrity::None)),
            None => (S3Integrity::Crc64Nvme, Some(S3Integrity::ContentMd5)),
        };
        Self::of("s3", first, fallback)
    }

    /// `first`, or `fallback` for servers that don't take it.
    pub(super) fn of(
        component: &'static str,
        first: S3Integrity,
        fallback: Option<S3Integrity>,
    ) -> Self {
        Self {
            component,
            first,
            current: AtomicU8::new(first as u8),
            fallback,
            is_told: AtomicBool::new(false),
        }
    }

    /// The check in use.
    pub(super) fn current(&self) -> S3Integrity {
        match self.current.load(Ordering::Relaxed) {
            number if number == S3Integrity::Crc64Nvme as u8 => S3Integrity::Crc64Nvme,
            number if number == S3Integrity::ContentMd5 as u8 => S3Integrity::ContentMd5,
            number if number == S3Integrity::Crc32c as u8 => S3Integrity::Crc32c,
            _ => S3Integrity::None,
        }
    }

    /// What to use instead of `check`, where the server does not take it.
    pub(super) fn instead_of(&self, check: S3Integrity) -> Option<S3Integrity> {
        self.fallback.filter(|_| check == self.first)
    }

    /// The server took `check`.
    pub(super) fn settle(&self, check: S3Integrity, bucket: &str) {
        // What was found out is never taken back: servers that echo the checksums of whole objects
        // and not those of parts would have it change for ever.
        let changed =
            check != self.first && self.current.swap(check as u8, Ordering::Relaxed) != check as u8;
        if self.is_told.swap(true, Ordering::Relaxed) && !changed {
            return;
        }
        if check == S3Integrity::None {
            tracing::warn!(
                component = self.component,
                bucket,
                integrity = %check,
                remedy = "remove `send_content_md5`, or set it to true",
                "no checksum protects uploads on their way; nothing but their size does"
            );
        } else {
            tracing::info!(
                component = self.component,
                bucket,
                integrity = %check,
                "this check protects uploads on their way"
            );
        }
    }
}

// === impl Summing ===

impl Summing {
    pub(super) fn new(wanted: Wanted) -> Self {
        Self {
            crc64: crc_fast::Digest::new(CrcAlgorithm::Crc64Nvme),
            md5: wanted.md5.then(Md5::new),
            sha256: wanted.sha256.then(Sha256::new),
            crc32c: wanted
                .crc32c
                .then(|| crc_fast::Digest::new(CrcAlgorithm::Crc32Iscsi)),
        }
    }

    pub(super) fn update(&mut self, run: &[u8]) {
        self.crc64.update(run);
        if let Some(md5) = &mut self.md5 {
            md5.update(run);
        }
        if let Some(sha256) = &mut self.sha256 {
            sha256.update(run);
        }
        if let Some(crc32c) = &mut self.crc32c {
            crc32c.update(run);
        }
    }

    pub(super) fn finish(self) -> Sums {
        Sums {
            crc64: self.crc64.finalize(),
            md5: self.md5.map(|md5| md5.finalize().into()),
            sha256: self.sha256.map(|sha256| sha256.finalize().into()),
            crc32c: self.crc32c.map(|crc32c| crc32c.finalize()),
        }
    }
}

// === impl Combined ===

impl Combined {
    /// Takes the next part.
    pub(super) fn append(&mut self, crc64: u64, length: u64) {
        let Some(so_far) = self.so_far else {
            self.so_far = Some(crc64);
            return;
        };
        let shift = match &self.shift {
            Some(shift) if shift.length == length => shift,
            _ => self.shift.insert(Shift::by(length)),
        };
        self.so_far = Some(shift.apply(so_far) ^ crc64);
    }

    /// Takes the next part's other sum, where there is one.
    pub(super) fn append_crc32c(&mut self, crc32c: Option<u64>, length: u64) {
        let Some(crc32c) = crc32c else {
            return;
        };
        self.crc32c = Some(match self.crc32c {
            None => crc32c,
            Some(so_far) => {
                crc_fast::checksum_combine(CrcAlgorithm::Crc32Iscsi, so_far, crc32c, length)
            }
        });
    }

    /// The CRC-32C of all parts so far, where they had one.
    pub(super) fn crc32c(&self) -> Option<u64> {
        self.crc32c
    }

    /// The sum of all parts so far.
    pub(super) fn crc64(&self) -> u64 {
        self.so_far.unwrap_or(0)
    }
}

// === impl Shift ===

impl Shift {
    /// Combining is linear in the first sum, so it is known by what becomes of each of its bits;
    /// and each bit is the one above it times x.
    fn by(length: u64) -> Self {
        let highest = 1 << 63;
        let mut shifted = crc_fast::checksum_combine(CrcAlgorithm::Crc64Nvme, highest, 0, length);
        let mut bits = [0; 64];
        for bit in bits.iter_mut().rev() {
            *bit = shifted;
            let carry = if shifted & 1 == 1 { POLYNOMIAL } else { 0 };
            shifted = shifted >> 1 ^ carry;
        }
        Self { length, bits }
    }

    fn apply(&self, crc64: u64) -> u64 {
        let bits = (0..).zip(&self.bits);
        bits.filter(|(bit, _)| crc64 >> bit & 1 == 1)
            .fold(0, |sum, (_, shifted)| sum ^ shifted)
    }
}

/// How S3 writes a CRC-64: base64 of the big-endian bytes.
pub(super) fn crc64_text(crc64: u64) -> String {
    BASE64_STANDARD.encode(crc64.to_be_bytes())
}

/// How Google's stores write a CRC-32C: base64 of the big-endian bytes.
pub(in crate::objstore) fn crc32c_text(crc32c: u64) -> String {
    let low = u32::try_from(crc32c & u64::from(u32::MAX)).unwrap_or(u32::MAX);
    BASE64_STANDARD.encode(low.to_be_bytes())
}

/// The CRC-64 of a whole object in S3's writing; `None` where it is none, or one of parts (`…-3`).
pub(super) fn crc64_value(text: &str) -> Option<u64> {
    let bytes = BASE64_STANDARD.decode(text).ok()?;
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

/// How S3 writes an MD5.
pub(super) fn md5_text(md5: &[u8]) -> String {
    BASE64_STANDARD.encode(md5)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn crc64(bytes: &[u8]) -> u64 {
        let mut summing = Summing::new(Wanted::default());
        summing.update(bytes);
        summing.finish().crc64
    }

    proptest! {
        #[test]
        fn parts_combine_to_the_whole(
            bytes in proptest::collection::vec(any::<u8>(), 0..5000), part in 1usize..2000,
        ) {
            let mut combined = Combined::default();
            for part in bytes.chunks(part) {
                combined.append(crc64(part), part.len() as u64);
            }
            prop_assert_eq!(combined.crc64(), crc64(&bytes));
        }
    }

    #[test]
    fn sums_are_the_published_ones() {
        // The check value of CRC-64/NVME, and the tests of RFC 1321 and FIPS 180.
        assert_eq!(crc64(b"123456789"), 0xae8b_1486_0a79_9888);
        assert_eq!(crc64(b""), 0);
        let mut summing = Summing::new(Wanted {
            md5: true,
            sha256: true,
            crc32c: true,
        });
        summing.update(b"ab");
        summing.update(b"c");
        let sums = summing.finish();
        let md5 = hex::encode(sums.md5.unwrap());
        assert_eq!(md5, "900150983cd24fb0d6963f7d28e17f72");
        let sha256 = hex::encode(sums.sha256.unwrap());
        assert!(sha256.starts_with("ba7816bf8f01cfea"), "{sha256}");
        // The check value of CRC-32/ISCSI, of two parts.
        let part = |bytes: &[u8]| {
            let mut summing = Summing::new(Wanted {
                crc32c: true,
                ..Wanted::default()
            });
            summing.update(bytes);
            summing.finish().crc32c
        };
        let mut combined = Combined::default();
        combined.append_crc32c(part(b"12345"), 5);
        combined.append_crc32c(part(b"6789"), 4);
        assert_eq!(combined.crc32c(), Some(0xe306_9283));
    }

    #[test]
    fn lengths_beyond_four_gigabytes_combine() {
        // A zero byte's CRC grows by the length alone, so two halves must give the whole.
        let zeros = crc64(&[0; 1 << 16]);
        let doubled = |times: u32| {
            (0..times).fold((zeros, 1u64 << 16), |(crc, length), _| {
                let both = crc_fast::checksum_combine(CrcAlgorithm::Crc64Nvme, crc, crc, length);
                (both, length * 2)
            })
        };
        let (crc, length) = doubled(17);
        assert_eq!(length, 8 << 30);
        let mut combined = Combined::default();
        for _ in 0..4 {
            combined.append(doubled(15).0, 2 << 30);
        }
        assert_eq!(combined.crc64(), crc);
    }

    #[test]
    fn the_text_goes_both_ways() {
        assert_eq!(crc64_value(&crc64_text(7)), Some(7));
        assert_eq!(crc64_text(0xae8b_1486_0a79_9888), "rosUhgp5mIg=");
        for other in ["", "AAAA", "rosUhgp5mIg=-3", "ü"] {
            assert_eq!(crc64_value(other), None, "{other}");
        }
    }

    #[test]
    fn the_ladder_is_that_of_the_setting() {
        for (setting, first, then) in [
            (Some(true), S3Integrity::ContentMd5, None),
            (Some(false), S3Integrity::Crc64Nvme, Some(S3Integrity::None)),
            (None, S3Integrity::Crc64Nvme, Some(S3Integrity::ContentMd5)),
        ] {
            let verdict = Verdict::new(setting);
            assert_eq!(verdict.current(), first);
            assert_eq!(verdict.instead_of(first), then);
            if let Some(then) = then {
                verdict.settle(then, "b");
                verdict.settle(first, "b");
                assert_eq!((verdict.current(), verdict.instead_of(then)), (then, None));
            }
        }
    }
}
