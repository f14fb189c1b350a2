//! An expression over series with external labels, as one over what Prometheus stores.

use std::collections::BTreeMap;

/// What a label is that Prometheus' series do not carry, or that results shall not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlaid {
    /// What matchers on it are held against; `None`: a replica label that is no external label,
    /// whose matchers go to Prometheus.
    pub external: Option<String>,
    /// Whether results carry it: external labels that are no replica labels to be dropped.
    pub is_shown: bool,
    /// Whether a stored series has a label of this name, which then has to be replaced.
    pub is_stored: bool,
}

/// The labels that differ between what Prometheus stores and what is asked about, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelOverlay(pub BTreeMap<String, Overlaid>);

/// What Prometheus is asked in place of the user's expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewritten {
    /// The expression.
    pub query: String,
    /// Labels that each series of the result has to get, sorted by name; none of them is there.
    pub added: Vec<(String, String)>,
}

/// An expression that is not evaluated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RewriteError {
    /// Not PromQL as far as we can tell; Prometheus has better words for it.
    #[error("{0}")]
    Syntax(String),
    /// Can't be evaluated faithfully with external labels in place.
    #[error("unsupported {what}")]
    Unsupported {
        /// What it has.
        what: String,
    },
}

/// Rewrites an expression.
///
/// # Errors
/// See [`RewriteError`].
pub fn rewrite(_query: &str, _overlay: &LabelOverlay) -> Result<Rewritten, RewriteError> {
    todo!()
}

/// Rewrites a selector (`match[]`); `None` where it can't match anything.
///
/// # Errors
/// See [`RewriteError`].
pub fn rewrite_selector(
    _selector: &str,
    _overlay: &LabelOverlay,
) -> Result<Option<String>, RewriteError> {
    todo!()
}

impl Rewritten {
    /// A message of Prometheus about [`Self::query`] with the positions of the user's text, where
    /// it ends in one: `… (1:6)`.
    pub fn in_users_terms(&self, _message: &str) -> String {
        todo!()
    }
}
