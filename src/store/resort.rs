//! Streaming re-sort: the order of series after external labels were added, without all of them.
//!
//! Series arrive sorted by their own labels. Adding external labels E₁ < … < Eₙ keeps the order of
//! any two series that differ in a label they both have a place for: the external labels stand at
//! the same places in both up to there. Only a series R whose labels are a prefix of a later S can
//! change places: behind R's labels, R goes on with the external labels that sort behind its last
//! label, S with its next label `l`. If all external labels that come into question sort before
//! `l`, they follow in both, R ends, and R is first, as before. If one sorts behind `l`, S has
//! `l` where R has that one, so S goes first. What comes into question is decided by the greatest
//! external label alone: R must wait for S exactly if `l` < Eₙ.
//!
//! The series that extend R are a contiguous run right behind it, their labels `l` ascending. So R
//! waits while the next series extends it with such an `l`, then goes out. Those that wait extend
//! each other, so they are a stack, and the last goes out first. The stack is never higher than a
//! series has labels.
//!
//! The last series to arrive always waits for the next: a long series arrives in pieces, which are
//! put together here.

use std::collections::VecDeque;

use super::{LabelSet, Series, StoreError};

/// Pieces of a series are put together up to this size; larger ones go out as several series with
/// the same labels, which StoreAPI allows.
pub(super) const JOINED_BYTES_MAX: usize = 4 << 20;

/// Puts series into the order that they have with the external labels.
#[derive(Debug)]
pub struct Resort {
    /// The greatest external label's name.
    last_added: Option<Vec<u8>>,
    /// Each extends the one below it.
    waiting: Vec<Waiting>,
    ready: VecDeque<Series>,
    waiting_bytes: usize,
}

/// A series, in the pieces that it will be sent in; there is always one.
#[derive(Debug)]
struct Waiting {
    pieces: Vec<Series>,
    bytes: usize,
    /// Whether the chunks stand in buffers of their own.
    detached: bool,
}

impl Resort {
    /// For series that get these labels added, of whose names they have none.
    pub fn new(added: &LabelSet) -> Self {
        Self {
            last_added: added.last_name().map(<[u8]>::to_vec),
            waiting: Vec::new(),
            ready: VecDeque::new(),
            waiting_bytes: 0,
        }
    }

    /// Takes the next series, or the next piece of the one before.
    ///
    /// # Errors
    /// Where it sorts before the one before.
    pub fn push(&mut self, series: Series) -> Result<(), StoreError> {
        if let Some(last) = self.waiting.last_mut() {
            match series.labels.cmp(&last.pieces[0].labels) {
                std::cmp::Ordering::Less => return Err(StoreError::OutOfOrder),
                std::cmp::Ordering::Equal => {
                    self.join(series);
                    return Ok(());
                }
                std::cmp::Ordering::Greater => self.release(Some(&series.labels)),
            }
        }
        // What something is stacked upon may wait for long, and gets no more pieces. Copied once,
        // however many come and go above it.
        if let Some(below) = self.waiting.last_mut().filter(|below| !below.detached) {
            below.pieces.iter_mut().for_each(Series::detach);
            below.detached = true;
        }
        let bytes = series.memory_bytes();
        self.waiting_bytes += bytes;
        self.waiting.push(Waiting {
            pieces: vec![series],
            bytes,
            detached: false,
        });
        Ok(())
    }

    /// The next series to send.
    pub fn pop(&mut self) -> Option<Series> {
        self.ready.pop_front()
    }

    /// No more series come: all that wait are ready.
    pub fn finish(&mut self) {
        self.release(None);
    }

    /// Bytes of the series that can't be sent yet.
    pub fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// How many series can't be sent yet.
    #[cfg(test)]
    fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Adds a piece to the series that came last.
    fn join(&mut self, piece: Series) {
        let goes_first = self.goes_before_extensions();
        let Some(last) = self.waiting.last_mut() else {
            return;
        };
        let bytes = piece.memory_bytes();
        let Some(open) = last.pieces.last_mut() else {
            return;
        };
        let fits = open.data_bytes() + piece.data_bytes() <= JOINED_BYTES_MAX;
        let before = open.memory_bytes();
        let grown = if fits {
            open.chunks.extend(piece.chunks);
            open.memory_bytes() - before
        } else {
            last.pieces.push(piece);
            bytes
        };
        last.bytes += grown;
        self.waiting_bytes += grown;
        // What waits below extends to here and goes out later, so these pieces may go now.
        if goes_first && !fits {
            let whole = last.pieces.len() - 1;
            for piece in last.pieces.drain(..whole) {
                let bytes = piece.memory_bytes();
                last.bytes = last.bytes.saturating_sub(bytes);
                self.waiting_bytes = self.waiting_bytes.saturating_sub(bytes);
                self.ready.push_back(piece);
            }
        }
    }

    /// Whether nothing that extends the last series can go before it.
    fn goes_before_extensions(&self) -> bool {
        let last = self.waiting.last().and_then(|w| w.pieces.first());
        let name = last.and_then(|series| series.labels.last_name());
        match (&self.last_added, name) {
            (None, _) => true,
            (Some(added), Some(name)) => name > added.as_slice(),
            (Some(_), None) => false,
        }
    }

    /// Moves to `ready` what need not wait for `next`, nor for anything behind it.
    fn release(&mut self, next: Option<&LabelSet>) {
        while let Some(last) = self.waiting.last() {
            let extension = next.and_then(|next| last.pieces[0].labels.extended_by(next));
            let waits = match (extension, &self.last_added) {
                (Some(name), Some(added)) => name < added.as_slice(),
                _ => false,
            };
            if waits {
                return;
            }
            if let Some(released) = self.waiting.pop() {
                self.waiting_bytes -= released.bytes;
                self.ready.extend(released.pieces);
            }
        }
    }
}

#[cfg(test)]
mod tests;
