//! Label names and values, of a whole index or of the series that matchers select.

use std::collections::BTreeSet;

use super::{CompiledMatcher, Effort, SelectError, Work, select};
use crate::model::{Matcher, Selector};
use crate::tsdb::{IndexView, Postings, PostingsRef, SeriesReader};

/// Series ids of a selection that are held at a time, 4 bytes each.
const IDS_MAX: usize = 1 << 20;
/// With fewer series than values per this many, series are read instead of lists: reading one
/// costs about as much as looking into so many lists.
const LISTS_PER_SERIES: usize = 4;

/// The first `limit` label names, ascending, of the series that fit all matchers; without matchers
/// of the whole index.
///
/// # Errors
/// Those of [`select`].
pub fn label_names<'a>(
    view: IndexView<'a>,
    matchers: &[CompiledMatcher],
    limit: usize,
    work: &mut Work,
) -> Result<Vec<&'a [u8]>, SelectError> {
    if matchers.is_empty() {
        return Ok(view.label_names().take(limit).collect::<Result<_, _>>()?);
    }
    let mut names_in_all = 0;
    for name in view.label_names() {
        name?;
        names_in_all += 1;
    }
    let mut found = BTreeSet::new();
    let mut series = select(view, matchers, work)?;
    let mut reader = SeriesReader::new();
    while let Some(id) = series.next(view) {
        work.spend(Effort::Series, || shown(matchers))?;
        reader.read(view, id)?;
        found.extend(reader.labels(view).map(|(name, _)| name));
        // No further series can have another.
        if found.len() >= names_in_all {
            break;
        }
    }
    Ok(found.into_iter().take(limit).collect())
}

/// The first `limit` values of a label, ascending, of the series that fit all matchers; without
/// matchers of the whole index.
///
/// # Errors
/// Those of [`select`].
pub fn label_values<'a>(
    view: IndexView<'a>,
    name: &str,
    matchers: &[CompiledMatcher],
    limit: usize,
    work: &mut Work,
) -> Result<Vec<&'a [u8]>, SelectError> {
    if name.is_empty() {
        return Ok(Vec::new());
    }
    let mut listing = Listing {
        view,
        name,
        matchers,
        found: BTreeSet::new(),
        limit,
    };
    if matchers.is_empty() {
        listing.walk(work, |_, _| Ok(true))?;
        return Ok(listing.found.into_iter().collect());
    }
    let mut series = select(view, matchers, work)?;
    let mut ids = Vec::new();
    loop {
        let is_last = fill(&mut ids, &mut series, view);
        listing.add(&ids, work)?;
        if is_last {
            break;
        }
    }
    Ok(listing.found.into_iter().collect())
}

/// Takes the next ids; whether there are no more.
fn fill(ids: &mut Vec<u32>, series: &mut Postings, view: IndexView<'_>) -> bool {
    ids.clear();
    while ids.len() < IDS_MAX {
        match series.next(view) {
            Some(id) => ids.push(id),
            None => return true,
        }
    }
    false
}

fn shown(matchers: &[CompiledMatcher]) -> String {
    let matchers: Vec<Matcher> = matchers.iter().map(|m| m.matcher().clone()).collect();
    Selector(&matchers).to_string()
}

/// The values of a label that were found so far: never more than `limit`, the least ones.
struct Listing<'a, 'm> {
    view: IndexView<'a>,
    name: &'m str,
    matchers: &'m [CompiledMatcher],
    found: BTreeSet<&'a [u8]>,
    limit: usize,
}

impl<'a> Listing<'a, '_> {
    /// Adds the values of these series, which ascend.
    fn add(&mut self, ids: &[u32], work: &mut Work) -> Result<(), SelectError> {
        if ids.is_empty() {
            return Ok(());
        }
        if self.has_more_values_than(ids.len().saturating_mul(LISTS_PER_SERIES))? {
            return self.read(ids, work);
        }
        let view = self.view;
        self.walk(work, |list, _| {
            let mut series = view.postings(list)?;
            Ok(meets(&mut series, ids, view))
        })
    }

    fn has_more_values_than(&self, many: usize) -> Result<bool, SelectError> {
        let mut values = self.view.values(self.name.as_bytes())?;
        for _ in 0..many {
            if values.next(self.view)?.is_none() {
                return Ok(false);
            }
        }
        Ok(values.next(self.view)?.is_some())
    }

    /// Reads the value off each series.
    fn read(&mut self, ids: &[u32], work: &mut Work) -> Result<(), SelectError> {
        let mut reader = SeriesReader::new();
        for id in ids {
            work.spend(Effort::Series, || shown(self.matchers))?;
            reader.read(self.view, *id)?;
            let mut labels = reader.labels(self.view);
            let label = labels.find(|(name, _)| *name == self.name.as_bytes());
            if let Some((_, value)) = label {
                self.insert(value);
            }
        }
        Ok(())
    }

    /// Adds the values whose lists `belongs` says yes to, up to the limit.
    fn walk(
        &mut self,
        work: &mut Work,
        mut belongs: impl FnMut(PostingsRef, &'a [u8]) -> Result<bool, SelectError>,
    ) -> Result<(), SelectError> {
        let mut values = self.view.values(self.name.as_bytes())?;
        while let Some((value, list)) = values.next(self.view)? {
            // Those that follow are greater than all that were found.
            let is_full = self.found.len() >= self.limit;
            if is_full && self.found.last().is_none_or(|last| *last < value) {
                break;
            }
            work.spend(Effort::Values, || shown(self.matchers))?;
            let is_new = !value.is_empty() && !self.found.contains(value);
            if is_new && belongs(list, value)? {
                self.insert(value);
            }
        }
        Ok(())
    }

    fn insert(&mut self, value: &'a [u8]) {
        if value.is_empty() || !self.found.insert(value) {
            return;
        }
        if self.found.len() > self.limit {
            self.found.pop_last();
        }
    }
}

/// Whether the list and the ids have one in common; both are leapt over in turns.
fn meets(series: &mut Postings, ids: &[u32], view: IndexView<'_>) -> bool {
    let mut rest = ids;
    while let Some(&wanted) = rest.first() {
        let Some(found) = series.seek(view, wanted) else {
            return false;
        };
        let at = rest.partition_point(|id| *id < found);
        rest = rest.get(at..).unwrap_or_default();
        if rest.first() == Some(&found) {
            return true;
        }
    }
    false
}
