//! A pattern as a list of alternatives, each a row of literals with gaps between them.
//!
//! Read off the pattern's HIR, where flags, classes and quotes are resolved already, so that folded
//! case and rare characters are right by construction. An alternative is exact, or it is too wide:
//! what can't be said with literals and gaps becomes a gap, which fits more. So a value that fits
//! no alternative fits not the pattern, and one that fits an exact alternative does.
//!
//! Growth is bounded: where there would be too many alternatives, or too many bytes of them, a part
//! of the pattern becomes a gap.

use regex_syntax::hir::{Class, Hir, HirKind, Look, Repetition};

/// The most alternatives that a row of choices, such as `[0-9](a|b)`, is multiplied out to. Each
/// costs a search in the table of values; a regular expression is run for more.
const PRODUCT_MAX: usize = 64;
/// The most alternatives: dashboards send lists of thousands of names.
const ALTERNATIVES_MAX: usize = 1 << 16;
/// The most memory that they take, about.
const HEAP_BYTES_MAX: usize = 8 << 20;
/// The most gaps of one alternative; those in the middle tell least.
const GAPS_MAX: usize = 32;
/// The most alternatives that are appended to, summed over the parts of a row.
const APPENDED_MAX: usize = 1 << 20;
/// The most characters of a class that is taken as a choice.
const CLASS_CHARS_MAX: u32 = 16;
/// How often a repeated part is written out before the rest becomes a gap.
const REPEATS_WRITTEN_MAX: u32 = 4;

const _: () = assert!(PRODUCT_MAX <= ALTERNATIVES_MAX && CLASS_CHARS_MAX as usize <= PRODUCT_MAX);

/// One way to fit: `prefix`, then gaps, each with the literal behind it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Alternative {
    /// What the value begins with.
    pub(super) prefix: Vec<u8>,
    /// The last literal ends the value.
    pub(super) tail: Vec<Gapped>,
    /// What fits here but not the pattern.
    pub(super) is_too_wide: bool,
    /// Nothing may stand before it.
    starts: bool,
    /// Nothing may stand behind it.
    ends: bool,
}

/// A gap and the literal behind it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Gapped {
    /// The least bytes of the gap.
    pub(super) bytes_min: usize,
    /// May be empty.
    pub(super) literal: Vec<u8>,
}

/// The alternatives of an anchored pattern; none where nothing fits.
pub(super) fn expand(hir: &Hir) -> Vec<Alternative> {
    match hir.kind() {
        HirKind::Empty => vec![Alternative::default()],
        HirKind::Literal(literal) => vec![Alternative::literal(&literal.0)],
        HirKind::Class(class) => expand_class(class),
        HirKind::Look(look) => vec![Alternative::look(*look)],
        HirKind::Capture(capture) => expand(&capture.sub),
        HirKind::Repetition(repetition) => expand_repetition(repetition),
        HirKind::Concat(parts) => expand_row(parts),
        HirKind::Alternation(branches) => {
            let mut all = Vec::new();
            let mut heap_bytes_left = HEAP_BYTES_MAX;
            for branch in branches {
                let mut more = expand(branch);
                let size = heap_bytes(&more);
                if all.len() + more.len() > ALTERNATIVES_MAX || size > heap_bytes_left {
                    return vec![Alternative::wide(hir)];
                }
                heap_bytes_left -= size;
                all.append(&mut more);
            }
            all
        }
    }
}

fn expand_row(parts: &[Hir]) -> Vec<Alternative> {
    let mut whole = vec![Alternative::default()];
    let mut appended = 0;
    for part in parts {
        appended += whole.len();
        if appended > APPENDED_MAX {
            whole = vec![ends_of(&whole)];
        }
        whole = product(whole, expand(part));
    }
    whole
}

