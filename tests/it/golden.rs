//! Endpoints, gRPC methods and exit codes against committed lists: what users and their tools count
//! on.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Code, Request};
use tonic_prost::ProstCodec;

use crate::cli::outrigger;
use crate::metrics::lines;
use crate::support::{Gate, GateState, Prometheus, PrometheusSetup, Site, get, run_to_end};

const ENDPOINTS: &str = include_str!("../golden/endpoints.txt");
const METHODS: &str = include_str!("../golden/grpc_methods.txt");
const EXIT_CODES: &str = include_str!("../golden/exit_codes.txt");

/// How long the first message of an answer may take; some never send one.
const FIRST_MESSAGE: Duration = Duration::from_secs(20);

/// The lines of one section of a list, in columns.
fn rows<'l>(list: &'l str, section: &str) -> Vec<Vec<&'l str>> {
    let rows = lines(list, section).map(|line| line.split('\t').collect());
    let rows: Vec<_> = rows.collect();
    assert!(!rows.is_empty(), "nothing in {section}");
    rows
}

#[test]
fn the_endpoints_are_those_of_the_list() {
    let site = Site::new();
    let prometheus = Prometheus::start(&site.data, &PrometheusSetup::default());
    let outrigger = site.start(prometheus.address(), &[]);
    outrigger.wait_for_metric("thanos_sidecar_prometheus_up", |up| up == 1.0);
    for (section, has_reason) in [("reference", false), ("absent", true), ("added", true)] {
        for row in rows(ENDPOINTS, section) {
            let (status, _) = get(outrigger.address(), row[0]).unwrap();
            assert_eq!(status.to_string(), row[1], "{}", row[0]);
            assert_eq!(row.len() == 3, has_reason, "{row:?}");
        }
    }
}

#[tokio::test]
async fn the_grpc_methods_are_those_of_the_list() {
    let site = Site::new();
    let prometheus = Prometheus::start(&site.data, &PrometheusSetup::default());
    for (flags, has_query) in [(&[][..], false), (&["--query.enable"], true)] {
        let outrigger = site.start(prometheus.address(), flags);
        outrigger.wait_for_metric("thanos_sidecar_prometheus_up", |up| up == 1.0);
        let address = format!("http://{}", outrigger.grpc_address());
        let channel = tonic::transport::Endpoint::from_shared(address).unwrap();
        let channel = channel.connect().await.unwrap();
        for (section, is_served) in [("served", true), ("query", has_query), ("unserved", false)] {
            for row in rows(METHODS, section) {
                let code = answer_to_nothing(channel.clone(), row[0]).await;
                let method = row[0];
                assert_eq!(code != Code::Unimplemented, is_served, "{method}: {code:?}");
            }
        }
    }
}

/// How a call ends whose request has no fields; `Ok` where it goes on.
async fn answer_to_nothing(channel: tonic::transport::Channel, method: &str) -> Code {
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.unwrap();
    let path: PathAndQuery = method.parse().unwrap();
    // Every message may be empty, and is read here as if it had no fields.
    let codec = ProstCodec::<(), ()>::default();
    let call = async {
        let answer = client.server_streaming(Request::new(()), path, codec);
        answer.await?.into_inner().message().await
    };
    match tokio::time::timeout(FIRST_MESSAGE, call).await {
        Ok(Err(status)) => status.code(),
        Ok(Ok(_)) | Err(_) => Code::Ok,
    }
}

#[test]
fn the_exit_codes_are_those_of_the_list() {
    let expected: BTreeSet<(String, String)> = rows(EXIT_CODES, "cases")
        .into_iter()
        .map(|row| (row[1].to_owned(), row[0].to_owned()))
        .collect();
    let mut found = BTreeSet::new();
    let mut ended = |(case, code): (&str, i32)| {
        found.insert((case.to_owned(), code.to_string()));
    };
    without_prometheus().into_iter().for_each(&mut ended);
    with_prometheus().into_iter().for_each(&mut ended);
    let site = Site::new();
    let gate = Gate::new(GateState::Down);
    let flags = ["--prometheus.ready_timeout=1s"];
    let (code, _) = run_to_end(&site.arguments(gate.address(), &flags));
    ended(("no Prometheus within the ready timeout", code));
    let setup = PrometheusSetup {
        external_labels: Vec::new(),
        ..PrometheusSetup::default()
    };
    let nameless = Prometheus::start(&site.data, &setup);
    let (code, _) = run_to_end(&site.arguments(nameless.address(), &[]));
    ended(("no external labels", code));
    assert_eq!(found, expected);
}

fn without_prometheus() -> Vec<(&'static str, i32)> {
    let cases: [(&str, &[&str]); 6] = [
        ("help", &["sidecar", "--help"]),
        ("version", &["--version"]),
        ("no command", &[]),
        ("an unknown flag", &["sidecar", "--none"]),
        (
            "a duration that is none",
            &["sidecar", "--http-grace-period=soon"],
        ),
        (
            "a bucket of an unknown type",
            &["sidecar", "--objstore.config=type: TAPE"],
        ),
    ];
    let run = |(case, arguments): (&'static str, &[&str])| {
        let code = outrigger(arguments, &[]).status.code();
        (case, code.expect("no signal"))
    };
    cases.into_iter().map(run).collect()
}

fn with_prometheus() -> Vec<(&'static str, i32)> {
    let mut ended = Vec::new();
    let site = Site::new();
    let prometheus = Prometheus::start(&site.data, &PrometheusSetup::default());
    for (case, signal) in [("SIGTERM", Signal::TERM), ("SIGINT", Signal::INT)] {
        let mut outrigger = site.start(prometheus.address(), &[]);
        outrigger.process.signal(signal);
        let code = outrigger.process.wait().code();
        ended.push((case, code.expect("no signal")));
    }
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let taken = taken.local_addr().unwrap();
    let (missing, unset, good) = (
        site.scratch().join("missing.yml"),
        site.scratch().join("unset.yml"),
        site.scratch().join("good.yml"),
    );
    std::fs::write(&unset, "a: $(UNSET)\n").unwrap();
    std::fs::write(&good, "global:\n").unwrap();
    let config = |path: &Path| format!("--reloader.config-file={}", path.display());
    let expanded = format!("--reloader.config-envsubst-file={}", missing.display());
    let http = format!("--http-address={taken}");
    let grpc = format!("--grpc-address={taken}");
    for (case, flags) in [
        ("an HTTP port that is taken", vec![http]),
        ("a gRPC port that is taken", vec![grpc]),
        (
            "a configuration file that is missing",
            vec![config(&missing)],
        ),
        (
            "an unset variable in the configuration",
            vec![config(&unset), expanded],
        ),
        (
            "a reloader that looks once",
            vec![config(&good), "--reloader.watch-interval=0s".to_owned()],
        ),
    ] {
        let mut arguments = site.arguments(prometheus.address(), &[]);
        let name = flags[0].split('=').next().unwrap();
        arguments.retain(|argument| !argument.starts_with(name));
        arguments.extend(flags);
        ended.push((case, run_to_end(&arguments).0));
    }
    ended
}
