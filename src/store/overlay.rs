//! What external labels and replica labels do to the labels of a series.
//!
//! Prometheus' data does not carry the external labels; remote read merges them in, a series' own
//! label winning, StoreAPI overlays them, the external one winning (contract `grpc.md` §3.2,
//! §3.3). So they are taken off when a series arrives and put in when it is sent, minus
//! `without_replica_labels`. A series that has a label of its own under one of these names is a
//! *conflict*: it is rare, and it is what makes the order of the answer unforeseeable.

use std::collections::BTreeMap;

use super::{LabelSet, StoreError};
use crate::model::ExternalLabels;

/// Bytes and labels to make room for: those of a usual series, so that a set seldom grows.
const LABELS_EXPECTED: usize = 16;
const LABEL_BYTES_EXPECTED: usize = 384;

/// The labels that are put on and taken off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlay {
    added: LabelSet,
    /// Names that an arriving series loses, with the value that Prometheus may have merged in.
    managed: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    /// Bit n stands for managed names of n bytes, the highest for all longer ones: most names of a
    /// series are told apart by that.
    lengths: u64,
}

/// A series' labels without those of the overlay.
#[derive(Debug)]
pub struct Inner {
    /// What is left.
    pub labels: LabelSet,
    /// The name of a label of its own that was taken off, if there was one.
    pub conflict: Option<String>,
}

impl Overlay {
    /// For remote read: external labels are put on, all of `without` and the external labels that
    /// Prometheus merged in are taken off.
    ///
    /// # Errors
    /// Where the external labels are too long.
    pub fn for_chunks(external: &ExternalLabels, without: &[String]) -> Result<Self, StoreError> {
        let mut overlay = Self::for_labels(external, without)?;
        for (name, value) in external.0.iter() {
            let merged = (!value.is_empty()).then(|| value.as_bytes().to_owned());
            overlay.managed.insert(name.as_bytes().to_owned(), merged);
        }
        for name in without {
            let name = name.as_bytes().to_owned();
            overlay.managed.entry(name).or_insert(None);
        }
        Ok(Self::new(overlay.added, overlay.managed))
    }

    /// For `/api/v1/series`, which merges nothing in: a replica label of a series' own stays.
    ///
    /// # Errors
    /// Where the external labels are too long.
    pub fn for_labels(external: &ExternalLabels, without: &[String]) -> Result<Self, StoreError> {
        let mut added = LabelSet::default();
        let mut managed = BTreeMap::new();
        for (name, value) in external.0.iter() {
            if !without.iter().any(|w| w == name) {
                added.push(name.as_bytes(), value.as_bytes())?;
                managed.insert(name.as_bytes().to_owned(), None);
            }
        }
        Ok(Self::new(added, managed))
    }

    fn new(added: LabelSet, managed: BTreeMap<Vec<u8>, Option<Vec<u8>>>) -> Self {
        let lengths = managed.keys().map(|name| length_bit(name));
        Self {
            lengths: lengths.fold(0, std::ops::BitOr::bitor),
            added,
            managed,
        }
    }

    /// The labels that are put on.
    pub fn added(&self) -> &LabelSet {
        &self.added
    }

    /// The names that no series may have of its own where the answer is to be streamed.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let names = self.managed.keys();
        names.filter_map(|name| std::str::from_utf8(name).ok())
    }

    /// Takes the overlay's labels off a series that seldom has one.
    ///
    /// # Errors
    /// Where the labels are too long.
    pub fn strip(&self, labels: LabelSet) -> Result<Inner, StoreError> {
        let is_managed = |(name, _): (&[u8], &[u8])| {
            self.lengths & length_bit(name) != 0 && self.managed.contains_key(name)
        };
        if !labels.iter().any(is_managed) {
            let conflict = None;
            return Ok(Inner { labels, conflict });
        }
        self.inner(labels.iter())
    }

    /// Takes the overlay's labels off a series; `labels` are sorted by name.
    ///
    /// # Errors
    /// Where the labels are too long.
    pub fn inner<'a, T: AsRef<[u8]> + ?Sized + 'a>(
        &self,
        labels: impl Iterator<Item = (&'a T, &'a T)>,
    ) -> Result<Inner, StoreError> {
        let mut inner = LabelSet::with_capacity(LABELS_EXPECTED, LABEL_BYTES_EXPECTED);
        let mut conflict = None;
        let mut before: Option<&[u8]> = None;
        for (name, value) in labels {
            let (name, value) = (name.as_ref(), value.as_ref());
            // Sets with unsorted or repeated names would break all that follows.
            if before.is_some_and(|before| before >= name) {
                return Err(StoreError::OutOfOrder);
            }
            before = Some(name);
            match self.managed.get(name) {
                None => inner.push(name, value)?,
                Some(merged) if value.is_empty() || merged.as_deref() == Some(value) => {}
                Some(_) => conflict = Some(String::from_utf8_lossy(name).into_owned()),
            }
        }
        Ok(Inner {
            labels: inner,
            conflict,
        })
    }
}

fn length_bit(name: &[u8]) -> u64 {
    1 << name.len().min(63)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Labels;

    fn external(labels: &[(&str, &str)]) -> ExternalLabels {
        let owned = labels
            .iter()
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
        ExternalLabels(owned.collect::<Labels>())
    }

    fn shown(set: &LabelSet) -> String {
        set.iter()
            .map(|(n, v)| {
                format!(
                    "{}={} ",
                    String::from_utf8_lossy(n),
                    String::from_utf8_lossy(v)
                )
            })
            .collect()
    }

    #[test]
    fn external_labels_win_and_replica_labels_go() {
        let external = external(&[("c", "ext"), ("e", ""), ("r", "1")]);
        let without = ["r".to_owned(), "q".to_owned()];
        let overlay = Overlay::for_chunks(&external, &without).unwrap();
        assert_eq!(shown(overlay.added()), "c=ext ");
        assert_eq!(overlay.names().collect::<Vec<_>>(), ["c", "e", "q", "r"]);

        let merged = [("a", "1"), ("c", "ext"), ("r", "1"), ("z", "2")];
        let inner = overlay.inner(merged.into_iter()).unwrap();
        assert_eq!(shown(&inner.labels), "a=1 z=2 ");
        assert_eq!(inner.conflict, None);

        for own in ["c", "e", "q", "r"] {
            let inner = overlay.inner([(own, "own"), ("z", "2")].into_iter());
            let inner = inner.unwrap();
            assert_eq!(shown(&inner.labels), "z=2 ");
            assert_eq!(inner.conflict.as_deref(), Some(own));
        }

        let overlay = Overlay::for_labels(&external, &without).unwrap();
        let inner = overlay
            .inner([("c", "ext"), ("r", "1")].into_iter())
            .unwrap();
        assert_eq!(shown(&inner.labels), "r=1 ");
        assert_eq!(inner.conflict.as_deref(), Some("c"));
    }

    #[test]
    fn labels_out_of_order_are_refused() {
        let overlay = Overlay::for_chunks(&external(&[]), &[]).unwrap();
        for labels in [[("b", "1"), ("a", "1")], [("a", "1"), ("a", "2")]] {
            let error = overlay.inner(labels.into_iter()).unwrap_err();
            assert!(matches!(error, StoreError::OutOfOrder));
        }
    }
}
