//! `/api/v1/query` and `/api/v1/query_range` as a stream of elements.
//!
//! Of a result of any size one element is held, and what is passed on of it is a view of the bytes
//! as they were received. That the answer is whole is known at its end only.

mod element;
#[cfg(any(fuzzing, test, feature = "testing"))]
mod fuzz;
mod refusal;

use std::pin::pin;

use bytes::{Bytes, BytesMut};
use http::StatusCode;

use super::json::{EnvelopeScanner, Item, JsonError, Layout};
use super::params::Params;
use crate::net::http::{BodyLimit, DirectBody};
use crate::prometheus::LabelsText;
use crate::prometheus::client::Client;
use crate::prometheus::error::PeerError;
use crate::prometheus::request::Question;
use crate::trace::Span;
use element::read_element;
#[cfg(any(fuzzing, test, feature = "testing"))]
pub use fuzz::fuzz_query_answer;

/// The longest element of a result: one series over 11,000 points has half a MiB of floats, and
/// with histograms of 160 buckets each some 60 MiB.
pub const QUERY_ELEMENT_BYTES_MAX: usize = 64 << 20;
/// The longest answer. It streams by, so this only ends what would never end.
const QUERY_BODY_MAX: BodyLimit = BodyLimit {
    name: "QUERY_BODY_MAX",
    bytes: 4 << 30,
};
/// How many warnings, and as many infos, are kept of an answer; Prometheus gives ten of a kind at
/// most.
const WARNINGS_MAX: usize = 100;

/// `{"status", "data": {"resultType", "result": […], "stats"}, "warnings", "infos"}`. Statistics
/// per step of 11,000 steps have half a MiB.
static RESULT: Layout = Layout {
    path: &["data", "result"],
    element_bytes_max: QUERY_ELEMENT_BYTES_MAX,
    value_bytes_max: 16 << 20,
    marks_members: true,
};

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryEndpoint {
    /// `/api/v1/query`
    Instant,
    /// `/api/v1/query_range`
    Range,
}

/// `resultType` of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResultType {
    /// Series with one sample each.
    Vector,
    /// Series with samples.
    Matrix,
    /// One number.
    Scalar,
    /// One string.
    String,
}

/// A result as it comes. Dropping it closes its connection, by which Prometheus gives up the query.
#[derive(Debug)]
pub struct QueryStream {
    body: DirectBody,
    buffer: BytesMut,
    answer: Answer,
    result_type: ResultType,
    is_broken: bool,
    span: Span,
}

/// What is known of an answer.
#[derive(Debug)]
struct Answer {
    url: String,
    status: StatusCode,
    scanner: EnvelopeScanner,
    word: String,
    error_type: String,
    error: String,
    result_type: Option<ResultType>,
    /// Whether the result began.
    has_result: bool,
    /// A scalar or string that was not asked for yet.
    single: Option<Bytes>,
    stats: Option<Bytes>,
    warnings: Vec<String>,
    infos: Vec<String>,
    is_at_end: bool,
}

/// How far an answer was read.
#[derive(Debug, PartialEq, Eq)]
enum Read {
    /// The result begins.
    Result,
    Element(Bytes),
    More,
}

impl Client {
    /// Evaluates a query; resolves where its result begins. Long parameters are sent as a form.
    ///
    /// # Errors
    /// See [`PeerError`]; [`PeerError::Refused`] has Prometheus' own words. There is no limit of
    /// time.
    pub async fn query(
        &self,
        endpoint: QueryEndpoint,
        params: &[(&str, &str)],
    ) -> Result<QueryStream, PeerError> {
        let mut asked = Params::default();
        for (name, value) in params {
            asked.put(name, value);
        }
        QueryStream::open(self, endpoint.path(), asked.into_question()).await
    }

    /// Whether Prometheus takes this for PromQL. Asks it to format the expression, which costs it
    /// next to nothing; one before 2.40 can't, and evaluates it at the beginning of time.
    ///
    /// # Errors
    /// See [`PeerError`]; [`PeerError::Refused`] where it does not.
    pub async fn check_expression(&self, expression: &str) -> Result<(), PeerError> {
        let path = "/api/v1/format_query";
        let mut asked = Params::default();
        asked.put("query", expression);
        let asking = refusal::ask_successfully(self, path, asked.into_question());
        match asking.await {
            Err(error) if error.is_absent() => {
                // It is only to be read: where that leads to an evaluation, it is cut short.
                let params = [("query", expression), ("time", "0"), ("timeout", "1s")];
                self.query(QueryEndpoint::Instant, &params).await.map(drop)
            }
            outcome => outcome.map(drop),
        }
    }
}

