//! Sets of series: postings lists and what is made of them.
//!
//! A set is evaluated while it is read, by one operation: the first id that is not below a given
//! one. Lists answer it by galloping, intersections by asking their members in turn, the smallest
//! first. A union does so only where few ids are asked of few members (it then touches nothing of
//! long lists but what is asked); otherwise it is made whole at once, which costs one or two
//! nanoseconds an id, however many lists there are. Which one pays is known when reading begins:
//! no set is asked more often than the smallest member of its intersection has ids.

mod collected;

use collected::Collected;

use super::view::{IndexView, PostingsRef};
use crate::tsdb::DecodeError;

/// Lists up to this many ids are copied by [`PostingsUnion`]: what the union would keep of a list
/// takes as much memory as eight ids, and reading a list of some dozen is one cache line or two.
const SHORT_IDS_MAX: u32 = 64;

/// How much dearer it is to seek an id in a member of a union than to copy one.
const SEEK_COST: u64 = 8;

/// An ascending set of series ids, evaluated as it is read. Holds offsets into the index, and
/// copies of ids where unions are made whole: four bytes an id, or a bit for each id that there
/// could be between the first and the last.
#[derive(Clone, Debug)]
pub struct Postings {
    set: Set,
    /// Nothing below has not been returned; past all ids at the end.
    from: u64,
    is_prepared: bool,
}

/// Collects very many lists into their union: four bytes for each id of a short list, 32 bytes for
/// a long one.
#[derive(Clone, Debug, Default)]
pub struct PostingsUnion {
    short: Vec<u32>,
    long: Vec<Set>,
}

#[derive(Clone, Debug)]
enum Set {
    List(List),
    /// Ids in any order, maybe more than once, until they are prepared.
    Loose(Vec<u32>),
    Collected(Box<Collected>),
    Union(Vec<Self>),
    /// Of one at least.
    Intersection(Vec<Self>),
    /// What the first has and none of the others.
    Without(Box<Self>, Vec<Self>),
}

/// There may be very many.
const _: () = assert!(size_of::<Set>() <= 32);

/// A list in the file.
#[derive(Clone, Copy, Debug)]
struct List {
    /// Absolute offset of the first id.
    start: u64,
    ids: u32,
    /// All before are below what was asked for last.
    at: u32,
}

impl Postings {
    /// No series.
    pub fn none() -> Self {
        Self::of(Set::Union(Vec::new()))
    }

    /// The series with these ids, in any order.
    pub fn of_ids(ids: Vec<u32>) -> Self {
        Self::of(Set::Loose(ids))
    }

    /// Series in any of the sets; of very many lists, [`PostingsUnion`] is smaller. Sets that have
    /// been read from begin anew here and below.
    pub fn union(sets: Vec<Self>) -> Self {
        let mut members = Vec::with_capacity(sets.len());
        for set in sets {
            match set.into_set() {
                Set::Union(inner) => members.extend(inner),
                set => members.push(set),
            }
        }
        Self::of(Set::Union(members))
    }

    /// Series in all of the sets. No sets have none in common.
    pub fn intersection(sets: Vec<Self>) -> Self {
        let mut members = Vec::with_capacity(sets.len());
        for set in sets {
            match set.into_set() {
                Set::Intersection(inner) => members.extend(inner),
                set => members.push(set),
            }
        }
        match members.is_empty() {
            true => Self::none(),
            false => Self::of(Set::Intersection(members)),
        }
    }

    /// Series in this set and not in the other.
    pub fn without(self, other: Self) -> Self {
        let removed = other.into_set();
        Self::of(match self.into_set() {
            Set::Without(set, mut all) => {
                all.push(removed);
                Set::Without(set, all)
            }
            set => Set::Without(Box::new(set), vec![removed]),
        })
    }

    /// An upper bound of how many ids there are; exact for a list.
    pub fn at_most(&self) -> u64 {
        self.set.at_most()
    }

    /// The next id.
    pub fn next(&mut self, view: IndexView<'_>) -> Option<u32> {
        let from = u32::try_from(self.from).ok()?;
        if !self.is_prepared {
            self.is_prepared = true;
            let asked = self.set.at_most();
            self.set.prepare(view, asked);
        }
        let id = self.set.seek(view, from);
        // After the last one nothing is asked again.
        self.from = id.map_or(u64::MAX, |id| u64::from(id).saturating_add(1));
        id
    }

    /// The next id that is not below `at_least`; those passed over do not come again.
    pub fn seek(&mut self, view: IndexView<'_>, at_least: u32) -> Option<u32> {
        self.from = self.from.max(u64::from(at_least));
        self.next(view)
    }

