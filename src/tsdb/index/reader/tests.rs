//! Series entries that are right, broken in every way that a checksum does not tell, and at limits.

#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "tests may panic"
)]

use proptest::prelude::*;

use super::*;
use crate::tsdb::IndexLayout;
use crate::tsdb::index::fuzz_series_entry;
use crate::tsdb::testing::{index_of_bodies, put_uvarint};

fn texts() -> Vec<String> {
    (0..40).map(|i| format!("{i:02}")).collect()
}

fn body(values: &[u64]) -> Vec<u8> {
    let mut body = Vec::new();
    values
        .iter()
        .for_each(|value| put_uvarint(&mut body, *value));
    body
}

/// What the reader says of the entry with these numbers.
fn read(version: u8, values: &[u64]) -> Result<(Vec<String>, Vec<ChunkMeta>), DecodeError> {
    let (file, id) = index_of_bodies(version, &texts(), &body(values));
    let layout = IndexLayout::read(&file).unwrap();
    let view = layout.view(&file);
    let mut reader = SeriesReader::new();
    let result = reader.read(view, id);
    let label = |(name, value): (&[u8], &[u8])| {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        format!("{}={}", text(name), text(value))
    };
    let labels: Vec<String> = reader.labels(view).map(label).collect();
    let chunks = reader.chunks().to_vec();
    if result.is_err() {
        assert!(labels.is_empty() && chunks.is_empty());
    }
    result.map(|()| (labels, chunks))
}

fn kind(values: &[u64]) -> DecodeErrorKind {
    let error = read(2, values).unwrap_err();
    assert_eq!(error.section, Section::Series);
    error.kind
}

proptest! {
    #[test]
    fn any_entry_is_read_as_when_it_streams_past(
        garbage in proptest::collection::vec(any::<u8>(), 0..60),
        numbers in proptest::collection::vec(prop_oneof![9 => 0u64..40, 1 => any::<u64>()], 0..30),
        labels in 0u64..4, chunks in 0u64..5,
    ) {
        fuzz_series_entry(&garbage);
        fuzz_series_entry(&body(&numbers));
        // One that has the right number of numbers.
        let mut numbers = numbers.into_iter().chain(std::iter::repeat(1));
        let mut names = 0;
        let mut right = vec![labels];
        for _ in 0..labels {
            names += 1 + numbers.next().unwrap() % 9;
            right.extend([names, numbers.next().unwrap() % 40]);
        }
        right.push(chunks);
        right.extend(numbers.take(3 * usize::try_from(chunks).unwrap()));
        fuzz_series_entry(&body(&right));
    }
}

#[test]
fn labels_and_chunks_are_what_the_entry_says() {
    let entry = [2, 1, 30, 2, 30, 2, 20, 5, 77, 3, 0, 9];
    let (labels, chunks) = read(2, &entry).unwrap();
    assert_eq!(labels, ["01=30", "02=30"]);
    let chunk = |mint, maxt, reference| ChunkMeta {
        mint: TimestampMs(mint),
        maxt: TimestampMs(maxt),
        reference: ChunkRef(reference),
    };
    assert_eq!(chunks, [chunk(10, 15, 77), chunk(18, 18, 72)]);
    assert_eq!(read(3, &entry), read(2, &entry));
    assert_eq!(read(2, &[0, 0]).unwrap(), (Vec::new(), Vec::new()));
}

#[test]
fn references_of_version_1_are_the_starts_of_symbols_alone() {
    // Symbols begin at 13, each of three bytes.
    let at = |ordinal: u64| 13 + 3 * ordinal;
    let (labels, _) = read(1, &[2, at(0), at(39), at(33), at(31), 0]).unwrap();
    assert_eq!(labels, ["00=39", "33=31"]);
    for wrong in [
        0,
        12,
        14,
        15,
        at(32) + 1,
        at(39) + 2,
        at(40),
        1 << 20,
        u64::from(u32::MAX),
    ] {
        let error = read(1, &[1, at(0), wrong, 0]).unwrap_err();
        assert!(
            matches!(error.kind, DecodeErrorKind::OutOfRange { .. }),
            "{wrong}: {error}"
        );
    }
}