impl QueryEndpoint {
    fn path(self) -> &'static str {
        match self {
            Self::Instant => "/api/v1/query",
            Self::Range => "/api/v1/query_range",
        }
    }
}

impl ResultType {
    /// As the API has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Vector => "vector",
            Self::Matrix => "matrix",
            Self::Scalar => "scalar",
            Self::String => "string",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let all = [Self::Vector, Self::Matrix, Self::Scalar, Self::String];
        all.into_iter().find(|known| known.as_str() == text)
    }

    fn is_single(self) -> bool {
        matches!(self, Self::Scalar | Self::String)
    }
}

impl QueryStream {
    async fn open(
        client: &Client,
        path: &'static str,
        question: Question,
    ) -> Result<Self, PeerError> {
        let span = client.span(path);
        let opening = pin!(async {
            let response = refusal::ask_successfully(client, path, question).await?;
            let mut answer = Answer::new(client.shown(path), response.status());
            let mut body = response.into_body();
            let mut buffer = BytesMut::new();
            loop {
                match answer.read(&mut buffer)? {
                    Read::Result => break,
                    _ if answer.fill(&mut body, &mut buffer).await? => {}
                    _ => break,
                }
            }
            match answer.result_type {
                Some(result_type) => Ok((body, buffer, result_type, answer)),
                None => Err(answer.malformed("the answer has no result")),
            }
        });
        let opened = span.around(opening).await;
        let (body, buffer, result_type, answer) =
            opened.inspect_err(|error: &PeerError| span.fail(error))?;
        Ok(Self {
            body,
            buffer,
            answer,
            result_type,
            is_broken: false,
            span,
        })
    }

    /// What the result is.
    pub fn result_type(&self) -> ResultType {
        self.result_type
    }

    /// Reads the next element: its label set in place of the content of `labels`, by name in
    /// order; returned is the rest of it, JSON as it was received (`"value":[1.5,"2"]` …), of a
    /// scalar or string the result as a whole. `None` at the end. May be dropped and called again
    /// without loss.
    ///
    /// # Errors
    /// See [`PeerError`]; every later call is an error, too. That Prometheus failed may be known
    /// only at the end.
    pub async fn next_into(&mut self, labels: &mut LabelsText) -> Result<Option<Bytes>, PeerError> {
        let outcome = match self.is_broken {
            false => self.read_next(labels).await,
            true => Err(self.answer.malformed("an earlier error ended the answer")),
        };
        if let Err(error) = &outcome {
            self.is_broken = true;
            self.span.fail(error);
        }
        outcome
    }

    /// `stats` as Prometheus wrote it; complete at the end, as all that stands beside a result.
    pub fn stats(&self) -> Option<&Bytes> {
        self.answer.stats.as_ref()
    }

    /// What Prometheus warns of.
    pub fn warnings(&self) -> &[String] {
        &self.answer.warnings
    }

    /// What Prometheus thinks worth knowing.
    pub fn infos(&self) -> &[String] {
        &self.answer.infos
    }

    async fn read_next(&mut self, labels: &mut LabelsText) -> Result<Option<Bytes>, PeerError> {
        labels.clear();
        if let Some(single) = self.answer.single.take() {
            return Ok(Some(single));
        }
        loop {
            if self.answer.is_at_end {
                return Ok(None);
            }
            if let Read::Element(element) = self.answer.read(&mut self.buffer)? {
                let rest = read_element(&element, self.answer.scanner.marks(), labels);
                let rest = rest.map_err(|what| self.answer.malformed(what))?;
                return Ok(Some(rest));
            }
            self.answer.fill(&mut self.body, &mut self.buffer).await?;
        }
    }
}

impl Answer {
    fn new(url: String, status: StatusCode) -> Self {
        Self {
            url,
            status,
            scanner: EnvelopeScanner::new(&RESULT),
            word: String::new(),
            error_type: String::new(),
            error: String::new(),
            result_type: None,
            has_result: false,
            single: None,
            stats: None,
            warnings: Vec::new(),
            infos: Vec::new(),
            is_at_end: false,
        }
    }

