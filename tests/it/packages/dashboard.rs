//! The Grafana dashboard: its form, and that each of its questions has an answer.

use std::collections::BTreeSet;

use serde_json::Value;

use super::rules::check_expression;
use super::{at, text};

const GRID_COLUMNS: u64 = 24;

fn dashboard() -> Value {
    serde_json::from_str(&text("grafana/outrigger.json")).unwrap()
}

fn panels(dashboard: &Value) -> &[Value] {
    dashboard["panels"].as_array().unwrap()
}

fn number(value: &Value, pointer: &str) -> u64 {
    value.pointer(pointer).and_then(Value::as_u64).unwrap()
}

#[test]
fn panels_lie_beside_each_other() {
    let dashboard = dashboard();
    let (mut ids, mut taken) = (BTreeSet::new(), BTreeSet::new());
    for panel in panels(&dashboard) {
        assert!(ids.insert(number(panel, "/id")), "{panel}");
        let [x, y, w, h] =
            ["x", "y", "w", "h"].map(|key| number(panel, &format!("/gridPos/{key}")));
        assert!(w > 0 && h > 0 && x + w <= GRID_COLUMNS, "{panel}");
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(taken.insert(cell), "two panels at {cell:?}: {panel}");
        }
        assert!(!at(panel, "/title").is_empty());
    }
    assert!(ids.len() > 20);
}

#[test]
fn each_question_has_an_answer() {
    let dashboard = dashboard();
    let mut asked = BTreeSet::new();
    for panel in panels(&dashboard)
        .iter()
        .filter(|panel| panel["type"] != "row")
    {
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{panel}");
        for target in targets {
            let expression = at(target, "/expr").replace("$__rate_interval", "5m");
            assert!(expression.contains("job=~\"$job\""), "{expression}");
            assert_eq!(at(target, "/datasource/uid"), "${datasource}");
            asked.extend(check_expression(&expression));
        }
    }
    // What only outrigger knows is on it.
    for name in [
        "instance:outrigger_shipping_lag_seconds:min",
        "outrigger_shipper_corrupt_blocks",
        "outrigger_io_engine_info",
        "thanos_sidecar_reloader_last_reload_successful",
        "thanos_sidecar_prometheus_up",
        "thanos_objstore_bucket_last_successful_upload_time",
    ] {
        assert!(asked.contains(name), "{name} is on no panel");
    }
}

#[test]
fn variables_are_those_that_panels_use() {
    let dashboard = dashboard();
    let variables = dashboard
        .pointer("/templating/list")
        .and_then(Value::as_array)
        .unwrap();
    let names: Vec<&str> = variables
        .iter()
        .map(|variable| at(variable, "/name"))
        .collect();
    assert_eq!(names, ["datasource", "job", "instance"]);
    for variable in &variables[1..] {
        let query = at(variable, "/query/query");
        let metric = query
            .strip_prefix("label_values(")
            .and_then(|rest| rest.split_once(", "));
        check_expression(metric.unwrap().0);
    }
    assert_eq!(at(&dashboard, "/uid"), "outrigger");
}