/// What all of them have in common, as one alternative that fits whatever they fit.
pub(super) fn ends_of(alternatives: &[Alternative]) -> Alternative {
    let mut all = alternatives.iter();
    let Some(first) = all.next() else {
        return Alternative::gap(0, true);
    };
    let mut prefix = first.prefix.clone();
    let mut suffix = first.suffix().to_vec();
    let mut bytes_min = first.bytes_min();
    for other in all {
        let shared = prefix.iter().zip(&other.prefix);
        prefix.truncate(shared.take_while(|(a, b)| a == b).count());
        let shared = suffix.iter().rev().zip(other.suffix().iter().rev());
        let shared = shared.take_while(|(a, b)| a == b).count();
        suffix.drain(..suffix.len() - shared);
        bytes_min = bytes_min.min(other.bytes_min());
    }
    // The two may overlap in a short value: then there is no gap to stand between them.
    if prefix.len() + suffix.len() > bytes_min {
        suffix.clear();
    }
    let gap = Gapped {
        bytes_min: bytes_min - prefix.len() - suffix.len(),
        literal: suffix,
    };
    Alternative {
        prefix,
        tail: vec![gap],
        is_too_wide: true,
        ..Alternative::default()
    }
}

fn expand_class(class: &Class) -> Vec<Alternative> {
    let literal = |c: char| Alternative::literal(c.encode_utf8(&mut [0; 4]).as_bytes());
    match class {
        Class::Unicode(class) => {
            let sizes = class.iter().map(|range| {
                u32::from(range.end())
                    .saturating_sub(u32::from(range.start()))
                    .saturating_add(1)
            });
            if sizes.fold(0_u32, u32::saturating_add) > CLASS_CHARS_MAX {
                return vec![Alternative::gap(1, true)];
            }
            class
                .iter()
                .flat_map(|range| range.start()..=range.end())
                .map(literal)
                .collect()
        }
        // Only where a pattern leaves Unicode, which none that we write does.
        Class::Bytes(class) if class.iter().next().is_none() => Vec::new(),
        Class::Bytes(_) => vec![Alternative::gap(1, true)],
    }
}

fn expand_repetition(repetition: &Repetition) -> Vec<Alternative> {
    let Repetition { min, max, sub, .. } = repetition;
    if is_any_char(sub) && max.is_none() {
        let bytes_min = usize::try_from(*min).unwrap_or(usize::MAX);
        // A character may have several bytes.
        return vec![Alternative::gap(bytes_min, *min > 1)];
    }
    let once = expand(sub);
    if (*min, *max) == (0, Some(1)) {
        let mut either = once;
        either.push(Alternative::default());
        return either;
    }
    let written = (*min).min(REPEATS_WRITTEN_MAX);
    let mut whole = vec![Alternative::default()];
    for _ in 0..written {
        whole = product(whole, once.clone());
    }
    if *max == Some(written) {
        return whole;
    }
    let left = usize::try_from(*min - written).unwrap_or(usize::MAX);
    let each = sub.properties().minimum_len().unwrap_or(0);
    let rest = Alternative::gap(left.saturating_mul(each), true);
    product(whole, vec![rest])
}

/// Whether it fits every character.
fn is_any_char(hir: &Hir) -> bool {
    match hir.kind() {
        HirKind::Class(Class::Unicode(class)) => {
            matches!(class.ranges(), [range] if (range.start(), range.end()) == ('\0', char::MAX))
        }
        HirKind::Capture(capture) => is_any_char(&capture.sub),
        _ => false,
    }
}