    /// Reads what is there, up to the result's beginning or an element.
    fn read(&mut self, buffer: &mut BytesMut) -> Result<Read, PeerError> {
        loop {
            let item = self.scanner.next(buffer);
            match item.map_err(|error| self.json(error))? {
                Some(Item::List) => {
                    self.begin()?;
                    return Ok(Read::Result);
                }
                Some(Item::Element(element)) => return Ok(Read::Element(element)),
                Some(Item::Beside { depth, key, value }) => {
                    let kept = self.keep(depth, &key, value);
                    if kept.map_err(|error| self.json(error))? {
                        self.begin()?;
                        return Ok(Read::Result);
                    }
                }
                Some(Item::End) | None => return Ok(Read::More),
            }
        }
    }

    /// Reads on; false at the end of an answer that is whole.
    async fn fill(
        &mut self,
        body: &mut DirectBody,
        buffer: &mut BytesMut,
    ) -> Result<bool, PeerError> {
        let held = u64::try_from(buffer.len()).unwrap_or(u64::MAX);
        let transport = |source| PeerError::Transport {
            url: self.url.clone(),
            source,
        };
        let limit = u64::try_from(QUERY_BODY_MAX.bytes).unwrap_or(u64::MAX);
        if self.scanner.offset().saturating_add(held) > limit {
            return Err(transport(QUERY_BODY_MAX.exceeded()));
        }
        if body.fill(buffer).await.map_err(transport)? {
            return Ok(true);
        }
        self.finish(buffer)?;
        self.is_at_end = true;
        Ok(false)
    }

    /// The result begins.
    fn begin(&mut self) -> Result<(), PeerError> {
        if self.result_type.is_none() {
            return Err(self.malformed("`resultType` does not stand before `result`"));
        }
        if std::mem::replace(&mut self.has_result, true) {
            return Err(self.malformed("`result` stands twice"));
        }
        Ok(())
    }

    /// A value beside the list; whether it is the result.
    fn keep(&mut self, depth: usize, key: &str, value: Bytes) -> Result<bool, JsonError> {
        match (depth, key) {
            (0, "status") => self.word = self.scanner.parsed(&value)?,
            (0, "errorType") => self.error_type = self.scanner.parsed(&value)?,
            (0, "error") => self.error = self.scanner.parsed(&value)?,
            (0, "warnings") => self.warnings = self.texts(&value)?,
            (0, "infos") => self.infos = self.texts(&value)?,
            (0, "data") => {
                let null: Option<serde::de::IgnoredAny> = self.scanner.parsed(&value)?;
                if null.is_some() {
                    return Err(self.scanner.error("`data` is no object"));
                }
            }
            (1, "resultType") => {
                let text: String = self.scanner.parsed(&value)?;
                let Some(known) = ResultType::parse(&text) else {
                    let what = format!("`{text}` is no type of a result");
                    return Err(self.scanner.error(what));
                };
                if known.is_single() {
                    self.scanner.take_list_as_value();
                }
                self.result_type = Some(known);
            }
            (1, "result") => {
                // No list: a scalar, a string, or null for a list without elements.
                if self.result_type.is_some_and(ResultType::is_single) {
                    let _: (serde::de::IgnoredAny, String) = self.scanner.parsed(&value)?;
                    self.single = Some(value);
                } else if &value[..] != b"null" {
                    return Err(self.scanner.error("`result` is no list"));
                }
                return Ok(true);
            }
            (1, "stats") => self.stats = Some(value),
            _ => {}
        }
        Ok(false)
    }

    fn texts(&self, value: &[u8]) -> Result<Vec<String>, JsonError> {
        let texts: Option<Vec<String>> = self.scanner.parsed(value)?;
        let mut texts = texts.unwrap_or_default();
        texts.truncate(WARNINGS_MAX);
        Ok(texts)
    }

    /// The body is at its end: whether the answer is, too.
    fn finish(&mut self, buffer: &mut BytesMut) -> Result<(), PeerError> {
        let end = self.scanner.next(buffer);
        if end.map_err(|error| self.json(error))? != Some(Item::End) {
            return Err(self.malformed("the answer is cut short"));
        }
        match self.word.as_str() {
            "success" if self.has_result => Ok(()),
            "success" => Err(self.malformed("the answer has no result")),
            "error" => Err(PeerError::Refused {
                url: self.url.clone(),
                status: self.status,
                error_type: std::mem::take(&mut self.error_type),
                message: std::mem::take(&mut self.error),
            }),
            _ => Err(self.malformed("the answer's `status` is neither `success` nor `error`")),
        }
    }

    fn malformed(&self, what: impl Into<String>) -> PeerError {
        self.json(self.scanner.error(what))
    }

    fn json(&self, source: JsonError) -> PeerError {
        PeerError::Json {
            url: self.url.clone(),
            source,
        }
    }
}

#[cfg(test)]
mod tests;
