//! Series on their way out: one to a message, or in batches.

use bytes::BytesMut;

use super::encode::{TimeSeries, field_len, put_head};
use crate::net::grpc::{BATCH_BYTES, MessageSink, Status};

/// Field tags of a response and of a batch; both have one byte.
mod tag {
    pub(super) const RESPONSE_SERIES: u8 = 0x12;
    pub(super) const RESPONSE_BATCH: u8 = 0x22;
    pub(super) const BATCH_SERIES: u8 = 0x0A;
}

/// The most series in a message, whatever the client asks for; queriers ask for 64.
const BATCH_SERIES_MAX: usize = 1024;

/// Sends series as the client wants them, and waits while it takes none.
#[derive(Debug)]
pub(super) struct SeriesOutbox<'a> {
    sink: &'a mut MessageSink,
    /// At most so many in a message; 1: messages without batches.
    batch_series: usize,
    /// Series of the batch that is being gathered, encoded: how long they are has to be known
    /// before the first is written. That is one copy of each, and one buffer for all.
    batch: BytesMut,
    held: usize,
}

impl<'a> SeriesOutbox<'a> {
    pub(super) fn new(sink: &'a mut MessageSink, response_batch_size: i64) -> Self {
        Self {
            sink,
            batch_series: batch_series(response_batch_size),
            batch: BytesMut::new(),
            held: 0,
        }
    }

    /// Sends a series, or keeps it for its batch.
    ///
    /// # Errors
    /// Where the client is gone.
    pub(super) async fn push<'s, L>(&mut self, series: &TimeSeries<'s, L>) -> Result<(), Status>
    where
        L: Iterator<Item = (&'s str, &'s str)> + Clone + Send + Sync,
    {
        let len = series.encoded_len();
        if self.batch_series == 1 {
            let encode = |out: &mut BytesMut| {
                put_head(tag::RESPONSE_SERIES, len, out);
                series.write(out);
            };
            return self.sink.send(field_len(len), encode).await;
        }
        self.batch.reserve(field_len(len));
        put_head(tag::BATCH_SERIES, len, &mut self.batch);
        series.write(&mut self.batch);
        self.held += 1;
        // The bytes bound what is held here; clients take batches of any size.
        if self.held >= self.batch_series || self.batch.len() >= BATCH_BYTES {
            self.send_batch().await?;
        }
        Ok(())
    }

    /// Sends what is left.
    ///
    /// # Errors
    /// Where the client is gone.
    pub(super) async fn finish(mut self) -> Result<(), Status> {
        match self.held {
            0 => Ok(()),
            _ => self.send_batch().await,
        }
    }

    async fn send_batch(&mut self) -> Result<(), Status> {
        let batch = &self.batch;
        let encode = |out: &mut BytesMut| {
            put_head(tag::RESPONSE_BATCH, batch.len(), out);
            out.extend_from_slice(batch);
        };
        self.sink.send(field_len(batch.len()), encode).await?;
        self.batch.clear();
        self.held = 0;
        Ok(())
    }
}

fn batch_series(response_batch_size: i64) -> usize {
    let asked = usize::try_from(response_batch_size).unwrap_or(1);
    asked.clamp(1, BATCH_SERIES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_as_large_as_asked_within_the_limit() {
        for (asked, series) in [
            (i64::MIN, 1),
            (-1, 1),
            (0, 1),
            (1, 1),
            (2, 2),
            (64, 64),
            (1024, 1024),
            (1025, 1024),
            (i64::MAX, 1024),
        ] {
            assert_eq!(batch_series(asked), series, "{asked}");
        }
    }
}
