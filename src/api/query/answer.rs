//! The answer to a query, written as its elements come. Samples are what Prometheus wrote: their
//! bytes are copied once, into the piece that is sent, or not at all where they are many.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::body::Pieces;
use super::label_text::{write_labels, write_string};
use crate::query::{Evaluated, QueryError, ResultType};

/// A piece is sent once it is so long: a frame and a write for each series would cost more than
/// the copy.
pub(super) const PIECE_BYTES: usize = 64 << 10;
/// Samples of one element from here on are a piece of their own.
const SAMPLES_APART_BYTES: usize = 32 << 10;

/// An answer in the making.
pub(super) struct QueryAnswer {
    evaluated: Evaluated,
    piece: BytesMut,
    ready: VecDeque<Bytes>,
    elements: u64,
    is_ended: bool,
}

impl QueryAnswer {
    pub(super) fn new(evaluated: Evaluated) -> Self {
        let mut piece = BytesMut::with_capacity(PIECE_BYTES);
        piece.extend_from_slice(b"{\"status\":\"success\",\"data\":{\"resultType\":\"");
        let (name, is_list) = shape(evaluated.result_type());
        piece.extend_from_slice(name);
        piece.extend_from_slice(b"\",\"result\":");
        if is_list {
            piece.extend_from_slice(b"[");
        }
        Self {
            evaluated,
            piece,
            ready: VecDeque::new(),
            elements: 0,
            is_ended: false,
        }
    }

    /// Makes at least one piece.
    async fn make(&mut self) -> Result<(), QueryError> {
        let (_, is_list) = shape(self.evaluated.result_type());
        while self.piece.len() < PIECE_BYTES {
            let Some(element) = self.evaluated.next().await? else {
                self.is_ended = true;
                break;
            };
            if self.elements > 0 {
                self.piece.extend_from_slice(b",");
            }
            self.elements += 1;
            if is_list {
                self.piece.extend_from_slice(b"{\"metric\":");
                write_labels(&mut self.piece, element.labels.iter());
                self.piece.extend_from_slice(b",");
            }
            match element.samples.len() < SAMPLES_APART_BYTES {
                true => self.piece.extend_from_slice(&element.samples),
                false => {
                    self.ready.push_back(self.piece.split().freeze());
                    self.ready.push_back(element.samples);
                }
            }
            if is_list {
                self.piece.extend_from_slice(b"}");
            }
            if !self.ready.is_empty() {
                return Ok(());
            }
        }
        if self.is_ended {
            self.end(is_list);
        }
        self.ready.push_back(self.piece.split().freeze());
        self.piece.reserve(PIECE_BYTES);
        Ok(())
    }

    /// What stands behind the elements, in Prometheus' order.
    fn end(&mut self, is_list: bool) {
        let (out, trailer) = (&mut self.piece, self.evaluated.trailer());
        if is_list {
            out.extend_from_slice(b"]");
        }
        if let Some(stats) = &trailer.stats {
            out.extend_from_slice(b",\"stats\":");
            out.extend_from_slice(stats);
        }
        out.extend_from_slice(b"}");
        write_texts(out, "warnings", &trailer.warnings);
        write_texts(out, "infos", &trailer.infos);
        out.extend_from_slice(b"}");
    }
}

impl Pieces for QueryAnswer {
    type Error = QueryError;

    async fn next_piece(&mut self) -> Result<Option<Bytes>, QueryError> {
        if self.ready.is_empty() && !self.is_ended {
            self.make().await?;
        }
        Ok(self.ready.pop_front())
    }
}

/// A member with a list of texts, where there are any.
pub(super) fn write_texts(out: &mut BytesMut, name: &str, texts: &[String]) {
    for (at, text) in texts.iter().enumerate() {
        match at {
            0 => {
                out.extend_from_slice(b",");
                write_string(out, name);
                out.extend_from_slice(b":[");
            }
            _ => out.extend_from_slice(b","),
        }
        write_string(out, text);
    }
    if !texts.is_empty() {
        out.extend_from_slice(b"]");
    }
}

/// The name of a type, and whether it is a list of elements with labels.
fn shape(of: ResultType) -> (&'static [u8], bool) {
    match of {
        ResultType::Vector => (b"vector", true),
        ResultType::Matrix => (b"matrix", true),
        ResultType::Scalar => (b"scalar", false),
        ResultType::String => (b"string", false),
    }
}
