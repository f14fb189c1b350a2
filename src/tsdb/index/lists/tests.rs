//! Sets of ids against plain sets, at sizes where each way to evaluate them is taken.

#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    reason = "tests may panic"
)]

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::tsdb::IndexLayout;
use crate::tsdb::index::fuzz_postings;
use crate::tsdb::testing::index_of_bodies;

/// Lists one after the other, without what an index has besides.
struct Lists {
    layout: IndexLayout,
    bytes: Vec<u8>,
    lists: Vec<(u64, Vec<u32>)>,
}

impl Lists {
    fn new(lists: impl IntoIterator<Item = Vec<u32>>) -> Self {
        let (empty, _) = index_of_bodies(2, &[], &[]);
        let layout = IndexLayout::read(&empty).unwrap();
        let mut bytes = Vec::new();
        let lists = lists.into_iter().map(|ids| {
            let start = bytes.len() as u64;
            bytes.extend(ids.iter().flat_map(|id| id.to_be_bytes()));
            (start, ids)
        });
        let lists = lists.collect();
        Self {
            layout,
            bytes,
            lists,
        }
    }

    fn view(&self) -> IndexView<'_> {
        self.layout.view(&self.bytes)
    }

    fn list(&self, at: usize) -> Postings {
        let (start, ids) = &self.lists[at];
        Postings::of_list(*start, ids.len() as u32)
    }

    fn all(&self) -> Vec<Postings> {
        (0..self.lists.len()).map(|at| self.list(at)).collect()
    }

    fn read(&self, mut postings: Postings) -> Vec<u32> {
        std::iter::from_fn(|| postings.next(self.view())).collect()
    }
}

fn is_bits(postings: &Postings) -> bool {
    match &postings.set {
        Set::Collected(ids) => matches!(**ids, Collected::Bits(_)),
        _ => false,
    }
}

fn every(step: usize, end: u32) -> Vec<u32> {
    (0..end).step_by(step).collect()
}

proptest! {
    #[test]
    fn programs_of_sets_do_what_plain_sets_do(
        data in proptest::collection::vec(prop_oneof![2 => 0u8..6, 1 => any::<u8>()], 0..400),
    ) {
        fuzz_postings(&data);
    }

    #[test]
    fn galloping_is_searching(
        gaps in proptest::collection::vec(1u32..50, 0..200), at_least in 0u32..6_000,
    ) {
        let ids: Vec<u32> = gaps.iter().scan(0, |id, gap| { *id += gap; Some(*id) }).collect();
        let passed = ids.partition_point(|id| *id < at_least);
        prop_assert_eq!(gallop(&ids, at_least, |id| *id), (passed, ids.get(passed).copied()));
    }
}

#[test]
fn none_is_none() {
    let lists = Lists::new([vec![], vec![3]]);
    assert_eq!(lists.read(Postings::none()), [0_u32; 0]);
    assert_eq!(lists.read(Postings::union(Vec::new())), [0_u32; 0]);
    assert_eq!(lists.read(Postings::intersection(Vec::new())), [0_u32; 0]);
    assert_eq!(lists.read(PostingsUnion::new().finish()), [0_u32; 0]);
    assert_eq!(
        lists.read(Postings::none().without(lists.list(1))),
        [0_u32; 0]
    );
    assert_eq!(lists.read(lists.list(1).without(Postings::none())), [3]);
    let both = vec![lists.list(0), lists.list(1)];
    assert_eq!(lists.read(Postings::intersection(both.clone())), [0_u32; 0]);
    assert_eq!(lists.read(Postings::union(both)), [3]);
    assert_eq!(Postings::none().at_most(), 0);
}

