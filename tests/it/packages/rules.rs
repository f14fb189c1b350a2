//! Alerts and recordings: promtool's own checks and unit tests, and that what they ask for exists.

use std::collections::{BTreeMap, BTreeSet};

use promql_parser::label::Matcher;
use promql_parser::parser::{self, Expr, LabelModifier};
use promql_parser::util::{ExprVisitor, walk_expr};
use serde_json::Value;

use super::{at, file, text, yaml};
use crate::metrics;
use crate::support::promtool;

const FILES: &[&str] = &[
    "prometheus/rules/alerts.yml",
    "prometheus/rules/recordings.yml",
];

/// Labels that a target has, and those that only Prometheus puts on.
const TARGET_LABELS: &[&str] = &["namespace", "pod", "job", "instance", "le"];

/// Of other programs: what is asked for and not ours.
const OF_PROMETHEUS: &[&str] = &["up", "prometheus_tsdb_data_replay_duration_seconds"];

fn all_rules() -> Vec<Value> {
    let documents = FILES.iter().flat_map(|path| yaml(&text(path)));
    let groups = documents.flat_map(|document| document["groups"].as_array().unwrap().clone());
    groups
        .flat_map(|group| group["rules"].as_array().unwrap().clone())
        .collect()
}

/// Names that rules record.
pub(super) fn recorded() -> BTreeSet<String> {
    let rules = all_rules();
    let names = rules.iter().filter_map(|rule| rule["record"].as_str());
    names.map(str::to_owned).collect()
}

/// What an expression selects, and the labels that it groups or joins by.
#[derive(Default)]
struct Asked {
    /// Metric and the labels of its matchers.
    selected: BTreeMap<String, BTreeSet<String>>,
    labels: BTreeSet<String>,
}

impl ExprVisitor for Asked {
    type Error = std::convert::Infallible;

    fn pre_visit(&mut self, expr: &Expr) -> Result<bool, Self::Error> {
        let selector = match expr {
            Expr::VectorSelector(selector) => Some(selector),
            Expr::MatrixSelector(matrix) => Some(&matrix.vs),
            _ => None,
        };
        if let Some(selector) = selector {
            let name = selector.name.clone().expect("a metric's name");
            let labels = self.selected.entry(name).or_default();
            let matchers: &[Matcher] = &selector.matchers.matchers;
            labels.extend(matchers.iter().map(|matcher| matcher.name.clone()));
        }
        let grouping = match expr {
            Expr::Aggregate(aggregate) => aggregate.modifier.as_ref(),
            Expr::Binary(binary) => binary.modifier.as_ref().and_then(|it| it.matching.as_ref()),
            _ => None,
        };
        if let Some(LabelModifier::Include(labels) | LabelModifier::Exclude(labels)) = grouping {
            self.labels.extend(labels.labels.iter().cloned());
        }
        Ok(true)
    }
}

/// Parses the expression and holds all its metrics and labels against the golden lists.
pub(super) fn check_expression(expression: &str) -> BTreeSet<String> {
    let parsed = parser::parse(expression).unwrap_or_else(|error| panic!("{expression}: {error}"));
    let mut asked = Asked::default();
    walk_expr(&mut asked, &parsed).unwrap();
    let (known, recorded) = (metrics::known(), recorded());
    let mut labels: BTreeSet<&str> = TARGET_LABELS.iter().copied().collect();
    for (name, matched) in &asked.selected {
        let family = ["_bucket", "_count", "_sum"]
            .iter()
            .filter_map(|suffix| name.strip_suffix(suffix))
            .find_map(|base| known.get(base).filter(|family| family.kind == "histogram"))
            .or_else(|| known.get(name));
        let is_own = name.starts_with("outrigger_") && family.is_some();
        let is_other = OF_PROMETHEUS.contains(&name.as_str()) || recorded.contains(name);
        assert!(
            family.is_some() || is_other,
            "{name} exists nowhere: {expression}"
        );
        let of_family = family
            .map(|family| family.labels.clone())
            .unwrap_or_default();
        for label in matched {
            let exists =
                is_own || of_family.contains(label) || TARGET_LABELS.contains(&label.as_str());
            assert!(exists, "{name} has no label {label}: {expression}");
        }
        labels.extend(
            known
                .get(name)
                .iter()
                .flat_map(|family| family.labels.iter())
                .map(String::as_str),
        );
        if let Some(base) = name
            .strip_suffix("_bucket")
            .and_then(|base| known.get(base))
        {
            labels.extend(base.labels.iter().map(String::as_str));
        }
        if is_own {
            labels.extend(["kind", "engine", "reason"]);
        }
    }
    for label in &asked.labels {
        assert!(
            labels.contains(label.as_str()),
            "nothing has the label {label}: {expression}"
        );
    }
    asked.selected.into_keys().collect()
}

#[test]
fn promtool_accepts_the_rules() {
    for path in FILES {
        let path = file(path);
        let said = promtool(&["check", "rules", path.to_str().unwrap()]);
        assert!(said.contains("SUCCESS"), "{said}");
    }
}

#[test]
fn the_unit_tests_of_the_rules_pass() {
    let path = file("prometheus/tests.yml");
    let said = promtool(&["test", "rules", path.to_str().unwrap()]);
    assert!(said.contains("SUCCESS"), "{said}");
}

/// Each alert is seen to fire, and something like it not to.
#[test]
fn each_alert_has_its_unit_test() {
    let tests = text("prometheus/tests.yml");
    for rule in all_rules() {
        let Some(alert) = rule["alert"].as_str() else {
            continue;
        };
        let fires = format!("ALERTS{{alertname=\"{alert}\", alertstate=\"firing\"");
        assert!(tests.contains(&fires), "{alert} has no unit test");
        let severity = at(&rule, "/labels/severity");
        assert!(
            ["critical", "warning", "info"].contains(&severity),
            "{alert}: {severity}"
        );
        assert!(!at(&rule, "/annotations/summary").is_empty());
        assert!(!at(&rule, "/annotations/description").is_empty());
    }
}

#[test]
fn alerts_of_the_reference_keep_their_names() {
    let rules = all_rules();
    for name in [
        "ThanosSidecarIsDown",
        "ThanosSidecarBucketOperationsFailed",
        "ThanosSidecarNoConnectionToStartedPrometheus",
    ] {
        let rule = rules.iter().find(|rule| rule["alert"] == name);
        assert_eq!(at(rule.unwrap(), "/labels/severity"), "critical");
    }
}

#[test]
fn rules_ask_for_metrics_that_exist() {
    for rule in all_rules() {
        let selected = check_expression(at(&rule, "/expr"));
        assert!(!selected.is_empty(), "{rule}");
    }
}

#[test]
fn what_does_not_exist_is_found() {
    for wrong in [
        "rate(thanos_shipper_upload_total[5m])",
        "thanos_status{chek=\"ready\"}",
        "sum by (operatoin) (thanos_objstore_bucket_operations_total)",
        "sum(thanos_status",
    ] {
        let found = std::panic::catch_unwind(|| check_expression(wrong));
        assert!(found.is_err(), "{wrong}");
    }
}
