//! Matchers to sets of series, as Prometheus selects them (contract `tsdb.md` §8.1).
//!
//! A label that a series lacks has the value `""`. No list says which series lack a label, so a
//! matcher that accepts `""` is turned around: the series with a value that it refuses are taken
//! away. What looks values up goes first, what walks over all values of a label last, and not at
//! all once nothing is left to narrow.
//!
//! Work is bounded per request, over all blocks: see [`Work`].

mod lists;
mod work;

use std::collections::HashSet;

use crate::model::{MatchOp, Matcher, Pattern, PatternError, PatternMatcher, Verdict};
use crate::store::ErrorClass;
use crate::tsdb::{DecodeError, IndexView, Postings, PostingsRef, PostingsUnion, SeriesReader};

pub use lists::{label_names, label_values};
pub use work::{Effort, Work};

/// How many series may be read instead of walking over a label's values; their ids are held.
const READ_SERIES_MAX: u64 = 1 << 16;
/// So many values of a label cost about as much as reading one series.
#[cfg(not(test))]
const VALUES_PER_SERIES: u64 = 8;
/// Small, so that tests come to read series.
#[cfg(test)]
const VALUES_PER_SERIES: u64 = 1;

/// A matcher that is ready to be held against values.
#[derive(Clone, Debug)]
pub struct CompiledMatcher {
    matcher: Matcher,
    test: Test,
    is_negative: bool,
    accepts_empty: bool,
}

/// What a value must be; a negative matcher wants the contrary.
#[derive(Clone, Debug)]
enum Test {
    /// The matcher's value.
    Equal,
    Pattern(PatternMatcher),
}

/// Why there is no selection.
#[derive(Debug, thiserror::Error)]
pub enum SelectError {
    /// The index is broken.
    #[error("reading the index")]
    Index(#[from] DecodeError),
    /// [`Work`] is used up.
    #[error(
        "{selector} is too expensive: more than {limit} {effort} for one request; name the metric, \
         match by = or by a fixed beginning, or ask for a shorter time"
    )]
    TooExpensive {
        /// The matcher, or all of them.
        selector: String,
        /// What there was too much of.
        effort: Effort,
        /// How much there may be.
        limit: u64,
    },
}

/// What a matcher does to the selection (contract `tsdb.md` §8.1, 3 and 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Ignore,
    Empty,
    Keep(Which),
    Drop(Which),
}

/// Which values of a label: none of these is `""`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Which {
    /// Those that pass the test.
    Passing,
    /// Those that do not.
    Failing,
    All,
}

/// How a matcher's values are found; the cheaper first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Search {
    LookUp,
    Ranges,
    Walk,
}

/// The series that fit all matchers, in the order of their labels.
///
/// # Errors
/// Where the index is broken, or it takes more than `work` has left.
pub fn select(
    view: IndexView<'_>,
    matchers: &[CompiledMatcher],
    work: &mut Work,
) -> Result<Postings, SelectError> {
    if matches!(matchers, [only] if only.is_all()) {
        return Ok(view.postings(view.all())?);
    }
    let mut keep = Vec::new();
    let mut drop = Vec::new();
    let refuses_empty = matchers.iter().filter(|matcher| !matcher.accepts_empty);
    let needed: HashSet<&str> = refuses_empty.map(CompiledMatcher::name).collect();
    for matcher in matchers {
        let is_needed = needed.contains(matcher.name());
        match matcher.role(is_needed) {
            Role::Ignore => {}
            Role::Empty => return Ok(Postings::none()),
            Role::Keep(which) => keep.push((matcher.search(which), which, matcher)),
            Role::Drop(which) => drop.push((which, matcher)),
        }
    }
    // The one that most likely ends it comes first.
    keep.sort_by_key(|(search, ..)| *search);
    let mut kept = Vec::with_capacity(keep.len());
    let mut to_read = Vec::new();
    let mut series_max = None;
    for (_, which, matcher) in keep {
        let Some(series) = matcher.series(view, which, series_max, work)? else {
            to_read.push(matcher);
            continue;
        };
        let at_most = series.at_most();
        if at_most == 0 {
            return Ok(Postings::none());
        }
        series_max = Some(series_max.map_or(at_most, |max: u64| max.min(at_most)));
        kept.push(series);
    }
    let mut selected = match kept.is_empty() {
        true => view.postings(view.all())?,
        false => Postings::intersection(kept),
    };
    for (which, matcher) in drop {
        match matcher.series(view, which, Some(selected.at_most()), work)? {
            Some(series) if series.at_most() == 0 => {}
            Some(series) => selected = selected.without(series),
            None => to_read.push(matcher),
        }
    }
    match to_read.is_empty() {
        true => Ok(selected),
        false => read_and_match(view, selected, &to_read, work),
    }
}

