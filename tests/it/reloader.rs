//! The reloader between files that change and a real Prometheus that must follow. The watch
//! interval is an hour everywhere, so whatever is seen was heard.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::support::{
    Gate, GateState, Outrigger, Prometheus, PrometheusSetup, Site, eventually, get, is_root,
    left_out, outrigger_command, run_command_to_end,
};

const RELOADS: &str = "thanos_sidecar_reloader_reloads_total";
const FAILED: &str = "thanos_sidecar_reloader_reloads_failed_total";
const SUCCESSFUL: &str = "thanos_sidecar_reloader_last_reload_successful";
const APPLIES_FAILED: &str = "thanos_sidecar_reloader_config_apply_operations_failed_total";
const UNSET: &str = "thanos_sidecar_reloader_config_environment_variable_expansion_errors";

/// Set for outrigger, named by configurations.
const VARIABLES: &[(&str, &str)] = &[("OUTRIGGER_TEST_REPLICA", "from-environment")];

/// A configuration with this label, in YAML; and a pattern of rule files.
fn config(replica: &str, rules: &str) -> String {
    format!(
        "global:\n  external_labels:\n    replica: {replica}\nrule_files:\n  - {rules}\n\
         scrape_configs: []\n"
    )
}

fn rules(group: &str) -> String {
    format!("groups:\n  - name: {group}\n    rules:\n      - record: r\n        expr: vector(1)\n")
}

/// A site with a Prometheus that reads `out/p.yml` and `rules/**/*.yml`.
struct Scene {
    site: Site,
}

impl Scene {
    fn new() -> Self {
        let site = Site::new();
        for dir in ["etc", "out", "rules"] {
            fs::create_dir(site.scratch().join(dir)).unwrap();
        }
        Self { site }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.site.scratch().join(path)
    }

    fn config(&self, replica: &str) -> String {
        config(replica, &self.at("rules/*.yml").display().to_string())
    }

    fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        // Beside what is watched, so that there is no moment at which it is empty.
        let beside = self.at("written");
        fs::write(&beside, content).unwrap();
        fs::rename(&beside, self.at(path)).unwrap();
    }

    /// Waits for outrigger's output, as an operator's pod does, and starts with it.
    fn prometheus(&self, name: &str, flags: &[&str]) -> Prometheus {
        eventually("the output is there", || {
            self.at("out/p.yml").exists().then_some(())
        });
        let setup = PrometheusSetup {
            flags: flags.iter().map(|&flag| flag.to_owned()).collect(),
            ..PrometheusSetup::default()
        };
        Prometheus::start_with_config(name, &self.site.data, &self.at("out/p.yml"), &setup)
    }

    fn arguments(&self, prometheus: std::net::SocketAddr, flags: &[&str]) -> Vec<String> {
        let mut arguments = self.site.arguments_without_bucket(prometheus, flags);
        arguments.extend([
            format!("--reloader.config-file={}", self.at("etc/p.yml").display()),
            format!(
                "--reloader.config-envsubst-file={}",
                self.at("out/p.yml").display()
            ),
            format!("--reloader.rule-dir={}", self.at("rules").display()),
            "--reloader.watch-interval=1h".to_owned(),
            "--reloader.retry-interval=200ms".to_owned(),
        ]);
        arguments
    }

    /// Outrigger behind a gate, and the Prometheus that starts once the output is there.
    fn started(&self, flags: &[&str], lifecycle: &[&str]) -> (Outrigger, Gate, Prometheus) {
        let gate = Gate::new(GateState::Down);
        let arguments = self.arguments(gate.address(), flags);
        let outrigger = Outrigger::start_with_environment(VARIABLES, &arguments);
        let prometheus = self.prometheus("prometheus", lifecycle);
        gate.set(GateState::Open(prometheus.address()));
        (outrigger, gate, prometheus)
    }
}

/// Waits until Prometheus has this external label.
fn wait_for_replica(prometheus: &Prometheus, replica: &str) {
    eventually(&format!("replica is {replica}"), || {
        let (_, body) = get(prometheus.address(), "/api/v1/status/config").ok()?;
        body.contains(&format!("replica: {replica}\\n"))
            .then_some(())
    });
}

fn wait_for_group(prometheus: &Prometheus, group: &str) {
    eventually(&format!("rule group {group} is there"), || {
        let (_, body) = get(prometheus.address(), "/api/v1/rules").ok()?;
        body.contains(&format!("\"name\":\"{group}\""))
            .then_some(())
    });
}

