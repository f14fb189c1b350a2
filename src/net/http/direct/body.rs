//! A response's body, read by the one who wants it.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt;
use tokio::time::Instant;

use super::head::Framing;
use super::idle::IdleConnections;
use crate::net::http::body::BodyLimit;
use crate::net::http::connect::Stream;
use crate::net::http::error::HttpError;

/// What one read asks for: large enough that a fast peer costs few calls, small enough for the
/// second-level cache.
const READ_BYTES: usize = 128 * 1024;

/// A buffer with less room than this is moved or replaced before the next read.
const SPARE_BYTES_MIN: usize = READ_BYTES / 2;

/// An open connection.
pub(super) type Connection = TokioIo<Stream>;

/// When to wait a moment before the next read.
///
/// A peer that flushes after each small message wakes a reader which keeps up once per message.
/// Once a body has turned out long, a read that brought little is followed by a pause, in which
/// more comes together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coalesce {
    /// How long from one read to the next; zero never waits.
    pub pause: Duration,
    /// A read of so many bytes is followed by the next one without a pause.
    pub enough_bytes: usize,
    /// So many bytes at a body's start come without any pause, so that neither a first message nor
    /// a short answer waits.
    pub eager_bytes: u64,
}

/// A response's body. Dropped before its end, it closes the connection at once.
pub struct DirectBody {
    /// `None` at the end.
    connection: Option<Connection>,
    framing: Framing,
    /// Received with the header, not decoded yet.
    rest: BytesMut,
    /// Where the connection goes at the end, if it may be used again.
    keeper: Option<(Arc<IdleConnections>, String)>,
    coalesce: Coalesce,
    pub(super) received_bytes: u64,
    last_read: Option<(Instant, usize)>,
    /// A broken body has no end.
    is_broken: bool,
    reads: u64,
}

// === impl DirectBody ===

impl DirectBody {
    pub(super) fn new(
        connection: Connection,
        framing: Framing,
        rest: BytesMut,
        keeper: Option<(Arc<IdleConnections>, String)>,
        coalesce: Coalesce,
    ) -> Self {
        let is_empty = matches!(framing, Framing::Length(0));
        let mut body = Self {
            connection: Some(connection),
            framing,
            rest,
            keeper,
            coalesce,
            received_bytes: 0,
            last_read: None,
            is_broken: false,
            reads: 0,
        };
        if is_empty {
            let after = body.rest.len();
            body.finish(after);
        }
        body
    }

    /// Appends the next bytes of the body to `buffer`; false at the end. May be dropped and
    /// called again without loss.
    ///
    /// # Errors
    /// Where the connection breaks or closes inside the body, or its framing is broken.
    pub async fn fill(&mut self, buffer: &mut BytesMut) -> Result<bool, HttpError> {
        let before = buffer.len();
        if self.is_broken {
            let source = io::Error::other("the body is broken");
            return Err(HttpError::Interrupted { source });
        }
        let filled = self.fill_from_connection(buffer).await;
        match filled {
            Ok(()) => Ok(buffer.len() > before),
            Err(source) => {
                self.connection = None;
                self.is_broken = true;
                Err(HttpError::Interrupted { source })
            }
        }
    }

    /// Whether the peer says where the body ends. One that ends with its connection may have been
    /// cut short unnoticed.
    pub fn is_delimited(&self) -> bool {
        !matches!(self.framing, Framing::UntilClose)
    }

    /// How often the connection was read.
    pub fn reads(&self) -> u64 {
        self.reads
    }

    /// The whole body.
    ///
    /// # Errors
    /// As [`Self::fill`], and [`HttpError::BodyTooLarge`] past `limit`; no more than the limit
    /// and one read is ever held.
    pub async fn read(mut self, limit: BodyLimit) -> Result<BytesMut, HttpError> {
        let mut whole = BytesMut::new();
        while self.fill(&mut whole).await? {
            if whole.len() > limit.bytes {
                return Err(limit.exceeded());
            }
        }
        Ok(whole)
    }

    async fn fill_from_connection(&mut self, buffer: &mut BytesMut) -> io::Result<()> {
        let start = buffer.len();
        if !self.rest.is_empty() {
            buffer.unsplit(self.rest.split());
            self.decode(buffer, start)?;
        }
        while buffer.len() == start {
            self.pause().await;
            let Some(connection) = &mut self.connection else {
                return Ok(());
            };
            if buffer.capacity().saturating_sub(buffer.len()) < SPARE_BYTES_MIN {
                // Reuses the allocation once nobody holds a view of it.
                buffer.reserve(READ_BYTES);
            }
            let read = connection.read_buf(buffer).await?;
            if read == 0 {
                self.framing.at_eof()?;
                self.connection = None;
                return Ok(());
            }
            self.reads = self.reads.saturating_add(1);
            self.received_bytes = self.received_bytes.saturating_add(read as u64);
            self.last_read = Some((Instant::now(), read));
            self.decode(buffer, start)?;
        }
        Ok(())
    }

    fn decode(&mut self, buffer: &mut BytesMut, start: usize) -> io::Result<()> {
        let (is_done, after) = self.framing.decode(buffer, start)?;
        if is_done {
            self.finish(after);
        }
        Ok(())
    }

    async fn pause(&self) {
        let Some((at, read)) = self.last_read else {
            return;
        };
        if self.received_bytes > self.coalesce.eager_bytes && read < self.coalesce.enough_bytes {
            tokio::time::sleep_until(at + self.coalesce.pause).await;
        }
    }

    /// The connection is kept unless the peer sent what nobody asked for.
    fn finish(&mut self, bytes_after: usize) {
        if let Some(connection) = self.connection.take()
            && let Some((idle, origin)) = self.keeper.take()
            && bytes_after == 0
        {
            idle.put(origin, connection);
        }
    }
}

impl fmt::Debug for DirectBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirectBody")
            .field("framing", &self.framing)
            .field("received_bytes", &self.received_bytes)
            .finish_non_exhaustive()
    }
}
