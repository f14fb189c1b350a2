//! The HTTP endpoints: probes and metrics (contract `prometheus.md` §4, `metrics.md`), and the
//! status page and Prometheus' API, which the reference does not have.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, ALLOW, CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::Full;
use hyper::body::Body;
use prometheus_client::registry::Registry;

use super::StatusSources;
use super::metrics::{Exposition, Format, accepts_gzip, compressed, render};
use super::query::{AnswerBody, Call, QueryApi};
use crate::lifecycle::Probe;

const PLAIN_TEXT: &str = "text/plain; charset=utf-8";

/// What answers requests; cheap to clone.
#[derive(Clone, Debug)]
pub struct Endpoints {
    probe: Probe,
    registry: Arc<Registry>,
    status: Option<Arc<StatusSources>>,
    query: Option<QueryApi>,
}

/// An answer that is being made.
type Answering = Pin<Box<dyn Future<Output = Response<AnswerBody>> + Send>>;

/// What a path leads to.
enum Endpoint<'a> {
    Healthy,
    Ready,
    Metrics,
    Page(&'a StatusSources),
    Document(&'a StatusSources),
}

// === impl Endpoints ===

impl Endpoints {
    /// Endpoints for this probe and these metrics.
    pub fn new(probe: Probe, registry: Arc<Registry>) -> Self {
        Self {
            probe,
            registry,
            status: None,
            query: None,
        }
    }

    /// The same with the status page and its document.
    pub fn with_status(mut self, sources: StatusSources) -> Self {
        self.status = Some(Arc::new(sources));
        self
    }

    /// The same with Prometheus' API, where that is wanted.
    pub fn with_query(mut self, query: Option<QueryApi>) -> Self {
        self.query = query;
        self
    }

    /// The handler for `net::http::HttpServer`.
    pub fn handler<B>(self) -> impl Fn(Request<B>) -> Answering + Clone + Send + 'static
    where
        B: Body<Data = Bytes> + Send + 'static,
    {
        move |request| {
            let call = Call::of(request.uri().path());
            if let (Some(query), Some(call)) = (&self.query, call) {
                let query = query.clone();
                return Box::pin(async move { query.answer(call, request).await });
            }
            let response = self.answer(request.method(), request.uri(), request.headers());
            Box::pin(std::future::ready(response.map(AnswerBody::from)))
        }
    }

    /// The answer to one request other than to Prometheus' API. The body of an answer to HEAD is
    /// left out by the server.
    pub fn answer(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Response<Full<Bytes>> {
        let status = self.status.as_deref();
        let endpoint = match (uri.path(), status) {
            ("/-/healthy", _) => Endpoint::Healthy,
            ("/-/ready", _) => Endpoint::Ready,
            ("/metrics", _) => Endpoint::Metrics,
            ("/", Some(status)) => Endpoint::Page(status),
            ("/api/v1/status", Some(status)) => Endpoint::Document(status),
            _ => return text(StatusCode::NOT_FOUND, "404 page not found\n"),
        };
        if !matches!(*method, Method::GET | Method::HEAD) {
            let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n");
            let allowed = HeaderValue::from_static("GET, HEAD");
            refused.headers_mut().insert(ALLOW, allowed);
            return refused;
        }
        match endpoint {
            Endpoint::Healthy => probed(self.probe.is_healthy()),
            Endpoint::Ready => probed(self.probe.is_ready()),
            Endpoint::Metrics => self.metrics(headers),
            Endpoint::Page(status) => status.page(uri.query()),
            Endpoint::Document(status) => status.document().unwrap_or_else(|error| {
                tracing::error!(err = %error, "telling the status failed");
                text(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n"))
            }),
        }
    }

    fn metrics(&self, headers: &HeaderMap) -> Response<Full<Bytes>> {
        let header = |name| {
            let values = headers.get_all(name).iter();
            let values: Vec<&str> = values.filter_map(|value| value.to_str().ok()).collect();
            values.join(",")
        };
        let format = Format::negotiated(&header(ACCEPT));
        let rendered = render(&self.registry, format).and_then(|exposition| {
            let Exposition { text, content_type } = exposition;
            match accepts_gzip(&header(ACCEPT_ENCODING)) {
                true => Ok((compressed(&text)?, content_type, true)),
                false => Ok((Bytes::from(text), content_type, false)),
            }
        });
        match rendered {
            Ok((body, content_type, gzip)) => {
                let mut response = Response::new(Full::new(body));
                let headers = response.headers_mut();
                headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
                if gzip {
                    headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
                }
                response
            }
            Err(error) => {
                tracing::error!(err = %error, "exposing metrics failed");
                text(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n"))
            }
        }
    }
}

fn probed(good: bool) -> Response<Full<Bytes>> {
    match good {
        true => text(StatusCode::OK, "OK"),
        false => text(StatusCode::SERVICE_UNAVAILABLE, "NOT OK\n"),
    }
}

fn text(status: StatusCode, body: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::copy_from_slice(body.as_bytes())));
    *response.status_mut() = status;
    let content_type = HeaderValue::from_static(PLAIN_TEXT);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

#[cfg(test)]
mod tests;
