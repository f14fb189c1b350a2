//! The order of a matrix after labels were put on, without holding all of it.
//!
//! Prometheus sends a matrix sorted by the labels that it knows. Labels that are put on stand at
//! the same place in any two series that differ before one of them ends, so only a series whose
//! labels are a prefix of a later one's can change places with it: behind its last label the
//! greatest label put on is compared with the later one's next. (The store sorts chunks by the
//! same argument, `store::resort`.) What may have to wait is therefore a stack of series that
//! extend each other, never higher than a series has labels.
//!
//! An answer that is not sorted, which nothing promises, keeps its order.

use std::cmp::Ordering;
use std::collections::VecDeque;

use bytes::Bytes;

use super::QueryError;
use crate::prometheus::LabelsText;

/// How many bytes of samples may wait, but one element always may.
pub(super) const WAITING_BYTES_MAX: usize = 64 << 20;

/// Puts elements into order.
#[derive(Debug)]
pub(super) struct Order {
    /// The greatest name put on.
    last_added: String,
    /// Each extends the one below it.
    waiting: Vec<Waiting>,
    waiting_bytes: usize,
    ready: VecDeque<Waiting>,
    /// Used again.
    spare: Vec<LabelsText>,
    is_sorted: bool,
}

#[derive(Debug)]
struct Waiting {
    /// Without what is put on.
    labels: LabelsText,
    samples: Bytes,
    /// Whether the samples stand in a buffer of their own.
    is_detached: bool,
}

impl Order {
    /// For elements that get labels up to this name, of which they have none.
    pub(super) fn new(last_added: String) -> Self {
        Self {
            last_added,
            waiting: Vec::new(),
            waiting_bytes: 0,
            ready: VecDeque::new(),
            spare: Vec::new(),
            is_sorted: true,
        }
    }

    /// Takes the next element; `labels` are left with something to be overwritten.
    ///
    /// # Errors
    /// Where too much would have to wait.
    pub(super) fn push(
        &mut self,
        labels: &mut LabelsText,
        samples: Bytes,
    ) -> Result<(), QueryError> {
        let last = self.waiting.last();
        let order = last.map(|last| last.labels.iter().cmp(labels.iter()));
        match order {
            Some(Ordering::Greater) => {
                self.is_sorted = false;
                self.waiting_bytes = 0;
                self.ready.extend(self.waiting.drain(..));
            }
            _ if self.is_sorted => self.release(labels),
            _ => {}
        }
        let spare = self.spare.pop().unwrap_or_default();
        let element = Waiting {
            labels: std::mem::replace(labels, spare),
            samples,
            is_detached: false,
        };
        if !self.is_sorted {
            self.ready.push_back(element);
            return Ok(());
        }
        // What something is stacked upon may wait for long and must not hold on to the buffer
        // that it was received in. Copied once, however many come and go above it.
        if let Some(below) = self.waiting.last_mut().filter(|below| !below.is_detached) {
            below.samples = Bytes::copy_from_slice(&below.samples);
            below.is_detached = true;
        }
        self.waiting_bytes = self.waiting_bytes.saturating_add(element.samples.len());
        self.waiting.push(element);
        if self.waiting.len() > 1 && self.waiting_bytes > WAITING_BYTES_MAX {
            let what = format!(
                "result: to keep it sorted, more than {WAITING_BYTES_MAX} bytes would have to wait"
            );
            return Err(QueryError::Unsupported { what });
        }
        Ok(())
    }

    /// The next element in order: its labels in place of those of `labels`.
    pub(super) fn pop(&mut self, labels: &mut LabelsText) -> Option<Bytes> {
        let element = self.ready.pop_front()?;
        self.spare.push(std::mem::replace(labels, element.labels));
        Some(element.samples)
    }

    /// No more elements come: all that wait are ready.
    pub(super) fn finish(&mut self) {
        self.waiting_bytes = 0;
        self.ready.extend(self.waiting.drain(..).rev());
    }

    /// Moves to `ready` what need not wait for `next`, nor for anything behind it.
    fn release(&mut self, next: &LabelsText) {
        while let Some(last) = self.waiting.last() {
            let extension = extension(&last.labels, next);
            if extension.is_some_and(|name| name < self.last_added.as_str()) {
                return;
            }
            if let Some(released) = self.waiting.pop() {
                let bytes = released.samples.len();
                self.waiting_bytes = self.waiting_bytes.saturating_sub(bytes);
                self.ready.push_back(released);
            }
        }
    }
}

/// The name of the label by which `longer` goes on where `labels` end, if it begins with them.
fn extension<'a>(labels: &LabelsText, longer: &'a LabelsText) -> Option<&'a str> {
    let mut rest = longer.iter();
    for label in labels.iter() {
        if rest.next() != Some(label) {
            return None;
        }
    }
    rest.next().map(|(name, _)| name)
}

#[cfg(test)]
mod tests;
