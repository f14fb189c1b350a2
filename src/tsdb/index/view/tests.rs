//! Lookups against a naive model of the same series, damage at every position, limits.

#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    reason = "tests may panic"
)]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::model::{BlockId, TimeRange, TimestampMs};
use crate::tsdb::index::fuzz_access::{fuzz_view, walk};
use crate::tsdb::testing::{BlockLayout, Chunk, MemoryBlock, Series, index_of_bodies};
use crate::tsdb::{Encoding, SeriesReader};

const CASES: u32 = if cfg!(miri) { 2 } else { 96 };
const RANGE: TimeRange = TimeRange {
    mint: TimestampMs(0),
    maxt: TimestampMs(1_000_000),
};

type Labels = BTreeMap<String, String>;

fn written(version: u8, label_indices: bool, series: &BTreeSet<Labels>) -> Vec<u8> {
    let layout = BlockLayout {
        index_version: version,
        label_indices,
        ..BlockLayout::default()
    };
    let series = series.iter().enumerate().map(|(i, labels)| Series {
        labels: labels.clone().into_iter().collect(),
        chunks: (0..i % 4)
            .map(|k| {
                let mint = (k * 1_000 + i) as i64;
                Chunk::opaque(Encoding::Xor, 9, mint, mint + 500, 3 + i % 90)
            })
            .collect(),
    });
    let block = MemoryBlock::write(layout, BlockId::from_u128(1), RANGE, series);
    block.index().to_vec()
}

/// Series ids by label, and what else can be asked, looked up in no index.
struct Model {
    lists: BTreeMap<Vec<u8>, BTreeMap<Vec<u8>, Vec<u32>>>,
    symbols: BTreeSet<String>,
}

impl Model {
    /// Of series whose ids, in the same order, are known.
    fn new(series: &BTreeSet<Labels>, ids: &[u32]) -> Self {
        let mut model = Self {
            lists: BTreeMap::new(),
            symbols: BTreeSet::new(),
        };
        for (labels, id) in series.iter().zip(ids) {
            for (name, value) in labels {
                model.symbols.extend([name.clone(), value.clone()]);
                let values = model.lists.entry(name.clone().into()).or_default();
                values.entry(value.clone().into()).or_default().push(*id);
            }
        }
        model
    }

    fn check(&self, view: IndexView<'_>, probes: &[String]) {
        assert_eq!(view.symbols(), self.symbols.len() as u64);
        let names: Vec<Vec<u8>> = view
            .label_names()
            .map(|name| name.unwrap().to_vec())
            .collect();
        assert_eq!(names, self.lists.keys().cloned().collect::<Vec<_>>());
        let none = BTreeMap::new();
        let probed = probes.iter().map(|probe| probe.clone().into_bytes());
        for name in names.into_iter().chain(probed) {
            let values = self.lists.get(&name).unwrap_or(&none);
            assert_eq!(&rest(view, view.values(&name).unwrap()), values);
            let known = values.keys().map(|value| value.as_slice());
            for probe in probes.iter().map(String::as_bytes).chain(known) {
                let found = view.value(&name, probe).unwrap();
                let found = found.map(|at| ids(view, at));
                assert_eq!(found.as_ref(), values.get(probe));
                let from = values.range(probe.to_vec()..);
                let from: BTreeMap<_, _> = from.map(|(k, v)| (k.clone(), v.clone())).collect();
                assert_eq!(rest(view, view.values_from(&name, probe).unwrap()), from);
            }
        }
    }
}

fn ids(view: IndexView<'_>, at: PostingsRef) -> Vec<u32> {
    let mut postings = view.postings(at).unwrap();
    std::iter::from_fn(|| postings.next(view)).collect()
}

fn rest(view: IndexView<'_>, mut values: Values) -> BTreeMap<Vec<u8>, Vec<u32>> {
    let mut all = BTreeMap::new();
    let mut order = Vec::new();
    while let Some((value, at)) = values.next(view).unwrap() {
        order.push(value);
        all.insert(value.to_vec(), ids(view, at));
    }
    assert!(order.is_sorted_by(|a, b| a < b));
    assert_eq!(values.next(view).unwrap(), None, "there are no more");
    all
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => "[a-c]{1,2}",
        2 => Just(String::new()),
        2 => "[é☃a]{1,3}",
        1 => (100usize..300).prop_map(|length| "x".repeat(length)),
    ]
}

/// Many values of one name, few of others.
fn series() -> impl Strategy<Value = BTreeSet<Labels>> {
    let name = prop_oneof![Just("a"), Just("b"), Just("job"), Just("ü")];
    let labels = proptest::collection::btree_map(name.prop_map(str::to_owned), text(), 0..4);
    let numbered = (labels, 0u32..300).prop_map(|(mut labels, number)| {
        labels.insert("many".to_owned(), format!("v{number}"));
        labels
    });
    let most = if cfg!(miri) { 45 } else { 200 };
    proptest::collection::btree_set(numbered, 0..most)
}

