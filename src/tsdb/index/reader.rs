//! Series entries of an index whose bytes are all at hand.

use super::SERIES_LABELS_MAX;
use super::sampled_symbols::SymbolText;
use super::series::{ChunkMeta, reference_after, time_after};
use super::view::IndexView;
use crate::model::TimestampMs;
use crate::tsdb::cursor::Cursor;
use crate::tsdb::decode::{count, decode_uvarints, unzigzag};
use crate::tsdb::{ChunkRef, DecodeError, DecodeErrorKind, Section};

/// The most chunks one series of an index may have where it is read at random; 24 bytes each are
/// in memory. 120 samples in each, at one a second, are four years; one sample in each, twelve
/// days.
pub const SERIES_CHUNKS_MAX: u64 = 1 << 20;

/// What the reader keeps from one series to the next, chunks; more are given back.
const KEPT_CHUNKS: usize = 1 << 10;

/// Symbols whose places are remembered, 12 bytes each. Series that follow each other share most
/// labels, which the series before remembers by itself; these are the names and values that come
/// again after a while. Ordinals that lie close to each other do not push each other out.
const CACHED_SYMBOLS: usize = 1 << 10;

/// Series ids of versions 2 and 3 count in this many bytes.
const ID_UNIT: u64 = 16;

/// Reads series entries, one after the other. It holds places of texts, not texts, and allocates
/// only when a series has more labels or chunks than any before. 12 KiB once it has read.
#[derive(Debug, Default)]
pub struct SeriesReader {
    /// Those of the series read last come first; after them stand some of older ones.
    labels: Vec<Label>,
    labels_read: usize,
    /// How many of the first labels are those of the series read before.
    same_labels: usize,
    chunks: Vec<ChunkMeta>,
    cache: Vec<Symbol>,
    /// The symbol table that all places are of.
    identity: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Label {
    name: Symbol,
    value: Symbol,
}

/// A symbol's reference and place.
#[derive(Clone, Copy, Debug)]
struct Symbol {
    reference: u32,
    text: SymbolText,
}

impl SeriesReader {
    /// A reader that has read nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads the entry of the series with this id, whose checksum is proven first.
    ///
    /// # Errors
    /// Where no entry can stand there, or it is broken; the reader then has no labels and no
    /// chunks.
    pub fn read(&mut self, view: IndexView<'_>, id: u32) -> Result<(), DecodeError> {
        let labels_before = std::mem::take(&mut self.labels_read);
        self.same_labels = 0;
        self.chunks.clear();
        self.chunks.shrink_to(KEPT_CHUNKS);
        let read = self.read_entry(view, id, labels_before);
        if read.is_err() {
            self.labels_read = 0;
            self.chunks.clear();
        }
        read
    }

