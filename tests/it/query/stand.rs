//! The same samples three times: as Prometheus beside outrigger stores them, with the external
//! labels on every series, and so without the replica labels. What the rewritten expression gives
//! of the first has to be what the expression gives of the second or the third.

use std::net::SocketAddr;

use outrigger::query::{LabelOverlay, Overlaid};

use super::api::{Api, LabelSet, When};
use super::data::{self, Series};
use crate::support::{Prometheus, PrometheusSetup, Site, get};

/// Before every other label, in the middle, after most; with all that has a meaning in PromQL
/// strings and in `label_replace`.
pub(super) const EXTERNAL: [(&str, &str); 5] = [
    ("Aaa", "first"),
    ("cluster", "eu1"),
    (REPLICA, "a"),
    ("zone", "q\"uote $1 \\d ünï"),
    ("zzz", "last"),
];
/// The external label that results of the third view do not carry.
pub(super) const REPLICA: &str = "replica";
/// A replica label that only some stored series have.
pub(super) const INNER_REPLICA: &str = "rep2";

/// As [`EXTERNAL`], in YAML.
const EXTERNAL_YAML: [(&str, &str); 5] = [
    ("Aaa", "first"),
    ("cluster", "eu1"),
    (REPLICA, "a"),
    ("zone", "q\\\"uote $1 \\\\d ünï"),
    ("zzz", "last"),
];

/// The one with a dollar, which stands for itself where another follows.
const ZONE_EXPANDED: &str = "q\\\"uote $$1 \\\\d ünï";

/// What a version may lack or have only when asked; older ones warn of what they do not know.
const FEATURES: &str = "--enable-feature=native-histograms,promql-experimental-functions,\
                        promql-duration-expr,promql-extended-range-selectors,\
                        promql-binop-fill-modifiers";

/// Three Prometheis.
pub(super) struct Stand {
    // Dropped in this order.
    pub(super) stored: Prometheus,
    relabelled: Prometheus,
    held: Prometheus,
    pub(super) site: Site,
    /// Whether names may be any UTF-8.
    pub(super) has_utf8: bool,
    /// Whether `label_replace` keeps native histograms, which 2.42's does not.
    pub(super) replaces_in_histograms: bool,
    /// Labels of stored series.
    stored_names: Vec<String>,
}

impl Stand {
    /// Over series that the version's names decide.
    pub(super) fn over(series: impl Fn(bool) -> Vec<Series>) -> Self {
        let site = Site::new();
        let start = |name: &str| {
            let mut setup = PrometheusSetup {
                external_labels: EXTERNAL_YAML.to_vec(),
                flags: vec![
                    "--web.enable-remote-write-receiver".to_owned(),
                    FEATURES.to_owned(),
                ],
                ..PrometheusSetup::default()
            };
            let prometheus = Prometheus::start(&site.scratch().join(name), &setup);
            let (_, config) = get(prometheus.address(), "/api/v1/status/config").unwrap();
            if !config.contains("uote $1") {
                // As of 3.0 it puts in variables of its environment.
                setup.external_labels[3].1 = ZONE_EXPANDED;
                prometheus.reload(&setup);
            }
            prometheus
        };
        let [stored, relabelled, held] = ["stored", "relabelled", "held"].map(start);
        let mut api = Api::new(stored.address());
        let (status, _) = api.post("/api/v1/query", &[("query", "{\"my.metric\"}")]);
        let has_utf8 = status == 200;
        let series = series(has_utf8);
        data::write(stored.address(), &series, LabelSet::clone);
        data::write(relabelled.address(), &series, |labels| {
            let external = EXTERNAL.map(|(name, value)| (name.to_owned(), value.to_owned()));
            let mut labels = labels.clone();
            labels.extend(external);
            labels
        });
        data::write(held.address(), &series, |labels| {
            let external = EXTERNAL.map(|(name, value)| (name.to_owned(), value.to_owned()));
            let mut labels = labels.clone();
            labels.extend(external);
            labels.retain(|name, _| name != REPLICA && name != INNER_REPLICA);
            labels
        });
        let when = When::At((data::START_MS / 1000 + 60).to_string());
        let replaced = "histogram_count(label_replace(nh, \"a\", \"b\", \"\", \"\"))";
        let answer = Api::new(relabelled.address()).query(&when, replaced, &[]);
        let replaces_in_histograms = !answer.elements.is_empty();
        let names = series
            .iter()
            .flat_map(|series| series.labels.keys().cloned());
        Self {
            stored_names: names.collect(),
            stored,
            relabelled,
            held,
            site,
            has_utf8,
            replaces_in_histograms,
        }
    }

    /// Where series carry what is asked about: all external labels, or no replica label.
    pub(super) fn expected_at(&self, is_held: bool) -> SocketAddr {
        let which = if is_held {
            &self.held
        } else {
            &self.relabelled
        };
        which.address()
    }

    /// What the rewriter is told.
    pub(super) fn overlay(&self, is_held: bool) -> LabelOverlay {
        let is_stored = |name: &str| self.stored_names.iter().any(|stored| stored == name);
        let external = EXTERNAL.map(|(name, value)| {
            let overlaid = Overlaid {
                external: Some(value.to_owned()),
                is_shown: !(is_held && name == REPLICA),
                is_stored: is_stored(name),
            };
            (name.to_owned(), overlaid)
        });
        let mut overlay = LabelOverlay(external.into_iter().collect());
        if is_held {
            let inner = Overlaid {
                external: None,
                is_shown: false,
                is_stored: is_stored(INNER_REPLICA),
            };
            overlay.0.insert(INNER_REPLICA.to_owned(), inner);
        }
        overlay
    }
}
