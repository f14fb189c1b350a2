//! The Kubernetes examples: flags that exist, ports and paths that meet, and shell that is run.
//!
//! There is no cluster. What the examples claim of outrigger is held against its own command line;
//! the hook that keeps Prometheus until the flush is over, and the container that writes its
//! configuration first, are run.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::time::Duration;

use outrigger::app::cli;
use rustix::process::Signal;
use serde_json::Value;

use super::{at, file, has, parsed, text, yaml};
use crate::support::{
    Process, Prometheus, PrometheusSetup, Site, eventually, outrigger_command, promtool,
};

const IMAGE: &str = "registry.example/outrigger:0.1.0";

fn stateful_set() -> Vec<Value> {
    yaml(&text("kubernetes/statefulset.yaml"))
}

fn of_kind(documents: &[Value], kind: &str) -> Value {
    let found = documents.iter().find(|document| document["kind"] == kind);
    found.unwrap_or_else(|| panic!("no {kind}")).clone()
}

fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    let found = value.pointer(pointer).and_then(Value::as_array);
    found.map_or(&[], Vec::as_slice)
}

fn texts(value: &Value, pointer: &str) -> Vec<String> {
    let texts = list(value, pointer)
        .iter()
        .map(|text| text.as_str().unwrap().to_owned());
    texts.collect()
}

/// The pod of the stateful set.
fn pod() -> Value {
    of_kind(&stateful_set(), "StatefulSet")
        .pointer("/spec/template/spec")
        .unwrap()
        .clone()
}

fn container(pod: &Value, name: &str) -> Value {
    let all = list(pod, "/initContainers")
        .iter()
        .chain(list(pod, "/containers"));
    let found = all.clone().find(|container| container["name"] == name);
    found
        .unwrap_or_else(|| panic!("no container {name}"))
        .clone()
}

#[test]
fn every_file_is_yaml() {
    let names = fs::read_dir(file("kubernetes")).unwrap();
    let mut seen = 0;
    for entry in names {
        let path = entry.unwrap().path();
        assert!(
            !yaml(&fs::read_to_string(&path).unwrap()).is_empty(),
            "{path:?}"
        );
        seen += 1;
    }
    assert_eq!(seen, 5);
}

#[test]
fn the_stateful_sets_arguments_parse_and_meet_its_ports() {
    let pod = pod();
    let outrigger = container(&pod, "outrigger");
    assert_eq!(at(&outrigger, "/image"), IMAGE);
    let command = parsed(texts(&outrigger, "/args"));
    let cli::Command::Sidecar(args) = command.command else {
        panic!()
    };
    for (name, address) in [("grpc", &args.grpc.address), ("http", &args.http.address)] {
        let port = list(&outrigger, "/ports")
            .iter()
            .find(|port| port["name"] == name)
            .unwrap();
        let port = port["containerPort"].as_u64().unwrap();
        assert_eq!(*address, format!(":{port}"));
    }
    for probe in ["readinessProbe", "livenessProbe"] {
        assert_eq!(at(&outrigger, &format!("/{probe}/httpGet/port")), "http");
    }
    assert_eq!(at(&outrigger, "/readinessProbe/httpGet/path"), "/-/ready");
    assert_eq!(at(&outrigger, "/livenessProbe/httpGet/path"), "/-/healthy");
    // Prometheus' side of each.
    let prometheus = texts(&container(&pod, "prometheus"), "/args");
    let has = |flag: &str| prometheus.iter().any(|given| given == flag);
    assert!(has(&format!(
        "--storage.tsdb.path={}",
        args.tsdb.path.display()
    )));
    let ledger = args.tsdb.path.join(&args.shipper.meta_file_name);
    assert!(has(&format!(
        "--storage.tsdb.delay-compact-file.path={}",
        ledger.display()
    )));
    let output = args.reloader.config_envsubst_file.unwrap();
    assert!(has(&format!("--config.file={}", output.display())));
    assert!(has("--web.enable-lifecycle") && has("--web.enable-admin-api"));
    let url = args.prometheus.url.to_string();
    assert_eq!(url, "http://localhost:9090/");
}

