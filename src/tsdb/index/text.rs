//! A length-prefixed text of the index, which the end of a run may cut.

use crate::tsdb::decode::{Run, count};

/// What a text buffer keeps between texts, bytes; a longer one is given back.
const KEPT_BYTES_MAX: usize = 64 << 10;

/// Reads one text after another; holds a copy only of one that a run's end has cut.
#[derive(Debug, Default)]
pub(super) struct Text {
    left: u64,
    partial: Vec<u8>,
}

impl Text {
    /// Begins a text of `length` bytes, which the caller has limited.
    pub(super) fn begin(&mut self, length: u64) {
        self.left = length;
        self.partial.clear();
        self.partial.shrink_to(KEPT_BYTES_MAX);
    }

    /// The text once all of it has come; `None` when the run ends first.
    pub(super) fn read<'s, 'a: 's>(&'s mut self, run: &mut Run<'a>) -> Option<&'s [u8]> {
        let part = run.split_to(self.left).bytes();
        self.left = self.left.saturating_sub(count(part.len()));
        if self.left == 0 && self.partial.is_empty() {
            return Some(part);
        }
        self.partial.extend_from_slice(part);
        (self.left == 0).then_some(self.partial.as_slice())
    }
}

/// Makes `kept` a copy of `text`.
pub(super) fn keep(kept: &mut Vec<u8>, text: &[u8]) {
    kept.clear();
    kept.shrink_to(KEPT_BYTES_MAX.max(text.len()));
    kept.extend_from_slice(text);
}
