//! Whether Prometheus stores labels under the names of external and replica labels.
//!
//! It tells by listing a label's values, which are never the external ones, from its indexes. The
//! answer is believed for a while; queries that come meanwhile wait for one question, not for one
//! each. A result that shows the answer wrong ends in an error and corrects it; what is
//! grouped or matched by a label that came to be stored meanwhile does not show it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::prometheus::{Client, PeerError, PeerErrorClass, Scope};

/// How long an answer is believed: as long as the store believes it.
pub(super) const BELIEVED_FOR: Duration = Duration::from_secs(30);
/// How many names are remembered; callers choose them.
pub(super) const REMEMBERED_MAX: usize = 1000;

/// What was found, by name.
#[derive(Debug, Default)]
pub(super) struct StoredLabels {
    names: Mutex<HashMap<String, Arc<Name>>>,
}

/// One name; whoever holds the lock asks.
#[derive(Debug, Default)]
struct Name(tokio::sync::Mutex<Option<Found>>);

#[derive(Clone, Copy, Debug)]
struct Found {
    is_stored: bool,
    until: Instant,
}

impl StoredLabels {
    /// Whether a stored series has a label of this name. Where Prometheus refuses the name, none
    /// has; where its router does not take it, or there are more values than are read, one may have.
    ///
    /// # Errors
    /// Where Prometheus can't be asked.
    pub(super) async fn has(&self, client: &Client, name: &str) -> Result<bool, PeerError> {
        let entry = self.entry(name);
        let mut found = entry.0.lock().await;
        if let Some(found) = *found
            && Instant::now() < found.until
        {
            return Ok(found.is_stored);
        }
        let one = Scope {
            limit: Some(1),
            ..Scope::default()
        };
        let is_stored = match client.label_values(name, one).await {
            Ok(answer) => answer.value.iter().any(|value| !value.is_empty()),
            Err(error) => match error.class() {
                PeerErrorClass::Status(status) if status.as_u16() == 400 => false,
                PeerErrorClass::Status(status) if status.as_u16() == 404 => true,
                PeerErrorClass::TooLarge => true,
                _ => return Err(error),
            },
        };
        *found = Some(Found::now(is_stored));
        Ok(is_stored)
    }

    /// Notes that a series has a label of this name.
    pub(super) async fn note(&self, name: &str) {
        *self.entry(name).0.lock().await = Some(Found::now(true));
    }

    fn entry(&self, name: &str) -> Arc<Name> {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = names.get(name) {
            return Arc::clone(known);
        }
        if names.len() >= REMEMBERED_MAX {
            names.retain(|_, name| name.is_believed());
        }
        if names.len() >= REMEMBERED_MAX {
            names.clear();
        }
        let entry = Arc::<Name>::default();
        names.insert(name.to_owned(), Arc::clone(&entry));
        entry
    }
}

impl Name {
    /// Whether it is of use, or being asked for.
    fn is_believed(&self) -> bool {
        match self.0.try_lock() {
            Ok(found) => found.is_some_and(|found| Instant::now() < found.until),
            Err(_) => true,
        }
    }
}

impl Found {
    fn now(is_stored: bool) -> Self {
        Self {
            is_stored,
            until: Instant::now() + BELIEVED_FOR,
        }
    }
}
