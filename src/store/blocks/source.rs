//! Series of local blocks as a stream: batches are read on blocking threads, one ahead of what is
//! being sent.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::reader::{BlockReader, Step};
use crate::lifecycle::{blocking, finished};
use crate::store::{Series, SeriesSource, StoreError};
use crate::trace::Span;

/// Series of one call. Dropping it ends the reading with the batch that is under way.
#[derive(Debug)]
pub(super) struct BlockSource {
    readers: Arc<Semaphore>,
    ready: std::vec::IntoIter<Series>,
    under_way: Option<JoinHandle<Read>>,
    span: Span,
    sent_series: u64,
}

/// What came, and the reader for what is next.
#[derive(Debug)]
struct Read {
    step: Result<Step, StoreError>,
    reader: Box<BlockReader>,
}

impl BlockSource {
    /// Begins to read; `readers` bounds how many threads read blocks at once. `span` ends with
    /// this.
    pub(super) fn new(reader: BlockReader, readers: Arc<Semaphore>, span: Span) -> Self {
        let mut source = Self {
            readers,
            ready: Vec::new().into_iter(),
            under_way: None,
            span,
            sent_series: 0,
        };
        source.read_on(Box::new(reader));
        source
    }

    fn read_on(&mut self, reader: Box<BlockReader>) {
        let readers = Arc::clone(&self.readers);
        self.under_way = Some(tokio::spawn(async move {
            // Never closed.
            let permit = readers.acquire_owned().await;
            let read = move || {
                let mut reader = reader;
                let step = reader.step();
                drop(permit);
                Read { step, reader }
            };
            blocking(read).await
        }));
    }
}

impl SeriesSource for BlockSource {
    type Item = Series;

    async fn next(&mut self) -> Result<Option<Series>, StoreError> {
        loop {
            if let Some(series) = self.ready.next() {
                return Ok(Some(series));
            }
            let Some(under_way) = &mut self.under_way else {
                return Ok(None);
            };
            let read = finished(under_way).await;
            self.under_way = None;
            let step = read.step.inspect_err(|error| self.span.fail(error))?;
            self.sent_series += step.series.len() as u64;
            if !step.is_over {
                self.read_on(read.reader);
            }
            self.ready = step.series.into_iter();
        }
    }
}

impl Drop for BlockSource {
    /// What waits for a thread does not begin.
    fn drop(&mut self) {
        if let Some(under_way) = &self.under_way {
            under_way.abort();
        }
        self.span.count("processed.series", self.sent_series);
    }
}
