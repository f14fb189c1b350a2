//! An answer as it streams by: labels put on, a matrix kept in order, messages in the user's terms.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};

use super::engine::in_users_terms;
use super::gate::Running;
use super::metrics::{Account, Outcome};
use super::order::Order;
use super::stored::StoredLabels;
use super::{QueryError, ResultType, Rewritten};
use crate::prometheus::{LabelsText, QueryStream};

/// One element of a result.
#[derive(Debug)]
pub struct Element<'a> {
    /// Sorted by name, the external labels in place; empty for scalar and string.
    pub labels: &'a LabelsText,
    /// The rest of the element as Prometheus wrote it, JSON: of a vector or matrix the members
    /// beside `metric` (`"value":[1.5,"2"]`, `"values":[[…],…]`, `"histogram":…`,
    /// `"histograms":…`, joined by commas), of scalar and string the array `[1.5,"2"]`.
    pub samples: Bytes,
}

/// What stands behind the result.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trailer {
    /// `data.stats` as Prometheus wrote it, JSON; where it was asked for.
    pub stats: Option<Bytes>,
    /// Positions in them are those of the text that the user sent.
    pub warnings: Vec<String>,
    /// As `warnings`.
    pub infos: Vec<String>,
}

/// An answer as it comes. Dropping it closes the connection, which cancels the query.
#[derive(Debug)]
pub struct Evaluated {
    result_type: ResultType,
    /// `None` at the end, and once it is broken.
    source: Option<Source>,
    is_broken: bool,
    /// Labels of the element given out.
    labels: LabelsText,
    trailer: Trailer,
    deadline: Instant,
    running: Option<Running>,
    account: Account,
}

/// Where elements come from.
#[derive(Debug)]
pub(super) enum Source {
    /// From nowhere: the query means others.
    Nothing(ResultType),
    Asked(Box<Labelled>),
}

/// Prometheus' elements, with labels put on.
#[derive(Debug)]
pub(super) struct Labelled {
    stream: QueryStream,
    rewritten: Rewritten,
    stored: Arc<StoredLabels>,
    /// Labels as Prometheus has them.
    own: LabelsText,
    /// Of a matrix that gets labels; nothing else changes its order.
    order: Option<Order>,
    is_at_end: bool,
}

impl Evaluated {
    pub(super) fn new(
        source: Source,
        running: Running,
        account: Account,
        deadline: Instant,
    ) -> Self {
        let result_type = match &source {
            Source::Nothing(result_type) => *result_type,
            Source::Asked(labelled) => labelled.stream.result_type(),
        };
        Self {
            result_type,
            source: Some(source),
            is_broken: false,
            labels: LabelsText::default(),
            trailer: Trailer::default(),
            deadline,
            running: Some(running),
            account,
        }
    }

    /// Known before the first element.
    pub fn result_type(&self) -> ResultType {
        self.result_type
    }

    /// The next element; `None` at the end. A matrix is sorted by labels, as Prometheus' is.
    ///
    /// # Errors
    /// See [`QueryError`]; every later call is an error, too. That Prometheus failed may be known
    /// only at the end.
    pub async fn next(&mut self) -> Result<Option<Element<'_>>, QueryError> {
        if self.is_broken {
            let what = "an earlier error ended the answer".to_owned();
            return Err(QueryError::Unavailable(what));
        }
        let next = match &mut self.source {
            None | Some(Source::Nothing(_)) => Ok(None),
            Some(Source::Asked(labelled)) => {
                let reading = timeout_at(self.deadline, labelled.next(&mut self.labels));
                reading.await.unwrap_or(Err(QueryError::TimedOut))
            }
        };
        match next {
            Ok(Some(samples)) => Ok(Some(Element {
                labels: &self.labels,
                samples,
            })),
            Ok(None) => {
                self.end(Outcome::ok);
                Ok(None)
            }
            Err(error) => {
                self.is_broken = true;
                self.end(Outcome::from(&error));
                Err(error)
            }
        }
    }

    /// What stands behind the result; complete once `next` has given `None`.
    pub fn trailer(&self) -> &Trailer {
        &self.trailer
    }

    /// Closes what is open, and lets the next query run.
    fn end(&mut self, outcome: Outcome) {
        let Some(source) = self.source.take() else {
            return;
        };
        if let Source::Asked(labelled) = source {
            self.trailer = labelled.trailer();
        }
        self.running = None;
        self.account.outcome = outcome;
    }
}

impl Labelled {
    pub(super) fn new(
        stream: QueryStream,
        rewritten: Rewritten,
        stored: Arc<StoredLabels>,
    ) -> Self {
        let last_added = rewritten.added.last().map(|(name, _)| name.clone());
        let is_matrix = stream.result_type() == ResultType::Matrix;
        Self {
            order: last_added.filter(|_| is_matrix).map(Order::new),
            stream,
            rewritten,
            stored,
            own: LabelsText::default(),
            is_at_end: false,
        }
    }

    /// The next element's samples, its labels in place of those of `labels`.
    async fn next(&mut self, labels: &mut LabelsText) -> Result<Option<Bytes>, QueryError> {
        let samples = match self.order {
            None => self.receive().await?,
            Some(_) => self.next_in_order().await?,
        };
        let Some(samples) = samples else {
            return Ok(None);
        };
        let has_labels = matches!(
            self.stream.result_type(),
            ResultType::Vector | ResultType::Matrix
        );
        if self.rewritten.added.is_empty() || !has_labels {
            std::mem::swap(labels, &mut self.own);
            return Ok(Some(samples));
        }
        let twice = labels.merge(&self.own, &self.rewritten.added);
        let Some(name) = twice else {
            return Ok(Some(samples));
        };
        // Prometheus said a moment ago that no series has it; from now on that is known.
        self.stored.note(name).await;
        Err(QueryError::Unavailable(format!(
            "series have got a label {name} of their own, which is an external one; ask again"
        )))
    }

    /// The next element in the order that they have with the labels put on.
    async fn next_in_order(&mut self) -> Result<Option<Bytes>, QueryError> {
        loop {
            if let Some(order) = &mut self.order
                && let Some(samples) = order.pop(&mut self.own)
            {
                return Ok(Some(samples));
            }
            if self.is_at_end {
                return Ok(None);
            }
            let received = self.receive().await?;
            let Some(order) = &mut self.order else {
                return Ok(received);
            };
            match received {
                Some(samples) => order.push(&mut self.own, samples)?,
                None => {
                    self.is_at_end = true;
                    order.finish();
                }
            }
        }
    }

    async fn receive(&mut self) -> Result<Option<Bytes>, QueryError> {
        let received = self.stream.next_into(&mut self.own).await;
        received.map_err(|error| in_users_terms(error, &self.rewritten))
    }

    fn trailer(&self) -> Trailer {
        let translated = |messages: &[String]| {
            let messages = messages.iter();
            let messages = messages.map(|message| self.rewritten.in_users_terms(message));
            messages.collect()
        };
        Trailer {
            stats: self.stream.stats().cloned(),
            warnings: translated(self.stream.warnings()),
            infos: translated(self.stream.infos()),
        }
    }
}
