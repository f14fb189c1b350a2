//! What is done for each call.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Request, Response, StatusCode};
use hyper::body::Body;
use tokio::time::Instant;

use super::answer::QueryAnswer;
use super::body::{AnswerBody, STALL_MAX, Sliced};
use super::document::{ALERTS, QUERY_EXEMPLARS, RULES, Shape, TARGETS, with_external};
use super::error::{ApiError, JSON};
use super::form::{FORM_BYTES_FREE, Form};
use super::label_text::plain_name;
use super::lists::{SeriesAnswer, TextList, within};
use super::params::{evaluation, held_bytes, is_forwarded};
use super::selection::{Selection, forwarded, overlay, rule_selection, selection};
use super::{Call, QueryApi, json};
use crate::model::ExternalLabels;
use crate::prometheus::{
    Forwarded, ForwardedParams, LabelsText, ParamsPlace, is_label_asked, label_values_path,
};
use crate::query::{EvaluationKind, RewriteError, rewrite};
use crate::store::{Gate, Running};

/// Answers up to here are sent with their length, and no longer counted among those that are held.
const SMALL_BYTES: usize = 64 << 10;

/// An answer, or why there is none.
type Answered = Result<Response<AnswerBody>, ApiError>;

const SERIES: &str = "/api/v1/series";

/// An answer of Prometheus' that is held, and the turn that allows it.
struct Held {
    answer: Forwarded,
    turn: Running,
}

impl QueryApi {
    pub(super) async fn called<B>(&self, call: Call, request: Request<B>) -> Answered
    where
        B: Body<Data = Bytes> + Send,
    {
        let form = Form::read(request, &self.0.long_forms).await?;
        if let Call::Query(kind) = call {
            return self.query(kind, form).await;
        }
        let external = self.external_labels()?;
        match call {
            Call::Query(_) => unreachable!("answered above"),
            Call::Series => self.series(&form, external).await,
            Call::Labels => self.labels(&form, &external).await,
            Call::LabelValues { label } => self.label_values(&label, &form, &external).await,
            Call::Exemplars => self.exemplars(&form, &external).await,
            Call::Rules => {
                check_read(&form)?;
                let selection = rule_selection(&form, &external)?;
                self.document("/api/v1/rules", &form, &selection, &RULES, &external)
                    .await
            }
            Call::Alerts => {
                let all = Selection::Everything;
                self.document("/api/v1/alerts", &form, &all, &ALERTS, &external)
                    .await
            }
            Call::Targets => {
                let all = Selection::Everything;
                self.document("/api/v1/targets", &form, &all, &TARGETS, &external)
                    .await
            }
            Call::Plain(path, place) => {
                let params = forwarded(&form, &Selection::Everything);
                self.passed_on(path, self.asked(path, params, place).await?)
                    .await
            }
        }
    }

    fn external_labels(&self) -> Result<ExternalLabels, ApiError> {
        let state = self.0.config.peer.state.borrow();
        match state.loaded {
            true => Ok(state.labels.clone()),
            false => Err(ApiError::unavailable(
                "the external labels of Prometheus are not known yet",
            )),
        }
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.0.config.timeout
    }

    async fn query(&self, kind: EvaluationKind, form: Form) -> Answered {
        let Some(evaluation) = evaluation(kind, &form, self.0.defaults)? else {
            return self.unreadable_query(kind, &form).await;
        };
        // What waits to be evaluated is most often little of a long form, which then needs no turn.
        let turn = form.into_turn();
        let turn = turn.filter(|_| held_bytes(&evaluation) > FORM_BYTES_FREE);
        let evaluated = self.0.config.engine.evaluate(evaluation).await?;
        drop(turn);
        let body = AnswerBody::of(QueryAnswer::new(evaluated)).await?;
        Ok(json(body))
    }

    /// A query that is no text: Prometheus says what is wrong with it.
    async fn unreadable_query(&self, kind: EvaluationKind, form: &Form) -> Answered {
        let path = match kind {
            EvaluationKind::Instant => "/api/v1/query",
            EvaluationKind::Range => "/api/v1/query_range",
        };
        let params = forwarded(form, &Selection::Everything);
        let held = self.asked(path, params, ParamsPlace::UrlOrForm).await?;
        let answer = held.answer;
        match answer.status {
            StatusCode::OK => Err(ApiError::unsupported("query that is not UTF-8")),
            _ => Err(ApiError::refused(path, &answer)),
        }
    }

