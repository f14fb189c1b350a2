//! The proof that no series has labels of its own under the names of external and replica labels.
//!
//! Only then is the order of the answer known while it streams (see `resort`). Prometheus tells by
//! listing the label's values, which for its own data are never the external ones. It is asked
//! for all of its data first, which it answers from its indexes and which is remembered for a
//! while; only where there are such series somewhere is it asked for those of the request.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::upstream::{ListQuery, Select, Upstream};
use super::{ErrorClass, StoreError};

/// How long an answer for all data is believed. A series that breaks it meanwhile ends the call
/// that meets it.
const BELIEVED_FOR: Duration = Duration::from_secs(30);
/// Of more names than this, the proof costs more than sorting.
pub(super) const NAMES_MAX: usize = 20;
/// How many answers are remembered.
const REMEMBERED_MAX: usize = 1000;

/// What was found, by name.
#[derive(Debug, Default)]
pub(super) struct InnerLabels {
    remembered: Mutex<HashMap<String, Found>>,
}

#[derive(Clone, Copy, Debug)]
struct Found {
    known: Known,
    until: Instant,
}

/// What is known of the series that have a label of their own under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    None,
    /// Some series have, maybe none of those asked for.
    Somewhere,
    /// A series had one where Prometheus had said that there is none; asking again is no use.
    Refuted,
}

/// Something that was seen, and is believed for a while.
#[derive(Debug, Default)]
pub(super) struct Sighting(Mutex<Option<Instant>>);

impl Sighting {
    /// Notes that it was seen now.
    pub(super) fn note(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Whether it was seen a short while ago.
    pub(super) fn is_believed(&self) -> bool {
        let seen = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.is_some_and(|seen| seen.elapsed() < BELIEVED_FOR)
    }
}

impl InnerLabels {
    /// The name of a label of the overlay that selected series have of their own, if one has.
    ///
    /// # Errors
    /// Where Prometheus can't be asked.
    pub(super) async fn first_conflict(
        &self,
        upstream: &impl Upstream,
        select: &Select,
    ) -> Result<Option<String>, StoreError> {
        for (asked, name) in select.overlay.names().enumerate() {
            if asked >= NAMES_MAX {
                return Ok(Some(name.to_owned()));
            }
            let conflict = match self.known(upstream, name).await? {
                Known::None => false,
                Known::Somewhere => exist(upstream, name, of_select(select)).await?,
                Known::Refuted => true,
            };
            if conflict {
                return Ok(Some(name.to_owned()));
            }
        }
        Ok(None)
    }

    /// Notes that a series broke the proof.
    pub(super) fn refuted(&self, name: &str) {
        self.remember(name, Known::Refuted);
    }

    async fn known(&self, upstream: &impl Upstream, name: &str) -> Result<Known, StoreError> {
        if let Some(known) = self.recall(name) {
            return Ok(known);
        }
        let query = ListQuery {
            range: None,
            matchers: Vec::new(),
            limit: Some(1),
        };
        let known = match exist(upstream, name, query).await? {
            true => Known::Somewhere,
            false => Known::None,
        };
        self.remember(name, known);
        Ok(known)
    }

    fn recall(&self, name: &str) -> Option<Known> {
        let remembered = self.remembered.lock();
        let remembered = remembered.unwrap_or_else(PoisonError::into_inner);
        let found = remembered.get(name)?;
        (Instant::now() < found.until).then_some(found.known)
    }

    fn remember(&self, name: &str, known: Known) {
        let now = Instant::now();
        let remembered = self.remembered.lock();
        let mut remembered = remembered.unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= REMEMBERED_MAX {
            remembered.retain(|_, found| now < found.until);
        }
        // What was seen stands against an answer that was under way meanwhile.
        let refuted = remembered
            .get(name)
            .is_some_and(|found| found.known == Known::Refuted && now < found.until);
        if known != Known::Refuted && (refuted || remembered.len() >= REMEMBERED_MAX) {
            return;
        }
        // Callers choose the names, so that a flood of them must not hide one that was refuted.
        if remembered.len() >= REMEMBERED_MAX {
            remembered.clear();
        }
        let until = now + BELIEVED_FOR;
        remembered.insert(name.to_owned(), Found { known, until });
    }
}

fn of_select(select: &Select) -> ListQuery {
    ListQuery {
        range: Some(select.range),
        matchers: select.matchers.clone(),
        limit: Some(1),
    }
}

/// Whether the label has a value. Where Prometheus refuses the question (a selector that every
/// series matches, a name its router does not take), there is no proof.
async fn exist(upstream: &impl Upstream, name: &str, query: ListQuery) -> Result<bool, StoreError> {
    match upstream.label_values(name, &query).await {
        Ok(listed) => Ok(listed.values.iter().any(|value| !value.is_empty())),
        Err(error) => match error.class() {
            ErrorClass::InvalidArgument | ErrorClass::NotFound => Ok(true),
            _ => Err(error),
        },
    }
}
