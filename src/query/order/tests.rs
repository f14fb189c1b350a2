//! Elements in the order of all their labels, against sorting.

use proptest::prelude::*;

use super::*;

type Pairs = Vec<(String, String)>;

fn pairs(labels: &[(&str, &str)]) -> Pairs {
    let owned = labels.iter();
    owned
        .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
        .collect()
}

fn text(labels: &Pairs) -> LabelsText {
    let mut text = LabelsText::default();
    assert_eq!(text.merge(&LabelsText::default(), labels), None);
    text
}

fn owned(labels: &LabelsText) -> Pairs {
    let labels = labels.iter();
    labels.map(|(n, v)| (n.to_owned(), v.to_owned())).collect()
}

/// Those that come out, and how many bytes waited at most.
fn ordered(last_added: &str, elements: &[(Pairs, Bytes)]) -> (Vec<(Pairs, Bytes)>, usize) {
    let mut order = Order::new(last_added.to_owned());
    let (mut labels, mut out, mut waited) = (LabelsText::default(), Vec::new(), 0);
    let mut drain = |order: &mut Order| {
        let mut labels = LabelsText::default();
        while let Some(samples) = order.pop(&mut labels) {
            out.push((owned(&labels), samples));
        }
    };
    for (own, samples) in elements {
        let merged = labels.merge(&LabelsText::default(), own);
        assert_eq!(merged, None);
        order.push(&mut labels, samples.clone()).unwrap();
        waited = waited.max(order.waiting_bytes);
        drain(&mut order);
    }
    order.finish();
    drain(&mut order);
    assert_eq!(order.waiting_bytes, 0);
    (out, waited)
}

fn samples(number: usize) -> Bytes {
    Bytes::from(format!("{number:03}"))
}

#[test]
fn a_prefix_waits_for_what_extends_it_before_the_last_label_put_on() {
    let all: Vec<_> = [
        pairs(&[("a", "1")]),
        pairs(&[("a", "1"), ("b", "1")]),
        pairs(&[("a", "1"), ("b", "1"), ("c", "1")]),
        pairs(&[("a", "1"), ("b", "2")]),
        pairs(&[("a", "1"), ("x", "1")]),
        pairs(&[("a", "2")]),
    ]
    .into_iter()
    .enumerate()
    .map(|(number, labels)| (labels, samples(number)))
    .collect();
    let (out, waited) = ordered("m", &all);
    let numbers: Vec<_> = out.iter().map(|(_, samples)| &samples[..]).collect();
    assert_eq!(numbers, [b"002", b"001", b"003", b"000", b"004", b"005"]);
    assert_eq!(waited, 9);
    // Behind all labels, nothing waits but for the next to come.
    let (out, waited) = ordered("A", &all);
    assert_eq!((out, waited), (all, 3));
}

#[test]
fn an_order_that_is_none_stays() {
    let all: Vec<_> = [
        pairs(&[]),
        pairs(&[("b", "1")]),
        pairs(&[("a", "1")]),
        pairs(&[("a", "1"), ("c", "1")]),
        pairs(&[]),
    ]
    .into_iter()
    .enumerate()
    .map(|(number, labels)| (labels, samples(number)))
    .collect();
    assert_eq!(ordered("z", &all).0, all);
}

#[test]
fn what_waits_is_limited() {
    let mut order = Order::new("z".to_owned());
    let half = Bytes::from(vec![0; WAITING_BYTES_MAX / 2]);
    let whole = Bytes::from(vec![0; WAITING_BYTES_MAX + 1]);
    order.push(&mut text(&pairs(&[])), half.clone()).unwrap();
    order.push(&mut text(&pairs(&[("a", "1")])), half).unwrap();
    let error = order
        .push(&mut text(&pairs(&[("a", "1"), ("b", "1")])), samples(0))
        .unwrap_err();
    assert!(matches!(error, QueryError::Unsupported { .. }), "{error:?}");
    // One that waits only for the next is as long as it may be.
    let mut order = Order::new("z".to_owned());
    order.push(&mut text(&pairs(&[("a", "1")])), whole).unwrap();
    order
        .push(&mut text(&pairs(&[("a", "2")])), samples(1))
        .unwrap();
}

proptest! {
    #[test]
    fn the_order_is_that_of_all_labels(
        sets in prop::collection::btree_set(
            prop::collection::btree_map("[a-d]", "[12]", 0..4), 0..24),
        added in prop::collection::btree_set("[a-e]x?", 1..3),
    ) {
        let added: Pairs = added.into_iter().map(|name| (name, "e".to_owned())).collect();
        let free = |labels: &Pairs| labels.iter().all(|(n, _)| added.iter().all(|(a, _)| a != n));
        let sets = sets.into_iter().map(|set| set.into_iter().collect::<Pairs>());
        let mut sets: Vec<Pairs> = sets.filter(free).collect();
        sets.sort();
        let all: Vec<_> =
            sets.into_iter().enumerate().map(|(n, labels)| (labels, samples(n))).collect();
        let merged = |own: &Pairs| {
            let mut both = LabelsText::default();
            assert_eq!(both.merge(&text(own), &added), None);
            owned(&both)
        };
        let mut expected = all.clone();
        expected.sort_by_key(|(labels, _)| merged(labels));
        prop_assert_eq!(ordered(&added.last().unwrap().0, &all).0, expected);
    }
}
