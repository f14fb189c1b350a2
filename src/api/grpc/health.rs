//! `grpc.health.v1.Health`: the probe, for load balancers and queriers (contract `grpc.md` §4).
//!
//! The server as a whole, named "", is the only service that is known.

use super::wire::{reply, request};
use crate::lifecycle::{Probe, ProbeStatus};
use crate::net::grpc::{Call, Code, Status};
use crate::proto::grpc::health::health_check_response::ServingStatus;
use crate::proto::grpc::health::{
    HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse,
};

/// Answers from the probe.
#[derive(Debug)]
pub(super) struct HealthService {
    probe: Probe,
}

impl HealthService {
    pub(super) fn new(probe: Probe) -> Self {
        Self { probe }
    }

    fn serving(&self) -> ServingStatus {
        serving(*self.probe.status().borrow())
    }

    pub(super) async fn check(&self, mut call: Call) -> Result<(), Status> {
        let HealthCheckRequest { service } = request(&mut call).await?;
        if !service.is_empty() {
            return Err(Status::new(Code::NotFound, "unknown service"));
        }
        reply(call.sink(), &answer(self.serving())).await
    }

    pub(super) async fn list(&self, mut call: Call) -> Result<(), Status> {
        let HealthListRequest {} = request(&mut call).await?;
        let statuses = [(String::new(), answer(self.serving()))].into();
        reply(call.sink(), &HealthListResponse { statuses }).await
    }

    /// Tells the status and each change of it until the client goes, or the process is about to
    /// end: the drain would else wait for a stream that has no end. A service that is not known
    /// may yet become so, says the protocol: that stream stays open, too.
    pub(super) async fn watch(&self, mut call: Call) -> Result<(), Status> {
        let HealthCheckRequest { service } = request(&mut call).await?;
        let mut status = self.probe.status();
        let mut told = None;
        let mut was_healthy = false;
        loop {
            let probed = *status.borrow_and_update();
            let now = match service.is_empty() {
                true => serving(probed),
                false => ServingStatus::ServiceUnknown,
            };
            if told.replace(now) != Some(now) {
                reply(call.sink(), &answer(now)).await?;
                call.sink().flush().await?;
            }
            was_healthy |= probed.healthy;
            let is_ending = was_healthy && !probed.healthy;
            // No sender either means that nothing of the process is left to tell of.
            if is_ending || status.changed().await.is_err() {
                return Err(Status::new(
                    Code::Unavailable,
                    "the server is shutting down",
                ));
            }
        }
    }
}

fn serving(ProbeStatus { healthy, ready }: ProbeStatus) -> ServingStatus {
    match healthy && ready {
        true => ServingStatus::Serving,
        false => ServingStatus::NotServing,
    }
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse {
        status: status.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use prometheus_client::registry::Registry;
    use prost::Message as _;

    use super::*;
    use crate::lifecycle::{Drain, ProbeMetrics};
    use crate::net::grpc::{
        CallOptions, Client, GrpcMetrics, GrpcServer, GrpcServerConfig, Method, MethodKind,
        Responses, Service,
    };

    struct Watched(HealthService);

    impl Service for Watched {
        fn method(&self, _path: &str) -> Option<Method> {
            Some(Method {
                service: "grpc.health.v1.Health",
                name: "Watch",
                kind: MethodKind::ServerStream,
            })
        }

        fn has_service(&self, _service: &str) -> bool {
            true
        }

        async fn call(self: Arc<Self>, _method: Method, call: Call) -> Result<(), Status> {
            self.0.watch(call).await
        }
    }

    async fn watch(client: &Client, service: &str) -> Responses {
        let request = HealthCheckRequest {
            service: service.to_owned(),
        };
        let request = request.encode_to_vec();
        let path = "/grpc.health.v1.Health/Watch";
        let stream = client.server_streaming(path, &request, CallOptions::default());
        stream.await.unwrap()
    }

    async fn next(stream: &mut Responses) -> Result<ServingStatus, Code> {
        let waited = tokio::time::timeout(Duration::from_secs(20), stream.message());
        let message = waited.await.expect("a message or the end");
        let message = message.map_err(|status| status.code)?.expect("an answer");
        Ok(HealthCheckResponse::decode(message).unwrap().status())
    }

    #[tokio::test]
    async fn a_watch_ends_once_the_process_is_about_to() {
        let mut registry = Registry::default();
        let probe = Probe::new(ProbeMetrics::register(&mut registry));
        let metrics = GrpcMetrics::register(&mut registry, &[]);
        let server = GrpcServer::bind("127.0.0.1:0", GrpcServerConfig::default(), metrics)
            .await
            .unwrap();
        let address = server.local_addr().to_string();
        let (trigger, drain) = Drain::new();
        let watched = Arc::new(Watched(HealthService::new(probe.clone())));
        let serving = tokio::spawn(server.serve(watched, drain, Duration::from_secs(3600)));
        let client = Client::connect(&address, None).await.unwrap();

        // Not healthy yet is no end.
        let mut whole = watch(&client, "").await;
        let mut unknown = watch(&client, "x").await;
        assert_eq!(next(&mut whole).await, Ok(ServingStatus::NotServing));
        assert_eq!(next(&mut unknown).await, Ok(ServingStatus::ServiceUnknown));
        probe.healthy();
        probe.ready();
        assert_eq!(next(&mut whole).await, Ok(ServingStatus::Serving));
        probe.not_ready(&"Prometheus is away");
        assert_eq!(next(&mut whole).await, Ok(ServingStatus::NotServing));
        probe.ready();
        assert_eq!(next(&mut whole).await, Ok(ServingStatus::Serving));

        trigger.start();
        probe.not_healthy(&"shutting down");
        assert_eq!(next(&mut whole).await, Ok(ServingStatus::NotServing));
        assert_eq!(next(&mut whole).await, Err(Code::Unavailable));
        assert_eq!(next(&mut unknown).await, Err(Code::Unavailable));
        // The hour of grace is not needed.
        let ended = tokio::time::timeout(Duration::from_secs(20), serving).await;
        ended.expect("the drain ends").unwrap();
    }
}
