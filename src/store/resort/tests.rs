//! The streaming re-sort against sorting everything.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::store::{Chunk, ChunkEncoding, Part};

type Pairs = Vec<(String, String)>;

fn set(labels: &[(String, String)]) -> LabelSet {
    let mut set = LabelSet::default();
    for (name, value) in labels {
        set.push(name.as_bytes(), value.as_bytes()).unwrap();
    }
    set
}

fn pairs(labels: &[(&str, &str)]) -> Pairs {
    labels
        .iter()
        .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
        .collect()
}

fn series(labels: &[(String, String)], chunk: i64, bytes: usize) -> Series {
    let data = Bytes::from(vec![7; bytes]);
    Series {
        labels: set(labels),
        chunks: vec![Chunk::new(chunk, chunk, ChunkEncoding::Xor, data).into()],
    }
}

/// All series through a [`Resort`], and the greatest number that waited.
fn resorted(input: Vec<Series>, added: &LabelSet) -> (Vec<Series>, usize) {
    let mut resort = Resort::new(added);
    let (mut out, mut waiting) = (Vec::new(), 0);
    for series in input {
        resort.push(series).unwrap();
        waiting = waiting.max(resort.waiting());
        out.extend(std::iter::from_fn(|| resort.pop()));
    }
    resort.finish();
    out.extend(std::iter::from_fn(|| resort.pop()));
    assert_eq!(resort.waiting_bytes(), 0);
    (out, waiting)
}

fn names() -> Vec<String> {
    ["a", "b", "c", "d", "e", "f", "g"]
        .map(str::to_owned)
        .to_vec()
}

fn own_name() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "c", "e", "g"])
}

/// Before, between and behind the names of [`own_name`].
fn external_name() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["0", "b", "d", "f", "h"])
}