fn check_all(version: u8, label_indices: bool, series: &BTreeSet<Labels>, probes: &[String]) {
    let file = written(version, label_indices, series);
    let layout = IndexLayout::read(&file).unwrap();
    let view = layout.view(&file);
    assert_eq!(view.version(), version);
    let all = ids(view, view.all());
    assert_eq!(all.len(), series.len());
    Model::new(series, &all).check(view, probes);
    // And the series themselves, in any order.
    let mut reader = SeriesReader::new();
    let backwards = series.iter().zip(&all).enumerate().rev();
    let mut before: Option<&Labels> = None;
    for (i, (labels, id)) in backwards.clone().chain(backwards.rev().step_by(3)) {
        reader.read(view, *id).unwrap();
        let same = before.map_or(0, |before| {
            let pairs = before.iter().zip(labels);
            pairs.take_while(|(before, now)| before == now).count()
        });
        assert_eq!(reader.same_labels(), same, "{before:?} {labels:?}");
        before = Some(labels);
        let read = reader.labels(view).map(|(name, value)| {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            (text(name), text(value))
        });
        assert!(read.eq(labels.clone()));
        let times = reader
            .chunks()
            .iter()
            .map(|chunk| (chunk.mint.0, chunk.maxt.0));
        let mint = |k: usize| (k * 1_000 + i) as i64;
        assert!(times.eq((0..i % 4).map(|k| (mint(k), mint(k) + 500))));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]
    #[test]
    fn lookups_are_those_of_a_model(
        series in series(), version in 1u8..=3, label_indices in any::<bool>(),
        probes in proptest::collection::vec(prop_oneof![text(), "v[0-9]{0,3}"], 0..8),
    ) {
        check_all(version, label_indices, &series, &probes);
    }

    #[test]
    fn garbage_is_an_error_or_an_index(
        data in proptest::collection::vec(any::<u8>(), 0..300), version in 1u8..=3,
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        fuzz_view(&data);
        let mut file = written(version, false, &numbered(5));
        for (at, flip) in flips {
            let at = at.index(file.len());
            file[at] ^= flip;
        }
        fuzz_view(&file);
    }
}

fn numbered(many: usize) -> BTreeSet<Labels> {
    let series = (0..many).map(|i| {
        let label = |name: &str, value: String| (name.to_owned(), value);
        Labels::from([
            label("a", format!("{}", i % 3)),
            label("id", format!("{i:04}")),
        ])
    });
    series.collect()
}

#[test]
fn samples_are_found_on_both_sides_of_every_border() {
    for version in 1..=3 {
        for many in if cfg!(miri) {
            vec![33]
        } else {
            vec![0, 1, 31, 32, 33, 64, 65, 100]
        } {
            let series = numbered(many);
            check_all(version, true, &series, &["".to_owned(), "9999".to_owned()]);
        }
    }
}

/// The answer to everything, or an error.
fn answers(file: &[u8]) -> Result<Vec<String>, DecodeError> {
    let layout = IndexLayout::read(file)?;
    walk(layout.view(file), 100_000)
}

#[test]
fn damage_at_any_position_is_an_error_or_changes_no_answer() {
    for version in if cfg!(miri) { vec![2] } else { vec![1, 2, 3] } {
        let file = written(
            version,
            version == 3,
            &numbered(if cfg!(miri) { 2 } else { 6 }),
        );
        let right = answers(&file).unwrap();
        let step = if cfg!(miri) { 37 } else { 1 };
        for at in (0..file.len()).step_by(step) {
            assert!(answers(&file[..at]).is_err(), "cut at {at}");
            for flip in [1, 0x80, 0xff] {
                let mut flipped = file.clone();
                flipped[at] ^= flip;
                if let Ok(answer) = answers(&flipped) {
                    // Padding, and whether it is version 2 or 3, which are the same.
                    assert_eq!(answer[1..], right[1..], "byte {at} flipped by {flip:#x}");
                }
            }
        }
        let longer = [&file[..], &[0]].concat();
        assert!(answers(&longer).is_err());
    }
}

#[test]
fn another_file_of_the_same_size_is_no_reason_to_panic() {
    let file = written(2, false, &numbered(40));
    let layout = IndexLayout::read(&file).unwrap();
    let mut values = layout.view(&file).values(b"id").unwrap();
    let zeros = vec![0; file.len()];
    for other in [&zeros[..], &zeros[..100], &[]] {
        let view = layout.view(other);
        assert!(view.values(b"id").is_err() && view.postings(view.all()).is_err());
        assert!(view.label_names().all(|name| name.is_err()));
        assert!(values.clone().next(view).is_err());
        let mut reader = SeriesReader::new();
        assert!((0..200).all(|id| reader.read(view, id).is_err()));
        let mut postings = Postings::of_list(100, 1 << 20);
        assert!((0..1000).all(|at_least| postings.seek(view, at_least).is_none_or(|id| id == 0)));
    }
    assert!(values.next(layout.view(&zeros)).is_err());
    assert_eq!(
        values.next(layout.view(&file)).unwrap(),
        None,
        "it has ended"
    );
}

