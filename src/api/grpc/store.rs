//! `thanos.Store`: the calls of StoreAPI, answered by `crate::store`.

use std::future::Future;

use bytes::BytesMut;

use super::wire::{reply, request};
use crate::model::ErrorChain;
use crate::net::grpc::{Call, Code, MessageSink, Status};
use crate::store::{ErrorClass, LocalUpstream, SeriesSink, SinkClosed, Store, StoreError};

/// Answers from a store.
#[derive(Debug)]
pub(super) struct StoreService {
    store: Store<LocalUpstream>,
}

/// A sink of the store's that is a call's.
struct CallSink<'a>(&'a mut MessageSink);

impl StoreService {
    pub(super) fn new(store: Store<LocalUpstream>) -> Self {
        Self { store }
    }

    pub(super) async fn series(&self, mut call: Call) -> Result<(), Status> {
        let request = request(&mut call).await?;
        let mut sink = CallSink(call.sink());
        self.store
            .series(request, &mut sink)
            .await
            .map_err(|error| store_status(&error))
    }

    pub(super) async fn label_names(&self, mut call: Call) -> Result<(), Status> {
        let request = request(&mut call).await?;
        let names = self.store.label_names(request).await;
        reply(call.sink(), &names.map_err(|error| store_status(&error))?).await
    }

    pub(super) async fn label_values(&self, mut call: Call) -> Result<(), Status> {
        let request = request(&mut call).await?;
        let values = self.store.label_values(request).await;
        reply(call.sink(), &values.map_err(|error| store_status(&error))?).await
    }
}

impl SeriesSink for CallSink<'_> {
    fn send(
        &mut self,
        len: usize,
        encode: impl FnOnce(&mut BytesMut) + Send,
    ) -> impl Future<Output = Result<(), SinkClosed>> + Send {
        let sending = self.0.send(len, encode);
        async move { sending.await.map_err(|_| SinkClosed) }
    }

    fn flush(&mut self) -> impl Future<Output = Result<(), SinkClosed>> + Send {
        let flushing = self.0.flush();
        async move { flushing.await.map_err(|_| SinkClosed) }
    }
}

/// The status that a failure means.
pub(super) fn store_status(error: &StoreError) -> Status {
    let code = match error.class() {
        ErrorClass::InvalidArgument => Code::InvalidArgument,
        ErrorClass::NotFound => Code::NotFound,
        ErrorClass::ResourceExhausted => Code::ResourceExhausted,
        ErrorClass::Unavailable => Code::Unavailable,
        ErrorClass::Internal => Code::Internal,
        ErrorClass::Canceled => Code::Canceled,
    };
    Status::new(code, ErrorChain(error).to_string())
}
