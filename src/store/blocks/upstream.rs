//! What answers a store's questions where blocks are at hand: the blocks for what only they need
//! be asked for, Prometheus for the rest.
//!
//! Every question is planned anew ([`BlockSet::plan`]). The parts answer for times that do not
//! overlap, so their answers only have to be put side by side: series by labels, chunks by time,
//! names and values sorted.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::Semaphore;

use super::BlockSet;
use super::block::{Block, proven};
use super::cursor::Cursor;
use super::plan::Plan;
use super::reader::{BlockReader, Reading};
use super::rewrite::trim;
use super::select::{CompiledMatcher, SelectError, Work, label_names, label_values, select};
use super::source::BlockSource;
use crate::lifecycle::blocking;
use crate::model::Matcher;
use crate::store::{
    ListQuery, Listed, PrometheusSource, PrometheusUpstream, QueryRange, Select, Series,
    SeriesSource, StoreError, Upstream,
};
use crate::trace::Span;

/// How many threads read blocks at once; more would wait for the same disk.
const READERS_MAX: usize = 4;
/// The greatest piece of a series that is put together from several sources.
const JOINED_BYTES_MAX: usize = 1 << 20;

/// Prometheus, and its blocks.
#[derive(Clone, Debug)]
pub struct LocalUpstream {
    prometheus: PrometheusUpstream,
    blocks: Option<BlockSet>,
    readers: Arc<Semaphore>,
}

/// The series of one selection, from all that answer for a part of it.
#[derive(Debug)]
pub struct LocalSource {
    inputs: Vec<Input>,
    /// How many series may still come.
    limit: Option<u64>,
}

#[derive(Debug)]
struct Input {
    source: Source,
    head: Option<Series>,
    is_over: bool,
}

#[derive(Debug)]
enum Source {
    Blocks(BlockSource),
    /// With the range that it was asked for, where blocks answer for the rest.
    Prometheus(Box<PrometheusSource>, Option<QueryRange>),
}

impl LocalUpstream {
    /// Answers from `blocks` what they can; from Prometheus everything where there are none.
    pub fn new(prometheus: PrometheusUpstream, blocks: Option<BlockSet>) -> Self {
        Self {
            prometheus,
            blocks,
            readers: Arc::new(Semaphore::new(READERS_MAX)),
        }
    }

    /// Does something with what is planned for a range, on a blocking thread; the ranges that
    /// Prometheus answers for, and what came out.
    async fn planned<T: Send + 'static>(
        &self,
        range: QueryRange,
        shape: impl FnOnce(Plan) -> Plan + Send + 'static,
        work: impl FnOnce(Plan) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<(Vec<QueryRange>, Option<T>), StoreError> {
        let Some(blocks) = self.blocks.clone() else {
            return Ok((vec![range], None));
        };
        // Never closed.
        let permit = Arc::clone(&self.readers).acquire_owned().await;
        let planned = move || {
            let _permit = permit;
            let plan = shape(blocks.plan(range));
            let remote = plan.remote.clone();
            if plan.local.is_empty() {
                return Ok((remote, None));
            }
            let used: Vec<_> = plan
                .local
                .iter()
                .map(|part| Arc::clone(&part.block))
                .collect();
            let done = work(plan);
            proven(&used, done).map(|done| (remote, Some(done)))
        };
        blocking(planned).await
    }

    async fn listed<F>(
        &self,
        query: &ListQuery,
        local: impl FnOnce(Plan, &[CompiledMatcher]) -> Result<BTreeSet<String>, StoreError>
        + Send
        + 'static,
        remote: impl Fn(ListQuery) -> F,
    ) -> Result<Listed, StoreError>
    where
        F: Future<Output = Result<Listed, StoreError>>,
    {
        let Some(range) = query.range else {
            return remote(query.clone()).await;
        };
        let matchers = query.matchers.clone();
        let local = move |plan| local(plan, &compiled(&matchers)?);
        let (ranges, found) = self.planned(range, std::convert::identity, local).await?;
        let Some(found) = found else {
            return remote(query.clone()).await;
        };
        let mut values = found;
        let mut warnings = Vec::new();
        for range in ranges {
            let listed = remote(ListQuery {
                range: Some(range),
                ..query.clone()
            })
            .await?;
            values.extend(listed.values);
            warnings.extend(listed.warnings);
        }
        Ok(Listed {
            values: values.into_iter().collect(),
            warnings,
        })
    }
}