    /// Asks Prometheus in its turn, and reads the answer whole, whatever it is.
    async fn asked(
        &self,
        path: &str,
        params: ForwardedParams,
        place: ParamsPlace,
    ) -> Result<Held, ApiError> {
        let deadline = self.deadline();
        let turn = turn(&self.0.whole_answers, deadline).await?;
        let asking = self.0.config.client.forward(path, params, place);
        let answer = within(deadline, asking).await?;
        Ok(Held { answer, turn })
    }

    /// As [`Self::asked`], where nothing but success will do.
    async fn asked_well(
        &self,
        path: &str,
        params: ForwardedParams,
        place: ParamsPlace,
    ) -> Result<Held, ApiError> {
        let held = self.asked(path, params, place).await?;
        match held.answer.status.is_success() {
            true => Ok(held),
            false => Err(ApiError::refused(path, &held.answer)),
        }
    }

    /// Asks about what the selectors of a request became.
    async fn asked_about(
        &self,
        path: &str,
        form: &Form,
        selection: &Selection,
        place: ParamsPlace,
    ) -> Result<Held, ApiError> {
        let params = forwarded(form, selection);
        let held = self.asked_well(path, params, place).await?;
        match selection {
            // Prometheus takes what can't be rewritten here.
            Selection::Unreadable(what) => Err(ApiError::unsupported(what)),
            _ => Ok(held),
        }
    }

    async fn document(
        &self,
        path: &str,
        form: &Form,
        selection: &Selection,
        shape: &Shape,
        external: &ExternalLabels,
    ) -> Answered {
        let held = self
            .asked_about(path, form, selection, ParamsPlace::Url)
            .await?;
        self.labelled(path, held, shape, external).await
    }

    async fn exemplars(&self, form: &Form, external: &ExternalLabels) -> Answered {
        let path = "/api/v1/query_exemplars";
        let given = form.first("query");
        // Only the selectors count, so it does not matter what is put in around them.
        let rewritten = std::str::from_utf8(given).map(|query| rewrite(query, &overlay(external)));
        let (asked, unread) = match rewritten {
            Ok(Ok(rewritten)) => (rewritten.query.into_bytes(), None),
            Ok(Err(RewriteError::Syntax(why))) => (given.to_owned(), Some(why)),
            Ok(Err(error @ RewriteError::Unsupported { .. })) => return Err(error.into()),
            Err(error) => (given.to_owned(), Some(error.to_string())),
        };
        let mut params = ForwardedParams::default();
        params.put("query", asked);
        for (name, value) in form.pairs() {
            if name != b"query" && is_forwarded(name) {
                params.put(name, value);
            }
        }
        let held = self
            .asked_well(path, params, ParamsPlace::UrlOrForm)
            .await?;
        match unread {
            // Prometheus takes what can't be rewritten here.
            Some(why) => Err(ApiError::unsupported(format!("expression: {why}"))),
            None => self.labelled(path, held, &QUERY_EXEMPLARS, external).await,
        }
    }

    async fn labels(&self, form: &Form, external: &ExternalLabels) -> Answered {
        let path = "/api/v1/labels";
        let selection = selection(form, external)?;
        let Held { answer, turn } = self
            .asked_about(path, form, &selection, ParamsPlace::UrlOrForm)
            .await?;
        let mut list = TextList::parse(&answer.body)?;
        if selection == Selection::Everything || !list.is_empty() {
            list.merge(external, form.text("limit").parse().ok());
        }
        Ok(json(self.sent(list.write(), turn).await?))
    }

    async fn label_values(&self, label: &str, form: &Form, external: &ExternalLabels) -> Answered {
        let path = label_values_path(label);
        let selection = selection(form, external)?;
        let held = self
            .asked_about(&path, form, &selection, ParamsPlace::Url)
            .await?;
        let mut labels = external.0.iter().filter(|(_, value)| !value.is_empty());
        let plain = plain_name(label);
        let is_asked = |name: &str| is_label_asked(label, name) || plain.as_deref() == Some(name);
        let Some((_, value)) = labels.find(|(name, _)| is_asked(name)) else {
            return self.passed_on(&path, held).await;
        };
        // Of Prometheus' own answer only the warnings are told.
        let list = TextList::parse(&held.answer.body)?.with(Vec::new());
        drop(held);
        let has_it = match selection {
            Selection::Everything => true,
            Selection::Nothing | Selection::Unreadable(_) => false,
            Selection::Some(selectors) => self.has_series(form, &selectors).await?,
        };
        let values = has_it.then(|| value.to_owned());
        Ok(json(list.with(values.into_iter().collect()).write()))
    }

