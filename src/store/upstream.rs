//! What answers a store's questions: Prometheus, or a scripted one in tests.

use std::future::Future;
use std::sync::Arc;

use super::{Overlay, QueryRange, Series, SeriesSource, StoreError};
use crate::model::Matcher;

/// Which series to read.
#[derive(Clone, Debug, PartialEq)]
pub struct Select {
    /// When.
    pub range: QueryRange,
    /// All of them have to match.
    pub matchers: Vec<Matcher>,
    /// Whether only labels are wanted.
    pub labels_only: bool,
    /// The most series, of labels only.
    pub limit: Option<u64>,
    /// What to take off the labels.
    pub overlay: Arc<Overlay>,
    /// Whether a series with a label of its own under the overlay's names ends the read; the
    /// order of the others would not be known with it.
    pub conflicts_end: bool,
}

/// Which names or values to list.
#[derive(Clone, Debug, PartialEq)]
pub struct ListQuery {
    /// When; `None` for all time.
    pub range: Option<QueryRange>,
    /// Of which series; none for all.
    pub matchers: Vec<Matcher>,
    /// The most results.
    pub limit: Option<u64>,
}

/// Names or values, and what Prometheus wanted to be known beside them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// As they came.
    pub values: Vec<String>,
    /// Texts for whoever asked.
    pub warnings: Vec<String>,
}

/// The questions.
pub trait Upstream: Send + Sync + 'static {
    /// Where a selection's series come from.
    type Source: SeriesSource<Item = Series>;

    /// The series of a selection, sorted by the labels that are left of them.
    fn read(
        &self,
        select: &Select,
    ) -> impl Future<Output = Result<Self::Source, StoreError>> + Send;

    /// The names of labels.
    fn label_names(
        &self,
        query: &ListQuery,
    ) -> impl Future<Output = Result<Listed, StoreError>> + Send;

    /// The values of a label.
    fn label_values(
        &self,
        name: &str,
        query: &ListQuery,
    ) -> impl Future<Output = Result<Listed, StoreError>> + Send;

    /// Whether a series matches.
    fn has_series(
        &self,
        query: &ListQuery,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;
}