#[test]
fn each_path_of_a_flag_is_mounted() {
    let pod = pod();
    let volumes: BTreeSet<String> = list(&pod, "/volumes")
        .iter()
        .map(|volume| at(volume, "/name").to_owned())
        .chain(["data".to_owned()])
        .collect();
    for name in ["configuration", "outrigger", "prometheus"] {
        let container = container(&pod, name);
        let mounts = list(&container, "/volumeMounts");
        for mount in mounts {
            assert!(volumes.contains(at(mount, "/name")), "{mount}");
        }
        for argument in texts(&container, "/args") {
            let Some((flag, path)) = argument
                .split_once('=')
                .filter(|(_, path)| path.starts_with('/'))
            else {
                continue;
            };
            let mount = mounts
                .iter()
                .find(|mount| path.starts_with(at(mount, "/mountPath")));
            let mount = mount.unwrap_or_else(|| panic!("{argument} of {name} is mounted nowhere"));
            let writes = [
                "--reloader.config-envsubst-file",
                "--tsdb.path",
                "--storage.tsdb.path",
            ];
            let read_only = mount["readOnly"] == true;
            assert!(
                !(read_only && writes.contains(&flag)),
                "{argument} of {name} is read-only"
            );
        }
    }
}

#[test]
fn everything_is_confined() {
    let pod = pod();
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(
        at(&pod, "/securityContext/seccompProfile/type"),
        "RuntimeDefault"
    );
    for name in ["configuration", "outrigger", "prometheus"] {
        let container = container(&pod, name);
        assert_eq!(
            container["securityContext"]["readOnlyRootFilesystem"], true,
            "{name}"
        );
        assert_eq!(
            container["securityContext"]["allowPrivilegeEscalation"], false,
            "{name}"
        );
        assert_eq!(
            texts(&container, "/securityContext/capabilities/drop"),
            ["ALL"],
            "{name}"
        );
    }
    let stack = &yaml(&text("kubernetes/kube-prometheus-stack.yaml"))[0];
    let operator = &yaml(&text("kubernetes/operator.yaml"))[0];
    let of_operator = |containers: &[Value]| {
        let found = containers
            .iter()
            .find(|container| container["name"] == "thanos-sidecar");
        found.unwrap().clone()
    };
    for container in [
        container(&pod, "outrigger"),
        of_operator(list(operator, "/spec/containers")),
        of_operator(list(stack, "/prometheus/prometheusSpec/containers")),
    ] {
        let profile = container
            .pointer("/securityContext/seccompProfile")
            .unwrap();
        assert_eq!(at(profile, "/type"), "Localhost");
        assert!(
            file("seccomp")
                .join(at(profile, "/localhostProfile"))
                .exists()
        );
    }
}

/// What the operator makes of `spec.thanos`, beyond what it always gives.
fn operator_arguments(thanos: &Value) -> Vec<String> {
    let more = list(thanos, "/additionalArgs").iter().map(|argument| {
        let name = at(argument, "/name");
        match argument["value"].as_str() {
            Some(value) => format!("--{name}={value}"),
            None => format!("--{name}"),
        }
    });
    let given = [
        "sidecar",
        "--prometheus.url=http://localhost:9090/",
        "--grpc-address=:10901",
        "--http-address=:10902",
        "--objstore.config=type: FILESYSTEM\nconfig: {directory: /x}\n",
        "--tsdb.path=/prometheus",
    ];
    given.into_iter().map(str::to_owned).chain(more).collect()
}

#[test]
fn the_operators_resources_name_image_version_and_flags() {
    let operator = &yaml(&text("kubernetes/operator.yaml"))[0];
    let stack = &yaml(&text("kubernetes/kube-prometheus-stack.yaml"))[0];
    for spec in [
        operator.pointer("/spec"),
        stack.pointer("/prometheus/prometheusSpec"),
    ] {
        let spec = spec.unwrap();
        let thanos = &spec["thanos"];
        assert_eq!(at(thanos, "/image"), IMAGE);
        let version = at(thanos, "/version").strip_prefix('v').unwrap();
        let stands_in_for = outrigger::app::version::STANDS_IN_FOR;
        let minor = |version: &str| version.rsplit_once('.').map(|(minor, _)| minor.to_owned());
        assert_eq!(minor(version), minor(stands_in_for), "{stands_in_for}");
        let arguments = operator_arguments(thanos);
        assert!(arguments.len() > 6);
        parsed(arguments);
        assert_eq!(spec["enableAdminAPI"], true);
    }
    // Charts have the secret one level deeper than the resource.
    assert_eq!(
        at(operator, "/spec/thanos/objectStorageConfig/key"),
        "bucket.yml"
    );
    let secret = "/prometheus/prometheusSpec/thanos/objectStorageConfig/existingSecret/key";
    assert_eq!(at(stack, secret), "bucket.yml");
}