/// Those of the series whose labels fit: for few series, and labels of very many values.
fn read_and_match(
    view: IndexView<'_>,
    mut series: Postings,
    matchers: &[&CompiledMatcher],
    work: &mut Work,
) -> Result<Postings, SelectError> {
    let mut ids = Vec::new();
    let mut reader = SeriesReader::new();
    'series: while let Some(id) = series.next(view) {
        reader.read(view, id)?;
        for matcher in matchers {
            work.spend(Effort::Series, || matcher.matcher.to_string())?;
            let mut labels = reader.labels(view);
            let label = labels.find(|(name, _)| *name == matcher.name().as_bytes());
            let value = label.map_or(&b""[..], |(_, value)| value);
            if matcher.passes(value, work)? == matcher.is_negative {
                continue 'series;
            }
        }
        ids.push(id);
    }
    Ok(Postings::of_ids(ids))
}

// === impl CompiledMatcher ===

impl CompiledMatcher {
    /// Compiles a matcher.
    ///
    /// # Errors
    /// Where its pattern is none, or its program would be too large.
    pub fn new(matcher: &Matcher) -> Result<Self, PatternError> {
        let test = match matcher.op {
            MatchOp::Equal | MatchOp::NotEqual => Test::Equal,
            MatchOp::Regex | MatchOp::NotRegex => {
                let pattern = Pattern::parse(matcher.value.as_bytes())?;
                Test::Pattern(PatternMatcher::new(&pattern)?)
            }
        };
        let mut compiled = Self {
            matcher: matcher.clone(),
            test,
            is_negative: matches!(matcher.op, MatchOp::NotEqual | MatchOp::NotRegex),
            accepts_empty: false,
        };
        compiled.accepts_empty = compiled.matches(b"");
        Ok(compiled)
    }

    /// The label's name.
    pub fn name(&self) -> &str {
        &self.matcher.name
    }

    /// The matcher as it was given.
    pub fn matcher(&self) -> &Matcher {
        &self.matcher
    }

    /// Whether a series with this value of the label fits; `""` is for none.
    pub fn matches(&self, value: &[u8]) -> bool {
        let passes = match &self.test {
            Test::Equal => self.matcher.value.as_bytes() == value,
            Test::Pattern(pattern) => pattern.matches(value),
        };
        passes != self.is_negative
    }

    /// Whether series without the label fit.
    pub fn accepts_empty(&self) -> bool {
        self.accepts_empty
    }

    /// `{""=""}`, which stands for all series.
    fn is_all(&self) -> bool {
        self.matcher.op == MatchOp::Equal && self.matcher.name.is_empty() && self.is_test_of_empty()
    }

    /// `is_needed` where a matcher of the same label refuses `""`.
    fn role(&self, is_needed: bool) -> Role {
        if let Test::Pattern(pattern) = &self.test {
            match (
                pattern.is_any(),
                pattern.is_any_but_empty(),
                self.is_negative,
            ) {
                (true, _, false) => return Role::Ignore,
                (true, _, true) => return Role::Empty,
                (_, true, false) => return Role::Keep(Which::All),
                (_, true, true) => return Role::Drop(Which::All),
                _ => {}
            }
        }
        let which = match (is_needed, self.is_negative) {
            (true, false) => return Role::Keep(Which::Passing),
            (true, true) if !self.accepts_empty => return Role::Keep(self.failing()),
            (_, true) => Which::Passing,
            (_, false) => self.failing(),
        };
        Role::Drop(which)
    }

    /// All values fail a test for the empty one.
    fn failing(&self) -> Which {
        match self.is_test_of_empty() {
            true => Which::All,
            false => Which::Failing,
        }
    }

    fn is_test_of_empty(&self) -> bool {
        matches!(self.test, Test::Equal) && self.matcher.value.is_empty()
    }

    fn search(&self, which: Which) -> Search {
        match &self.test {
            _ if which != Which::Passing => Search::Walk,
            Test::Equal => Search::LookUp,
            Test::Pattern(pattern) => match pattern.prefixes().as_slice() {
                [] => Search::LookUp,
                [b"", ..] => Search::Walk,
                _ => Search::Ranges,
            },
        }
    }

