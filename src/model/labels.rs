//! Label sets: sorted by name, one value per name.

use std::collections::BTreeMap;
use std::fmt;

/// A label set, sorted by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Labels(BTreeMap<String, String>);

impl Labels {
    /// Names and values in name order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The value of `name`; `None` where the set has no such label.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Whether the set has no label.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The set as a map, which serialises in name order.
    pub fn as_map(&self) -> &BTreeMap<String, String> {
        &self.0
    }
}

impl FromIterator<(String, String)> for Labels {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(labels: I) -> Self {
        Self(labels.into_iter().collect())
    }
}

impl fmt::Display for Labels {
    /// The PromQL form: `{a="1", b="2"}`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, (name, value)) in self.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            write!(f, "{comma}{name}={value:?}")?;
        }
        f.write_str("}")
    }
}

/// The external labels of the Prometheus beside us; empty until they are known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExternalLabels(pub Labels);

impl ExternalLabels {
    /// Whether there is none, or none is known yet. Blocks are not published then.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of `name` where it counts as an external label: one without a value does not
    /// (contract `prometheus.md` §5).
    pub fn value(&self, name: &str) -> Option<&str> {
        self.0.value(name).filter(|value| !value.is_empty())
    }
}
