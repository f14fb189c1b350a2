//! The tombstones file: only whether it is whole. It is not uploaded, and deletions are not applied
//! here; a reader that must apply them can trust what passed.

use super::checksum::crc32c;
use super::decode::count;
use super::{DecodeError, DecodeErrorKind, Section};

const MAGIC: u32 = 0x0130_ba30;
const VERSION: u8 = 1;

/// Checks header and checksum of a tombstones file, given whole (`contract/tsdb.md` §5). A block
/// without the file has no tombstones.
///
/// # Errors
/// When it is cut short, of another format or version, or its entries are damaged.
pub fn check_tombstones(file: &[u8]) -> Result<(), DecodeError> {
    let header_error = |offset, kind| DecodeError::new(Section::Header, offset, kind);
    let inside = "the header";
    let truncated = || header_error(count(file.len()), DecodeErrorKind::Truncated { inside });
    let (magic, rest) = file.split_first_chunk().ok_or_else(truncated)?;
    let (&version, rest) = rest.split_first().ok_or_else(truncated)?;
    let found = u32::from_be_bytes(*magic);
    if found != MAGIC {
        let expected = MAGIC;
        return Err(header_error(0, DecodeErrorKind::Magic { expected, found }));
    }
    if version != VERSION {
        let kind = DecodeErrorKind::Version { found: version };
        return Err(header_error(4, kind));
    }
    let Some((entries, stored)) = rest.split_last_chunk() else {
        let inside = "the checksum";
        let kind = DecodeErrorKind::Truncated { inside };
        return Err(DecodeError::new(
            Section::Tombstones,
            count(file.len()),
            kind,
        ));
    };
    let (stored, computed) = (u32::from_be_bytes(*stored), crc32c(entries));
    if stored != computed {
        let kind = DecodeErrorKind::Checksum { stored, computed };
        return Err(DecodeError::new(Section::Tombstones, 5, kind));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: &[u8] = include_bytes!("../../tests/data/blocks/prometheus-2.42/tombstones");

    fn with_entries(entries: &[u8]) -> Vec<u8> {
        let mut file = vec![0x01, 0x30, 0xba, 0x30, 1];
        file.extend_from_slice(entries);
        file.extend(crc32c(entries).to_be_bytes());
        file
    }

    #[test]
    fn accepts_what_prometheus_writes() {
        assert_eq!(check_tombstones(NONE), Ok(()));
        assert_eq!(NONE, with_entries(&[]));
        assert_eq!(check_tombstones(&with_entries(&[1, 2, 3, 4])), Ok(()));
    }

    #[test]
    fn refuses_every_truncation_and_every_flipped_bit() {
        let file = with_entries(&[9, 8, 7]);
        for len in 0..file.len() {
            let (head, _) = file.split_at(len);
            assert!(check_tombstones(head).is_err(), "{len} bytes");
        }
        for at in 0..file.len() {
            for bit in 0..8 {
                let mut flipped = file.clone();
                if let Some(byte) = flipped.get_mut(at) {
                    *byte ^= 1 << bit;
                }
                assert!(check_tombstones(&flipped).is_err(), "byte {at} bit {bit}");
            }
        }
    }
}
