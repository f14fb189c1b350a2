//! The span of a block on its way to the bucket.

use std::pin::pin;

use super::scan::Candidate;
use super::shipper::Shipper;
use super::upload::UploadError;
use crate::model::{BlockId, ErrorChain};
use crate::trace::Span;

impl Shipper {
    /// Ships a block, for which these flushed ones leave the bucket; in a span of its own, as
    /// nobody asked for it.
    pub(super) async fn ship(
        &mut self,
        candidate: &Candidate,
        leaving: &[BlockId],
    ) -> Result<(), UploadError> {
        let tracer = self.tracer.as_ref();
        let span = tracer.map_or_else(Span::none, |tracer| tracer.root("ship_block"));
        span.note_with("block", || candidate.id.to_string());
        let outcome = span
            .around(pin!(self.ship_in_span(candidate, leaving)))
            .await;
        if let Err(error) = &outcome {
            span.fail(&ErrorChain(error));
        }
        outcome
    }
}
