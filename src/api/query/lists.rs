//! Label names, label values and series with the external labels among them.

use std::collections::VecDeque;
use std::future::Future;

use bytes::{Bytes, BytesMut};
use serde::Deserialize;
use tokio::time::Instant;

use super::answer::{PIECE_BYTES, write_texts};
use super::body::Pieces;
use super::error::ApiError;
use super::label_text::{overlaid, write_labels, write_string};
use crate::model::ExternalLabels;
use crate::prometheus::{LabelsText, PeerError, SeriesStream};
use crate::store::Running;

/// What Prometheus says of a list that it cut.
const TRUNCATED: &str = "results truncated due to limit";

/// A list of names or values, as Prometheus answers it.
#[derive(Debug, Deserialize)]
pub(super) struct TextList {
    status: String,
    /// May be null, but not missing, which an `Option` by itself might.
    #[serde(deserialize_with = "Option::deserialize")]
    data: Option<Vec<String>>,
    #[serde(default)]
    warnings: Vec<String>,
    #[serde(default)]
    infos: Vec<String>,
}

/// A list of series in the making.
pub(super) struct SeriesAnswer {
    series: SeriesStream,
    labels: LabelsText,
    external: ExternalLabels,
    piece: BytesMut,
    ready: VecDeque<Bytes>,
    elements: u64,
    is_ended: bool,
    deadline: Instant,
    /// Others wait for their turn.
    _turn: Running,
}

// === impl TextList ===

impl TextList {
    /// Reads an answer.
    ///
    /// # Errors
    /// Where it is no list, or not one of success.
    pub(super) fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let wrong = |why: &dyn std::fmt::Display| {
            ApiError::unavailable(format!(
                "Prometheus answered with something other than a list of labels: {why}"
            ))
        };
        let list: Self = serde_json::from_slice(body).map_err(|error| wrong(&error))?;
        match list.status.as_str() {
            "success" => Ok(list),
            status => Err(wrong(&format_args!("its status is {status:?}"))),
        }
    }

    /// Puts the names of external labels in their places, the limit of the request kept.
    pub(super) fn merge(&mut self, external: &ExternalLabels, limit: Option<usize>) {
        let names = self.data.get_or_insert_default();
        let added = external.0.iter().filter(|(_, value)| !value.is_empty());
        names.extend(added.map(|(name, _)| name.to_owned()));
        names.sort_unstable();
        names.dedup();
        if let Some(limit) = limit.filter(|limit| (1..names.len()).contains(limit)) {
            names.truncate(limit);
            if !self.warnings.iter().any(|warning| warning == TRUNCATED) {
                self.warnings.push(TRUNCATED.to_owned());
            }
        }
    }

    /// Whether there is nothing in it.
    pub(super) fn is_empty(&self) -> bool {
        self.data.as_ref().is_none_or(Vec::is_empty)
    }

    /// The same answer with this in it.
    pub(super) fn with(mut self, data: Vec<String>) -> Self {
        self.data = Some(data);
        self
    }

    /// As Prometheus writes it.
    pub(super) fn write(&self) -> Bytes {
        let mut out = BytesMut::from(&b"{\"status\":\"success\",\"data\":["[..]);
        for (at, text) in self.data.iter().flatten().enumerate() {
            if at > 0 {
                out.extend_from_slice(b",");
            }
            write_string(&mut out, text);
        }
        out.extend_from_slice(b"]");
        write_texts(&mut out, "warnings", &self.warnings);
        write_texts(&mut out, "infos", &self.infos);
        out.extend_from_slice(b"}");
        out.freeze()
    }
}

// === impl SeriesAnswer ===

impl SeriesAnswer {
    pub(super) fn new(
        series: SeriesStream,
        external: ExternalLabels,
        deadline: Instant,
        turn: Running,
    ) -> Self {
        Self {
            series,
            labels: LabelsText::default(),
            external,
            piece: BytesMut::from(&b"{\"status\":\"success\",\"data\":["[..]),
            ready: VecDeque::new(),
            elements: 0,
            is_ended: false,
            deadline,
            _turn: turn,
        }
    }