#[test]
fn the_highest_id_is_an_id() {
    let high = vec![0, u32::MAX - 1, u32::MAX];
    let lists = Lists::new([high.clone(), vec![u32::MAX]]);
    assert_eq!(lists.read(lists.list(0)), high);
    assert_eq!(lists.read(Postings::union(lists.all())), high);
    assert_eq!(lists.read(Postings::intersection(lists.all())), [u32::MAX]);
    assert_eq!(lists.read(lists.list(0).without(lists.list(1))), high[..2]);
    assert_eq!(lists.read(lists.list(1).without(lists.list(0))), [0_u32; 0]);
    let mut union = Postings::union(lists.all());
    assert_eq!(union.seek(lists.view(), u32::MAX), Some(u32::MAX));
    assert_eq!(
        union.seek(lists.view(), u32::MAX),
        None,
        "it has been returned"
    );
}

#[test]
fn a_union_is_evaluated_in_the_way_that_its_use_asks_for() {
    let end = if cfg!(miri) { 3_000 } else { 30_000 };
    let lists = Lists::new([every(3, end), every(5, end), every(7, end), vec![6, 30, 35]]);
    let view = lists.view();
    let three = || Postings::union(vec![lists.list(0), lists.list(1), lists.list(2)]);

    // Read by itself: made whole.
    let mut union = three();
    union.next(view);
    assert!(is_bits(&union));
    let model: Vec<u32> = (0..end)
        .filter(|id| id % 3 == 0 || id % 5 == 0 || id % 7 == 0)
        .collect();
    assert_eq!(lists.read(three()), model);

    // Asked for three ids: nothing of it is read but what is asked.
    let mut few = Postings::intersection(vec![three(), lists.list(3)]);
    assert_eq!(few.next(view), Some(6));
    let Set::Intersection(members) = &few.set else {
        panic!("{few:?}");
    };
    assert!(matches!(&members[1], Set::Union(members) if members.len() == 3));
    assert_eq!(lists.read(few), [30, 35], "a clone goes on where it is");

    // Far apart: as ids, not as bits.
    let apart = Lists::new([vec![1, 1 << 30], vec![7, 1 << 31]]);
    let mut union = Postings::union(apart.all());
    assert_eq!(union.next(apart.view()), Some(1));
    assert!(matches!(union.set, Set::Collected(_)) && !is_bits(&union));
    assert_eq!(apart.read(union), [7, 1 << 30, 1 << 31]);
}

#[test]
fn intersections_begin_with_the_shortest_and_subtractions_stay_flat() {
    let lists = Lists::new([every(1, 900), every(2, 900), vec![4, 5, 8], every(4, 900)]);
    let nested = Postings::intersection(vec![
        Postings::intersection(vec![lists.list(0), lists.list(1)]),
        lists.list(2),
    ]);
    let mut read = nested;
    assert_eq!(read.at_most(), 3);
    assert_eq!(read.next(lists.view()), Some(4));
    let Set::Intersection(members) = &read.set else {
        panic!("{read:?}");
    };
    assert!(matches!(members[0], Set::List(List { ids: 3, .. })) && members.len() == 3);
    assert_eq!(read.next(lists.view()), Some(8));

    let without = lists.list(1).without(lists.list(3)).without(lists.list(2));
    assert!(matches!(&without.set, Set::Without(_, removed) if removed.len() == 2));
    let model: Vec<u32> = (0..900).filter(|id| id % 4 == 2).collect();
    assert_eq!(lists.read(without), model);
}

/// Very many lists of one id: what is kept of them is four bytes each.
#[test]
fn a_union_of_very_many_short_lists_is_small() {
    let many = if cfg!(miri) { 100 } else { 100_000 };
    let id = |i: u32| i.wrapping_mul(7919) % many * 5;
    let lists = Lists::new((0..many).map(|i| vec![id(i)]));
    let ids: BTreeSet<u32> = (0..many).map(id).collect();
    assert!(lists.read(Postings::union(lists.all())).iter().eq(&ids));

    let mut union = PostingsUnion {
        short: (0..many).map(id).collect(),
        long: Vec::new(),
    };
    let long = lists.list(0).set;
    union.long.push(long);
    assert_eq!(union.ids(), u64::from(many) + 1);
    let mut union = union.finish();
    assert_eq!(union.at_most(), u64::from(many) + 1);
    union.next(lists.view());
    assert!(is_bits(&union), "they are less than the ids");
    assert!(lists.read(union).iter().eq(ids.iter().skip(1)));
}
