//! The symbol table of an open index: its offsets sampled, its texts left where they are.

use super::symbols::within_limit;
use super::toc::IndexToc;
use crate::tsdb::cursor::Cursor;
use crate::tsdb::decode::{Uvarint, count, decode_uvarint};
use crate::tsdb::{DecodeError, DecodeErrorKind, Section};

/// One symbol in that many is kept, as Prometheus does: 128 KiB for a million symbols, and a
/// lookup passes over 16 lengths on average, which lie in a few cache lines.
const SAMPLED_EVERY: usize = 32;

/// Where symbols stand.
#[derive(Debug)]
pub(super) struct SampledSymbols {
    /// Absolute offset of the first symbol's length.
    start: u64,
    /// Absolute offset after the last symbol.
    end: u64,
    count: u64,
    /// Offsets from `start` of every 32nd symbol's length, the first one included. The format
    /// holds the table below 4 GiB.
    samples: Vec<u32>,
    /// What references are.
    has_offsets: bool,
    /// The table's checksum: with the length it tells this table from that of another index.
    crc: u32,
}

/// Where the text of one symbol stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SymbolText {
    /// Offset from the first symbol's length.
    at: u32,
    /// Bytes.
    length: u32,
}

impl SymbolText {
    /// The place of nothing: no text is that long.
    pub(super) const NONE: Self = Self {
        at: 0,
        length: u32::MAX,
    };
}

impl SampledSymbols {
    /// Walks the table once: checksum, count, lengths, strictly ascending order, UTF-8.
    pub(super) fn read(file: &[u8], toc: &IndexToc, version: u8) -> Result<Self, DecodeError> {
        let mut section = Cursor::new(Section::Symbols, file, toc.symbols..toc.series)?;
        let mut body = section.framed("the symbol table")?;
        let crc = crc_before(file, section.offset());
        let start = body.offset();
        let declared = u64::from(body.u32("the symbol count")?);
        let found_at_most = count(body.rest().len());
        if declared > found_at_most {
            return Err(DecodeError::new(
                Section::Symbols,
                start,
                DecodeErrorKind::Count {
                    what: "symbols",
                    declared,
                    found: found_at_most,
                },
            ));
        }
        let entries = body.rest();
        let start = body.offset();
        let walk = Walk {
            entries,
            start,
            declared,
        };
        Ok(Self {
            start,
            end: start.saturating_add(count(entries.len())),
            count: declared,
            samples: walk.sample()?,
            has_offsets: version == 1,
            crc,
        })
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.samples.capacity().saturating_mul(size_of::<u32>())
    }

    /// A number that differs from that of another table, save with the probability that a CRC
    /// misses a difference.
    pub(super) fn identity(&self) -> u64 {
        let length = self.end.saturating_sub(self.start);
        length.wrapping_shl(32) ^ u64::from(self.crc)
    }

    /// The text of a symbol by its reference, which stands in the series entry at `entry_at`.
    ///
    /// # Errors
    /// Where there is no such symbol.
    pub(super) fn find(
        &self,
        file: &[u8],
        reference: u32,
        entry_at: u64,
    ) -> Result<SymbolText, DecodeError> {
        let wrong = || DecodeError::new(Section::Series, entry_at, self.out_of_range(reference));
        let (sample, passed) = self.sample_before(reference).ok_or_else(wrong)?;
        let entries = self.entries(file)?;
        let mut at = sample as usize;
        for _ in 0..passed {
            at = skip_text(entries, at).ok_or_else(|| self.damaged(at))?;
            if self.has_offsets && at >= self.relative(reference) {
                break;
            }
        }
        if self.has_offsets && at != self.relative(reference) {
            // Not the start of a symbol.
            return Err(wrong());
        }
        let (text, length) = text_at(entries, at).ok_or_else(|| self.damaged(at))?;
        Ok(SymbolText { at: text, length })
    }

    /// The bytes of a text that [`SampledSymbols::find`] found in the same file.
    #[inline]
    pub(super) fn text<'a>(&self, file: &'a [u8], text: SymbolText) -> Option<&'a [u8]> {
        let start = usize::try_from(self.start).ok()?;
        let from = start.checked_add(text.at as usize)?;
        file.get(from..from.checked_add(text.length as usize)?)
    }

    /// A sampled offset at or before the symbol, and how many symbols to pass over from there; of
    /// version 1, at most how many.
    fn sample_before(&self, reference: u32) -> Option<(u32, usize)> {
        if self.has_offsets {
            let reference = Some(u64::from(reference)).filter(|at| *at < self.end)?;
            let relative = reference.checked_sub(self.start)?;
            let relative = u32::try_from(relative).ok()?;
            let after = self.samples.partition_point(|&sample| sample <= relative);
            let sample = *self.samples.get(after.checked_sub(1)?)?;
            let passed = if sample == relative { 0 } else { SAMPLED_EVERY };
            return Some((sample, passed));
        }
        let ordinal = Some(reference).filter(|&ordinal| u64::from(ordinal) < self.count)? as usize;
        let sample = self.samples.get(ordinal.wrapping_div(SAMPLED_EVERY))?;
        Some((*sample, ordinal.wrapping_rem(SAMPLED_EVERY)))
    }

    fn relative(&self, reference: u32) -> usize {
        let relative = u64::from(reference).saturating_sub(self.start);
        usize::try_from(relative).unwrap_or(usize::MAX)
    }

    fn entries<'a>(&self, file: &'a [u8]) -> Result<&'a [u8], DecodeError> {
        Ok(Cursor::new(Section::Symbols, file, self.start..self.end)?.rest())
    }

    /// The walk has read this; only a file that has changed since is so.
    #[cold]
    fn damaged(&self, at: usize) -> DecodeError {
        let inside = "a symbol";
        let offset = self.start.saturating_add(count(at));
        let kind = DecodeErrorKind::Truncated { inside };
        DecodeError::new(Section::Symbols, offset, kind)
    }

    #[cold]
    fn out_of_range(&self, reference: u32) -> DecodeErrorKind {
        let (low, high) = match self.has_offsets {
            true => (self.start, self.end),
            false => (0, self.count),
        };
        DecodeErrorKind::OutOfRange {
            what: "symbol reference",
            value: u64::from(reference),
            low,
            high,
        }
    }
}