impl Upstream for LocalUpstream {
    type Source = LocalSource;

    async fn read(&self, select: &Select) -> Result<LocalSource, StoreError> {
        let matchers = select.matchers.clone();
        let reading = Reading {
            overlay: Arc::clone(&select.overlay),
            conflicts_end: select.conflicts_end,
            labels_only: select.labels_only,
            limit: select.limit,
            remote: Vec::new(),
        };
        let open = move |plan: Plan| {
            let cursors = cursors(&plan, &compiled(&matchers)?)?;
            Ok(BlockReader::new(
                cursors,
                Reading {
                    remote: plan.remote,
                    ..reading
                },
            ))
        };
        let shape = match select.labels_only {
            true => std::convert::identity,
            // Prometheus takes few remote reads at a time, and calls that hold one while they wait
            // for the next could wait for each other for ever.
            false => Plan::with_one_remote_range,
        };
        let span = match self.blocks.is_some() {
            true => Span::child("read_local_blocks"),
            false => Span::none(),
        };
        let planned = self.planned(select.range, shape, open).await;
        let (ranges, reader) = planned.inspect_err(|error| span.fail(error))?;
        let mut inputs = Vec::with_capacity(ranges.len() + 1);
        let is_mixed = reader.is_some();
        if let Some(reader) = reader {
            let source = BlockSource::new(reader, Arc::clone(&self.readers), span);
            inputs.push(Input::new(Source::Blocks(source)));
        }
        for range in ranges {
            let part = Select {
                range,
                ..select.clone()
            };
            let source = Box::new(self.prometheus.read(&part).await?);
            let only = is_mixed.then_some(range);
            inputs.push(Input::new(Source::Prometheus(source, only)));
        }
        Ok(LocalSource {
            inputs,
            limit: select.limit,
        })
    }

    async fn label_names(&self, query: &ListQuery) -> Result<Listed, StoreError> {
        let limit = limit(query);
        let local = move |plan: Plan, matchers: &[CompiledMatcher]| {
            each_block(&plan, |block, work, names| {
                let found = label_names(block.index(), matchers, limit, work)?;
                names.extend(found.into_iter().map(text));
                Ok(())
            })
        };
        let remote = async |query| self.prometheus.label_names(&query).await;
        self.listed(query, local, remote).await
    }

    async fn label_values(&self, name: &str, query: &ListQuery) -> Result<Listed, StoreError> {
        let (asked, limit) = (name.to_owned(), limit(query));
        let local = move |plan: Plan, matchers: &[CompiledMatcher]| {
            each_block(&plan, |block, work, values| {
                let found = label_values(block.index(), &asked, matchers, limit, work)?;
                values.extend(found.into_iter().map(text));
                Ok(())
            })
        };
        let remote = async |query| self.prometheus.label_values(name, &query).await;
        self.listed(query, local, remote).await
    }

