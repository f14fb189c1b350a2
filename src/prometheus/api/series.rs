//! `/api/v1/series` as a stream of label sets.

use std::pin::pin;

use bytes::BytesMut;
use http::StatusCode;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};

use super::json::{EnvelopeScanner, Item, JsonError, SERIES};
use crate::net::http::DirectBody;
use crate::prometheus::LabelsText;
use crate::prometheus::client::Client;
use crate::prometheus::error::PeerError;
use crate::prometheus::request::{Question, shortened, successful_direct};
use crate::trace::Span;

const PATH: &str = "/api/v1/series";
/// How many warnings are kept of an answer; Prometheus gives ten of a kind at most.
const WARNINGS_MAX: usize = 100;

/// Label sets as they come. Dropping it closes its connection.
#[derive(Debug)]
pub struct SeriesStream {
    url: String,
    /// `None` where the answer has no body.
    body: Option<DirectBody>,
    buffer: BytesMut,
    scanner: EnvelopeScanner,
    status: String,
    error: String,
    warnings: Vec<String>,
    is_broken: bool,
    span: Span,
}

impl SeriesStream {
    pub(in crate::prometheus) async fn open(
        client: &Client,
        question: Question,
    ) -> Result<Self, PeerError> {
        let url = client.shown(PATH);
        let span = client.span(PATH);
        // Uncompressed, as on the loopback that costs both sides less.
        let asking = async {
            let response = client.ask_direct(PATH, question).await?;
            successful_direct(&url, response).await
        };
        let response = span.around(pin!(asking)).await;
        let response = response.inspect_err(|error| span.fail(error))?;
        let has_body = response.status() != StatusCode::NO_CONTENT;
        Ok(Self {
            url,
            body: has_body.then(|| response.into_body()),
            buffer: BytesMut::new(),
            scanner: EnvelopeScanner::new(&SERIES),
            status: String::new(),
            error: String::new(),
            warnings: Vec::new(),
            is_broken: false,
            span,
        })
    }

    /// Reads the next label set in place of the content of `labels`, by name in order; false at
    /// the end. May be dropped and called again without loss.
    ///
    /// # Errors
    /// See [`PeerError`]; every later call is an error, too. That Prometheus failed may be known
    /// only at the end.
    pub async fn next_into(&mut self, labels: &mut LabelsText) -> Result<bool, PeerError> {
        let outcome = match self.is_broken {
            false => self.read_next(labels).await,
            true => Err(self.malformed(self.scanner.error("an earlier error ended the answer"))),
        };
        if let Err(error) = &outcome {
            self.is_broken = true;
            self.span.fail(error);
        }
        outcome
    }

    /// What Prometheus warns of; complete at the end.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    async fn read_next(&mut self, labels: &mut LabelsText) -> Result<bool, PeerError> {
        labels.clear();
        if self.body.is_none() {
            return Ok(false);
        }
        loop {
            let item = self.scanner.next(&mut self.buffer);
            match item.map_err(|error| self.malformed(error))? {
                Some(Item::Element(object)) => {
                    let read =
                        read_labels(&object, labels).map_err(|what| self.scanner.error(what));
                    read.map_err(|error| self.malformed(error))?;
                    return Ok(true);
                }
                Some(Item::List) => continue,
                Some(Item::Beside { key, value, .. }) => {
                    let kept = self.keep(&key, &value);
                    kept.map_err(|error| self.malformed(error))?;
                    continue;
                }
                Some(Item::End) | None => {}
            }
            let Some(body) = &mut self.body else {
                return Ok(false);
            };
            let filled = body.fill(&mut self.buffer).await;
            let filled = filled.map_err(|source| PeerError::Transport {
                url: self.url.clone(),
                source,
            })?;
            if !filled {
                self.finish()?;
                return Ok(false);
            }
        }
    }

    /// A value beside the list.
    fn keep(&mut self, key: &str, value: &[u8]) -> Result<(), JsonError> {
        match key {
            "status" => self.status = self.scanner.parsed(value)?,
            "error" => self.error = self.scanner.parsed(value)?,
            // Infos say nothing of whether the answer is whole, and StoreAPI only has warnings,
            // which end queries; the reference discards both.
            "warnings" => {
                let more: Option<Vec<String>> = self.scanner.parsed(value)?;
                self.warnings.extend(more.unwrap_or_default());
                self.warnings.truncate(WARNINGS_MAX);
            }
            "data" => {
                let null: Option<Vec<()>> = self.scanner.parsed(value)?;
                debug_assert!(null.is_none(), "a list is read by its elements");
            }
            _ => {}
        }
        Ok(())
    }

    /// The body is at its end: whether the answer is, too.
    fn finish(&mut self) -> Result<(), PeerError> {
        let end = self.scanner.next(&mut self.buffer);
        if end.map_err(|error| self.malformed(error))? != Some(Item::End) {
            return Err(self.malformed(self.scanner.error("the answer is cut short")));
        }
        match self.status.as_str() {
            "success" => Ok(()),
            _ => Err(PeerError::Api {
                url: self.url.clone(),
                message: shortened(&self.error),
            }),
        }
    }

    fn malformed(&self, source: JsonError) -> PeerError {
        PeerError::Json {
            url: self.url.clone(),
            source,
        }
    }
}

/// Reads `{"name": "value", …}`.
pub(super) fn read_labels(object: &[u8], labels: &mut LabelsText) -> Result<(), String> {
    labels.clear();
    let mut reader = serde_json::Deserializer::from_slice(object);
    let read = reader.deserialize_map(LabelsVisitor(labels));
    read.map_err(|error| error.to_string())?;
    reader.end().map_err(|error| error.to_string())?;
    match labels.is_sorted() || labels.sort() {
        true => Ok(()),
        false => Err("a label stands twice".to_owned()),
    }
}

struct LabelsVisitor<'a>(&'a mut LabelsText);

impl<'de> Visitor<'de> for LabelsVisitor<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a map of labels")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let labels = self.0;
        while map
            .next_key_seed(Text(labels, LabelsText::push_name))?
            .is_some()
        {
            map.next_value_seed(Text(labels, LabelsText::push_value))?;
        }
        Ok(())
    }
}

/// A string that goes where it belongs without one of its own.
struct Text<'a>(&'a mut LabelsText, fn(&mut LabelsText, &str));

impl<'de> DeserializeSeed<'de> for Text<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_str(self)
    }
}

impl Visitor<'_> for Text<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a label's name or value")
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        let Text(labels, put) = self;
        put(labels, text);
        Ok(())
    }
}
