//! Prometheus as the services that pass on its answers see it.

use std::future::Future;

use prost_types::Timestamp;

use super::store::store_status;
use crate::model::ExternalLabels;
use crate::net::grpc::Status;
use crate::prometheus::{Answer, ApiTime, Client, PeerError, PeerWatch};
use crate::store::{Gate, Running, StoreError};

/// Its client and its external labels.
#[derive(Debug)]
pub(super) struct Peer {
    client: Client,
    watch: PeerWatch,
    /// Answers that are held whole take turns.
    whole_answers: Gate,
}

impl Peer {
    pub(super) fn new(client: Client, watch: PeerWatch, whole_answers: Gate) -> Self {
        Self {
            client,
            watch,
            whole_answers,
        }
    }

    /// Waits for a turn to hold an answer, which ends when the result is dropped.
    pub(super) async fn turn(&self) -> Result<Running, Status> {
        let turn = self.whole_answers.enter().await;
        turn.map_err(|error| store_status(&error))
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn external_labels(&self) -> ExternalLabels {
        self.watch.state.borrow().labels.clone()
    }

    /// The answer, or the status that its failure means.
    pub(super) async fn answer<T>(
        &self,
        asking: impl Future<Output = Result<Answer<T>, PeerError>>,
    ) -> Result<Answer<T>, Status> {
        let answer = asking.await;
        answer.map_err(|error| store_status(&StoreError::from(error)))
    }
}

pub(super) fn timestamp(time: ApiTime) -> Timestamp {
    Timestamp {
        seconds: time.seconds,
        nanos: time.nanos,
    }
}