    /// The series with such a value; `None` where it is cheaper to read the `series_max` ones that
    /// may be left anyhow, which is known only after a while.
    fn series(
        &self,
        view: IndexView<'_>,
        which: Which,
        series_max: Option<u64>,
        work: &mut Work,
    ) -> Result<Option<Postings>, SelectError> {
        let mut union = PostingsUnion::new();
        // `""` is no label; its entry in the table lists all series.
        if self.name().is_empty() {
            return Ok(Some(union.finish()));
        }
        let few = series_max.filter(|series| *series <= READ_SERIES_MAX);
        let mut values_left = few.map_or(u64::MAX, |series| series * VALUES_PER_SERIES);
        let is_whole = match (&self.test, which) {
            (Test::Equal, Which::Passing) => {
                self.look_up(view, self.matcher.value.as_bytes(), &mut union, work)?;
                true
            }
            (Test::Pattern(pattern), Which::Passing) => {
                self.passing(view, pattern, &mut union, &mut values_left, work)?
            }
            (_, Which::All) => self.walk(view, b"", &mut values_left, work, |list, _, _| {
                Ok(union.add(view, list)?)
            })?,
            (_, Which::Failing) => self.walk(
                view,
                b"",
                &mut values_left,
                work,
                |list, value, work| match self.passes(value, work)? {
                    true => Ok(()),
                    false => Ok(union.add(view, list)?),
                },
            )?,
        };
        Ok(is_whole.then(|| union.finish()))
    }

    fn passing(
        &self,
        view: IndexView<'_>,
        pattern: &PatternMatcher,
        union: &mut PostingsUnion,
        values_left: &mut u64,
        work: &mut Work,
    ) -> Result<bool, SelectError> {
        for literal in pattern.literals() {
            if *values_left == 0 {
                return Ok(false);
            }
            *values_left -= 1;
            self.look_up(view, literal, union, work)?;
        }
        for prefix in pattern.prefixes() {
            let is_whole = self.walk(view, prefix, values_left, work, |list, value, work| {
                // Those are looked up already.
                let is_new = !pattern.is_literal(value) && self.passes(value, work)?;
                match is_new {
                    true => Ok(union.add(view, list)?),
                    false => Ok(()),
                }
            })?;
            if !is_whole {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn look_up(
        &self,
        view: IndexView<'_>,
        value: &[u8],
        union: &mut PostingsUnion,
        work: &mut Work,
    ) -> Result<(), SelectError> {
        work.spend(Effort::Values, || self.matcher.to_string())?;
        // The empty value stands for none.
        if value.is_empty() {
            return Ok(());
        }
        match view.value(self.name().as_bytes(), value)? {
            Some(list) => Ok(union.add(view, list)?),
            None => Ok(()),
        }
    }

    /// Calls `each` for the values that begin with the prefix, and where their series are listed;
    /// whether it came to the end before `values_left` were used up.
    fn walk(
        &self,
        view: IndexView<'_>,
        prefix: &[u8],
        values_left: &mut u64,
        work: &mut Work,
        mut each: impl FnMut(PostingsRef, &[u8], &mut Work) -> Result<(), SelectError>,
    ) -> Result<bool, SelectError> {
        let name = self.name().as_bytes();
        let mut values = match prefix.is_empty() {
            true => view.values(name)?,
            false => view.values_from(name, prefix)?,
        };
        while let Some((value, list)) = values.next(view)? {
            if !value.starts_with(prefix) {
                break;
            }
            if *values_left == 0 {
                return Ok(false);
            }
            *values_left -= 1;
            work.spend(Effort::Values, || self.matcher.to_string())?;
            if !value.is_empty() {
                each(list, value, work)?;
            }
        }
        Ok(true)
    }

    /// Whether the value passes the test, a negative matcher's too.
    fn passes(&self, value: &[u8], work: &mut Work) -> Result<bool, SelectError> {
        match &self.test {
            Test::Equal => Ok(self.matcher.value.as_bytes() == value),
            Test::Pattern(pattern) => match pattern.judge(value) {
                Verdict::Fits => Ok(true),
                Verdict::DoesNot => Ok(false),
                Verdict::Unclear => {
                    work.spend(Effort::Patterns, || self.matcher.to_string())?;
                    Ok(pattern.run(value))
                }
            },
        }
    }
}

// === impl SelectError ===

impl SelectError {
    /// What the caller is told.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Index(_) => ErrorClass::Internal,
            Self::TooExpensive { .. } => ErrorClass::ResourceExhausted,
        }
    }
}

#[cfg(test)]
mod tests;