    /// The list of `ids` ids that begins at `start`, which has been checked.
    pub(super) fn of_list(start: u64, ids: u32) -> Self {
        Self::of(Set::List(List { start, ids, at: 0 }))
    }

    fn of(set: Set) -> Self {
        Self {
            set,
            from: 0,
            is_prepared: false,
        }
    }

    fn into_set(mut self) -> Set {
        if self.is_prepared {
            self.set.rewind();
        }
        self.set
    }
}

impl PostingsUnion {
    /// A union of nothing so far.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a list, which is checked and, when it is short, read at once.
    ///
    /// # Errors
    /// As [`IndexView::postings`].
    pub fn add(&mut self, view: IndexView<'_>, at: PostingsRef) -> Result<(), DecodeError> {
        match view.postings(at)?.set {
            Set::List(list) if list.ids <= SHORT_IDS_MAX => {
                self.short.extend(list.all(view));
            }
            set => self.long.push(set),
        }
        Ok(())
    }

    /// How many ids the lists have, an id in several of them counted for each.
    pub fn ids(&self) -> u64 {
        let short = Set::count(self.short.len());
        let long = self.long.iter().map(Set::at_most);
        long.fold(short, u64::saturating_add)
    }

    /// The union.
    pub fn finish(self) -> Postings {
        let mut members = self.long;
        if !self.short.is_empty() {
            members.push(Set::Loose(self.short));
        }
        Postings::of(Set::Union(members))
    }
}

impl Set {
    fn count(ids: usize) -> u64 {
        u64::try_from(ids).unwrap_or(u64::MAX)
    }

    fn at_most(&self) -> u64 {
        match self {
            Self::List(list) => u64::from(list.ids),
            Self::Loose(ids) => Self::count(ids.len()),
            Self::Collected(ids) => ids.count(),
            Self::Union(members) => {
                let members = members.iter().map(Self::at_most);
                members.fold(0, u64::saturating_add)
            }
            Self::Intersection(members) => {
                let members = members.iter().map(Self::at_most);
                members.min().unwrap_or(0)
            }
            Self::Without(set, _) => set.at_most(),
        }
    }

    /// Gets ready for being asked at most that often.
    fn prepare(&mut self, view: IndexView<'_>, asked: u64) {
        match self {
            Self::List(_) | Self::Collected(_) => {}
            Self::Loose(ids) => {
                let ids = Collected::of_loose(std::mem::take(ids));
                *self = Self::Collected(Box::new(ids));
            }
            Self::Union(members) if members.len() == 1 => {
                if let Some(mut only) = members.pop() {
                    only.prepare(view, asked);
                    *self = only;
                }
            }
            Self::Union(members) => {
                let all = members.iter().map(Self::at_most);
                let all = all.fold(0, u64::saturating_add);
                let seeks = asked.saturating_mul(Self::count(members.len()));
                if seeks.saturating_mul(SEEK_COST) < all {
                    for member in members {
                        member.prepare(view, asked);
                    }
                    return;
                }
                let members = std::mem::take(members);
                *self = Self::Collected(Box::new(Self::collect(members, view)));
            }
            Self::Intersection(members) => {
                members.sort_by_cached_key(Self::at_most);
                let asked = members.first().map_or(0, Self::at_most).min(asked);
                for member in members {
                    member.prepare(view, asked);
                }
            }
            Self::Without(set, removed) => {
                let asked = set.at_most().min(asked);
                set.prepare(view, asked);
                for removed in removed {
                    removed.prepare(view, asked);
                }
            }
        }
    }

    /// All ids of the members.
    fn collect(members: Vec<Self>, view: IndexView<'_>) -> Collected {
        let mut lists = Vec::new();
        let mut loose = Vec::new();
        for mut member in members {
            match member {
                Self::List(list) => lists.push(list),
                Self::Loose(ids) if loose.is_empty() => loose = ids,
                Self::Loose(ids) => loose.extend(ids),
                _ => {
                    member.prepare(view, member.at_most());
                    let mut from = Some(0);
                    while let Some(id) = from.and_then(|from| member.seek(view, from)) {
                        loose.push(id);
                        from = id.checked_add(1);
                    }
                }
            }
        }
        let first = |list: &List| list.ids(view).first().copied().map(u32::from_be_bytes);
        let last = |list: &List| list.ids(view).last().copied().map(u32::from_be_bytes);
        let firsts = lists.iter().filter_map(first);
        let lasts = lists.iter().filter_map(last);
        let low = firsts.chain(loose.iter().copied().min()).min();
        let high = lasts.chain(loose.iter().copied().max()).max();
        let Some((low, high)) = low.zip(high) else {
            return Collected::of_loose(loose);
        };
        let listed = lists.iter().map(|list| u64::from(list.ids));
        let all = listed.fold(Self::count(loose.len()), u64::saturating_add);
        if let Some(mut bits) = Collected::bits(low, high, all) {
            bits.set_all(loose);
            for list in lists {
                bits.set_all(list.all(view));
            }
            return bits.finish();
        }
        for list in lists {
            loose.extend(list.all(view));
        }
        Collected::of_loose(loose)
    }

