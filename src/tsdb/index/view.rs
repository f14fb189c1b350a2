//! Random access to an index whose bytes are all at hand.

use super::layout::IndexLayout;
use super::lists::Postings;
use super::sampled_table::Positions;
use crate::tsdb::cursor::Cursor;
use crate::tsdb::decode::count;
use crate::tsdb::{DecodeError, DecodeErrorKind, Section};

/// An index to look things up in: its bytes and what was sampled of them when it was opened.
///
/// Borrowed for one call; whatever lasts longer ([`Values`], [`Postings`], `SeriesReader`) holds
/// offsets and is given the view again, that of the same index. Given another one, it answers with
/// an error or with nonsense, but does not panic.
#[derive(Clone, Copy, Debug)]
pub struct IndexView<'a> {
    pub(super) layout: &'a IndexLayout,
    pub(super) bytes: &'a [u8],
}

/// Where a postings list stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PostingsRef {
    /// Absolute offset of its length field.
    offset: u64,
}

/// A position among the values of one label name.
#[derive(Clone, Debug)]
pub struct Values {
    left: Positions,
}

impl<'a> IndexView<'a> {
    /// Version of the format: 1, 2 or 3.
    pub fn version(&self) -> u8 {
        self.layout.version
    }

    /// How many symbols there are.
    pub fn symbols(&self) -> u64 {
        self.layout.symbols.count()
    }

    /// Label names, ascending; the empty one, under which all series are listed, is left out.
    ///
    /// # Errors
    /// An item, where the file is no longer what was opened.
    pub fn label_names(&self) -> impl Iterator<Item = Result<&'a [u8], DecodeError>> + use<'a> {
        let Self { layout, bytes } = *self;
        (0..layout.table.names()).map(move |rank| {
            let first = layout.table.positions(rank).first;
            Ok(layout.table.entry(bytes, first)?.name)
        })
    }

    /// The values of a name, ascending; none where no series has it.
    ///
    /// # Errors
    /// Where the file is no longer what was opened.
    pub fn values(&self, name: &[u8]) -> Result<Values, DecodeError> {
        let table = &self.layout.table;
        let rank = table.find_name(self.bytes, name)?;
        Ok(Values {
            left: rank.map_or(Positions::NONE, |rank| table.positions(rank)),
        })
    }

    /// The same from the first value that is not below `at_least` in byte order.
    ///
    /// # Errors
    /// As [`Self::values`].
    pub fn values_from(&self, name: &[u8], at_least: &[u8]) -> Result<Values, DecodeError> {
        let table = &self.layout.table;
        let Some(rank) = table.find_name(self.bytes, name)? else {
            let left = Positions::NONE;
            return Ok(Values { left });
        };
        let left = table.find_value(self.bytes, rank, at_least)?;
        Ok(Values { left })
    }

    /// Where the series with this label are listed; `None` where there are none.
    ///
    /// # Errors
    /// As [`Self::values`].
    pub fn value(&self, name: &[u8], value: &[u8]) -> Result<Option<PostingsRef>, DecodeError> {
        let next = self.values_from(name, value)?.next(*self)?;
        Ok(next.filter(|(found, _)| *found == value).map(|(_, at)| at))
    }

    /// Where all series are listed.
    pub fn all(&self) -> PostingsRef {
        let offset = self.layout.table.all();
        PostingsRef { offset }
    }

    /// The list: its length and checksum hold, and its ids ascend strictly.
    ///
    /// # Errors
    /// Where it is not so.
    pub fn postings(&self, at: PostingsRef) -> Result<Postings, DecodeError> {
        const ID_BYTES: u64 = 4;
        let section = self.layout.postings.clone();
        let error = |offset, kind| Err(DecodeError::new(Section::Postings, offset, kind));
        if !section.contains(&at.offset) {
            return error(
                at.offset,
                DecodeErrorKind::OutOfRange {
                    what: "offset of a postings list",
                    value: at.offset,
                    low: section.start,
                    high: section.end,
                },
            );
        }
        let what = "a postings list";
        let mut cursor = Cursor::new(Section::Postings, self.bytes, at.offset..section.end)?;
        let mut body = cursor.framed(what)?;
        let length = count(body.rest().len());
        if !length.is_multiple_of(ID_BYTES) {
            return error(at.offset, DecodeErrorKind::Shape { what, length });
        }
        let declared = body.u32("a postings count")?;
        let (ids, _) = body.rest().as_chunks::<4>();
        if count(ids.len()) != u64::from(declared) {
            return error(
                at.offset,
                DecodeErrorKind::Count {
                    what: "postings",
                    declared: u64::from(declared),
                    found: count(ids.len()),
                },
            );
        }
        if !is_ascending(ids) {
            return error(at.offset, DecodeErrorKind::Order { what: "postings" });
        }
        Ok(Postings::of_list(body.offset(), declared))
    }
}

#[cfg(any(fuzzing, test, feature = "testing"))]
impl PostingsRef {
    /// Absolute offset of the list.
    pub(super) fn offset(self) -> u64 {
        self.offset
    }
}

impl Values {
    /// The next value, and where the series with it are listed.
    ///
    /// # Errors
    /// Where the file is no longer what was opened; there are no more values then.
    pub fn next<'a>(
        &mut self,
        view: IndexView<'a>,
    ) -> Result<Option<(&'a [u8], PostingsRef)>, DecodeError> {
        if self.left.first >= self.left.past {
            return Ok(None);
        }
        let entry = view.layout.table.entry(view.bytes, self.left.first);
        let entry = entry.inspect_err(|_| self.left = Positions::NONE)?;
        self.left.first = entry.next;
        let offset = entry.list;
        Ok(Some((entry.value, PostingsRef { offset })))
    }
}

/// Whether each id is above the one before. No branch an id, so that it is done for several at
/// once.
fn is_ascending(ids: &[[u8; 4]]) -> bool {
    let after = ids.get(1..).unwrap_or_default();
    let pairs = ids.iter().zip(after);
    pairs.fold(true, |is_ascending, (id, next)| {
        is_ascending & (u32::from_be_bytes(*id) < u32::from_be_bytes(*next))
    })
}

#[cfg(test)]
mod tests;
