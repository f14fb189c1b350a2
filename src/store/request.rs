//! A Series request, understood: pure.
//!
//! Every matcher is compiled before any is judged; those of external labels are resolved here and
//! dropped, since Prometheus' data does not carry these labels (contract `grpc.md` §2.2, §3.1,
//! §3.6b). What a request may cost before it is asked of Prometheus is bounded by the constants
//! below.

use super::{Shard, StoreError};
use crate::model::{AnchoredRegex, ExternalLabels, MatchOp, Matcher, Pattern, TimestampMs};
use crate::proto::thanos::{LabelMatcher, PartialResponseStrategy, SeriesRequest, label_matcher};

/// The most matchers of one request.
pub(super) const MATCHERS_MAX: usize = 10_000;
/// The most bytes of names and values of all matchers.
pub(super) const MATCHER_BYTES_MAX: usize = 4 << 20;
/// The most bytes of all patterns: to read one costs more than to pass on a value.
pub(super) const PATTERNS_BYTES_MAX: usize = 1 << 20;
/// The most patterns that are run here, against external labels: each may cost milliseconds.
pub(super) const EXTERNAL_PATTERNS_MAX: usize = 100;
/// The most series of one message; more than a querier ever asks for, which is 64.
pub(super) const BATCH_SERIES_MAX: usize = 1024;
/// The most labels to leave out or to shard by.
pub(super) const LABEL_NAMES_MAX: usize = 1000;

/// A closed range of time in milliseconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct QueryRange {
    /// The first instant.
    pub mint: TimestampMs,
    /// The last instant, inside.
    pub maxt: TimestampMs,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct SeriesQuery {
    /// When.
    pub range: QueryRange,
    /// Which series, without conditions on external labels; at least one.
    pub matchers: Vec<Matcher>,
    /// Labels only.
    pub skip_chunks: bool,
    /// Which part of the series; `None` for all.
    pub shard: Option<Shard>,
    /// Labels to leave out of each series.
    pub without_replica_labels: Vec<String>,
    /// The most series; only labels-only answers know it.
    pub limit: Option<u64>,
    /// Series per message; 1 for messages without a batch.
    pub batch_series: usize,
    /// Whether warnings may be sent: a querier that takes no partial answers ends its whole query
    /// for one.
    pub warnings: bool,
}

/// What parsing a request gives.
#[derive(Clone, Debug, PartialEq)]
pub enum Parsed {
    /// Something to ask Prometheus for.
    Query(SeriesQuery),
    /// The answer is empty: an external label does not match, or the range is inverted.
    Empty,
}

/// Matchers that are left for Prometheus, or `None` where external labels do not match.
pub(super) type Resolved = Option<Vec<Matcher>>;

impl SeriesQuery {
    /// Understands a request to a Prometheus with these external labels, which serves from
    /// `min_time` on.
    ///
    /// # Errors
    /// Of the class `InvalidArgument`, see [`StoreError`].
    pub fn parse(
        request: SeriesRequest,
        external: &ExternalLabels,
        min_time: TimestampMs,
    ) -> Result<Parsed, StoreError> {
        let warnings = takes_warnings(&request);
        check_names(&request.without_replica_labels)?;
        let shard = request.shard_info.map(Shard::parse).transpose()?.flatten();
        let Some(matchers) = resolve(request.matchers, external)? else {
            return Ok(Parsed::Empty);
        };
        if matchers.is_empty() {
            return Err(StoreError::NoMatchers);
        }
        let range = QueryRange {
            mint: TimestampMs(request.min_time).max(min_time),
            maxt: TimestampMs(request.max_time),
        };
        if range.mint > range.maxt {
            return Ok(Parsed::Empty);
        }
        let batch = usize::try_from(request.response_batch_size).unwrap_or(1);
        Ok(Parsed::Query(Self {
            range,
            matchers,
            skip_chunks: request.skip_chunks,
            shard,
            without_replica_labels: request.without_replica_labels,
            limit: positive(request.limit),
            batch_series: batch.clamp(1, BATCH_SERIES_MAX),
            warnings,
        }))
    }
}

/// A limit; zero and below are none.
pub(super) fn positive(limit: i64) -> Option<u64> {
    u64::try_from(limit).ok().filter(|limit| *limit > 0)
}

/// Callers ask for no partial answers in two ways, an old one and a new one.
fn takes_warnings(request: &SeriesRequest) -> bool {
    #[expect(deprecated, reason = "queriers still set it")]
    let disabled = request.partial_response_disabled;
    !disabled && request.partial_response_strategy() != PartialResponseStrategy::Abort
}

/// Refuses lists of names that no querier sends.
pub(super) fn check_names(names: &[String]) -> Result<(), StoreError> {
    match names.len() > LABEL_NAMES_MAX {
        true => Err(StoreError::RequestTooLarge {
            what: "label names",
            got: names.len(),
            limit: LABEL_NAMES_MAX,
        }),
        false => Ok(()),
    }
}