    async fn has_series(&self, query: &ListQuery) -> Result<bool, StoreError> {
        let Some(range) = query.range else {
            return self.prometheus.has_series(query).await;
        };
        let matchers = query.matchers.clone();
        let any = move |plan: Plan| {
            let mut cursors = cursors(&plan, &compiled(&matchers)?)?;
            let mut budget = usize::MAX;
            for (at, cursor) in cursors.iter_mut().enumerate() {
                cursor.settle(at, &mut budget)?;
                if cursor.head().is_some() {
                    return Ok(true);
                }
            }
            Ok(false)
        };
        let (ranges, found) = self.planned(range, std::convert::identity, any).await?;
        if found == Some(true) {
            return Ok(true);
        }
        for range in ranges {
            let part = ListQuery {
                range: Some(range),
                ..query.clone()
            };
            if self.prometheus.has_series(&part).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn failed(block: &Block, error: SelectError) -> StoreError {
    match error {
        SelectError::Index(error) => block.index_error(error).into(),
        error => StoreError::Select(error),
    }
}

/// Symbols are proven to be UTF-8 when a block is opened.
fn text(symbol: &[u8]) -> String {
    String::from_utf8_lossy(symbol).into_owned()
}

fn limit(query: &ListQuery) -> usize {
    let limit = query.limit.and_then(|limit| usize::try_from(limit).ok());
    limit.unwrap_or(usize::MAX)
}

/// Gathers texts from all blocks of a plan.
fn each_block(
    plan: &Plan,
    each: impl Fn(&Block, &mut Work, &mut BTreeSet<String>) -> Result<(), SelectError>,
) -> Result<BTreeSet<String>, StoreError> {
    let (mut work, mut texts) = (Work::default(), BTreeSet::new());
    for part in &plan.local {
        each(&part.block, &mut work, &mut texts).map_err(|error| failed(&part.block, error))?;
    }
    Ok(texts)
}

fn compiled(matchers: &[Matcher]) -> Result<Vec<CompiledMatcher>, StoreError> {
    let compiled = |matcher: &Matcher| {
        CompiledMatcher::new(matcher).map_err(|source| StoreError::Pattern {
            name: matcher.name.clone(),
            source,
        })
    };
    matchers.iter().map(compiled).collect()
}

fn cursors(plan: &Plan, matchers: &[CompiledMatcher]) -> Result<Vec<Cursor>, StoreError> {
    let mut work = Work::default();
    let cursor = |part: &super::plan::LocalBlock| {
        let block = &part.block;
        let found = select(block.index(), matchers, &mut work);
        let postings = found.map_err(|error| failed(block, error))?;
        Ok(Cursor::new(
            Arc::clone(block),
            part.ranges.clone(),
            postings,
        ))
    };
    plan.local.iter().map(cursor).collect()
}

impl Input {
    fn new(source: Source) -> Self {
        Self {
            source,
            head: None,
            is_over: false,
        }
    }

    /// Waits for the next series, unless there is one.
    async fn fill(&mut self) -> Result<(), StoreError> {
        if self.head.is_none() && !self.is_over {
            self.head = self.source.next().await?;
            self.is_over = self.head.is_none();
        }
        Ok(())
    }
}

impl Source {
    async fn next(&mut self) -> Result<Option<Series>, StoreError> {
        match self {
            Self::Blocks(source) => source.next().await,
            Self::Prometheus(source, only) => {
                let Some(range) = *only else {
                    return source.next().await;
                };
                while let Some(mut series) = source.next().await? {
                    let had_chunks = !series.chunks.is_empty();
                    trim(&mut series, range)?;
                    if !had_chunks || !series.chunks.is_empty() {
                        return Ok(Some(series));
                    }
                }
                Ok(None)
            }
        }
    }
}

impl LocalSource {
    /// The series that sorts first, with what other sources have of it at hand.
    fn first(&mut self) -> Option<Series> {
        let heads = self.inputs.iter().enumerate();
        let heads = heads.filter_map(|(at, input)| Some((at, &input.head.as_ref()?.labels)));
        let (first, _) = heads.min_by(|(_, a), (_, b)| a.cmp(b))?;
        let mut series = self.inputs[first].head.take()?;
        let mut is_joined = false;
        for input in &mut self.inputs[first + 1..] {
            let fits = |other: &mut Series| {
                other.labels.cmp(&series.labels) == Ordering::Equal
                    && series.data_bytes() + other.data_bytes() <= JOINED_BYTES_MAX
            };
            if let Some(other) = input.head.take_if(fits) {
                series.chunks.extend(other.chunks);
                is_joined = true;
            }
        }
        if is_joined {
            series
                .chunks
                .sort_by_key(|part| (part.min_ms(), part.max_ms()));
        }
        Some(series)
    }
}

impl SeriesSource for LocalSource {
    type Item = Series;

    async fn next(&mut self) -> Result<Option<Series>, StoreError> {
        if self.limit == Some(0) {
            return Ok(None);
        }
        let next = match self.inputs.as_mut_slice() {
            [only] => only.source.next().await?,
            inputs => {
                for input in inputs {
                    input.fill().await?;
                }
                self.first()
            }
        };
        if let (Some(limit), Some(_)) = (&mut self.limit, &next) {
            *limit -= 1;
        }
        Ok(next)
    }

    fn take_warnings(&mut self) -> Vec<String> {
        let mut warnings = Vec::new();
        for input in &mut self.inputs {
            if let Source::Prometheus(source, _) = &mut input.source {
                warnings.extend(source.take_warnings());
            }
        }
        warnings.dedup();
        warnings
    }
}
