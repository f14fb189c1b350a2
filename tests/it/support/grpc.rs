//! A client of the gRPC port: tonic's, over the messages of `outrigger::proto`.

use std::net::SocketAddr;

use outrigger::proto::thanos::series_response;
use outrigger::proto::thanos::{Series, SeriesRequest, SeriesResponse};
use prost::Message;
use tonic::client::Grpc;
use tonic::codec::CompressionEncoding;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tonic::{IntoRequest, Request, Status, Streaming};
use tonic_prost::ProstCodec;

/// A connection to the gRPC port. Clones share it.
#[derive(Clone)]
pub(crate) struct StoreApi {
    grpc: Grpc<Channel>,
    channel: Channel,
}

impl StoreApi {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        Self::connect_to(&endpoint).await.unwrap()
    }

    /// Over TLS, to a server that calls itself `localhost`.
    pub(crate) async fn connect_tls(
        address: SocketAddr,
        tls: ClientTlsConfig,
    ) -> Result<Self, tonic::transport::Error> {
        let endpoint = Endpoint::from_shared(format!("https://{address}")).unwrap();
        let endpoint = endpoint.tls_config(tls.domain_name("localhost")).unwrap();
        Self::connect_to(&endpoint).await
    }

    pub(crate) async fn connect_to(endpoint: &Endpoint) -> Result<Self, tonic::transport::Error> {
        let channel = endpoint.connect().await?;
        let grpc = Grpc::new(channel.clone()).max_decoding_message_size(usize::MAX);
        Ok(Self { grpc, channel })
    }

    /// Sends gzip, and takes it.
    pub(crate) fn with_gzip(self) -> Self {
        let mut this = self.sending_gzip();
        this.grpc = this.grpc.accept_compressed(CompressionEncoding::Gzip);
        this
    }

    /// Sends gzip, and refuses it.
    pub(crate) fn sending_gzip(mut self) -> Self {
        self.grpc = self.grpc.send_compressed(CompressionEncoding::Gzip);
        self
    }

    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    pub(crate) async fn unary<Q, A>(
        &self,
        path: &'static str,
        request: impl IntoRequest<Q>,
    ) -> Result<A, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let mut grpc = self.grpc.clone();
        grpc.ready()
            .await
            .map_err(|e| Status::from_error(e.into()))?;
        let path = PathAndQuery::from_static(path);
        let codec = ProstCodec::<Q, A>::default();
        let answer = grpc.unary(request.into_request(), path, codec).await?;
        Ok(answer.into_inner())
    }

    pub(crate) async fn stream<Q, A>(
        &self,
        path: &'static str,
        request: impl IntoRequest<Q>,
    ) -> Result<Streaming<A>, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let mut grpc = self.grpc.clone();
        grpc.ready()
            .await
            .map_err(|e| Status::from_error(e.into()))?;
        let path = PathAndQuery::from_static(path);
        let codec = ProstCodec::<Q, A>::default();
        let request: Request<Q> = request.into_request();
        let answer = grpc.server_streaming(request, path, codec).await?;
        Ok(answer.into_inner())
    }

    /// All messages of a stream.
    pub(crate) async fn messages<Q, A>(
        &self,
        path: &'static str,
        request: impl IntoRequest<Q>,
    ) -> Result<Vec<A>, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        messages(self.stream(path, request).await?).await
    }

    pub(crate) async fn series(
        &self,
        request: impl IntoRequest<SeriesRequest>,
    ) -> Result<Vec<SeriesResponse>, Status> {
        self.messages("/thanos.Store/Series", request).await
    }
}

/// What is left of a stream.
pub(crate) async fn messages<A>(mut stream: Streaming<A>) -> Result<Vec<A>, Status> {
    let mut all = Vec::new();
    while let Some(message) = stream.message().await? {
        all.push(message);
    }
    Ok(all)
}

/// The series of these messages, whether in batches or not; anything else fails.
pub(crate) fn all_series(messages: Vec<SeriesResponse>) -> Vec<Series> {
    let series = messages
        .into_iter()
        .flat_map(|message| match message.result {
            Some(series_response::Result::Series(series)) => vec![series],
            Some(series_response::Result::Batch(batch)) => batch.series,
            other => panic!("neither series nor batch: {other:?}"),
        });
    series.collect()
}