#[test]
fn monitors_find_the_ports_and_a_job_that_rules_look_for() {
    let pod_monitor = &yaml(&text("kubernetes/podmonitor.yaml"))[0];
    let service = yaml(&text("kubernetes/servicemonitor.yaml"));
    let monitor = of_kind(&service, "ServiceMonitor");
    let service = of_kind(&service, "Service");
    assert_eq!(
        service["metadata"]["labels"],
        monitor["spec"]["selector"]["matchLabels"]
    );
    for endpoint in [
        &list(pod_monitor, "/spec/podMetricsEndpoints")[0],
        &list(&monitor, "/spec/endpoints")[0],
    ] {
        assert_eq!(
            (at(endpoint, "/port"), at(endpoint, "/path")),
            ("http", "/metrics")
        );
    }
    let ports = list(&service, "/spec/ports")
        .iter()
        .map(|port| (at(port, "/name"), port["port"].clone()));
    let ports: Vec<_> = ports.collect();
    assert_eq!(
        ports,
        [("grpc", Value::from(10901)), ("http", Value::from(10902))]
    );
    // The job is the service's name, or namespace and name of the pod monitor.
    for object in [pod_monitor, &service] {
        assert!(at(object, "/metadata/name").contains("thanos-sidecar"));
    }
    let stack = &yaml(&text("kubernetes/kube-prometheus-stack.yaml"))[0];
    let relabelled = &list(stack, "/prometheus/thanosServiceMonitor/relabelings")[0];
    assert_eq!(
        (
            at(relabelled, "/targetLabel"),
            at(relabelled, "/replacement")
        ),
        ("job", "thanos-sidecar")
    );
}

#[test]
fn prometheus_takes_the_configuration_that_the_first_container_writes() {
    let site = Site::new();
    let documents = stateful_set();
    let template = at(&of_kind(&documents, "ConfigMap"), "/data/prometheus.yml").to_owned();
    let source = site.scratch().join("prometheus.yml");
    fs::write(&source, template).unwrap();
    let output = site.scratch().join("out.yml");
    let pod = pod();
    let configuration = container(&pod, "configuration");
    assert_eq!(
        at(&configuration, "/env/0/valueFrom/fieldRef/fieldPath"),
        "metadata.name"
    );
    let arguments = texts(&configuration, "/args").into_iter().map(|argument| {
        let argument = argument.replace(
            "/etc/prometheus/config/prometheus.yml",
            source.to_str().unwrap(),
        );
        argument.replace(
            "/etc/prometheus/out/prometheus.yml",
            output.to_str().unwrap(),
        )
    });
    let mut arguments: Vec<String> = arguments.collect();
    // Ports of the kernel's choice, for tests that run beside this one.
    arguments
        .extend(["--http-address=127.0.0.1:0", "--grpc-address=127.0.0.1:0"].map(str::to_owned));
    let mut command = outrigger_command(&arguments);
    let mut process = Process::spawn("outrigger", command.env("POD_NAME", "prometheus-1"));
    let status = process.wait();
    assert_eq!(status.code(), Some(0), "{}", process.log());
    let written = fs::read_to_string(&output).unwrap();
    assert!(written.contains("replica: prometheus-1\n"), "{written}");
    promtool(&["check", "config", "--syntax-only", output.to_str().unwrap()]);
}

#[test]
fn the_bucket_of_the_secret_is_one() {
    let secret = of_kind(&stateful_set(), "Secret");
    let document = at(&secret, "/stringData/bucket.yml");
    let config = outrigger::objstore::BucketConfig::parse(document, std::path::Path::new("/"));
    assert_eq!(config.unwrap().warnings.len(), 0);
}

// === The hook ===

/// The hooks of all three examples.
fn hooks() -> Vec<String> {
    let pod = pod();
    let operator = yaml(&text("kubernetes/operator.yaml"));
    let stack = yaml(&text("kubernetes/kube-prometheus-stack.yaml"));
    let containers = [
        list(&pod, "/containers"),
        list(&operator[0], "/spec/containers"),
        list(&stack[0], "/prometheus/prometheusSpec/containers"),
    ];
    let hook = |containers: &[Value]| {
        let prometheus = containers
            .iter()
            .find(|container| container["name"] == "prometheus");
        let command = texts(prometheus.unwrap(), "/lifecycle/preStop/exec/command");
        assert_eq!(command[..2], ["sh", "-c"]);
        command[2].clone()
    };
    containers.map(hook).to_vec()
}