/// Every one of the left followed by every one of the right.
fn product(mut left: Vec<Alternative>, right: Vec<Alternative>) -> Vec<Alternative> {
    if matches!(left.as_slice(), [only] if *only == Alternative::default()) {
        return right;
    }
    if let [next] = right.as_slice() {
        // More than so many with gaps are not told apart in the end.
        if left.len() > PRODUCT_MAX && !next.tail.is_empty() {
            left = vec![ends_of(&left)];
        }
        left.retain_mut(|alternative| alternative.append(next));
        return left;
    }
    let is_list = left.len() <= 1 || right.is_empty();
    let many = left.len().saturating_mul(right.len());
    let size = heap_bytes(&left)
        .saturating_mul(right.len())
        .saturating_add(heap_bytes(&right).saturating_mul(left.len()));
    if (many > PRODUCT_MAX && !is_list) || size > HEAP_BYTES_MAX {
        // What comes first stays: values are in order, so that a beginning narrows most.
        return product(left, vec![ends_of(&right)]);
    }
    let pairs = left
        .iter()
        .flat_map(|first| right.iter().map(move |next| (first, next)));
    pairs
        .filter_map(|(first, next)| {
            let mut whole = first.clone();
            whole.append(next).then_some(whole)
        })
        .collect()
}

fn heap_bytes(alternatives: &[Alternative]) -> usize {
    alternatives.iter().map(Alternative::heap_bytes).sum()
}

// === impl Alternative ===

impl Alternative {
    fn literal(literal: &[u8]) -> Self {
        Self {
            prefix: literal.to_vec(),
            ..Self::default()
        }
    }

    fn gap(bytes_min: usize, is_too_wide: bool) -> Self {
        let literal = Vec::new();
        Self {
            tail: vec![Gapped { bytes_min, literal }],
            is_too_wide,
            ..Self::default()
        }
    }

    /// One that fits what the expression fits.
    fn wide(hir: &Hir) -> Self {
        Self::gap(hir.properties().minimum_len().unwrap_or(0), true)
    }

    /// An assertion: of the text's ends, or one that is left out.
    fn look(look: Look) -> Self {
        Self {
            starts: look == Look::Start,
            ends: look == Look::End,
            is_too_wide: !matches!(look, Look::Start | Look::End),
            ..Self::default()
        }
    }

    /// The literal that the value ends with.
    fn suffix(&self) -> &[u8] {
        self.tail.last().map_or(&self.prefix, |last| &last.literal)
    }

    fn bytes_min(&self) -> usize {
        let tail = self.tail.iter();
        tail.fold(self.prefix.len(), |sum, gapped| {
            sum.saturating_add(gapped.bytes_min)
                .saturating_add(gapped.literal.len())
        })
    }

    /// Whether only the empty text fits.
    fn is_empty(&self) -> bool {
        self.prefix.is_empty() && self.tail.is_empty()
    }

    fn heap_bytes(&self) -> usize {
        let tail = self.tail.iter();
        let tail = tail.map(|gapped| size_of::<Gapped>() + gapped.literal.len());
        size_of::<Self>() + self.prefix.len() + tail.sum::<usize>()
    }

    /// Puts the other behind it; whether anything can fit both in a row.
    fn append(&mut self, next: &Self) -> bool {
        let was_empty = self.is_empty();
        if (next.starts && self.bytes_min() > 0) || (self.ends && next.bytes_min() > 0) {
            return false;
        }
        // A gap beside an end of the text would have to be empty, which is not said.
        self.is_too_wide |=
            next.is_too_wide || (next.starts && !was_empty) || (self.ends && !next.is_empty());
        self.starts |= next.starts && was_empty;
        self.ends = next.ends || (self.ends && next.is_empty());
        let end = match self.tail.last_mut() {
            Some(last) => &mut last.literal,
            None => &mut self.prefix,
        };
        end.extend_from_slice(&next.prefix);
        for gapped in &next.tail {
            self.push_gap(gapped);
        }
        true
    }

    fn push_gap(&mut self, next: &Gapped) {
        let is_full = self.tail.len() >= GAPS_MAX;
        match self.tail.last_mut() {
            Some(last) if last.literal.is_empty() || is_full => {
                // So many bytes may be fewer characters.
                self.is_too_wide |= is_full || last.bytes_min.saturating_add(next.bytes_min) > 1;
                last.bytes_min = last
                    .bytes_min
                    .saturating_add(last.literal.len())
                    .saturating_add(next.bytes_min);
                last.literal.clone_from(&next.literal);
            }
            _ => self.tail.push(next.clone()),
        }
    }
}
