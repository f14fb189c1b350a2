//! Label sets of answers: Prometheus' own with the external labels over them.

use std::collections::BTreeMap;

use crate::model::ExternalLabels;
use crate::proto::thanos::{Label, ZLabelSet};

/// These labels, sorted by name.
pub(super) fn label_set(labels: BTreeMap<String, String>) -> ZLabelSet {
    let labels = labels.into_iter();
    ZLabelSet {
        labels: labels.map(|(name, value)| Label { name, value }).collect(),
    }
}

/// These labels and the external ones, which win.
pub(super) fn with_external(
    mut labels: BTreeMap<String, String>,
    external: &ExternalLabels,
) -> ZLabelSet {
    for (name, value) in external.0.iter() {
        labels.insert(name.to_owned(), value.to_owned());
    }
    label_set(labels)
}
