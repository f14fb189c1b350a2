//! What we need out of Prometheus' configuration: external labels, the out-of-order window.
//!
//! The configuration can be megabytes of scrape jobs and is fetched at every heartbeat, so only
//! the sections `global` and `storage` are parsed, where they can be told from the text.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::model::{ExternalLabels, InvalidPromDuration, Labels, PromDuration};

#[derive(Deserialize)]
struct Configuration {
    global: Option<Global>,
}

#[derive(Deserialize)]
struct Global {
    external_labels: Option<BTreeMap<String, Option<String>>>,
}

/// Its own document, so that nothing in it can spoil the labels.
#[derive(Deserialize)]
struct StorageConfiguration {
    storage: Option<Storage>,
}

#[derive(Deserialize)]
struct Storage {
    tsdb: Option<Tsdb>,
}

#[derive(Deserialize)]
struct Tsdb {
    out_of_order_time_window: Option<String>,
}

/// Why the out-of-order window is not known.
#[derive(Debug, thiserror::Error)]
pub(super) enum WindowError {
    #[error("the section `storage` can't be read")]
    Section(#[from] Box<serde_saphyr::Error>),
    #[error("its out_of_order_time_window is no duration")]
    Duration(#[from] InvalidPromDuration),
}

/// How far back samples may come out of order (`storage.tsdb.out_of_order_time_window`), 0 where
/// that is absent.
pub(super) fn out_of_order_window(yaml: &str) -> Result<PromDuration, WindowError> {
    if !yaml.contains("out_of_order_time_window") {
        return Ok(PromDuration::default());
    }
    let parsed: Result<Option<StorageConfiguration>, _> = match section(yaml, "storage:") {
        Some(section) => parse(section).or_else(|_| parse(yaml)),
        None => parse(yaml),
    };
    let window = parsed
        .map_err(Box::new)?
        .and_then(|configuration| configuration.storage?.tsdb?.out_of_order_time_window);
    Ok(match window {
        Some(window) => window.parse()?,
        None => PromDuration::default(),
    })
}

/// The labels of `global.external_labels`, none where it is absent. Values are their text, also
/// where YAML would take it for a number; null is the empty text.
pub(super) fn external_labels(yaml: &str) -> Result<ExternalLabels, serde_saphyr::Error> {
    let parsed: Result<Option<Configuration>, _> = match section(yaml, "global:") {
        // An alias may point out of the section.
        Some(section) => parse(section).or_else(|_| parse(yaml)),
        None => parse(yaml),
    };
    let labels = parsed?
        .and_then(|configuration| configuration.global?.external_labels)
        .unwrap_or_default();
    let labels = labels
        .into_iter()
        .map(|(name, value)| (name, value.unwrap_or_default()));
    Ok(ExternalLabels(labels.collect::<Labels>()))
}

fn parse<T: DeserializeOwned>(yaml: &str) -> Result<Option<T>, serde_saphyr::Error> {
    // Snippets of the configuration, with its passwords, have no place in an error.
    let options = serde_saphyr::options! { with_snippet: false };
    serde_saphyr::from_str_with_options(yaml, options)
}

/// The lines from `key` to the next key of the same level, in a document of block style as
/// Prometheus prints it. Lines of a nested block are indented, so none of them begins a key here.
fn section<'a>(yaml: &'a str, key: &str) -> Option<&'a str> {
    let mut start = None;
    let mut offset = 0;
    for line in yaml.split_inclusive('\n') {
        let inside = line.starts_with([' ', '\t', '#', '\n', '\r']);
        match start {
            None if line.starts_with(key) => start = Some(offset),
            Some(start) if !inside => return yaml.get(start..offset),
            _ => {}
        }
        offset += line.len();
    }
    start.and_then(|start| yaml.get(start..))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(yaml: &str) -> String {
        external_labels(yaml).unwrap().0.to_string()
    }