#[test]
fn what_is_wrong_is_told() {
    use DecodeErrorKind as Kind;
    assert_eq!(kind(&[2, 2, 30, 2, 31, 0]), Kind::Order { what: "labels" });
    assert_eq!(kind(&[2, 3, 30, 2, 31, 0]), Kind::Order { what: "labels" });
    assert!(matches!(
        kind(&[1, 1, 40, 0]),
        Kind::OutOfRange {
            value: 40,
            high: 40,
            ..
        }
    ));
    assert!(matches!(kind(&[1, 1, 1 << 33, 0]), Kind::Varint { .. }));
    assert!(matches!(kind(&[]), Kind::Truncated { .. }));
    assert!(matches!(kind(&[1, 1, 2]), Kind::Truncated { .. }));
    assert!(matches!(kind(&[0, 1, 5, 5]), Kind::Truncated { .. }));
    assert!(matches!(kind(&[0, 0, 1]), Kind::Trailing { bytes: 1, .. }));
    assert!(matches!(kind(&[9, 1, 2]), Kind::Count { declared: 9, .. }));
    assert!(matches!(
        kind(&[0, 2, 20, 5, 77, 0, 5, 9]),
        Kind::ChunkOverlap { .. }
    ));
    let high = u64::MAX;
    assert!(matches!(kind(&[0, 1, 20, high, 77]), Kind::Overflow { .. }));
    assert!(matches!(
        kind(&[0, 2, 20, 1, high, 1, 1, 8]),
        Kind::Overflow { .. }
    ));
}

#[test]
fn an_id_is_the_place_of_an_entry() {
    let (file, id) = index_of_bodies(2, &texts(), &body(&[1, 1, 2, 0]));
    let layout = IndexLayout::read(&file).unwrap();
    let mut reader = SeriesReader::new();
    for other in (0..id).chain(id + 1..id + 200).chain([u32::MAX]) {
        let error = reader.read(layout.view(&file), other).unwrap_err();
        assert_eq!(error.section, Section::Series, "{other}");
    }
    reader.read(layout.view(&file), id).unwrap();
    let at = usize::try_from(u64::from(id) * ID_UNIT).unwrap();
    for offset in 0..9 {
        let mut damaged = file.clone();
        damaged[at + offset] ^= 1;
        assert!(
            reader.read(layout.view(&damaged), id).is_err(),
            "byte {offset}"
        );
    }
}

/// Its cache is that of one index; of another one it must not answer.
#[test]
fn a_reader_may_go_on_with_another_index() {
    let entry = body(&[1, 1, 2, 0]);
    let others: Vec<String> = texts().iter().map(|text| format!("other {text}")).collect();
    let files = [texts(), others].map(|texts| index_of_bodies(2, &texts, &entry));
    let mut reader = SeriesReader::new();
    for (nth, (file, id)) in files.iter().chain(&files).enumerate() {
        let layout = IndexLayout::read(file).unwrap();
        let view = layout.view(file);
        reader.read(view, *id).unwrap();
        let (name, _) = reader.labels(view).next().unwrap();
        assert_eq!(name, [b"01".as_slice(), b"other 01"][nth % 2]);
    }
}

#[test]
fn labels_and_chunks_have_limits() {
    let (labels, chunks) = (SERIES_LABELS_MAX, SERIES_CHUNKS_MAX);
    assert!(matches!(kind(&[labels + 1]), DecodeErrorKind::Limit { limit, .. } if limit == labels));
    assert!(matches!(
        kind(&[0, chunks + 1]),
        DecodeErrorKind::Limit { limit, .. } if limit == chunks
    ));
    if cfg!(miri) {
        return;
    }
    let many = usize::try_from(chunks).unwrap();
    let mut most = vec![0, chunks, 2, 0, 5];
    most.extend([1, 0, 2].repeat(many - 1));
    assert_eq!(read(2, &most).unwrap().1.len(), many);
}
