//! What the index of a block holds: counts, the labels that make the most series, churn.
//!
//! One pass over the series, then one over the labels; what is kept are the ids of series that come
//! or go within the block, and as many rows as are shown.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::files::OpenBlock;
use crate::tsdb::{
    DecodeError, INDEX_TOC_BYTES, IndexToc, IndexView, Postings, PostingsRef, Section, SeriesReader,
};

/// How long before the block's end, or after its start, a series may have no sample and still be
/// there all the time: as long as a query looks back.
const LOOKBACK_MS: i64 = 5 * 60 * 1000;

/// Counts of an index.
#[derive(Debug)]
pub(super) struct Statistics {
    pub(super) symbols: u64,
    pub(super) series: u64,
    pub(super) chunks: u64,
    pub(super) series_without_chunks: u64,
    /// Series whose first sample comes later than the block begins, by more than a lookback.
    pub(super) begin_late: u64,
    /// Series whose last sample comes earlier than the block ends.
    pub(super) end_early: u64,
    /// Either of these.
    pub(super) churning: u64,
    pub(super) label_names: u64,
    pub(super) label_pairs: u64,
    /// Bytes of each section of the index.
    pub(super) sections: Vec<(Section, u64)>,
    /// Label names by how many values they have.
    pub(super) names_by_values: Vec<(String, u64)>,
    /// Values of `__name__` by how many series they have.
    pub(super) metrics_by_series: Vec<(String, u64)>,
    /// Label pairs by how many series they have.
    pub(super) pairs_by_series: Vec<(String, u64)>,
    /// Label pairs by how many series they have that come or go.
    pub(super) pairs_by_churn: Vec<(String, u64)>,
}

/// The greatest counts, `limit` of them.
struct Top {
    limit: usize,
    /// The least on top; of equal counts the name that comes last.
    rows: BinaryHeap<Reverse<(u64, Reverse<String>)>>,
}

impl Statistics {
    pub(super) fn of(open: &OpenBlock, limit: usize) -> anyhow::Result<Self> {
        let statistics = Self::count(open, limit).map_err(|error| open.index_fault(error));
        // Zeros in place of what was cut off look like anything.
        open.check()?;
        statistics
    }

    fn count(open: &OpenBlock, limit: usize) -> Result<Self, DecodeError> {
        let view = open.view();
        let bytes = open.index_bytes();
        let toc_bytes = usize::try_from(INDEX_TOC_BYTES).unwrap_or(usize::MAX);
        let tail = bytes.get(bytes.len().saturating_sub(toc_bytes)..);
        let toc = IndexToc::parse(tail.unwrap_or_default(), bytes.len() as u64)?;
        let sections = toc.sections().into_iter();
        let mut statistics = Self {
            symbols: view.symbols(),
            series: 0,
            chunks: 0,
            series_without_chunks: 0,
            begin_late: 0,
            end_early: 0,
            churning: 0,
            label_names: 0,
            label_pairs: 0,
            sections: sections.map(|(s, r)| (s, r.end - r.start)).collect(),
            names_by_values: Vec::new(),
            metrics_by_series: Vec::new(),
            pairs_by_series: Vec::new(),
            pairs_by_churn: Vec::new(),
        };
        let churning = statistics.count_series(open)?;
        statistics.count_labels(view, &churning, limit)?;
        Ok(statistics)
    }

    /// Counts series and chunks; the ids of those that come or go.
    fn count_series(&mut self, open: &OpenBlock) -> Result<Vec<u32>, DecodeError> {
        let view = open.view();
        let range = open.meta.range();
        let mut churning = Vec::new();
        let mut all = view.postings(view.all())?;
        let mut reader = SeriesReader::new();
        while let Some(id) = all.next(view) {
            reader.read(view, id)?;
            self.series += 1;
            self.chunks += reader.chunks().len() as u64;
            let (Some(first), Some(last)) = (reader.chunks().first(), reader.chunks().last())
            else {
                self.series_without_chunks += 1;
                continue;
            };
            let begins_late = first.mint.0 > range.mint.0.saturating_add(LOOKBACK_MS);
            let ends_early = last.maxt.0 < range.maxt.0.saturating_sub(LOOKBACK_MS);
            self.begin_late += u64::from(begins_late);
            self.end_early += u64::from(ends_early);
            if begins_late || ends_early {
                churning.push(id);
            }
        }
        self.churning = churning.len() as u64;
        Ok(churning)
    }

    fn count_labels(
        &mut self,
        view: IndexView<'_>,
        churning: &[u32],
        limit: usize,
    ) -> Result<(), DecodeError> {
        let [mut names, mut metrics, mut pairs, mut churn] = [(); 4].map(|()| Top::new(limit));
        for name in view.label_names() {
            let name = name?;
            let mut count = 0;
            let mut values = view.values(name)?;
            while let Some((value, list)) = values.next(view)? {
                count += 1;
                let (series, come_or_go) = series_of(view, list, churning)?;
                let pair = || format!("{}={:?}", text(name), text(value));
                if name == b"__name__" {
                    metrics.add(series, || text(value));
                }
                pairs.add(series, pair);
                churn.add(come_or_go, pair);
            }
            self.label_names += 1;
            self.label_pairs += count;
            names.add(count, || text(name));
        }
        self.names_by_values = names.into_rows();
        self.metrics_by_series = metrics.into_rows();
        self.pairs_by_series = pairs.into_rows();
        self.pairs_by_churn = churn.into_rows();
        Ok(())
    }
}

/// How many series a list has, and how many of those are among `ids`, which ascend.
fn series_of(
    view: IndexView<'_>,
    list: PostingsRef,
    ids: &[u32],
) -> Result<(u64, u64), DecodeError> {
    let mut series: Postings = view.postings(list)?;
    let all = series.at_most();
    let (mut rest, mut among) = (ids, 0);
    while let Some(&id) = rest.first() {
        let Some(found) = series.seek(view, id) else {
            break;
        };
        let at = rest.partition_point(|id| *id < found);
        rest = rest.get(at..).unwrap_or_default();
        if let Some((first, others)) = rest.split_first()
            && *first == found
        {
            among += 1;
            rest = others;
        }
    }
    Ok((all, among))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

// === impl Top ===

impl Top {
    fn new(limit: usize) -> Self {
        Self {
            limit,
            rows: BinaryHeap::new(),
        }
    }

    /// Names ascend, so that of equal counts the one that was first stays.
    fn add(&mut self, count: u64, name: impl FnOnce() -> String) {
        let least = self.rows.peek().map_or(0, |Reverse((least, _))| *least);
        let is_full = self.rows.len() >= self.limit;
        if count == 0 || (is_full && count <= least) {
            return;
        }
        if is_full && self.rows.pop().is_none() {
            return;
        }
        self.rows.push(Reverse((count, Reverse(name()))));
    }

    fn into_rows(self) -> Vec<(String, u64)> {
        let rows = self.rows.into_sorted_vec().into_iter();
        rows.map(|Reverse((count, Reverse(name)))| (name, count))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greatest_counts_are_kept_and_of_equal_ones_the_first() {
        let mut top = Top::new(3);
        for (name, count) in [("a", 1), ("b", 5), ("c", 0), ("d", 5), ("e", 2), ("f", 2)] {
            top.add(count, || name.to_owned());
        }
        let rows = [("b", 5), ("d", 5), ("e", 2)].map(|(n, c)| (n.to_owned(), c));
        assert_eq!(top.into_rows(), rows);
        let mut none = Top::new(0);
        none.add(7, || unreachable!("nothing is kept"));
        assert!(none.into_rows().is_empty());
    }
}
