//! `--request.logging-config`: which calls stand in the log, and how.

use outrigger::proto::thanos::info::{InfoRequest, InfoResponse};
use outrigger::proto::thanos::{LabelNamesRequest, LabelNamesResponse};
use tonic::{Code, Request, Status};

use super::{Beside, everything};
use crate::support::{StoreApi, eventually, logfmt_value, run_to_end};

const INFO: &str = "/thanos.info.Info/Info";
const LABEL_NAMES: &str = "/thanos.Store/LabelNames";

fn beside(document: &str) -> Beside {
    let config = format!("--request.logging-config={document}");
    Beside::start(&["--log.level=debug", &config])
}

async fn info(client: &StoreApi, request_id: Option<&'static str>) {
    let mut request = Request::new(InfoRequest {});
    if let Some(id) = request_id {
        request
            .metadata_mut()
            .insert("request-id", id.parse().unwrap());
    }
    client
        .unary::<InfoRequest, InfoResponse>(INFO, request)
        .await
        .unwrap();
}

async fn label_names(client: &StoreApi) -> Result<LabelNamesResponse, Status> {
    let request = LabelNamesRequest {
        end: i64::MAX,
        ..LabelNamesRequest::default()
    };
    client.unary(LABEL_NAMES, request).await
}

/// The lines about this method that say this, after one that says `last`.
fn lines(beside: &Beside, method: &str, said: &str, last: &str) -> Vec<String> {
    let process = &beside.outrigger.process;
    process.wait_for_line(last, |line| line.contains(last));
    let log = process.log();
    let is_wanted =
        |line: &&str| line.contains(said) && logfmt_value(line, "method") == Some(method);
    log.lines().filter(is_wanted).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn start_and_end_of_a_call_bear_its_id() {
    let beside = beside("options: {level: INFO, decision: {log_start: true, log_end: true}}\n");
    let client = beside.connect().await;
    info(&client, Some("my-id")).await;
    info(&client, None).await;
    label_names(&client).await.unwrap();
    let last = "finished call\" method=/thanos.Store/LabelNames";
    eventually("both calls are logged to their end", || {
        let ended = lines(&beside, INFO, "msg=\"finished call\"", last);
        (ended.len() == 2).then_some(())
    });
    let started = lines(&beside, INFO, "msg=\"started call\"", last);
    let ended = lines(&beside, INFO, "msg=\"finished call\"", last);
    assert_eq!(
        (started.len(), ended.len()),
        (2, 2),
        "{started:?} {ended:?}"
    );
    for (start, end) in started.iter().zip(&ended) {
        let id = logfmt_value(start, "request_id").unwrap();
        assert_eq!(logfmt_value(end, "request_id").unwrap(), id);
        assert_eq!(logfmt_value(end, "code").unwrap(), "OK");
        assert_eq!(logfmt_value(end, "kind").unwrap(), "unary");
        assert!(logfmt_value(end, "duration").is_some() && logfmt_value(end, "peer").is_some());
        assert!(start.contains("level=debug") && end.contains("level=debug"));
    }
    let id = |line: &String| logfmt_value(line, "request_id").unwrap().to_string();
    assert_eq!(id(&started[0]), "my-id");
    assert_eq!(id(&started[1]).len(), 26, "a ULID: {}", started[1]);
    // In place of the line that is there without request logging.
    assert!(lines(&beside, INFO, "msg=\"call ended\"", last).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn only_the_named_methods_from_the_level_on_are_logged() {
    let mut beside = beside(
        "options: {level: DEBUG, decision: {log_end: true}}\ngrpc:\n  \
         options: {level: WARNING, decision: {log_start: true, log_end: true}}\n  \
         config: [{service: thanos.Store, method: LabelNames}]\n",
    );
    let client = beside.connect().await;
    info(&client, None).await;
    label_names(&client).await.unwrap();
    beside.prometheus.stop();
    let error = label_names(&client).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    client.series(everything()).await.unwrap_err();
    let last = "method=/thanos.Store/Series";
    let ended = lines(&beside, LABEL_NAMES, "msg=\"finished call\"", last);
    assert_eq!(ended.len(), 1, "{ended:?}");
    assert_eq!(logfmt_value(&ended[0], "code").unwrap(), "Unavailable");
    let (_, log) = beside.outrigger.stop();
    assert_eq!(log.matches("finished call").count(), 1, "{log}");
    assert!(!log.contains("started call"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn nothing_is_logged_where_nothing_is_asked_for() {
    let beside = Beside::start(&["--log.level=debug"]);
    info(&beside.connect().await, None).await;
    let ended = lines(&beside, INFO, "call ended", "msg=\"call ended\"");
    assert_eq!(ended.len(), 1);
    let (_, log) = beside.outrigger.stop();
    assert!(!log.contains("finished call"), "{log}");
}

#[test]
fn a_document_that_is_wrong_ends_the_start_with_key_and_line() {
    let says = |arguments: &[String], said: &[&str]| {
        let arguments = [&["sidecar".to_owned()], arguments].concat();
        let (code, log) = run_to_end(&arguments);
        assert_eq!(code, 1, "{log}");
        for part in said {
            assert!(log.contains(part), "did not say {part:?}: {log}");
        }
    };
    for (document, said) in [
        (
            "\noption: {}\n",
            &["unknown key `option` in line 2", "options"][..],
        ),
        (
            "options: {level: info}\n",
            &["`options.level` in line 1", "WARNING"],
        ),
        (
            "options: {decision: {log_end: true}}\n",
            &["level field is empty"],
        ),
        (
            "options: {level: INFO, decision: {log_start: true}}\n",
            &["log decision combination is not supported", "log_end"],
        ),
        ("options: [\n", &["not valid YAML"]),
    ] {
        says(&[format!("--request.logging-config={document}")], said);
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("requests.yml");
    std::fs::write(&file, "grpc: {confg: []}\n").unwrap();
    let flag = format!("--request.logging-config-file={}", file.display());
    says(&[flag], &["requests.yml", "`grpc.confg` in line 1"]);
    let flag = format!(
        "--request.logging-config-file={}",
        directory.path().display()
    );
    says(&[flag], &["Is a directory"]);
}