fn packed(content: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(content.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

/// What kubelet does: a new directory, and a link that is renamed over the old one.
fn swap(volume: &Path, version: &str, file: &str, content: &str) {
    let old = fs::read_link(volume.join("..data")).ok();
    fs::create_dir(volume.join(version)).unwrap();
    fs::write(volume.join(version).join(file), content).unwrap();
    symlink(version, volume.join("..data_tmp")).unwrap();
    fs::rename(volume.join("..data_tmp"), volume.join("..data")).unwrap();
    match old {
        Some(old) => fs::remove_dir_all(volume.join(old)).unwrap(),
        None => symlink(Path::new("..data").join(file), volume.join(file)).unwrap(),
    }
}

#[test]
fn packed_configurations_with_variables_reach_prometheus_by_http() {
    let scene = Scene::new();
    scene.write(
        "etc/p.yml",
        packed(&scene.config("$(OUTRIGGER_TEST_REPLICA)")),
    );
    // Prometheus waits for the output, and outrigger's queries for Prometheus.
    let (outrigger, _gate, prometheus) = scene.started(&[], &["--web.enable-lifecycle"]);
    let mode = fs::metadata(scene.at("out/p.yml"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o644);
    wait_for_replica(&prometheus, "from-environment");
    outrigger.wait_for_metric(SUCCESSFUL, |successful| successful == 1.0);
    outrigger.wait_for_metric("thanos_sidecar_prometheus_up", |up| up == 1.0);
    let timestamp = "thanos_sidecar_reloader_last_reload_success_timestamp_seconds";
    assert!(outrigger.metric(timestamp).unwrap() > 1.7e9);
    let info = "thanos_sidecar_reloader_info{method=\"http\"}";
    assert_eq!(outrigger.metric(info), Some(1.0));
    assert_eq!(
        outrigger.metric("thanos_sidecar_reloader_watches"),
        Some(3.0),
        "both directories, and the one in which rules/ stands"
    );
    let before = outrigger.metric(RELOADS).unwrap();

    scene.write("etc/p.yml", packed(&scene.config("changed")));
    wait_for_replica(&prometheus, "changed");
    scene.write("rules/a.yml", rules("first"));
    wait_for_group(&prometheus, "first");
    outrigger.wait_for_metric(RELOADS, |reloads| reloads >= before + 2.0);
    outrigger.wait_for_metric(SUCCESSFUL, |successful| successful == 1.0);
    assert!(
        outrigger
            .metric("thanos_sidecar_reloader_watch_events_total")
            .unwrap()
            >= 2.0
    );
    assert_eq!(
        outrigger.metric("thanos_sidecar_reloader_watch_errors_total"),
        Some(0.0)
    );
    assert_eq!(outrigger.metric(APPLIES_FAILED), Some(0.0));
    let (status, log) = outrigger.stop();
    assert!(status.success(), "{log}");
    assert!(log.contains("Prometheus has reloaded"), "{log}");
}

#[test]
fn swapped_volumes_are_heard_and_reloaded() {
    let scene = Scene::new();
    let (etc, team) = (scene.at("etc"), scene.at("rules/team"));
    fs::create_dir(&team).unwrap();
    let config = |replica| config(replica, &team.join("*.yml").display().to_string());
    swap(&etc, "..2026_01", "p.yml", &config("one"));
    swap(&team, "..2026_01", "r.yml", &rules("one"));
    let (outrigger, _gate, prometheus) = scene.started(&[], &["--web.enable-lifecycle"]);
    wait_for_replica(&prometheus, "one");
    outrigger.wait_for_metric(SUCCESSFUL, |successful| successful == 1.0);
    let before = outrigger.metric(RELOADS).unwrap();
    for (reloads, version) in [(2.0, "two"), (4.0, "three")] {
        swap(
            &etc,
            &format!("..2026_{version}"),
            "p.yml",
            &config(version),
        );
        wait_for_replica(&prometheus, version);
        swap(
            &team,
            &format!("..2026_{version}"),
            "r.yml",
            &rules(version),
        );
        wait_for_group(&prometheus, version);
        outrigger.wait_for_metric(RELOADS, |seen| seen >= before + reloads);
    }
    assert_eq!(outrigger.metric(APPLIES_FAILED), Some(0.0));
}

#[test]
fn prometheus_is_told_by_a_signal() {
    let scene = Scene::new();
    scene.write("etc/p.yml", scene.config("one"));
    let gate = Gate::new(GateState::Down);
    // Others run here, too: by a name of its own, cut as the kernel does it.
    let name = format!("or{}-prometheus", std::process::id());
    let flags = [
        "--reloader.method=signal",
        &format!("--reloader.process-name={name}"),
    ];
    let outrigger = Outrigger::start(&scene.arguments(gate.address(), &flags));
    let prometheus = scene.prometheus(&name, &[]);
    gate.set(GateState::Open(prometheus.address()));
    wait_for_replica(&prometheus, "one");
    outrigger.wait_for_metric(SUCCESSFUL, |successful| successful == 1.0);
    let info = "thanos_sidecar_reloader_info{method=\"signal\"}";
    assert_eq!(outrigger.metric(info), Some(1.0));
    for replica in ["two", "three"] {
        scene.write("etc/p.yml", scene.config(replica));
        wait_for_replica(&prometheus, replica);
    }
    let failed = outrigger.metric(FAILED).unwrap();
    outrigger.wait_for_metric(SUCCESSFUL, |successful| successful == 1.0);

    // What Prometheus can't take is told, again and again, and its correction loaded. Whether the
    // first failure was seen as such or by its silence depends on what Prometheus was about.
    scene.write("etc/p.yml", "scrape_configs: nonsense\n");
    outrigger.wait_for_metric(FAILED, |seen| seen > failed);
    outrigger.wait_for_metric(SUCCESSFUL, |successful| successful == 0.0);
    let line = outrigger.process.wait_for_line("the silence", |line| {
        line.contains("no reload was seen within 15s")
    });
    assert!(
        line.contains("level=error") && line.contains("remedy="),
        "{line}"
    );
    scene.write("etc/p.yml", scene.config("four"));
    wait_for_replica(&prometheus, "four");
    outrigger.wait_for_metric(SUCCESSFUL, |successful| successful == 1.0);
}

#[test]
fn no_process_of_the_name_is_an_error_with_its_remedy() {
    let scene = Scene::new();
    scene.write("etc/p.yml", scene.config("one"));
    let flags = [
        "--reloader.method=signal",
        "--reloader.process-name=no-such-thing",
    ];
    let (outrigger, _gate, _prometheus) = scene.started(&flags, &[]);
    let line = outrigger.process.wait_for_line("what is wrong", |line| {
        line.contains("there is none with the name")
    });
    assert!(
        line.contains("no-such-thing") && line.contains("shareProcessNamespace"),
        "{line}"
    );
}

#[test]
fn a_reload_that_fails_is_tried_again_until_it_succeeds() {
    let scene = Scene::new();
    scene.write("etc/p.yml", scene.config("one"));
    let gate = Gate::new(GateState::Replaying);
    let outrigger = Outrigger::start(&scene.arguments(gate.address(), &[]));
    let prometheus = scene.prometheus("prometheus", &["--web.enable-lifecycle"]);
    outrigger.wait_for_metric(FAILED, |failed| failed >= 3.0);
    scene.write("etc/p.yml", scene.config("two"));
    let failed = outrigger.metric(FAILED).unwrap();
    outrigger.wait_for_metric(FAILED, |seen| seen >= failed + 3.0);
    assert_eq!(outrigger.metric(SUCCESSFUL), Some(0.0));
    wait_for_replica(&prometheus, "one");
    gate.set(GateState::Open(prometheus.address()));
    wait_for_replica(&prometheus, "two");
    outrigger.wait_for_metric(SUCCESSFUL, |successful| successful == 1.0);

    // Prometheus' own verdict, and its words.
    scene.write("rules/bad.yml", "groups: nonsense\n");
    outrigger.wait_for_metric(SUCCESSFUL, |successful| successful == 0.0);
    let line = outrigger.process.wait_for_line("the verdict", |line| {
        line.contains("received non-200 response: 500")
    });
    assert!(line.contains("failed to reload config"), "{line}");
    scene.write("rules/bad.yml", rules("good"));
    wait_for_group(&prometheus, "good");
    outrigger.wait_for_metric(SUCCESSFUL, |successful| successful == 1.0);
}

#[test]
fn a_prometheus_without_lifecycle_is_named_as_such() {
    let scene = Scene::new();
    scene.write("etc/p.yml", scene.config("one"));
    let (outrigger, _gate, _prometheus) = scene.started(&[], &[]);
    let line = outrigger.process.wait_for_line("the refusal", |line| {
        line.contains("received non-200 response: 403 Forbidden")
    });
    assert!(
        line.contains("have you set `--web.enable-lifecycle` Prometheus flag?"),
        "{line}"
    );
    assert_eq!(outrigger.metric(SUCCESSFUL), Some(0.0));
}

#[test]
fn an_unset_variable_at_run_time_keeps_output_and_prometheus() {
    let scene = Scene::new();
    scene.write("etc/p.yml", scene.config("one"));
    let (mut outrigger, _gate, prometheus) = scene.started(&[], &["--web.enable-lifecycle"]);
    outrigger.wait_for_metric(SUCCESSFUL, |successful| successful == 1.0);
    let (output, reloads) = (
        fs::read(scene.at("out/p.yml")).unwrap(),
        outrigger.metric(RELOADS),
    );
    scene.write("etc/p.yml", scene.config("$(OUTRIGGER_TEST_UNSET)"));
    outrigger.wait_for_metric(UNSET, |unset| unset == 1.0);
    outrigger.wait_for_metric(APPLIES_FAILED, |failed| failed >= 1.0);
    let line = outrigger
        .process
        .wait_for_line("the variable", |line| line.contains("OUTRIGGER_TEST_UNSET"));
    assert!(
        line.contains("/etc/p.yml, line 3: ") && line.contains("remedy="),
        "{line}"
    );
    assert_eq!(fs::read(scene.at("out/p.yml")).unwrap(), output);
    wait_for_replica(&prometheus, "one");
    assert_eq!(outrigger.metric(RELOADS), reloads);
    fs::remove_dir_all(scene.at("etc")).unwrap();
    outrigger.process.wait_for_line("what is missing", |line| {
        line.contains("/etc/p.yml, of --reloader.config-file: No such file")
    });
    assert!(outrigger.process.is_running());
    fs::create_dir(scene.at("etc")).unwrap();
    scene.write("etc/p.yml", scene.config("two"));
    wait_for_replica(&prometheus, "two");
    outrigger.wait_for_metric(UNSET, |unset| unset == 0.0);
}

#[test]
fn what_is_wrong_at_start_ends_with_1_and_names_it() {
    let gate = Gate::new(GateState::Down);
    type Harm = fn(&Scene);
    let cases: [(Harm, &str); 4] = [
        (
            |scene| scene.write("etc/p.yml", "$(OUTRIGGER_TEST_UNSET)"),
            "found reference to unset environment variable \\\"OUTRIGGER_TEST_UNSET\\\"",
        ),
        (|_| {}, "read "),
        (
            |scene| scene.write("etc/p.yml", &packed("x")[..12]),
            "gunzip ",
        ),
        (
            |scene| {
                scene.write("etc/p.yml", "{}");
                fs::remove_dir(scene.at("out")).unwrap();
            },
            "make the output's directory",
        ),
    ];
    for (harm, expected) in cases {
        let scene = Scene::new();
        harm(&scene);
        let arguments = scene.arguments(gate.address(), &[]);
        let (code, log) = run_command_to_end(&mut outrigger_command(&arguments));
        assert_eq!(code, 1, "{log}");
        let start = "err=\"sidecar command failed: reloader: applying the configuration at start \
                     failed; ";
        assert!(
            log.contains(start) && log.contains(expected),
            "{expected}: {log}"
        );
        assert!(!log.contains("not drained within"), "{log}");
    }
    if is_root() {
        left_out(
            "unreadable configuration",
            "the tests run as root, whom permissions do not stop",
        );
        return;
    }
    let scene = Scene::new();
    scene.write("etc/p.yml", "{}");
    fs::set_permissions(scene.at("etc/p.yml"), fs::Permissions::from_mode(0o0)).unwrap();
    let arguments = scene.arguments(gate.address(), &[]);
    let (code, log) = run_command_to_end(&mut outrigger_command(&arguments));
    assert!(
        code == 1 && log.contains("let the user that outrigger runs as"),
        "{log}"
    );
}

#[test]
fn a_watch_interval_of_zero_writes_the_output_and_ends_with_0() {
    let scene = Scene::new();
    scene.write("etc/p.yml", scene.config("$(OUTRIGGER_TEST_REPLICA)"));
    let gate = Gate::new(GateState::Down);
    let mut arguments = scene.arguments(gate.address(), &[]);
    for argument in &mut arguments {
        if argument.starts_with("--reloader.watch-interval") {
            *argument = "--reloader.watch-interval=0".to_owned();
        }
    }
    let mut command: Command = outrigger_command(&arguments);
    let (code, log) = run_command_to_end(command.envs(VARIABLES.iter().copied()));
    assert_eq!(code, 0, "{log}");
    let output = fs::read_to_string(scene.at("out/p.yml")).unwrap();
    assert!(output.contains("replica: from-environment\n"), "{output}");
    assert!(log.contains("--reloader.watch-interval is 0"), "{log}");
    assert!(!log.contains("not drained within"), "{log}");
}