    /// The labels of the series read last, strictly ascending by name; names and values are UTF-8,
    /// which was proven when the index was opened. The view is the one that it was read from.
    pub fn labels<'a>(
        &self,
        view: IndexView<'a>,
    ) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a, '_> {
        let read = self.labels.get(..self.labels_read).unwrap_or_default();
        // Of another file a text may not be there.
        let text = move |symbol: Symbol| {
            let text = view.layout.symbols.text(view.bytes, symbol.text);
            text.unwrap_or_default()
        };
        read.iter()
            .map(move |label| (text(label.name), text(label.value)))
    }

    /// How many of the first labels of the series read last are those that the series read before
    /// it began with; neighbours share most. 0 where that one could not be read.
    pub fn same_labels(&self) -> usize {
        self.same_labels
    }

    /// The chunks of the series read last, in the order of time, none of them overlapping.
    pub fn chunks(&self) -> &[ChunkMeta] {
        &self.chunks
    }

    fn read_entry(
        &mut self,
        view: IndexView<'_>,
        id: u32,
        labels_before: usize,
    ) -> Result<(), DecodeError> {
        let layout = view.layout;
        let series = layout.series.clone();
        let unit = if layout.version == 1 { 1 } else { ID_UNIT };
        let start = u64::from(id).saturating_mul(unit);
        if !series.contains(&start) {
            let kind = DecodeErrorKind::OutOfRange {
                what: "offset of a series entry",
                value: start,
                low: series.start,
                high: series.end,
            };
            return Err(DecodeError::new(Section::Series, start, kind));
        }
        let identity = Some(layout.symbols.identity());
        if self.identity != identity {
            self.identity = identity;
            self.labels.clear();
            self.cache.clear();
            self.cache.resize(CACHED_SYMBOLS, Symbol::NONE);
        }
        let mut cursor = Cursor::new(Section::Series, view.bytes, start..series.end)?;
        let length = cursor.uvarint("series entry length")?;
        let mut body = cursor.checked(length, start, "a series entry")?;
        let same = self.read_labels(view, &mut body, start)?;
        self.same_labels = same.min(labels_before);
        self.read_chunks(&mut body)?;
        body.expect_end("the last chunk of the series")
    }

    /// Returns how many of the first labels stood there before.
    fn read_labels(
        &mut self,
        view: IndexView<'_>,
        body: &mut Cursor<'_>,
        entry_at: u64,
    ) -> Result<usize, DecodeError> {
        let labels = limited(body, "number of labels", SERIES_LABELS_MAX)?;
        let mut previous_name = None;
        let mut same = 0;
        for at in 0..labels {
            let references = match decode_uvarints(body.rest()) {
                Some([(name, _), (value, end)]) => {
                    body.skip(end);
                    [name, value]
                }
                None => [
                    body.uvarint("label name reference")?,
                    body.uvarint("label value reference")?,
                ],
            };
            let [Ok(name), Ok(value)] = references.map(u32::try_from) else {
                let what = "symbol reference";
                return Err(body.error(DecodeErrorKind::Varint { what }));
            };
            // Symbols ascend strictly, so their references do as their texts.
            if previous_name.is_some_and(|previous| name <= previous) {
                return Err(body.error(DecodeErrorKind::Order { what: "labels" }));
            }
            previous_name = Some(name);
            let is_same = self.set_label(view, at, [name, value], entry_at)?;
            if is_same && same == at {
                same = at.saturating_add(1);
            }
        }
        self.labels_read = labels;
        Ok(same)
    }

    #[inline]
    fn set_label(
        &mut self,
        view: IndexView<'_>,
        at: usize,
        [name, value]: [u32; 2],
        entry_at: u64,
    ) -> Result<bool, DecodeError> {
        // What the series before had in this place is nearly always the name, often the value.
        let before = self.labels.get(at).copied();
        let before = before.unwrap_or(Label {
            name: Symbol::NONE,
            value: Symbol::NONE,
        });
        let mut label = before;
        let is_same = before.name.is(name) && before.value.is(value);
        if !before.name.is(name) {
            label.name = self.symbol(view, name, entry_at)?;
        }
        if !before.value.is(value) {
            label.value = self.symbol(view, value, entry_at)?;
        }
        match self.labels.get_mut(at) {
            Some(slot) => *slot = label,
            None => self.labels.push(label),
        }
        Ok(is_same)
    }

    fn symbol(
        &mut self,
        view: IndexView<'_>,
        reference: u32,
        entry_at: u64,
    ) -> Result<Symbol, DecodeError> {
        let slot = (reference as usize).wrapping_rem(CACHED_SYMBOLS);
        let cached = self.cache.get(slot).copied();
        if let Some(cached) = cached.filter(|cached| cached.is(reference)) {
            return Ok(cached);
        }
        let symbols = &view.layout.symbols;
        let text = symbols.find(view.bytes, reference, entry_at)?;
        let found = Symbol { reference, text };
        if let Some(slot) = self.cache.get_mut(slot) {
            *slot = found;
        }
        Ok(found)
    }

    fn read_chunks(&mut self, body: &mut Cursor<'_>) -> Result<(), DecodeError> {
        let chunks = limited(body, "number of chunks", SERIES_CHUNKS_MAX)?;
        let mut last: Option<ChunkMeta> = None;
        for _ in 0..chunks {
            let start = *body;
            let [gap, span, reference] = match decode_uvarints(body.rest()) {
                Some([(gap, _), (span, _), (reference, end)]) => {
                    body.skip(end);
                    [gap, span, reference]
                }
                None => [
                    body.uvarint("chunk mint")?,
                    body.uvarint("chunk maxt")?,
                    body.uvarint("chunk reference")?,
                ],
            };
            let chunk = chunk_after(last, gap, span, reference);
            let chunk = chunk.map_err(|kind| start.error(kind))?;
            self.chunks.push(chunk);
            last = Some(chunk);
        }
        Ok(())
    }
}

impl Symbol {
    /// None is that long.
    const NONE: Self = Self {
        reference: 0,
        text: SymbolText::NONE,
    };

    #[inline]
    fn is(self, reference: u32) -> bool {
        self.reference == reference && self.text != SymbolText::NONE
    }
}

/// The chunk that the three numbers of an entry tell, after the one before.
#[inline]
fn chunk_after(
    last: Option<ChunkMeta>,
    gap: u64,
    span: u64,
    reference: u64,
) -> Result<ChunkMeta, DecodeErrorKind> {
    let (mint, reference) = match last {
        None => (TimestampMs(unzigzag(gap)), ChunkRef(reference)),
        Some(last) => (
            time_after(last.maxt, gap)?,
            reference_after(last.reference, unzigzag(reference))?,
        ),
    };
    if let Some(last) = last.filter(|last| mint <= last.maxt) {
        return Err(DecodeErrorKind::ChunkOverlap {
            mint: mint.0,
            previous_maxt: last.maxt.0,
        });
    }
    Ok(ChunkMeta {
        mint,
        maxt: time_after(mint, span)?,
        reference,
    })
}

/// The next number, which says how many things follow in the entry, at least a byte each.
fn limited(body: &mut Cursor<'_>, what: &'static str, limit: u64) -> Result<usize, DecodeError> {
    let before = *body;
    let value = body.uvarint(what)?;
    if value > limit {
        return Err(before.error(DecodeErrorKind::Limit { what, value, limit }));
    }
    let available = count(body.rest().len());
    if value > available {
        return Err(before.error(DecodeErrorKind::Count {
            what,
            declared: value,
            found: available,
        }));
    }
    Ok(usize::try_from(value).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests;
