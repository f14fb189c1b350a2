//! Changes to a text, and which place of the changed text comes from where.

use std::ops::Range;

/// How much text is put in; Prometheus takes forms of 10 MiB.
const EDITS_BYTES_MAX: usize = 4 << 20;

/// Changes to a text, collected while its tree is walked from the leaves up.
#[derive(Debug, Default)]
pub(super) struct Edits {
    /// In the order in which they came; those of a node after those of its parts.
    list: Vec<Edit>,
    /// Of all texts.
    bytes: usize,
}

#[derive(Debug)]
struct Edit {
    /// What is replaced; empty where something is put in.
    span: Range<usize>,
    text: String,
    side: Side,
}

/// What goes first where several are at one place: what ends there, then what is replaced, then
/// what begins there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Side {
    /// Behind what ends here; an outer one behind an inner one.
    Closing,
    /// Before what begins here; an outer one before an inner one.
    Opening,
    Replacing,
}

/// A piece of the changed text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// Where it begins in the changed text, in bytes.
    pub(super) at: usize,
    /// Where it comes from, or where it was put in.
    pub(super) from: usize,
    /// Whether it is the user's text, so that places within it differ by the same distance.
    pub(super) is_kept: bool,
}

impl Edits {
    /// Puts a call around a part of the text.
    pub(super) fn wrap(&mut self, span: &Range<usize>, before: &str, after: String) {
        self.push(span.start..span.start, before.to_owned(), Side::Opening);
        self.push(span.end..span.end, after, Side::Closing);
    }

    /// Puts another text in place of a part.
    pub(super) fn replace(&mut self, span: Range<usize>, text: String) {
        self.push(span, text, Side::Replacing);
    }

    fn push(&mut self, span: Range<usize>, text: String, side: Side) {
        self.bytes += text.len();
        if self.bytes <= EDITS_BYTES_MAX {
            self.list.push(Edit { span, text, side });
        }
    }

    /// Whether there were more than are kept.
    pub(super) fn are_too_many(&self) -> bool {
        self.bytes > EDITS_BYTES_MAX
    }

    /// The changed text and where its pieces come from.
    pub(super) fn apply(self, text: &str) -> (String, Vec<Piece>) {
        let mut ordered: Vec<(usize, Edit)> = self.list.into_iter().enumerate().collect();
        ordered.sort_by_key(|(came, edit)| {
            let came = i64::try_from(*came).unwrap_or(i64::MAX);
            let nested = match edit.side {
                Side::Opening => -came,
                Side::Closing | Side::Replacing => came,
            };
            (edit.span.start, edit.side, nested)
        });
        let mut changed = String::with_capacity(text.len() + 64);
        let mut pieces = Vec::new();
        let mut at = 0;
        let mut push = |changed: &mut String, from, part: &str, is_kept| {
            if !part.is_empty() {
                let at = changed.len();
                pieces.push(Piece { at, from, is_kept });
                changed.push_str(part);
            }
        };
        for (_, edit) in ordered {
            push(
                &mut changed,
                at,
                text.get(at..edit.span.start).unwrap_or_default(),
                true,
            );
            push(&mut changed, edit.span.start, &edit.text, false);
            at = edit.span.end;
        }
        push(&mut changed, at, text.get(at..).unwrap_or_default(), true);
        (changed, pieces)
    }
}