prop_compose! {
    /// Label sets over few names and values, so that many are prefixes of others.
    fn label_sets()(
        sets in prop::collection::btree_set(
            prop::collection::btree_map(own_name(), 0..2u8, 0..=4),
            1..40,
        ),
    ) -> Vec<Pairs> {
        let owned = |labels: std::collections::BTreeMap<&str, u8>| -> Pairs {
            labels.into_iter().map(|(n, v)| (n.to_owned(), v.to_string())).collect()
        };
        let mut sets: Vec<Pairs> = sets.into_iter().map(owned).collect();
        sets.sort();
        sets
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    /// The order is that of sorting everything, and no more waits than a set has labels.
    #[test]
    fn as_sorting_everything(
        sets in label_sets(),
        external in prop::collection::btree_set(external_name(), 0..=3),
        removed in prop::collection::btree_set(external_name(), 0..=2),
    ) {
        // Replica labels that are external only are those that are not added.
        let added: Pairs = external
            .difference(&removed)
            .map(|name| ((*name).to_owned(), "x".to_owned()))
            .collect();
        let added_set = set(&added);
        let input: Vec<Series> = sets.iter().map(|labels| series(labels, 0, 1)).collect();
        let (out, waiting) = resorted(input, &added_set);

        let got: Vec<LabelSet> = out.iter().map(|s| s.labels.merged(&added_set).unwrap()).collect();
        let mut expected: Vec<Pairs> = sets
            .iter()
            .map(|labels| {
                let mut all = [labels.as_slice(), added.as_slice()].concat();
                all.sort();
                all
            })
            .collect();
        expected.sort();
        let expected: Vec<LabelSet> = expected.iter().map(|labels| set(labels)).collect();
        prop_assert_eq!(got, expected);
        prop_assert!(waiting <= 5, "{} wait", waiting);
    }

    /// Pieces of one series come out together, in order, as one while they are small.
    #[test]
    fn pieces_are_joined(sets in label_sets(), counts in prop::collection::vec(1..4i64, 40)) {
        let added = set(&pairs(&[("b", "x"), ("f", "y")]));
        let pieces = sets.iter().zip(&counts).flat_map(|(labels, count)| {
            (0..*count).map(|i| series(labels, i, 1))
        });
        let (out, _) = resorted(pieces.collect(), &added);
        prop_assert_eq!(out.len(), sets.len());
        for series in out {
            let at = sets.iter().position(|labels| set(labels) == series.labels).unwrap();
            let times: Vec<i64> = series.chunks.iter().map(Part::min_ms).collect();
            prop_assert_eq!(times, (0..counts[at]).collect::<Vec<_>>());
        }
    }

    /// What is out of order is never passed on.
    #[test]
    fn disorder_is_an_error(mut sets in label_sets(), at in 0..40usize) {
        prop_assume!(sets.len() > 1);
        let at = at % (sets.len() - 1);
        sets.swap(at, at + 1);
        let mut resort = Resort::new(&LabelSet::default());
        let pushed: Result<(), StoreError> =
            sets.iter().try_for_each(|labels| resort.push(series(labels, 0, 1)));
        prop_assert!(matches!(pushed, Err(StoreError::OutOfOrder)));
    }
}

#[test]
fn the_case_of_the_field() {
    // `replica` sorts behind `job` and before `zone`.
    let sets = [
        pairs(&[("job", "a")]),
        pairs(&[("job", "a"), ("le", "1")]),
        pairs(&[("job", "a"), ("zone", "z")]),
        pairs(&[("job", "b")]),
    ];
    let added = set(&pairs(&[("replica", "r")]));
    let (out, waiting) = resorted(sets.iter().map(|s| series(s, 0, 1)).collect(), &added);
    let order: Vec<usize> = out
        .iter()
        .map(|s| sets.iter().position(|l| set(l) == s.labels).unwrap())
        .collect();
    assert_eq!(order, [1, 0, 2, 3]);
    assert_eq!(waiting, 2);
}

#[test]
fn large_pieces_stay_apart_and_go_out_as_soon_as_they_may() {
    let half = JOINED_BYTES_MAX / 2;
    let labels = pairs(&[("job", "a")]);
    // Nothing can go before a series without external labels: pieces stream through.
    let mut resort = Resort::new(&LabelSet::default());
    let mut streamed = 0;
    for i in 0..10 {
        resort.push(series(&labels, i, half)).unwrap();
        assert!(resort.waiting_bytes() < 2 * JOINED_BYTES_MAX);
        streamed += std::iter::from_fn(|| resort.pop()).count();
    }
    assert_eq!(streamed, 4, "two pieces each, the last waits");
    // One that has to wait is held whole, and what it holds is told.
    let added = set(&pairs(&[("replica", "r")]));
    let mut resort = Resort::new(&added);
    for i in 0..10 {
        resort.push(series(&labels, i, half)).unwrap();
        assert!(resort.pop().is_none());
    }
    assert!(resort.waiting_bytes() >= 10 * half);
    resort
        .push(series(&pairs(&[("job", "a"), ("le", "1")]), 99, 1))
        .unwrap();
    resort.finish();
    let out: Vec<Series> = std::iter::from_fn(|| resort.pop()).collect();
    let times = |s: &Series| s.chunks.iter().map(Part::min_ms).collect::<Vec<_>>();
    assert_eq!(out.len(), 6);
    assert_eq!(times(&out[0]), [99]);
    let rest: Vec<i64> = out[1..].iter().flat_map(times).collect();
    assert_eq!(rest, (0..10).collect::<Vec<_>>());
}

#[test]
fn a_chain_of_prefixes_waits_one_per_label() {
    let all = names();
    let sets: Vec<Pairs> = (1..=all.len())
        .map(|n| {
            all[..n]
                .iter()
                .map(|name| (name.clone(), "1".to_owned()))
                .collect()
        })
        .collect();
    let added = set(&pairs(&[("z", "x")]));
    let (out, waiting) = resorted(sets.iter().map(|s| series(s, 0, 1)).collect(), &added);
    assert_eq!(waiting, all.len());
    let lengths: Vec<usize> = out.iter().map(|s| s.labels.len()).collect();
    assert_eq!(lengths, (1..=all.len()).rev().collect::<Vec<_>>());
}

#[test]
fn what_waits_is_copied_once() {
    let added = set(&pairs(&[("replica", "r")]));
    let mut resort = Resort::new(&added);
    resort
        .push(series(&pairs(&[("job", "a")]), 0, 1000))
        .unwrap();
    let place = |resort: &Resort| {
        resort.waiting[0].pieces[0]
            .single_chunks()
            .next()
            .unwrap()
            .data()
            .as_ptr()
    };
    let received = place(&resort);
    let mut own = None;
    for le in 1..5 {
        let extends = pairs(&[("job", "a"), ("le", &le.to_string())]);
        resort.push(series(&extends, 0, 1)).unwrap();
        let here = place(&resort);
        assert_ne!(here, received);
        assert_eq!(*own.get_or_insert(here), here, "copied again");
    }
}