#[test]
fn errors_name_section_and_offset() {
    let file = written(2, false, &numbered(3));
    let layout = IndexLayout::read(&file).unwrap();
    let view = layout.view(&file);
    let outside = PostingsRef { offset: 7 };
    let error = view.postings(outside).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("postings section, offset 7: "),
        "{error}"
    );
    let list = view.value(b"a", b"0").unwrap().unwrap();
    let mut damaged = file.clone();
    damaged[usize::try_from(list.offset).unwrap() + 9] ^= 1;
    let error = layout.view(&damaged).postings(list).unwrap_err();
    let expected = format!(
        "postings section, offset {}: checksum mismatch",
        list.offset
    );
    assert!(error.to_string().starts_with(&expected), "{error}");
    for (at, what) in [
        (0, "header section, offset 0: magic number"),
        (4, "header section, offset 4: unsupported format version"),
        (file.len() - 1, "toc section, offset "),
        (20, "symbols section, offset 5: checksum mismatch"),
        (file.len() - 60, "postings offset table section, offset "),
    ] {
        let mut damaged = file.clone();
        damaged[at] ^= 0x40;
        let error = IndexLayout::read(&damaged).unwrap_err();
        assert!(error.to_string().starts_with(what), "{error}");
    }
}

#[test]
fn symbols_in_no_order_or_not_utf8_are_refused() {
    let texts = |all: &[&str]| {
        all.iter()
            .map(|text| (*text).to_owned())
            .collect::<Vec<_>>()
    };
    for wrong in [texts(&["b", "a"]), texts(&["a", "a"])] {
        let (file, _) = index_of_bodies(2, &wrong, &[]);
        let error = IndexLayout::read(&file).unwrap_err();
        assert_eq!(error.kind, DecodeErrorKind::Order { what: "symbols" });
    }
    // As long as three bytes that are text.
    let (mut file, _) = index_of_bodies(2, &texts(&["é1", "ü"]), &[]);
    let at = file.iter().position(|byte| *byte == 0xc3).unwrap();
    file[at] = b'x';
    let crc = crate::tsdb::checksum::crc32c(&file[9..9 + 4 + 7]);
    file[9 + 4 + 7..][..4].copy_from_slice(&crc.to_be_bytes());
    let error = IndexLayout::read(&file).unwrap_err();
    assert_eq!(error.kind, DecodeErrorKind::NotUtf8 { what: "symbol" });
}

#[test]
fn a_symbol_may_be_as_long_as_the_limit_and_no_longer() {
    if cfg!(miri) {
        return;
    }
    let limit = usize::try_from(crate::tsdb::SYMBOL_BYTES_MAX).unwrap();
    for (length, is_right) in [(limit, true), (limit + 1, false)] {
        let (file, id) = index_of_bodies(2, &["n".to_owned(), "v".repeat(length)], &[1, 0, 1, 0]);
        let layout = IndexLayout::read(&file);
        assert_eq!(layout.is_ok(), is_right, "{length} bytes");
        if let Ok(layout) = layout {
            let view = layout.view(&file);
            let mut reader = SeriesReader::new();
            reader.read(view, id).unwrap();
            assert_eq!(reader.labels(view).next().unwrap().1.len(), limit);
        }
    }
}

/// The figure that the documentation of [`IndexLayout`] states, at a tenth of its size.
#[test]
fn memory_is_a_quarter_of_a_byte_for_each_series_and_unique_label() {
    let many = if cfg!(miri) { 320 } else { 100_000 };
    let (mut files, mut memory) = (Vec::new(), Vec::new());
    for version in [1, 2] {
        let series = (0..many).map(|i| Series {
            labels: vec![
                ("few".to_owned(), format!("{}", i % 10)),
                ("unique".to_owned(), format!("{i:06}")),
            ],
            chunks: Vec::new(),
        });
        let layout = BlockLayout {
            index_version: version,
            ..BlockLayout::default()
        };
        let mut sorted: Vec<Series> = series.collect();
        sorted.sort_by(|a, b| a.labels.cmp(&b.labels));
        let block = MemoryBlock::write(layout, BlockId::from_u128(1), RANGE, sorted);
        files.push(block.index().to_vec());
        let layout = IndexLayout::read(block.index()).unwrap();
        memory.push(layout.memory_bytes());
    }
    let samples = many / 32 * 4 * 2;
    assert!((samples..samples + 1000).contains(&memory[1]), "{memory:?}");
    let unsorted = many * 4 + samples / 2;
    assert!((unsorted..unsorted * 2).contains(&memory[0]), "{memory:?}");
}