/// Compiles all matchers, then holds those of external labels against their values and drops them.
pub(super) fn resolve(
    matchers: Vec<LabelMatcher>,
    external: &ExternalLabels,
) -> Result<Resolved, StoreError> {
    check_size(matchers.iter())?;
    let mut left = Vec::new();
    let mut matches = true;
    let mut run = 0;
    for matcher in matchers {
        let value = external.value(&matcher.name);
        let compiled = Compiled::new(matcher, value.is_some())?;
        let Some(value) = value else {
            left.push(compiled.matcher);
            continue;
        };
        check_patterns(&mut run, &compiled)?;
        matches &= compiled.matches(value);
    }
    Ok(matches.then_some(left))
}

/// Counts the patterns that are run here.
fn check_patterns(run: &mut usize, matcher: &Compiled) -> Result<(), StoreError> {
    *run += usize::from(matcher.regex.is_some());
    match *run > EXTERNAL_PATTERNS_MAX {
        true => Err(StoreError::RequestTooLarge {
            what: "patterns for external labels",
            got: *run,
            limit: EXTERNAL_PATTERNS_MAX,
        }),
        false => Ok(()),
    }
}

/// Whether all matchers hold for the external labels alone, a label that is not there being ""
/// (contract `grpc.md` §2.9).
///
/// # Errors
/// Of the class `InvalidArgument`, see [`StoreError`].
pub fn matches_external(
    matchers: Vec<LabelMatcher>,
    external: &ExternalLabels,
) -> Result<bool, StoreError> {
    check_size(matchers.iter())?;
    let mut matches = true;
    let mut run = 0;
    for matcher in matchers {
        let compiled = Compiled::new(matcher, true)?;
        check_patterns(&mut run, &compiled)?;
        let value = external.value(&compiled.matcher.name).unwrap_or_default();
        matches &= compiled.matches(value);
    }
    Ok(matches)
}

/// Sets of matchers that are all sound and will be held against external labels.
///
/// # Errors
/// Of the class `InvalidArgument`, see [`StoreError`].
pub fn matcher_sets(sets: Vec<Vec<LabelMatcher>>) -> Result<Vec<Vec<Matcher>>, StoreError> {
    check_size(sets.iter().flatten())?;
    let mut run = 0;
    let mut sound = |matcher| {
        let compiled = Compiled::new(matcher, true)?;
        check_patterns(&mut run, &compiled)?;
        Ok(compiled.matcher)
    };
    let sets = sets.into_iter();
    sets.map(|set| set.into_iter().map(&mut sound).collect())
        .collect()
}

fn check_size<'a>(
    matchers: impl Iterator<Item = &'a LabelMatcher> + Clone,
) -> Result<(), StoreError> {
    let sizes = matchers.clone().map(|m| m.name.len() + m.value.len());
    let patterns = matchers.clone().filter(|m| is_pattern(m.r#type));
    let pattern_bytes = patterns.map(|m| m.value.len()).sum();
    for (what, got, limit) in [
        ("matchers", matchers.count(), MATCHERS_MAX),
        ("bytes of matchers", sizes.sum(), MATCHER_BYTES_MAX),
        ("bytes of patterns", pattern_bytes, PATTERNS_BYTES_MAX),
    ] {
        if got > limit {
            return Err(StoreError::RequestTooLarge { what, got, limit });
        }
    }
    Ok(())
}

fn is_pattern(matcher_type: i32) -> bool {
    use label_matcher::Type::{Nre, Re};
    matches!(label_matcher::Type::try_from(matcher_type), Ok(Re | Nre))
}

/// A matcher that is known to be sound; compiled only if it will be run here.
struct Compiled {
    matcher: Matcher,
    regex: Option<AnchoredRegex>,
}

impl Compiled {
    fn new(matcher: LabelMatcher, run: bool) -> Result<Self, StoreError> {
        let op = match label_matcher::Type::try_from(matcher.r#type) {
            Ok(label_matcher::Type::Eq) => MatchOp::Equal,
            Ok(label_matcher::Type::Neq) => MatchOp::NotEqual,
            Ok(label_matcher::Type::Re) => MatchOp::Regex,
            Ok(label_matcher::Type::Nre) => MatchOp::NotRegex,
            Err(_) => {
                return Err(StoreError::MatcherType {
                    value: matcher.r#type,
                });
            }
        };
        let mut regex = None;
        if matches!(op, MatchOp::Regex | MatchOp::NotRegex) {
            let refused = |source| StoreError::Pattern {
                name: matcher.name.clone(),
                source,
            };
            let pattern = Pattern::parse(matcher.value.as_bytes()).map_err(refused)?;
            if run {
                regex = Some(pattern.compile().map_err(refused)?);
            }
        }
        Ok(Self {
            matcher: Matcher {
                op,
                name: matcher.name,
                value: matcher.value,
            },
            regex,
        })
    }

    fn matches(&self, value: &str) -> bool {
        let fits = match &self.regex {
            Some(regex) => regex.is_match(value),
            None => self.matcher.value == value,
        };
        let negative = matches!(self.matcher.op, MatchOp::NotEqual | MatchOp::NotRegex);
        fits != negative
    }
}

#[cfg(test)]
mod tests;