    /// The first id that is not below `at_least`, which never becomes less.
    fn seek(&mut self, view: IndexView<'_>, at_least: u32) -> Option<u32> {
        match self {
            Self::List(list) => list.seek(view, at_least),
            Self::Loose(_) => {
                self.prepare(view, 1);
                self.seek(view, at_least)
            }
            Self::Collected(ids) => ids.seek(at_least),
            Self::Union(members) => {
                let found = members.iter_mut().map(|member| member.seek(view, at_least));
                found.flatten().min()
            }
            Self::Intersection(members) => {
                let (first, others) = members.split_first_mut()?;
                seek_common(first, others, view, at_least)
            }
            Self::Without(set, removed) => {
                let mut id = set.seek(view, at_least)?;
                while removed.iter_mut().any(|set| set.seek(view, id) == Some(id)) {
                    id = set.seek(view, id.checked_add(1)?)?;
                }
                Some(id)
            }
        }
    }

    fn rewind(&mut self) {
        match self {
            Self::List(list) => list.at = 0,
            Self::Loose(_) => {}
            Self::Collected(ids) => ids.rewind(),
            Self::Union(members) | Self::Intersection(members) => {
                members.iter_mut().for_each(Self::rewind);
            }
            Self::Without(set, removed) => {
                set.rewind();
                removed.iter_mut().for_each(Self::rewind);
            }
        }
    }
}

/// The first id of `first` from `at_least` on that all others have.
fn seek_common(
    first: &mut Set,
    others: &mut [Set],
    view: IndexView<'_>,
    at_least: u32,
) -> Option<u32> {
    let mut id = first.seek(view, at_least)?;
    loop {
        let mut above = None;
        for other in &mut *others {
            let found = other.seek(view, id)?;
            if found != id {
                above = Some(found);
                break;
            }
        }
        match above {
            Some(above) => id = first.seek(view, above)?,
            None => return Some(id),
        }
    }
}

impl List {
    fn ids(self, view: IndexView<'_>) -> &[[u8; 4]] {
        let start = usize::try_from(self.start).ok();
        let bytes = start.and_then(|start| view.bytes.get(start..));
        let (ids, _) = bytes.unwrap_or_default().as_chunks::<4>();
        // Of another file maybe fewer.
        ids.get(..self.ids as usize).unwrap_or_default()
    }

    fn all(self, view: IndexView<'_>) -> impl Iterator<Item = u32> {
        self.ids(view).iter().map(|id| u32::from_be_bytes(*id))
    }

    #[inline]
    fn seek(&mut self, view: IndexView<'_>, at_least: u32) -> Option<u32> {
        let ids = self.ids(view);
        let ahead = ids.get(self.at as usize..)?;
        let (passed, found) = gallop(ahead, at_least, |id| u32::from_be_bytes(*id));
        // No more than there are ids, which fit 32 bits.
        self.at = self
            .at
            .saturating_add(u32::try_from(passed).unwrap_or(u32::MAX));
        found
    }
}

/// How many of the ascending ids are below `at_least`, and the first one that is not. The cost
/// grows with the logarithm of how far away that is.
#[inline]
fn gallop<T>(ids: &[T], at_least: u32, id: impl Fn(&T) -> u32) -> (usize, Option<u32>) {
    // The next one or the one after it, nearly always.
    for (passed, next) in ids.iter().take(2).enumerate() {
        let next = id(next);
        if next >= at_least {
            return (passed, Some(next));
        }
    }
    let mut below = 2.min(ids.len());
    let mut step = 2_usize;
    let end = loop {
        let next = below.saturating_add(step);
        match ids.get(next) {
            Some(found) if id(found) < at_least => below = next.saturating_add(1),
            Some(_) => break next,
            None => break ids.len(),
        }
        step = step.saturating_mul(2);
    };
    let between = ids.get(below..end).unwrap_or_default();
    let passed = between.partition_point(|found| id(found) < at_least);
    let passed = below.saturating_add(passed);
    (passed, ids.get(passed).map(id))
}

#[cfg(test)]
mod tests;