    async fn make(&mut self) -> Result<(), AskError> {
        while self.piece.len() < PIECE_BYTES {
            let read = self.series.next_into(&mut self.labels);
            if !within(self.deadline, read).await? {
                self.is_ended = true;
                self.piece.extend_from_slice(b"]");
                write_texts(&mut self.piece, "warnings", self.series.warnings());
                self.piece.extend_from_slice(b"}");
                break;
            }
            if self.elements > 0 {
                self.piece.extend_from_slice(b",");
            }
            self.elements += 1;
            write_labels(
                &mut self.piece,
                overlaid(self.labels.iter(), &self.external),
            );
        }
        self.ready.push_back(self.piece.split().freeze());
        Ok(())
    }
}

impl Pieces for SeriesAnswer {
    type Error = AskError;

    async fn next_piece(&mut self) -> Result<Option<Bytes>, AskError> {
        if self.ready.is_empty() && !self.is_ended {
            self.make().await?;
        }
        Ok(self.ready.pop_front())
    }
}

/// What comes until the deadline.
pub(super) async fn within<T>(
    deadline: Instant,
    asking: impl Future<Output = Result<T, PeerError>>,
) -> Result<T, AskError> {
    match tokio::time::timeout_at(deadline, asking).await {
        Ok(outcome) => Ok(outcome?),
        Err(_) => Err(AskError::TimedOut),
    }
}

/// Why an answer does not come, or breaks off.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    #[error("Prometheus did not answer within --query.timeout")]
    TimedOut,
    #[error("asking Prometheus")]
    Peer(#[from] PeerError),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Labels;

    fn external(labels: &[(&str, &str)]) -> ExternalLabels {
        let owned = |(n, v): &(&str, &str)| ((*n).to_owned(), (*v).to_owned());
        ExternalLabels(labels.iter().map(owned).collect::<Labels>())
    }

    #[test]
    fn names_are_merged_in_order_within_the_limit() {
        let external = external(&[("b", "1"), ("c", "2"), ("none", "")]);
        for (limit, expected) in [
            (None, r#"["a","b","c","d"]}"#),
            (Some(0), r#"["a","b","c","d"]}"#),
            (Some(4), r#"["a","b","c","d"]}"#),
            (
                Some(3),
                r#"["a","b","c"],"warnings":["results truncated due to limit"]}"#,
            ),
        ] {
            let body = r#"{"status":"success","data":["a","c","d"]}"#;
            let mut list = TextList::parse(body.as_bytes()).unwrap();
            list.merge(&external, limit);
            let expected = format!("{{\"status\":\"success\",\"data\":{expected}");
            assert_eq!(list.write(), expected, "{limit:?}");
        }
    }

    #[test]
    fn warnings_and_infos_stay() {
        let body = r#"{"status":"success","data":null,"warnings":["w\""],"infos":["i","j"]}"#;
        let list = TextList::parse(body.as_bytes()).unwrap();
        assert!(list.is_empty());
        assert_eq!(
            list.with(vec!["v".to_owned()]).write(),
            r#"{"status":"success","data":["v"],"warnings":["w\""],"infos":["i","j"]}"#
        );
    }

    #[test]
    fn what_is_no_list_of_success_is_not_an_empty_one() {
        for (body, told) in [
            ("<html>", "expected value"),
            ("", "EOF"),
            ("{}", "missing field `status`"),
            (r#"{"status":"success"}"#, "missing field `data`"),
            (r#"{"data":[]}"#, "missing field `status`"),
            (r#"{"status":"success","data":{}}"#, "invalid type: map"),
            (r#"{"status":"ok","data":[]}"#, "its status is \"ok\""),
            (
                r#"{"status":"error","data":null,"error":"e"}"#,
                "its status is \"error\"",
            ),
        ] {
            let error = TextList::parse(body.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(told), "{body}: {error}");
        }
    }
}