    #[test]
    fn values_are_their_text() {
        let yaml = concat!(
            "global:\n  scrape_interval: 15s\n  external_labels:\n",
            "    n: 1\n    z: 0123\n    f: 1.50\n    b: true\n    y: yes\n",
            "    t: 2026-01-01\n    e: 1e3\n    q: \"1\"\n",
            "    empty: \"\"\n    nothing: ~\n    \"null\": x\n",
            "scrape_configs:\n- job_name: x\n",
        );
        assert_eq!(
            labels(yaml),
            concat!(
                r#"{b="true", e="1e3", empty="", f="1.50", n="1", nothing="", null="x", q="1", "#,
                r#"t="2026-01-01", y="yes", z="0123"}"#
            )
        );
    }

    #[test]
    fn absent_or_empty_sections_give_none() {
        for yaml in [
            "",
            "{}",
            "global:\n",
            "global: {}\n",
            "global:\n  external_labels:\n",
            "global:\n  external_labels: {}\n",
            "scrape_configs: []\n",
            "alerting:\n  global:\n    external_labels: {a: b}\n",
        ] {
            assert!(external_labels(yaml).unwrap().is_empty(), "{yaml:?}");
        }
    }

    #[test]
    fn the_section_is_found_in_any_place_and_style() {
        let expected = r#"{a="b"}"#;
        for yaml in [
            "global:\n  external_labels:\n    a: b",
            "rule_files:\n- x\nglobal:\n\n# comment\n  external_labels:\n    a: b\nz: 1\n",
            "{global: {external_labels: {a: b}}, z: [1]}",
            "x: &l {a: b}\nglobal:\n  external_labels: *l\n",
            "---\nglobal: {external_labels: {a: b}}\nz: 1\n",
            "\"global\":\n  external_labels:\n    a: b\n",
            "global:\n  query_log_file: |\n    x\n\n    y\n  external_labels:\n    a: b\n",
        ] {
            assert_eq!(labels(yaml), expected, "{yaml:?}");
        }
    }

    #[test]
    fn the_window_is_found_wherever_it_stands() {
        let minutes = |yaml: &str| out_of_order_window(yaml).unwrap().as_millis() / 60_000;
        for (yaml, expected) in [
            ("", 0),
            ("global:\n  external_labels: {a: b}\n", 0),
            (
                "storage:\n  tsdb:\n    retention: {}\n  exemplars:\n    max_exemplars: 1\n",
                0,
            ),
            (
                "storage:\n  tsdb:\n    out_of_order_time_window: 30m\nz: 1\n",
                30,
            ),
            (
                "a: [\nstorage:\n  tsdb:\n    out_of_order_time_window: 1h30m\n",
                90,
            ),
            ("{storage: {tsdb: {out_of_order_time_window: 2h}}}", 120),
            (
                "x: &t {out_of_order_time_window: 1d}\nstorage:\n  tsdb: *t\n",
                1440,
            ),
            ("storage:\n  tsdb:\n    out_of_order_time_window: 0s\n", 0),
            ("scrape_configs:\n- job_name: out_of_order_time_window\n", 0),
            ("storage:\n", 0),
        ] {
            assert_eq!(minutes(yaml), expected, "{yaml:?}");
        }
        for bad in ["soon", "-1h", "1.5h", "[1]"] {
            let yaml = format!("storage:\n  tsdb:\n    out_of_order_time_window: {bad}\n");
            out_of_order_window(&yaml).unwrap_err();
            assert!(external_labels(&yaml).unwrap().is_empty());
        }
    }

    #[test]
    fn only_the_section_is_parsed() {
        let yaml = "global:\n  external_labels:\n    a: b\nbroken: [\n";
        assert_eq!(labels(yaml), r#"{a="b"}"#);
        assert!(external_labels("broken: [\n").is_err());
        assert!(external_labels("global:\n  external_labels: [a]\n").is_err());
    }
}
