//! `docs/metrics.md` against what a process exposes, and against the golden lists.

use std::collections::{BTreeMap, BTreeSet};

use super::page::{Page, code};
use crate::metrics::{Family, families, is_of_the_reference};
use crate::support::{Gate, GateState, Outrigger, Site, get};

const HEADING: &[&str] = &["Metric", "Type", "Labels", "Meaning", "Reference"];

struct Row {
    kind: String,
    labels: BTreeSet<String>,
    of_reference: bool,
}

fn documented(page: &Page) -> BTreeMap<String, Row> {
    let mut metrics = BTreeMap::new();
    for cells in page.rows(HEADING) {
        let [name, kind, labels, meaning, reference] = <[String; 5]>::try_from(cells).unwrap();
        assert!(!meaning.is_empty(), "{name}");
        let labels = labels.split(", ").filter(|label| !label.is_empty());
        let row = Row {
            kind,
            labels: labels.map(str::to_owned).collect(),
            of_reference: match reference.as_str() {
                "yes" => true,
                "no" => false,
                other => panic!("{name}: {other}"),
            },
        };
        let before = metrics.insert(code(&name).to_owned(), row);
        assert!(before.is_none(), "{name} is there twice");
    }
    metrics
}

fn differences(rows: &BTreeMap<String, Row>, exposed: &BTreeMap<String, Family>) -> Vec<String> {
    let mut found = Vec::new();
    for (name, family) in exposed {
        let Some(row) = rows.get(name) else {
            found.push(format!("{name} is not documented"));
            continue;
        };
        if row.kind != family.kind || row.labels != family.labels {
            let labels: Vec<&str> = family.labels.iter().map(String::as_str).collect();
            found.push(format!(
                "{name} is a {} of {}",
                family.kind,
                labels.join(", ")
            ));
        }
        if row.of_reference != is_of_the_reference(name) {
            found.push(format!("{name}: whether the reference has it is wrong"));
        }
    }
    let unknown = rows.keys().filter(|name| !exposed.contains_key(*name));
    found.extend(unknown.map(|name| format!("{name} is documented and not there")));
    found
}

#[test]
fn each_metric_is_documented_as_it_is() {
    let gate = Gate::new(GateState::Replaying);
    let site = Site::new();
    // With everything that has metrics of its own; nobody needs to collect.
    let collector = gate.address();
    let keys = format!("client_type: grpc, endpoint: \"{collector}\", insecure: true");
    let tracing = format!("--tracing.config={{type: OTLP, config: {{{keys}}}}}");
    let outrigger =
        Outrigger::start(&site.arguments(gate.address(), &[&tracing, "--query.enable"]));
    let (status, exposition) = get(outrigger.address(), "/metrics").unwrap();
    assert_eq!(status, 200);
    let rows = documented(&Page::read("docs/metrics.md"));
    assert_eq!(
        differences(&rows, &families(&exposition)),
        Vec::<String>::new()
    );
}

#[test]
fn a_metric_that_is_missing_wrong_or_gone_is_found() {
    let text = "| Metric | Type | Labels | Meaning | Reference |\n|---|---|---|---|---|\n\
                | `thanos_status` | gauge | check | told | yes |\n\
                | `gone_total` | counter | | told | no |\n";
    let rows = documented(&Page {
        path: "m.md".to_owned(),
        text: text.to_owned(),
    });
    let exposition = "# HELP thanos_status x\n# TYPE thanos_status gauge\n\
                      thanos_status{check=\"ready\",component=\"sidecar\"} 1\n\
                      # HELP new_total x\n# TYPE new_total counter\nnew_total 1\n";
    assert_eq!(differences(&rows, &families(exposition)).len(), 3);
}