/// The one walk of the table.
struct Walk<'a> {
    entries: &'a [u8],
    start: u64,
    declared: u64,
}

impl<'a> Walk<'a> {
    fn sample(&self) -> Result<Vec<u32>, DecodeError> {
        let symbols = usize::try_from(self.declared).unwrap_or(usize::MAX);
        // No more than there are bytes for.
        let mut samples = Vec::with_capacity(symbols.div_ceil(SAMPLED_EVERY));
        let mut previous = None;
        let mut left = symbols;
        let mut at = 0_usize;
        while left > 0 {
            samples.push(u32::try_from(at).unwrap_or(u32::MAX));
            let group = left.min(SAMPLED_EVERY);
            at = self.group(at, group, &mut previous)?;
            left = left.saturating_sub(group);
        }
        let offset = self.start.saturating_add(count(at));
        let rest = self.entries.get(at..).unwrap_or_default();
        Cursor::of_bytes(Section::Symbols, rest, offset).expect_end("the last symbol")?;
        Ok(samples)
    }

    /// Checks the symbols between two samples.
    fn group(
        &self,
        start: usize,
        symbols: usize,
        previous: &mut Option<&'a [u8]>,
    ) -> Result<usize, DecodeError> {
        let mut at = start;
        for _ in 0..symbols {
            let (text, end) = self.symbol(at)?;
            if previous.is_some_and(|previous| text <= previous) {
                return Err(self.error(at, DecodeErrorKind::Order { what: "symbols" }));
            }
            *previous = Some(text);
            at = end;
        }
        // Nearly all are ASCII, their lengths too, which one look at all of them tells.
        if self.entries.get(start..at).is_some_and(<[u8]>::is_ascii) {
            return Ok(at);
        }
        let mut again = start;
        while again < at {
            let (text, end) = self.symbol(again)?;
            if str::from_utf8(text).is_err() {
                return Err(self.error(again, DecodeErrorKind::NotUtf8 { what: "symbol" }));
            }
            again = end;
        }
        Ok(at)
    }

    /// The symbol at an offset, and where it ends.
    #[inline]
    fn symbol(&self, at: usize) -> Result<(&'a [u8], usize), DecodeError> {
        let ahead = self.entries.get(at..).unwrap_or_default();
        if let [length @ 0..0x80, rest @ ..] = ahead
            && let Some(text) = rest.get(..usize::from(*length))
        {
            let end = at.wrapping_add(1).wrapping_add(text.len());
            return Ok((text, end));
        }
        let offset = self.start.saturating_add(count(at));
        let mut cursor = Cursor::of_bytes(Section::Symbols, ahead, offset);
        let what = "symbol length";
        let length = cursor.uvarint(what)?;
        within_limit(what, length).map_err(|kind| self.error(at, kind))?;
        let text = cursor.take(length, offset, "a symbol")?;
        let read = cursor.offset().saturating_sub(offset);
        let read = usize::try_from(read).unwrap_or(usize::MAX);
        Ok((text, at.saturating_add(read)))
    }

    #[cold]
    fn error(&self, at: usize, kind: DecodeErrorKind) -> DecodeError {
        let offset = self.start.saturating_add(count(at));
        DecodeError::new(Section::Symbols, offset, kind)
    }
}

/// Offset after the text whose length stands at `at`, in a table that has been walked.
#[inline]
fn skip_text(entries: &[u8], at: usize) -> Option<usize> {
    let Uvarint::Value(length, bytes) = decode_uvarint(entries.get(at..)?) else {
        return None;
    };
    at.checked_add(bytes)?
        .checked_add(usize::try_from(length).ok()?)
}

/// Offset and length of the text whose length stands at `at`, in a table that has been walked.
fn text_at(entries: &[u8], at: usize) -> Option<(u32, u32)> {
    let end = skip_text(entries, at)?;
    let Uvarint::Value(length, bytes) = decode_uvarint(entries.get(at..)?) else {
        return None;
    };
    entries.get(at..end)?;
    let text = at.checked_add(bytes)?;
    Some((u32::try_from(text).ok()?, u32::try_from(length).ok()?))
}

/// The checksum that ends at an offset.
fn crc_before(file: &[u8], end: u64) -> u32 {
    let bytes = usize::try_from(end).ok().and_then(|end| file.get(..end));
    let crc = bytes.and_then(<[u8]>::last_chunk);
    crc.copied().map_or(0, u32::from_be_bytes)
}