/// How long outrigger may flush, by the arguments of each example.
fn flush_seconds() -> Vec<u64> {
    let operator = yaml(&text("kubernetes/operator.yaml"));
    let stack = yaml(&text("kubernetes/kube-prometheus-stack.yaml"));
    let arguments = [
        texts(&container(&pod(), "outrigger"), "/args"),
        operator_arguments(&operator[0]["spec"]["thanos"]),
        operator_arguments(&stack[0]["prometheus"]["prometheusSpec"]["thanos"]),
    ];
    let seconds = arguments.map(|arguments| {
        let cli::Command::Sidecar(args) = parsed(arguments).command else {
            panic!("another command");
        };
        assert!(args.shipper.flush_on_shutdown);
        args.shipper.flush_timeout.to_std_or_zero().as_secs()
    });
    seconds.to_vec()
}

/// The flush ends before the hook does, and the hook before Kubernetes loses patience.
#[test]
fn limits_stand_in_the_right_order() {
    let number = |hook: &String| -> u64 {
        let limit = hook
            .split("timeout ")
            .nth(1)
            .and_then(|rest| rest.split(' ').next());
        limit.unwrap().parse().unwrap()
    };
    let limits: Vec<u64> = hooks().iter().map(number).collect();
    let grace = pod()["terminationGracePeriodSeconds"].as_u64().unwrap();
    // The operator gives its pods ten minutes.
    let graces = [grace, 600, 600];
    for ((limit, grace), flush) in limits.iter().zip(graces).zip(flush_seconds()) {
        assert!(
            flush + 30 <= *limit && limit + 30 <= grace,
            "{flush} {limit} {grace}"
        );
    }
    let bare = hooks().into_iter().zip(&limits);
    let bare: BTreeSet<String> = bare
        .map(|(hook, limit)| hook.replace(&format!("timeout {limit}"), "timeout"))
        .collect();
    assert_eq!(bare.len(), 1, "{bare:?}");
}

/// The hook for this outrigger, with a shorter pause at its begin.
fn hook(site: &Site, http: std::net::SocketAddr) -> Command {
    let hook = hooks()[0]
        .replace("sleep 5", "sleep 1")
        .replace("http://localhost:10902", &format!("http://{http}"))
        .replace("/prometheus", site.data.to_str().unwrap());
    let mut command = Command::new("sh");
    command.args(["-ec", &hook]);
    command
}

#[test]
fn prometheus_stays_until_outrigger_is_gone() {
    if !has("wget", "the hook of Prometheus") || !has("flock", "the hook of Prometheus") {
        return;
    }
    let site = Site::new();
    let prometheus = site.prometheus_elsewhere();
    let mut outrigger = site.start(prometheus.address(), &[]);
    outrigger.wait_for_metric("thanos_shipper_dir_syncs_total", |syncs| syncs >= 1.0);
    // Prometheus alone is restarted.
    let at_once = hook(&site, outrigger.address()).status().unwrap();
    assert!(at_once.success());
    // The pod ends, and outrigger has something left to do: here, it is stopped while it does.
    outrigger.process.signal(Signal::STOP);
    let state = format!("/proc/{}/stat", outrigger.process.id());
    eventually("all of it is stopped", || {
        fs::read_to_string(&state)
            .unwrap()
            .contains(") T ")
            .then_some(())
    });
    let mut waiting = Process::spawn("hook", &mut hook(&site, outrigger.address()));
    std::thread::sleep(Duration::from_secs(4));
    if !waiting.is_running() {
        panic!("it did not wait: {:?}: {}", waiting.wait(), waiting.log());
    }
    outrigger.process.signal(Signal::CONT);
    outrigger.process.stop();
    assert_eq!(waiting.wait().code(), Some(0), "{}", waiting.log());
}

#[test]
fn prometheus_stays_until_its_head_is_in_the_bucket() {
    if !has("wget", "the hook of Prometheus") || !has("flock", "the hook of Prometheus") {
        return;
    }
    let site = Site::new();
    let setup = PrometheusSetup {
        flags: vec!["--web.enable-admin-api".to_owned()],
        ..PrometheusSetup::cutting_blocks()
    };
    let prometheus = Prometheus::start(&site.data, &setup);
    let mut outrigger = site.start(prometheus.address(), &["--shipper.flush-on-shutdown"]);
    outrigger.wait_for_metric("thanos_shipper_uploads_total", |uploads| uploads >= 1.0);
    outrigger.process.signal(Signal::TERM);
    let hook = hook(&site, outrigger.address()).status().unwrap();
    assert!(hook.success());
    let log = outrigger.process.log();
    assert!(
        log.contains("the head is in the bucket"),
        "the hook did not wait: {log}"
    );
    assert_eq!(outrigger.process.wait().code(), Some(0));
}
