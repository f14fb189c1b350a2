//! `/metrics` against the golden list, so that no dashboard loses a series unnoticed.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::{Gate, GateState, Outrigger, Site, get};

const GOLDEN: &str = include_str!("../golden/metrics.txt");
const DEVIATIONS: &str = include_str!("../golden/metrics_deviations.txt");

/// A metric family as it is exposed or as it should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Family {
    /// counter, gauge or histogram.
    pub(crate) kind: String,
    /// All label names of its series, without `le`.
    pub(crate) labels: BTreeSet<String>,
    /// The help text.
    pub(crate) help: String,
}

/// What an exposition in the text format has that the golden list has not, and the other way
/// round; empty where they agree. `uploads`: whether the process was told to upload.
pub(crate) fn differences(exposition: &str, uploads: bool) -> Vec<String> {
    let exposed = families(exposition);
    let mut expected = golden("always");
    if uploads {
        expected.extend(golden("uploads"));
    }
    let mut found = Vec::new();
    for (name, family) in &expected {
        match exposed.get(name) {
            None => found.push(format!("{name} is missing")),
            Some(seen) if seen != family => {
                found.push(format!("{name} is {seen:?}, should be {family:?}"));
            }
            Some(_) => {}
        }
    }
    let (absent, added) = (deviations("absent"), deviations("added"));
    for name in exposed.keys().filter(|name| !expected.contains_key(*name)) {
        if !added.iter().any(|pattern| matches(pattern, name)) {
            found.push(format!("{name} is in neither list"));
        }
    }
    for name in exposed.keys() {
        if absent.iter().any(|pattern| matches(pattern, name)) {
            found.push(format!("{name} is listed as absent and is not"));
        }
    }
    found
}

/// Whether the reference has a metric of this name.
pub(crate) fn is_of_the_reference(name: &str) -> bool {
    ["always", "uploads"]
        .iter()
        .any(|section| golden(section).contains_key(name))
}

/// The families of an exposition in the text format.
pub(crate) fn families(exposition: &str) -> BTreeMap<String, Family> {
    let mut families = BTreeMap::<String, Family>::new();
    let mut current = String::new();
    for line in exposition.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|l| l.split_once(' ')) {
            families.entry(name.to_owned()).or_default().help = help.to_owned();
        } else if let Some((name, kind)) =
            line.strip_prefix("# TYPE ").and_then(|l| l.split_once(' '))
        {
            families.entry(name.to_owned()).or_default().kind = kind.to_owned();
            current = name.to_owned();
        } else if !line.starts_with('#') {
            assert!(line.starts_with(&current), "{line} is not of {current}");
            let family = families.entry(current.clone()).or_default();
            family.labels.extend(label_names(line));
        }
    }
    families
}

/// The names before `="`, as far as they stand outside of quotes.
fn label_names(sample: &str) -> Vec<String> {
    let (mut names, mut name) = (Vec::new(), String::new());
    let (mut in_quotes, mut escaped) = (false, false);
    for c in sample.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' if in_quotes => escaped = true,
            '"' => in_quotes = !in_quotes,
            _ if in_quotes => {}
            '{' | ',' => name.clear(),
            '=' => names.push(std::mem::take(&mut name)),
            '}' => break,
            c => name.push(c),
        }
    }
    names.retain(|name| name != "le");
    names
}

/// Every metric that may be exposed, with its labels; those of our own are without theirs.
pub(crate) fn known() -> BTreeMap<String, Family> {
    let mut known = golden("always");
    known.extend(golden("uploads"));
    let own = deviations("added").into_iter();
    known.extend(own.map(|name| (name, Family::default())));
    known
}

fn golden(section: &str) -> BTreeMap<String, Family> {
    let family = |line: &str| {
        let fields: Vec<&str> = line.split('\t').collect();
        let [name, kind, labels, help] = fields[..] else {
            panic!("not four fields: {line}");
        };
        let labels = labels.split(',').filter(|label| !label.is_empty());
        let family = Family {
            kind: kind.to_owned(),
            labels: labels.map(str::to_owned).collect(),
            help: help.to_owned(),
        };
        (name.to_owned(), family)
    };
    lines(GOLDEN, section).map(family).collect()
}

fn deviations(section: &str) -> Vec<String> {
    let pattern = |line: &str| {
        let (pattern, reason) = line.split_once('\t').expect("a pattern and its reason");
        assert!(!reason.is_empty(), "{pattern} has no reason");
        pattern.to_owned()
    };
    lines(DEVIATIONS, section).map(pattern).collect()
}

/// What stands in one section of a committed list.
pub(crate) fn lines<'a>(text: &'a str, section: &str) -> impl Iterator<Item = &'a str> {
    let heading = format!("[{section}]");
    assert!(text.lines().any(|line| line == heading), "no {heading}");
    let after = text
        .lines()
        .skip_while(move |line| *line != heading)
        .skip(1);
    let section = after.take_while(|line| !line.starts_with('['));
    section.filter(|line| !line.is_empty() && !line.starts_with('#'))
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == pattern,
    }
}

#[test]
fn everything_of_the_golden_list_is_there_from_the_first_scrape() {
    // Before anything is known of Prometheus, let alone of its labels.
    let gate = Gate::new(GateState::Replaying);
    for uploads in [true, false] {
        let site = Site::new();
        let mut arguments = site.arguments(gate.address(), &[]);
        arguments.retain(|argument| uploads || !argument.starts_with("--objstore.config"));
        let outrigger = Outrigger::start(&arguments);
        let (status, exposition) = get(outrigger.address(), "/metrics").unwrap();
        assert_eq!(status, 200);
        assert_eq!(differences(&exposition, uploads), Vec::<String>::new());
    }
}

#[test]
fn differences_are_found() {
    let text = "# HELP thanos_status x\n# TYPE thanos_status gauge\n\
        thanos_status{check=\"a=\\\"{\",odd=\"1\"} 1\n\
        # HELP go_x x\n# TYPE go_x gauge\ngo_x 1\n# HELP own x\n# TYPE own gauge\nown 1\n";
    let found = differences(text, false);
    let about = |name: &str| found.iter().filter(|line| line.starts_with(name)).count();
    assert_eq!(about("thanos_status is "), 1, "{found:?}");
    assert_eq!(about("own is in neither list"), 1, "{found:?}");
    assert_eq!(about("go_x is listed as absent"), 1, "{found:?}");
    assert_eq!(about("process_open_fds is missing"), 1, "{found:?}");
    assert_eq!(about("thanos_shipper"), 0, "{found:?}");
    let found = differences(text, true);
    let missing = found
        .iter()
        .filter(|line| line.contains("thanos_shipper"))
        .count();
    assert_eq!(missing, 6, "{found:?}");
}