    /// Whether there is a series that one of the selectors matches, in the request's time.
    async fn has_series(&self, form: &Form, selectors: &[String]) -> Result<bool, ApiError> {
        let deadline = self.deadline();
        let _turn = turn(&self.0.series_lists, deadline).await?;
        let mut params = ForwardedParams::default();
        for selector in selectors {
            params.put("match[]", selector);
        }
        for name in ["start", "end"] {
            if !form.first(name).is_empty() {
                params.put(name, form.first(name));
            }
        }
        params.put("limit", "1");
        let opening = self.0.config.client.forward_series(params);
        let mut series = within(deadline, opening).await?;
        let mut labels = LabelsText::default();
        Ok(within(deadline, series.next_into(&mut labels)).await?)
    }

    async fn series(&self, form: &Form, external: ExternalLabels) -> Answered {
        check_read(form)?;
        let selection = match selection(form, &external)? {
            // Prometheus asks for a selector, wherever there may be series.
            _ if form.all("match[]").next().is_none() => Selection::Everything,
            selection => selection,
        };
        if let Selection::Unreadable(_) = selection {
            let place = ParamsPlace::UrlOrForm;
            let held = self.asked_about(SERIES, form, &selection, place).await?;
            return self.passed_on(SERIES, held).await;
        }
        let deadline = self.deadline();
        let turn = turn(&self.0.series_lists, deadline).await?;
        // Without any `match[]` there is none to put in: Prometheus says so.
        let params = forwarded(form, &selection);
        let opening = self.0.config.client.forward_series(params);
        let series = within(deadline, opening).await?;
        let answer = SeriesAnswer::new(series, external, deadline, turn);
        Ok(json(AnswerBody::of(answer).await?))
    }

    /// A body that keeps its turn as long as it takes memory, which is no longer than a query may
    /// take, and as long again as a client may take nothing.
    async fn sent(&self, body: Bytes, turn: Running) -> Result<AnswerBody, ApiError> {
        if body.len() <= SMALL_BYTES {
            return Ok(AnswerBody::from(body));
        }
        let sliced = Sliced::new(body, self.deadline() + STALL_MAX, turn);
        let pieces = AnswerBody::of(sliced).await;
        pieces.map_err(|overdue| ApiError::unavailable(overdue.to_string()))
    }

    /// An answer with the external labels put into it.
    async fn labelled(
        &self,
        path: &str,
        held: Held,
        shape: &Shape,
        external: &ExternalLabels,
    ) -> Answered {
        if held.answer.status == StatusCode::NO_CONTENT {
            return self.passed_on(path, held).await;
        }
        let document = with_external(&held.answer.body, shape, external);
        let document = document.map_err(|error| {
            ApiError::unavailable(format!(
                "Prometheus answered {path} with something other than the API's JSON: {error}"
            ))
        })?;
        let Held { answer, turn } = held;
        drop(answer);
        Ok(json(self.sent(document, turn).await?))
    }

    /// An answer as it is, but for redirects and errors that are none of the API's.
    async fn passed_on(&self, path: &str, held: Held) -> Answered {
        let Held { answer, turn } = held;
        if !answer.status.is_success() {
            return Err(ApiError::refused(path, &answer));
        }
        let mut response = Response::new(self.sent(answer.body, turn).await?);
        *response.status_mut() = answer.status;
        if answer.status != StatusCode::NO_CONTENT {
            let content_type = answer.content_type.unwrap_or(JSON);
            response.headers_mut().insert(CONTENT_TYPE, content_type);
        }
        Ok(response)
    }
}

/// Waits for a turn.
async fn turn(gate: &Gate, deadline: Instant) -> Result<Running, ApiError> {
    match tokio::time::timeout_at(deadline, gate.enter()).await {
        Ok(turn) => Ok(turn?),
        Err(_) => Err(ApiError::unavailable("no turn came in time")),
    }
}

/// That all parameters could be read, as Prometheus asks of some calls.
fn check_read(form: &Form) -> Result<(), ApiError> {
    match form.error() {
        None => Ok(()),
        Some(error) => {
            let message = format!("error parsing form values: {error}");
            Err(ApiError::bad_data(message))
        }
    }
}
