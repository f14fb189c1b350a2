//! Health and reflection, asked by the clients that tonic generated for them.

use outrigger::proto::grpc::health::{HealthListRequest, HealthListResponse};
use prost::Message as _;
use prost_types::FileDescriptorProto;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::{v1, v1alpha};

use super::Beside;
use crate::support::GateState;

fn service(name: &str) -> HealthCheckRequest {
    HealthCheckRequest {
        service: name.to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn health_is_asked_watched_and_listed() {
    let beside = Beside::start(&[]);
    let client = beside.connect().await;
    let mut health = HealthClient::new(client.channel());
    let answer = health.check(service("")).await.unwrap().into_inner();
    assert_eq!(answer.status(), ServingStatus::Serving);
    for name in ["nothing", "thanos.Store"] {
        let error = health.check(service(name)).await.unwrap_err();
        assert_eq!(error.code(), Code::NotFound);
    }
    let list = client.unary("/grpc.health.v1.Health/List", HealthListRequest {});
    let HealthListResponse { statuses } = list.await.unwrap();
    let statuses: Vec<_> = statuses
        .iter()
        .map(|(name, s)| (name.as_str(), s.status))
        .collect();
    assert_eq!(statuses, [("", ServingStatus::Serving as i32)]);

    let mut watch = health.watch(service("")).await.unwrap().into_inner();
    let mut unknown = health.watch(service("nothing")).await.unwrap().into_inner();
    let told = unknown.message().await.unwrap().unwrap();
    assert_eq!(told.status(), ServingStatus::ServiceUnknown);
    let told = watch.message().await.unwrap().unwrap();
    assert_eq!(told.status(), ServingStatus::Serving);
    for _ in 0..2 {
        beside.gate.set(GateState::Down);
        let told = watch.message().await.unwrap().unwrap();
        assert_eq!(told.status(), ServingStatus::NotServing);
        let answer = health.check(service("")).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::NotServing);
        beside
            .gate
            .set(GateState::Open(beside.prometheus.address()));
        let told = watch.message().await.unwrap().unwrap();
        assert_eq!(told.status(), ServingStatus::Serving);
    }
}

const SERVICES: [&str; 10] = [
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
    "thanos.Exemplars",
    "thanos.Metadata",
    "thanos.Rules",
    "thanos.Status",
    "thanos.Store",
    "thanos.Targets",
    "thanos.info.Info",
];

/// The same conversation in both versions, whose messages are equal but in name.
macro_rules! converse {
    ($version:ident, $beside:expr, $questions:expr) => {{
        use $version::server_reflection_client::ServerReflectionClient;
        use $version::server_reflection_request::MessageRequest;
        use $version::server_reflection_response::MessageResponse;
        let mut client = ServerReflectionClient::new($beside.connect().await.channel());
        let questions: Vec<MessageRequest> = $questions
            .iter()
            .map(|question: &Question| match question.clone() {
                Question::Services => MessageRequest::ListServices(String::new()),
                Question::Symbol(name) => MessageRequest::FileContainingSymbol(name.to_owned()),
                Question::File(name) => MessageRequest::FileByFilename(name.to_owned()),
            })
            .collect();
        let requests = questions
            .into_iter()
            .map(|question| $version::ServerReflectionRequest {
                host: "here".to_owned(),
                message_request: Some(question),
            });
        let requests = futures_util::stream::iter(requests.collect::<Vec<_>>());
        let answers = client.server_reflection_info(requests).await.unwrap();
        let mut answers = answers.into_inner();
        let mut all = Vec::new();
        while let Some(answer) = answers.message().await.unwrap() {
            assert_eq!(answer.valid_host, "here");
            assert!(answer.original_request.is_some());
            all.push(match answer.message_response.unwrap() {
                MessageResponse::ListServicesResponse(list) => {
                    Answer::Services(list.service.into_iter().map(|s| s.name).collect())
                }
                MessageResponse::FileDescriptorResponse(files) => {
                    let files = files.file_descriptor_proto.iter();
                    let decoded = files.map(|f| FileDescriptorProto::decode(&f[..]).unwrap());
                    Answer::Files(decoded.collect())
                }
                MessageResponse::ErrorResponse(error) => Answer::Error(error.error_code),
                other => panic!("{other:?}"),
            });
        }
        all
    }};
}

#[derive(Clone, Copy)]
enum Question {
    Services,
    Symbol(&'static str),
    File(&'static str),
}

#[derive(Debug, PartialEq)]
enum Answer {
    Services(Vec<String>),
    Files(Vec<FileDescriptorProto>),
    Error(i32),
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn reflection_describes_every_service_in_both_versions() {
    let beside = Beside::start(&[]);
    let mut questions = vec![Question::Services, Question::Symbol("thanos.Nothing")];
    questions.extend(SERVICES.map(Question::Symbol));
    questions.extend([
        Question::Symbol("thanos.Store.Series"),
        Question::Symbol("thanos.SeriesRequest"),
        Question::File("thanos/store.proto"),
        Question::File("nothing.proto"),
    ]);
    let answers = converse!(v1, beside, questions);
    let older = converse!(v1alpha, beside, questions);
    assert_eq!(answers, older);
    let mut answers = answers.into_iter();
    let Some(Answer::Services(mut services)) = answers.next() else {
        panic!("no services")
    };
    services.sort();
    assert_eq!(services, SERVICES);
    const NOT_FOUND: i32 = 5;
    assert_eq!(answers.next(), Some(Answer::Error(NOT_FOUND)));
    for name in SERVICES {
        let Some(Answer::Files(files)) = answers.next() else {
            panic!("no files for {name}")
        };
        assert!(
            files.iter().any(|file| has_service(file, name)),
            "{name} in {files:?}"
        );
    }
    for _ in 0..3 {
        let Some(Answer::Files(files)) = answers.next() else {
            panic!("no files")
        };
        let store = files
            .iter()
            .find(|file| has_service(file, "thanos.Store"))
            .unwrap();
        let methods = store.service[0].method.iter();
        let series = methods
            .clone()
            .find(|method| method.name() == "Series")
            .unwrap();
        assert_eq!(series.input_type(), ".thanos.SeriesRequest");
        assert_eq!(series.output_type(), ".thanos.SeriesResponse");
        assert!(series.server_streaming() && !series.client_streaming());
    }
    assert_eq!(answers.next(), Some(Answer::Error(NOT_FOUND)));
    assert_eq!(answers.next(), None);
}

fn has_service(file: &FileDescriptorProto, name: &str) -> bool {
    let mut services = file.service.iter();
    services.any(|service| format!("{}.{}", file.package(), service.name()) == name)
}
